"""The server: uvicorn on the fast path, with an orderly end."""

import logging
import socket
from typing import Final

import uvicorn
from bedrock_agentcore.runtime import BedrockAgentCoreApp

from actors.host.settings import Settings
from actors.transports.uvicorn import MeshProtocol

log = logging.getLogger("relay")

PING_INTERVAL_S: Final = 10.0  # under `stale_after_s`, so that a pong in time keeps a peer present


PING_TIMEOUT_S: Final = 20.0


class Server(uvicorn.Server):
    """uvicorn, which at the end lets the runtime take leave of the peers before it cuts them
    off."""

    def __init__(self, config: uvicorn.Config, app: BedrockAgentCoreApp) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info(f"listening on ws://{shown}:{port}/ws", extra={"host": host, "port": port})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._app.state.runtime.drain()
        await super().shutdown(sockets)


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises OSError."""
    address = (settings.host, settings.port)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server(address, family=family, backlog=2048)


def server_config(app: BedrockAgentCoreApp, settings: Settings) -> uvicorn.Config:
    """How the app is served: on the fast path, without compression, silent on requests."""
    return uvicorn.Config(
        app,
        ws=MeshProtocol,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=max(1, round(settings.limits.close_within_s)),
    )
