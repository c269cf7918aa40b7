"""Visits: what comes in without a connection, from its first byte until all of it is decided.

A `VisitActor` belongs to whoever asks, such as an HTTP request. It collects what is said, counts it
in the ledger as a connection counts what it has read, and waits for the receipts. If the process
holds too much, it is evicted as a connection is.

A `VisitQueue` belongs to the supervisor of a mesh. In each round the visits have a part of the
round, and each of them a quantum of it (protocol/mesh/visiting.py decides). So what they say is in
the one order of the mesh, and neither a long visit nor many keep the connections waiting.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Self

import anyio

from actors.clock import Clock
from actors.relay.ledger import Ledger
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh
from protocol.mesh.visiting import Rates, Receipt, Visit

log = logging.getLogger(__name__)

PART: Final = 4
"""All visits together have one part in so many of a round, at least one quantum."""


class VisitActor:
    """One visit to `mesh`. Use it with `with`: then the ledger knows it no longer than it lasts.

    The ledger calls it as a `Holder`. `rates`: those of the bearer of `grant`. `receipts`: what
    came of each message. `is_list`: these were an array. `failure`: why there are none.
    """

    def __init__(self, mesh: str, grant: Grant, rates: Rates, ledger: Ledger, clock: Clock) -> None:
        self.mesh = mesh
        self.is_list = False
        self.is_stopped = False
        self.failure: str | None = None
        self.receipts: Sequence[Receipt] = ()
        self._grant = grant
        self._rates = rates
        self._ledger = ledger
        self._clock = clock
        self._parts: list[bytes] = []
        self._visit: Visit | None = None
        self._over = anyio.Event()
        self._counted = 0

    def __enter__(self) -> Self:
        self._ledger.opened(self, self._grant.peer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._ledger.closed(self)

    # What is said ---------------------------------------------------------------------------------

    def take(self, part: bytes) -> None:
        """A part of what is said has come in. If it `is_stopped`, nothing more need be read."""
        if not self.is_stopped:
            self._rates.bytes.take(self._clock.now().at, len(part))
            self._parts.append(part)
            self._count(self._counted + len(part))

    def complete(self) -> None:
        """Nothing more comes."""
        if not self.is_stopped:
            self._visit = Visit(b"".join(self._parts), self._grant, self._rates)
            self._visit.when_over = self._end
        self._parts.clear()

    async def wait(self) -> None:
        """Wait until all of it is decided, or it is stopped."""
        await self._over.wait()

    # What the queue calls -------------------------------------------------------------------------

    def decide(self, mesh: LocalMesh, now: Instant, message_bytes: int) -> int:
        """Have a quantum decided. Returns for how many messages that counts, if so many bytes count
        as one."""
        visit = self._visit
        assert visit is not None, "it is in no queue before it is complete"
        before, begins = visit.held_bytes, not visit.has_begun
        count = mesh.visits.decide(visit, now)
        self._rates.bytes.take(now.at, mesh.codec.take_extra_bytes())
        left = visit.held_bytes
        if not self.is_stopped:
            self._count(left)
        return max(count, (before if begins else before - left) // message_bytes)

    @property
    def has_more(self) -> bool:
        """Something of it waits to be said."""
        return self._visit is not None and self._visit.has_more

    def _end(self) -> None:
        """Everything is decided."""
        visit = self._visit
        if visit is not None:  # else it has failed meanwhile
            self.receipts, self.is_list = visit.receipts, visit.is_list
            self._stop()

    def fail(self, reason: str) -> None:
        """It cannot be decided."""
        if not self.is_stopped:
            self.failure = reason
            self._stop()

    # What the ledger calls (Holder) ---------------------------------------------------------------

    @property
    def outbound_bytes(self) -> int:
        """Nothing waits to be sent."""
        return 0

    @property
    def waiting_bytes(self) -> int:
        """What has come in and is not decided."""
        return self._counted

    def evict(self, reason: str) -> None:
        """Drop what waits. What is decided stays so."""
        self.fail(reason)

    def abort(self) -> None:
        """It holds nothing when it is stopped."""

    # ----------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self.is_stopped = True
        self._visit = None
        self._parts.clear()
        self._count(0)
        self._over.set()

    def _count(self, bytes: int) -> None:
        change, self._counted = bytes - self._counted, bytes
        self._ledger.add(change)


class VisitQueue:
    """The visits to one mesh that wait to be decided. Calls `wake` when there is one more.

    `waiting`: these. (It is looked at in every round.)
    """

    def __init__(self, limits: Limits, wake: Callable[[], None] = lambda: None) -> None:
        self._most = limits.round_messages_max // PART
        self._message_bytes = max(1, limits.round_bytes_max // limits.round_messages_max)
        self._wake = wake
        self.waiting: deque[VisitActor] = deque()

    def put(self, visit: VisitActor) -> None:
        """This one is complete, and waits from now on."""
        self.waiting.append(visit)
        self._wake()

    def decide(self, mesh: LocalMesh, now: Instant) -> int:
        """Give each a turn, while the part of the round lasts; at least one. Returns for how many
        messages that counts."""
        count = 0
        for _ in range(len(self.waiting)):
            if count >= self._most and count:
                break
            visit = self.waiting.popleft()
            if visit.is_stopped:
                continue
            try:
                count += visit.decide(mesh, now, self._message_bytes) + mesh.work.take()
            except Exception as error:
                log.warning("crashed", extra={"mesh": visit.mesh}, exc_info=error)
                visit.fail("an internal error of the relay")
            if visit.has_more:
                self.waiting.append(visit)
        return count

    def abort(self) -> None:
        """Nothing is decided any more."""
        while self.waiting:
            self.waiting.popleft().fail("the mesh has ended; try again")
