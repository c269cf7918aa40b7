"""A TCP proxy that a test can spoil: it answers, hangs, stalls, loses or cuts as it is told to."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
import attrs
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener


@attrs.define(eq=False)
class _Way:
    """One connection. `left`: so many bytes still arrive, in each direction; None: all."""

    client: SocketStream
    relay: SocketStream
    left: dict[ByteStream, int] | None = None
    is_half_open: bool = False


class Proxy:
    """Between clients and `port` on this machine.

    `answers`: what the next connections are answered with, one each, instead of being passed on.
    `is_hanging`: connections stay open, and nothing passes any more, in either direction.

    The troubles of a network, of which a test may make any:

        cut                 all connections break, and both ends notice
        lose, then cut      as before, and the last bytes have not arrived
        lose                both ends take a dead connection for a good one
        cut_clients         half open: the clients notice, and the relay does not
        stall, then flow    nothing passes for a while, also of new connections, and nothing is lost
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.answers: list[bytes] = []
        self.is_hanging = False
        self.opened = 0
        self._ways: set[_Way] = set()
        self._flows: anyio.Event | None = None  # while it is stalled
        self._tasks: TaskGroup | None = None
        self._listener: MultiListener[SocketStream] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def __aenter__(self) -> Self:
        self._listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = self._listener.extra(SocketAttribute.local_port)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._listener.serve, self._serve)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        assert self._listener is not None
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._listener.aclose()

    async def cut(self) -> None:
        """Every connection breaks."""
        for way in tuple(self._ways):
            for end in (way.client, way.relay):
                await anyio.aclose_forcefully(end)

    async def cut_clients(self) -> None:
        """The clients' ends of all connections break; the relay's stay open, and get nothing."""
        for way in tuple(self._ways):
            way.is_half_open = True
            await anyio.aclose_forcefully(way.client)

    def lose(self, after_bytes: int = 0) -> None:
        """What goes over the connections that there are gets lost, in both directions.

        `after_bytes`: so many bytes still pass each way, so that it ends in the middle of a frame.
        """
        for way in self._ways:
            if way.left is None:
                way.left = {way.client: after_bytes, way.relay: after_bytes}

    def stall(self) -> None:
        """Nothing passes until `flow`."""
        if self._flows is None:
            self._flows = anyio.Event()

    def flow(self) -> None:
        """What was held up passes, and everything after it."""
        if self._flows is not None:
            self._flows.set()
            self._flows = None

    async def _serve(self, client: SocketStream) -> None:
        self.opened += 1
        async with client:
            if self.answers:
                answer = self.answers.pop(0)
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):  # gone already
                    request = b""
                    while b"\r\n\r\n" not in request:  # what is left unread would reset it
                        request += await client.receive()
                    await client.send(answer)
                return
            try:
                relay = await anyio.connect_tcp("127.0.0.1", self.target)
            except OSError:
                return
            way = _Way(client, relay)
            self._ways.add(way)
            try:
                async with relay, anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump, way, client, relay, tasks.cancel_scope.cancel)
                    tasks.start_soon(self._pump, way, relay, client, tasks.cancel_scope.cancel)
            finally:
                self._ways.remove(way)

    async def _pump(
        self, way: _Way, source: ByteStream, sink: ByteStream, done: Callable[[], object]
    ) -> None:
        try:
            async for data in source:
                while self._flows is not None:
                    await self._flows.wait()
                passes = data
                if way.left is not None:
                    passes = data[: way.left[source]]
                    way.left[source] -= len(passes)
                if passes and not self.is_hanging and not way.is_half_open:
                    await sink.send(passes)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        if self.is_hanging or (way.is_half_open and source is way.client):
            await anyio.sleep_forever()
        done()


def http(status: str, body: str = "") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
