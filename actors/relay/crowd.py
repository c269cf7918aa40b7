"""All connections of a process that are read beyond their bursts. They take turns.

Each connection alone has its rate (`bytes_in_per_s`). But ten that send long messages at their full
rates finish them at the same moment, and then everybody waits for ten in a row. So those who are in
debt share one more rate, and their turns are spread over time. Nobody else waits for them.
"""

from typing import Final

from protocol.limits import Limits
from protocol.rate import Rate

LONGEST_S: Final = 10.0
"""Nobody waits longer for a turn. Signs of life wait with the rest, so this is less than the time
after which a peer is stale."""


class Crowd:
    """The turns of one process. Times are monotonic seconds."""

    __slots__ = ("_rate",)

    def __init__(self, limits: Limits) -> None:
        self._rate = Rate(limits.crowd_bytes_per_s, burst=1)

    def turn_s(self, bytes: float, at: float) -> float:
        """A connection has been read beyond its burst by so many bytes: how long it must wait."""
        wait_s = max(0.0, self._rate.opens_at() - at)
        if wait_s >= LONGEST_S:
            return LONGEST_S
        self._rate.take(at, bytes)
        return wait_s
