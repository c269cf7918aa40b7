"""What a federation costs: python -m benchmarks.federation [--rounds N] [--seconds S]

The same load goes to one relay without a backplane (`alone`), and to federations of one, two and
three nodes over a nats-server of this machine. The relays and the server share one core, and
loadgen has the other one. So figures per second of CPU time can be compared, and latencies are
those of a machine that is too small.

`deliveries`: per second of CPU time of all relays together (not of nats-server, whose part of the
core is `nats`). `p50` and `p99`: milliseconds from a peer to a peer.

Then, in this process alone: what a message costs a node before it is appended (`author`) and after
it has been read (`reader`), with nobody who receives it, in microseconds of CPU time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.run import (
    BUILD,
    LOADGEN,
    LOADGEN_CORE,
    compile_loadgen,
    process_cpu_s,
    relay_command,
    running,
    start_on,
    stop,
    wait_until_quiet,
)
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.federation.node import Node
from protocol.mesh.federation.records import Entry
from protocol.mesh.federation.timing import Timing
from tests.worlds.ports import free_port

ROOT: Final = Path(__file__).parents[1]
SCENARIOS: Final = {
    "fan-10x100": "--scenario closed --peers 110 --senders 10 --window 32",
    "fan-10x1000": "--scenario closed --peers 1010 --senders 10 --window 32",
    "steady-100": "--scenario open --peers 110 --senders 10 --rate 80",
    # So little that no core is busy.
    "calm-100": "--scenario open --peers 110 --senders 10 --rate 20",
    "pingpong-50": "--scenario pingpong --peers 100",
}
SIZES: Final = (0, 1, 2, 3)
"""How many nodes. 0: a relay without a backplane."""


def joined(port: int, nodes: int) -> None:
    """Wait until so many take part there."""
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping") as answer:
            stands = json.load(answer)["federation"]
        if stands["standing"] == "joined" and stands["nodes"] == nodes:
            return
        time.sleep(0.1)


def measure(nodes: int, options: str, seconds: float, directory: Path) -> dict[str, Any]:
    """One run of one scenario."""
    with ExitStack() as stack:
        more: list[str] = []
        nats: subprocess.Popen[str] | None = None
        if nodes:
            port = free_port()
            program = str(Path(sys.executable).parent / "nats-server")
            command = [program, "-js", "-sd", str(directory), "-a", "127.0.0.1", "-p", str(port)]
            nats = stack.enter_context(running(command, port, directory / "nats.log"))
            more = ["--backplane", f"nats://127.0.0.1:{port}"]
        ports = [free_port() for _ in range(max(1, nodes))]
        relays = []
        for one in ports:
            log = BUILD / f"node-{one}.log"
            where = argparse.Namespace(python=sys.executable, relay=str(ROOT))
            command = [*relay_command(where, one), *more]
            relays.append(stack.enter_context(running(command, one, log)))
        if nodes:
            joined(ports[-1], nodes)
        command = [str(LOADGEN), "--port", ",".join(map(str, ports)), "--seconds", str(seconds)]
        command += ["--server-pid", ",".join(str(its.pid) for its in relays), "--warmup", "1"]
        command += ["--timeout", "120", *options.split()]
        before = process_cpu_s(nats.pid) if nats is not None else 0.0
        loadgen = start_on(LOADGEN_CORE, command, stdout=subprocess.PIPE)
        try:
            line, _ = loadgen.communicate(timeout=300)
        finally:
            stop(loadgen)
        result: dict[str, Any] = json.loads(line)
        if not result["ok"]:
            raise SystemExit(f"{nodes} nodes, {options}: {result['violations']}")
        spent = process_cpu_s(nats.pid) - before if nats is not None else 0.0
        result |= {f"{part}_ms": its / 1000 for part, its in result["latency_us"].items()}
        result["nats"] = spent / (seconds + 1)
        return result


def in_process(count: int = 20_000, a_round: int = 32) -> tuple[float, float]:
    """What a message costs its author and another node, in microseconds of CPU time."""
    now = Instant(1000.0, 1_700_000_000_000)
    limits = Limits(messages_per_s=10**6, messages_burst=10**6)
    entries: list[Entry] = []

    def append(node: Node) -> None:
        for data in node.take(now, 2**30):
            entries.append(Entry(len(entries) + 1, now.wall_ms / 1000, data))

    author = Node(1, limits, Timing(window_bytes=2**30), now)
    author.reached("log", 0, now)
    append(author)
    author.read(entries, now)
    reader = Node(2, limits, Timing(), now)
    reader.reached("log", len(entries), now)
    append(reader)
    author.read(entries, now)
    append(author)
    for _ in range(3):
        for node in (author, reader):
            node.read(entries, now)
            append(node)
    mesh = author.mesh("m")
    mesh.begin(lambda: None)
    mesh.opened(mesh.first_id + 1, now)
    text = b'{"type":"broadcast","from":"a","data":"%s"}' % (b"x" * 100)
    mesh.received(mesh.first_id + 1, [b'{"type":"presence","from":"a","data":{}}'], now)
    mesh.take_effects()
    append(author)
    author.read(entries, now)
    mesh.take_effects()
    began = time.process_time()
    for _ in range(count // a_round):
        mesh.received(mesh.first_id + 1, [text] * a_round, now)
        mesh.take_effects()
        append(author)
    author.read(entries[author.position :], now)
    mesh.take_effects()
    at_author = time.process_time() - began
    began = time.process_time()
    reader.read(entries[reader.position :], now)
    at_reader = time.process_time() - began
    assert reader.view.digest() == author.view.digest()
    return 1e6 * at_author / count, 1e6 * at_reader / count


def row(name: str, nodes: int, results: Sequence[dict[str, Any]]) -> str:
    def middle(key: str) -> float:
        return statistics.median(float(result[key]) for result in results)

    who = "alone" if nodes == 0 else f"{nodes} nodes" if nodes > 1 else "1 node"
    deliveries, nats = middle("deliveries_per_cpu_s") / 1e6, middle("nats")
    return (
        f"| {name} | {who} | {deliveries:.2f} M | {nats:.2f} | "
        f"{middle('p50_ms'):.2f} | {middle('p99_ms'):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    chosen = parser.parse_args()
    compile_loadgen()
    names = chosen.scenarios.split(",")
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(chosen.rounds):
        for name in names:
            for nodes in SIZES:
                wait_until_quiet(10)
                with tempfile.TemporaryDirectory() as directory:
                    result = measure(nodes, SCENARIOS[name], chosen.seconds, Path(directory))
                results.setdefault((name, nodes), []).append(result)
    print("| scenario | relays | deliveries | nats | p50 (ms) | p99 (ms) |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    for (name, nodes), found in sorted(results.items()):
        print(row(name, nodes, found))  # noqa: T201
    costs = [in_process() for _ in range(5)]
    author, reader = (statistics.median(cost[n] for cost in costs) for n in (0, 1))
    print(f"\na message costs its author {author:.1f} us, and a reader {reader:.1f} us")  # noqa: T201


if __name__ == "__main__":
    main()
