"""What a command costs the clients, among many peers.

    python -m benchmarks.asks [--peers 100] [--asks 1000] [--chunks 3]

A real relay process (`relay.py`), and so many peers in Python in this process, each with an agent.
Each asks the next one's agent, which streams so many chunks; all peers ask at once. Prints one line
of JSON for each row, in ms for each command: the CPU time of this process, that is of all peers,
and the CPU time of the relay. In `seconds` it took all commands; on a slow machine the heartbeats
and presences of that time are a part of it.

    answers   direct: to the asker alone, as both clients do; all: to everyone, as existing pages do
    subscribe null: the peers want everything; false: nothing, because they only ask and serve
"""

import argparse
import json
import resource
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from actors.client.command import Command
from actors.client.peer import Peer, Subscribe, join

ROOT = Path(__file__).parent.parent
ROWS: tuple[tuple[str, Subscribe], ...] = (
    ("direct", None),
    ("direct", False),
    ("all", None),
    ("all", False),
)


def cpu_s(pid: int | None = None) -> float:
    """The CPU time (seconds) of this process, or of another one."""
    if pid is None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def answer(chunks: int, command: Command) -> str:
    for number in range(chunks):
        await command.stream(f"chunk {number} of the answer to {command.text}")
    return "done"


async def ask_next(peers: list[Peer], number: int, count: int, answers: str) -> None:
    """So many commands of this peer to the next one, one after the other."""
    fields: dict[str, Any] = {} if answers == "direct" else {"answers": "all"}
    for n in range(count):
        await peers[number].ask(f"agent {(number + 1) % len(peers)}", n, **fields)


async def ask_all(peers: list[Peer], count: int, answers: str) -> None:
    """So many commands of each peer, of all peers at once."""
    async with anyio.create_task_group() as tasks:
        for number in range(len(peers)):
            tasks.start_soon(ask_next, peers, number, count, answers)


async def row(url: str, pid: int, options: argparse.Namespace, how: tuple[str, Subscribe]) -> None:
    answers, subscribe = how
    async with AsyncExitStack() as stack:
        where = f"{url}?mesh={answers}-{subscribe}"
        peers: list[Peer] = []
        for number in range(options.peers):
            agents = [f"agent {number}"]
            peer = join(where, f"peer {number}", agents=agents, subscribe=subscribe)
            peers.append(await stack.enter_async_context(peer))
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(peer.serve, partial(answer, options.chunks))
            await ask_all(peers, 1, answers)  # what asking needs is said now
            await anyio.sleep(1.0)
            each = max(1, options.asks // len(peers))
            began, relay_began, began_at = cpu_s(), cpu_s(pid), time.monotonic()
            await ask_all(peers, each, answers)
            count = each * len(peers)
            facts = {
                "answers": answers,
                "subscribe": subscribe,
                "client_ms": round(1000 * (cpu_s() - began) / count, 3),
                "relay_ms": round(1000 * (cpu_s(pid) - relay_began) / count, 3),
                "seconds": round(time.monotonic() - began_at, 2),
            }
            sys.stdout.write(f"{json.dumps(facts)}\n")
            sys.stdout.flush()
            tasks.cancel_scope.cancel()


async def measure(url: str, pid: int, options: argparse.Namespace) -> None:
    for how in ROWS:
        await row(url, pid, options, how)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--asks", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=3)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "relay.py", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as relay:
        try:
            anyio.run(measure, f"ws://127.0.0.1:{port}/ws", relay.pid, options)
        finally:
            relay.terminate()


if __name__ == "__main__":
    main()
