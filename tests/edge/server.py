"""The edge itself: takes a request, decides whether and where it goes, and keeps the time."""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

import anyio
from anyio.from_thread import start_blocking_portal
from websockets.client import ClientProtocol
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from actors.clock import Clock, SystemClock
from tests.edge.admission import (
    BEARER,
    SESSION_HEADER,
    Refusal,
    bearer_token,
    passed_headers,
    session_id_of,
)
from tests.edge.frames import BUFFER_BYTES, Connection, Leg, PassingClient, PassingServer, Traffic
from tests.edge.limits import EdgeLimits
from tests.edge.sessions import POLL_S, HostedRuntime, Session, SessionState
from tests.edge.signing import Credentials, Denied, presign, verify

log = logging.getLogger("edge")

PATH: Final = re.compile(r"/runtimes/([^/]+)/ws")
OPENING_WITHIN_S: Final = 60.0

Lookup = Callable[[str], Credentials | None]


class Edge:
    """The AgentCore data plane for some runtimes, on a loopback port. An async context manager.

        async with Edge(credentials=issuer.get) as edge:
            url = edge.url_for(issuer.issue(), session_id("my mesh"))

    `clock` decides about signatures (its wall time) and lifetimes (its monotonic one). On asyncio.
    """

    def __init__(
        self,
        runtimes: Sequence[HostedRuntime] = (HostedRuntime(),),
        credentials: Lookup | Mapping[str, Credentials] = MappingProxyType({}),
        limits: EdgeLimits | None = None,
        clock: Clock | None = None,
        port: int = 0,
    ) -> None:
        self.runtimes = {runtime.arn: runtime for runtime in runtimes}
        self.limits = limits or EdgeLimits()
        self.clock = clock or SystemClock()
        self.port = port
        self.traffic: deque[Traffic] = deque(maxlen=1000)
        """The latest connections, open and past."""
        self._lookup = credentials.get if isinstance(credentials, Mapping) else credentials
        self._sessions: dict[tuple[str, str], Session] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=BUFFER_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._watch = _start(self._keep_time())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Whatever happened to the caller, the processes must not stay. All waits here are bounded.
        with anyio.CancelScope(shield=True):
            self._server.close()
            self._watch.cancel()
            self.cut_connections()
            tasks = {self._watch, *self._serving}
            await asyncio.wait(tasks, timeout=self.limits.close_within_s)
            for task in tasks:  # clients that said nothing yet, or wait for a session
                task.cancel()
            await asyncio.wait(tasks)
            lives = {session.task for session in self.sessions}
            for session in self.sessions:
                session.end()
            if lives:
                await asyncio.wait(lives)
            await self._server.wait_closed()

    # What tests look at and do -------------------------------------------------------------------

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that there are now."""
        return tuple(self._sessions.values())

    @property
    def address(self) -> dict[str, Any]:
        """Where to connect to while URL and signature stay those of AWS.

        `websockets.connect(url.replace("wss:", "ws:"), **edge.address)`
        """
        return {"host": "127.0.0.1", "port": self.port}

    def url_for(
        self,
        credentials: Credentials | None,
        session_id: str | None = None,
        *,
        arn: str | None = None,
        expires_s: int = 300,
        fields: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """A URL at this host and port; presigned, if there are credentials to sign it with.

        `arn`: of the first runtime, if it is not given. `fields`: what else is in the query.
        """
        runtime = self.runtimes[arn] if arn else next(iter(self.runtimes.values()))
        session = {SESSION_HEADER: session_id} if session_id is not None else {}
        query = urlencode({**session, **fields}, quote_via=quote)
        path = f"/runtimes/{quote(runtime.arn, safe='')}/ws"
        url = f"ws://127.0.0.1:{self.port}{path}?{query}"
        if credentials is None:
            return url
        now_ms = self.clock.now().wall_ms
        return presign(credentials, runtime.region, url, now_ms, expires_s)

    async def end_session(self, id: str, *, kill: bool = False) -> None:
        """End the sessions of this id and wait until their processes are gone.

        `kill`: as when a machine is lost, without a word to anyone.
        """
        for session in self.sessions:
            if session.id == id:
                session.end(kill=kill)
                await asyncio.wait({session.task})

    def cut_connections(self, code: int = CloseCode.GOING_AWAY) -> int:
        """End all connections as a lifetime's end does; with 1006, as a lost network does.

        Sessions stay. How many there were.
        """
        connections = [c for session in self.sessions for c in session.connections]
        for connection in connections:
            connection.close(code, "connection cut")
        return len(connections)

    # From request to relay -----------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = _start(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = ServerProtocol if self.limits.answers_pings else PassingServer
        protocol = kind(
            max_size=(None, self.limits.frame_bytes_max),
            select_subprotocol=lambda _, offered: BEARER if BEARER in offered else None,
        )
        client = Leg(protocol, reader, writer)
        request = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPENING_WITHIN_S):
                    request = await client.next()
            if isinstance(request, Request):
                await self._answer(client, protocol, request)
        finally:
            client.abort()

    async def _answer(self, client: Leg, protocol: ServerProtocol, request: Request) -> None:
        try:
            runtime, fields = self._admit(request)
            response = protocol.accept(request)
            if response.status_code != 101:
                raise Refusal(
                    response.status_code, "ValidationException", response.body.decode().strip()
                )
            session = await self._session(runtime, session_id_of(request, fields))
            relay = await self._dial(session, passed_headers(request, fields, runtime))
        except Refusal as refusal:
            response = protocol.reject(refusal.status, f"{refusal}\n")
            response.headers["x-amzn-ErrorType"] = refusal.name
            protocol.send_response(response)
            client.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.close_within_s):
                    await client.finish()
            return
        protocol.send_response(response)
        client.flush()
        traffic = Traffic(session.id)
        self.traffic.append(traffic)
        connection = Connection(client, relay, traffic, self.limits, self.clock)
        session.connections.add(connection)
        try:
            await connection.run()
        finally:
            session.connections.discard(connection)

    def _admit(self, request: Request) -> tuple[HostedRuntime, dict[str, str]]:
        """The runtime that the request is for, and its query. Raises Refusal."""
        path, _, query = request.path.partition("?")
        match = PATH.fullmatch(path)
        arn = unquote(match[1]) if match else ""
        runtime = self.runtimes.get(arn)
        now_ms = self.clock.now().wall_ms
        if runtime and runtime.authorizer:
            token = bearer_token(request)
            if not (token and runtime.authorizer(token)):
                raise Refusal(401, "UnauthorizedException", "no valid bearer token")
        else:
            region = "".join(arn.split(":")[3:4])
            try:
                verify(request.path, request.headers, region, self._lookup, now_ms)
            except Denied as denied:
                raise Refusal(403, "AccessDeniedException", str(denied)) from None
        fields = dict(parse_qsl(query, keep_blank_values=True))
        if runtime is None or fields.get("qualifier", "DEFAULT") != "DEFAULT":
            raise Refusal(404, "ResourceNotFoundException", "no such runtime or endpoint")
        return runtime, fields

    async def _session(self, runtime: HostedRuntime, id: str) -> Session:
        """The session, running. Raises Refusal."""
        session = self._sessions.get((runtime.arn, id))
        if session is None:
            session = Session(runtime, id, self.limits, self.clock)
            self._sessions[runtime.arn, id] = session
            session.task = _start(self._live(session))
        elif session.state is SessionState.ENDING or (
            session.state is SessionState.STARTING and self.limits.conflict_while_starting
        ):
            text = "Session operation in progress, please retry"
            raise Refusal(409, "RetryableConflictException", text)
        await session.settled.wait()
        session.idleness.invoked(self.clock.now().at)
        if session.state is not SessionState.RUNNING:
            raise Refusal(424, "RuntimeClientError", "the session did not become healthy")
        return session

    async def _live(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            session.settled.set()
            del self._sessions[session.runtime.arn, session.id]

    async def _dial(self, session: Session, headers: dict[str, str]) -> Leg:
        """The other leg, opened. Raises Refusal."""
        kind = ClientProtocol if self.limits.answers_pings else PassingClient
        uri = parse_uri(f"ws://127.0.0.1:{session.port}/ws")
        protocol = kind(uri, max_size=(None, self.limits.frame_bytes_max))
        refusal = Refusal(424, "RuntimeClientError", "the container refused the connection")
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", session.port, limit=BUFFER_BYTES
            )
        except OSError:
            raise refusal from None
        relay = Leg(protocol, reader, writer)
        request = protocol.connect()
        request.headers.update({SESSION_HEADER: session.id, **headers})
        protocol.send_request(request)
        relay.flush()
        try:
            async with asyncio.timeout(OPENING_WITHIN_S):
                response = await relay.next()
            if isinstance(response, Response) and protocol.state is State.OPEN:
                return relay
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            relay.abort()
            raise
        relay.abort()
        raise refusal

    # Time, and tasks -----------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """End what has lived too long. Looks often, so that a clock that jumps is noticed."""
        while True:
            now = self.clock.now().at
            for session in self.sessions:
                for connection in session.connections:
                    if now - connection.opened_at >= self.limits.connection_life_s:
                        connection.close(CloseCode.GOING_AWAY, "connection lifetime exceeded")
                if session.state is SessionState.RUNNING and (
                    now - session.started_at >= self.limits.session_life_s
                    or await session.is_idle(now)
                ):
                    session.end()
            await asyncio.sleep(POLL_S)


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("a task of the edge crashed", exc_info=task.exception())


class EdgeThread:
    """An edge in a thread of its own, for tests that are not async. A context manager.

    What it has to do goes through `call`: `thread.call(thread.edge.end_session, id)`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.edge = Edge(**kwargs)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            self.call = portal.call
            stack.enter_context(portal.wrap_async_context_manager(self.edge))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
