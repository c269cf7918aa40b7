"""The fast transport on real sockets, byte by byte. (What it borrows: test_borrowed.py.)"""

import asyncio
import fcntl
import json
import random
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.transports.kernel import LITTLE_BYTES
from actors.transports.reader import PINGS_MAX
from actors.transports.uvicorn import MeshProtocol, UvicornTransport
from protocol.limits import Limits
from tests.worlds.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.worlds.live import PATIENCE_S, LiveRelay, StillClock, until


class RawClient:
    """A socket that has done the opening handshake and reads frames."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{headers}"
            "\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(65536)
        self.status, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert b" 101 " in self.status

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def read(self) -> tuple[int, bytes]:
        first, length = self._take(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        assert first & 0x80
        return first & 0x0F, self._take(length)

    def message(self) -> dict[str, Any]:
        opcode, payload = self.read()
        while opcode == PING:  # the relay's own, if the machine is slow
            self.socket.sendall(frame(payload, PONG))
            opcode, payload = self.read()
        assert opcode == TEXT, (opcode, payload)
        message = json.loads(payload)
        assert isinstance(message, dict)
        return message

    def close_code(self) -> int:
        while True:
            opcode, payload = self.read()
            if opcode == CLOSE:
                (code,) = struct.unpack("!H", payload[:2])
                return int(code)

    def say(self, type: str, **fields: Any) -> None:
        self.socket.sendall(frame(json.dumps({"type": type, **fields}).encode()))

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def relay() -> Iterator[LiveRelay]:
    limits = Limits(messages_burst=10**6, message_bytes_max=100_000, close_within_s=60.0)
    with LiveRelay(limits=limits, clock=StillClock()) as live:  # nobody here sends heartbeats
        yield live


@pytest.fixture
def client(relay: LiveRelay) -> Iterator[RawClient]:
    with RawClient(relay.port) as client:
        yield client


# One message, in all the ways in which a client may put it on the wire.
MESSAGE = b'{"type":"capabilities","turnId":"%d"}'
ways = st.sampled_from(["plain", "medium", "fragments", "ping inside", "pong first", "long form"])


def put(way: str, number: int) -> bytes:
    text = MESSAGE % number
    match way:
        case "medium":
            return frame(text + b" " * 200)
        case "long form":
            return frame(text + b" " * 70_000)
        case "fragments":
            return (
                frame(text[:7], fin=False)
                + frame(b"", CONTINUATION, fin=False)
                + frame(text[7:], CONTINUATION)
            )
        case "ping inside":
            return frame(text[:9], fin=False) + frame(b"?", PING) + frame(text[9:], CONTINUATION)
        case "pong first":
            return frame(b"unasked", PONG) + frame(text)
    return frame(text)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ways, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_messages_arrive_whole_and_in_order_however_the_stream_is_cut(
    relay: LiveRelay, order: list[str], chance: random.Random
) -> None:
    stream = b"".join(put(way, number) for number, way in enumerate(order))
    with RawClient(relay.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = 0
        while at < len(stream):
            step = chance.choice([1, 2, 5, 13, 64, 100_000])
            client.socket.sendall(stream[at : at + step])
            at += step
        answered: list[int] = []
        while len(answered) < len(order):
            opcode, payload = client.read()
            if opcode == TEXT:
                answered.append(int(json.loads(payload)["turnId"]))
            else:
                assert (opcode, payload) == (PONG, b"?")
    assert answered == list(range(len(order)))


def test_a_message_of_any_size_beyond_the_bound_is_refused_and_the_next_one_is_read(
    client: RawClient,
) -> None:
    for size in (100_001, 5_000_000):
        client.socket.sendall(frame(b"x" * size, mask=bytes(4)) + frame(MESSAGE % 7))
        assert client.message()["data"]["code"] == "too_large"
        assert client.message()["turnId"] == "7"


def test_fragments_that_are_too_large_in_sum_are_refused_once_and_not_kept(
    client: RawClient,
) -> None:
    client.socket.sendall(frame(b"x" * 60_000, fin=False, mask=bytes(4)))
    for _ in range(50):
        client.socket.sendall(frame(b"x" * 60_000, CONTINUATION, fin=False, mask=bytes(4)))
    client.socket.sendall(frame(b"x", CONTINUATION) + frame(MESSAGE % 8))
    assert client.message()["data"]["code"] == "too_large"
    assert client.message()["turnId"] == "8"


@pytest.mark.parametrize("fragment", [b"", b" "])
def test_a_message_may_come_in_very_many_small_fragments(
    client: RawClient, fragment: bytes
) -> None:
    client.socket.sendall(frame(MESSAGE % 5, fin=False))
    client.socket.sendall(frame(fragment, CONTINUATION, fin=False) * 80_000)
    client.socket.sendall(frame(b"", CONTINUATION))
    assert client.message()["turnId"] == "5"


def test_a_binary_frame_is_refused_and_the_next_one_is_read(client: RawClient) -> None:
    client.socket.sendall(frame(b"\x00\xff", BINARY) + frame(MESSAGE % 9))
    assert client.message()["data"]["code"] == "binary"
    assert client.message()["turnId"] == "9"


@pytest.mark.parametrize("fragmented", [False, True])
def test_invalid_utf8_is_closed_with_1007(client: RawClient, fragmented: bool) -> None:
    bad = b'{"type":"\xff"}'
    if fragmented:
        client.socket.sendall(frame(bad[:4], fin=False) + frame(bad[4:], CONTINUATION))
    else:
        client.socket.sendall(frame(bad))
    assert client.close_code() == 1007


def test_a_code_point_split_between_fragments_is_whole_again(client: RawClient) -> None:
    text = '{"type":"capabilities","turnId":"é\U0001f600"}'.encode()
    for cut in range(1, len(text)):
        client.socket.sendall(frame(text[:cut], fin=False) + frame(text[cut:], CONTINUATION))
        assert client.message()["turnId"] == "é\U0001f600"


@pytest.mark.parametrize(
    "violation",
    [
        b"\x81\x05hello",  # not masked
        b"\xc1\x80\0\0\0\0",  # a reserved bit
        frame(b"x", CONTINUATION),  # nothing to continue
        frame(b"x", 0x3),  # a reserved opcode
        frame(b"x" * 126, PING),  # a long control frame
        frame(b"x", fin=False) + frame(b"y"),  # a message inside a message
    ],
)
def test_a_violation_of_rfc_6455_is_closed_with_1002(client: RawClient, violation: bytes) -> None:
    client.socket.sendall(violation)
    assert client.close_code() == 1002


def test_what_a_peer_still_sends_behind_its_violation_does_not_cost_it_the_close_frame(
    client: RawClient,
) -> None:
    client.socket.sendall(frame(b"x", 0x3))
    assert client.close_code() == 1002
    with pytest.raises(EOFError):
        client.read()
    client.socket.sendall(frame(b"y"))  # a reset would answer this, if the socket were closed

    def error() -> int:
        return client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def unsent() -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4)))
        return int(count)

    errors: list[int] = []  # (to look at one is to clear it)
    while not any(errors) and unsent():
        errors.append(error())
        time.sleep(0.01)
    assert not any((*errors, error()))


def test_a_peer_that_floods_behind_its_violation_is_cut_at_once() -> None:
    limits = Limits(bytes_in_burst=2_000_000, close_within_s=60.0)
    with LiveRelay(limits=limits, clock=StillClock()) as live, RawClient(live.port) as client:
        client.socket.sendall(frame(b"x", 0x3))
        assert client.close_code() == 1002
        with pytest.raises(ConnectionError):
            while True:
                client.socket.sendall(bytes(10_000))


def test_a_close_is_answered_with_its_own_code(client: RawClient) -> None:
    client.socket.sendall(frame(struct.pack("!H", 4321) + b"bye", CLOSE))
    assert client.close_code() == 4321
    with pytest.raises(EOFError):
        client.read()


def test_what_follows_in_the_same_packet_as_a_close_is_not_read(client: RawClient) -> None:
    client.socket.sendall(frame(struct.pack("!H", 1000), CLOSE) + frame(MESSAGE % 1))
    assert client.close_code() == 1000


def test_a_reader_that_never_reads_is_evicted_while_31_mb_reach_the_others(
    relay: LiveRelay,
) -> None:
    """The stuck one is closed with 1013; the listener gets every message, in order."""
    megabytes, size = 31, 50_000
    with (
        RawClient(relay.port) as stuck,
        RawClient(relay.port) as listener,
        RawClient(relay.port) as sender,
    ):
        for name, client in (("stuck", stuck), ("listener", listener), ("sender", sender)):
            client.say("presence", **{"from": name})
            while client.message()["from"] != name:
                pass
        padding = "x" * size
        stuck_is_gone = False
        for number in range(megabytes * 1_000_000 // size):
            sender.say("stream", n=number, data=padding)
            while (message := listener.message())["type"] != "stream":
                stuck_is_gone |= message["data"].get("reason") == "evicted"
            assert message["n"] == number
        assert stuck_is_gone
        assert stuck.close_code() == 1013


def test_a_flooding_sender_is_held_back_not_buffered(relay: LiveRelay) -> None:
    """It is not read while the supervisor is behind: memory stays within the inbox bound."""
    with RawClient(relay.port) as flooder:
        flood = frame(b'{"type":"heartbeat"}') * 50_000 + frame(MESSAGE % 1)
        # Sent while the answers are read: whoever only sends is evicted for its own mailbox.
        sending = threading.Thread(target=flooder.socket.sendall, args=(flood,))
        sending.start()
        codes = set()
        while (answer := flooder.message())["type"] == "error":
            codes.add(answer["data"]["code"])
        sending.join()
        assert codes == {"not_present"}


def pause_writing(protocol: Any) -> None:
    """Let the protocol think that the peer does not read. Only in its own thread, and when nothing
    is being written: else its transport might tell it a moment later to go on."""
    done = threading.Event()

    def pause() -> None:
        if protocol.transport.get_write_buffer_size():
            protocol.loop.call_soon(pause)
        else:
            protocol.pause_writing()
            done.set()

    protocol.loop.call_soon_threadsafe(pause)
    assert done.wait(PATIENCE_S)


def carrier_of(live: LiveRelay, connection: int) -> Any:
    """uvicorn's protocol object of a connection of the only mesh."""
    (supervisor,) = live.runtime._meshes.values()
    transport: Any = supervisor._actors[connection]._transport
    return transport._protocol


@pytest.mark.parametrize(
    "flood", [frame(b"?", PING), frame(b"", CONTINUATION, fin=False), frame(b"!", PONG)]
)
def test_frames_that_are_no_messages_are_read_no_faster_than_their_bound(flood: bytes) -> None:
    limits = Limits(frames_in_per_s=1.0, frames_in_burst=100)
    with LiveRelay(limits=limits) as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        client.socket.sendall(frame(b"{", TEXT, fin=False) + flood * 100_000)
        protocol = carrier_of(live, 1)
        until(lambda: protocol.read_paused)
        assert protocol._reader.frames <= 100 + 2048  # one pass at most beyond the burst


def test_bytes_are_read_no_faster_than_their_bound_and_nothing_is_lost() -> None:
    limits = Limits(bytes_in_per_s=400_000.0, bytes_in_burst=100_000)
    with LiveRelay(limits=limits) as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        began = time.monotonic()
        size = 40_000
        for number in range(10):
            client.say("direct", to="a", n=number, data="x" * size)
        assert [client.message()["n"] for _ in range(10)] == list(range(10))
        # What came beyond the burst took its time; the last read may be ahead by its own size.
        least_s = (10 * size - limits.bytes_in_burst - 2**18) / limits.bytes_in_per_s
        assert time.monotonic() - began >= least_s > 0.05


def test_a_text_that_is_costly_to_read_is_paid_for_by_whoever_sent_it() -> None:
    limits = Limits(bytes_in_per_s=1024.0, bytes_in_burst=500_000)
    with LiveRelay(limits=limits) as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        protocol = carrier_of(live, 1)
        data: list[object] = [[[[]]]] * 20_000
        client.say("direct", to="a", data=data)  # the bytes alone are within the burst
        assert client.message()["data"] == data
        assert protocol._intake.bytes_left < 0
        client.say("direct", to="a", data=0)
        assert client.message()["data"] == 0  # it is read already
        until(lambda: protocol.read_paused)


def test_pings_are_answered_in_order_and_before_what_came_with_them() -> None:
    with LiveRelay() as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        to_itself = frame(json.dumps({"type": "direct", "to": "a", "n": 1}).encode())
        client.socket.sendall(frame(b"1", PING) + frame(b"2", PING) + to_itself)
        assert [client.read(), client.read()] == [(PONG, b"1"), (PONG, b"2")]
        assert client.message()["n"] == 1


def test_the_relays_own_ping_does_not_get_into_a_frame_that_is_half_written() -> None:
    with LiveRelay() as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        protocol = carrier_of(live, 1)
        pause_writing(protocol)
        client.say("direct", to="a", n=1, data="x" * 900_000)
        until(lambda: protocol._chunks is not None)
        protocol.loop.call_soon_threadsafe(protocol.send_keepalive_ping)
        until(lambda: protocol._is_ping_due)
        protocol.loop.call_soon_threadsafe(protocol.resume_writing)
        assert client.message()["n"] == 1
        opcode, _ = client.read()
        assert opcode == PING


def test_of_pings_that_nobody_reads_the_answers_to_a_few_remain() -> None:
    with LiveRelay() as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        protocol = carrier_of(live, 1)
        pause_writing(protocol)
        client.socket.sendall(frame(b"?" * 125, PING) * 500)
        client.say("direct", to="a", n=1)
        until(lambda: protocol._reader.frames == 502 and protocol._port._outbox.begun_bytes)
        assert protocol._reader.pings == [b"?" * 125] * PINGS_MAX
        protocol.loop.call_soon_threadsafe(protocol.resume_writing)
        assert client.message()["n"] == 1  # written by the actor, which knew of no pause
        assert client.read() == (PONG, b"?" * 125)


def hang_up_hard(client: RawClient) -> None:
    """Close with a reset, as a process that was killed does."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


ENDINGS: dict[str, tuple[Callable[[RawClient], None], int]] = {
    "a close frame": (lambda it: it.socket.sendall(frame(struct.pack("!H", 4000), CLOSE)), 4000),
    "a violation": (lambda it: it.socket.sendall(frame(b"x", 0x3)), 1002),
    "invalid text": (lambda it: it.socket.sendall(frame(b"\xff")), 1007),
    "half of the socket closed": (lambda it: it.socket.shutdown(socket.SHUT_WR), 1006),
    "a reset": (hang_up_hard, 1006),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_the_end_of_a_peer_that_does_not_read_is_heard_at_once_and_its_socket_goes_in_time(
    ending: str, size: int
) -> None:
    end, code = ENDINGS[ending]
    limits = Limits(close_within_s=0.3, bytes_in_burst=10**9, mailbox_bytes_max=10**9)
    with (
        LiveRelay(limits=limits, clock=StillClock()) as live,  # nobody is ever late
        RawClient(live.port) as stuck,
        RawClient(live.port) as other,
    ):
        stuck.say("presence", **{"from": "stuck"})
        stuck.message()
        other.say("presence", **{"from": "other"})
        while other.message()["from"] != "stuck":
            pass
        protocol = carrier_of(live, 1)
        actor = protocol._port
        while protocol.is_writable:
            other.say("direct", to="stuck", data="x" * size)
        end(stuck)
        assert other.message()["data"]["reason"] == "left"
        assert actor.close_code == code
        until(lambda: protocol not in live.server.server_state.connections)


@pytest.mark.parametrize("answers", [True, False])
def test_a_peer_that_is_closed_and_does_not_read_is_cut_whether_it_answers_or_not(
    answers: bool,
) -> None:
    limits = Limits(close_within_s=0.3, bytes_in_burst=10**9, mailbox_bytes_max=2**20)
    with (
        LiveRelay(limits=limits, clock=StillClock()) as live,
        RawClient(live.port) as stuck,
        RawClient(live.port) as other,
    ):
        stuck.say("presence", **{"from": "stuck"})
        stuck.message()
        other.say("presence", **{"from": "other"})
        while other.message()["from"] != "stuck":
            pass
        protocol = carrier_of(live, 1)
        actor = protocol._port
        while not actor.is_stopped:
            other.say("direct", to="stuck", data="x" * 100_000)
        if answers:
            stuck.socket.sendall(frame(struct.pack("!H", 1013), CLOSE))
        until(lambda: protocol not in live.server.server_state.connections)
        assert actor.close_code == 1013


def test_parts_of_messages_are_in_the_ledger_while_they_wait() -> None:
    # A relay of its own: in another one somebody may still be leaving.
    limits = Limits(message_bytes_max=100_000)
    with LiveRelay(limits=limits, clock=StillClock()) as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "half"})
        for _ in range(2):  # with the second answer the round of the presence is over, to its end
            client.say("capabilities")
            while client.message()["type"] != "capabilities_response":
                pass
        ledger = live.runtime.ledger
        before = ledger.held
        whole = frame(b" " * 90_000 + MESSAGE % 3)
        client.socket.sendall(whole[:80_000])
        until(lambda: ledger.held == before + 80_000)
        client.socket.sendall(whole[80_000:])
        assert client.message()["turnId"] == "3"
        until(lambda: ledger.held == before)
        client.socket.sendall(frame(b" " * 50_000, fin=False) + frame(b" " * 9, CONTINUATION)[:6])
        until(lambda: ledger.held == before + 50_006)
    until(lambda: ledger.held < before)


def test_what_a_blocked_socket_still_has_of_a_long_batch_is_in_the_ledger() -> None:
    limits = Limits(bytes_in_burst=10**9)
    with (
        LiveRelay(limits=limits, clock=StillClock()) as live,
        RawClient(live.port) as stuck,
        RawClient(live.port) as other,
    ):
        for name, client in (("stuck", stuck), ("other", other)):
            client.say("presence", **{"from": name})
            while client.message()["from"] != name:
                pass
        # The kernel has no room for it, on either side.
        stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        ledger = live.runtime.ledger
        other.say("direct", to="stuck", data="x" * 1_000_000)
        until(lambda: ledger.held > 1_000_000)
        other.say("direct", to="stuck", data="the last one")
        while stuck.message().get("data") != "the last one":
            pass
        until(lambda: ledger.held < 100_000)


@pytest.mark.parametrize("pace", ["on", "off"])
def test_only_a_paced_connection_holds_little_that_is_not_read(pace: str) -> None:
    with LiveRelay(pace=pace) as live, RawClient(live.port) as client:
        client.say("presence", **{"from": "a"})
        client.message()
        (supervisor,) = live.runtime._meshes.values()
        transport: Any = supervisor._actors[1]._transport
        carrier = transport._transport if pace == "on" else transport
        assert isinstance(carrier, UvicornTransport)
        below: Any = carrier._protocol.transport
        kernels = below.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        if pace == "on":
            assert below.get_write_buffer_limits()[1] == 0
            assert LITTLE_BYTES <= kernels <= 2 * LITTLE_BYTES
        else:
            assert below.get_write_buffer_limits()[1] == 64 * 1024
            assert kernels > 2 * LITTLE_BYTES


class FakeTransport(asyncio.Transport):
    """Records what a protocol does to its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def test_a_connection_that_is_over_already_holds_nothing() -> None:
    class Closed(FakeTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            closed = socket.socket()
            closed.close()
            return closed

    protocol = object.__new__(MeshProtocol)
    protocol.transport = Closed()
    protocol.transport.close()
    protocol.hold_little()
