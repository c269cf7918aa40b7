"""The relay as a program: settings, the AgentCore app, the server.

    python relay.py --help            every setting; each is also an environment variable
    agentcore configure --entrypoint relay.py

What this file composes: the protocol's limits, the actor runtime on the real clock, the transports,
and `app`, the ASGI application that AgentCore expects at module level (/ws, /ping, /invocations).
Nothing is made at import but the app itself: the runtime begins with the server.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.from_thread
import attrs
import structlog
import uvicorn
from bedrock_agentcore.runtime import BedrockAgentCoreApp, PingStatus
from bedrock_agentcore.runtime.context import RequestContext
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from actors.asgi_transport import AsgiTransport
from actors.clock import Clock
from actors.runtime import Full, Runtime
from actors.supervisor import MeshStatus
from actors.transport import Transport
from actors.uvicorn_transport import MeshProtocol, UvicornTransport, protocol_of
from protocol.limits import Limits
from protocol.mesh import PeerStatus, Totals

log = logging.getLogger("relay")

DEFAULT_MESH: Final = "default"
BROWSER: Final = Path(__file__).parent / "browser"
"""The browser module, which local pages get from the relay itself."""
EDGES_PREFIX: Final = "x-amzn-bedrock-agentcore-"
"""So begin the headers that AgentCore adds to a request. (That one is there is assumed.)"""
OAUTH_SUBPROTOCOL: Final = "base64UrlBearerAuthorization"
"""Offered by browsers that reach an OAuth runtime; a browser insists that one it offered is
chosen."""

PING_INTERVAL_S: Final = 10.0  # under `stale_after_s`, so that a pong in time keeps a peer present
PING_TIMEOUT_S: Final = 20.0

# Settings -----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Settings:
    """What can be set, by option or environment variable. See `python relay.py --help`."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8080)
    allowed_origins: tuple[str, ...] = ("localhost", "https://agi.diy")
    strict: bool = False
    pace: str = attrs.field(default="auto")
    log_level: str = "info"
    limits: Limits = Limits()

    @port.validator
    def _check_port(self, _: object, value: int) -> None:
        if not 0 <= value <= 65535:
            raise ValueError(f"port must be between 0 and 65535, got {value}")

    @pace.validator
    def _check_pace(self, _: object, value: str) -> None:
        if value not in ("auto", "on", "off"):
            raise ValueError(f"pace must be auto, on or off, got {value!r}")


def default_host(environ: Mapping[str, str]) -> str:
    """All interfaces in a container, as AgentCore's contract asks; elsewhere only this machine.

    Source: `BedrockAgentCoreApp.run`, which tells containers by the same two signs.
    """
    in_container = os.path.exists("/.dockerenv") or bool(environ.get("DOCKER_CONTAINER"))
    return "0.0.0.0" if in_container else "127.0.0.1"


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Options first, then environment variables, then defaults. A bad one ends the program."""
    parser = argparse.ArgumentParser(
        prog="relay.py",
        description="WebSocket relay for agent meshes.",
        epilog="Every option is also an environment variable: --drain-s is RELAY_DRAIN_S. "
        "HOST and PORT are honoured too.",
    )

    def option(name: str, default: object, help: str, **kwargs: Any) -> None:
        variable = f"RELAY_{name.upper()}"
        value = environ.get(variable, default)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, default=value, help=f"{help} (default: {default})", **kwargs)

    option("host", environ.get("HOST") or default_host(environ), "address to listen on")
    option("port", environ.get("PORT") or 8080, "port to listen on; 0 takes a free one")
    option(
        "allowed_origins",
        ",".join(Settings().allowed_origins),
        "origins of pages that may connect, by commas; `localhost` stands for this machine at any "
        "port, `*` for all; programs without an Origin always may",
    )
    option("log_level", "info", "debug, info, warning or error")
    option(
        "pace",
        "auto",
        "frames no faster and no larger than AgentCore's edge allows: on, off, or for connections "
        "that come through it",
    )
    option("strict", "false", "true: refuse message types outside the vocabulary")
    for field in attrs.fields(Limits):
        option(field.name, field.default, f"{field.metadata['what']}", metavar="N")

    values = vars(parser.parse_args(arguments))
    try:
        port = int(_number("port", values.pop("port"), int))
        bounds: dict[str, Any] = {
            field.name: _number(field.name, values.pop(field.name), type(field.default))
            for field in attrs.fields(Limits)
        }
        limits = Limits(**bounds)
        origins = tuple(filter(None, (o.strip() for o in values.pop("allowed_origins").split(","))))
        strict = _boolean("strict", values.pop("strict"))
        level = values["log_level"]
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"log_level must be debug, info, warning or error, got {level!r}")
        return Settings(port=port, limits=limits, allowed_origins=origins, strict=strict, **values)
    except ValueError as error:
        parser.exit(2, f"relay.py: bad setting: {error}\n")


def _number(name: str, value: str | float, kind: type) -> int | float:
    try:
        return int(value) if kind is int else float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def _boolean(name: str, value: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    except KeyError:
        raise ValueError(f"{name} must be true or false, got {value!r}") from None


# The app ------------------------------------------------------------------------------------------


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
        # Runs on a worker thread; the snapshot is taken on the event loop, between two turns.
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


def publish_metrics(runtime: Runtime) -> None:
    """The runtime's counters as OpenTelemetry metrics, where that is installed: on AgentCore.

    Read when they are exported, so that a message costs nothing more. There are no spans: one for
    every message would cost more than the message.
    """
    try:
        from opentelemetry import metrics  # noqa: PLC0415 (only in the deployed package)
    except ImportError:
        return
    meter = metrics.get_meter("agi-diy-relay")

    def reading(name: str) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        return lambda _: [metrics.Observation(getattr(runtime.totals(), name))]

    for field in attrs.fields(Totals):
        meter.create_observable_counter(f"relay.{field.name}", [reading(field.name)], "1")
    meter.create_observable_gauge(
        "relay.connections", [lambda _: [metrics.Observation(runtime.connections)]], "1"
    )


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


def report(meshes: Sequence[MeshStatus], details: bool) -> dict[str, object]:
    """What /invocations answers."""
    peers = sorted(peer.peer for mesh in meshes for peer in mesh.peers)
    answer: dict[str, object] = {"status": "ok", "peers": peers, "count": len(peers)}
    if details:
        answer["meshes"] = {
            mesh.name: {
                "connections": mesh.connections,
                "peers": {peer.peer: _peer_report(peer, mesh) for peer in mesh.peers},
                "totals": attrs.asdict(mesh.totals),
            }
            for mesh in meshes
        }
    return answer


def _peer_report(peer: PeerStatus, mesh: MeshStatus) -> dict[str, object]:
    queued = [mesh.mailboxes.get(c.connection, (0, 0)) for c in peer.connections]
    return {
        "state": peer.state.value,
        "agents": peer.agents,
        "connections": len(peer.connections),
        "last_seen_s": round(min(c.silent_s for c in peer.connections), 3),
        "mailbox_messages": sum(messages for messages, _ in queued),
        "mailbox_bytes": sum(size for _, size in queued),
    }


# The server ---------------------------------------------------------------------------------------


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


def configure_logging(level: str) -> None:
    """Lines for people on a terminal, JSON otherwise; uvicorn's and the SDK's records included."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    is_terminal = sys.stderr.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Their lines hold query strings, and those hold credentials.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the relay until SIGTERM or Ctrl-C. Returns the exit code."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    configure_logging(settings.log_level)
    try:
        listener = bind(settings)
    except OSError as error:
        # (A failed look-up has numbers of its own, all negative.)
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        where = f"{settings.host}:{settings.port}"
        sys.stderr.write(f"relay.py: cannot listen on {where}: {reason}\n")
        return 1
    app = create_app(settings)
    server = Server(server_config(app, settings), app)

    def stop(*_: object) -> None:
        # Until uvicorn listens to signals. At its end it raises once more those that it took.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets=[listener])
    return 0


app = create_app(read_settings((), os.environ))

if __name__ == "__main__":
    sys.exit(main())
