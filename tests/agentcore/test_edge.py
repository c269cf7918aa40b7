"""The stand-in for AgentCore's edge does what the service is documented to do."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import boto3
import httpx
import pytest
from anyio.abc import SocketStream
from bedrock_agentcore.runtime import AgentCoreRuntimeClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from actors.clock import VirtualClock
from protocol.session import session_id
from tests import ROOT
from tests.edge import (
    SESSION_HEADER,
    Credentials,
    Edge,
    EdgeLimits,
    EdgeThread,
    HostedRuntime,
    Issuer,
    SessionState,
)
from tests.edge.sessions import ping
from tests.worlds.live import PATIENCE_S, Peer, ShiftedClock, WebSocketPeer, open_sync

pytestmark = pytest.mark.anyio

MESH, OTHER_MESH = session_id("mesh"), session_id("other mesh")
CUSTOM = "X-Amzn-Bedrock-AgentCore-Runtime-Custom-"

UPSTREAM = r"""
import asyncio, json, os, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

GATE = os.environ.get("GATE")

def note(*words):
    with open(os.environ.get("NOTES", os.devnull), "a") as notes:
        print(*words, file=notes)

async def answer(socket):
    async def receive():
        return [fragment async for fragment in socket.recv_streaming()]
    try:
        while True:
            fragments = await receive()
            word, _, number = str(fragments[0]).partition(" ")
            if len(fragments) > 1:
                await socket.send(fragments)
            elif word == "request":
                headers = list(socket.request.headers.raw_items())
                await socket.send(json.dumps([socket.request.path, headers]))
            elif word == "environment":
                await socket.send(json.dumps(dict(os.environ)))
            elif word == "flood":
                for _ in range(int(number)):
                    await socket.send("x")
            elif word == "big":
                await socket.send("x" * int(number))
            elif word == "fill":
                for _ in range(int(number)):
                    await socket.send("x" * 60_000)
            elif word == "ping":
                await (await socket.ping())
                await socket.send("ponged")
            elif word == "close":
                await socket.close(int(number), "as asked")
            elif word == "part":
                for n in range(int(number)):
                    await socket.send(str(n))
                await socket.close(4003)
            elif word == "note":
                note("noted", number)
            else:
                await socket.send(fragments[0])
    except ConnectionClosed as closed:
        note("closed", closed.rcvd and closed.rcvd.code)

def request(connection, request):
    if request.path == "/ping":
        is_open = not GATE or os.path.exists(GATE)
        return connection.respond(200 if is_open else 503, '{"status":"Healthy"}')
    if os.environ.get("REFUSE"):
        return connection.respond(403, "no")

async def main():
    options = {"compression": None, "max_size": None, "ping_interval": None}
    port = int(os.environ["PORT"])
    async with serve(answer, "127.0.0.1", port, process_request=request, **options) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def upstream(**kwargs: Any) -> HostedRuntime:
    """A runtime that is no relay, but shows what reaches it."""
    environ = kwargs.pop("environ", {})
    command = (sys.executable, "-c", UPSTREAM)
    return HostedRuntime(command=command, environ=environ, **kwargs)


ISSUER = Issuer()
KEYS = ISSUER.issue()


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@asynccontextmanager
async def running(*args: Any, **kwargs: Any) -> AsyncIterator[Edge]:
    with anyio.fail_after(PATIENCE_S):
        async with Edge(*args, **kwargs) as edge:
            yield edge


@pytest.fixture
async def echo(clock: ShiftedClock) -> AsyncIterator[Edge]:
    async with running([upstream()], ISSUER.get, clock=clock) as edge:
        yield edge


@cache
def sdk(keys: Credentials = KEYS) -> AgentCoreRuntimeClient:
    """AWS's own client, with these keys."""
    session = boto3.Session(keys.access_key, keys.secret_key, keys.token, "us-west-2")
    return AgentCoreRuntimeClient(session=session)


def presigned(edge: Edge, session: str | None = MESH, keys: Credentials = KEYS, **kw: Any) -> str:
    """A URL as AWS's own client signs it, for AWS's own host."""
    (arn, *_) = edge.runtimes
    return sdk(keys).generate_presigned_url(arn, session, **kw)


async def open_socket(edge: Edge, url: str | None = None, **kwargs: Any) -> ClientConnection:
    """Connect to AWS's host, which is this edge; or to the edge by its own name."""
    url = url or presigned(edge)
    options: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None}
    options["open_timeout"] = None  # the test's own is enough
    if "amazonaws.com" in url:
        options |= edge.address
    return await connect(url.replace("wss:", "ws:"), **options, **kwargs)


async def refusal(edge: Edge, url: str, **kwargs: Any) -> Response:
    with pytest.raises(InvalidStatus) as refused:
        await open_socket(edge, url, **kwargs)
    return refused.value.response


async def close_code(socket: ClientConnection) -> int:
    """Wait for the end; the close code that came, 1006 if none did."""
    with anyio.fail_after(PATIENCE_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


async def ask(socket: ClientConnection, text: str) -> Any:
    with anyio.fail_after(PATIENCE_S):
        await socket.send(text)
        return await socket.recv()


async def until(condition: Any) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.01)


# Signatures ---------------------------------------------------------------------------------------


async def test_a_url_presigned_by_the_sdk_opens_a_connection(echo: Edge) -> None:
    socket = await open_socket(echo)
    assert await ask(socket, "hello") == "hello"


async def test_headers_signed_by_the_sdk_open_a_connection(echo: Edge) -> None:
    url, headers = sdk().generate_ws_connection(next(iter(echo.runtimes)), MESH)
    names = {"X-Amz-Date", "X-Amz-Security-Token", "Authorization", SESSION_HEADER}
    signed = {name: value for name, value in headers.items() if name in names}
    socket = await open_socket(echo, url, additional_headers=signed)
    assert await ask(socket, "hello") == "hello"
    assert [session.id for session in echo.sessions] == [MESH]
    signed["X-Amz-Date"] = "20200101T000000Z"
    assert (await refusal(echo, url, additional_headers=signed)).status_code == 403


async def test_a_url_for_the_edges_own_host_opens_one_as_a_browser_needs(echo: Edge) -> None:
    url = echo.url_for(KEYS, MESH)
    assert url.startswith(f"ws://127.0.0.1:{echo.port}/")
    socket = await open_socket(echo, url)
    assert await ask(socket, "hello") == "hello"
    assert (await refusal(echo, url.replace("127.0.0.1", "localhost"))).status_code == 403


OTHER_KEYS = ISSUER.issue()
WRONG_SECRET = Credentials(KEYS.access_key, "wrong", KEYS.token)
WRONG_TOKEN = Credentials(KEYS.access_key, KEYS.secret_key, OTHER_KEYS.token)
NO_TOKEN = Credentials(KEYS.access_key, KEYS.secret_key)
UNKNOWN_KEY = Credentials("ASIAUNKNOWN", KEYS.secret_key, KEYS.token)


@pytest.mark.parametrize("keys", [WRONG_SECRET, WRONG_TOKEN, NO_TOKEN, UNKNOWN_KEY])
async def test_a_url_signed_with_other_keys_is_refused(echo: Edge, keys: Credentials) -> None:
    response = await refusal(echo, presigned(echo, keys=keys))
    assert response.status_code == 403
    assert response.headers["x-amzn-ErrorType"] == "AccessDeniedException"
    assert echo.sessions == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (MESH, OTHER_MESH),
        ("relay-0123456789", "relay-0123456780"),
        ("/ws?", "/ws/shells?"),
        ("qualifier=DEFAULT", "qualifier=OTHER"),
        ("-Custom-A=1", "-Custom-A=2"),
        ("&X-Amz-SignedHeaders=host", "&X-Amz-SignedHeaders=host&more=1"),
        ("X-Amz-Expires=200", "X-Amz-Expires=300"),
        ("%2Fus-west-2%2F", "%2Fus-east-1%2F"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        ("&X-Amz-Signature=", "&X-Amz-Signature=0"),
        ("&X-Amz-Signature=", "&X-Signature="),
        ("X-Amz-Date=2", "X-Amz-Date=3"),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        ("&X-Amz-Security-Token=", "&X-Amz-Security-Token=0"),
    ],
)
async def test_a_presigned_url_that_was_changed_is_refused(echo: Edge, old: str, new: str) -> None:
    url = presigned(echo, endpoint_name="DEFAULT", custom_headers={CUSTOM + "A": "1"}, expires=200)
    assert url.count(old) == 1
    assert (await refusal(echo, url.replace(old, new))).status_code == 403
    assert echo.sessions == ()


async def test_a_presigned_url_is_good_until_it_expires(echo: Edge, clock: ShiftedClock) -> None:
    url = presigned(echo, expires=200)
    clock.shift_s = 190
    await open_socket(echo, url)
    clock.shift_s = 201
    assert (await refusal(echo, url)).status_code == 403
    clock.shift_s = -1000
    assert (await refusal(echo, url)).status_code == 403


async def test_a_url_for_more_than_300_s_is_refused(echo: Edge) -> None:
    assert (await refusal(echo, echo.url_for(KEYS, MESH, expires_s=301))).status_code == 403


async def test_keys_that_have_expired_sign_nothing(echo: Edge, clock: ShiftedClock) -> None:
    keys = ISSUER.issue(expires_ms=clock.now().wall_ms + 100_000)
    await open_socket(echo, presigned(echo, keys=keys))
    clock.shift_s = 101
    assert (await refusal(echo, echo.url_for(keys, MESH))).status_code == 403


async def test_a_url_without_a_signature_is_refused(echo: Edge) -> None:
    assert (await refusal(echo, echo.url_for(None, MESH))).status_code == 403


async def test_an_unknown_runtime_or_endpoint_is_not_found(echo: Edge) -> None:
    (arn,) = echo.runtimes
    for url in (
        sdk().generate_presigned_url(arn + "x", MESH),
        presigned(echo, endpoint_name="OTHER"),
    ):
        response = await refusal(echo, url)
        assert response.status_code == 404
        assert response.headers["x-amzn-ErrorType"] == "ResourceNotFoundException"


async def test_what_is_not_a_websocket_is_refused_and_starts_nothing(echo: Edge) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        url = echo.url_for(KEYS, MESH).replace("ws:", "http:")
        assert (await http.get(url)).status_code == 426
        assert (await http.post(url)).status_code in (403, 405)
    assert echo.sessions == ()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("//[/ws?X-Amz-Signature=", {}),
        ("*", {}),
        ("/runtimes/%ff%00/ws?&&=&X-Amz-Signature&X-Amz-Credential=%ff", {}),
        ("{signed}", {"Host": "["}),
        ("{signed}", {"Host": "[::1"}),
        ("{signed}&X-Amz-Expires=99999999999999999999", {}),
        ("/runtimes/x/ws", {"Authorization": "AWS4-HMAC-SHA256 ,=,Credential"}),
        ("/runtimes/x/ws", {"Authorization": "AWS4-HMAC-SHA256 \xff", "authorization": "Bearer"}),
        ("/runtimes/x/ws", {"Transfer-Encoding": "chunked"}),
    ],
)
async def test_odd_requests_are_refused_and_crash_nothing(
    echo: Edge, target: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    signed = echo.url_for(KEYS, MESH).partition(str(echo.port))[2]
    lines = [f"GET {target.format(signed=signed)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in ({"Host": "x"} | headers).items()]
    async with await anyio.connect_tcp("127.0.0.1", echo.port) as stream:
        await stream.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = b""
        with anyio.fail_after(PATIENCE_S), contextlib.suppress(anyio.EndOfStream):
            while True:
                answer += await stream.receive()
    assert answer[9:12] in (b"403", b"")
    assert "crashed" not in caplog.text
    assert echo.sessions == ()


async def test_a_client_that_says_nothing_does_not_hold_up_the_end() -> None:
    async with running([upstream()], ISSUER.get, EdgeLimits(close_within_s=0.1)) as edge:
        mute = await anyio.connect_tcp("127.0.0.1", edge.port)
        started = anyio.current_time()
    assert anyio.current_time() - started < 5
    await mute.aclose()


# OAuth --------------------------------------------------------------------------------------------


async def test_an_oauth_runtime_takes_the_token_from_subprotocol_or_header() -> None:
    runtime = upstream(authorizer=lambda token: token == "good?>")
    async with running([runtime]) as edge:
        url = edge.url_for(None, MESH)

        def offer(token: str) -> list[Any]:
            encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
            return [f"base64UrlBearerAuthorization.{encoded}", "base64UrlBearerAuthorization"]

        socket = await open_socket(edge, url, subprotocols=offer("good?>"))
        assert socket.subprotocol == "base64UrlBearerAuthorization"
        _, headers = json.loads(await ask(socket, "request"))
        assert "good" not in str(headers)
        assert "sec-websocket-protocol" not in {name.lower() for name, _ in headers}
        header = {"Authorization": "Bearer good?>"}
        socket = await open_socket(edge, url, additional_headers=header)
        assert socket.subprotocol is None
        for wrong in (offer("bad"), offer("good?>")[1:], ["base64UrlBearerAuthorization.%"], None):
            response = await refusal(edge, url, subprotocols=wrong)
            assert response.status_code == 401
            assert response.headers["x-amzn-ErrorType"] == "UnauthorizedException"
        assert (await refusal(edge, edge.url_for(KEYS, MESH))).status_code == 401


# Sessions -----------------------------------------------------------------------------------------


async def test_peers_of_one_session_meet_and_those_of_others_never_do() -> None:
    siblings: list[Peer] = []
    async with running(credentials=ISSUER.get) as edge:

        async def join(name: str, session: str | None) -> WebSocketPeer:
            socket = await open_socket(edge, presigned(edge, session))
            return await WebSocketPeer(socket, siblings).announce(name)

        ann, bob = await join("ann", MESH), await join("bob", MESH)
        eve, lone = await join("eve", OTHER_MESH), await join("lone", None)
        for joined in (ann, bob, eve, lone):
            await joined.everything()
        texts = [
            await ann.send("broadcast", sender="ann", data="x" * 1000),
            await ann.send("direct", sender="ann", to="bob", turnId="1", data={}),
            await ann.send("stream", sender="ann", turnId="1", data={"chunk": "é"}),
            await ann.send("turn_end", sender="ann", turnId="1", data={"result": "r"}),
        ]
        assert await bob.everything() == texts
        assert await eve.everything() == await lone.everything() == []
        assert len({session.pid for session in edge.sessions}) == len(edge.sessions) == 3
        assert sorted(len(session.connections) for session in edge.sessions) == [1, 1, 2]
        for peer in siblings:
            await peer.close()


async def test_clients_without_a_session_id_are_each_alone(echo: Edge) -> None:
    for _ in range(2):
        await open_socket(echo, echo.url_for(KEYS))
    ids = {session.id for session in echo.sessions}
    assert len(ids) == 2
    assert all(len(id) >= 33 for id in ids)


async def test_the_same_session_id_on_two_runtimes_is_two_sessions() -> None:
    arns = [f"arn:aws:bedrock-agentcore:eu-west-1:123456789012:runtime/r-{n}" for n in "12"]
    async with running([upstream(arn=arn) for arn in arns], ISSUER.get) as edge:
        for arn in arns:
            await open_socket(edge, edge.url_for(KEYS, MESH, arn=arn))
        assert sorted((session.runtime.arn, session.id) for session in edge.sessions) == [
            (arns[0], MESH),
            (arns[1], MESH),
        ]


@pytest.mark.parametrize("id", ["", "x" * 32, "x" * 257, "x" * 33 + "\r\nX: 1"])
async def test_a_session_id_must_have_33_to_256_characters(echo: Edge, id: str) -> None:
    response = await refusal(echo, echo.url_for(KEYS, id))
    assert response.status_code == 400
    assert response.headers["x-amzn-ErrorType"] == "ValidationException"


async def test_while_a_session_starts_others_get_409_if_told_so_and_wait_otherwise(
    tmp_path: Path,
) -> None:
    for is_conflict in (True, False):
        gate = tmp_path / str(is_conflict)
        limits = EdgeLimits(conflict_while_starting=is_conflict)
        runtime = upstream(environ={"GATE": str(gate)})
        async with (
            running([runtime], ISSUER.get, limits) as edge,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(open_socket, edge)
            await until(lambda edge=edge: edge.sessions)
            assert edge.sessions[0].state is SessionState.STARTING
            if is_conflict:
                response = await refusal(edge, presigned(edge))
                assert response.status_code == 409
                assert response.headers["x-amzn-ErrorType"] == "RetryableConflictException"
            else:
                tasks.start_soon(open_socket, edge)
            gate.touch()
            await until(lambda edge=edge: edge.sessions[0].connections)
            await open_socket(edge)


async def test_a_session_that_does_not_become_healthy_is_an_error_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    runtime = upstream(environ={"GATE": str(tmp_path / "never")})
    async with running([runtime], ISSUER.get, EdgeLimits(start_within_s=0.5)) as edge:
        response = await refusal(edge, presigned(edge))
        assert response.status_code == 424
        await until(lambda: not edge.sessions)
    async with running([HostedRuntime(command=("false",))], ISSUER.get) as edge:
        assert (await refusal(edge, presigned(edge))).status_code == 424


async def test_a_connection_that_the_container_refuses_is_its_error() -> None:
    async with running([upstream(environ={"REFUSE": "1"})], ISSUER.get) as edge:
        response = await refusal(edge, presigned(edge))
        assert response.status_code == 424
        assert response.headers["x-amzn-ErrorType"] == "RuntimeClientError"


async def test_a_session_has_the_environment_of_the_service(echo: Edge) -> None:
    environ = json.loads(await ask(await open_socket(echo), "environment"))
    assert (environ["AWS_REGION"], environ["DOCKER_CONTAINER"]) == ("us-west-2", "1")
    assert "AWS_SECRET_ACCESS_KEY" not in environ


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_session_that_ends_takes_leave_and_the_next_one_is_new() -> None:
    async with running(credentials=ISSUER.get) as edge:
        socket = await open_socket(edge)
        (old,) = edge.sessions
        await edge.end_session(MESH)
        assert await close_code(socket) == 1001
        assert not is_alive(old.pid)
        await open_socket(edge)
        assert edge.sessions[0].pid != old.pid


async def test_a_session_that_is_killed_or_crashes_closes_with_1011(echo: Edge) -> None:
    socket = await open_socket(echo)
    await echo.end_session(MESH, kill=True)
    assert await close_code(socket) == 1011
    socket = await open_socket(echo)
    (session,) = echo.sessions
    assert session.pid is not None
    os.kill(session.pid, signal.SIGKILL)
    assert await close_code(socket) == 1011
    await until(lambda: not echo.sessions)


async def test_a_process_that_ignores_sigterm_is_killed_and_until_then_openings_get_409() -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + UPSTREAM
    runtime = HostedRuntime(command=(sys.executable, "-c", stubborn))
    async with running([runtime], ISSUER.get, EdgeLimits(stop_within_s=1.0)) as edge:
        socket = await open_socket(edge)
        (session,) = edge.sessions
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(edge.end_session, MESH)
            await until(lambda: session.state is SessionState.ENDING)
            assert (await refusal(edge, presigned(edge))).status_code == 409
        assert await close_code(socket) == 1001
        assert not is_alive(session.pid)


async def test_no_process_is_left_behind_whatever_happens_to_the_test() -> None:
    pids = []
    with pytest.raises(ZeroDivisionError):
        async with running([upstream()], ISSUER.get) as edge:
            await open_socket(edge)
            pids += [session.pid for session in edge.sessions]
            raise ZeroDivisionError
    with anyio.move_on_after(PATIENCE_S) as scope:
        async with running([upstream()], ISSUER.get) as edge:
            await open_socket(edge)
            pids += [session.pid for session in edge.sessions]
            scope.cancel()
            await anyio.sleep_forever()
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


# Headers ------------------------------------------------------------------------------------------


async def test_only_allowed_headers_reach_the_container_and_custom_ones_from_the_query_too() -> (
    None
):
    allowed = {"x-api-key", "authorization", "cookie"}
    allowed |= {CUSTOM.lower() + "query", CUSTOM.lower() + "header"}
    runtime = upstream(allowed_headers=frozenset(allowed))
    async with running([runtime], ISSUER.get) as edge:
        custom = {CUSTOM + "Query": "q 1", CUSTOM + "More": "m"}
        custom |= {"x-api-key": "from the query", "mesh": "m"}
        headers = {
            CUSTOM + "Header": "h",
            "X-Api-Key": "k",
            "X-Other": "o",
            "Origin": "https://agi.diy",
            "Cookie": "c=1",
            "Authorization": "Basic x",
            "X-Amzn-Trace-Id": "t",
            "X-Amz-Thing": "t",
        }
        url = presigned(edge, custom_headers=custom)
        socket = await open_socket(edge, url, additional_headers=headers)
        path, seen = json.loads(await ask(socket, "request"))
        port = edge.sessions[0].port
    assert path == "/ws"
    seen = [(name.lower(), value) for name, value in seen]
    passed = {name: v for name, v in seen if not name.startswith(("sec-websocket", "connection"))}
    assert passed == {
        "host": f"127.0.0.1:{port}",
        "upgrade": "websocket",
        SESSION_HEADER.lower(): MESH,
        CUSTOM.lower() + "query": "q 1",
        CUSTOM.lower() + "header": "h",
        "x-api-key": "k",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {CUSTOM + "A": "1\r\nCookie: 1"},
        {CUSTOM + "A b": "1"},
        {CUSTOM + "A": "x" * 4097},
        {f"{CUSTOM}{n}": "x" for n in range(21)},
    ],
)
async def test_custom_headers_that_are_none_are_refused(echo: Edge, fields: dict[str, str]) -> None:
    assert (await refusal(echo, echo.url_for(KEYS, MESH, fields=fields))).status_code == 400


# Limits -------------------------------------------------------------------------------------------


@pytest.fixture
async def still() -> AsyncIterator[tuple[Edge, VirtualClock]]:
    """An edge whose clock stands still, and the clock."""
    clock = VirtualClock()
    async with running([upstream()], ISSUER.get, clock=clock) as edge:
        yield edge, clock


async def test_250_frames_a_second_pass_each_way_and_251_close_with_1008(
    still: tuple[Edge, VirtualClock],
) -> None:
    edge, _ = still
    socket = await open_socket(edge, edge.url_for(KEYS, MESH))
    for n in range(250):
        await socket.send(str(n))
    assert [await socket.recv() for _ in range(250)] == [str(n) for n in range(250)]
    (traffic,) = edge.traffic
    assert (traffic.up.frames_per_s_max, traffic.down.frames_per_s_max) == (250, 250)
    assert traffic.close_code is None
    await socket.send("one more")
    assert await close_code(socket) == 1008
    assert traffic.close_code == 1008


@pytest.mark.parametrize(("later_s", "is_too_much"), [(0.99, True), (1.0, False)])
async def test_the_frame_rate_is_that_of_any_second(
    still: tuple[Edge, VirtualClock], later_s: float, is_too_much: bool
) -> None:
    edge, clock = still
    socket = await open_socket(edge, edge.url_for(KEYS, MESH))
    for _ in range(100):
        await ask(socket, "x")
    await clock.advance(later_s)
    for _ in range(150):
        await ask(socket, "x")
    await socket.send("one more")
    if is_too_much:
        assert await close_code(socket) == 1008
    else:
        assert await socket.recv() == "one more"
        assert edge.traffic[0].up.frames_per_s_max == 151


async def test_a_client_that_floods_is_told_so_while_it_still_writes() -> None:
    async with running([upstream()], ISSUER.get, EdgeLimits(close_within_s=30)) as edge:
        socket = await open_socket(edge)
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(10_000):
                await socket.send("x" * 1000)
            await close_code(socket)
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_a_flood_of_the_relays_closes_with_1008_too(
    still: tuple[Edge, VirtualClock],
) -> None:
    edge, _ = still
    flooded = await open_socket(edge, edge.url_for(KEYS, MESH))
    other = await open_socket(edge, edge.url_for(KEYS, MESH))
    await flooded.send("flood 1000")
    assert await close_code(flooded) == 1008
    assert edge.traffic[0].down.frames_per_s_max == 251
    assert await ask(other, "hello") == "hello"


@pytest.mark.parametrize("size", [64 * 1024, 32 * 1024])
async def test_a_frame_of_the_greatest_size_passes_and_one_byte_more_closes_with_1009(
    size: int,
) -> None:
    limits = EdgeLimits(frame_bytes_max=size)
    async with running([upstream()], ISSUER.get, limits) as edge:
        socket = await open_socket(edge)
        assert len(await ask(socket, "x" * size)) == size
        assert len(await ask(socket, f"big {size}")) == size
        assert edge.traffic[0].up.frame_bytes_max == size
        await socket.send("x" * (size + 1))
        assert await close_code(socket) == 1009
        assert edge.traffic[0].up.frame_bytes_max == size
        socket = await open_socket(edge)
        await socket.send(f"big {size + 1}")
        assert await close_code(socket) == 1009


async def test_a_message_in_continuation_frames_passes_and_stays_in_them(echo: Edge) -> None:
    socket = await open_socket(echo)
    parts = [c * 32 * 1024 for c in "abcdefgh"]
    with anyio.fail_after(PATIENCE_S):
        await socket.send(parts)
        back = [part async for part in socket.recv_streaming()]
    # (websockets ends a fragmented message with an empty frame.)
    assert back[: len(parts)] == parts
    assert echo.traffic[0].up.frames == len(parts) + 1
    assert echo.traffic[0].up.frame_bytes_max == 32 * 1024


async def test_pings_are_passed_on_both_ways_or_answered_when_told_to() -> None:
    for answers in (False, True):
        limits = EdgeLimits(answers_pings=answers)
        async with running([upstream()], ISSUER.get, limits) as edge:
            socket = await open_socket(edge, ping_interval=None)
            with anyio.fail_after(PATIENCE_S):
                await (await socket.ping(b"there?"))
            assert await ask(socket, "ping") == "ponged"
            (traffic,) = edge.traffic
            # Up: a ping and a text. What else there is, is a pong that went all the way.
            assert traffic.up.frames == (2 if answers else 3)
            assert traffic.down.frames == (2 if answers else 3)


async def test_close_codes_are_passed_on_both_ways(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with running([upstream(environ={"NOTES": str(notes)})], ISSUER.get) as edge:
        socket = await open_socket(edge)
        await socket.send("close 4001")
        assert await close_code(socket) == 4001
        socket = await open_socket(edge)
        await socket.close(4002)
        await until(lambda: notes.exists() and "closed 4002" in notes.read_text())
        assert [traffic.close_code for traffic in edge.traffic] == [4001, 4002]


async def test_what_was_sent_just_before_a_close_still_arrives(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with running([upstream(environ={"NOTES": str(notes)})], ISSUER.get) as edge:
        socket = await open_socket(edge)
        await socket.send("part 100")
        assert [await socket.recv() for _ in range(100)] == [str(n) for n in range(100)]
        assert await close_code(socket) == 4003
        socket = await open_socket(edge)
        for n in range(100):
            await socket.send(f"note {n}")
        await socket.close()
        await until(lambda: notes.exists() and "closed 1000" in notes.read_text())
        assert notes.read_text().count("noted") == 100


async def open_raw(edge: Edge) -> SocketStream:
    """Connect as a client that does nothing by itself."""
    target = edge.url_for(KEYS, MESH).partition(str(edge.port))[2]
    stream = await anyio.connect_tcp("127.0.0.1", edge.port)
    await stream.send(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{edge.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await stream.receive()
    return stream


async def test_an_oversized_frame_ends_both_legs_though_its_sender_does_not_react() -> None:
    limits = EdgeLimits(close_within_s=0.1)
    async with running([upstream()], ISSUER.get, limits) as edge, await open_raw(edge) as raw:
        await raw.send(b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x01")
        assert (await raw.receive())[2:4] == (1009).to_bytes(2)
        await until(lambda: not edge.sessions[0].connections)
        assert edge.traffic[0].close_code == 1009


@pytest.mark.parametrize("answers", [False, True])
async def test_a_ping_is_answered_once(answers: bool) -> None:
    limits = EdgeLimits(answers_pings=answers)
    async with running([upstream()], ISSUER.get, limits) as edge, await open_raw(edge) as raw:
        await raw.send(b"\x89\x81\x00\x00\x00\x00p\x81\x81\x00\x00\x00\x00x")
        received, expected = b"", b"\x8a\x01p\x81\x01x"
        while len(received) < len(expected):
            received += await raw.receive()
        assert received == expected


async def test_a_connection_ends_after_60_minutes_and_its_session_goes_on(
    clock: ShiftedClock,
) -> None:
    limits = EdgeLimits(session_idle_s=1e9)
    async with running([upstream()], ISSUER.get, limits, clock) as edge:
        socket = await open_socket(edge)
        (session,) = edge.sessions
        clock.shift_s = 3500
        other = await open_socket(edge, edge.url_for(KEYS, MESH))
        assert await ask(socket, "still here") == "still here"
        clock.shift_s = 3601
        assert await close_code(socket) == 1001
        assert await ask(other, "me too") == "me too"
        assert edge.sessions == (session,)


async def test_a_session_ends_after_8_hours(clock: ShiftedClock) -> None:
    limits = EdgeLimits(connection_life_s=1e9)
    async with running(credentials=ISSUER.get, limits=limits, clock=clock) as edge:
        socket = await open_socket(edge)
        (session,) = edge.sessions
        clock.shift_s = 8 * 3600
        assert await close_code(socket) == 1001
        await until(lambda: not edge.sessions)
        assert not is_alive(session.pid)


async def test_a_session_ends_when_the_stamp_of_its_ping_is_15_minutes_old(
    clock: ShiftedClock,
) -> None:
    relay = HostedRuntime(arn="arn:aws:bedrock-agentcore:us-west-2:1:runtime/relay")
    async with running([upstream(), relay], ISSUER.get, clock=clock) as edge:
        silent, peer = [
            await open_socket(edge, edge.url_for(KEYS, MESH, arn=a)) for a in edge.runtimes
        ]
        await peer.send('{"type":"presence","from":"a"}')
        await peer.recv()
        _, mesh = edge.sessions
        clock.shift_s = 800
        assert await ask(silent, "traffic") == "traffic"
        clock.shift_s = 903  # that one says no stamp, so it is since its opening
        assert await close_code(silent) == 1001
        for shift_s in (1800, 2700):  # it is here all the time
            clock.shift_s = shift_s
            await until(lambda s=shift_s: mesh.idleness.asked_at >= mesh.started_at + s)
            assert mesh.state is SessionState.RUNNING
        assert "capabilities_response" in await ask(peer, '{"type":"capabilities"}')
        await peer.close()
        while (health := await ping(mesh.port)) is None or health.status != "Healthy":
            pass  # until the relay has noticed, too
        await until(lambda: not mesh.connections)
        clock.shift_s = 2703
        await until(lambda: mesh.idleness.stamp_s == health.updated_s)  # some ask in vain
        clock.shift_s = 2703 + 850
        await until(lambda: mesh.idleness.asked_at >= mesh.started_at + 2703 + 850)
        assert mesh.state is SessionState.RUNNING
        clock.shift_s = 2703 + 1000
        await until(lambda: not edge.sessions)


async def test_connections_can_be_cut_with_and_without_a_word(echo: Edge) -> None:
    one, two = await open_socket(echo), await open_socket(echo)
    assert echo.cut_connections() == 2
    assert await close_code(one) == await close_code(two) == 1001
    lost = await open_socket(echo)
    echo.cut_connections(1006)
    assert await close_code(lost) == 1006


async def test_a_client_that_does_not_read_stops_the_relay_and_loses_nothing() -> None:
    limits = EdgeLimits(frames_per_s=10**9, frame_bytes_max=64 * 1024)
    frames = 1000
    async with running([upstream()], ISSUER.get, limits) as edge:
        socket = await open_socket(edge, ping_interval=None)
        other = await open_socket(edge)
        await socket.send(f"fill {frames}")
        down, seen = edge.traffic[0].down, -1
        while seen < down.frames:  # until a round trip goes by without a frame of the flood
            seen = down.frames
            for _ in range(20):
                await ask(other, "tick")
        assert 0 < down.frames < frames
        with anyio.fail_after(PATIENCE_S):
            for _ in range(frames):
                assert len(await socket.recv()) == 60_000


# In a thread, by hand, and with Cognito -----------------------------------------------------------


@pytest.fixture
def threaded() -> Iterator[EdgeThread]:
    with EdgeThread(runtimes=[upstream()], credentials=ISSUER.get) as edge:
        yield edge


def test_in_a_thread_it_serves_tests_that_are_not_async(threaded: EdgeThread) -> None:
    edge = threaded.edge
    with open_sync(edge.url_for(KEYS, MESH)) as socket:
        socket.send("hello")
        assert socket.recv(PATIENCE_S) == "hello"
        assert threaded.call(edge.cut_connections) == 1
        with pytest.raises(ConnectionClosed, match="1001"):
            socket.recv(PATIENCE_S)
    assert [session.id for session in edge.sessions] == [MESH]
    assert edge.traffic[0].close_code == 1001
    threaded.call(edge.end_session, MESH)
    assert edge.sessions == ()


def test_by_hand_it_prints_a_url_that_works_and_stops_cleanly() -> None:
    command = [sys.executable, "-m", "tests.edge", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        facts = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        with open_sync(facts["url"]) as socket:
            socket.send('{"type":"capabilities"}')
            assert "capabilities_response" in str(socket.recv(PATIENCE_S))
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed, match="1001"):
                socket.recv(PATIENCE_S)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


async def test_keys_of_cognito_open_a_connection_until_they_expire(clock: ShiftedClock) -> None:
    pytest.importorskip("moto.server")
    from tests.edge.cognito import Cognito  # noqa: PLC0415

    issuer = Issuer()
    with Cognito(issuer, clock=clock) as cognito:
        login = cognito.login()
        identities = cognito.client("cognito-identity")
        id = identities.get_id(IdentityPoolId=cognito.identity_pool_id)["IdentityId"]

        def keys_for(token: str) -> Credentials:
            answer = identities.get_credentials_for_identity(
                IdentityId=id, Logins={cognito.provider: token}
            )["Credentials"]
            return Credentials(answer["AccessKeyId"], answer["SecretKey"], answer["SessionToken"])

        keys = keys_for(login["IdToken"])
        with pytest.raises(identities.exceptions.NotAuthorizedException):
            keys_for(login["IdToken"] + "x")
        oauth = upstream(
            arn="arn:aws:bedrock-agentcore:us-west-2:1:runtime/oauth", authorizer=cognito.is_valid
        )
        async with running([upstream(), oauth], issuer.get, clock=clock) as edge:
            await open_socket(edge, presigned(edge, keys=keys))
            header = {"Authorization": f"Bearer {login['AccessToken']}"}
            url = edge.url_for(None, MESH, arn=oauth.arn)
            await open_socket(edge, url, additional_headers=header)
            clock.shift_s = 3601
            assert (await refusal(edge, edge.url_for(keys, MESH))).status_code == 403
            assert (await refusal(edge, url, additional_headers=header)).status_code == 401
