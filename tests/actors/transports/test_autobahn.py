"""The Autobahn Testsuite's fuzzing client against the WebSocket stack that the relay runs on.

What is tested is `MeshProtocol` under uvicorn, configured as the relay configures it, with an echo
handler mounted here in the place of a peer actor. Binary messages, which the relay refuses, are
echoed by a subclass that replaces that one refusal, so that the binary cases test reading too.

The testsuite needs CPython 2.7. Where there is one (`python2.7`, or under pyenv),

    python -m tests.actors.transports.test_autobahn

installs it below build/ (with `--possible` it only says, by its exit code, whether it could);
without it the test here is skipped. CI installs and runs it where there is a CPython 2.7. By
default the cases that take no long time are run; AUTOBAHN_ALL=1 runs all of them (large messages,
some minutes).
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from actors.clock import SystemClock
from actors.frames import Batch
from actors.host.server import bind, server_config
from actors.host.settings import Settings
from actors.host.throttle import RefusalLog
from actors.transports.asgi import transport_for
from actors.transports.reader import FrameReader
from actors.transports.transport import Port
from actors.transports.uvicorn import MeshProtocol, UvicornTransport
from protocol.envelope import ErrorCode, Inbound, Unreadable
from protocol.limits import Limits
from tests import ROOT

INSTALLED: Final = ROOT / "build" / "autobahn"
PACKAGE: Final = "autobahntestsuite==0.8.2"
START: Final = (  # as a site folder, because one of its packages is put together by a .pth file
    "import os, site; site.addsitedir(os.environ['AUTOBAHN']); "
    "from autobahntestsuite.wstest import run; run()"
)

ALL: Final = bool(os.environ.get("AUTOBAHN_ALL"))
CASES: Final = ["*"] if ALL else [f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 10)]
TIMEOUT_S: Final = 1800 if ALL else 300
ATTEMPTS: Final = 3
FINE: Final = {"OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"}

LIMITS: Final = Limits(
    message_bytes_max=2**24,  # the largest message of chapter 9
    mailbox_bytes_max=2**25,
    frames_in_per_s=1e6,
    frames_in_burst=10**6,
    bytes_in_per_s=1e9,
    bytes_in_burst=10**9,
)

MAY_FAIL: Final = {"7.1.5", *(f"9.{part}.{case}" for part in (3, 4) for case in range(1, 10))}
"""What python-websockets, whose parser this is, documents as deviations."""
MAY_BE_NON_STRICT: Final = {f"6.4.{case}" for case in range(1, 5)}
"""Invalid UTF-8 is found when a message is whole, which RFC 6455 allows, not within a fragment."""


class Binary(Unreadable):
    """A binary message with what is in it."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(ErrorCode.BINARY, "")
        object.__setattr__(self, "payload", payload)


class EchoReader(FrameReader):
    """The relay's reader, except that binary messages are kept."""

    def _binary(self, payload: bytes) -> Inbound:
        return Binary(payload)


class EchoProtocol(MeshProtocol):
    """The relay's protocol, which can send a binary message back."""

    def attach(self, port: Port, limits: Limits) -> None:
        super().attach(port, limits)
        self._reader = EchoReader(limits.message_bytes_max)

    def send_binary(self, data: bytes) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.send_binary(data)
            self.transport.write(b"".join(self.conn.data_to_send()))


class Echo:
    """A port that sends back what it receives."""

    def __init__(self, transport: UvicornTransport) -> None:
        self._transport = transport

    def received(self, messages: list[Inbound]) -> None:
        for message in messages:
            if isinstance(message, Binary):
                protocol = self._transport._protocol
                assert isinstance(protocol, EchoProtocol)
                protocol.send_binary(message.payload)  # type: ignore[attr-defined]
            else:
                assert isinstance(message, bytes), "a message within bounds was refused"
                self._transport.send(Batch([message]))

    def turn_s(self, bytes: float, at: float) -> float:
        return 0.0

    def partial(self, bytes: int) -> None: ...

    def ponged(self) -> None:
        pass

    def writable(self) -> None:
        pass

    def closed(self, code: int) -> None:
        pass

    def crashed(self, error: BaseException) -> None:
        raise error


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The application: accepts, and attaches an `Echo`."""
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    transport = transport_for(websocket, LIMITS)
    assert isinstance(transport, UvicornTransport)
    await transport.run(Echo(transport))


@pytest.fixture
def url() -> Iterator[str]:
    """An echo server on the relay's own stack, in a thread."""
    settings = Settings(hosts=("127.0.0.1",), port=0)
    echo.refusals = RefusalLog(SystemClock())  # type: ignore[attr-defined]
    config = server_config(echo, settings)  # type: ignore[arg-type]
    config.ws = EchoProtocol
    config.lifespan = "off"
    listeners = bind(settings.hosts, settings.port)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(listeners,))
    thread.start()
    yield f"ws://127.0.0.1:{listeners[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


# The testsuite and its Python ---------------------------------------------------------------------


def python27() -> str | None:
    """A CPython 2.7, if this machine has one."""
    candidates = glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7"))
    candidates += filter(None, [shutil.which("python2.7")])
    for python in candidates:  # pyenv puts a `python2.7` into PATH that only says it is not chosen
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    return None


def command() -> list[str]:
    """What starts the testsuite. Skips the test where there is none."""
    if (installed := shutil.which("wstest")) is not None:
        return [installed]
    python = python27()
    if python is None:
        pytest.skip("the Autobahn Testsuite needs CPython 2.7, and there is none here")
    if not (INSTALLED / "autobahntestsuite").exists():
        pytest.skip("not installed; `python -m tests.actors.transports.test_autobahn` does that")
    return [python, "-W", "ignore", "-c", START]


def install() -> None:
    """Install the testsuite below build/."""
    python = python27()
    if python is None:
        sys.exit("the Autobahn Testsuite needs CPython 2.7, and there is none here")
    options = ["--quiet", "--disable-pip-version-check"]
    target = ["--target", str(INSTALLED), "--upgrade"]
    sys.exit(subprocess.call([python, "-m", "pip", "install", *options, *target, PACKAGE]))


Report = dict[str, dict[str, Any]]
"""What the testsuite says, by case."""


def run_patiently(url: str, folder: Path) -> Report:
    """Run the chosen cases. What the testsuite says about each.

    The testsuite gives a case up after a second, whoever had no core in this second. So what fails
    is run again, alone. What the relay does wrong, it does wrong each time.
    """
    report = run(url, folder, CASES)
    for attempt in range(ATTEMPTS - 1):
        wrong = [case for case in report if verdicts(report, case) - FINE and case not in MAY_FAIL]
        if not wrong:
            break
        again = folder / f"again-{attempt}"
        again.mkdir()
        report |= run(url, again, wrong)
    return report


def verdicts(report: Report, case: str) -> set[str]:
    return {report[case]["behavior"], report[case]["behaviorClose"]}


def run(url: str, folder: Path, cases: list[str]) -> Report:
    """Run these cases once."""
    spec = {
        "outdir": str(folder / "report"),
        "servers": [{"agent": "relay", "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [*command(), "--mode", "fuzzingclient", "--spec", str(folder / "spec.json")],
        cwd=folder,
        env={**os.environ, "AUTOBAHN": str(INSTALLED)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    index = folder / "report" / "index.json"
    assert index.exists(), done.stdout.decode(errors="replace")[-2000:]
    report = json.loads(index.read_text())["relay"]
    assert isinstance(report, dict)
    return report


def test_nothing_fails_beyond_what_the_parser_documents(url: str, tmp_path: Path) -> None:
    report = run_patiently(url, tmp_path)
    by_verdict: dict[str, set[str]] = {}
    for case in report:
        for verdict in verdicts(report, case):
            by_verdict.setdefault(verdict, set()).add(case)
    fine = by_verdict.pop("OK") | by_verdict.pop("INFORMATIONAL", set())
    non_strict = by_verdict.pop("NON-STRICT", set())
    if ALL:  # compression, which the relay does not offer
        assert {case.split(".")[0] for case in by_verdict.pop("UNIMPLEMENTED")} == {"12", "13"}
    assert set().union(*by_verdict.values()) <= MAY_FAIL, by_verdict
    assert non_strict <= MAY_BE_NON_STRICT
    assert len(fine) > 200


if __name__ == "__main__":
    if "--possible" in sys.argv:  # for CI, which must not skip the test where it can run
        sys.exit(python27() is None and "no CPython 2.7 here: the Autobahn Testsuite is left out")
    install()
