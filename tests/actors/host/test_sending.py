"""`POST /send` over real sockets: what it answers, whom it lets in, and what attackers get."""

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import jwt
import pytest
import uvicorn

from actors.client.command import Command
from actors.client.peer import join
from actors.host.app import RelayApp
from actors.host.sending import STATUS
from actors.host.settings import Settings
from actors.host.tokens import Auth
from protocol.envelope import ErrorCode
from protocol.limits import Limits
from tests import ROOT
from tests.worlds.live import PATIENCE_S, LiveRelay, StillClock, until

SECRET = b"a secret of at least 32 bytes, yes"
SAID = {"type": "broadcast", "from": "cron", "data": "hello"}
JSON = {"content-type": "application/json"}


def bearer(**claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600} | claims, SECRET, "HS256")
    return {"authorization": f"Bearer {token}"}


def client(live: LiveRelay) -> httpx.Client:
    return httpx.Client(base_url=live.http, trust_env=False, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def open_relay() -> Iterator[LiveRelay]:
    with LiveRelay() as live:
        yield live


@pytest.fixture(scope="module")
def guarded() -> Iterator[LiveRelay]:
    with LiveRelay(auth=Auth(secret=SECRET)) as live:
        yield live


@pytest.fixture
def http(open_relay: LiveRelay) -> Iterator[httpx.Client]:
    with client(open_relay) as http:
        yield http


@pytest.fixture(params=["fast", "plain ASGI"])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[LiveRelay]:
    with LiveRelay(fast=request.param == "fast") as live:
        async with live:
            yield live


async def post(live: LiveRelay, said: Any, mesh: str = "") -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.http, trust_env=False, timeout=PATIENCE_S) as http:
        return await http.post("/send", json=said, params={"mesh": mesh} if mesh else {})


# What it answers ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_message_reaches_everyone_and_the_answer_says_how_many(relay: LiveRelay) -> None:
    a = await (await relay.connect()).announce("a", "coder")
    b = await (await relay.connect()).announce("b")
    await b.everything()
    await a.everything()
    answer = await post(relay, SAID)
    assert (answer.status_code, answer.json()) == (200, {"received": 2})
    assert await a.messages() == await b.messages() == [SAID]
    answer = await post(relay, {"type": "direct", "from": "cron", "to": "coder", "data": 1})
    assert answer.json() == {"received": 1}
    assert [message["data"] for message in await a.messages()] == [1]
    assert await b.messages() == []


@pytest.mark.anyio
async def test_an_array_has_a_list_of_answers_in_its_order(relay: LiveRelay) -> None:
    a = await (await relay.connect()).announce("a")
    answer = await post(relay, [SAID, {"type": "direct", "from": "cron", "to": "zoe"}, SAID])
    assert answer.status_code == 200
    first, second, third = answer.json()
    assert first == third == {"received": 1}
    assert second["code"] == "unknown_target"
    assert second["target"] == "zoe"
    assert await a.messages() == [SAID, SAID]
    assert (await post(relay, [SAID])).json() == [{"received": 1}]


@pytest.mark.anyio
async def test_the_mesh_stands_in_the_query_and_is_the_default_one_else(relay: LiveRelay) -> None:
    a = await (await relay.connect("team")).announce("a")
    b = await (await relay.connect()).announce("b")
    assert (await post(relay, SAID, "team")).json() == {"received": 1}
    assert (await post(relay, SAID, "other")).json() == {"received": 0}
    assert await a.messages() == [SAID]
    assert await b.messages() == []
    assert {mesh.name for mesh in relay.runtime.status()} == {"team", "default"}


@pytest.mark.anyio
async def test_what_is_said_over_http_and_over_a_socket_arrives_in_one_order(
    relay: LiveRelay,
) -> None:
    a = await (await relay.connect()).announce("a")
    b = await (await relay.connect()).announce("b")
    for n in range(0, 20, 2):
        await b.send("stream", sender="b", n=n)
        await b.everything()
        await post(relay, SAID | {"n": n + 1})
    assert [message["n"] for message in await a.messages() if "n" in message] == [*range(20)]


@pytest.mark.anyio
async def test_a_visitor_commands_an_agent_which_works_to_the_end_and_others_watch(
    relay: LiveRelay,
) -> None:
    async def work(command: Command) -> str:
        await command.stream("working")
        return f"{command.text} for {command.asker}"

    with anyio.fail_after(PATIENCE_S):
        async with join(relay.url, "machine", agents=["coder"]) as machine:
            async with join(relay.url, "watcher") as watcher, anyio.create_task_group() as tasks:
                tasks.start_soon(machine.serve, work)
                data = {"command": "go"}
                said = {"type": "direct", "to": "coder", "turnId": "nightly", "data": data}
                answer = await post(relay, said | {"from": "cron"})
                assert answer.json() == {"received": 1}
                async for message in watcher:
                    if message.type == "turn_end":
                        break
                assert message.turn_id == "nightly"
                assert message.data["result"] == "go for cron"
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"type": "broadcast"}, 400, "bad_field"),
        ({"type": "presence", "from": "x"}, 400, "bad_field"),
        ({"type": "x" * 300, "from": "x"}, 400, "too_long"),
        ([], 400, "not_an_object"),
        (3, 400, "not_an_object"),
        ({"type": "capabilities_response", "from": "x"}, 403, "spoofed"),
        ({"type": "direct", "from": "x", "to": "nobody"}, 404, "unknown_target"),
        ([SAID] * 2001, 413, "too_large"),
    ],
    ids=range(8),
)
def test_a_single_message_that_is_refused_has_a_status(
    http: httpx.Client, said: Any, status: int, code: str
) -> None:
    answer = http.post("/send", json=said)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"]


def test_every_code_that_a_visit_may_get_has_a_status() -> None:
    only_for_connections = {
        ErrorCode.BINARY,
        ErrorCode.TOO_MANY_AGENTS,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.TOO_MANY_WISHES,
        ErrorCode.NOT_PRESENT,
        ErrorCode.ID_TAKEN,
        ErrorCode.REPLACED,
        ErrorCode.IDENTITY_FIXED,
        ErrorCode.LAGGING,
        ErrorCode.ECHOED,
    }
    assert set(STATUS) == set(ErrorCode) - only_for_connections


def test_other_methods_are_not_allowed_there(http: httpx.Client) -> None:
    for method in ("GET", "PUT", "OPTIONS", "DELETE"):
        assert http.request(method, "/send").status_code == 405


def test_a_body_in_chunks_and_one_of_the_longest_length_are_taken(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        text = json.dumps(SAID).encode()
        for at in range(0, len(text), 7):
            yield text[at : at + 7]

    assert http.post("/send", content=chunks(), headers=JSON).json() == {"received": 0}


def test_the_longest_message_is_taken_and_one_byte_more_is_not() -> None:
    limits = Limits(message_bytes_max=100_000)
    with LiveRelay(limits) as live, client(live) as http:
        room = 100_000 - len(json.dumps(SAID | {"data": ""}))
        for more, status in ((0, 200), (1, 413)):
            body = json.dumps(SAID | {"data": "x" * (room + more)}).encode()
            for content in (body, iter([body])):
                # (A chunked body counts with its framing.)
                answer = http.post("/send", content=content, headers=JSON)
                assert answer.status_code == (status if content is body else 413)


# Who may send -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "word"),
    [
        ({}, 401, "asks for a token"),
        ({"authorization": "Bearer nonsense"}, 401, "not valid"),
        ({"authorization": "Basic YTpi"}, 401, "asks for a token"),
        (bearer(exp=5), 401, "expired"),
        (bearer(mesh="other"), 403, "mesh"),
        (bearer(mesh=[]), 403, "mesh"),
        (bearer(may="watch"), 403, "send"),
        (bearer() | {"origin": "https://evil.example"}, 403, "another origin"),
    ],
    ids=range(8),
)
def test_who_has_no_good_token_says_nothing(
    guarded: LiveRelay, headers: dict[str, str], status: int, word: str
) -> None:
    with client(guarded) as http:
        before = guarded.runtime.totals().relayed
        answer = http.post("/send", json={"type": "broadcast"}, headers=headers)
        assert answer.status_code == status
        assert word in answer.text
        assert guarded.runtime.totals().relayed == before
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.anyio
async def test_a_token_says_who_speaks_and_speaks_for_nobody_else(guarded: LiveRelay) -> None:
    with client(guarded) as http:
        async with guarded:
            bob = await guarded.connect(additional_headers=bearer(sub="bob"))
            await bob.announce("bob", "coder")
            ann = await guarded.connect(additional_headers=bearer())
            await ann.announce("ann/laptop")
            await bob.everything()

            def send(**message: Any) -> httpx.Response:
                return http.post("/send", json={"type": "broadcast", **message}, headers=bearer())

            assert send().json() == {"received": 2}
            assert send(**{"from": "ann/cron"}).json() == {"received": 2}
            for stolen in ("bob", "coder", "ann/laptop", "relay"):
                assert send(**{"from": stolen}).status_code == 403
            assert send(instanceId="bob").json()["code"] == "not_granted"
            froms = [m["from"] for m in await bob.messages() if m["type"] == "broadcast"]
            assert froms == ["ann", "ann/cron"]
            as_bob = http.post("/send", json={"type": "broadcast"}, headers=bearer(sub="bob"))
            assert as_bob.json() == {"received": 1}


def test_a_token_for_some_meshes_sends_there_only(guarded: LiveRelay) -> None:
    with client(guarded) as http:
        found = [
            http.post(
                "/send",
                json={"type": "broadcast"},
                params={"mesh": mesh},
                headers=bearer(mesh=["team", "lab-*"]),
            ).status_code
            for mesh in ("team", "lab-7", "default", "")
        ]
    assert found == [200, 200, 403, 403]


def test_the_name_of_a_mesh_is_bounded(http: httpx.Client) -> None:
    for chars, status in ((256, 200), (257, 400)):
        answer = http.post("/send", json=SAID, params={"mesh": "m" * chars})
        assert answer.status_code == status


@pytest.mark.parametrize(
    "settings",
    [{"allowed_hosts": ("relay.example",)}, {"allowed_hosts": ("*",)}],
)
def test_without_tokens_only_programs_of_this_machine_send(settings: dict[str, Any]) -> None:
    with LiveRelay(**settings) as live, client(live) as http:
        answer = http.post("/send", json=SAID)
        assert answer.status_code == 403
        assert "RELAY_AUTH_SECRET" in answer.text


JSON_RAW = [(b"content-type", b"application/json")]


async def ask(
    app: RelayApp, part: bytes | None = None, *, is_endless: bool = False, **scope: Any
) -> tuple[int, bytes]:
    """The answer of an application under some other server, which passes on what it likes.

    `part`: only this part of a body comes, or it comes again and again.
    """
    body = json.dumps(SAID).encode() if part is None else part
    sent: list[Any] = []
    read: list[int] = []
    coming = [{"type": "http.request", "body": body, "more_body": part is not None}]

    async def receive() -> Any:
        if is_endless:
            read.append(len(body))
            assert sum(read) <= app.runtime.limits.message_bytes_max + len(body)
            return coming[0]
        if not coming:
            await anyio.sleep_forever()
        return coming.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    given = {
        "type": "http",
        "method": "POST",
        "path": "/send",
        "raw_path": b"/send",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *JSON_RAW],
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
    } | scope
    await app(given, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("hosts", "scope", "status"),
    [
        (("127.0.0.1",), {}, 200),
        (("127.0.0.1", "::1"), {"server": ("::1", 80)}, 200),
        (("127.0.0.1",), {"server": ("10.0.0.7", 80)}, 403),
        (("127.0.0.1",), {"server": None}, 403),
        (("127.0.0.1",), {"server": ("/run/relay.sock", None)}, 403),
        (("0.0.0.0",), {}, 403),
        (("127.0.0.1", "10.0.0.7"), {}, 403),
        (("127.0.0.1",), {"headers": [(b"host", b"evil.example"), *JSON_RAW]}, 421),
        (
            ("127.0.0.1",),
            {
                "headers": [
                    (b"host", b"evil.example"),
                    (b"origin", b"http://evil.example"),
                    *JSON_RAW,
                ]
            },
            421,
        ),
        (("127.0.0.1",), {"headers": JSON_RAW}, 421),
    ],
    ids=range(10),
)
async def test_whatever_server_it_is_under_it_is_open_on_loopback_only(
    hosts: tuple[str, ...], scope: dict[str, Any], status: int
) -> None:
    app = RelayApp(Settings(hosts=hosts))
    async with app.router.lifespan_context(app):
        assert (await ask(app, **scope))[0] == status


def test_under_a_plain_uvicorn_it_works_too() -> None:
    app = RelayApp(Settings())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/send"
        running = pool.submit(server.run, [listener])
        try:
            with httpx.Client(trust_env=False, timeout=PATIENCE_S) as http:
                assert http.post(url, json=SAID).json() == {"received": 0}
                other = http.post(url, json=SAID, headers={"host": "evil.example"})
                assert other.status_code == 421
                long = b" " * (app.runtime.limits.message_bytes_max + 1)
                assert http.post(url, content=long, headers=JSON).status_code == 413
        finally:
            server.should_exit = True
            running.result(PATIENCE_S)


# Pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
def test_a_foreign_page_cannot_send_whatever_it_says_its_body_is(
    http: httpx.Client, origin: str
) -> None:
    for kind in ("application/json", "text/plain"):
        headers = {"origin": origin, "content-type": kind}
        answer = http.post("/send", content=json.dumps(SAID), headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"],
)
def test_what_a_page_can_send_blindly_is_not_read(http: httpx.Client, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = http.post("/send", content=json.dumps(SAID), headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.text


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"],
)
def test_json_is_read_under_its_names(http: httpx.Client, kind: str) -> None:
    headers = {"content-type": kind}
    assert http.post("/send", content=json.dumps(SAID), headers=headers).status_code == 200


# Attacks ------------------------------------------------------------------------------------------


def raw(live: LiveRelay, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What comes back for these parts of a request, until the relay closes."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause_s)
        got = b""
        while part := sock.recv(65536):
            got += part
    return got


def head(length: int, *lines: str) -> bytes:
    fields = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join(("POST /send HTTP/1.1", *fields, *lines, "", "")).encode()


def test_a_huge_body_is_refused_before_it_is_read(open_relay: LiveRelay) -> None:
    answer = raw(open_relay, head(2**40))
    assert b" 413 " in answer.splitlines()[0]
    framed = b"POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    framed += (
        b"Content-Type: application/json\r\n\r\n" + (b"10000\r\n" + b" " * 2**16 + b"\r\n") * 17
    )
    assert b" 413 " in raw(open_relay, framed).splitlines()[0]


def test_a_slow_body_is_given_up_and_nothing_of_it_is_held() -> None:
    with LiveRelay(Limits(opening_within_s=0.2)) as live:
        answer = raw(live, head(1000), b" " * 10)
        assert b" 408 " in answer.splitlines()[0]
        with client(live) as http:
            assert http.post("/send", json=SAID).status_code == 200
        until(lambda: not live.runtime.held_bytes)  # another thread has just answered


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(
    open_relay: LiveRelay,
) -> None:
    for length in (10, 10_000):
        with socket.create_connection(("127.0.0.1", open_relay.port)) as sock:
            sock.sendall(head(length) + b" " * (length // 2))
    until(lambda: not open_relay.runtime.held_bytes)


@pytest.mark.anyio
async def test_an_unfinished_body_is_given_up_under_any_server() -> None:
    app = RelayApp(Settings(limits=Limits(opening_within_s=0.05)))
    async with app.router.lifespan_context(app):
        with anyio.fail_after(PATIENCE_S):
            status, text = await ask(app, b'{"type":')
        assert status == 408
        assert b"not complete" in text
        assert app.runtime.held_bytes == 0


@pytest.mark.anyio
async def test_an_endless_body_is_not_read_beyond_its_bound_under_any_server() -> None:
    app = RelayApp(Settings())
    async with app.router.lifespan_context(app):
        with anyio.fail_after(PATIENCE_S):
            assert (await ask(app, b" " * 2**16, is_endless=True))[0] == 413
        assert app.runtime.held_bytes == 0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"type":"broadcast","from":"x","data":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"type":"broadcast","from":"x","data":' + b"1" * 1_000_000 + b"}",
        b"[" + b"{}," * 10_000 + b"{}]",
        b"[" + b"[]," * 300_000 + b"[]]",
        b"\xff" * 1_000_000,
        b'{"type":"broadcast","from":"' + b"x" * 1_000_000 + b'"}',
        gzip.compress(json.dumps(SAID).encode()),
    ],
    ids=["open", "deep", "number", "elements", "arrays", "not utf-8", "name", "gzip"],
)
def test_bad_bodies_are_refused_shortly(body: bytes) -> None:
    with LiveRelay() as live, client(live) as http:
        answer = http.post("/send", content=body, headers=JSON)
        assert answer.status_code in (400, 413)
        assert len(answer.content) < 400
        until(lambda: not live.runtime.held_bytes)  # another thread has just answered


def test_an_answer_is_not_longer_than_what_it_answers() -> None:
    with LiveRelay() as live, client(live) as http:
        said = {"type": "direct", "from": "x", "to": "\u00fc" * 250}
        answer = http.post("/send", json=[said] * 1500)
        assert answer.status_code == 200
        assert len(answer.json()) == 1500
        assert len(answer.content) < 80_000


@pytest.mark.anyio
async def test_a_flood_of_requests_is_held_to_the_rate_of_one_connection() -> None:
    limits = Limits(messages_per_s=0.1, messages_burst=20)
    with LiveRelay(limits, StillClock()) as live:
        async with live:
            a = await (await live.connect()).announce("a")
            statuses: list[int] = []

            async def flood() -> None:
                async with httpx.AsyncClient(base_url=live.http, trust_env=False) as http:
                    for n in range(10):
                        mesh = {} if n % 2 else {"mesh": "other"}
                        answer = await http.post(
                            "/send", json=SAID | {"from": f"x{n}"}, params=mesh, timeout=PATIENCE_S
                        )
                        statuses.append(answer.status_code)
                        if answer.status_code == 429:
                            assert answer.json()["code"] == "rate_limited"
                            assert answer.headers["retry-after"] == "1"

            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(flood)
            assert sorted(set(statuses)) == [200, 429]
            assert statuses.count(200) == 20
            assert len(await a.messages()) <= 20


def test_a_flood_of_long_bodies_is_held_to_the_bytes_of_one_connection() -> None:
    limits = Limits(bytes_in_per_s=1024, bytes_in_burst=100_000)
    with LiveRelay(limits, StillClock()) as live, client(live) as http:
        body = json.dumps(SAID | {"data": "x" * 60_000})
        statuses = [http.post("/send", content=body, headers=JSON).status_code for _ in range(10)]
        assert statuses == [200, 200] + [429] * 8


def test_the_log_has_a_few_lines_for_many_refusals(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    for _ in range(100):
        http.post("/send", json={"type": "direct", "from": "x", "to": "a secret name"})
    lines = [r for r in caplog.records if r.getMessage() == "message refused"]
    assert 1 <= len(lines) <= time.monotonic() - began + 2
    assert all("secret" not in json.dumps(vars(line), default=str) for line in lines)


# docs/run.md --------------------------------------------------------------------------------------


def shown(live: LiveRelay) -> list[str]:
    """The commands of the section about `/send`, for this relay."""
    page = (ROOT / "docs" / "run.md").read_text()
    section = page.split("## Send over HTTP\n")[1].split("\n## ")[0]
    commands = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert all("http://localhost:8080/" in command for command in commands)
    return [command.replace("http://localhost:8080", live.http) for command in commands]


def curl(command: str, **environ: str) -> Any:
    done = subprocess.run(
        ["bash", "-c", f"{command.strip()} --silent --noproxy '*'"],
        env={**os.environ, **environ},
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_commands_in_the_documents_do_what_they_say(
    open_relay: LiveRelay, guarded: LiveRelay
) -> None:
    async with open_relay, guarded:
        for name in ("a", "b"):
            await (await open_relay.connect()).announce(name)
        here = await (await open_relay.connect("team")).announce("here")
        one, _, several = shown(open_relay)
        assert curl(one) == {"received": 1}
        assert (await here.messages())[0]["data"] == "the backup is done"
        page = (ROOT / "docs" / "run.md").read_text()
        assert json.dumps(curl(several), separators=(",", ":")) in page

        coder = await guarded.connect("team", additional_headers=bearer(sub="bob"))
        await coder.announce("bob", "coder")
        _, with_token, _ = shown(guarded)
        token = bearer()["authorization"].removeprefix("Bearer ")
        assert curl(with_token, TOKEN=token) == {"received": 1}
        [got] = [message for message in await coder.messages() if message["type"] == "direct"]
        assert (got["from"], got["turnId"]) == ("ann", "nightly")
