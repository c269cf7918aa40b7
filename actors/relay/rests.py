"""How long a mesh rests between two rounds, so that more comes together for the next one."""

import math
from collections.abc import Callable
from typing import Final

import anyio.lowlevel

from actors.clock import Clock
from protocol.rate import Rate

ENOUGH: Final = 20
"""A write of so many messages costs little more than a write of one. So it needs no rest. Of those
that only tell who came or went there is never enough."""
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
UNHURRIED: Final = 4
"""After a long round that only told who came or went, the next one waits so many times as long: in
a large mesh it takes longer to tell everybody than to let twenty more in. (Not if there were only
`GATHERS` of them: one peer that comes and goes all the time must not delay what the others say.)"""
FEW: Final = 16
"""To so few receivers, or fewer, nothing is saved by gathering, and nobody looks at the clock."""
WRITES_PER_S: Final = 20_000
"""So many small writes take about a tenth of a core. Beyond that it is worth while to gather."""
LONE: Final = 3
"""A round of so few private messages, or fewer, has gathered nothing."""
LONE_PER_S: Final = 4000
"""So many of those take about a tenth of a core, too: for each message the process wakes up, asks
the kernel which sockets have something, and reads one."""
AWAKE_S: Final = 0.1e-3
"""Between two holds there is as much time as this, in which an event loop comes round at least
once."""
BURST_S: Final = 0.1
"""What comes at these rates in so much time may come at once before that."""


def _rate(per_s: float) -> Rate:
    return Rate(per_s, per_s * BURST_S + 1)


def _is_over(rate: Rate, count: float, at: float) -> bool:
    """Whether so many more are too many for this rate. Only so much counts that it is soon over."""
    rate.take(at, count)
    rate.forgive(at, 2 * BURST_S)
    return rate.opens_at() > at


class Holds:
    """The moments in which a process does nothing at all, so that what comes in meanwhile is read
    together. All its meshes share them, or their holds would add up: between two of them the
    process does everything that waits. So they add a millisecond to that, and no more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lone = _rate(LONE_PER_S)
        self._ended_at = -math.inf
        self._has_gathered = False

    def is_due(self, count: int, at: float) -> bool:
        """A round had so many private messages, and nothing else. True: to hold now would pay."""
        is_lone, is_over = count <= LONE, False
        if is_lone or self._has_gathered:  # what is gathered counts, or that would end itself
            is_over = _is_over(self._lone, count, at)
        self._has_gathered = is_lone and is_over
        return self._has_gathered

    def hold(self) -> None:
        """Stop the thread for `LEAST_GAP_S`, unless another mesh did so just now."""
        if self._clock.now().at - self._ended_at >= AWAKE_S:
            self._clock.hold(LEAST_GAP_S)
            self._ended_at = self._clock.now().at


class Rests:
    """The rests of one supervisor.

    A write costs the kernel about the same whether it carries one message or twenty. So after a
    round that sent only a few messages to everyone, the next round may wait. Meanwhile more
    messages arrive and share the next write.

    - If the round took `LEAST_GAP_S` or longer, the next one waits as long as that, and `UNHURRIED`
      times as long if several came or went and nobody said anything. So with more receivers the
      mesh gathers more.
    - If it was shorter, but the mesh has lately sent so much in small writes that these take a good
      part of the time (or would, if it did not gather), the next one waits `LEAST_GAP_S`, or twice
      that.
    - If it had only a few private messages, and the process had very many such rounds lately, all
      of it stops for `LEAST_GAP_S` (`holds`; None: it must not). Nothing would be saved if only the
      round waited, because every message that comes in wakes the process.

    No rest is longer than `longest_s`. A quiet mesh never waits, nor does one with few receivers.
    """

    __slots__ = (
        "_clock",
        "_flushes",
        "_holds",
        "_is_lone",
        "_longest_s",
        "_pays_s",
        "_small_s",
        "_writes",
    )

    def __init__(self, longest_s: float, clock: Clock, holds: Holds | None) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._holds = holds
        self._writes = _rate(WRITES_PER_S)  # messages to one receiver, in small writes
        # Since the last rest:
        self._flushes = 1  # passes of the event loop in which sockets take what was sent
        self._small_s = 0.0  # what the round took, if it sent few messages to everyone
        self._pays_s = 0.0  # how long it pays to gather more, if small writes take much of the time
        self._is_lone = False  # it would pay to hold

    def began_at(self, receivers: int) -> float | None:
        """A round is about to write to so many receivers: when (monotonic seconds), or None if the
        time does not matter."""
        return self._clock.now().at if receivers > FEW else None

    def sent(
        self,
        receivers: int,
        count: int,
        bytes: int,
        began_at: float | None,
        came_or_went: int = 0,
    ) -> None:
        """The round has sent so many messages to each of many, with so many bytes in all. Of these
        messages so many only tell who `came_or_went`."""
        self._flushes += bytes // FLUSH_BYTES
        if began_at is None or count - came_or_went >= ENOUGH or bytes > LITTLE_BYTES:
            return
        now = self._clock.now().at
        self._small_s = now - began_at
        if self._small_s >= LEAST_GAP_S and came_or_went >= count > GATHERS:
            self._small_s *= UNHURRIED
        if _is_over(self._writes, receivers * count, now):  # or would be, if it did not gather
            self._pays_s = LEAST_GAP_S if count > GATHERS else 2 * LEAST_GAP_S

    def sent_privately(self, count: int, at: float) -> None:
        """The round has sent so many private messages, and nothing else, at this time."""
        if self._holds is not None and self._longest_s >= LEAST_GAP_S:
            self._is_lone = self._holds.is_due(count, at)

    async def rest(self, waiting: int, meanwhile: Callable[[], None] | None = None) -> None:
        """Let sockets be read before the next round, for which so many connections have something
        already. `meanwhile`: called every `LEAST_GAP_S` of a rest."""
        gap = min(max(self._small_s, self._pays_s), self._longest_s)
        flushes, is_lone = self._flushes, self._is_lone
        self._flushes, self._small_s, self._pays_s, self._is_lone = 1, 0.0, 0.0, False
        if gap >= LEAST_GAP_S and waiting < ENOUGH:  # or enough has been gathered
            if meanwhile is None:
                await self._clock.sleep(gap)
                return
            until = self._clock.now().at + gap
            while self._clock.now().at < until:
                await self._clock.sleep(LEAST_GAP_S)
                meanwhile()
        elif is_lone and self._holds is not None:
            await anyio.lowlevel.checkpoint()  # what was sent is written before that
            self._holds.hold()
        elif waiting:
            for _ in range(flushes):
                await anyio.lowlevel.checkpoint()
