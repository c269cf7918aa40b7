"""The ASGI application that AgentCore expects (/ws, /ping, /invocations), and pages for people."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread
import attrs
from bedrock_agentcore.runtime import BedrockAgentCoreApp, PingStatus
from bedrock_agentcore.runtime.context import RequestContext
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.datastructures import URL, Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from actors.backplane.nats import NatsLog
from actors.clock import Clock, SystemClock
from actors.host.console import Stream
from actors.host.home import READABLE, no_page, nothing_here, routes, websocket_url
from actors.host.metrics import Metrics
from actors.host.observing import Observers
from actors.host.openings import DEFAULT_MESH, Openings, Refusal, origin_allowed, refused
from actors.host.reports import Kind, Reports
from actors.host.sending import Sending
from actors.host.settings import BadSetting, Settings, read_settings
from actors.host.status import report
from actors.host.throttle import RefusalLog
from actors.host.tokens import Tokens
from actors.relay.runtime import Runtime

log = logging.getLogger("relay")

GRANT: Final = "relay.grant"
"""Where in its scope a request of a reader has what that one may do."""


class RelayApp(BedrockAgentCoreApp):
    """The relay as an ASGI application. Nothing runs before serving starts.

    `settings` may be set until then. Without them the environment variables are read when serving
    starts; a bad one ends the start with one sentence in the server's log. `runtime` lives from
    startup to shutdown.
    """

    runtime: Runtime
    _openings: Openings
    _metrics: Metrics
    _observers: Observers

    def __init__(self, settings: Settings | None = None, clock: Clock | None = None) -> None:
        super().__init__(lifespan=self._lifespan)
        self.settings = settings
        self._clock = clock or SystemClock()
        self.refusals = RefusalLog(self._clock)
        kinds = {
            "peers": Kind(lambda: self._report(details=False), "application/json"),
            "details": Kind(lambda: self._report(details=True), "application/json"),
            "metrics": Kind(self._metrics_text, CONTENT_TYPE_PLAIN_0_0_4),
        }
        self._reports = Reports(kinds, self._clock)
        # The SDK logs every invocation through a handler of its own, which it has just made.
        sdk = logging.getLogger("bedrock_agentcore.app")
        sdk.handlers.clear()
        sdk.setLevel(logging.WARNING)
        self.websocket(self._websocket)
        self.entrypoint(self._status)
        # The route is what is guarded, and not its path: that has a prefix under `--root-path`.
        [invocations] = [
            route
            for route in self.router.routes
            if isinstance(route, Route) and route.path == "/invocations"
        ]
        # The SDK's own answer has a stamp that moves only when the status does.
        [at] = [n for n, route in enumerate(self.router.routes) if _path(route) == "/ping"]
        self.router.routes[at] = Route("/ping", self._ping, methods=["GET"])
        invocations.app = self._for_readers(invocations.app)
        for path, endpoint in (
            ("/metrics", self._measured),
            ("/console/stream", self._stream),
            ("/console/where", self._where),
        ):
            route = Route(path, endpoint, methods=["GET"])
            route.app = self._for_readers(route.app)
            self.router.routes.append(route)
        self.router.routes.append(Route("/ready", self._ready, methods=["GET"]))
        self.router.routes += [Route("/send", self._send, methods=["POST"]), *routes()]
        # Many write the address of a relay without its path, or with a slash behind it.
        self.router.routes += [Route(path, self._no_page) for path in ("/ws", "/ws/")]
        handler = self._handle_websocket
        self.router.routes += [WebSocketRoute(path, handler) for path in ("/", "/ws/")]
        self.router.default = nothing_here
        # What the SDK lets through: bodies that json cannot read, paths that cannot be files.
        for error in (RecursionError, ValueError):
            self.add_exception_handler(error, _bad_request)
        self.add_exception_handler(ClientDisconnect, _bad_request)  # nobody hears it

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
        tokens = Tokens(settings.auth, self._clock) if settings.auth is not None else None
        backplane = None if settings.backplane is None else NatsLog(settings.backplane)
        async with Runtime(
            settings.limits,
            self._clock,
            strict=settings.strict,
            owns_thread=True,
            backplane=backplane,
        ) as self.runtime:
            self._openings = Openings(self.runtime, settings, self.refusals, tokens)
            self._metrics = Metrics(self.runtime, self._clock)
            self._metrics.publish()
            async with anyio.create_task_group() as tasks:
                self._observers = Observers(self.runtime, self._metrics, self._clock, tasks)
                tasks.start_soon(self._metrics.measure_lag)
                yield
                tasks.cancel_scope.cancel()

    def _served(self) -> Settings:
        assert self.settings is not None, "the server has not run the application's startup"
        return self.settings

    def _for_readers(self, app: ASGIApp) -> ASGIApp:
        """The same, only for those who may see who is here, in all meshes."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                grant = await self._openings.check_reader(Headers(scope=scope))
            except Refusal as refusal:
                await refused(refusal)(scope, receive, send)
            else:
                await app({**scope, GRANT: grant}, receive, send)

        return answer

    async def _no_page(self, request: Request) -> Response:
        # A page looks here for the reason why its WebSocket did not open.
        if not origin_allowed(request.headers.get("origin"), self._served().allowed_origins):
            return PlainTextResponse("origin not allowed", 403, READABLE)
        return no_page(request)

    async def _websocket(self, websocket: WebSocket, context: RequestContext) -> None:
        await self._openings.serve(websocket, context.session_id)

    async def _send(self, request: Request) -> Response:
        return await Sending(self.runtime, self._openings).answer(request)

    def _status(self, payload: object, context: RequestContext) -> Response:
        # Runs on a worker thread. Behind AgentCore's edge nothing but this path and /ws is there.
        asked = payload if isinstance(payload, dict) else {}
        if asked.get("observe"):
            mesh = context.session_id or asked.get("mesh")
            return Stream(self._observers, mesh if mesh and isinstance(mesh, str) else DEFAULT_MESH)
        return self._reports.answer("details" if asked.get("details") else "peers")

    def _report(self, *, details: bool) -> bytes:
        # The event loop takes the snapshot, between two rounds.
        answer = report(anyio.from_thread.run_sync(self.runtime.status), details)
        if self.runtime.federation is not None:
            answer["federation"] = self.runtime.federation.report()
        if details:
            answer["totals"] = attrs.asdict(self.runtime.totals())
            answer["held_bytes"] = self.runtime.held_bytes
        return json.dumps(answer).encode()

    def _metrics_text(self) -> bytes:
        return self._metrics.text()

    async def _measured(self, _: Request) -> Response:
        return await anyio.to_thread.run_sync(self._reports.answer, "metrics")

    async def _stream(self, request: Request) -> Response:
        return Stream(self._observers, request.query_params.get("mesh") or DEFAULT_MESH)

    async def _where(self, request: Request) -> Response:
        """Where the console joins, to ask an agent, and the id that it must be or be below."""
        url = URL(websocket_url(request.url))
        if mesh := request.query_params.get("mesh"):
            url = url.include_query_params(mesh=mesh)
        return JSONResponse({"url": str(url), "peer": request.scope[GRANT].peer})

    async def _ready(self, _: Request) -> Response:
        """May connections be sent here? Not while the relay ends, though it still lives."""
        federation = self.runtime.federation
        if self.runtime.is_draining:
            return PlainTextResponse("draining\n", 503)
        if federation is not None and not federation.is_ready:
            return PlainTextResponse(f"{federation.node.standing.value}\n", 503)
        return PlainTextResponse("ready\n")

    async def _ping(self, _: Request) -> Response:
        """AgentCore ends a session when the stamp is too old, whatever the status says.

        So a mesh lives as long as its peers, and an empty one is not kept alive by being asked.
        """
        status = PingStatus.HEALTHY_BUSY if self.runtime.connections else PingStatus.HEALTHY
        stamp_s = self.runtime.alive_ms() // 1000
        answer: dict[str, object] = {"status": status.value, "time_of_last_update": stamp_s}
        if self.runtime.federation is not None:
            answer["federation"] = self.runtime.federation.report()
        return JSONResponse(answer)


def _path(route: BaseRoute) -> str | None:
    return route.path if isinstance(route, Route) else None


async def _bad_request(_: Request, error: Exception) -> Response:
    return PlainTextResponse("the request cannot be read", 400)
