"""What carries messages between a peer actor and the peer, and the in-memory one.

A `Transport` is one connection. It calls its `Port` (the peer actor) when something arrives or when
it can take more, and is told what to send; neither side ever waits for the other, so the same peer
actor runs over a raw asyncio protocol, over any ASGI server, in memory, and under a test's thumb.

    MemoryTransport     both ends in this process                      (here)
    AsgiTransport       any ASGI server, one send per message    (actors/asgi_transport.py)
    UvicornTransport    one write per turn, one callback per read   (actors/uvicorn_transport.py)

A `Link` is the other end of the same thing, as a peer in Python holds it: `MemoryLink` here,
`WebSocketLink` in actors/websocket_link.py.
"""

from collections import deque
from typing import Protocol, Self

import anyio.lowlevel

from actors.fanout import Batch
from actors.mailbox import Signal
from protocol.envelope import ErrorCode
from protocol.mesh import Inbound, Unreadable

NO_STATUS = 1005
"""RFC 6455: the peer closed without a code."""
ABNORMAL = 1006
"""RFC 6455: the connection was lost without a close."""


class Port(Protocol):
    """What a transport calls. No call waits, and none raises."""

    def received(self, messages: list[Inbound], size: int) -> None:
        """Messages arrived, in this order, `size` bytes in all; `Unreadable` stands in the place
        of one that is no text. The list is the port's from now on."""
        ...

    def ponged(self) -> None:
        """A WebSocket pong arrived."""
        ...

    def writable(self) -> None:
        """The transport can take more, after a `send` that returned False."""
        ...

    def closed(self, code: int) -> None:
        """The connection is over. Nothing comes after this, and it comes exactly once."""
        ...

    def crashed(self, error: BaseException) -> None:
        """The transport met an exception where nobody had called it."""
        ...


class Transport(Protocol):
    """What a peer actor calls. No call waits."""

    @property
    def writes_frames(self) -> bool:
        """It writes the `buffers` of a batch as they are, not its `texts`."""
        ...

    def hold_little(self) -> None:
        """Leave what the peer does not read with whoever sends it, not in buffers on the way, as
        far as that can be had. Called at most once, before `run`."""
        ...

    async def run(self, port: Port) -> None:
        """Carry messages until the connection is over. `port.closed` is called before it
        returns."""
        ...

    def send(self, batch: Batch) -> bool:
        """Take a batch. False: it is taken, but no more until `port.writable`."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close after what was sent, within `close_within_s`. Further `send`s are dropped."""
        ...

    def abort(self) -> None:
        """Cut the connection now."""
        ...

    def pause_reading(self) -> None:
        """Deliver nothing more for now. What was read already may still come."""
        ...

    def resume_reading(self) -> None:
        """Deliver again."""
        ...


def size_of(message: Inbound) -> int:
    """The bytes that a message counts for; one that is no text holds none."""
    return len(message) if isinstance(message, bytes) else 0


def binary_frame() -> Unreadable:
    """Stands for a binary frame."""
    return Unreadable(ErrorCode.BINARY, "a binary frame: the protocol is JSON text")


class LinkClosed(Exception):
    """The link is over: `code` and `reason` as in a WebSocket close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Link(Protocol):
    """A peer's end of a connection. One task sends, one receives."""

    @property
    def is_open(self) -> bool:
        """It has not been closed, as far as it knows."""
        ...

    async def send(self, text: str) -> None:
        """Send one message; waits while the other side takes none. Raises LinkClosed."""
        ...

    async def receive(self) -> str | bytes:
        """The next frame. Raises LinkClosed."""
        ...

    async def aclose(self) -> None:
        """Close this end (1000)."""
        ...


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
