"""The HTTP side: what a connection may send before it is a WebSocket, and what it is told."""

import asyncio
import gc
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from actors.clock import VirtualClock
from actors.host.http import LINGER_BYTES, PIECE_BYTES, HttpProtocol
from actors.host.requests import is_own
from actors.host.throttle import RefusalLog
from actors.transports.kernel import SEND_BUFFER_BYTES
from protocol.limits import Limits
from tests.worlds.live import PATIENCE_S, LiveRelay, until

LIMITS = Limits()
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


def head(line: bytes = b"GET /ping", *headers: bytes, host: bytes = b"localhost") -> bytes:
    return b"\r\n".join([line + b" HTTP/1.1", b"Host: " + host, *headers, b"", b""])


def post(body: bytes, *headers: bytes) -> bytes:
    return head(b"POST /invocations", b"Content-Length: %d" % len(body), *headers) + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", path: bytes = b"/invocations") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(b"POST " + path, b"Transfer-Encoding: chunked") + body + end


def opening(*headers: bytes, upgrade: bytes = UPGRADE, line: bytes = b"GET /ws") -> bytes:
    return head(line, upgrade.removesuffix(b"\r\n"), *headers)


# On real sockets ----------------------------------------------------------------------------------


class Answer:
    """What came back until the relay had closed, or one answer of a connection that stays open."""

    def __init__(self, raw: bytes) -> None:
        self.head, _, self.body = raw.partition(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1]) if self.head else 0


def exchange(port: int, data: bytes) -> Answer:
    """Send this and read until the relay closes, whether it has read everything or not."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(data)
        raw = b""
        while part := client.recv(65536):
            raw += part
    return Answer(raw)


@pytest.fixture(scope="module")
def relay() -> Iterator[LiveRelay]:
    with LiveRelay() as live:
        yield live


CLOSE = b"Connection: close"


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (head(b"GET /ping", b"X: " + b"x" * 2**15), 431, b"more than 32768 bytes"),
        (head(b"GET /ping?" + b"x" * 2**15), 431, b"more than 32768 bytes"),
        (b"GET /ping HTTP/1.1\r\nX: " + b"x" * 2**17, 431, b"more than 32768 bytes"),
        (head(b"GET /ping", *[b"X: x"] * 200), 431, b"more than 100 headers"),
        (b"GET /ping HTTP/1.1\r\n" + b"X: x\r\n" * 2000, 431, b"more than 100 headers"),
        (post(b"x" * (2**16 + 1)), 413, b"more than 65536 bytes"),
        (post(b"", b"Expect: 100-continue").replace(b": 0", b": 99999"), 413, b"65536"),
        (chunked(b"x" * 2**15, b"x" * 2**15), 413, b"more than 65536 bytes"),
        (chunked(*[b"x"] * 20_000), 413, b"more than 65536 bytes"),
        (chunked(end=b"1;" + b"x" * 2**17), 400, b"not a valid HTTP request"),
        (chunked(end=b"0\r\n" + b"X: x\r\n" * 2**14), 400, b"not a valid HTTP request"),
        (chunked(b"x", path=b"/ping"), 413, b"only /invocations"),
        (head(b"GET /ping", b"Content-Length: 1") + b"x", 413, b"only /invocations"),
        (post(b"{}", b"Content-Length: 3"), 400, b"not a valid HTTP request"),
        (post(b"{}", b"Transfer-Encoding: chunked"), 400, b"both"),
        (head(b"GET http://localhost/ping"), 400, b"not a proxy"),
        (head(b"CONNECT localhost:80"), 400, b"not a proxy"),
        (head(b"GET /p\0ng"), 400, b"not a valid"),
        (head(b"GET /ping", b"X: \0"), 400, b"not a valid"),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400, b"not a valid"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, b"not a proxy"),
        (b"GET /ping HTTP/1.1\r\n\r\n", 400, b"not a valid"),  # no Host
        (head(b"GET /%00", CLOSE), 404, b""),
        (head(b"GET /docs/%00", CLOSE), 404, b""),
        (post(b"[" * 60_000, CLOSE), 400, b"cannot be read"),
        (post(b"1" * 60_000, CLOSE), 400, b"cannot be read"),
        (post(b"\xff", CLOSE), 400, b"Invalid"),
    ],
)
def test_what_is_out_of_bounds_or_not_http_is_answered_and_closed(
    relay: LiveRelay, data: bytes, status: int, words: bytes
) -> None:
    answer = exchange(relay.port, data)
    assert answer.status == status, answer.head
    assert words in answer.body
    assert len(answer.body) < 300


@pytest.mark.parametrize(
    "data",
    [
        head(b"GET /ping", CLOSE, *[b"X: x"] * 98),
        head(b"GET /ping", CLOSE, b"X: " + b"x" * 30_000),
        b"\r\n\r\n" + head(b"GET /ping", CLOSE),
        head(b"GET /ping", CLOSE).replace(b"\r\n", b"\n"),
        b"GET /ping HTTP/1.0\r\n\r\n",
        post(b" " * (2**16 - 2) + b"{}", CLOSE),
        post(b"{}", CLOSE, b"Expect: 100-continue"),
        chunked(b"{", b" " * 2**15, b"}"),
        chunked(*[b"1"] * 1000),
        chunked(b"{}") + head(b"GET /ping"),  # nothing follows a chunked body on its connection
        head(b"GET /ping", CLOSE, b"Upgrade: h2c"),
        head(b"GET /ping", b"Connection: close, upgrade", b"Upgrade: h2c"),
    ],
)
def test_what_is_within_bounds_is_served(relay: LiveRelay, data: bytes) -> None:
    answer = exchange(relay.port, data)
    assert answer.status in (100, 200), answer.head
    assert answer.head.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer.head.lower() or answer.status == 100
    assert b'"status"' in answer.body


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (opening(b"Content-Length: 5") + b"hello", 400, b"no body"),
        (opening(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, b"no body"),
        (opening(*[b"X: x"] * 200), 431, b"more than 100 headers"),
        (opening(b"Cookie: c=" + b"c" * 2**15), 431, b"more than 32768 bytes"),
        (opening(upgrade=UPGRADE.replace(b"AAAA==", b"!!")), 400, b"Sec-WebSocket-Key"),
        (opening(upgrade=UPGRADE.replace(b"Sec-WebSocket-Key", b"X")), 400, b"Sec-WebSocket-Key"),
        (opening(upgrade=UPGRADE.replace(b"13", b"8")), 426, b"version 13"),
        (opening(line=b"POST /ws"), 405, b"WebSocket"),
        (opening() + b"\x89\x80\1\2\3\4", 400, b"before the WebSocket was open"),
        (opening(line=b"GET /ws?mesh=" + b"m" * 20_000), 400, b"mesh name too long"),
        (opening(line=b"GET /nowhere"), 404, b"/ws"),
        (head(b"GET /ws", CLOSE), 426, b"with a WebSocket client"),
    ],
)
def test_an_opening_that_fails_is_answered_and_closed(
    relay: LiveRelay, data: bytes, status: int, words: bytes
) -> None:
    answer = exchange(relay.port, data)
    assert answer.status == status, answer.head
    assert words in answer.body
    if status == 426:
        assert b"upgrade: websocket" in answer.head.lower()


@pytest.mark.parametrize(
    "headers",
    [
        [b"Cookie: c=" + b"c" * 9000],
        [b"X: x"] * 90,
        [b"Content-Length: 0"],
        [b"X: caf\xe9"],
    ],
)
def test_an_opening_with_much_in_its_head_works(relay: LiveRelay, headers: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S) as client:
        client.sendall(opening(*headers))
        assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
        text = b'{"type":"capabilities"}'
        client.sendall(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        assert b"capabilities_response" in client.recv(65536)


def test_a_connection_that_became_a_websocket_keeps_nothing_of_its_http_side(
    relay: LiveRelay,
) -> None:
    def held() -> int:
        return sum(isinstance(one, HttpProtocol) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    before = held()
    try:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S) as client:
            client.sendall(opening())
            assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
            until(lambda: held() <= before)  # another thread has just written that
    finally:
        gc.enable()


def test_a_client_that_leaves_in_the_middle_of_a_request_is_no_error(
    relay: LiveRelay, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S) as client:
            client.sendall(post(b"{}")[:-1])
    for _ in range(5):
        assert exchange(relay.port, post(b"{}", CLOSE)).status == 200
    assert [line for line in caplog.records if line.levelname == "ERROR"] == []


def test_requests_in_a_row_are_answered_in_their_order_however_they_are_cut(
    relay: LiveRelay,
) -> None:
    stream = post(b'{"details":true}') + head(b"GET /nothing") + head(b"GET /ping", CLOSE)
    for cut in range(1, len(stream), 7):
        with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE_S) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(stream[:cut])
            client.sendall(stream[cut:])
            raw = b""
            while part := client.recv(65536):
                raw += part
        statuses = re.findall(rb"HTTP/1.1 (\d+)", raw)
        assert statuses == [b"200", b"404", b"200"], cut


# Whose name it is called by -----------------------------------------------------------------------

OWN = ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.8.7:8080", "[::1]", "[::1]:80", "localhost."]
FOREIGN = ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "::"]


@pytest.mark.parametrize("host", OWN)
@pytest.mark.parametrize("ask", [lambda h: head(b"GET /ping", CLOSE, host=h)])
def test_a_relay_on_loopback_answers_to_names_of_this_machine(
    relay: LiveRelay, host: str, ask: Callable[[bytes], bytes]
) -> None:
    assert exchange(relay.port, ask(host.encode())).status == 200
    assert is_own(host, frozenset())


@pytest.mark.parametrize("host", FOREIGN)
def test_a_relay_on_loopback_refuses_every_other_name_for_pages_and_openings(
    relay: LiveRelay, host: str
) -> None:
    for data in (head(host=host.encode()), opening().replace(b"localhost", host.encode())):
        answer = exchange(relay.port, data)
        assert answer.status == 421
        assert b"--allow-host" in answer.body


def test_a_setting_lets_a_proxy_name_the_relay() -> None:
    with LiveRelay(allowed_hosts=("Relay.example",)) as live:
        assert exchange(live.port, head(b"GET /ping", CLOSE, host=b"relay.example")).status == 200
        assert exchange(live.port, head(host=b"evil.example")).status == 421


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost", 200),  # the host that was asked
        ("http://localhost:5173", 200),  # allowed by default
        ("https://agi.diy", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
    ],
)
def test_a_page_of_a_foreign_origin_may_not_ask_who_is_here(
    relay: LiveRelay, origin: str | None, status: int
) -> None:
    headers = [b"Origin: " + origin.encode()] if origin is not None else []
    assert exchange(relay.port, post(b"{}", CLOSE, *headers)).status == status


# In virtual time ----------------------------------------------------------------------------------


class Timer:
    """A timer of `Loop`."""

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at = at
        self.callback = callback
        self.is_set = True

    def cancel(self) -> None:
        self.is_set = False


class Loop:
    """The event loop, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[Timer] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        self._timers.append(Timer(self.now + seconds, callback))
        return self._timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [t for t in self._timers if t.is_set and t.at <= end]:
            timer = min(due, key=lambda t: t.at)
            self.now, timer.is_set = timer.at, False
            timer.callback()
        self.now = end

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


class Socket(asyncio.Transport):
    """A transport that keeps what is written, and takes none of it while `is_full`."""

    def __init__(self, extra: dict[str, Any] | None = None) -> None:
        super().__init__(extra)
        self.written = b""
        self.unsent = 0
        self.is_full = False
        self.is_read = True
        self.end = ""

    def write(self, data: Any) -> None:
        self.written += data
        if self.is_full:
            self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written += b"<eof>"

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "cut"


class Application:
    """An ASGI application that reads the body, waits to be told, and answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.left = 0  # requests whose client was gone, or refused, before it had sent them
        self.answers = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.left += 1
                return
            body += event["body"]
            more = event["more_body"]
        self.bodies.append(body)
        await self.answers.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def answer(self) -> None:
        self.answers.release()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Connection:
    """One connection to an `Application`."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.loop = Loop()
        self.socket = Socket()
        self.app = Application()
        config = uvicorn.Config(self.app, log_config=None)
        config.load()
        self.protocol = HttpProtocol(
            limits,
            frozenset(),
            RefusalLog(VirtualClock()),
            config=config,
            server_state=ServerState(),
            app_state={},
            _loop=self.loop,
        )
        self.protocol.connection_made(self.socket)

    async def send(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await settle()

    async def lose(self) -> None:
        self.protocol.connection_lost(None)
        await settle()


@pytest.fixture
async def connection(anyio_backend: str) -> Any:
    connection = Connection()
    yield connection
    await connection.lose()


@pytest.mark.anyio
async def test_a_socket_that_sends_nothing_is_closed_in_time(connection: Connection) -> None:
    connection.loop.advance(9.9)
    assert connection.socket.end == ""
    connection.loop.advance(0.1)
    assert connection.socket.end == "closed"
    assert connection.socket.written == b""


@pytest.mark.anyio
@pytest.mark.parametrize("start", [b"GET /ping HTTP/1.1\r\n", post(b"x" * 100)[:-100]])
async def test_a_byte_every_five_seconds_gains_no_time(
    connection: Connection, start: bytes
) -> None:
    connection.loop.advance(5)
    await connection.send(start)
    connection.loop.advance(5)
    await connection.send(b"x")
    connection.loop.advance(4.9)
    assert connection.socket.written == b""
    connection.loop.advance(0.1)
    assert connection.socket.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert connection.socket.written.endswith(b"<eof>")
    connection.loop.advance(1)
    assert connection.socket.end == "cut"
    await settle()
    assert connection.app.bodies == []
    assert connection.app.left == len(connection.app.asked)


@pytest.mark.anyio
async def test_empty_lines_gain_no_time(connection: Connection) -> None:
    for _ in range(10):
        connection.loop.advance(1)
        await connection.send(b"\r\n")
    assert connection.socket.end == "closed"


@pytest.mark.anyio
async def test_a_chunk_every_five_seconds_gains_no_time(connection: Connection) -> None:
    await connection.send(chunked(end=b""))
    for _ in range(2):
        connection.loop.advance(5)
        await connection.send(b"1\r\nx\r\n")
    assert b" 408 " in connection.socket.written


@pytest.mark.anyio
async def test_a_request_has_its_whole_time_after_a_pause_and_an_idle_connection_is_closed(
    connection: Connection,
) -> None:
    for _ in range(3):
        connection.loop.advance(9)
        await connection.send(head()[:10])
        connection.loop.advance(9)
        await connection.send(head()[10:])
        connection.loop.advance(100)  # the application's time is its own
        await connection.app.answer()
    assert connection.socket.written.count(b"200 OK") == 3
    connection.loop.advance(9.9)
    assert connection.socket.end == ""
    connection.loop.advance(0.1)
    assert connection.socket.end == "closed"


@pytest.mark.anyio
async def test_the_time_of_the_application_is_its_own(connection: Connection) -> None:
    await connection.send(post(b"body")[:-2])
    connection.loop.advance(9)
    await connection.send(b"dy" + head())  # and the next request already
    connection.loop.advance(100)
    await connection.send(head())
    connection.loop.advance(100)
    assert (connection.socket.written, connection.socket.end) == (b"", "")
    for _ in range(3):
        await connection.app.answer()
    assert connection.socket.written.count(b"200 OK") == 3


@pytest.mark.anyio
async def test_what_comes_during_an_answer_has_no_deadline_yet(connection: Connection) -> None:
    await connection.send(head())
    await connection.send(head())
    connection.loop.advance(100)
    assert (connection.socket.written, connection.socket.end) == (b"", "")


@pytest.mark.anyio
async def test_pipelined_requests_cost_one_read_and_one_answer_at_a_time(
    connection: Connection,
) -> None:
    await connection.send(head() * 1000)
    assert connection.app.asked == ["/ping"]
    assert not connection.socket.is_read
    held = len(connection.protocol._pending)
    assert held == len(head()) * 999
    for n in range(2, 5):
        await connection.app.answer()
        assert connection.app.asked == ["/ping"] * n
        assert not connection.socket.is_read
    assert len(connection.protocol._pending) < held


@pytest.mark.anyio
async def test_after_the_last_pipelined_request_reading_goes_on(connection: Connection) -> None:
    await connection.send(head() * 2)
    assert not connection.socket.is_read
    await connection.app.answer()
    await connection.app.answer()
    assert connection.socket.is_read
    await connection.send(head())
    assert len(connection.app.asked) == 3


@pytest.mark.anyio
async def test_the_application_waits_for_a_client_that_does_not_read_and_that_one_is_cut(
    connection: Connection,
) -> None:
    await connection.send(head())
    connection.protocol.pause_writing()
    await connection.app.answer()
    assert connection.socket.written == b""
    connection.loop.advance(9)
    connection.protocol.resume_writing()
    await settle()
    assert b"200 OK" in connection.socket.written
    await connection.send(head())
    connection.protocol.pause_writing()
    connection.loop.advance(9.9)
    assert connection.socket.end == ""
    connection.loop.advance(0.1)
    assert connection.socket.end == "cut"


@pytest.mark.anyio
@pytest.mark.parametrize("ask", [head(b"GET /ping", CLOSE), head()])
async def test_a_closed_connection_whose_client_does_not_take_the_rest_is_cut(
    connection: Connection, ask: bytes
) -> None:
    connection.socket.is_full = True
    await connection.send(ask)
    await connection.app.answer()
    connection.loop.advance(10)
    assert connection.socket.end != ""
    connection.loop.advance(10)
    assert connection.socket.end == "cut"


@pytest.mark.anyio
async def test_the_kernel_is_asked_to_hold_little_of_an_answer(connection: Connection) -> None:
    sizes = []

    class Kernel:
        def setsockopt(self, level: int, option: int, value: int) -> None:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_SNDBUF)
            sizes.append(value)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 1

        getpeername = getsockname

    connection.socket = Socket({"socket": Kernel()})
    connection.protocol.connection_made(connection.socket)
    assert sizes == [SEND_BUFFER_BYTES]


@pytest.mark.anyio
async def test_a_body_in_small_chunks_is_read_a_piece_at_a_time(connection: Connection) -> None:
    body = b"1\r\nx\r\n" * 2000
    start = chunked(end=b"")
    connection.protocol.data_received(start + body + b"0\r\n\r\n")
    pieces = 0
    while connection.app.bodies == []:
        left = len(connection.protocol._pending)
        await asyncio.sleep(0)
        assert left - len(connection.protocol._pending) <= PIECE_BYTES
        pieces += 1
    assert pieces >= len(body) // PIECE_BYTES
    assert connection.app.bodies == [b"x" * 2000]


@pytest.mark.anyio
async def test_who_was_refused_may_send_little_more(connection: Connection) -> None:
    await connection.send(post(b"x" * 2**17))
    assert b" 413 " in connection.socket.written
    await connection.send(b"x" * LINGER_BYTES)
    assert connection.socket.end == ""
    assert not connection.protocol._pending
    await connection.send(b"x")
    assert connection.socket.end == "cut"


@pytest.mark.anyio
async def test_at_the_end_of_the_server_an_answer_under_way_is_finished(
    connection: Connection,
) -> None:
    await connection.send(head())
    connection.protocol.shutdown()
    assert connection.socket.end == ""
    await connection.app.answer()
    assert b"200 OK" in connection.socket.written
    assert connection.socket.end == "closed"
    idle = Connection()
    await idle.send(head()[:10])
    idle.protocol.shutdown()
    assert idle.socket.end == "closed"
    await idle.lose()


def test_the_answer_says_what_is_here(relay: LiveRelay) -> None:
    answer = exchange(relay.port, post(b"{}", CLOSE))
    assert json.loads(answer.body) == {"status": "ok", "peers": [], "count": 0}
