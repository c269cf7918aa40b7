"""Who has said how much to whom lately: for whoever watches the mesh.

It counts only while somebody watches. Nothing is decided by it.
"""

from collections import Counter, deque
from typing import Final, NamedTuple

from protocol.instant import Instant

WITHIN_S: Final = 60.0
PARTS: Final = 12
"""The time is counted in so many parts. The oldest part goes as a whole."""

KEYS_MAX: Final = 4096
"""So many different counts are held for a part. What comes beyond is counted together."""


class Way(NamedTuple):
    """From a peer to a peer, by messages of one type. `to` is None: to everyone."""

    sender: str
    to: str | None
    type: str


BEYOND: Final = Way("", None, "")
"""Where everything is counted for which there is no room."""


class Flow:
    """Counts of the last `WITHIN_S` seconds, or since it began."""

    def __init__(self, now: Instant) -> None:
        self.since_ms = now.wall_ms
        self._parts: deque[Counter[Way]] = deque([Counter()], PARTS + 1)
        self._ends_at = now.at + WITHIN_S / PARTS

    def said(self, sender: str, to: str | None, type: str, now: Instant, count: int = 1) -> None:
        """So many messages went this way."""
        self._go_on(now)
        counts, way = self._parts[-1], Way(sender, to, type)
        if way not in counts and len(counts) >= KEYS_MAX:
            way = BEYOND
        counts[way] += count

    def most(self, count: int, now: Instant) -> list[tuple[Way, int]]:
        """The largest counts, so many of them, the largest first."""
        self._go_on(now)
        total: Counter[Way] = Counter()
        for counts in self._parts:
            total.update(counts)
        return total.most_common(count)

    def _go_on(self, now: Instant) -> None:
        if now.at < self._ends_at:
            return
        part_s = WITHIN_S / PARTS
        passed = int((now.at - self._ends_at) / part_s) + 1
        for _ in range(min(passed, PARTS + 1)):
            self._parts.append(Counter())
        self._ends_at += passed * part_s
