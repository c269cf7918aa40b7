"""The ASGI application that AgentCore expects (/ws, /ping, /invocations), and pages for people."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.from_thread
import attrs
from bedrock_agentcore.runtime import BedrockAgentCoreApp, PingStatus
from bedrock_agentcore.runtime.context import RequestContext
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from actors.clock import Clock
from actors.host.home import routes
from actors.host.metrics import publish_metrics
from actors.host.openings import serve_opening
from actors.host.settings import BadSetting, Settings, read_settings
from actors.host.status import report
from actors.relay.runtime import Runtime

log = logging.getLogger("relay")


class RelayApp(BedrockAgentCoreApp):
    """The relay as an ASGI application. Nothing runs before serving starts.

    `settings` may be set until then. Without them the environment variables are read when serving
    starts; a bad one ends the start with one sentence in the server's log. `runtime` lives from
    startup to shutdown.
    """

    runtime: Runtime

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        super().__init__(lifespan=self._lifespan)
        self.settings = settings
        self._clock = clock
        # The SDK logs every invocation through a handler of its own, which it has just made.
        sdk = logging.getLogger("bedrock_agentcore.app")
        sdk.handlers.clear()
        sdk.setLevel(logging.WARNING)
        self.websocket(self._websocket)
        self.entrypoint(self._status)
        self.ping(self._ping)
        self.router.routes += routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan, as ASGI has it."""
        if scope["type"] == "lifespan" and self.settings is None:
            try:
                self.settings = read_settings((), os.environ)
            except BadSetting as error:
                await receive()
                message = f"bad setting: {error}"
                await send({"type": "lifespan.startup.failed", "message": message})
                return
        await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        settings = self._served()
        for sentence in settings.warnings:
            log.warning(sentence)
        async with Runtime(settings.limits, self._clock, strict=settings.strict) as self.runtime:
            publish_metrics(self.runtime)
            yield

    def _served(self) -> Settings:
        assert self.settings is not None, "the server has not run the application's startup"
        return self.settings

    async def _websocket(self, websocket: WebSocket, context: RequestContext) -> None:
        await serve_opening(websocket, context.session_id, self.runtime, self._served())

    def _status(self, payload: object) -> dict[str, object]:
        # Runs on a worker thread; the event loop takes the snapshot, between two rounds.
        meshes = anyio.from_thread.run_sync(self.runtime.status)
        details = isinstance(payload, dict) and bool(payload.get("details"))
        answer = report(meshes, details)
        if details:
            answer["totals"] = attrs.asdict(anyio.from_thread.run_sync(self.runtime.totals))
        return answer

    def _ping(self) -> PingStatus:
        return PingStatus.HEALTHY_BUSY if self.runtime.connections else PingStatus.HEALTHY
