"""Honest peers, in a process of their own: they notice what an attack does to others.

    python -m tests.attackers.honest pair PORT
    python -m tests.attackers.honest crowd PORT

The pair exchanges a direct every 20 ms: a number goes there, and comes back. The next one goes when
it is due and the last one is back, so a relay that stalls is also behind. The crowd are ten peers
and two slow readers (2 MB/s each); one of them broadcasts a number every 100 ms, and all count.
For each line on stdin one JSON object (a `Report`) goes to stdout.
"""

import asyncio
import json
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, TypedDict

from tests.attackers.wire import opening, presence, said
from tests.worlds.frames import PONG, frame

EXCHANGE_EVERY_S: Final = 0.02
BROADCAST_EVERY_S: Final = 0.1
BEAT_EVERY_S: Final = 5.0
SLOW_BYTES_PER_S: Final = 2_000_000
"""What a slow but honest receiver takes."""
SLOW_BUFFER_BYTES: Final = 64 * 1024

NUMBERED: Final = (b'{"type":"direct","from":"pair', b'{"type":"broadcast","from":"speaker"')
"""How the messages of these peers to one another begin. The relay passes them on as they are."""
FOREIGN: Final = b'{"type":"presence","from":"attacker'
RELAYS_OWN: Final = b'{"type":"capabilities_response"'


class Report(TypedDict):
    """What has been seen so far.

    Since the last report: `latencies_ms`, from when a direct was due until it was there, and
    `late_ms`, by how much this process itself was late at most. `waiting_ms`: how long the exchange
    that is under way has waited. `starved_ms`: how long this process had work and no core, in about
    the last second.
    """

    exchanges: int
    latencies_ms: list[float]
    late_ms: float
    waiting_ms: float
    starved_ms: float
    spoken: int
    heard: int
    faults: list[str]
    received_bytes: int
    foreign_presences: int
    foreign_answers: int


class Honest(asyncio.Protocol):
    """A peer that checks its numbers and does nothing else that could make it slow."""

    def __init__(self, peer: str, *, bytes_per_s: int | None = None) -> None:
        self.peer = peer
        self.faults: list[str] = []
        self.numbers: dict[str, int] = {}
        self.received_bytes = 0
        self.foreign_presences = 0
        self.foreign_answers = 0
        self.present = asyncio.Event()
        self._bytes_per_s = bytes_per_s
        self._is_open = False
        self._data = b""

    # As asyncio calls it --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(opening())

    def connection_lost(self, exc: Exception | None) -> None:
        self.faults.append(f"{self.peer} was cut")

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._bytes_per_s is not None:
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            loop.call_later(len(data) / self._bytes_per_s, self.transport.resume_reading)
        data = self._data + data
        if not self._is_open:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._data = head
                return
            self._is_open = True
            self.transport.write(presence(self.peer))
        at, end = 0, len(data)
        while end - at >= 2:
            start, length = at + 2, data[at + 1]
            if length == 126:
                start, length = at + 4, int.from_bytes(data[at + 2 : at + 4])
            elif length == 127:
                start, length = at + 10, int.from_bytes(data[at + 2 : at + 10])
            if start + length > end:
                break
            if data[at] != 0x81:
                self._control(data[at], data[start : start + length])
            elif data.startswith(NUMBERED, start):
                self._numbered(json.loads(data[start : start + length]))
            elif data.startswith(FOREIGN, start):
                self.foreign_presences += 1
            elif data.startswith(RELAYS_OWN, start):
                self.foreign_answers += 1
            elif not self.present.is_set():
                self.present.set()
            elif data.startswith(b'{"type":"error","from":"relay"', start):
                self.faults.append(f"{self.peer} got {data[start : start + length]!r}")
            at = start + length
        self._data = data[at:]

    # What it does ---------------------------------------------------------------------------------

    def _control(self, first: int, payload: bytes) -> None:
        if first == 0x89:
            self.transport.write(frame(payload, PONG))
        elif first == 0x88:
            self.faults.append(f"{self.peer} was closed: {int.from_bytes(payload[:2])}")

    def _numbered(self, message: dict[str, Any]) -> None:
        origin, number = message["from"], message["data"]["n"]
        # Whoever comes later begins with the number that it hears first.
        expected = self.numbers.get(origin, number - 1) + 1
        if number != expected:
            self.faults.append(f"{self.peer} heard {number} of {origin} instead of {expected}")
        self.numbers[origin] = number
        self.numbered(origin, number)

    def numbered(self, origin: str, number: int) -> None:
        """The next number of that peer has come."""

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            self.transport.write(said("heartbeat"))


class Pair:
    """Two peers that exchange a direct every 20 ms."""

    class Asking(Honest):
        def __init__(self) -> None:
            super().__init__("pair-a")
            self.answered = asyncio.Event()

        def numbered(self, origin: str, number: int) -> None:
            if origin == "pair-b":
                self.answered.set()

    class Answering(Honest):
        def __init__(self) -> None:
            super().__init__("pair-b")
            self.due = 0.0
            self.latencies_ms: list[float] = []

        def numbered(self, origin: str, number: int) -> None:
            if origin == "pair-a":
                self.latencies_ms.append(round(1000 * (time.perf_counter() - self.due), 3))
                message = said("direct", "pair-b", to="pair-a", data={"n": number})
                self.transport.write(message)

    def __init__(self) -> None:
        self.asking, self.answering = self.Asking(), self.Answering()
        self.peers: list[Honest] = [self.asking, self.answering]
        self.exchanges = 0
        self.late_ms = 0.0

    async def run(self) -> None:
        asking, answering = self.asking, self.answering
        answering.due = time.perf_counter()
        while True:
            answering.due += EXCHANGE_EVERY_S
            if (early_s := answering.due - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
                self.late_ms = max(self.late_ms, 1000 * (time.perf_counter() - answering.due))
            asking.answered.clear()
            number = self.exchanges
            message = said("direct", "pair-a", to="pair-b", data={"n": number})
            asking.transport.write(message)
            await asking.answered.wait()
            self.exchanges += 1

    def report(self) -> Report:
        latencies, self.answering.latencies_ms = self.answering.latencies_ms, []
        late_ms, self.late_ms = self.late_ms, 0.0
        return {
            **seen_by(self.peers),
            "exchanges": self.exchanges,
            "latencies_ms": latencies,
            "late_ms": late_ms,
            "waiting_ms": max(0.0, 1000 * (time.perf_counter() - self.answering.due)),
        }


class Crowd:
    """Ten peers and two slow readers, all of whom one of the ten talks to."""

    def __init__(self) -> None:
        slow = [Honest(f"slow-{n}", bytes_per_s=SLOW_BYTES_PER_S) for n in range(2)]
        self.speaker = Honest("speaker")
        self.peers = [self.speaker, *(Honest(f"honest-{n}") for n in range(9)), *slow]
        self.spoken = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(BROADCAST_EVERY_S)
            self.spoken += 1
            message = said("broadcast", "speaker", data={"n": self.spoken})
            self.speaker.transport.write(message)

    def report(self) -> Report:
        heard = [peer.numbers.get("speaker", 0) for peer in self.peers[1:]]
        return {**seen_by(self.peers), "spoken": self.spoken, "heard": min(heard)}


def seen_by(peers: list[Honest]) -> Report:
    return {
        "exchanges": 0,
        "latencies_ms": [],
        "late_ms": 0.0,
        "waiting_ms": 0.0,
        "starved_ms": starved_ms(),
        "spoken": 0,
        "heard": 0,
        "faults": [fault for peer in peers for fault in peer.faults][:20],
        "received_bytes": max(peer.received_bytes for peer in peers),
        "foreign_presences": max(peer.foreign_presences for peer in peers),
        "foreign_answers": sum(peer.foreign_answers for peer in peers),
    }


_delays_ms: deque[float] = deque([0.0], maxlen=10)
"""How long this process had waited for a core, every 0.1 s."""


def delay_ms() -> float:
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e6


def starved_ms() -> float:
    return delay_ms() - _delays_ms[0]


async def watch_cores() -> None:
    while True:
        _delays_ms.append(delay_ms())
        await asyncio.sleep(0.1)


async def main(part: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    group = Pair() if part == "pair" else Crowd()
    for peer in group.peers:
        raw = socket.socket()
        if peer.peer.startswith("slow"):  # or the kernel reads megabytes for it
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        await loop.create_connection(lambda peer=peer: peer, sock=raw)  # type: ignore[misc]
        await peer.present.wait()
    beating = [asyncio.create_task(peer.beat()) for peer in group.peers]
    running = asyncio.create_task(group.run())
    watching = asyncio.create_task(watch_cores())
    while line := await asyncio.to_thread(sys.stdin.readline):
        if running.done():
            running.result()
        print(json.dumps(group.report()), flush=True)  # noqa: T201 (it answers there)
        assert line
    for task in (running, watching, *beating):
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
