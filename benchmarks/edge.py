"""Twenty agents stream to one peer through the stand-in for AgentCore's edge.

    python -m benchmarks.edge [--agents 20] [--rate 100] [--seconds 10]

Real sockets, a real relay process, the Python clients of this project, and in between tests/edge,
which counts frames and would close a connection above 250 a second. Prints one JSON object:
messages, the most frames in any second of any connection by direction, the largest frame, and how
long a message took from `send` to the iteration of the receiver (milliseconds; all clocks are this
process's). Exit code 1 if anything was lost, doubled or out of order, or a connection had to be
made again.
"""

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable

import anyio

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
        traffic = edge.traffic
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second of each agent")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    result = anyio.run(main, options.agents, options.rate, options.seconds)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.exit(not result["whole_and_in_order"] or result["connections"] != options.agents + 1)
