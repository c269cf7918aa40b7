"""Twenty agents stream to one peer through the stand-in for AgentCore's edge.

    python -m benchmarks.edge [--agents 20] [--rate 100] [--seconds 10]

Real sockets, a real relay process, the Python clients of this project, and in between tests/edge,
which counts frames and would close a connection above 250 a second. Prints one JSON object:
messages, the most frames in any second of any connection by direction, the largest frame, and how
long a message took from `send` to the iteration of the receiver (milliseconds; all clocks are this
process's). Exit code 1 if anything was lost, doubled or out of order, or a connection had to be
made again.

    python -m benchmarks.edge --bystander [--agents 10] [--rate 50] [--seconds 90]

Here the agents answer somebody else, to everyone, and the peer takes no arrays, as existing pages.
Twice a second somebody says the time to all; once a second the peer asks a command of its own.
Prints how old the times were when they came, how many answers of each kind came, and with which
code the peer was closed, and when (null: it was not). Exit code 1 if it was closed, or an answer to
its own commands was missing.
"""

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import websockets
from websockets.asyncio.client import ClientConnection, connect

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Address, websocket
from protocol.session import session_id
from tests.edge import Edge, HostedRuntime, Issuer


def percentile(values: list[float], part: float) -> float:
    """The value below which `part` of all are."""
    return sorted(values)[min(len(values) - 1, round(part * len(values)))]


async def speak(agent: Peer, rate: float, count: int) -> None:
    """So many numbered chunks, evenly spaced, each with the time it was sent."""
    began = time.perf_counter()
    for number in range(count):
        await anyio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        await agent.direct(
            "reader", {"n": number, "at": time.perf_counter(), "chunk": "word " * 20}
        )


async def main(agents: int, rate: float, seconds: float) -> dict[str, object]:
    """The measurement."""
    issuer, runtime = Issuer(), HostedRuntime()
    count = round(rate * seconds)
    async with Edge([runtime], issuer.get) as edge:
        keys = issuer.issue()

        async def address() -> Address:
            return Address(edge.url_for(keys, session_id("benchmark")))

        async def with_agents(number: int, then: Callable[[], Awaitable[None]]) -> None:
            if number == 0:
                await then()
                return
            async with join(websocket(address), f"agent {number}") as agent:
                speakers.append(agent)
                await with_agents(number - 1, then)

        speakers: list[Peer] = []
        latencies: list[float] = []
        numbers: dict[str | None, list[int]] = {}

        async def run() -> None:
            async with anyio.create_task_group() as tasks:
                for speaker in speakers:
                    tasks.start_soon(speak, speaker, rate, count)
                async for message in reader:
                    if message.type == "direct":
                        latencies.append(time.perf_counter() - message.data["at"])
                        numbers.setdefault(message.origin, []).append(message.data["n"])
                        if len(latencies) == agents * count:
                            break

        async with join(websocket(address), "reader") as reader:
            with anyio.fail_after(seconds * 3 + 30):
                await with_agents(agents, run)
        traffic = [its for its in edge.traffic if its.up.frames]  # not a second opening, hedged
        right = all(seen == list(range(count)) for seen in numbers.values())
        return {
            "messages": len(latencies),
            "messages_per_s": round(len(latencies) / seconds),
            "connections": len(traffic),
            "whole_and_in_order": right and len(numbers) == agents,
            "frames_per_s_max_down": max(t.down.frames_per_s_max for t in traffic),
            "frames_per_s_max_up": max(t.up.frames_per_s_max for t in traffic),
            "frame_bytes_max": max(
                max(t.down.frame_bytes_max, t.up.frame_bytes_max) for t in traffic
            ),
            "latency_ms": {
                name: round(1000 * percentile(latencies, part), 1)
                for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
        }


async def hello(command: Command) -> AsyncIterator[str]:
    """Three chunks."""
    for chunk in "one", "two", "three":
        yield chunk


class Bystander:
    """A peer without arrays, and what it notes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.began = time.perf_counter()
        self.ages: list[float] = []
        self.others = 0
        self.own: dict[str, int] = {}
        self.told = 0
        self.closed: dict[str, Any] | None = None

    async def read(self) -> None:
        """Note what comes, until the end."""
        try:
            async for text in self.socket:
                self._note(json.loads(text))
        except websockets.ConnectionClosed:
            pass
        after_s = round(time.perf_counter() - self.began, 1)
        self.closed = {"code": self.socket.close_code, "after_s": after_s}
        self.closed["reason"] = self.socket.close_reason

    def _note(self, message: dict[str, Any]) -> None:
        if message["type"] == "broadcast":
            self.ages.append(time.perf_counter() - message["data"]["at"])
        elif message["type"] == "stream" and message["turnId"] in self.own:
            self.own[message["turnId"]] += 1
        elif message["type"] == "stream":
            self.others += 1
        elif message["type"] == "error":
            self.told += 1

    async def ask(self, seconds: int) -> None:
        """One command a second. None in the last seconds, so that all answers can come."""
        for number in range(seconds - 3):
            await anyio.sleep(1.0)
            turn = f"own {number}"
            self.own[turn] = 0
            said = {"type": "direct", "to": "worker", "turnId": turn, "data": {"command": "hello"}}
            try:
                await self.socket.send(json.dumps({"from": "bystander", **said}))
            except websockets.ConnectionClosed:
                return


async def answer(agent: Peer, rate: float, seconds: float) -> None:
    """Chunks for somebody else, to everyone."""
    began = time.perf_counter()
    for number in range(round(rate * seconds)):
        await anyio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        await agent.stream("of another", "word " * 20, number)


async def tell_the_time(peer: Peer) -> None:
    """Twice a second, to everyone."""
    while True:
        await peer.broadcast({"at": time.perf_counter()})
        await anyio.sleep(0.5)


async def beside(agents: int, rate: float, seconds: float) -> dict[str, object]:
    """The measurement with a bystander."""
    issuer, runtime = Issuer(), HostedRuntime()
    async with Edge([runtime], issuer.get) as edge, AsyncExitStack() as stack:
        keys = issuer.issue()

        async def address() -> Address:
            return Address(edge.url_for(keys, session_id("benchmark")))

        peers = [
            await stack.enter_async_context(join(websocket(address), f"agent {n}"))
            for n in range(agents)
        ]
        worker = join(websocket(address), "worker", agents=["worker"])
        worker_peer = await stack.enter_async_context(worker)
        clock = await stack.enter_async_context(join(websocket(address), "clock"))
        url = (await address()).url
        socket = await stack.enter_async_context(connect(url, compression=None, max_queue=None))
        await socket.send('{"type":"presence","from":"bystander"}')
        bystander = Bystander(socket)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bystander.read)
            tasks.start_soon(worker_peer.serve, hello)
            tasks.start_soon(tell_the_time, clock)
            tasks.start_soon(bystander.ask, round(seconds))
            async with anyio.create_task_group() as speaking:
                for peer in peers:
                    speaking.start_soon(answer, peer, rate, seconds)
            tasks.cancel_scope.cancel()
        ages = bystander.ages
        return {
            "said_per_s": round(agents * rate),
            "closed": bystander.closed,
            "times": len(ages),
            "age_s": {
                name: round(percentile(ages, part), 2)
                for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
            "answers_to_others": bystander.others,
            "own_commands": len(bystander.own),
            "own_answers_whole": sum(chunks == 3 for chunks in bystander.own.values()),
            "told": bystander.told,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bystander", action="store_true", help="a peer without arrays listens")
    parser.add_argument("--agents", type=int)
    parser.add_argument("--rate", type=float, help="messages a second of each agent")
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    if options.bystander:
        agents, rate, seconds = options.agents or 10, options.rate or 50, options.seconds or 90
        seen = anyio.run(beside, agents, rate, seconds)
        sys.stdout.write(json.dumps(seen, indent=2) + "\n")
        is_whole = seen["own_commands"] == seen["own_answers_whole"]
        sys.exit(seen["closed"] is not None or not is_whole)
    options.agents, options.rate = options.agents or 20, options.rate or 100.0
    options.seconds = options.seconds or 10.0
    result = anyio.run(main, options.agents, options.rate, options.seconds)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.exit(not result["whole_and_in_order"] or result["connections"] != options.agents + 1)
