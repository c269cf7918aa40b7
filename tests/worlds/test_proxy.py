"""What a spoilt network does to a connection: what arrives, and who notices."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import attrs
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.memory import MemoryObjectReceiveStream

from tests.worlds.live import PATIENCE_S
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio


@attrs.define
class Ends:
    """Both ends of a connection through a proxy, and all that come after it."""

    proxy: Proxy
    accepted: MemoryObjectReceiveStream[SocketStream]
    clients: AsyncExitStack = attrs.Factory(AsyncExitStack)

    async def connect(self) -> tuple[SocketStream, SocketStream]:
        client = await anyio.connect_tcp("127.0.0.1", self.proxy.port)
        await self.clients.enter_async_context(client)
        return client, await self.accepted.receive()


@asynccontextmanager
async def through_a_proxy() -> AsyncIterator[Ends]:
    put, accepted = anyio.create_memory_object_stream[SocketStream](10)

    async def keep(stream: SocketStream) -> None:
        async with stream:
            await put.send(stream)
            await anyio.sleep_forever()

    with anyio.fail_after(PATIENCE_S):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as tasks, put, accepted:
            tasks.start_soon(listener.serve, keep)
            async with Proxy(listener.extra(SocketAttribute.local_port)) as proxy:
                ends = Ends(proxy, accepted)
                async with ends.clients:
                    yield ends
            tasks.cancel_scope.cancel()


async def receive(stream: SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive(count - len(data))
    return data


async def until_broken(stream: SocketStream) -> bytes:
    data = b""
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        while True:
            data += await stream.receive()
    return data


async def test_a_cut_is_noticed_at_both_ends() -> None:
    async with through_a_proxy() as ends:
        pair = await ends.connect()
        await pair[0].send(b"up")
        assert await receive(pair[1], 2) == b"up"
        await ends.proxy.cut()
        assert [await until_broken(end) for end in pair] == [b"", b""]


async def test_the_last_bytes_are_lost_and_of_later_connections_none() -> None:
    async with through_a_proxy() as ends:
        client, relay = await ends.connect()
        ends.proxy.lose(after_bytes=3)
        later = await ends.connect()
        await client.send(b"12345")
        await relay.send(b"abcde")
        assert await receive(relay, 3) == b"123"
        assert await receive(client, 3) == b"abc"
        await ends.proxy.cut()
        assert [await until_broken(end) for end in (client, relay)] == [b"", b""]
        assert [await until_broken(end) for end in later] == [b"", b""]


async def test_half_open_only_the_client_notices() -> None:
    async with through_a_proxy() as ends:
        client, relay = await ends.connect()
        await ends.proxy.cut_clients()
        assert await until_broken(client) == b""
        await relay.send(b"into the dark")
        again, _ = await ends.connect()
        await again.aclose()
        with anyio.move_on_after(0.05) as waited:
            await relay.receive()
        assert waited.cancelled_caught


async def test_a_stall_loses_nothing() -> None:
    async with through_a_proxy() as ends:
        client, relay = await ends.connect()
        ends.proxy.stall()
        await client.send(b"late")
        other, relays_other = await ends.connect()
        await other.send(b"too")
        with anyio.move_on_after(0.05) as waited:
            await relay.receive()
        assert waited.cancelled_caught
        ends.proxy.flow()
        assert await receive(relay, 4) == b"late"
        assert await receive(relays_other, 3) == b"too"
