"""Decides about an opening: may this WebSocket connect, to which mesh, over which transport?"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from actors.host.settings import Settings
from actors.host.throttle import RefusalLog
from actors.relay.runtime import Full, Runtime
from actors.transports.asgi import transport_for

DEFAULT_MESH: Final = "default"
"""The mesh of a connection that names none."""

EDGES_PREFIX: Final = "x-amzn-bedrock-agentcore-"
"""Prefix of the headers that AgentCore adds. We assume, undocumented, that at least one of them
reaches the container."""

OAUTH_SUBPROTOCOL: Final = "base64UrlBearerAuthorization"
"""Browsers offer this subprotocol to an OAuth runtime. The server must choose one that was
offered, or the browser closes the connection."""


async def serve_opening(
    websocket: WebSocket,
    session: str | None,
    runtime: Runtime,
    settings: Settings,
    refusals: RefusalLog,
) -> None:
    """Refuse the opening with an HTTP status, or accept it and carry the connection.

    `session` is AgentCore's session id, where there is one: it names the mesh.
    """
    origin = websocket.headers.get("origin")
    if not origin_allowed(origin, settings.allowed_origins):
        refusals.tell(
            "origin refused; add it to --allowed-origins (RELAY_ALLOWED_ORIGINS) to let it in",
            origin=origin,
        )
        await _refuse(websocket, "origin not allowed", 403)
        return
    mesh = session or websocket.query_params.get("mesh") or DEFAULT_MESH
    if len(mesh) > settings.limits.mesh_name_chars_max:
        refusals.tell("opening refused", "mesh name too long", status=400)
        await _refuse(websocket, "mesh name too long", 400)
        return
    try:
        runtime.check_room(mesh)
    except Full as full:
        refusals.tell("full", str(full))
        await _refuse(websocket, str(full), 503)
        return
    offered = websocket.scope.get("subprotocols") or ()
    await websocket.accept(OAUTH_SUBPROTOCOL if OAUTH_SUBPROTOCOL in offered else None)
    is_paced = settings.pace == "on" or (
        settings.pace == "auto" and came_through_the_edge(websocket.headers)
    )
    try:
        await runtime.serve(transport_for(websocket, settings.limits), mesh, is_paced=is_paced)
    except Full as full:  # the room filled up while we accepted
        await websocket.close(1013, str(full))


async def _refuse(websocket: WebSocket, reason: str, status: int) -> None:
    await websocket.send_denial_response(PlainTextResponse(reason, status))


def came_through_the_edge(headers: Mapping[str, str]) -> bool:
    """Does a request have a header that only AgentCore adds? Usually its session's.

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
