"""A server with a fault, to see that loadgen notices. Usage: python py_faulty.py PORT FAULT

After 500 messages, every hundredth meets the fault. `none` has none.
"""

import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

FAULTY_FROM = 500
FAULTY_EVERY = 100

peers: dict[str, ServerConnection] = {}
presences: dict[str, str] = {}
held: list[str] = []
streams = 0


async def handle(connection: ServerConnection) -> None:
    """One connection, from its opening to its end."""
    is_new = True
    async for text in connection:
        assert isinstance(text, str)
        message = json.loads(text)
        if message["type"] == "presence":
            if is_new:
                for presence in presences.values():
                    await connection.send(presence)
            is_new = False
            peers[message["from"]] = connection
            presences[message["from"]] = text
            broadcast(peers.values(), text)
        elif message["type"] == "stream":
            relay(text, connection)


def relay(text: str, sender: ServerConnection) -> None:
    """To all but the sender, if all goes well."""
    global streams  # noqa: PLW0603
    streams += 1
    receivers = [peer for peer in peers.values() if peer is not sender]
    if streams > FAULTY_FROM and streams % FAULTY_EVERY == 0:
        match sys.argv[2]:
            case "lost":
                receivers.pop()
            case "repeated":
                receivers.append(receivers[0])
            case "echoed":
                receivers.append(sender)
            case "changed":
                text = text.replace('x"', 'y"')
            case "another's":
                text = text.replace('"from":"p00000', '"from":"p00001')
            case "closed":
                receivers[0].transport.abort()
            case "reordered":
                held.append(text)
                return
    broadcast(receivers, text)
    if held:
        broadcast(receivers, held.pop())


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
