"""The ordinary transport against a hand-made ASGI server, on both backends; and under hypercorn."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.websockets import WebSocket

from actors.relay.runtime import Runtime
from actors.transports.asgi import AsgiTransport
from protocol.limits import Limits
from tests.worlds.live import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
async def impatience() -> AsyncIterator[None]:
    with anyio.fail_after(PATIENCE_S):
        yield


class AsgiServer:
    """An accepted WebSocket as an ASGI server presents it. Without its `gate` the client reads
    nothing."""

    def __init__(self) -> None:
        self.to_app, self._events = anyio.create_memory_object_stream[dict[str, Any]](1000)
        self.sent: list[dict[str, Any]] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def receive(self) -> dict[str, Any]:
        return await self._events.receive()

    async def send(self, event: Any) -> None:
        await self.gate.wait()
        self.sent.append(event)
        if event["type"] == "websocket.close":
            await self.to_app.send({"type": "websocket.disconnect", "code": event["code"]})

    async def websocket(self) -> WebSocket:
        websocket = WebSocket({"type": "websocket"}, self.receive, self.send)
        await self.to_app.send({"type": "websocket.connect"})
        await websocket.accept()
        return websocket

    async def say(self, type: str, **fields: Any) -> None:
        text = json.dumps({"type": type, **fields})
        await self.to_app.send({"type": "websocket.receive", "text": text})

    def close(self) -> None:
        self.to_app.close()
        self._events.close()

    def texts(self) -> list[dict[str, Any]]:
        return [json.loads(e["text"]) for e in self.sent if e["type"] == "websocket.send"]


async def until(condition: Any) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


@pytest.fixture
async def server() -> AsyncIterator[AsgiServer]:
    server = AsgiServer()
    yield server
    server.close()


async def test_messages_and_the_close_go_both_ways(server: AsgiServer) -> None:
    async with Runtime() as runtime, anyio.create_task_group() as tasks:
        transport = AsgiTransport(await server.websocket(), 5.0)
        tasks.start_soon(runtime.serve, transport, "m")
        await server.say("presence", **{"from": "a"})
        await server.to_app.send({"type": "websocket.receive", "bytes": b"\x00"})
        await until(lambda: len(server.texts()) == 2)
        assert server.texts()[0]["from"] == "a"
        assert server.texts()[1]["data"]["code"] == "binary"
        await runtime.drain()
        assert server.sent[-1]["code"] == 1001


async def test_a_close_waits_for_what_was_sent(server: AsgiServer) -> None:
    async with Runtime() as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.serve, AsgiTransport(await server.websocket(), 5.0), "m")
        await server.say("presence", **{"from": "a"})
        await until(server.texts)
        server.gate = anyio.Event()
        for n in range(5):
            await server.say("capabilities", turnId=n)
        await until(lambda: runtime.totals().received == 6)
        tasks.start_soon(runtime.drain)
        await anyio.wait_all_tasks_blocked()
        server.gate.set()
        await until(lambda: server.sent[-1]["type"] == "websocket.close")
        assert [m.get("turnId") for m in server.texts()[1:]] == [0, 1, 2, 3, 4]


async def test_a_client_that_does_not_read_is_evicted_and_cannot_hold_up_the_end(
    server: AsgiServer,
) -> None:
    async with Runtime(Limits(mailbox_messages_max=10)) as runtime:
        transport = AsgiTransport(await server.websocket(), close_within_s=0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.serve, transport, "m")
            await server.say("presence", **{"from": "stuck"})
            await until(server.texts)
            server.gate = anyio.Event()
            for n in range(50):
                await server.say("capabilities", turnId=n)
                await until(lambda n=n: runtime.totals().received == n + 2 or runtime.totals().left)
            # The task group ends: the connection is over although the client never read.
        await until(lambda: runtime.connections == 0)


async def test_a_lost_connection_ends_quietly(server: AsgiServer) -> None:
    async with Runtime() as runtime, anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.serve, AsgiTransport(await server.websocket(), 5.0), "m")
        await server.say("presence", **{"from": "a"})
        await until(server.texts)
        await server.to_app.send({"type": "websocket.disconnect", "code": 1006})
        await until(lambda: runtime.connections == 0)


async def test_a_flood_is_not_read_further_while_the_supervisor_is_behind(
    server: AsgiServer,
) -> None:
    async with (
        Runtime(Limits(inbox_messages_max=10)) as runtime,
        anyio.create_task_group() as tasks,
    ):
        transport = AsgiTransport(await server.websocket(), 5.0)
        for _ in range(500):
            await server.say("heartbeat")
        await server.say("capabilities")
        tasks.start_soon(runtime.serve, transport, "m")
        await until(
            lambda: server.sent and "capabilities_response" in server.sent[-1].get("text", "")
        )
        assert runtime.totals().received == 501
        tasks.cancel_scope.cancel()
