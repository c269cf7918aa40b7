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


class Rests:
    """The rests of one supervisor.

    A write costs the kernel about the same whether it carries one message or twenty. So after a
    round that sent only a few messages to everyone, the next round waits for as long as this one
    took, `longest_s` at most. Meanwhile more messages arrive and share the next write. A busy mesh
    spends at most half of its time on small writes, and with more receivers it gathers more. A
    quiet mesh, or one with so few receivers that a write takes hardly any time, never waits.
    """

    __slots__ = ("_clock", "_flushes", "_longest_s", "_small_s")

    def __init__(self, longest_s: float, clock: Clock) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._flushes = 1  # passes of the event loop in which sockets take what was sent
        self._small_s = 0.0  # what the round took, if it sent few messages to everyone

    def begin(self) -> None:
        """A round has decided something or nothing, and has sent nothing yet."""
        self._flushes, self._small_s = 1, 0.0

    def sent(self, count: int, bytes: int, began_at: float) -> None:
        """The round has sent so many messages to each of many, with so many bytes in all. It began
        to write then (monotonic seconds)."""
        self._flushes += bytes // FLUSH_BYTES
        if count < ENOUGH and bytes <= LITTLE_BYTES:
            self._small_s = self._clock.now().at - began_at

    async def rest(self, *, has_more: bool) -> None:
        """Let sockets be read before the next round. `has_more`: something waits for it already."""
        gap = min(self._small_s, self._longest_s)
        if gap >= LEAST_GAP_S:
            await self._clock.sleep(gap)
        elif has_more:
            for _ in range(self._flushes):
                await anyio.lowlevel.checkpoint()
