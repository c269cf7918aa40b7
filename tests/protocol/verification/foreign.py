"""The conformance kit against servers that were written to compare speed.

docs/reports/ has the outcome:

    python -m tests.protocol.verification.foreign               # all three; each takes a minute
    python -m tests.protocol.verification.foreign bun --quick   # one of them; nothing is written

The servers are those of benchmarks/servers/. They do what a benchmark needs, so much is missing:
that is what makes their reports good examples. Run it when the claims have changed, and
docs/generate.py then.
"""

import argparse
import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

from protocol.verification.conformance import Report, Target, check
from tests import ROOT

FOREIGN: Final = ("node-ws", "bun", "websockets")
REPORTS: Final = ROOT / "docs" / "reports"
STARTS_WITHIN_S: Final = 30.0

_SAME: Final = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8080"),
    (re.compile(r"-[0-9a-f]{10}\b"), "-5eed5eed5e"),
    (re.compile(r'"timestamp": \d+'), '"timestamp": 1700000000000'),
)
"""What differs from run to run, and what is written in its place."""


@contextlib.contextmanager
def started(name: str) -> Iterator[str]:
    """One of the servers on a loopback port. The URL."""
    from benchmarks.run import SERVERS  # noqa: PLC0415 (not beside an installed wheel)

    server = SERVERS[name]
    server.prepare()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        server.command(argparse.Namespace(), port), stderr=subprocess.DEVNULL
    )
    try:
        ends_at = time.monotonic() + STARTS_WITHIN_S
        while not _listens(port):
            if time.monotonic() > ends_at:
                raise TimeoutError(f"{name} does not listen on port {port}")
            time.sleep(0.05)
        yield f"ws://127.0.0.1:{port}/ws"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def judged(name: str, *, quick: bool) -> Report:
    """What the kit says of it."""
    with started(name) as url:
        return asyncio.run(check(Target(url=url), quick=quick))


def steady(text: str) -> str:
    """A report without what differs from run to run."""
    for what, same in _SAME:
        text = what.sub(same, text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the comparison servers.")
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=", ".join(FOREIGN))
    parser.add_argument("--quick", action="store_true", help="without real time; writes nothing")
    options = parser.parse_args()
    for name in options.servers or FOREIGN:
        table = judged(name, quick=options.quick).as_table()
        if options.quick:
            sys.stdout.write(table)
        else:
            REPORTS.mkdir(exist_ok=True)
            (REPORTS / f"{name}.txt").write_text(steady(table))


if __name__ == "__main__":
    main()
