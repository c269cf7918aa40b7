"""A TCP proxy that a test can spoil: it answers, hangs, or cuts as it is told to."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup
from anyio.streams.stapled import MultiListener


class Proxy:
    """Between clients and `port` on this machine.

    `answers`: what the next connections are answered with, one each, instead of being passed on.
    `is_hanging`: connections stay open, and nothing passes any more, in either direction.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.answers: list[bytes] = []
        self.is_hanging = False
        self.opened = 0
        self._streams: set[ByteStream] = set()
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
        for stream in tuple(self._streams):
            await anyio.aclose_forcefully(stream)

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
                server = await anyio.connect_tcp("127.0.0.1", self.target)
            except OSError:
                return
            self._streams |= {client, server}
            async with server, anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump, client, server, tasks.cancel_scope.cancel)
                tasks.start_soon(self._pump, server, client, tasks.cancel_scope.cancel)

    async def _pump(self, source: ByteStream, sink: ByteStream, done: Callable[[], object]) -> None:
        try:
            async for data in source:
                if not self.is_hanging:
                    await sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        if self.is_hanging:
            await anyio.sleep_forever()
        done()


def http(status: str, body: str = "") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
