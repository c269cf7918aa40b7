"""What this process holds for its connections, in bytes, and who goes first if it is too much.

There is one `Ledger` for all meshes of a process. It counts, at the moment when it begins and ends:

- for every connection what it costs at rest, and the presences of all rosters: what *stands*.
- what has arrived and is not decided: inboxes with more than a little, and messages of which a part
  is still to come.
- what waits to be sent: the batches in outboxes, and the batch that a transport is busy with. What
  several connections share counts once, however many of them hold it.

It also knows how many connections the bearer of each grant has.

Nothing is counted for a message that a socket takes at once. Not counted are the buffers below:
what asyncio holds while its socket is not blocked (64 KiB at most for a connection), and what the
kernel holds. Both are bounded for each connection (actors/transports/uvicorn.py).

What stands may be half of the bound: beyond that newcomers are refused. Beyond the whole bound the
connections with the heaviest queues are evicted, until seven eighths are enough.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from actors.frames import Batch
from actors.relay.memory import memory_bytes
from protocol.envelope import TEXT_BYTES
from protocol.limits import Limits

CONNECTION_BYTES: Final = 16 * 1024
"""What a connection costs at rest. Measured over 1 500 of them: 7.4 KB each, and 8.5 KB with a
short presence. The rest is for the little that may wait uncounted (actors/relay/peer.py), for the
frame of its presence (actors/relay/tapes.py), for agents in the roster, and for what allocators
leave unused."""
LEAST_BYTES: Final = 2**26
"""The default bound is at least this."""

REASON: Final = "the relay holds too much, and you read too slowly or send too much at once"


class Holder(Protocol):
    """A connection for which something is held."""

    @property
    def outbound_bytes(self) -> int:
        """What waits to be sent, with the batch that its transport is busy with."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """What has arrived and is not decided, with messages that are not complete."""
        ...

    @property
    def is_stopped(self) -> bool:
        """It has been closed, and its transport may still have something."""
        ...

    def evict(self, reason: str) -> None:
        """Close the connection, and drop its queues."""
        ...

    def abort(self) -> None:
        """Cut the connection. Everything that is held for it is dropped."""
        ...


class Ledger:
    """The account of one process. `held` is the sum (bytes), `bytes_max` the bound.

    After each call that adds something the sum is within the bound, because `relieve` has seen to
    it. So an addition may evict any connection, also the one for which it is made.
    """

    __slots__ = (
        "_bearers",
        "_holders",
        "_kept",
        "_texts",
        "bytes_max",
        "held",
        "standing",
    )

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        self.standing = 0
        self._holders: dict[Holder, str | None] = {}  # and whose grant each has
        self._bearers: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._texts: dict[int, int] = {}  # how often a text is held, by identity

    @classmethod
    def within(cls, limits: Limits) -> "Ledger":
        """An empty ledger with the bound of these limits, or the default for this process."""
        return cls(limits.held_bytes_max or max(LEAST_BYTES, memory_bytes() // 4))

    # What stands ----------------------------------------------------------------------------------

    def has_room(self, bytes: int = CONNECTION_BYTES) -> bool:
        """So much more may stand."""
        return self.standing + bytes <= self.bytes_max // 2

    def opened(self, holder: Holder, bearer: str | None = None) -> None:
        """A connection begins. `bearer`: whom its grant names, if it names anybody."""
        self._holders[holder] = bearer
        if bearer is not None:
            self._bearers[bearer] = self.connections_of(bearer) + 1
        self.stand(CONNECTION_BYTES)

    def closed(self, holder: Holder) -> None:
        """A connection is over. Calling it again does nothing."""
        if holder in self._holders:
            bearer = self._holders.pop(holder)
            if bearer is not None:
                self._bearers[bearer] -= 1
                if not self._bearers[bearer]:
                    del self._bearers[bearer]
            self.standing -= CONNECTION_BYTES
            self.held -= CONNECTION_BYTES

    def connections_of(self, bearer: str) -> int:
        """How many connections the bearer of this name has."""
        return self._bearers.get(bearer, 0)

    def keep(self, mesh: str, bytes: int) -> None:
        """What this mesh keeps, most of it presences, has so many bytes now."""
        kept = self._kept.get(mesh, 0)
        if bytes != kept:
            self._kept[mesh] = bytes
            self.stand(bytes - kept)

    def stand(self, bytes: int) -> None:
        """So much more stands, or less, if it is negative."""
        self.standing += bytes
        self.add(bytes)

    # What waits -----------------------------------------------------------------------------------

    def add(self, bytes: int) -> None:
        """So much more is held, for one connection alone."""
        self.held += bytes
        if self.held > self.bytes_max and bytes > 0:
            self.relieve()

    def hold(self, batch: Batch) -> None:
        """One more connection holds this batch."""
        added = 0
        for shared in batch.shared:
            if not shared.holders:
                added += shared.held_bytes
            shared.holders += 1
        held = self._texts
        for text in batch.own_texts:
            key = id(text)
            times = held.get(key, 0)
            if not times:
                added += len(text) + TEXT_BYTES
            held[key] = times + 1
        self.add(added)

    def drop(self, batch: Batch) -> None:
        """One connection less holds this batch."""
        for shared in batch.shared:
            shared.holders -= 1
            if not shared.holders:
                self.held -= shared.held_bytes
        held = self._texts
        for text in batch.own_texts:
            key = id(text)
            times = held[key]
            if times == 1:
                del held[key]
                self.held -= len(text) + TEXT_BYTES
            else:
                held[key] = times - 1

    # Too much -------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Evict the heaviest, until what is held is under seven eighths of the bound.

        What counts is the direction that holds more in all: while many do not read, whoever sends a
        large message is not to blame, nor is a slow reader while many send halves of messages.
        What the transports of evicted connections still have goes with their sockets, within
        `close_within_s`. If there is no room for that, sockets are cut.
        """
        enough = self.bytes_max * 7 // 8
        holders = tuple(self._holders)
        keys = [_outbound, _waiting]
        if sum(map(_waiting, holders)) > sum(map(_outbound, holders)):
            keys.reverse()
        leaving = sum(_weight(holder) for holder in holders if holder.is_stopped)
        for key in keys:
            for holder in sorted(holders, key=key, reverse=True):
                if self.held - leaving <= enough or not key(holder):
                    break
                if not holder.is_stopped:
                    holder.evict(REASON)
                    leaving += _weight(holder)
        if self.held > self.bytes_max:
            self._cut(holders)

    def _cut(self, holders: Iterable[Holder]) -> None:
        for holder in sorted(holders, key=_weight, reverse=True):
            if holder.is_stopped:
                holder.abort()
                if self.held <= self.bytes_max:
                    break


def _outbound(holder: Holder) -> int:
    return holder.outbound_bytes


def _waiting(holder: Holder) -> int:
    return holder.waiting_bytes


def _weight(holder: Holder) -> int:
    return holder.outbound_bytes + holder.waiting_bytes
