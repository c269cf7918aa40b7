"""Comparison server: picows (Cython) on uvloop. Usage: python py_picows.py PORT"""

import json
import sys

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

TEXT = WSMsgType.TEXT
peers: dict[str, WSTransport] = {}
presences: dict[str, bytes] = {}


class Peer(WSListener):  # type: ignore[misc]
    """One connection."""

    def __init__(self) -> None:
        self.id: str | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            return
        text = frame.get_payload_as_bytes()
        message = json.loads(text)
        type = message["type"]
        if type == "presence":
            if self.id is None:
                for presence in presences.values():
                    transport.send(TEXT, presence)
            self.id = message["from"]
            peers[self.id] = transport
            presences[self.id] = text
            for peer in peers.values():
                peer.send(TEXT, text)
        elif type == "heartbeat":
            pass
        elif type == "direct":
            target = peers.get(message["to"])
            if target is not None:
                target.send(TEXT, text)
        else:
            for peer in peers.values():
                if peer is not transport:
                    peer.send(TEXT, text)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.id is not None:
            peers.pop(self.id, None)
            presences.pop(self.id, None)


def accept(_: WSUpgradeRequest) -> Peer:
    return Peer()


async def main() -> None:
    server = await ws_create_server(
        accept, "127.0.0.1", int(sys.argv[1]), enable_auto_pong=True, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
