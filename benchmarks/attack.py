"""What honest peers notice while others attack the relay.

    python -m benchmarks.attack [--attack NAME ...] [--seconds S] [--connections N] [--relay DIR]

Real sockets, a real relay process (a new one for each attack), and the attackers of tests/attackers
in this process, which is the least important one of all. Two peers exchange a direct every 20 ms;
that is the yardstick. Prints a Markdown table, a row for each attack:

- p50, p99, max: milliseconds from when a direct was due until it was there. The first row, `rest`,
  is without an attack.
- own: by how much the pair itself was late to send, at most. If that is much, the machine is busy.
- relay: the part of a core that the relay took.
- memory: the most that it held above what it held at rest, in MiB.
- received: what the crowd's busiest peer received, in MB/s.
- faults: honest peers that were closed, lost a message, or got one twice.

By default an attack has as many connections as in the tests. Exit code 1 if there were faults.
`--cores` pins the relay to core 0 and everything else to core 1, as benchmarks/run.py does.
`--first` (root) lets relay and honest peers run before all else on a machine that has other work.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests import ROOT
from tests.attackers.attacks import ATTACKS, Attack, Run, Target
from tests.attackers.wire import Running
from tests.attackers.world import Outcome, World

HEADINGS: Final = (
    "attack", "row", "connections", "p50 ms", "p99 ms", "max ms", "own ms", "relay", "memory MiB",
    "received MB/s", "faults",
)  # fmt: skip


def rest(target: Target, connections: int, running: Running) -> None:
    """No attack."""
    while running():
        time.sleep(0.05)


def row(attack: Attack, connections: int, outcome: Outcome, rest_bytes: int) -> list[str]:
    waits = outcome.waits_ms

    def percentile(part: float) -> str:
        return f"{waits[min(len(waits) - 1, int(part * len(waits)))]:.1f}" if waits else "-"

    return [
        attack.name,
        attack.row,
        str(connections),
        *(percentile(part) for part in (0.5, 0.99, 1.0)),
        f"{outcome.late_ms:.1f}",
        f"{outcome.cpu_s / outcome.seconds:.2f}",
        f"{(outcome.peak_bytes - rest_bytes) / 2**20:.0f}",
        f"{outcome.received_bytes / outcome.seconds / 1e6:.2f}",
        str(len(outcome.faults)),
    ]


def say(cells: Sequence[str]) -> None:
    """Print one row of the table."""
    print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201 (that is what it is for)


def main() -> int:
    """Measure, print, and say by the exit code whether honest peers were hurt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="one, or several")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, help="instead of what the tests use")
    parser.add_argument("--relay", type=Path, default=ROOT, help="another version's folder")
    parser.add_argument("--cores", action="store_true", help="the relay has a core of its own")
    parser.add_argument("--first", action="store_true", help="relay and honest peers are real-time")
    options = parser.parse_args()
    nothing: Run = rest
    attacks = [Attack("rest", "", nothing, connections=0, is_fixed=True)]
    attacks += [ATTACKS[name] for name in options.attack or ATTACKS]
    os.nice(5)
    is_hurt = False
    say(HEADINGS)
    say(["---"] * len(HEADINGS))
    for attack in attacks:
        connections = attack.connections
        if options.connections is not None and not attack.is_fixed:
            connections = options.connections
        with World(folder=options.relay, comes_first=options.first) as world:
            if options.cores:
                world.pin(0, 1)
            try:
                outcome = world.attack(attack, connections, options.seconds)
            except AssertionError as error:
                is_hurt = True
                say([attack.name, attack.row, str(connections), str(error)])
                continue
            is_hurt |= bool(outcome.faults)
            say(row(attack, connections, outcome, world.rest_bytes))
    return is_hurt


if __name__ == "__main__":
    sys.exit(main())
