"""Joining relays that do not send a presence back, or never answer `capabilities`."""

import json
from typing import Any

import pytest

from protocol.member.effects import Announced
from protocol.member.lifecycle import MemberState
from tests.protocol.member.test_hostile import LIMITS, Victim
from tests.vectors.stories import presence

PRESENT, JOINING = MemberState.PRESENT, MemberState.JOINING
HALF_S = LIMITS.probe_within_s / 2
BOB = json.dumps(presence("bob", "helper"))
ERROR = {"type": "error", "from": "relay", "data": {"error": "announce yourself first"}}


def is_in(state: MemberState, victim: Victim) -> bool:
    """The peer is in this state."""
    return victim.member.state is state


def directs(victim: Victim) -> list[dict[str, Any]]:
    """What the peer has sent to itself."""
    return [said for said in victim.said if said["type"] == "direct"]


def own(victim: Victim) -> str:
    (said,) = (said for said in victim.said if said["type"] == "presence")
    return json.dumps(said)


def unproved() -> Victim:
    """A peer in the mesh of a relay that does not send a presence back, with bob."""
    victim = Victim()
    victim.wait(HALF_S)
    victim.read(BOB)
    victim.read(json.dumps(directs(victim)[0]))
    assert is_in(PRESENT, victim)
    return victim


def test_a_direct_that_comes_back_shows_that_the_presence_was_taken() -> None:
    victim = Victim()
    victim.wait(HALF_S - 0.01)
    assert directs(victim) == []
    victim.wait(0.01)
    (direct,) = directs(victim)
    assert (direct["from"], direct["to"]) == ("ann", "ann")
    assert is_in(JOINING, victim)
    victim.read(json.dumps(direct))
    assert is_in(PRESENT, victim)


def test_the_roster_that_came_before_is_not_forgotten() -> None:
    victim = unproved()
    assert set(victim.member.roster) == {"bob"}
    assert [arrived.message.sender for arrived in victim.arrived] == ["bob"]


@pytest.mark.parametrize("heard", ["a presence", "an answer"])
def test_without_a_direct_it_has_joined_in_the_end_if_the_relay_says_anything(heard: str) -> None:
    victim = Victim()
    asked = [said["turnId"] for said in victim.said if said["type"] == "capabilities"]
    answer = {"type": "capabilities_response", "from": "relay", "turnId": asked[-1], "data": {}}
    victim.read(BOB if heard == "a presence" else json.dumps(answer))
    victim.wait(2 * HALF_S - 0.01)
    assert is_in(JOINING, victim)
    victim.wait(0.01)
    assert is_in(PRESENT, victim)
    assert victim.member.is_ready


def test_what_is_heard_too_late_is_enough_at_once() -> None:
    victim = Victim()
    victim.wait(2 * HALF_S + 1.0)
    assert is_in(JOINING, victim)
    victim.read(BOB)
    assert is_in(PRESENT, victim)


def test_where_nothing_is_heard_there_may_be_no_relay() -> None:
    victim = Victim()
    victim.wait(LIMITS.join_within_s - 0.01)
    assert is_in(JOINING, victim)
    victim.wait(0.02)
    assert not is_in(PRESENT, victim)


def test_an_error_about_the_direct_is_no_sign() -> None:
    victim = Victim()
    victim.wait(HALF_S)
    (direct,) = directs(victim)
    victim.read(json.dumps({**ERROR, "turnId": direct["turnId"]}))
    victim.wait(HALF_S)
    assert is_in(JOINING, victim)


def test_a_strangers_direct_with_the_right_turn_would_be_a_guess() -> None:
    victim = Victim()
    victim.wait(HALF_S)
    victim.read(json.dumps({**directs(victim)[0], "from": "eve"}))
    assert is_in(JOINING, victim)


def test_an_error_without_a_code_and_a_turn_is_about_what_was_asked_before_the_presence() -> None:
    victim = Victim()
    victim.read(json.dumps(ERROR))
    assert is_in(JOINING, victim)
    victim.read(own(victim))
    assert is_in(PRESENT, victim)


def test_ready_at_the_latest_when_a_relay_with_capabilities_would_have_been() -> None:
    victim = unproved()
    assert not victim.member.is_ready
    victim.wait(HALF_S - 0.01)
    assert not victim.member.is_ready
    victim.wait(0.01)
    assert victim.member.is_ready


def test_the_presence_that_comes_back_after_all_changes_nothing() -> None:
    victim = unproved()
    victim.read(own(victim))
    assert is_in(PRESENT, victim)


def test_an_announcement_counts_as_taken_when_it_is_sent() -> None:
    victim = unproved()
    effects = []
    victim.member.announce(["coder", "tester"], None, victim.now)
    effects = victim.member.take_effects()
    assert [e.error for e in effects if isinstance(e, Announced)] == [None]


def test_a_connection_that_cannot_be_replaced_is_used_until_it_is_lost() -> None:
    victim = unproved()
    connection = victim.connection
    for _ in range(int(LIMITS.renew_after_s // 10) + 10):
        victim.wait(10.0)
        victim.read(BOB)
    assert victim.connection == connection
    assert is_in(PRESENT, victim)


def test_in_a_quiet_mesh_a_peer_hears_itself() -> None:
    victim = unproved()
    connection, answered = victim.connection, 1
    for _ in range(30):
        victim.wait(5.0)
        for direct in directs(victim)[answered:]:
            answered += 1
            victim.read(json.dumps(direct))
    assert answered > 5
    assert victim.connection == connection
    assert [a for a in victim.arrived if a.message.type == "direct"] == []


def test_what_another_connection_sends_to_itself_is_told_to_nobody() -> None:
    victim = unproved()
    direct = directs(victim)[0]
    victim.read(json.dumps({**direct, "turnId": "u:1"}))
    victim.read(json.dumps({**direct, "turnId": "u:2", "data": {"n": 1}}))
    victim.read(json.dumps({**direct, "turnId": "u:3", "from": "bob"}))
    told = [a.message for a in victim.arrived if a.message.type == "direct"]
    assert [message.turn_id for message in told] == ["u:2", "u:3"]


def test_a_relay_that_answers_questions_gets_no_directs() -> None:
    victim = Victim()
    victim.join()
    for _ in range(30):
        victim.wait(5.0)
        asked = [said for said in victim.said if said["type"] == "capabilities"]
        answer = {"type": "capabilities_response", "from": "relay", "data": {}}
        victim.read(json.dumps({**answer, "turnId": asked[-1]["turnId"]}))
    assert directs(victim) == []


def test_a_relay_that_is_slow_and_right_costs_one_direct() -> None:
    victim = Victim()
    victim.wait(2 * HALF_S + 5.0)
    victim.answer()
    assert is_in(PRESENT, victim)
    assert len(directs(victim)) == 1
