"""The files of vectors are current, Python decides as they say, and they meet every decision."""

import json
from typing import Any
from zlib import crc32

import pytest

from protocol.agents import agent_id
from protocol.limits import MembershipLimits
from protocol.member import lifecycle
from protocol.member.incoming import last_message
from protocol.member.lifecycle import EVENTS as LIFE_EVENTS
from protocol.member.lifecycle import TABLE, ImpossibleTransition, Membership, MemberState
from protocol.member.messages import RemotePeer
from protocol.member.reasons import Seen, place_of, reason
from protocol.member.roster import compare
from protocol.session import session_id
from tests.vectors import resuming
from tests.vectors.coding import plain
from tests.vectors.files import FILES, path, read, written
from tests.vectors.pure import read as read_whole
from tests.vectors.pure import shown, told
from tests.vectors.recording import EVENTS, Case, Recorded, Step

LIMITS = MembershipLimits()
CASES = {room: read(room) for room in FILES}
STEPS: list[Step] = [
    step for cases in CASES.values() for case in cases if "setup" in case for step in case["steps"]
]
EFFECTS = [effect for step in STEPS for effect in step["effects"]]


@pytest.mark.parametrize("room", FILES)
def test_no_file_is_stale(room: str) -> None:
    assert path(room).read_text() == written(room), "run `python -m tests.vectors`"


# Python decides as the files say ------------------------------------------------------------------


def record(fields: dict[str, Any]) -> Membership:
    return Membership(**{**fields, "state": MemberState(fields["state"])})


def peers(fields: dict[str, Any]) -> dict[str, RemotePeer]:
    return {id: RemotePeer(id, tuple(peer["agents"]), peer["data"]) for id, peer in fields.items()}


def call(case: Case) -> Any:
    """What the function of the case returns."""
    given = case["arguments"]
    match case["call"]:
        case "agent_id":
            return agent_id(**given)
        case "session_id":
            return session_id(**given)
        case "backoff":
            return lifecycle.backoff(**given, limits=LIMITS)
        case "deadline":
            return lifecycle.deadline(record(given["membership"]), LIMITS)
        case "expire":
            membership = record(given["membership"])
            return shown(lifecycle.expire(membership, given["now"], given["chance"], LIMITS))
        case "transition":
            happened = dict(given["event"])
            kind = {event.__name__: event for event in LIFE_EVENTS}[happened.pop("name")]
            return shown(lifecycle.transition(record(given["old"]), kind(**happened), LIMITS))
        case "place_of":
            return place_of(**given).value
        case "reason":
            return told(reason(Seen(**given["seen"])))
        case "read_frame":
            return read_whole(given["frame"], LIMITS)
        case "last_message":
            text = last_message(**given)
            return {"text": text, "crc": crc32(text.encode())}
        case "compare":
            change = compare(peers(given["seen"]), peers(given["here"]))
            return {side: plain(getattr(change, side)) for side in ("joined", "updated", "left")}
    raise AssertionError(case["call"])


def replay(case: Case) -> None:
    if "call" in case and "raises" in case:
        with pytest.raises(ImpossibleTransition):
            call(case)
    elif "call" in case:
        assert call(case) == case["returns"], case["name"]
    elif "class" in case:
        script = resuming.Script(case["name"], **case["limits"])
        for step in case["steps"]:
            script.do(step["do"], **step["arguments"])
        assert script.case == case
    else:
        member = Recorded(case["name"], case["setup"])
        for number, step in enumerate(case["steps"]):
            told = json.loads(json.dumps(member.play(step["event"])))
            assert told == step, f"{case['name']}, step {number}"


@pytest.mark.parametrize("room", FILES)
def test_python_decides_as_the_file_says(room: str) -> None:
    for case in CASES[room]:
        replay(case)


def test_a_file_that_says_something_else_is_noticed() -> None:
    case = json.loads(json.dumps(CASES["asks"][0]))
    case["steps"][-1]["effects"].append({"effect": "Changed"})
    with pytest.raises(AssertionError):
        replay(case)


# The files meet every decision --------------------------------------------------------------------


def test_every_event_is_in_them() -> None:
    assert {step["event"]["name"] for step in STEPS} == set(EVENTS)


def test_every_effect_is_in_them() -> None:
    assert {effect["effect"] for effect in EFFECTS} == {
        *("Open", "Transmit", "Close", "Sendable", "Arrived", "Changed", "Ready", "Announced"),
        *("Drop", "Resumed", "AttemptFailed", "Missed", "Cancelled", "Taken", "PresentTwice"),
        *("Unsent", "Chunk", "TurnEnded", "Handle", "Ignored", "Finished", "WishRefused"),
    }


def test_every_end_of_a_turn_is_in_them() -> None:
    ends = {e["error"] and e["error"]["error"] for e in EFFECTS if e["effect"] == "TurnEnded"}
    assert ends == {
        None,
        *("TurnFailed", "UnknownTarget", "AmbiguousTarget", "TurnRefused", "NotServed"),  # told
        *(
            "AnswerGap",
            "TurnTimeout",
            "TargetLeft",
            "TurnError",
        ),  # decided here; the last: abandoned
        *("QueueFull", "NotConnected", "Left", "NoCredentials", "Replaced"),  # not sent, or over
    }


def test_every_way_to_raise_is_in_them() -> None:
    assert {step["raises"]["error"] for step in STEPS if "raises" in step} == {
        *("TypeError", "ValueError", "TooLarge", "QueueFull", "NotConnected", "TurnError"),
        *("Left", "NoCredentials"),
    }


def test_every_possible_cell_of_the_table_is_met_by_a_whole_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met = set()
    transition = lifecycle.transition

    def noted(old: Membership, event: Any, limits: MembershipLimits) -> Any:
        met.add((old.state, type(event)))
        return transition(old, event, limits)

    monkeypatch.setattr(lifecycle, "transition", noted)
    for cases in CASES.values():
        for case in cases:
            if "setup" in case:
                replay(case)
    possible = {cell for cell, edge in TABLE.items() if edge.action is not lifecycle.impossible}
    assert met >= possible - {(MemberState.ENDED, lifecycle.Ended)}, possible - met
    assert met <= possible
