"""The command `check`: the conformance kit against a relay at a URL."""

import argparse
import asyncio
import fnmatch
import json
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from protocol.verification.conformance.check import check
from protocol.verification.conformance.claim import LEVELS
from protocol.verification.conformance.joining import Unreachable
from protocol.verification.conformance.registry import up_to
from protocol.verification.conformance.report import listing
from protocol.verification.conformance.target import Target

PACKAGE: Final = __name__.rpartition(".conformance")[0]

PATIENCE_S: Final = 5.0
QUICK_PATIENCE_S: Final = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    The exit code: 0 all that the level asks is kept, 1 something is broken or cannot be judged, 2
    the relay cannot be reached. Raises SystemExit if the command line is wrong.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {PACKAGE} check",
        description="Check a relay of this protocol, claim by claim, over real WebSockets.",
        epilog="Exit code: 0 the level is kept, 1 something in it is broken or cannot be judged, "
        "2 the relay cannot be reached.",
    )
    parser.add_argument("url", nargs="?", help="such as ws://localhost:8080/ws")
    parser.add_argument("--quick", action="store_true", help="only claims that need no real time")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=LEVELS[-1],
        help="what the relay is judged by: this level and those before it (default: all three)",
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", default=[], help="a claim, or a pattern: tabs.*"
    )
    parser.add_argument("--list", action="store_true", help="list the claims, check nothing")
    parser.add_argument(
        "--reap-after",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="the silence after which this relay reaps a peer (default: 30)",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        metavar="S",
        help="how long to wait for what must come "
        f"(default: {PATIENCE_S:g}, with --quick {QUICK_PATIENCE_S:g})",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        type=_header,
        help="an HTTP header of the opening handshake, for relays that want a token",
    )
    options = parser.parse_args(arguments)
    claims = [
        claim
        for claim in up_to(options.level)
        if not options.only or any(fnmatch.fnmatchcase(claim.name, p) for p in options.only)
    ]
    if not claims:
        parser.error(f"no claim is called {' or '.join(options.only)}; see --list")
    if options.list:
        sys.stdout.write(listing(claims))
        return 0
    if options.url is None or urlsplit(options.url).scheme not in ("ws", "wss"):
        parser.error("a URL is needed, such as ws://localhost:8080/ws")
    target = Target(
        url=options.url,
        reap_after_s=options.reap_after,
        patience_s=options.patience or (QUICK_PATIENCE_S if options.quick else PATIENCE_S),
        headers=dict(options.header),
    )
    try:
        report = asyncio.run(check(target, claims, quick=options.quick, say=_progress))
    except Unreachable as unreachable:
        sys.stderr.write(f"check: {unreachable}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _progress("")
    shown = json.dumps(report.as_json(), indent=2) + "\n" if options.json else report.as_table()
    sys.stdout.write(shown)
    return 0 if report.is_conforming else 1


def _progress(words: str) -> None:
    """One line that is written over, for people who wait at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{words[:78]:<78}\r")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 86400 seconds")
    return value


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'NAME: VALUE'")
    return name.strip(), value.strip()
