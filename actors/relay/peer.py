"""The peer actor: one connection, from its socket to the supervisor and back.

It owns two bounded queues and never waits. Inward, what its transport read waits until the
supervisor takes it; when that is too much, the transport is told to stop reading. Outward, batches
go straight to the transport while it takes them and wait in the outbox while it does not; when
that overflows, the peer is evicted. What it has to say to the supervisor beside messages (opened,
ponged, over) goes through the supervisor's control lane, which no backlog delays.

It decides nothing about messages and does not read them. Its state in the protocol's sense
(connecting, present, stale, reaped) is the lifecycle record that the supervisor's mesh keeps.
"""

from typing import Final

import attrs

from actors.frames import Batch
from actors.relay.mailboxes import Inbox, Outbox
from actors.transports.transport import Transport
from protocol.envelope import Inbound, size_of
from protocol.limits import Limits
from protocol.mesh.effects import CLOSE_CODES
from protocol.mesh.lifecycle import Cause

_CLOSE_REASONS: Final = {
    Cause.LEFT: "",
    Cause.SILENT: "you were silent for too long",
    Cause.UNANNOUNCED: "you did not send a presence in time",
    Cause.EVICTED: "you read too slowly: your mailbox is full",
    Cause.CRASHED: "an internal error of the relay",
    Cause.SHUTDOWN: "the relay is shutting down",
}


@attrs.frozen
class Opened:
    """Control message: this actor begins."""

    actor: "PeerActor"


@attrs.frozen
class Ponged:
    """Control message: its peer answered a ping."""

    actor: "PeerActor"


@attrs.frozen
class Failed:
    """Control message: it must end now, whatever it still had to say."""

    actor: "PeerActor"
    cause: Cause
    error: BaseException | None = None


Control = Opened | Ponged | Failed


class PeerActor:
    """One connection. Its transport calls it as its `Port`, the supervisor's inbox as a `Sender`,
    and the supervisor tells and stops it."""

    __slots__ = (
        "_flush_then",
        "_inbound",
        "_inbound_bytes",
        "_inbox",
        "_is_queued",
        "_is_read_paused",
        "_limits",
        "_outbox",
        "_stopped",
        "_transport",
        "_writable",
        "close_code",
        "id",
    )

    def __init__(
        self, id: int, transport: Transport, inbox: "Inbox[PeerActor, Control]", limits: Limits
    ) -> None:
        self.id = id
        self.close_code: int | None = None
        self._transport = transport
        self._inbox = inbox
        self._limits = limits
        self._inbound: list[Inbound] = []
        self._inbound_bytes = 0
        self._is_queued = False
        self._is_read_paused = False
        self._outbox = Outbox(limits)
        self._writable = True
        self._stopped = False
        self._flush_then: Cause | None = None
        inbox.tell(Opened(self))

    # What the transport calls (Port) --------------------------------------------------------------

    async def run(self) -> None:
        """Let the transport carry messages until the connection is over."""
        await self._transport.run(self)

    def received(self, messages: list[Inbound]) -> None:
        """Messages arrived. They count with `size_of` here and in `give`, whatever carried them."""
        if self._stopped:
            return
        if self._inbound:
            self._inbound += messages
        else:
            self._inbound = messages
        self._inbound_bytes += sum(map(size_of, messages))
        if not self._is_queued:
            self._is_queued = True
            self._inbox.ready(self)
        limits = self._limits
        if (
            len(self._inbound) > limits.inbox_messages_max
            or self._inbound_bytes > limits.inbox_bytes_max
        ) and not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()

    def ponged(self) -> None:
        """A WebSocket pong arrived."""
        if not self._stopped:
            self._inbox.tell(Ponged(self))

    def writable(self) -> None:
        """The transport takes more: give it what waits."""
        self._writable = True
        try:
            while self._writable and (batch := self._outbox.take()) is not None:
                self._writable = self._transport.send(batch)
        except Exception as error:
            self.crashed(error)
        if self._flush_then is not None and not self._outbox.messages:
            self._close(self._flush_then)

    def closed(self, code: int) -> None:
        """The connection is over. What it said before still counts, so this waits behind it."""
        if self.close_code is None:
            self.close_code = code
            self._outbox.clear()
            if not self._is_queued:
                self._is_queued = True
                self._inbox.ready(self)

    def crashed(self, error: BaseException) -> None:
        """Contain an exception of this actor or its transport: only this connection ends."""
        self._inbox.tell(Failed(self, Cause.CRASHED, error))

    # What the supervisor's inbox calls (Sender) ---------------------------------------------------

    def give(self, quantum: int) -> list[Inbound]:
        """Up to `quantum` messages, oldest first."""
        if len(self._inbound) <= quantum:
            given, self._inbound = self._inbound, []
            self._inbound_bytes = 0
            self._is_queued = False
        else:
            given = self._inbound[:quantum]
            del self._inbound[:quantum]
            self._inbound_bytes -= sum(map(size_of, given))
            self._inbox.ready(self)
        if self._is_read_paused and (
            len(self._inbound) <= self._limits.inbox_messages_max // 2
            and self._inbound_bytes <= self._limits.inbox_bytes_max // 2
        ):
            self._is_read_paused = False
            self._transport.resume_reading()
        return given

    @property
    def waiting(self) -> bool:
        """It has more to give."""
        return bool(self._inbound)

    # What the supervisor calls --------------------------------------------------------------------

    def tell(self, batch: Batch) -> None:
        """What the connection gets from one round."""
        if self._stopped:
            return
        try:
            if self._writable:
                self._writable = self._transport.send(batch)
            elif not self._outbox.put(batch):
                self._inbox.tell(Failed(self, Cause.EVICTED))
                self._close(Cause.EVICTED)
        except Exception as error:
            self.crashed(error)

    def stop(self, cause: Cause, last: Batch | None = None, *, flush: bool = False) -> None:
        """End the connection: at once, or (`flush`) after what is queued. Overtakes all data.

        `last` is what was decided before; without `flush` it goes out only if nothing is queued.
        """
        if self._stopped:
            return
        if last is not None and (flush or self._writable):
            self.tell(last)
        if flush and self._outbox.messages:
            self._flush_then = cause
        elif not self._stopped:
            self._close(cause)

    def _close(self, cause: Cause) -> None:
        self._stopped = True
        self._outbox.clear()
        if self.close_code is not None:
            return
        try:
            self._transport.close(CLOSE_CODES[cause], _CLOSE_REASONS[cause])
        except Exception as error:
            self.crashed(error)

    def hurry(self) -> None:
        """Close now, if that waits for the outbox to empty. What is in it is dropped."""
        if self._flush_then is not None and not self._stopped:
            self._close(self._flush_then)

    def abort(self) -> None:
        """Cut the connection now."""
        self._stopped = True
        self._transport.abort()

    @property
    def queued(self) -> tuple[int, int]:
        """Messages and bytes in the outbox."""
        return self._outbox.messages, self._outbox.bytes
