"""The files of vectors: what they are made of, and how they are written."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.vectors import (
    cuts,
    foreign,
    pure,
    recalled,
    resuming,
    scenarios,
    sharing,
    subscribed,
    walks,
)
from tests.vectors.recording import Case

FOLDER = Path(__file__).parent


def _roster() -> Iterator[Case]:
    yield from pure.roster()
    yield from scenarios.cases("roster")


FILES: dict[str, Callable[[], Iterator[Case]]] = {
    "agents": pure.agents,
    "incoming": pure.incoming,
    "lifecycle": pure.membership,
    "reasons": pure.reasons,
    "session": pure.session,
    **{room: partial(scenarios.cases, room) for room in scenarios.ROOMS},
    "roster": _roster,
    "places": sharing.places,
    "elected": sharing.elected,
    "resuming": resuming.cases,
    "sockets": cuts.cases,
    "recalling": recalled.cases,
    "subscribing": subscribed.cases,
    "unproved": foreign.cases,
    "member": walks.member,
}
"""By room: what makes its cases."""


def path(room: str) -> Path:
    return FOLDER / f"{room}.json"


def written(room: str) -> str:
    """A file: one line for each step."""
    cases = [_case(case) for case in FILES[room]()]
    joined = ",\n".join(cases)
    return f'{{"room":{_json(room)},"cases":[\n{joined}\n]}}\n'


def read(room: str) -> list[Case]:
    """The cases of a file."""
    cases: list[Case] = json.loads(path(room).read_text())["cases"]
    return cases


def _case(case: Case) -> str:
    if "steps" not in case:
        return _json(case)
    steps = ",\n".join(_json(step) for step in case["steps"])
    head = ",".join(f'"{name}":{_json(value)}' for name, value in case.items() if name != "steps")
    return f'{{{head},"steps":[\n{steps}\n]}}'


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
