"""How long a supervisor rests between two rounds, so that sockets can be read meanwhile."""

from typing import Final

import anyio.lowlevel

from actors.clock import Clock

ENOUGH: Final = 20
"""A write of so many messages costs little more than a write of one. So it needs no rest."""
LITTLE_BYTES: Final = 16 * 1024
"""A write of more than this costs by its bytes, so nothing is saved by gathering more for it."""
FLUSH_BYTES: Final = 128 * 1024
"""A socket takes at least so much in one pass of the event loop, if its receiver reads. A round
that sends more is followed by more passes, or rounds would outrun those who read."""
LEAST_GAP_S: Final = 1e-3
"""There are no shorter rests, because the timers of event loops count in milliseconds."""
GATHERS: Final = 2
"""A round that sent no more messages than this has gathered little, so the next one gathers for
longer: twice `LEAST_GAP_S`."""
WRITES_PER_S: Final = 20_000
"""So many small writes take about a tenth of a core. Beyond that it is worth while to gather."""
BURST_WRITES: Final = 2000
"""So many there may be at once before that."""
FEW: Final = 16
"""To so few receivers, or fewer, nothing is saved by gathering, and nobody looks at the clock."""


class Rests:
    """The rests of one supervisor.

    A write costs the kernel about the same whether it carries one message or twenty. So after a
    round that sent only a few messages to everyone, the next round may wait. Meanwhile more
    messages arrive and share the next write.

    - If the round took `LEAST_GAP_S` or longer, the next one waits as long as that. So with more
      receivers the mesh gathers more.
    - If it was shorter, but the mesh has lately sent so much in small writes that these take a good
      part of the time (or would, if it did not gather), the next one waits `LEAST_GAP_S`, or twice
      that.

    No rest is longer than `longest_s`. A quiet mesh never waits, nor does one with few receivers.
    """

    __slots__ = ("_clock", "_count", "_flushes", "_longest_s", "_small_at", "_small_s", "_writes")

    def __init__(self, longest_s: float, clock: Clock) -> None:
        self._longest_s = longest_s
        self._clock = clock
        # Since the last rest:
        self._flushes = 1  # passes of the event loop in which sockets take what was sent
        self._small_s = 0.0  # what the round took, if it sent few messages to everyone,
        self._count = 0  # and how many
        # Messages to one receiver that went out in small writes, beyond `WRITES_PER_S` (a leaky
        # bucket), and when the last did. Gathered ones count each, or gathering would end itself.
        self._writes = 0.0
        self._small_at = 0.0

    def began_at(self, receivers: int) -> float | None:
        """A round is about to write to so many receivers: when (monotonic seconds), or None if the
        time does not matter."""
        return self._clock.now().at if receivers > FEW else None

    def sent(self, receivers: int, count: int, bytes: int, began_at: float | None) -> None:
        """The round has sent so many messages to each of many, with so many bytes in all."""
        self._flushes += bytes // FLUSH_BYTES
        if began_at is None or count >= ENOUGH or bytes > LITTLE_BYTES:
            return
        now = self._clock.now().at
        self._small_s = now - began_at
        self._count = count
        left = max(0.0, self._writes - (now - self._small_at) * WRITES_PER_S)
        self._writes = min(2 * BURST_WRITES, left + receivers * count)
        self._small_at = now

    def _gap_s(self) -> float:
        gap = self._small_s
        if gap and self._writes > BURST_WRITES:
            gap = max(gap, LEAST_GAP_S if self._count > GATHERS else 2 * LEAST_GAP_S)
        gap = min(gap, self._longest_s)
        return gap if gap >= LEAST_GAP_S else 0.0

    async def rest(self, *, has_more: bool) -> None:
        """Let sockets be read before the next round. `has_more`: something waits for it already."""
        gap, flushes = self._gap_s(), self._flushes
        self._flushes, self._small_s = 1, 0.0
        if gap:
            await self._clock.sleep(gap)
        elif has_more:
            for _ in range(flushes):
                await anyio.lowlevel.checkpoint()
