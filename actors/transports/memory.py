"""The in-memory transport: both ends of a connection in this process.

    link, transport = memory_pair()
    await runtime.serve(transport, "my mesh")    # the relay's end
    await link.send('{"type": "presence", ...}')   # the peer's end

`Runtime.connect` does this for you.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, Self

import anyio.lowlevel

from actors.frames import Batch
from actors.link import ABNORMAL, LinkClosed
from actors.signal import Signal
from actors.transports.transport import Port
from protocol.envelope import Text

WINDOW_BYTES: Final = 2**16
"""If so many bytes wait at the peer's end, further ones wait in the peer actor's outbox."""


def memory_pair(window: int = 256) -> tuple["MemoryLink", "MemoryTransport"]:
    """Make a connection. Returns the peer's end and the relay's end of it.

    At most about `window` messages or `WINDOW_BYTES` wait at the peer's end. More wait in the peer
    actor's outbox, with its bounds and its eviction, exactly as with a slow socket.
    """
    connection = _Connection(window)
    return MemoryLink(connection), MemoryTransport(connection)


class MemoryLink:
    """The peer's end: send text, receive text. Made by `memory_pair`."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection

    @property
    def is_open(self) -> bool:
        """Neither end has closed it."""
        return self._connection.closed is None

    async def send(self, text: str) -> None:
        """Send one message. Waits while the relay does not read. Raises LinkClosed."""
        connection = self._connection
        while not connection.is_read:
            if connection.closed is not None:
                raise connection.closed
            await connection.changed.wait()
        connection.to_relay(text)
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> str:
        """The next message. Raises LinkClosed when the link is over and no message is left."""
        connection = self._connection
        while not connection.arrived:
            if connection.closed is not None:
                raise connection.closed
            await connection.changed.wait()
        return connection.take()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close this end. Calling it again does nothing."""
        self._connection.end(code, reason)

    async def aclose(self, code: int = 1000) -> None:
        """Close this end."""
        self.close(code)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return await self.receive()
        except LinkClosed:
            raise StopAsyncIteration from None


class MemoryTransport:
    """The relay's end: a `Transport`. Made by `memory_pair`."""

    writes_frames = False

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection

    def hold_little(self) -> None:
        pass  # a connection holds its window, no more

    async def run(self, port: Port) -> None:
        connection = self._connection
        connection.attach(port)
        try:
            while connection.closed is None:
                await connection.changed.wait()
        finally:
            connection.end(ABNORMAL, "the relay's task ended")

    def send(self, batch: Batch) -> bool:
        return self._connection.to_peer(batch.texts)

    def close(self, code: int, reason: str) -> None:
        self._connection.end(code, reason)

    def abort(self) -> None:
        self._connection.end(ABNORMAL, "")

    def charge(self, bytes: int) -> None:
        pass  # it does not bound how fast it reads

    def pause_reading(self) -> None:
        self._connection.set_reading(False)

    def resume_reading(self) -> None:
        self._connection.set_reading(True)


class _Connection:
    """What both ends share: the messages that wait for the peer, and whether each end may go on.

    Only this class changes its attributes. `changed` is set with every change for which one end may
    wait.
    """

    def __init__(self, window: int) -> None:
        self.arrived: deque[Text] = deque()  # as the relay has them: the peer's copy is made last
        self.changed = Signal()
        self.closed: LinkClosed | None = None
        self._window = window
        self._arrived_bytes = 0
        self._is_full = False  # the transport has said so
        self._wants_more = True  # the port has not paused reading
        self._port: Port | None = None

    @property
    def is_read(self) -> bool:
        """The relay would take a message of the peer now."""
        return self._port is not None and self._wants_more and self.closed is None

    def attach(self, port: Port) -> None:
        """From now on `port` gets what the peer says. It also hears an end that is past already."""
        self._port = port
        if self.closed is not None:
            port.closed(self.closed.code)
        self.changed.set()

    def to_relay(self, text: str) -> None:
        """Deliver one message of the peer. Only while `is_read`."""
        assert self._port is not None
        self._port.received([text.encode()])

    def set_reading(self, wanted: bool) -> None:
        """Say whether the relay wants messages of the peer."""
        self._wants_more = wanted
        if wanted:
            self.changed.set()

    def to_peer(self, texts: Sequence[Text]) -> bool:
        """Add messages for the peer. Returns False if the window is full now."""
        if self.closed is not None:
            return True
        self.arrived.extend(texts)
        self._arrived_bytes += sum(map(len, texts))
        self._is_full = len(self.arrived) >= self._window or self._arrived_bytes >= WINDOW_BYTES
        self.changed.set()
        return not self._is_full

    def take(self) -> str:
        """Take out the oldest message for the peer. There must be one."""
        text = self.arrived.popleft()
        self._arrived_bytes -= len(text)
        if (
            self._is_full
            and len(self.arrived) <= self._window // 2
            and self._arrived_bytes <= WINDOW_BYTES // 2
        ):
            self._is_full = False
            if self._port is not None and self.closed is None:
                self._port.writable()
        return text.decode()

    def end(self, code: int, reason: str) -> None:
        """The connection is over, for both ends. Calling it again does nothing."""
        if self.closed is None:
            self.closed = LinkClosed(code, reason)
            if self._port is not None:
                self._port.closed(code)
            self.changed.set()
