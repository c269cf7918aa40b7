"""What is lost, and what comes twice, when networks fail.

    python -m benchmarks.losses [--messages 1000] [--trouble NAME ...] [--page node|chromium]

A real relay process (`relay.py`), a Python peer and a page (the browser module, in Node or in
Chromium), both behind a TCP proxy that makes the trouble. Each says so many numbered messages to
everyone, evenly spread over the time that the trouble takes. Prints a Markdown table, a row for
each trouble and direction:

- sent: messages that were said.
- lost: how many of these have not arrived.
- told: how many of the lost ones somebody was told of: their sender, that they are in doubt or not
  sent at all; or their receiver, by a gap in their place.
- silent: the other lost ones.
- doubled, late: messages that came twice, or behind a later one.
- resumed: how often the receiver's connection has come back.

Within the window (`resume_s` of the relay, 20 s) nothing may be lost; and beyond, nothing may be
silent. The exit code is 1 if that is not so.
"""

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from actors.client.peer import join
from benchmarks.back import answered, start
from tests.worlds.ports import free_port
from tests.worlds.proxy import Proxy
from tests.worlds.talkers import ChromiumPage, NodePage, Notes, PythonPeer, Talker

ROOT: Final = Path(__file__).parent.parent
MARGIN_S: Final = 4.0
"""Before the trouble, and after it."""
QUIET_S: Final = 8.0
"""The last message has not arrived within so many seconds: it will not."""


# The trouble --------------------------------------------------------------------------------------


@attrs.define
class Stage:
    """What troubles happen to."""

    proxy: Proxy
    port: int
    page: Any
    relay: "subprocess.Popen[bytes]"

    def end(self) -> None:
        """End the relay."""
        self.relay.kill()
        self.relay.wait()


@attrs.frozen
class Trouble:
    """`lasts_s`: how long it takes. `is_covered`: nothing may be lost."""

    does: Callable[[Stage], Awaitable[object]]
    lasts_s: float
    is_covered: bool = True
    only_node: bool = False


CUTS: Final = 10
APART_S: Final = 3.0


async def none(stage: Stage) -> None:
    """Nothing happens."""


async def cuts(stage: Stage) -> None:
    for _ in range(CUTS):
        await stage.proxy.cut()
        await anyio.sleep(APART_S)


async def last_bytes(stage: Stage) -> None:
    for number in range(CUTS):
        stage.proxy.lose(after_bytes=37 * number)
        await anyio.sleep(0.3)
        await stage.proxy.cut()
        await anyio.sleep(APART_S - 0.3)


async def half_open(stage: Stage) -> None:
    for _ in range(CUTS):
        await stage.proxy.cut_clients()
        await anyio.sleep(APART_S)


async def stall(stage: Stage, *, seconds: float) -> None:
    stage.proxy.stall()
    await anyio.sleep(seconds)
    stage.proxy.flow()


async def away(stage: Stage, *, seconds: float) -> None:
    stage.proxy.stall()
    await stage.proxy.cut()
    await anyio.sleep(seconds)
    stage.proxy.flow()


async def asleep(stage: Stage, *, seconds: float) -> None:
    stage.page.stop()
    await anyio.sleep(seconds)
    stage.page.go_on()


async def restart(stage: Stage) -> None:
    stage.end()
    await anyio.sleep(2.0)
    stage.relay = start(stage.port)


def _for(does: Callable[..., Awaitable[object]], seconds: float, **how: Any) -> Trouble:
    return Trouble(functools.partial(does, seconds=seconds), seconds, **how)


TROUBLES: Final = {
    "none": Trouble(none, 2.0),
    "ten cuts, 3 s apart": Trouble(cuts, CUTS * APART_S),
    "ten cuts, the last bytes lost": Trouble(last_bytes, CUTS * APART_S),
    "ten cuts, the old socket half open": Trouble(half_open, CUTS * APART_S),
    "no network for 10 s": _for(away, 10.0),
    "a stall of 10 s": _for(stall, 10.0),
    "a stall of 45 s": _for(stall, 45.0, is_covered=False),
    "the page asleep for 10 s": _for(asleep, 10.0, only_node=True),
    "the page asleep for 45 s": _for(asleep, 45.0, is_covered=False, only_node=True),
    "the relay restarted": Trouble(restart, 2.0, is_covered=False),
}


# The measurement ----------------------------------------------------------------------------------


@attrs.frozen
class Losses:
    """In one direction."""

    sent: int
    lost: int
    told: int
    doubled: int
    late: int
    resumed: int

    @property
    def silent(self) -> int:
        return self.lost - self.told

    def is_right(self, trouble: Trouble) -> bool:
        bad = (self.silent, self.doubled, self.late, self.lost if trouble.is_covered else 0)
        return not any(bad)


def compare(sender: Notes, receiver: Notes) -> Losses:
    """What became of what one has said at the other."""
    seen: set[int] = set()
    doubled = late = last = 0
    covered: set[int] = set()  # by the gaps of the receiver
    may_miss = False
    for what in receiver.heard:
        if what == "gap":
            may_miss = True
            continue
        doubled += what in seen
        late += what not in seen and what < last
        seen.add(what)
        if may_miss:
            covered.update(range(last + 1, what))
        last, may_miss = max(last, what), False
    if may_miss:
        covered.update(range(last + 1, sender.said + 1))
    lost = set(range(1, sender.said + 1)) - seen
    told = lost & (covered | {*sender.in_doubt, *sender.failed})
    return Losses(sender.said, len(lost), len(told), doubled, late, receiver.resumed)


async def measure(trouble: Trouble, count: int, kind: str) -> dict[str, Losses]:
    """The trouble, and what it has cost, by direction."""
    port = free_port()
    stage = Stage(Proxy(port), port, None, start(port))
    try:
        answered(port)
        every_s = (trouble.lasts_s + 2 * MARGIN_S) / count
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(stage.proxy)
            options = {
                "url": stage.proxy.url,
                "id": "page",
                "other": "python",
                "count": count,
                "everyMs": every_s * 1000,
            }
            peer = await stack.enter_async_context(join(stage.proxy.url, "python"))
            python = PythonPeer(peer, count, every_s)
            if kind == "node":
                stage.page = await NodePage.begin(options, stack)
            else:
                stage.page = await ChromiumPage.begin(options, stack, port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(python.listen)
                tasks.start_soon(python.talk)
                await anyio.sleep(MARGIN_S)
                await trouble.does(stage)
                one, other = await until_quiet((python, stage.page), count)
                tasks.cancel_scope.cancel()
    finally:
        stage.end()
    return {"Python to page": compare(one, other), "page to Python": compare(other, one)}


async def until_quiet(talkers: tuple[Talker, ...], count: int) -> list[Notes]:
    """Until everything has been said and has arrived, or nothing more does."""
    quiet_since, before = time.monotonic(), None
    while True:
        notes = [await talker.notes() for talker in talkers]
        state = [(one.said, len(one.heard)) for one in notes]
        if state != before:
            quiet_since, before = time.monotonic(), state
        has_all = all(one.said == count and one.heard[-1:] == [count] for one in notes)
        is_quiet = time.monotonic() - quiet_since > QUIET_S and all(n.said == count for n in notes)
        if has_all or is_quiet:
            return notes
        await anyio.sleep(0.2)


COLUMNS: Final = ("sent", "lost", "told", "silent", "doubled", "late", "resumed")


def say(*cells: object) -> None:
    """Print one row of the table."""
    sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")
    sys.stdout.flush()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--trouble", action="append", choices=TROUBLES, help="one, or several")
    parser.add_argument("--page", choices=("node", "chromium"), default="node")
    given = parser.parse_args()
    say("trouble", "direction", *COLUMNS)
    say(*["---"] * (len(COLUMNS) + 2))
    is_right = True
    for name in given.trouble or TROUBLES:
        trouble = TROUBLES[name]
        if trouble.only_node and given.page != "node":
            continue
        for direction, losses in anyio.run(measure, trouble, given.messages, given.page).items():
            say(name, direction, *(getattr(losses, column) for column in COLUMNS))
            is_right = is_right and losses.is_right(trouble)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
