"""Comparison server: the `websockets` library on uvloop. Usage: python py_websockets.py PORT"""

import asyncio
import json
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

peers: dict[str, ServerConnection] = {}
presences: dict[str, bytes] = {}


async def handle(connection: ServerConnection) -> None:
    """One connection, from its opening to its end."""
    id = None
    try:
        while True:
            text = await connection.recv(decode=False)
            message = json.loads(text)
            type = message["type"]
            if type == "presence":
                if id is None:
                    for presence in presences.values():
                        await connection.send(presence, text=True)
                id = message["from"]
                peers[id] = connection
                presences[id] = text
                broadcast(peers.values(), text, text=True)
            elif type == "heartbeat":
                pass
            elif type == "direct":
                target = peers.get(message["to"])
                if target is not None:
                    await target.send(text, text=True)
            else:
                broadcast(
                    [peer for peer in peers.values() if peer is not connection], text, text=True
                )
    except ConnectionClosed:
        pass
    finally:
        if id is not None:
            peers.pop(id, None)
            presences.pop(id, None)


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None, backlog=4096):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main())
