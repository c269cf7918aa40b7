"""A log in this process: several runtimes in one process are one federation, without a server."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import attrs

from actors.backplane.log import Opened
from actors.clock import Clock, SystemClock
from actors.signal import Signal
from protocol.mesh.federation.records import Entry

BYTES_MAX: Final = 2**26
"""So many bytes are kept. Beyond that the oldest entries are dropped."""

READ_MAX: Final = 256
"""So many entries are read at once."""


class MemoryLog:
    """A log. Give the same one to every runtime. `epoch`: its name."""

    def __init__(
        self, epoch: str = "memory", *, bytes_max: int = BYTES_MAX, clock: Clock | None = None
    ) -> None:
        self._epoch = epoch
        self._bytes_max = bytes_max
        self._clock = clock or SystemClock()
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._last = 0
        self._more = Signal()

    async def open(self) -> Opened:
        """It is always there."""
        return Opened(self._epoch, self._last)

    async def append(self, records: Sequence[bytes]) -> None:
        """Append these, in this order."""
        at = self._clock.now().wall_ms / 1000
        for data in records:
            self._last += 1
            self._entries.append(Entry(self._last, at, data))
            self._bytes += len(data)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._entries.popleft().data)
        self._more.set()

    async def read(self, after: int) -> AsyncGenerator[Sequence[Entry], None]:
        """The entries behind this position, as they come."""
        while True:
            if after >= self._last:
                await self._more.wait()
                continue
            first = self._last - len(self._entries) + 1
            start = max(0, after + 1 - first)
            entries = [self._entries[n] for n in range(start, len(self._entries))][:READ_MAX]
            if not entries:  # all of them were dropped
                after = self._last
                continue
            after = entries[-1].position
            entries[-1] = attrs.evolve(entries[-1], behind=self._last - after)
            yield entries

    async def close(self) -> None:
        """Others may still use it."""
