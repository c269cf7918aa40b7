"""Commands that wait for somebody to serve them: the oldest first, and bounded.

At most `turns_max` wait, and no more than cost `unread_bytes_max`, but one does in any case.
"""

from collections import deque

import attrs

from protocol.limits import MembershipLimits
from protocol.member.messages import Message


@attrs.frozen
class Waiting:
    """A command that waits until `due` (monotonic seconds), and the agents that have it already.

    `size`: what it costs, in bytes. `stands_by`: it is served, but another connection of this peer
    was elected for that.
    """

    message: Message
    size: int
    due: float
    served: frozenset[str] = frozenset()
    stands_by: bool = False


class Unserved:
    """What waits for a service in one peer."""

    def __init__(self, limits: MembershipLimits) -> None:
        self._limits = limits
        self._waiting: deque[Waiting] = deque()
        self._size = 0

    def add(self, waiting: Waiting) -> None:
        """One more waits."""
        self._waiting.append(waiting)
        self._size += waiting.size

    def too_many(self) -> list[Waiting]:
        """The oldest, as far as too much waits. They wait no more."""
        most, bytes_max = self._limits.turns_max, self._limits.unread_bytes_max
        dropped = []
        while len(self._waiting) > 1 and (len(self._waiting) > most or self._size > bytes_max):
            dropped.append(self._shift())
        return dropped

    def expired(self, at: float) -> list[Waiting]:
        """Those whose time is over. They wait no more."""
        expired = []
        while self._waiting and self._waiting[0].due <= at:
            expired.append(self._shift())
        return expired

    def drain(self) -> list[Waiting]:
        """All of them, which wait no more."""
        drained = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        return drained

    @property
    def due(self) -> float | None:
        """When the time of the first is over; None if none waits."""
        return self._waiting[0].due if self._waiting else None

    def _shift(self) -> Waiting:
        oldest = self._waiting.popleft()
        self._size -= oldest.size
        return oldest
