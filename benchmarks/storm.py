"""How soon everybody has what it missed, when the network of all was gone at once.

    python -m benchmarks.storm [--peers 1000] [--talkers 10] [--rate 5] [--away 5] [--processes 2]

A real relay process (`relay.py`), and in one mesh so many peers that ask to come back (rule 19), as
plain sockets in some processes of their own. Others talk all the time: each of `--talkers` says
`--rate` messages of `--size` bytes a second to everyone, and every tenth of them is a direct to one
of the peers instead. Then all sockets of the peers are reset, and `--away` seconds later all of
them connect at once, and go on.

Prints one line of JSON: when after that the first, the median and the last peer had everything
that had been said until it was back; how many messages each had missed; how many were lost, came
twice or in another order; what the relay's process holds (resident, MiB) before the cut and at most
until the end; and what everything takes of the processors meanwhile. The exit code is 1 if a peer
was refused, a message was lost or doubled, or the last peer was not back within `--within` (5).

All of it shares one machine: what the peers read, they look at when the measurement is over.
"""

import argparse
import asyncio
import collections
import json
import logging
import multiprocessing
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import attrs

from benchmarks.back import answered, cpu_s, start
from tests.attackers import wire
from tests.worlds.plain_sockets import Socket, connected
from tests.worlds.ports import free_port

HEARTBEAT_S: Final = 10.0
DIRECT_EVERY: Final = 10
QUIET_S: Final = 1.0
"""Nothing has arrived for so long: nothing more does."""


@attrs.define(eq=False)
class Peer:
    """One that is cut. `received`, `last`: as rule 19 counts."""

    id: str
    first: Socket
    resume: dict[str, Any] = attrs.Factory(dict)
    received: int = 0
    last: bytes = b""
    second: Socket | None = None

    def count(self) -> None:
        """What has arrived on the first socket."""
        for _, text in self.first.messages():
            if self.resume:
                self.received, self.last = self.received + 1, text
            else:
                self.resume = json.loads(text)["data"]["resume"]

    def question(self) -> bytes:
        """With which it comes back."""
        ask = {name: self.resume[name] for name in ("token", "epoch")}
        ask |= {"received": self.received, "crc": crc32(self.last)}
        return wire.said("capabilities", data={"resume": ask})

    def story(self) -> dict[str, Any]:
        """What it has heard, on both sockets, and when on the second."""
        assert self.second is not None
        heard = [said for _, text in self.first.messages() if (said := _said(text))]
        again = list(self.second.messages())
        if not again:
            return {"id": self.id, "resumed": False, "reason": "no answer"}
        answered_at, answer = again[0]
        resume = json.loads(answer)["data"].get("resume", {})
        news = [(*said, at) for at, text in again[1:] if (said := _said(text))]
        return {
            "id": self.id,
            "resumed": resume.get("resumed") is True,
            "reason": resume.get("reason"),
            "answered_at": answered_at,
            "heard": heard,
            "news": news,
        }


def _said(text: bytes) -> tuple[str, int] | None:
    """Who of the talkers has said this, and its number."""
    if b'"n"' not in text:
        return None
    message = json.loads(text)
    return message["from"], message["n"]


async def beat(sockets: list[Socket]) -> None:
    """Heartbeats on all of them."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        for each in sockets:
            each.transport.write(wire.said("heartbeat"))


async def peers(port: int, ids: list[str], tell: Connection) -> None:
    """Those of one process, as they are told."""

    async def told() -> Any:
        return await asyncio.to_thread(tell.recv)

    mine: list[Peer] = []
    ask = wire.said("capabilities", data={"resume": {"seconds": 20}})
    for id in ids:
        presence = wire.presence(id, [f"agent of {id}"])
        mine.append(Peer(id, await connected(port, [ask, presence])))
    sockets = [peer.first for peer in mine]
    beats = asyncio.create_task(beat(sockets))
    tell.send("joined")
    while not all(each.has_heard for each in sockets):
        await asyncio.sleep(0.05)
    tell.send("listening")
    await told()
    for peer in mine:  # what a socket has not read is lost with it
        peer.first.reset()
    tell.send(time.monotonic())
    sockets.clear()
    for peer in mine:
        peer.count()
    await told()
    tell.send(time.monotonic())
    seconds = await asyncio.gather(*(connected(port, [peer.question()]) for peer in mine))
    for peer, second in zip(mine, seconds, strict=True):
        peer.second = second
    sockets += seconds
    await told()
    while time.monotonic() - max(each.reads[-1][0] for each in seconds) < QUIET_S:
        await asyncio.sleep(0.1)
    beats.cancel()
    tell.send([peer.story() for peer in mine])


async def talk(port: int, given: argparse.Namespace, tell: Connection) -> None:
    """Talkers, in one process: they talk until they are told to end."""
    said: dict[str, list[tuple[float, str | None]]] = {}
    ends = asyncio.Event()
    waits = asyncio.create_task(asyncio.to_thread(tell.recv))
    waits.add_done_callback(lambda _: ends.set())

    async def one(id: str, offset_s: float) -> None:
        mouth = await connected(port, [wire.presence(id)])
        began, mine = time.monotonic() + offset_s, said.setdefault(id, [])
        while not ends.is_set():
            await asyncio.sleep(max(0.0, began + len(mine) / given.rate - time.monotonic()))
            n = len(mine)
            to = None
            if n % DIRECT_EVERY == DIRECT_EVERY - 1:
                to = f"peer {(n * 7919 + int(offset_s * 1e6)) % given.peers}"
            fields = {"n": n, "data": "x" * given.size} | ({"to": to} if to else {})
            mine.append((time.monotonic(), to))
            mouth.transport.write(wire.said("direct" if to else "stream", id, **fields))
            mouth.reads.clear()

    each = (one(f"talker {n}", n / given.talkers / given.rate) for n in range(given.talkers))
    await asyncio.gather(*each)
    tell.send(said)


def process(what: Any, *arguments: Any) -> None:
    """A process of peers, or of talkers."""
    logging.disable()
    asyncio.run(what(*arguments))


# The measurement ----------------------------------------------------------------------------------


class Memory(threading.Thread):
    """Looks how much a process holds, ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.most = 0.0
        self.start()

    def now(self) -> float:
        """Resident, in MiB."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def run(self) -> None:
        while True:
            try:
                self.most = max(self.most, self.now())
            except OSError:
                return
            time.sleep(0.1)


def judge(
    stories: list[dict[str, Any]],
    said: dict[str, list[tuple[float, str | None]]],
    returned_at: float,
) -> dict[str, Any]:
    """What became of everything that was said."""
    faults: collections.Counter[str] = collections.Counter()
    back, missed = [], []
    for story in stories:
        if not story["resumed"]:
            faults[f"refused: {story['reason']}"] += 1
            continue
        id, back_at = story["id"], story["answered_at"]
        arrived = {(talker, n): at for talker, n, at in story["news"]}
        missed.append(sum(said[talker][n][0] < back_at for talker, n in arrived))
        for talker, its in said.items():
            heard = [n for who, n in story["heard"] if who == talker]
            heard += [n for who, n, _ in story["news"] if who == talker]
            first = heard[0] if heard else 0
            meant = [n for n, (_, to) in enumerate(its) if n >= first and to in (None, id)]
            faults["lost"] += len(set(meant) - set(heard))
            faults["doubled"] += len(heard) - len(set(heard))
            faults["disordered"] += heard != sorted(heard)
            faults["strange"] += len(set(heard) - set(meant))
            for n, (at, to) in enumerate(its):
                if at < story["answered_at"] and to in (None, id) and (talker, n) in arrived:
                    back_at = max(back_at, arrived[talker, n])
        back.append(back_at - returned_at)
    back.sort()
    return {
        "back": len(back),
        "first_s": round(back[0], 2) if back else None,
        "median_s": round(back[len(back) // 2], 2) if back else None,
        "last_s": round(back[-1], 2) if back else None,
        "missed_by_each": sorted(missed)[len(missed) // 2] if missed else None,
        "faults": {name: count for name, count in faults.items() if count},
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One storm."""
    port, context = free_port(), multiprocessing.get_context("spawn")
    relay = start(port)
    programs: list[Any] = []
    pipes: list[Connection] = []

    def begin(*arguments: Any) -> Connection:
        here, there = context.Pipe()
        program = context.Process(target=process, args=(*arguments, there))
        program.start()
        programs.append(program)
        return here

    try:
        answered(port)
        memory = Memory(relay.pid)
        for number in range(given.processes):
            ids = [f"peer {n}" for n in range(number, given.peers, given.processes)]
            pipes.append(begin(peers, port, ids))
        for pipe in pipes:
            pipe.recv()
        talkers = begin(talk, port, given)
        for pipe in pipes:
            pipe.recv()
        time.sleep(2.0)  # all have heard somebody, so all have heard of all
        before = memory.most = memory.now()
        for pipe in pipes:
            pipe.send("cut")
        for pipe in pipes:
            pipe.recv()
        time.sleep(given.away)
        pids = [program.pid for program in programs]
        busy, busy_relay = cpu_s(pids), cpu_s([relay.pid])
        for pipe in pipes:
            pipe.send("come back")
        returned_at = min(pipe.recv() for pipe in pipes)
        time.sleep(given.within)
        busy, busy_relay = cpu_s(pids) - busy, cpu_s([relay.pid]) - busy_relay
        talkers.send("end")
        said = talkers.recv()
        for pipe in pipes:
            pipe.send("tell")
        stories = [story for pipe in pipes for story in pipe.recv()]
    finally:
        for program in programs:
            program.kill()
        relay.kill()
        relay.wait()
    return {
        "peers": given.peers,
        "away_s": given.away,
        **judge(stories, said, returned_at),
        "mib_before": round(before),
        "mib_most": round(memory.most),
        "cpu_s_of_relay": round(busy_relay, 1),
        "cpu_s_of_peers": round(busy, 1),
    }


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--talkers", type=int, default=10)
    parser.add_argument("--rate", type=float, default=5.0, help="messages a second of each talker")
    parser.add_argument("--size", type=int, default=200, help="bytes in `data` of each")
    parser.add_argument("--away", type=float, default=5.0, help="seconds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--within", type=float, default=5.0, help="seconds in which all are back")
    given = parser.parse_args()
    result = measure(given)
    sys.stdout.write(json.dumps(result) + "\n")
    last_s = result["last_s"]
    is_right = last_s is not None and last_s <= given.within
    return 0 if is_right and not result["faults"] and result["back"] == given.peers else 1


if __name__ == "__main__":
    sys.exit(main())
