"""A mesh inside your own program: two peers in memory, and one that connects over a WebSocket.

    python -m examples.embed

The first two need no socket. The third one connects to a small Starlette application of this
program. All of them speak the protocol itself, without `join`.
"""

import json

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from agi_diy_relay import AsgiTransport, Limits, MemoryLink, Runtime

MESH = "my mesh"


def message(type: str, sender: str, **fields: object) -> str:
    """The text of a message."""
    return json.dumps({"type": type, "from": sender, **fields})


async def join(link: MemoryLink, id: str, *agents: str) -> MemoryLink:
    """Announce a peer. The first thing it receives is its own presence."""
    await link.send(message("presence", id, data={"agents": agents}))
    acknowledgement = json.loads(await link.receive())
    assert acknowledgement["from"] == id
    return link


async def until(link: MemoryLink, type: str) -> dict[str, object]:
    """The next message of this type."""
    async for text in link:
        received: dict[str, object] = json.loads(text)
        if received["type"] == type:
            return received
    raise RuntimeError("the link closed")


async def main() -> list[str]:
    """Let the three meet. Returns what happened, line by line."""
    log: list[str] = []
    async with Runtime(Limits()) as runtime:
        # Two peers of this process.
        planner = await join(await runtime.connect(MESH), "planner-process", "planner")
        worker = await join(await runtime.connect(MESH), "worker-process", "worker")

        await planner.send(message("direct", "planner", to="worker", turnId="1", data={"do": "it"}))
        command = await until(worker, "direct")
        log.append(f"worker got {command['data']} from {command['instanceId']}")

        # A third one, over a WebSocket, in the same mesh. Any ASGI server will do.
        async def websocket(socket: WebSocket) -> None:
            await socket.accept()
            await runtime.serve(AsgiTransport(socket, close_within_s=5), MESH)

        app = Starlette(routes=[WebSocketRoute("/ws", websocket)])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            while not server.started:
                await anyio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as page:
                await page.send(message("presence", "page", data={"agents": []}))
                roster = {json.loads(await page.recv())["from"] for _ in range(3)}
                log.append(f"page sees {sorted(roster)}")
                await page.send(message("stream", "page", data={"chunk": "hello"}))
                log.append(f"planner got {(await until(planner, 'stream'))['data']}")
            gone = await until(worker, "presence")
            while gone.get("data") != {"status": "offline", "reason": "left", "agents": []}:
                gone = await until(worker, "presence")
            log.append(f"worker saw {gone['from']} leave")
            server.should_exit = True
    return log


if __name__ == "__main__":
    for line in anyio.run(main):
        print(line)  # noqa: T201
