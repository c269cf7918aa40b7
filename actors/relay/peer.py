"""The peer actor: one connection, from its socket to the supervisor and back.

It has two bounded queues and never waits.

- Inward: what its transport has read waits until the supervisor takes it. If too much waits, it
  tells the transport to stop reading. While part of an array is undecided, it gives nothing more.
- Outward: batches go to the transport while it takes them. Otherwise they wait in the outbox. If
  the outbox is full, the peer is evicted.

It tells the supervisor other things, too: opened, ponged, failed, displaced. These go through the
supervisor's control lane, which no backlog delays.

It reads no messages and decides nothing about them. The lifecycle state (connecting, present,
stale, reaped) is in the record that the supervisor's mesh keeps.
"""

from typing import Final

from actors.frames import Batch
from actors.relay.control import Control, Displaced, Failed, Lagging, Opened, Ponged
from actors.relay.crowd import Crowd
from actors.relay.ledger import Ledger
from actors.relay.mailboxes import Inbox, Outbox
from actors.transports.paced import PacedTransport
from actors.transports.transport import Transport
from protocol.envelope import TEXT_BYTES, Inbound
from protocol.grants import OPEN, Grant
from protocol.limits import Limits
from protocol.mesh.effects import CLOSE_CODES, CLOSE_REASONS, paced_eviction
from protocol.mesh.lagging import Backlog
from protocol.mesh.lifecycle import Cause

LITTLE_BYTES: Final = 4096
LITTLE_MESSAGES: Final = 16
"""So much of one connection may wait uncounted: the ledger's figure for a connection at rest has
room for it. Most reads bring less, and then nothing need be looked at."""


class PeerActor:
    """One connection.

    Its transport calls it as a `Port`, and the supervisor's inbox calls it as a `Sender`. The
    supervisor tells it what to send, and stops it.
    """

    __slots__ = (
        "_backlog",
        "_counted",
        "_crowd",
        "_flush_then",
        "_inbound",
        "_inbox",
        "_is_queued",
        "_is_read_paused",
        "_ledger",
        "_limits",
        "_little_bytes",
        "_little_messages",
        "_outbox",
        "_paced",
        "_partial_bytes",
        "_transport",
        "_writable",
        "close_code",
        "grant",
        "id",
        "inbound_bytes",
        "is_stopped",
        "undecided_bytes",
    )

    def __init__(
        self,
        id: int,
        transport: Transport,
        inbox: "Inbox[PeerActor, Control[PeerActor]]",
        limits: Limits,
        ledger: Ledger,
        *,
        crowd: Crowd,
        grant: Grant = OPEN,
    ) -> None:
        self.id = id
        self.grant = grant
        self.close_code: int | None = None
        self._transport = transport
        self._paced = transport if isinstance(transport, PacedTransport) else None
        self._backlog = None if self._paced is None else Backlog(limits)
        self._inbox = inbox
        self._limits = limits
        self._ledger = ledger
        self._crowd = crowd
        self._partial_bytes = 0
        self._inbound: list[Inbound] = []
        self._counted = 0  # what the ledger knows of them
        self._little_messages = min(
            LITTLE_MESSAGES, limits.inbox_messages_max, limits.quantum_messages
        )
        self._little_bytes = min(LITTLE_BYTES, limits.inbox_bytes_max, limits.quantum_bytes)
        self.inbound_bytes = 0
        self.undecided_bytes = 0
        self._is_queued = False
        self._is_read_paused = False
        self._outbox = Outbox(limits, ledger)
        self._writable = True
        self.is_stopped = False
        self._flush_then: Cause | None = None
        inbox.tell(Opened(self))
        ledger.opened(self, grant.peer)

    # What the transport calls (Port) --------------------------------------------------------------

    async def run(self) -> None:
        """Run the transport. It may return before the connection is over."""
        await self._transport.run(self)

    def received(self, messages: list[Inbound]) -> None:
        """Messages arrived."""
        if self.is_stopped:
            return
        if not self._is_queued and len(messages) == 1:
            self._inbound = messages  # most often: nothing else waits
            self.inbound_bytes = len(messages[0])
            if self.inbound_bytes <= self._little_bytes:
                self._is_queued = True
                self._inbox.ready(self)
                return
        else:
            self._inbound += messages
            self.inbound_bytes += sum(map(len, messages))
        if not self._is_queued:
            self._is_queued = True
            self._inbox.ready(self)
        if self.inbound_bytes > self._little_bytes or len(self._inbound) > self._little_messages:
            self._bound_inbound()

    def _bound_inbound(self) -> None:
        """More than a little waits: it counts, and too much of it ends the reading."""
        limits = self._limits
        if (
            len(self._inbound) > limits.inbox_messages_max
            or self.inbound_bytes > limits.inbox_bytes_max
        ) and not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()
        self._count()

    def _count(self) -> None:
        """Tell the ledger what waits to be taken. A little is part of what a connection costs."""
        held = self.inbound_bytes + TEXT_BYTES * len(self._inbound)
        change, self._counted = held - self._counted, held
        self._ledger.add(change)

    def partial(self, bytes: int) -> None:
        """So many bytes of messages that are not complete wait in the transport."""
        if self.close_code is None:
            change, self._partial_bytes = bytes - self._partial_bytes, bytes
            self._ledger.add(change)

    def turn_s(self, bytes: float, at: float) -> float:
        """The transport has read more than the burst of this connection by so many bytes."""
        return self._crowd.turn_s(bytes, at)

    def ponged(self) -> None:
        """A WebSocket pong arrived."""
        if not self.is_stopped:
            self._inbox.tell(Ponged(self))

    def writable(self) -> None:
        """The transport takes more. Give it what waits."""
        self._writable = True
        outbox = self._outbox
        outbox.done()
        try:
            while self._writable and (batch := outbox.take()) is not None:
                self._writable = self._transport.send(batch)
                if self._writable:
                    outbox.done()
        except Exception as error:
            self.crashed(error)
        if self._paced is not None:
            self._look_behind(self._paced)
        if self._flush_then is not None and not self._outbox.messages:
            self._close(self._flush_then)

    def closed(self, code: int) -> None:
        """The connection is over. Messages that arrived before still count and are taken first."""
        if self.close_code is None:
            self._forget_transport()
            self.close_code = code
            self.is_stopped = True
            self._outbox.clear()
            if not self._is_queued:
                self._is_queued = True
                self._inbox.ready(self)

    def crashed(self, error: BaseException) -> None:
        """End only this connection, because of an exception in this actor or its transport."""
        self._inbox.tell(Failed(self, Cause.CRASHED, error))

    def displaced(self) -> None:
        """The lobby is full. End, unless the presence has come in."""
        self._inbox.tell(Displaced(self))

    # What the supervisor's inbox calls (Sender) ---------------------------------------------------

    def give(self) -> list[Inbound]:
        """Up to a quantum of messages, oldest first: so many, or so many bytes, at least one.

        Nothing while something is `undecided`, because that comes before.
        """
        if self.undecided_bytes:
            self._is_queued = bool(self._inbound)
            if self._is_queued:
                self._inbox.ready(self)
            return []
        if not self._counted:  # a little
            given, self._inbound = self._inbound, []
            self.inbound_bytes = 0
            self._is_queued = False
            return given
        limits = self._limits
        if (
            len(self._inbound) <= limits.quantum_messages
            and self.inbound_bytes <= limits.quantum_bytes
        ):
            given, self._inbound = self._inbound, []
            self.inbound_bytes = 0
            self._is_queued = False
        else:
            count, bytes = self._quantum()
            given = self._inbound[:count]
            del self._inbound[:count]
            self.inbound_bytes -= bytes
            self._is_queued = bool(self._inbound)
            if self._is_queued:
                self._inbox.ready(self)
        if self._is_read_paused and (
            len(self._inbound) <= limits.inbox_messages_max // 2
            and self.inbound_bytes <= limits.inbox_bytes_max // 2
        ):
            self._is_read_paused = False
            self._transport.resume_reading()
        self._count()
        return given

    def _quantum(self) -> tuple[int, int]:
        """How many of the messages that wait are the next quantum, and their bytes."""
        limits = self._limits
        count = bytes = 0
        for message in self._inbound[: limits.quantum_messages]:
            size = len(message)
            if count and bytes + size > limits.quantum_bytes:
                break
            count += 1
            bytes += size
        return count, bytes

    @property
    def waiting(self) -> bool:
        """It has more to give, or what it gave waits for its next turn."""
        return bool(self._inbound or self.undecided_bytes)

    # What the supervisor calls --------------------------------------------------------------------

    def undecided(self, count: int, bytes: int) -> None:
        """So many messages that it gave wait in the mesh. It gets another turn for them."""
        held = bytes + TEXT_BYTES * count
        change, self.undecided_bytes = held - self.undecided_bytes, held
        if held and not self._is_queued:
            self._is_queued = True
            self._inbox.ready(self)
        self._ledger.add(change)

    def detach(self) -> list[Inbound]:
        """Its connection goes on with another actor. Close the socket; returns what has arrived."""
        given = self._inbound
        self._drop_inbound()
        self.undecided(0, 0)
        if not self.is_stopped:
            self._close(Cause.REPLACED, "this connection goes on with another socket")
        return given

    def charge(self, bytes: int) -> None:
        """To decide what it said has cost as much as so many bytes more."""
        self._transport.charge(bytes)

    def tell(self, batch: Batch) -> None:
        """Send what this connection gets from one round."""
        if self.is_stopped:
            return
        try:
            if self._writable:
                if self._transport.send(batch):
                    return
                self._writable = False
                self._outbox.begin(batch)
            elif not self._outbox.put(batch):
                self.evict(_too_slow(self._paced))
            if self._paced is not None:
                self._look_behind(self._paced)
        except Exception as error:
            self.crashed(error)

    def _look_behind(self, paced: PacedTransport) -> None:
        """Much waits for a connection with a pace, or less than before: say so if it is too much,
        or enough of it has gone."""
        behind_s, backlog = paced.behind_s(*self.queued), self._backlog
        if backlog is not None and backlog.changes(behind_s) and not self.is_stopped:
            self._inbox.tell(Lagging(self, backlog.is_lagging))

    def stop(self, cause: Cause, last: Batch | None = None, *, flush: bool = False) -> None:
        """End the connection at once, or, with `flush`, after what is queued.

        `last` is the last batch. Without `flush` it is sent only if nothing else is queued.
        """
        if self.is_stopped:
            return
        if last is not None and (flush or self._writable):
            self.tell(last)
        if flush and self._outbox.messages:
            self._flush_then = cause
        elif not self.is_stopped:
            self._close(cause)

    def _close(self, cause: Cause, reason: str | None = None) -> None:
        self.is_stopped = True
        self._outbox.clear()
        if self.close_code is not None:
            return
        try:
            self._transport.close(CLOSE_CODES[cause], reason or CLOSE_REASONS[cause])
        except Exception as error:
            self.crashed(error)

    def hurry(self) -> None:
        """If the close still waits for the outbox, close now and drop what is in the outbox."""
        if self._flush_then is not None and not self.is_stopped:
            self._close(self._flush_then)

    def abort(self) -> None:
        """Cut the connection now."""
        self.is_stopped = True
        self._outbox.clear()
        self._drop_inbound()
        self._forget_transport()
        self._transport.abort()

    # What the ledger calls (Holder) ---------------------------------------------------------------

    @property
    def outbound_bytes(self) -> int:
        """What waits to be sent, with the batch that its transport is busy with."""
        return self._outbox.bytes + self._outbox.begun_bytes

    @property
    def waiting_bytes(self) -> int:
        """What has arrived and is not decided, with messages that are not complete."""
        return self.inbound_bytes + self.undecided_bytes + self._partial_bytes

    def evict(self, reason: str) -> None:
        """End the connection now (1013), and drop what waits in both directions."""
        self._inbox.tell(Failed(self, Cause.EVICTED, reason=reason))
        self._drop_inbound()
        self._close(Cause.EVICTED, reason)

    def _drop_inbound(self) -> None:
        self._inbound, self.inbound_bytes = [], 0
        self._count()

    def _forget_transport(self) -> None:
        """The transport has nothing more of this connection, in either direction."""
        self._outbox.done()
        self.partial(0)
        self._ledger.closed(self)

    @property
    def queued(self) -> tuple[int, int]:
        """Messages and bytes in the outbox."""
        return self._outbox.messages, self._outbox.bytes


def _too_slow(paced: PacedTransport | None) -> str:
    if paced is not None:  # it may read as fast as it can
        return paced_eviction(paced.frames_per_s, accepts_batches=paced.accepts_batches)
    return CLOSE_REASONS[Cause.EVICTED]
