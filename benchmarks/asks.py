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
import gc
import json
import sys
import time
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from actors.client.command import Command
from actors.client.peer import Peer, Subscribe, join
from benchmarks.back import answered, cpu_s, start
from tests.worlds.ports import free_port

ROWS: tuple[tuple[str, Subscribe], ...] = (
    ("direct", None),
    ("direct", False),
    ("all", None),
    ("all", False),
)


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


async def serve(peer: Peer, chunks: int, *, task_status: TaskStatus[Peer]) -> None:
    """A peer in a task of its own, as programs have it: inside one another their scopes cost."""
    async with peer:
        task_status.started(peer)
        await peer.serve(partial(answer, chunks))


async def row(url: str, pid: int, options: argparse.Namespace, how: tuple[str, Subscribe]) -> None:
    answers, subscribe = how
    where = f"{url}?mesh={answers}-{subscribe}"
    async with anyio.create_task_group() as tasks:
        peers: list[Peer] = []
        for number in range(options.peers):
            agents = [f"agent {number}"]
            peer = join(where, f"peer {number}", agents=agents, subscribe=subscribe)
            peers.append(await tasks.start(serve, peer, options.chunks))
        await ask_all(peers, 1, answers)  # what asking needs is said now
        await anyio.sleep(1.0)
        gc.freeze()  # a program holds what one peer knows, and need not look through 100 of these
        each = max(1, options.asks // len(peers))
        began, relay_began, began_at = time.process_time(), cpu_s([pid]), time.monotonic()
        await ask_all(peers, each, answers)
        count = each * len(peers)
        facts = {
            "answers": answers,
            "subscribe": subscribe,
            "client_ms": round(1000 * (time.process_time() - began) / count, 3),
            "relay_ms": round(1000 * (cpu_s([pid]) - relay_began) / count, 3),
            "seconds": round(time.monotonic() - began_at, 2),
        }
        sys.stdout.write(f"{json.dumps(facts)}\n")
        sys.stdout.flush()
        gc.unfreeze()
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
    port = free_port()
    with start(port) as relay:
        try:
            answered(port)
            anyio.run(measure, f"ws://127.0.0.1:{port}/ws", relay.pid, options)
        finally:
            relay.terminate()


if __name__ == "__main__":
    main()
