"""The program in a process of its own: its options, both ways to serve the app, signals, logs."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

import relay
from tests import IS_CLONE, RELAY_COMMAND, ROOT
from tests.worlds.live import PATIENCE_S, open_sync
from tests.worlds.program import Program

COMMAND = "relay.py" if IS_CLONE else "agi-diy-relay"
"""What it calls itself."""


MUTE_OPENING = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
def program() -> Iterator[Program]:
    with Program() as program:
        yield program


def open_socket(port: int, query: str = "", host: str = "127.0.0.1") -> ClientConnection:
    return open_sync(f"ws://{host}:{port}/ws{query}")


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
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_peer_that_does_not_answer_the_close_does_not_hold_up_the_exit() -> None:
    with (
        Program("--drain-s", "0.2", "--close-within-s", "0.2") as program,
        socket.create_connection(("127.0.0.1", program.port), timeout=PATIENCE_S) as mute,
    ):
        mute.sendall(MUTE_OPENING)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += mute.recv(4096)
        assert b" 101 " in answer
        rest = program.end()
    assert program.process.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_drain_that_hangs_at_once(
    first: signal.Signals, second: signal.Signals
) -> None:
    with (
        Program("--drain-s", "1000", "--close-within-s", "1000") as program,
        socket.create_connection(("127.0.0.1", program.port), timeout=PATIENCE_S) as mute,
    ):
        mute.sendall(MUTE_OPENING)
        received = b""
        while b"\r\n\r\n" not in received:
            received += mute.recv(4096)
        program.process.send_signal(first)
        while b"\x03\xe9" not in received:  # 1001: it drains
            received += mute.recv(4096)
        rest = program.end(second)
    assert program.process.returncode == 128 + second
    assert "Traceback" not in rest


def test_a_second_signal_ends_a_start_that_hangs() -> None:
    code = (
        "import anyio, os, signal, sys\n"
        "from actors.host import server\n"
        "import relay\n"
        "async def hang(self, sockets=None):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await anyio.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    await anyio.sleep(1000)\n"
        "server.Server.startup = hang\n"
        "sys.exit(relay.main(['--port', '0']))"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 128 + signal.SIGINT
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not IS_CLONE, reason="the installed command is another file")
def test_a_signal_while_the_packages_are_imported_ends_it_without_a_traceback() -> None:
    code = (
        "import os, runpy, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'actors.host.app':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "runpy.run_path('relay.py', run_name='__main__')"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == -signal.SIGINT  # a shell calls it 130
    assert result.stderr == ""


def test_a_standard_error_that_nobody_reads_stops_nothing_and_holds_up_no_exit() -> None:
    with Program() as program:
        assert program.process.stderr is not None
        fcntl.fcntl(program.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for n in range(60):  # 150 bytes of log and more for each
            with open_socket(program.port) as peer:
                say(peer, "presence", **{"from": f"peer {n}"})
                assert json.loads(peer.recv(PATIENCE_S))["from"] == f"peer {n}"
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("header", "event"),
    [
        ("Origin: https://evil.example", "origin refused"),
        ("Host: evil.example", "request refused"),
        ("Sec-WebSocket-Key: x", "opening refused"),
        ("X: \x00", "request refused"),
        (f"Cookie: {'x' * 40_000}", "request refused"),
    ],
)
def test_openings_that_are_refused_are_logged_once_a_second_and_briefly(
    program: Program, header: str, event: str
) -> None:
    name = header.partition(":")[0].encode()
    kept = [line for line in MUTE_OPENING.split(b"\r\n")[:-2] if not line.startswith(name)]
    began = time.monotonic()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", program.port), timeout=PATIENCE_S) as client:
            client.sendall(b"\r\n".join([*kept, header.encode(), b"", b""]))
            assert client.recv(4096).startswith(b"HTTP/1.1 4")
    took_s = time.monotonic() - began
    rest = program.end()
    lines = rest.splitlines()
    assert 1 <= len(lines) <= took_s + 1
    assert max(map(len, lines)) < 400
    for line in map(json.loads, lines):
        assert line["event"].startswith(event)
        assert line["logger"] == "relay"
    assert sum(1 + json.loads(line).get("suppressed", 0) for line in lines) <= 20


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


# The command line ---------------------------------------------------------------------------------


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_port_in_use_is_one_clear_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(*RELAY_COMMAND, "--host", "127.0.0.1", "--port", str(port))
    assert result.returncode == 1
    assert (
        result.stderr == f"{COMMAND}: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_a_host_that_does_not_exist_is_one_clear_line_and_exit_code_1() -> None:
    result = run(*RELAY_COMMAND, "--host", "no.such.host.invalid")
    assert result.returncode == 1
    assert result.stderr.startswith(f"{COMMAND}: cannot listen on no.such.host.invalid:8080: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--port", "http"], {}, "port must be a number, got 'http'"),
        ([], {"RELAY_DRAIN_S": "soon"}, "drain_s must be a number, got 'soon'"),
    ],
)
def test_a_bad_setting_is_one_clear_line_and_exit_code_2(
    arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    result = run(*RELAY_COMMAND, *arguments, **environ)
    assert result.returncode == 2
    assert result.stderr == f"{COMMAND}: bad setting: {sentence}\n"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("/usr/local/bin/agi-diy-relay", "agi-diy-relay"),
        ("somewhere/relay.py", "relay.py"),
        ("/site-packages/agi_diy_relay/__main__.py", "agi-diy-relay"),
    ],
)
def test_usage_errors_and_version_name_the_command_that_was_typed(
    typed: str,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [typed, *arguments])
        with contextlib.suppress(SystemExit):
            relay.main()
        out, err = capsys.readouterr()
        return out + err

    assert said("--port", "x") == f"{named}: bad setting: port must be a number, got 'x'\n"
    assert said("--no-such-option").startswith(f"usage: {named} ")
    assert said("--host", "no.such.host.invalid").startswith(f"{named}: cannot listen on ")
    assert re.fullmatch(rf"{named} \S.*\n", said("--version"))


# One application, two ways to serve it ------------------------------------------------------------

UVICORN = (sys.executable, "-m", "uvicorn")


def test_importing_reads_no_setting_starts_nothing_and_never_exits() -> None:
    code = (
        "import relay\n"
        "import threading\n"
        "assert relay.app.settings is None\n"
        "assert not hasattr(relay.app, 'runtime')\n"
        "assert threading.active_count() == 1"
    )
    result = run(sys.executable, "-W", "ignore", "-c", code, PORT="x", RELAY_DRAIN_S="soon")
    assert result.returncode == 0, result.stderr


def test_the_program_serves_the_application_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []

    def serve(app: object, settings: object, listeners: list[socket.socket]) -> None:
        served.append(app)
        for listener in listeners:
            listener.close()

    monkeypatch.setattr(relay, "serve", serve)
    monkeypatch.setattr(relay, "configure_logging", lambda level: None)
    monkeypatch.setattr(relay.app, "settings", None)
    assert relay.main(["--host", "127.0.0.1", "--port", "0", "--drain-s", "3"]) == 0
    assert served == [relay.app]
    assert relay.app.settings is not None
    assert relay.app.settings.limits.drain_s == 3


def test_under_a_server_of_ones_own_the_application_works_and_reads_the_environment() -> None:
    command = [*UVICORN, f"{relay.__name__}:app", "--port", "0"]
    environ = {**os.environ, "RELAY_STRICT": "true"}
    server = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port = None
        while port is None:
            line = server.stderr.readline()
            assert line, "it ended"
            port = re.search(r"running on http://127\.0\.0\.1:(\d+)", line)
        with open_socket(int(port[1])) as peer:
            say(peer, "presence", **{"from": "a"})
            assert json.loads(peer.recv(PATIENCE_S))["from"] == "a"
            say(peer, "my-own-type")
            assert json.loads(peer.recv(PATIENCE_S))["data"]["code"] == "unknown_type"
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE_S)


def test_under_a_server_of_ones_own_a_bad_setting_is_one_sentence_when_serving_starts() -> None:
    result = run(*UVICORN, f"{relay.__name__}:app", "--port", "0", RELAY_DRAIN_S="soon")
    assert result.returncode != 0
    assert "bad setting: drain_s must be a number, got 'soon'\n" in result.stderr
    assert "Traceback" not in result.stderr


# Where it listens ---------------------------------------------------------------------------------


def test_the_listening_line_says_where(program: Program) -> None:
    line = program.lines[-1]
    assert line["event"] == f"listening on ws://127.0.0.1:{program.port}/ws"


def test_localhost_is_reached_over_either_address() -> None:
    with Program("--host", "localhost") as program:
        hosts = ["127.0.0.1", "[::1]"] if has_ipv6() else ["127.0.0.1"]
        for host in hosts:
            with open_socket(program.port, host=host) as peer:
                say(peer, "capabilities")
                assert json.loads(peer.recv(PATIENCE_S))["type"] == "capabilities_response"
        places = " and ".join(f"ws://{host}:{program.port}/ws" for host in hosts)
        assert program.lines[-1]["event"] == f"listening on {places}"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_warning_about_an_old_name_is_logged_once() -> None:
    with Program("--turn-messages-max", "9000") as program:
        rest = program.end()
    lines = [*program.lines, *map(json.loads, rest.splitlines())]
    told = [line for line in lines if "--round-messages-max" in line["event"]]
    assert [line["level"] for line in told] == ["warning"]
