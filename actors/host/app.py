"""The ASGI application that AgentCore expects: /ws, /ping, /invocations."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio.from_thread
import attrs
from bedrock_agentcore.runtime import BedrockAgentCoreApp, PingStatus
from bedrock_agentcore.runtime.context import RequestContext
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from actors.clock import Clock
from actors.host.metrics import publish_metrics
from actors.host.settings import Settings
from actors.host.status import report
from actors.relay.runtime import Full, Runtime
from actors.transports.asgi import AsgiTransport
from actors.transports.transport import Transport
from actors.transports.uvicorn import UvicornTransport, protocol_of
from protocol.limits import Limits

log = logging.getLogger("relay")

DEFAULT_MESH: Final = "default"


BROWSER: Final = Path(__file__).parents[2] / "browser"
"""The browser module, which local pages get from the relay itself."""


EDGES_PREFIX: Final = "x-amzn-bedrock-agentcore-"
"""So begin the headers that AgentCore adds to a request. (That one is there is assumed.)"""


OAUTH_SUBPROTOCOL: Final = "base64UrlBearerAuthorization"
"""Offered by browsers that reach an OAuth runtime; a browser insists that one it offered is
chosen."""


def create_app(settings: Settings, clock: Clock | None = None) -> BedrockAgentCoreApp:
    """The ASGI application. Its runtime lives from startup to shutdown, in `app.state.runtime`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Runtime(settings.limits, clock, strict=settings.strict) as runtime:
            app.state.runtime = runtime
            publish_metrics(runtime)
            yield

    app = BedrockAgentCoreApp(lifespan=lifespan)
    # The SDK logs every invocation through a handler of its own, which it makes just now.
    sdk = logging.getLogger("bedrock_agentcore.app")
    sdk.handlers.clear()
    sdk.setLevel(logging.WARNING)
    if BROWSER.is_dir():
        files = StaticFiles(directory=BROWSER, html=True)
        # A page that another local server serves may import the module, too.
        app.mount("/browser", CORSMiddleware(files, allow_origins=["*"]))

    @app.websocket
    async def join(websocket: WebSocket, context: RequestContext) -> None:
        runtime: Runtime = app.state.runtime
        origin = websocket.headers.get("origin")
        if not origin_allowed(origin, settings.allowed_origins):
            log.warning(
                "origin refused; add it to --allowed-origins (RELAY_ALLOWED_ORIGINS) to let it in",
                extra={"origin": origin},
            )
            await websocket.send_denial_response(PlainTextResponse("origin not allowed", 403))
            return
        is_paced = settings.pace == "on" or (
            settings.pace == "auto" and came_through_the_edge(websocket.headers)
        )
        mesh = context.session_id or websocket.query_params.get("mesh") or DEFAULT_MESH
        if len(mesh) > settings.limits.mesh_name_chars_max:
            await websocket.send_denial_response(PlainTextResponse("mesh name too long", 400))
            return
        try:
            runtime.check_room(mesh)
        except Full as full:
            log.warning("full", extra={"reason": str(full)})
            await websocket.send_denial_response(PlainTextResponse(str(full), 503))
            return
        offered = websocket.scope.get("subprotocols") or ()
        await websocket.accept(OAUTH_SUBPROTOCOL if OAUTH_SUBPROTOCOL in offered else None)
        try:
            transport = transport_for(websocket, settings.limits)
            await runtime.serve(transport, mesh, is_paced=is_paced)
        except Full as full:  # filled up while this one was being accepted
            await websocket.close(1013, str(full))

    @app.entrypoint
    def status(payload: object) -> dict[str, object]:
        # Runs on a worker thread; the snapshot is taken on the event loop, between two rounds.
        runtime: Runtime = app.state.runtime
        meshes = anyio.from_thread.run_sync(runtime.status)
        details = isinstance(payload, dict) and bool(payload.get("details"))
        answer = report(meshes, details)
        if details:
            answer["totals"] = attrs.asdict(anyio.from_thread.run_sync(runtime.totals))
        return answer

    @app.ping
    def ping() -> PingStatus:
        runtime: Runtime = app.state.runtime
        return PingStatus.HEALTHY_BUSY if runtime.connections else PingStatus.HEALTHY

    return app


def transport_for(websocket: WebSocket, limits: Limits) -> Transport:
    """The fast transport under our own protocol class, the ordinary one under any other server."""
    protocol = protocol_of(websocket)
    if protocol is not None:
        bounds = (limits.message_bytes_max, limits.close_within_s)
        return UvicornTransport(protocol, *bounds)
    return AsgiTransport(websocket, limits.close_within_s)


def came_through_the_edge(headers: Mapping[str, str]) -> bool:
    """Does a request have a header that only AgentCore adds? Its session's, as a rule.

    >>> came_through_the_edge({"x-amzn-bedrock-agentcore-runtime-session-id": "s"})
    True
    >>> came_through_the_edge({"host": "localhost"})
    False
    """
    return any(name.lower().startswith(EDGES_PREFIX) for name in headers)


def origin_allowed(origin: str | None, allowed: Sequence[str]) -> bool:
    """May a page of this origin connect? `localhost` in `allowed` is any loopback origin.

    >>> origin_allowed("http://localhost:5173", ["localhost"])
    True
    >>> origin_allowed("https://localhost.example", ["localhost"])
    False
    """
    if origin is None or "*" in allowed or origin in allowed:
        return True
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return "localhost" in allowed and host in ("localhost", "127.0.0.1", "::1")
