"""The clock: monotonic seconds for deadlines, wall-clock milliseconds for timestamps.

Nothing else in this project reads the time. In tests a `VirtualClock` takes its place; it passes
hours in milliseconds.
"""

import asyncio
import heapq
import time
from typing import Protocol

import anyio
import anyio.lowlevel

from protocol.instant import Instant


class Clock(Protocol):
    """What an actor needs of a clock."""

    def now(self) -> Instant:
        """The time now."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock."""
        ...

    def hold(self, seconds: float) -> None:
        """Stop everything in this thread for `seconds` of this clock."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> Instant:
        """The time now: monotonic seconds, and milliseconds since the epoch."""
        return Instant(time.monotonic(), time.time_ns() // 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await anyio.sleep(seconds)

    def hold(self, seconds: float) -> None:
        """Block this thread for so long. For a millisecond or so."""
        time.sleep(seconds)


class VirtualClock:
    """A clock for tests: its time passes only in `advance`. It starts at 0 s and 1 000 000 ms."""

    def __init__(self) -> None:
        self._at = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._order = 0

    def now(self) -> Instant:
        """The time that it was set to."""
        return Instant(self._at, 1_000_000 + round(self._at * 1000))

    async def sleep(self, seconds: float) -> None:
        """Return when the test has let so many seconds pass."""
        event = anyio.Event()
        self._order += 1
        heapq.heappush(self._sleepers, (self._at + seconds, self._order, event))
        await event.wait()

    def hold(self, seconds: float) -> None:
        """Let no time pass: only `advance` does."""

    async def advance(self, seconds: float) -> None:
        """Let time pass. Every sleeper wakes at its own time, and all of them run."""
        end = self._at + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, event = heapq.heappop(self._sleepers)
            self._at = max(self._at, at)
            event.set()
            await _settle()
        self._at = end

    async def jump(self, seconds: float) -> None:
        """Let time pass as over a suspended process: all sleepers wake at its end, at once."""
        await _settle()
        self._at += seconds
        while self._sleepers and self._sleepers[0][0] <= self._at:
            heapq.heappop(self._sleepers)[2].set()
        await _settle()


async def _settle() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # trio runs what is ready in any order; no count is enough, and it knows of an end.
        await anyio.wait_all_tasks_blocked()
        return
    # asyncio keeps the order: enough for a sleeper that wakes to wake the supervisor, and that one
    # the receivers. (`anyio.wait_all_tasks_blocked` would sleep in real time here.)
    for _ in range(12):
        await anyio.lowlevel.checkpoint()
