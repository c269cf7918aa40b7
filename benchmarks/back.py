"""How soon everybody is back after the relay was killed.

    python -m benchmarks.back [--peers 1000] [--meshes 1] [--away 2,20,600] [--processes 8]

A real relay process (`relay.py`), and so many real peers in Python, spread over some processes of
their own. For each time in `--away` (seconds) the relay is killed (SIGKILL), is away for so long,
and is started again at the same port. Prints one line of JSON for each: when after the relay
answered HTTP again the first, the median and the last peer was present, and the most peers that
came within a tenth of a second. The exit code is 1 if a peer was not back within `--within` (5).

All of it shares one machine, and a peer that joins hears of everyone: with a thousand peers that
is a million presences to read, in Python. What the peers' processes take of the processors is
shown, too (`busy`, in processors): where that is all that the machine has, the benchmark measures
the machine. With `--meshes 20` a peer hears of fifty others.
"""

import argparse
import collections
import functools
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from actors.client.peer import Peer, join
from protocol.member.lifecycle import MemberState
from tests.worlds.ports import free_port

ROOT = Path(__file__).parent.parent
IN_USE = (MemberState.PRESENT, MemberState.RENEWING, MemberState.SWITCHING)


# The peers ----------------------------------------------------------------------------------------


async def watch(peer: Peer, tell: Connection) -> None:
    """Say whenever the peer has come or gone, and when."""
    was_here = False
    while True:
        is_here = peer.state in IN_USE
        if is_here is not was_here:
            tell.send((peer.id, is_here, time.monotonic()))
            was_here = is_here
        await peer._driver.changed.wait()


async def peers(url: str, meshes: int, first: int, count: int, tell: Connection) -> None:
    """So many peers, until this process is told to end."""

    async def one(number: int) -> None:
        where = f"{url}?mesh={number % meshes}"
        async with join(where, f"peer {number}", agents=[f"a{number}"], within_s=300) as peer:
            await watch(peer, tell)

    async with anyio.create_task_group() as tasks:
        for number in range(first, first + count):
            tasks.start_soon(one, number)
        await anyio.to_thread.run_sync(tell.poll, None)
        tasks.cancel_scope.cancel()


def process(url: str, meshes: int, first: int, count: int, tell: Connection) -> None:
    """A process of peers. Their log is of no interest, and the relay, which has a machine of its
    own elsewhere, need not wait for them."""
    logging.disable()
    os.nice(10)
    anyio.run(functools.partial(peers, url, meshes, first, count, tell))


# The relay ----------------------------------------------------------------------------------------


def start(port: int) -> "subprocess.Popen[bytes]":
    """The relay at this port, which may not answer yet."""
    command = [sys.executable, str(ROOT / "relay.py"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "RELAY_LOG_LEVEL": "error"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def answered(port: int) -> float:
    """When the relay answers."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=30):
                return time.monotonic()
        except OSError:
            time.sleep(0.01)


# The measurement ----------------------------------------------------------------------------------


class Watch:
    """Who is here, as the processes tell it. `came`: when each came last."""

    def __init__(self, tells: list[Connection]) -> None:
        self._tells = tells
        self.came: dict[str, float] = {}

    def until(self, count: int, patience_s: float = 600.0) -> bool:
        """Listen until so many are here."""
        end = time.monotonic() + patience_s
        while len(self.came) != count:
            ready = wait(self._tells, max(0.0, end - time.monotonic()))
            if not ready:
                return False
            for tell in ready:
                assert isinstance(tell, Connection)
                id, is_here, at = tell.recv()
                if is_here:
                    self.came[id] = at
                else:
                    self.came.pop(id, None)
        return True


def cpu_s(pids: list[int]) -> float:
    """What these processes have taken of the processors (seconds)."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / ticks


def measure(port: int, count: int, aways: list[float], watch: Watch, pids: list[int]) -> Any:
    """One result for each time away."""
    relay = start(port)
    try:
        assert watch.until(count), f"only {len(watch.came)} peers have come at all"
        for away_s in aways:
            time.sleep(2.0)  # everything is quiet again
            relay.send_signal(signal.SIGKILL)
            relay.wait()
            assert watch.until(0), "some do not notice that the relay is gone"
            time.sleep(away_s)
            relay = start(port)
            back_at, busy = answered(port), cpu_s(pids)
            all_back = watch.until(count, 120.0)
            came = sorted(at - back_at for at in watch.came.values())
            crowds = collections.Counter(int(at * 10) for at in came)
            yield {
                "peers": count,
                "away_s": away_s,
                "back": len(came),
                "first_s": round(came[0], 2),
                "median_s": round(came[len(came) // 2], 2),
                "last_s": round(came[-1], 2) if all_back else None,
                "most_in_100_ms": max(crowds.values()),
                "busy": round((cpu_s(pids) - busy) / max(0.1, came[-1]), 1),
            }
    finally:
        relay.kill()
        relay.wait()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.back",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--meshes", type=int, default=1)
    parser.add_argument("--away", default="2,20,600", help="seconds, separated by commas")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--within", type=float, default=5.0, help="seconds in which all are back")
    given = parser.parse_args()
    port, count = free_port(), given.peers
    url, context = f"ws://127.0.0.1:{port}/ws", multiprocessing.get_context("spawn")
    tells, programs = [], []
    for number in range(given.processes):
        first, last = (count * n // given.processes for n in (number, number + 1))
        here, there = context.Pipe()
        program = context.Process(
            target=process, args=(url, given.meshes, first, last - first, there)
        )
        program.start()
        tells.append(here)
        programs.append(program)
    is_right = True
    try:
        aways = [float(one) for one in given.away.split(",")]
        pids = [program.pid for program in programs if program.pid is not None]
        for result in measure(port, count, aways, Watch(tells), pids):
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
            last_s = result["last_s"]
            is_right = is_right and last_s is not None and last_s <= given.within
    finally:
        for program in programs:
            program.kill()
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
