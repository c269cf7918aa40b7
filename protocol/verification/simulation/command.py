"""The command `simulate`."""

# ruff: noqa: T201
import argparse
import importlib
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from protocol.verification.simulation.events import Event, parse_history
from protocol.verification.simulation.life import SubjectFactory
from protocol.verification.simulation.plan import plan
from protocol.verification.simulation.recorded import events_of, is_recording
from protocol.verification.simulation.report import examine
from protocol.verification.subjects import CoreSubject

PACKAGE: Final = __name__.rpartition(".simulation")[0]

ABOUT: Final = "A long random life of a mesh in virtual time, from a seed."


def main(arguments: Sequence[str]) -> int:
    """Run the command. 0: right all along; 1: a failure, with its seed and history."""
    chosen = _parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)  # crashes are made here by the hundred
    sys.path.insert(0, "")
    subject = CoreSubject if chosen.subject is None else _find(chosen.subject)
    if chosen.replay is not None:
        return _replay(chosen, subject)
    first = chosen.seed if chosen.seed is not None else secrets.randbelow(2**32)
    # The first failure ends it, because to make that small takes its time.
    return int(not all(_live(seed, chosen, subject) for seed in range(first, first + chosen.lives)))


def _replay(chosen: argparse.Namespace, subject: SubjectFactory) -> int:
    """Live the events of a file. Returns what `main` returns."""
    try:
        lines = _lines(chosen.replay)
        replayed = events_of(lines) if is_recording(lines) else parse_history(lines)
    except (OSError, ValueError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    print(f"{len(replayed)} events of {chosen.replay}", flush=True)
    return int(not _lives_well(lambda: iter(replayed), chosen, subject))


def _live(seed: int, chosen: argparse.Namespace, subject: SubjectFactory) -> bool:
    """One life. False: a failure."""
    print(f"seed {seed}, {chosen.peers} peers, {chosen.hours:g} hours", flush=True)
    peer_hours = chosen.peers * chosen.hours
    started = time.process_time()
    if _lives_well(lambda: plan(seed, chosen.peers, chosen.hours), chosen, subject):
        spent = time.process_time() - started
        rate = f"{peer_hours / spent * 60:.0f} in a minute"
        print(f"{peer_hours:g} peer-hours in {spent:.1f} s of CPU: {rate}")
        return True
    whole = f"--seed {seed} --peers {chosen.peers} --hours {chosen.hours:g}"
    print(f"to see all of it again: {whole}{_asked(chosen)}")
    return False


def _lives_well(
    history: Callable[[], Iterator[Event]], chosen: argparse.Namespace, subject: SubjectFactory
) -> bool:
    """Live a history, and print what came of it."""
    outcome = examine(history, subject, shrink_s=chosen.shrink_s)
    print("\n".join(outcome.lines()))
    if outcome.life.failure is not None:
        again = "to see only these events again, put them into a file and add: --replay FILE"
        print(f"\n{again}{_asked(chosen)}")
    return outcome.life.failure is None


def _asked(chosen: argparse.Namespace) -> str:
    return f" --subject {chosen.subject}" if chosen.subject is not None else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE} simulate", description=ABOUT)
    parser.add_argument("--seed", type=int, help="default: a fresh one, printed")
    parser.add_argument("--peers", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--hours", type=float, default=24.0, help="virtual time (default: 24)")
    parser.add_argument(
        "--lives", type=_count, default=1, help="so many, each with the next seed (default: 1)"
    )
    parser.add_argument(
        "--subject",
        metavar="MODULE:NAME",
        help="what to call with limits and now=seconds to get a subject (default: the protocol)",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="instead of a seed: the events of a failure, line by line as printed, or what "
        "`agi-mesh record` has written (-: from input)",
    )
    parser.add_argument("--shrink-s", type=float, default=60.0, help="time to make a failure small")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _find(name: str) -> SubjectFactory:
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert callable(found)
    return found  # type: ignore[no-any-return]


def _lines(file: str) -> list[str]:
    return (sys.stdin.read() if file == "-" else Path(file).read_text()).splitlines()
