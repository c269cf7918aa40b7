"""The in-memory transport: both ends of a connection in this process."""

from collections import deque
from typing import Self

import anyio.lowlevel

from actors.frames import Batch
from actors.link import ABNORMAL, LinkClosed
from actors.signal import Signal
from actors.transports.transport import Port


class MemoryLink:
    """A peer's end of an in-memory connection: send text, receive text.

    At most `window` messages wait here to be received; beyond that they wait in the peer actor's
    outbox, with its bounds and its eviction, exactly as for a slow socket.
    """

    def __init__(self, window: int = 256) -> None:
        self._window = window
        self._arrived: deque[str] = deque()
        self._changed = Signal()
        self._paused = False
        self._closed: LinkClosed | None = None
        self._full = False
        self._port: Port | None = None
        self.transport = MemoryTransport(self)

    async def send(self, text: str) -> None:
        """Send one message. Waits while the relay does not read. Raises LinkClosed."""
        while True:
            if self._closed is not None:
                raise self._closed
            if self._port is not None and not self._paused:
                break
            await self._changed.wait()
        message = text.encode()
        self._port.received([message], len(message))
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> str:
        """The next message. Raises LinkClosed when there is none left and there will be none."""
        while not self._arrived:
            if self._closed is not None:
                raise self._closed
            await self._changed.wait()
        text = self._arrived.popleft()
        if self._full and len(self._arrived) <= self._window // 2:
            self._full = False
            if self._port is not None:
                self._port.writable()
        return text

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close this end. Twice is once."""
        self._end(code, reason)

    @property
    def is_open(self) -> bool:
        """Neither end has closed it."""
        return self._closed is None

    async def aclose(self) -> None:
        """Close this end, as `Link` has it."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return await self.receive()
        except LinkClosed:
            raise StopAsyncIteration from None

    def _end(self, code: int, reason: str) -> None:
        if self._closed is None:
            self._closed = LinkClosed(code, reason)
            if self._port is not None:
                self._port.closed(code)
            self._changed.set()


class MemoryTransport:
    """The relay's end of a `MemoryLink`."""

    writes_frames = False

    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    def hold_little(self) -> None:
        pass  # a link holds its window

    async def run(self, port: Port) -> None:
        link = self._link
        link._port = port
        if link._closed is not None:  # before it was ever attached
            port.closed(link._closed.code)
        link._changed.set()
        try:
            while link._closed is None:
                await link._changed.wait()
        finally:
            link._end(ABNORMAL, "the relay's task ended")

    def send(self, batch: Batch) -> bool:
        link = self._link
        if link._closed is not None:
            return True
        link._arrived.extend(text.decode() for text in batch.texts)
        link._full = len(link._arrived) >= link._window
        link._changed.set()
        return not link._full

    def close(self, code: int, reason: str) -> None:
        self._link._end(code, reason)

    def abort(self) -> None:
        self._link._end(ABNORMAL, "")

    def pause_reading(self) -> None:
        self._link._paused = True

    def resume_reading(self) -> None:
        self._link._paused = False
        self._link._changed.set()
