"""The program: options, the server's surface, origins, signals, logs. On real sockets and
processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from actors.host.settings import default_host, read_settings
from protocol.limits import Limits
from tests import RELAY_COMMAND, ROOT
from tests.worlds.live import PATIENCE_S, LiveRelay, Peer


class Program:
    """`python relay.py` in a process of its own."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        command = [*RELAY_COMMAND, "--host", "127.0.0.1", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.port = int(self.line("listening")["port"])

    def line(self, event: str) -> dict[str, Any]:
        """The next log line whose event begins like this."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"].startswith(event):
                return self.lines[-1]
        raise AssertionError(f"no line {event!r}, but {self.lines}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Stop it; what it still said on stderr."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        return rest


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.process.kill()
    program.process.communicate()


def open_socket(port: int, query: str = "", **kwargs: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}/ws{query}", proxy=None, **kwargs)


def say(socket: ClientConnection, type: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": type, **fields}))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_flushes_closes_with_1001_and_exits_with_0(
    program: Program, number: signal.Signals
) -> None:
    with open_socket(program.port) as a, open_socket(program.port) as b:
        for name, peer in (("a", a), ("b", b)):
            say(peer, "presence", **{"from": name})
            json.loads(peer.recv(PATIENCE_S))
        for n in range(500):
            say(a, "stream", n=n)
        say(a, "capabilities")
        while json.loads(a.recv(PATIENCE_S))["type"] != "capabilities_response":
            pass
        program.process.send_signal(number)
        received = [json.loads(text) for text in b]
        assert [m["n"] for m in received if m["type"] == "stream"] == list(range(500))
        assert list(a) == []
        assert (a.close_code, b.close_code) == (1001, 1001)
    _, rest = program.process.communicate(timeout=PATIENCE_S)
    assert program.process.returncode == 0
    assert "Traceback" not in rest


def test_a_signal_that_comes_before_the_server_ends_it_too() -> None:
    code = (
        "import os, signal, sys\n"
        "from actors.host import server\n"
        "import relay\n"
        "run = server.Server.run\n"
        "def late(self, **given):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run(self, **given)\n"
        "server.Server.run = late\n"
        "sys.exit(relay.main(['--port', '0']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_peer_that_does_not_answer_the_close_does_not_hold_up_the_exit() -> None:
    program = Program("--drain-s", "0.2", "--close-within-s", "0.2")
    with socket.create_connection(("127.0.0.1", program.port)) as mute:
        mute.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" in mute.recv(4096)
        rest = program.end()
    assert program.process.returncode == 0
    assert "Traceback" not in rest


def test_logs_have_a_line_per_join_and_leave_and_never_contents_or_query_strings(
    program: Program,
) -> None:
    with open_socket(program.port, "?token=s3cret&mesh=m") as a:
        say(a, "presence", **{"from": "peer-a", "data": {"agents": ["x"], "note": "s3cret"}})
        say(a, "stream", data="s3cret")
        a.send("s3cret")
        joined = program.line("joined")
        assert (joined["peer"], joined["mesh"], joined["agents"]) == ("peer-a", "m", 1)
        assert program.line("refused")["code"] == "malformed"
    left = program.line("left")
    assert (left["peer"], left["cause"]) == ("peer-a", "left")
    rest = program.end()
    assert "s3cret" not in rest + json.dumps(program.lines)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [*RELAY_COMMAND, *arguments]
    environment = {**os.environ, **environ}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_a_port_in_use_is_one_clear_line_and_a_non_zero_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--host", "127.0.0.1", "--port", str(port))
    assert result.returncode == 1
    assert result.stderr == f"relay.py: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["--port", "99999"], {}, "port must be between 0 and 65535"),
        (["--port", "http"], {}, "port must be a number, got 'http'"),
        ([], {"PORT": "x"}, "port must be a number, got 'x'"),
        (["--stale-after-s", "40"], {}, "must be less than reap_after_s"),
        ([], {"RELAY_DRAIN_S": "soon"}, "drain_s must be a number, got 'soon'"),
        (["--messages-burst", "0"], {}, "messages_burst must be a whole number from 1"),
        (["--strict", "perhaps"], {}, "strict must be true or false"),
        (["--log-level", "loud"], {}, "log_level"),
        (["--host", "no.such.host.invalid"], {}, "cannot listen on no.such.host.invalid"),
    ],
)
def test_a_bad_setting_is_one_clear_line_and_a_non_zero_exit(
    arguments: list[str], environ: dict[str, str], words: str
) -> None:
    result = run("--host", "127.0.0.1", *arguments, **environ)
    assert result.returncode != 0
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_names_every_setting() -> None:
    result = run("--help")
    assert result.returncode == 0
    for option in ("--host", "--port", "--allowed-origins", "--mailbox-bytes-max"):
        assert option in result.stdout


def test_settings_come_from_options_then_the_environment_then_defaults() -> None:
    environ = {"PORT": "1", "HOST": "::1", "RELAY_DRAIN_S": "7"}
    settings = read_settings(["--port", "2"], environ)
    assert (settings.port, settings.host, settings.limits.drain_s) == (2, "::1", 7.0)
    assert read_settings([], environ).port == 1
    assert read_settings([], {}).port == 8080


def test_in_a_container_it_listens_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/.dockerenv")
    assert default_host({}) == "0.0.0.0"
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert default_host({}) == "127.0.0.1"
    assert default_host({"DOCKER_CONTAINER": "1"}) == "0.0.0.0"


# Origins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://localhost:5173", 101),
        ("http://127.0.0.1", 101),
        ("http://[::1]:80", 101),
        ("https://agi.diy", 101),
        ("https://evil.example", 403),
        ("https://agi.diy.evil.example", 403),
        ("http://agi.diy", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_origins_are_refused_and_the_log_says_which_setting_to_change(
    live: LiveRelay, origin: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Origin": origin} if origin is not None else {}
    try:
        with open_socket(live.port, additional_headers=headers):
            pass
    except InvalidStatus as refused:
        assert refused.response.status_code == status == 403
        assert "--allowed-origins" in caplog.text
        assert "RELAY_ALLOWED_ORIGINS" in caplog.text
    else:
        assert status == 101


def test_a_setting_lets_other_origins_in() -> None:
    with LiveRelay(allowed_origins=("https://my.example",)) as live:
        with open_socket(live.port, additional_headers={"Origin": "https://my.example"}):
            pass
        with (
            pytest.raises(InvalidStatus),
            open_socket(live.port, additional_headers={"Origin": "http://localhost"}),
        ):
            pass
    with LiveRelay(allowed_origins=("*",)) as live:
        with open_socket(live.port, additional_headers={"Origin": "https://any.example"}):
            pass


# AgentCore's surface ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_ping_says_healthy_and_busy_while_anyone_is_connected(visited: LiveRelay) -> None:
    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        assert (await http.get("/ping")).json()["status"] == "Healthy"
        peer = await visited.connect()
        await peer.announce("a")
        assert (await http.get("/ping")).json()["status"] == "HealthyBusy"
        await peer.close()
        with anyio.fail_after(PATIENCE_S):
            while (await http.get("/ping")).json()["status"] != "Healthy":
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_invocations_answer_with_who_is_here_and_details_on_request(
    visited: LiveRelay,
) -> None:
    b = await (await visited.connect()).announce("b", "coder", {"id": "writer"})
    await (await visited.connect()).announce("a")
    await (await visited.connect()).announce("a")
    await b.everything()
    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        plain = (await http.post("/invocations", json={})).json()
        details = (await http.post("/invocations", json={"details": True})).json()
        odd = (await http.post("/invocations", json=["not", "an", "object"])).json()
    assert plain == {"status": "ok", "peers": ["a", "b"], "count": 2} == odd
    mesh = details["meshes"]["default"]
    assert mesh["connections"] == 3
    assert mesh["peers"]["a"]["connections"] == 2
    facts = mesh["peers"]["b"]
    assert facts["state"] == "present"
    assert facts["agents"] == ["coder", "writer"]
    assert 0 <= facts["last_seen_s"] < PATIENCE_S
    assert (facts["mailbox_messages"], facts["mailbox_bytes"]) == (0, 0)
    assert details["totals"]["joined"] == 2


@pytest.mark.anyio
async def test_ping_and_invocations_are_right_under_load(visited: LiveRelay) -> None:
    peers: list[Peer] = [await (await visited.connect()).announce(f"p{n}") for n in range(10)]

    async def stream(peer: Peer) -> None:
        for n in range(200):
            await peer.send("stream", sender=peer.id, n=n)

    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(stream, peer)
            for _ in range(20):
                assert (await http.get("/ping")).json()["status"] == "HealthyBusy"
                answer = (await http.post("/invocations", json={"details": True})).json()
                assert answer["count"] == 10
                assert set(answer["meshes"]["default"]["peers"]) == {p.id for p in peers}
        for peer in peers:
            await peer.everything()


@pytest.mark.anyio
async def test_the_agentcore_session_names_the_mesh_before_the_query_does(
    visited: LiveRelay,
) -> None:
    session = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "s" * 40}
    a = await (await visited.connect("ignored", additional_headers=session)).announce("a")
    b = await (await visited.connect("s" * 40)).announce("b")
    c = await (await visited.connect("ignored")).announce("c")
    text = await a.send("broadcast", sender="a")
    assert text in await b.everything()
    assert text not in await c.everything()


@pytest.mark.anyio
async def test_the_bearer_subprotocol_of_oauth_runtimes_is_chosen(visited: LiveRelay) -> None:
    offered = ["base64UrlBearerAuthorization.dG9rZW4", "base64UrlBearerAuthorization"]
    peer = await visited.connect(subprotocols=offered)
    assert peer.socket.subprotocol == "base64UrlBearerAuthorization"


def test_beyond_the_bounds_an_opening_is_refused_with_a_reason() -> None:
    def refusal(query: str) -> tuple[int, bytes]:
        with pytest.raises(InvalidStatus) as refused, open_socket(live.port, query):
            pass
        response = refused.value.response
        return response.status_code, bytes(response.body or b"")

    with LiveRelay(limits=Limits(connections_max=1, meshes_max=1)) as live:
        with open_socket(live.port):
            full, other = refusal(""), refusal("?mesh=other")
        assert full[0] == other[0] == 503
        assert b"connections_max" in full[1]
        assert b"meshes_max" in other[1]
        assert refusal("?mesh=" + "x" * 257)[0] == 400


def test_compression_is_off(live: LiveRelay) -> None:
    with open_socket(live.port, compression="deflate") as peer:
        assert peer.response is not None
        assert "Sec-WebSocket-Extensions" not in peer.response.headers


def test_nothing_is_made_at_import_but_the_app() -> None:
    code = (
        "import threading, relay, sys; assert not hasattr(relay.app.state, 'runtime');"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, timeout=30)


def test_the_listening_line_says_where() -> None:
    program = Program()
    line = program.lines[-1]
    assert re.fullmatch(rf"listening on ws://127\.0\.0\.1:{program.port}/ws", line["event"])
    program.end()
