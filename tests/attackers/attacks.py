"""The attacks: each is a small function that does one thing that hurts, as fast as it goes.

    ATTACKS[name].run(target, connections, running)

`row`: its kind; a letter marks a twin of the attack that first had the number.
"""

import itertools
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import attrs

from tests.attackers.wire import Raw, Running, opening, pour, presence, said
from tests.worlds.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

MIB: Final = 2**20


@attrs.frozen
class Target:
    """Where the relay listens."""

    port: int


Run = Callable[[Target, int, Running], None]


@attrs.frozen
class Attack:
    """`connections`: with how many the tests make it. `is_fixed`: it is not the same with others.

    `lets_in`: newcomers must get in while it goes on. `is_too_much`: it sends more to everyone than
    slow readers take, and so these may be evicted.
    """

    name: str
    row: str
    run: Run
    connections: int = 1
    is_fixed: bool = False
    lets_in: bool = True
    is_too_much: bool = False

    def hurt(self, faults: Sequence[str]) -> list[str]:
        """Those of them that must not be."""
        return [fault for fault in faults if not self.is_too_much or fault[:5] != "slow-"]


def flood(
    *payloads: bytes,
    first: Callable[[int], Sequence[bytes]] = lambda n: [presence(f"attacker-{n}")],
    path: str = "/ws",
    reads: bool = True,
    segment_bytes: int = MIB,
    pause_s: float = 0.0,
) -> Run:
    """Connections that send `first`, and then the payloads in turn, for ever."""

    def run(target: Target, connections: int, running: Running) -> None:
        numbers = itertools.count()

        def one() -> Raw:
            return Raw(target.port).open(*first(next(numbers)), path=path)

        raws = [one() for _ in range(connections)]
        pour(
            raws,
            payloads,
            running,
            reads=reads,
            segment_bytes=segment_bytes,
            pause_s=pause_s,
            again=one,
        )

    return run


def churn(*requests: bytes, waits: bool = False, reads: bool = True) -> Run:
    """New connections all the time, each with one of these requests. `waits` for its end."""

    def run(target: Target, connections: int, running: Running) -> None:
        held: list[Raw] = []
        for request in itertools.cycle(requests):
            if not running():
                break
            with suppress(OSError):
                raw = Raw(target.port)
                held.append(raw)
                raw.socket.settimeout(1.0)
                raw.socket.sendall(request)
                if waits:
                    raw.rest()
                elif reads:
                    raw.socket.recv(65536)
            while len(held) >= max(1, connections):
                held.pop(0).close()
        for raw in held:
            raw.close()

    return run


def hold(*requests: bytes, path: str | None = "/ws") -> Run:
    """So many connections that send this once, read nothing, and stay."""

    def run(target: Target, connections: int, running: Running) -> None:
        raws = []
        for number in range(connections):
            raw = Raw(target.port, receive_bytes=4096)
            if path is not None:
                raw.open(path=path.format(number))
            raws.append(raw)
        for number, raw in enumerate(raws):
            for request in requests:
                # (A relay that has enough of it may pause, or close.)
                raw.socket.settimeout(0.5)
                with suppress(OSError):
                    raw.socket.sendall(request.replace(b"NUMBER", b"%06d" % number))
        while running():
            time.sleep(0.05)
        for raw in raws:
            raw.close()

    return run


# Texts --------------------------------------------------------------------------------------------


def filled(head: bytes, unit: bytes, tail: bytes, size: int = MIB) -> bytes:
    """A text frame of nearly `size` bytes: the unit again and again between head and tail."""
    return frame(head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail)


def broadcast(size: int) -> bytes:
    return filled(b'{"type":"broadcast","data":"', b"x", b'"}', size)


ZEROS: Final = frame(b"[" + b",".join([b"0"] * 2000) + b"]")
SURROGATES: Final = filled(b'[{"a":"', b"\\ud800\\n\\n", b'"}]')
EMPTY_ARRAYS: Final = filled(b'{"type":"broadcast","data":[', b"[],", b"0]}")
EMPTY_OBJECTS: Final = filled(b'{"type":"broadcast","data":[', b"{},", b"0]}")
NOT_AN_OBJECT: Final = filled(b"[", b"[],", b"0]")
DEEP: Final = filled(b'{"type":"broadcast","data":[', b"[" * 100 + b"]" * 100 + b",", b"0]}")
NUMBERS: Final = filled(b'{"type":"broadcast","data":[', b"9" * 4000 + b",", b"0]}")
SPACES: Final = filled(b'{"type":"broadcast",', b" ", b'"data":0}')
KEYS: Final = filled(b'{"type":"broadcast",', b'"a":0,', b'"data":0}')
TYPES: Final = filled(b"{", b'"type":"broadcast",', b'"data":0}')
AGENTS: Final = [f"agent number {n}" for n in range(250)]


def changing_agents() -> list[bytes]:
    """Heartbeats, each with other agents."""
    return [
        said("heartbeat", data={"agents": [f"{n} {name}" for name in AGENTS]}) for n in range(50)
    ]


# Attacks that are more than a flood ---------------------------------------------------------------


def endless_fragments(target: Target, connections: int, running: Running) -> None:
    """A message that never ends, in empty fragments."""
    raws = [
        Raw(target.port).open(presence(f"attacker-{n}"), frame(b"x", TEXT, fin=False))
        for n in range(connections)
    ]
    pour(raws, [frame(b"", CONTINUATION, fin=False) * 10_000], running)


def joining_and_leaving(target: Target, connections: int, running: Running) -> None:
    """Everybody hears of each of them twice, and each gets the roster."""
    numbers = itertools.count()
    while running():
        raws = [
            Raw(target.port).open(presence(f"attacker-{next(numbers)}", AGENTS))
            for _ in range(connections)
        ]
        for raw in raws:
            raw.close()


def zeros_beside_broadcasts(target: Target, connections: int, running: Running) -> None:
    """Each sender has a long message and many errors in the same round."""
    both = broadcast(MIB - 100) + frame(b"[" + b",".join([b"0"] * 70) + b"]")
    flood(both, first=lambda n: [presence(f"attacker-{n}")], reads=False)(
        target, connections, running
    )


def directs_to_many_tabs(target: Target, connections: int, running: Running) -> None:
    """A peer with many connections that do not read gets long directs."""
    tabs = [Raw(target.port, receive_bytes=4096) for _ in range(connections)]
    for tab in tabs:
        tab.open(presence("attacker-tabs"))
    direct = filled(b'{"type":"direct","to":"attacker-tabs","data":"', b"x", b'"}')
    flood(direct)(target, 1, running)
    for tab in tabs:
        tab.close()


def amplified_by_tabs(target: Target, connections: int, running: Running) -> None:
    """A peer with many connections, all of which read, gets a flood of directs."""
    tabs = [Raw(target.port).open(presence("attacker-tabs")) for _ in range(connections)]
    sender = Raw(target.port).open(presence("attacker-sender"))
    direct = filled(b'{"type":"direct","to":"attacker-tabs","data":"', b"x", b'"}', 1400)
    pour([sender], [direct * 50], running, listening=tabs)


def many_agents_of_one_peer(target: Target, connections: int, running: Running) -> None:
    """Connections of one peer, each with its own agents; all change them, then all go at once."""
    raws = []
    for number in range(connections):
        names = [f"{number} {name}" for name in AGENTS[: max(1, 250 // connections)]]
        raws.append(Raw(target.port).open(presence("attacker", names)))
    beats = [said("heartbeat", data={"agents": [name]}) for name in ("a", "b")]
    pour(raws, beats, running, pause_s=0.05)


def ambiguous_agents(target: Target, connections: int, running: Running) -> None:
    """Many peers have the same agent, and somebody keeps talking to it."""
    hosts = [Raw(target.port).open(presence(f"attacker-{n}", ["same"])) for n in range(200)]
    flood(said("direct", to="same", data=0) * 1000)(target, connections, running)
    for host in hosts:
        host.close()


def half_closed(target: Target, connections: int, running: Running) -> None:
    """They do not read, get much to read, and end their side."""
    raws = [Raw(target.port, receive_bytes=4096).open(presence(f"attacker-{n}")) for n in range(50)]
    for raw in raws:
        raw.socket.shutdown(socket.SHUT_WR)
    flood(broadcast(100_000))(target, connections, running)
    for raw in raws:
        raw.close()


def slow_bytes(target: Target, connections: int, running: Running) -> None:
    """Frames byte by byte, each byte a segment of its own."""
    beat = frame(b'{"type":"heartbeat"}', mask=b"\x12\x34\x56\x78")
    flood(beat * 50, segment_bytes=1)(target, connections, running)


def small_segments(target: Target, connections: int, running: Running) -> None:
    """One large frame each, in small segments."""
    flood(broadcast(MIB), segment_bytes=85, pause_s=0.02)(target, connections, running)


def endless_body(target: Target, connections: int, running: Running) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n\r\n"
    requests(head, b"[[],[],[],[],[],[]," * 5000, target, connections, running)


def endless_chunks(target: Target, connections: int, running: Running) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    requests(head, b"1000;extension=1\r\n" + b"x" * 4096 + b"\r\n", target, connections, running)


def endless_headers(target: Target, connections: int, running: Running) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n"
    requests(
        head, b"X-Header-Line: xxxxxxxxxxxxxxxxxxxxxx\r\n" * 1000, target, connections, running
    )


def endless_opening(target: Target, connections: int, running: Running) -> None:
    head = opening()[:-2]
    requests(
        head, b"X-Header-Line: xxxxxxxxxxxxxxxxxxxxxx\r\n" * 1000, target, connections, running
    )


def endless_line(target: Target, connections: int, running: Running) -> None:
    requests(b"GET /", b"x" * 65536, target, connections, running)


def pipelined_unread(target: Target, connections: int, running: Running) -> None:
    request = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
    requests(b"", request * 1000, target, connections, running, reads=False)


def status_requests(target: Target, connections: int, running: Running) -> None:
    body = b'{"details":true}'
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    requests(b"", request, target, connections, running)


def visits(*bodies: bytes, mesh: str = "") -> Run:
    """Requests to `/send` with these bodies, one behind the other, and nobody reads the answers
    before."""

    def run(target: Target, connections: int, running: Running) -> None:
        asked = b"".join(visit(body, mesh) for body in bodies)
        requests(b"", asked, target, connections, running)

    return run


def visit(body: bytes, mesh: str = "", *, says_bytes: int | None = None) -> bytes:
    """A request to `/send`. `says_bytes`: what it says of the length of its body."""
    length = len(body) if says_bytes is None else says_bytes
    head = (
        f"POST /send?mesh={mesh} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    return head.encode() + body


def array_of(message: bytes, count: int) -> bytes:
    return b"[" + b",".join([message] * count) + b"]"


def requests(
    head: bytes,
    more: bytes,
    target: Target,
    connections: int,
    running: Running,
    *,
    reads: bool = True,
) -> None:
    """HTTP requests that begin with `head` and never end. If they are cut, others follow."""

    def one() -> Raw:
        raw = Raw(target.port)
        raw.left = memoryview(head)
        return raw

    pour([one() for _ in range(connections)], [more], running, reads=reads, again=one)


# The table ----------------------------------------------------------------------------------------

_ONE_BYTE_AND_PING: Final = (
    frame(b"x", TEXT, fin=False)
    + (frame(b"x", CONTINUATION, fin=False) + frame(b"", PING)) * 5000
    + frame(b"x", CONTINUATION)
)

VIOLATIONS: Final = (
    frame(b"\xff\xfe", TEXT),
    frame(b'{"type":"broadcast"}', TEXT, reserved=4),
    frame(b"x", 0x3),
    frame(b"x" * 126, PING),
    frame(b"x" * 10, PING, fin=False),
    frame(b"x", CONTINUATION),
    frame(b"x", TEXT, fin=False) + frame(b"x", TEXT),
    frame(b'{"type":"broadcast"}', mask=None),
    frame(b"\x00", CLOSE),
    frame((1005).to_bytes(2), CLOSE),
    frame((999).to_bytes(2), CLOSE),
    frame((1000).to_bytes(2) + b"\xff", CLOSE),
    frame((1000).to_bytes(2), CLOSE),
    frame(b"x" * 126, CLOSE),
)

_BAD_OPENINGS: Final = (
    opening(headers=["Cookie: " + "x" * 9000]),
    opening(headers=[f"X-{n}: 1" for n in range(200)]),
    opening(headers=["Content-Length: 5"]) + b"12345",
    opening(headers=["Origin: https://evil.example"]),
    opening("/nowhere"),
    opening("/ws?mesh=" + "x" * 3000),
    opening(key="short"),
    opening().replace(b"Version: 13", b"Version: 8"),
    opening().replace(b"Host: localhost\r\n", b""),
    opening().replace(b"localhost", b"evil.example"),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    b"GET http://localhost/ping HTTP/1.0\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n[]",
    b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\r\n" * 1000,
)

_TO_NOBODY: Final = b'{"type":"direct","from":"visitor","to":"nobody"}'
_TO_ALL: Final = b'{"type":"stream","from":"visitor"}'

_ALL: Final = (
    # Frames
    Attack("empty-pings", "1", flood(frame(b"", PING) * 10_000)),
    Attack("empty-pongs", "1", flood(frame(b"", PONG) * 10_000)),
    Attack("empty-fragments", "1", endless_fragments),
    Attack("tiny-fragments-and-pings", "1a", flood(_ONE_BYTE_AND_PING)),
    Attack("pings-unread", "2", flood(frame(b"x" * 125, PING) * 1000, reads=False), connections=3),
    Attack("empty-binary", "1b", flood(frame(b"", BINARY) * 10_000)),
    Attack("unannounced-pings", "1c", flood(frame(b"", PING) * 10_000, first=lambda _: [])),
    Attack("small-segments", "12", small_segments, connections=300, is_fixed=True),
    Attack("byte-by-byte", "12a", slow_bytes, connections=10),
    Attack("too-large", "18a", flood(frame(b"x" * MIB, BINARY, says_bytes=2**40))),
    Attack("too-large-text", "18b", flood(frame(b"x" * 3 * MIB))),
    Attack(
        "half-frames",
        "12b",
        hold(frame(b"x" * 500_000, says_bytes=1_000_000)),
        connections=100,
        is_fixed=True,
    ),
    # Messages
    Attack("broadcasts", "18", flood(broadcast(500_000))),
    Attack("small-broadcasts", "18c", flood(said("broadcast", data=0) * 1000)),
    Attack("broadcasts-unread", "18d", flood(broadcast(500_000), reads=False)),
    Attack(
        "ten-broadcast",
        "18f",
        flood(broadcast(500_000)),
        connections=10,
        is_fixed=True,
        is_too_much=True,
    ),
    Attack("zeros", "13", flood(ZEROS), connections=10),
    Attack("zeros-unread", "13a", flood(ZEROS, reads=False)),
    Attack(
        "zeros-beside-broadcasts", "6", zeros_beside_broadcasts, connections=50, is_too_much=True
    ),
    Attack("errors", "13b", flood(frame(b"0") * 10_000)),
    Attack("errors-unread", "13c", flood(frame(b"0") * 10_000, reads=False)),
    Attack(
        "unannounced-errors", "13d", flood(frame(b"0") * 10_000, first=lambda _: []), connections=10
    ),
    Attack("surrogates", "11", flood(SURROGATES), connections=10),
    Attack("empty-arrays", "11a", flood(EMPTY_ARRAYS), connections=3),
    Attack("empty-objects", "11b", flood(EMPTY_OBJECTS)),
    Attack("arrays-of-arrays", "11c", flood(NOT_AN_OBJECT), connections=10),
    Attack("deep", "11d", flood(DEEP)),
    Attack("long-numbers", "11e", flood(NUMBERS)),
    Attack("spaces", "11f", flood(SPACES)),
    Attack("many-keys", "11g", flood(KEYS)),
    Attack("many-types", "11h", flood(TYPES)),
    Attack("capabilities", "17a", flood(said("capabilities") * 1000)),
    Attack("heartbeats", "17b", flood(frame(b"[" + b'{"type":"heartbeat"},' * 900 + b"0]"))),
    Attack(
        "relays-own-words",
        "3",
        flood(said("capabilities_response", turnId="0", data={"limits": {}}) * 500),
    ),
    Attack("to-nobody", "13e", flood(said("direct", to="nobody", data=0) * 1000)),
    Attack("ambiguous-agents", "13f", ambiguous_agents),
    Attack(
        "to-the-pair", "18e", flood(filled(b'{"type":"direct","to":"pair-b","data":"', b"x", b'"}'))
    ),
    Attack("directs-to-many-tabs", "8", directs_to_many_tabs, connections=60, is_fixed=True),
    Attack("amplified-by-tabs", "8a", amplified_by_tabs, connections=60, is_fixed=True),
    # Announcements, joining, leaving
    Attack("changing-agents", "17", flood(*changing_agents())),
    Attack(
        "large-presences", "17", flood(presence("attacker", data="x" * 65_000), first=lambda _: [])
    ),
    Attack("agents-of-one-peer", "10", many_agents_of_one_peer, connections=100, is_fixed=True),
    Attack(
        "rosters-unread",
        "7",
        hold(presence("attacker-NUMBER", note="x" * 64_000), path="/ws?mesh=attacked"),
        connections=200,
        is_fixed=True,
    ),
    Attack("joining-and-leaving", "10a", joining_and_leaving),
    Attack("other-meshes", "19", hold(path="/ws?mesh={}"), connections=120, is_fixed=True),
    Attack("half-closed", "also", half_closed),
    Attack("violations", "15a", churn(*(opening() + each for each in VIOLATIONS), waits=True)),
    # Before the WebSocket
    Attack("endless-body", "4", endless_body),
    Attack("endless-chunks", "4a", endless_chunks),
    Attack("endless-headers", "4", endless_headers),
    Attack("endless-opening", "4b", endless_opening),
    Attack("endless-line", "4c", endless_line),
    Attack("pipelined-unread", "4", pipelined_unread),
    Attack("status-requests", "also", status_requests, connections=3),
    # Without a connection
    Attack("visits", "20", visits(_TO_NOBODY), connections=3),
    Attack("visits-in-arrays", "20a", visits(array_of(_TO_NOBODY, 1500)), connections=3),
    Attack("visits-to-everyone", "20b", visits(array_of(_TO_ALL, 1500)), connections=3),
    Attack(
        "long-visits",
        "20c",
        visits(b"[" + b"[]," * 300_000 + b"0]", b"[" * 500_000, b'{"x":' + b"9" * 500_000 + b"}"),
        connections=3,
    ),
    Attack(
        "half-visits",
        "20d",
        hold(visit(b" " * 500_000, says_bytes=1_000_000), path=None),
        connections=100,
        is_fixed=True,
    ),
    Attack(
        "visits-to-other-meshes",
        "20e",
        churn(*(visit(_TO_NOBODY, f"other-{n}") for n in range(500))),
        connections=10,
    ),
    Attack("openings", "15b", churn(opening()), connections=10),
    Attack("bad-openings", "15", churn(*_BAD_OPENINGS), connections=10),
    Attack("silent-sockets", "15c", hold(path=None), connections=1000, is_fixed=True),
)

ATTACKS: Final = {attack.name: attack for attack in _ALL}
