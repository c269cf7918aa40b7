"""The browser client's core in Node: the same decisions as in Python, and its own unit tests."""

import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest

from protocol.limits import Limits, MembershipLimits
from protocol.member import errors
from protocol.member import lifecycle as membership
from protocol.member.lifecycle import EVENTS, TABLE, Membership, MemberState
from tests.browser.conftest import NODE, ROOT, Node

HERE = Path(__file__).parent


ONLY_IN_PYTHON = {"threads_max"}
"""Pages have no threads that serve commands."""
FIELDS = [f for f in attrs.fields(MembershipLimits) if f.name not in ONLY_IN_PYTHON]


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def record(it: Membership) -> dict[str, Any]:
    return {**attrs.asdict(it), "state": it.state.value}


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_clients_own_unit_tests_pass() -> None:
    files = sorted(str(path) for path in HERE.glob("*.test.js"))
    command = ["node", "--test", "--test-reporter=spec", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


def test_both_languages_have_one_table(node: Node) -> None:
    python = {
        state.value: {
            event.__name__: [TABLE[state, event].target.value, TABLE[state, event].action.__name__]
            for event in EVENTS
        }
        for state in MemberState
    }
    assert node("return client.TABLE") == python


def test_both_languages_have_the_same_limits_and_defaults(node: Node) -> None:
    python = {camel(f.name): f.default for f in FIELDS}
    assert node("return client.LIMITS") == python


def test_both_languages_think_the_same_of_a_relay_before_it_tells_its_bounds(node: Node) -> None:
    module = json.dumps((ROOT / "browser/src/limits.js").as_uri())
    told = node(f"return (await import({module})).RELAY_LIMITS")
    python = {camel(f.name): f.default for f in attrs.fields(Limits)}
    assert len(told) == 6
    assert told == {name: python[name] for name in told}


def test_both_languages_refuse_the_same_relations(node: Node) -> None:
    names = [f.name for f in FIELDS]
    refused = []
    for small in names:
        for large in names:
            try:
                MembershipLimits(**{**dict.fromkeys([small], 3000), **dict.fromkeys([large], 2048)})
            except ValueError:
                refused.append([camel(small), camel(large)])
    tried = [[camel(small), camel(large)] for small in names for large in names]
    script = """return given.filter(([small, large]) => {
        try { client.limitsWith({ [small]: 3000, [large]: 2048 }); return false; }
        catch { return true; }
    })"""
    assert node(script, tried) == refused


def test_both_languages_refuse_the_same_values(node: Node) -> None:
    values = [-1, 0, 0.005, 0.01, 0.5, 1, 1.5, 19, 1023, 1024, 2**53, 2**54]
    tried, refused = [], []
    for field in FIELDS:
        for value in values:
            tried.append([camel(field.name), value])
            given: Any = int(value) if value == int(value) else value
            try:
                MembershipLimits(**{field.name: given})
            except ValueError:
                refused.append([camel(field.name), value])
    script = """return given.filter(([name, value]) => {
        try { client.limitsWith({ [name]: value }); return false; } catch { return true; }
    })"""
    assert node(script, tried) == refused


def test_both_languages_take_every_step_alike(node: Node) -> None:
    """Every possible cell, with many records and times; and every deadline and its expiry."""
    chance = random.Random(5)
    limits = MembershipLimits()
    cases = []
    for (state, event), edge in TABLE.items():
        for _ in range(40):
            at = chance.uniform(0, 5000)
            old = Membership(
                state,
                due=chance.choice([None, at - 1, at + chance.uniform(-50, 3300)]),
                heard=at - chance.uniform(-1, 60),
                doubted=chance.choice([None, at - chance.uniform(0, 8)]),
                attempts=chance.choice([0, 1, 5, 80]),
                joined=at - chance.choice([1, 29, 31, 3000]),
            )
            roll = chance.random()
            case: dict[str, Any] = {"old": record(old), "at": at, "chance": roll}
            if edge.action is not membership.impossible:
                case["event"] = event.__name__
                step = membership.transition(old, event(at, roll), limits)
                case["step"] = [record(step.membership), [effect.value for effect in step.effects]]
            case["deadline"] = membership.deadline(old, limits)
            try:
                step = membership.expire(old, at, roll, limits)
                case["expired"] = [record(step.membership), [e.value for e in step.effects]]
            except membership.ImpossibleTransition:
                case["expired"] = None
            cases.append(case)
    script = """
        const { isDeepStrictEqual } = await import("node:util");
        const shown = ({ membership, effects }) => [membership, effects];
        const attempt = (make) => { try { return shown(make()); } catch { return null; } };
        return given.filter(({ old, at, chance, event, step, deadline, expired }) => !(
            client.deadline(old, client.LIMITS) === deadline
            && isDeepStrictEqual(
                attempt(() => client.expire(old, at, chance, client.LIMITS)), expired)
            && (!event || isDeepStrictEqual(
                shown(client.transition(old, { name: event, at, chance }, client.LIMITS)), step))
        ))
    """
    assert node(script, cases) == []


def test_both_languages_fail_in_the_same_ways_with_the_same_sentences(node: Node) -> None:
    """But for what only one of them can know: the status of a refused opening, the user's login."""
    given: dict[str, tuple[Any, ...]] = {
        "AnnouncementRefused": ("code", "why"),
        "IdTaken": (),
        "Replaced": (),
        "Lagged": (3,),
        "Gap": (3.25,),
        "Left": (),
        "AmbiguousTarget": ("why", ["a"]),
        "TurnRefused": ("code", "why"),
    }
    python = {
        kind.__name__: [kind.__bases__[0].__name__, str(error), error.is_transient]
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RelayError)
        if kind not in (errors.RelayError, errors.Rejected)
        for error in [kind(*given.get(kind.__name__, ("why",)))]
    }
    script = """
        const kinds = Object.values(client).filter((kind) =>
            kind.prototype instanceof client.RelayError
            && ![client.LoginNeeded, client.Rejected].includes(kind));
        return Object.fromEntries(kinds.map((kind) => {
            const error = new kind(...(given[kind.name] ?? ["why"]));
            const base = Object.getPrototypeOf(kind).name;
            return [error.name, [base, error.message, error.isTransient]];
        }));
    """
    assert node(script, given) == python


def test_both_languages_derive_the_same_session_ids(node: Node) -> None:
    cases = json.loads((ROOT / "tests/vectors/session.json").read_text())["cases"]
    script = "return Promise.all(given.map(({ mesh, secret }) => client.sessionId(mesh, secret)))"
    given = [case["arguments"] for case in cases]
    assert node(script, given) == [case["returns"] for case in cases]


@pytest.mark.parametrize(
    ("mesh", "secret"), [("", ""), ("\ud83d", ""), ("mesh", "\udc00"), (7, "")]
)
def test_names_that_are_none_have_no_session(node: Node, mesh: object, secret: str) -> None:
    script = "return client.sessionId(...given).catch((error) => error.name)"
    assert node(script, [mesh, secret]) == "BadAddress"
