"""What a peer says about itself: which announcement an answer answers, and what is undone."""

import json
from typing import Any

import pytest

from protocol.instant import Instant
from protocol.member.announcements import ANNOUNCED_MAX, Announcements, Answered
from protocol.member.errors import AnnouncementRefused

NO = AnnouncementRefused("too_many_agents", "no")


def accepted(*agents: Any, **metadata: Any) -> Announcements:
    """The relay has taken these."""
    announcements = Announcements("ann", agents, metadata, "pong")
    announcements.joined(announcements.wanted)
    return announcements


def want(announcements: Announcements, *agents: Any) -> int:
    return announcements.want(announcements.made(agents, None))


def test_a_presence_says_who_the_peer_is_and_what_it_understands() -> None:
    announcements = Announcements("ann", ["a"], {"mood": "fine", "agents": "mine"}, "pong")
    text = announcements.text(announcements.wanted, "t:1", Instant(0.0, 5))
    assert json.loads(text) == {
        **{"type": "presence", "from": "ann", "turnId": "t:1", "timestamp": 5},
        "data": {"mood": "fine", "agents": ["a"], "keepalive": "pong", "accept": ["batch"]},
    }
    silent = Announcements("ann", [], {}, None)
    assert "keepalive" not in json.loads(silent.text(silent.wanted, "", Instant(0.0, 0)))["data"]


def test_what_is_not_given_is_as_before() -> None:
    announcements = accepted("a", mood="fine")
    assert announcements.made(None, {"n": 1}).agents == ("a",)
    assert announcements.made(["b"], None).metadata == {"mood": "fine"}


def test_an_announcement_stays_what_it_was_whatever_becomes_of_the_objects() -> None:
    agent: dict[str, Any] = {"agentId": "a"}
    announcements = Announcements("ann", [agent], {}, "pong")
    agent["broken"] = object()
    announcements.text(announcements.wanted, "", Instant(0.0, 0))
    assert announcements.wanted.agents == ({"agentId": "a"},)


def test_what_is_no_list_or_no_json_is_refused() -> None:
    announcements = accepted()
    with pytest.raises(TypeError, match="list"):
        announcements.made("coder", None)
    with pytest.raises(TypeError):
        announcements.made([object()], None)
    with pytest.raises(TypeError):
        announcements.made(None, {"n": object()})


def test_own_agents_have_the_order_of_their_announcement_and_each_is_there_once() -> None:
    assert accepted("b", {"id": "a"}, 7, "b", {"agentId": "", "name": "c"}).agent_ids == (
        *("b", "a", "c"),
    )


def test_a_change_is_due_until_it_is_said() -> None:
    announcements = accepted("a")
    assert not announcements.is_due
    assert want(announcements, "b") == 1
    assert announcements.is_due
    announcements.say("t:3")
    assert not announcements.is_due
    assert announcements.taken("t:3") == Answered((1,), None)


def test_an_answer_answers_all_announcements_up_to_its_own() -> None:
    announcements = accepted("a")
    want(announcements, "b")
    want(announcements, "c")
    announcements.say("t:3")
    want(announcements, "d")
    assert announcements.taken("t:3") == Answered((1, 2), None)
    announcements.say("t:4")
    assert announcements.refused("t:4", NO) == Answered((3,), NO)


def test_what_is_refused_is_undone_to_what_was_taken_last() -> None:
    announcements = accepted("a")
    want(announcements, "b")
    announcements.say("t:3")
    want(announcements, "c")
    announcements.say("t:4")
    announcements.taken("t:3")
    announcements.refused("t:4", NO)
    assert announcements.agent_ids == ("b",)
    assert not announcements.is_due


def test_what_is_refused_does_not_undo_what_was_wanted_since() -> None:
    announcements = accepted("a")
    want(announcements, "b")
    announcements.say("t:3")
    want(announcements, "c")
    announcements.refused("t:3", NO)
    assert announcements.agent_ids == ("c",)
    assert announcements.is_due


def test_the_first_announcement_cannot_be_undone() -> None:
    announcements = Announcements("ann", ["a"], {}, "pong")
    assert announcements.joined_as_refused(announcements.wanted, NO) is None
    announcements.joined(announcements.wanted)
    assert announcements.joined_as_refused(announcements.wanted, NO) is None  # taken once


def test_what_is_refused_in_joining_again_is_undone() -> None:
    announcements = accepted("a")
    want(announcements, "b")
    assert announcements.joined_as_refused(announcements.wanted, NO) == Answered((1,), NO)
    assert announcements.agent_ids == ("a",)


def test_on_a_new_connection_the_questions_on_the_old_one_are_forgotten() -> None:
    announcements = accepted("a")
    want(announcements, "b")
    announcements.say("t:3")
    assert announcements.is_asked("t:3")
    assert announcements.joined(announcements.wanted) == Answered((1,), None)
    assert not announcements.is_asked("t:3")


def test_what_was_said_before_an_answered_one_is_not_awaited_any_more() -> None:
    announcements = accepted("a")
    for number in range(ANNOUNCED_MAX):
        want(announcements, str(number))
        announcements.say(f"t:{number}")
    assert announcements.taken(f"t:{ANNOUNCED_MAX - 2}").numbers == tuple(range(1, ANNOUNCED_MAX))
    assert not announcements.is_asked("t:0")
    assert announcements.is_asked(f"t:{ANNOUNCED_MAX - 1}")
    for number in range(ANNOUNCED_MAX - 1):
        want(announcements, f"more {number}")
        assert announcements.is_due
        announcements.say(f"u:{number}")


def test_only_so_many_are_on_their_way() -> None:
    announcements = accepted("a")
    for number in range(ANNOUNCED_MAX):
        want(announcements, str(number))
        assert announcements.is_due
        announcements.say(f"t:{number}")
    want(announcements, "one more")
    assert not announcements.is_due
    announcements.taken("t:0")
    assert announcements.is_due
