"""`agi-mesh load`: a load test of a relay, with peers as programs have them.

Every peer says something to everyone, so many times a second. Each message has a number and the
time, so that every receiver can tell how late it is, and whether one is missing, doubled or in the
wrong place. All peers are in this process: where it has no time left, the figures are its own. Then
`busy` is near 1.
"""

import math
import time
from collections import Counter, defaultdict
from typing import Any, Final

import anyio
import attrs
import click
from anyio.abc import TaskStatus

from actors.cli import shown
from actors.cli.hearing import heard
from actors.cli.place import Place, options
from actors.cli.running import run
from actors.client.peer import Peer
from protocol.member.errors import RelayError

TYPE: Final = "load"


@click.command()
@options
@click.option("--peers", default=10, show_default=True, type=click.IntRange(2))
@click.option(
    "--rate",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Messages a second, of each peer.",
)
@click.option(
    "--size",
    default=200,
    show_default=True,
    type=click.IntRange(0, 500_000),
    help="Characters in a message.",
)
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def load(*, place: Place, peers: int, rate: float, size: int, seconds: float, as_json: bool) -> int:
    """Load a relay, and see how late messages are, and whether all arrive, once and in order.

    The exit code is 1 if one is missing, doubled or in the wrong place. Use a mesh of its own
    (--mesh): every peer there hears all of this.
    """
    what = _Load(peers, rate, size, seconds)

    async def work() -> int:
        found = await _load(place, what)
        facts = found.facts()
        if as_json:
            shown.say_json(facts)
        else:
            rows = [(name, str(value)) for name, value in facts.items()]
            shown.say(shown.table(("", place.shown), rows))
        return 0 if found.is_exact else 1

    return run(work)


@attrs.frozen
class _Load:
    """So many peers, messages a second of each, characters, seconds."""

    peers: int
    rate: float
    size: int
    seconds: float


@attrs.define
class Found:
    """What all receivers have found. `late_ms`: how many messages were so late, to three digits, so
    that a long test needs no more memory than a short one."""

    said: int = 0
    expected: int = 0
    received: int = 0
    doubled: int = 0
    disordered: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    late_ms: Counter[float] = attrs.Factory(Counter)

    @property
    def is_exact(self) -> bool:
        """Every message has reached all others, once, in the order of its sender."""
        return self.received == self.expected and not self.doubled and not self.disordered

    def facts(self) -> dict[str, Any]:
        """For people and programs."""
        per_s = self.received / self.seconds if self.seconds else 0.0
        return {
            "said": self.said,
            "received": self.received,
            "missing": self.expected - self.received,
            "doubled": self.doubled,
            "disordered": self.disordered,
            "received_per_s": round(per_s),
            "late_ms_p50": percentile(self.late_ms, 0.5),
            "late_ms_p90": percentile(self.late_ms, 0.9),
            "late_ms_p99": percentile(self.late_ms, 0.99),
            "late_ms_max": percentile(self.late_ms, 1.0),
            "busy": round(self.busy, 2),
        }


def percentile(values: Counter[float], part: float) -> float | None:
    """The least value that so many of the (counted) values do not exceed.

    >>> percentile(Counter([4.0, 1.0, 3.0, 2.0]), 0.5), percentile(Counter(), 0.5)
    (2.0, None)
    """
    left = math.ceil(part * values.total())
    for value in sorted(values):
        left -= values[value]
        if left <= 0:
            return value
    return None


async def _load(place: Place, what: _Load) -> Found:
    count = what.peers
    found, ids = Found(), [f"{place.id}-{number}" for number in range(count)]
    async with anyio.create_task_group() as tasks:
        peers = []
        for id in ids:
            peers.append(await tasks.start(_receive, place, id, set(ids) - {id}, found))
            shown.progress(f"{len(peers)} of {count} peers are there")
        began, cpu_s = anyio.current_time(), time.process_time()
        async with anyio.create_task_group() as senders:
            for number, peer in enumerate(peers):
                begin = began + number / count / what.rate
                senders.start_soon(_say, peer, what, begin, began + what.seconds, found)
        found.expected = found.said * (count - 1)
        found.seconds = anyio.current_time() - began
        with anyio.move_on_after(5.0):  # what is under way
            while found.received + found.doubled < found.expected:
                await anyio.sleep(0.01)
        found.busy = (time.process_time() - cpu_s) / (anyio.current_time() - began)
        tasks.cancel_scope.cancel()
    return found


async def _say(peer: Peer, what: _Load, begin: float, end: float, found: Found) -> None:
    for number in range(math.ceil((end - begin) * what.rate)):
        await anyio.sleep_until(begin + number / what.rate)
        await peer.send(TYPE, {"n": number, "at": time.monotonic_ns(), "x": "x" * what.size})
        found.said += 1


async def _receive(
    place: Place, id: str, others: set[str], found: Found, *, task_status: TaskStatus[Peer]
) -> None:
    next_of: defaultdict[str, int] = defaultdict(int)
    async with place.join(id=id, subscribe={"types": [TYPE]}, program="agi-mesh load") as peer:
        task_status.started(peer)
        async for message in heard(peer):
            if isinstance(message, RelayError):
                continue  # the numbers tell
            origin = message.origin
            if message.type != TYPE or origin not in others:
                continue
            number, at = message.word("n"), message.word("at")
            if number < next_of[origin]:
                found.doubled += 1
                continue
            found.disordered += number > next_of[origin]
            next_of[origin] = number + 1
            found.received += 1
            found.late_ms[float(f"{(time.monotonic_ns() - at) / 1e6:.3g}")] += 1
