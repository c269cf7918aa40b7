"""Decides about an opening: may this WebSocket connect, to which mesh, over which transport?"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from actors.host.requests import is_own
from actors.host.settings import Settings, is_loopback
from actors.host.throttle import RefusalLog
from actors.host.tokens import NotAdmitted, Tokens, token_of
from actors.relay.runtime import Full, Runtime
from actors.transports.asgi import transport_for
from protocol.grants import OPEN, Grant
from protocol.session import OAUTH_SUBPROTOCOL

DEFAULT_MESH: Final = "default"
"""The mesh of a connection that names none."""

EDGES_PREFIX: Final = "x-amzn-bedrock-agentcore-"
"""Prefix of the headers that AgentCore adds. We assume, undocumented, that at least one of them
reaches the container."""


_ASK_FOR_TOKENS: Final = (
    "everybody who reaches this relay could send: have it ask for tokens (RELAY_AUTH_SECRET), or "
    "let it listen on loopback only, without --allow-host"
)


@attrs.frozen
class Openings:
    """Decides about openings. `tokens` checks tokens; None: nobody is asked for one."""

    runtime: Runtime
    settings: Settings
    refusals: RefusalLog
    tokens: Tokens | None

    async def serve(self, websocket: WebSocket, session: str | None) -> None:
        """Refuse the opening with an HTTP status, or accept it and carry the connection.

        `session` is AgentCore's session id, where there is one: it names the mesh.
        """
        settings = self.settings
        mesh = session or websocket.query_params.get("mesh") or DEFAULT_MESH
        offered = websocket.scope.get("subprotocols") or ()
        try:
            self._check_origin(websocket.headers.get("origin"))
            grant = await self._grant(token_of(websocket.headers, offered))
            self.check_mesh(mesh, grant)
            try:
                self.runtime.check_room(mesh, grant)
            except Full as full:
                raise self.refusal("full", str(full), 503) from None
        except Refusal as refusal:
            await websocket.send_denial_response(refused(refusal))
            return
        await websocket.accept(OAUTH_SUBPROTOCOL if OAUTH_SUBPROTOCOL in offered else None)
        is_paced = settings.pace == "on" or (
            settings.pace == "auto" and came_through_the_edge(websocket.headers)
        )
        transport = transport_for(websocket, settings.limits)
        try:
            await self.runtime.serve(transport, mesh, is_paced=is_paced, grant=grant)
        except Full as full:  # the room filled up while we accepted
            await websocket.close(1013, str(full))

    async def check_reader(self, headers: Mapping[str, str]) -> Grant:
        """The grant of who may see who is here, in all meshes. Raises Refusal for all others."""
        if is_foreign(headers, self.settings.allowed_origins):
            raise self.refusal("request refused", "a page of another origin", 403)
        grant = await self._grant(token_of(headers))
        if not (grant.covers_all_meshes() and grant.may_watch):
            raise self.refusal("token refused", "it is not for watching all meshes", 403)
        return grant

    async def check_sender(self, headers: Mapping[str, str], server: str | None) -> Grant:
        """The grant of who sends something without a connection. `server`: the address at which
        the request came in, if it is known. Raises Refusal.

        Where nobody is asked for a token, that is only for programs of this machine.
        """
        settings = self.settings
        if is_foreign(headers, settings.allowed_origins):
            raise self.refusal("request refused", "a page of another origin", 403)
        if self.tokens is None:
            addresses = (*settings.hosts, server or "")
            if settings.allowed_hosts or not all(map(is_loopback, addresses)):
                raise self.refusal("request refused", _ASK_FOR_TOKENS, 403)
            if not is_own(headers.get("host", ""), frozenset()):
                raise self.refusal("request refused", "the Host header names another machine", 421)
        return await self._grant(token_of(headers))

    def check_mesh(self, mesh: str, grant: Grant) -> None:
        """Raise Refusal unless something may be said in a mesh of this name."""
        if len(mesh) > self.settings.limits.mesh_name_chars_max:
            raise self.refusal("opening refused", "mesh name too long", 400)
        if not grant.covers_mesh(mesh):
            raise self.refusal("token refused", "it is not for this mesh", 403)

    def _check_origin(self, origin: str | None) -> None:
        if not origin_allowed(origin, self.settings.allowed_origins):
            event = (
                "origin refused; add it to --allowed-origins (RELAY_ALLOWED_ORIGINS) to let it in"
            )
            self.refusals.tell(event, origin=origin)
            raise Refusal("origin not allowed", 403)

    async def _grant(self, token: str | None) -> Grant:
        """The grant of this token."""
        if self.tokens is None:
            return OPEN
        try:
            return await self.tokens.grant(token)
        except NotAdmitted as error:
            raise self.refusal("token refused", str(error), error.status) from None

    def refusal(self, event: str, reason: str, status: int) -> "Refusal":
        """A refusal with this HTTP status, for `reason`. It is logged as `event`."""
        self.refusals.tell(event, reason, status=status)
        return Refusal(reason, status)


class Refusal(Exception):
    """A request is refused, with this HTTP status. The text is the reason."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def refused(refusal: Refusal) -> PlainTextResponse:
    """The answer to a request that is refused."""
    headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
    return PlainTextResponse(str(refusal), refusal.status, headers)


def is_foreign(headers: Mapping[str, str], allowed: Sequence[str]) -> bool:
    """Does a page ask that this relay did not serve, and whose origin is not allowed?

    Browsers let any page send such a request, though it cannot read the answer.
    """
    origin, host = headers.get("origin"), headers.get("host")
    if origin is None:  # as in what a page loads like a picture, which it cannot read either
        return headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if origin.partition("://")[2] == host:
        return False
    return not origin_allowed(origin, allowed)


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
