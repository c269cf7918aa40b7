"""What was said before a member came: it is there once, marked, and nothing else comes of it."""

from typing import Any

import pytest

from protocol.limits import MembershipLimits
from protocol.member.effects import Chunk, Handle
from protocol.member.recalling import Recalling
from tests.worlds.cuts import CutMember, CutRelay, numbers

OLD = [0, 1, 2, 3, 4]


def mesh(**limits: Any) -> tuple[CutRelay, CutMember]:
    """A relay, and bob, who has said some numbers to everyone."""
    relay = CutRelay(**limits)
    bob = CutMember(relay, "bob").begin()
    for n in OLD:
        bob.say("stream", n)
        bob.say("direct", 100 + n, to="bob")
    bob.settle()
    return relay, bob


def old(member: CutMember) -> list[int]:
    return [m.data for m in member.messages if m.is_old]


def new(member: CutMember) -> list[int]:
    return [m.data for m in member.messages if not m.is_old and m.type != "presence"]


def limits(**changes: Any) -> MembershipLimits:
    return MembershipLimits(**changes)


@pytest.mark.parametrize("resume_s", [0.0, 20.0])
def test_who_asks_gets_the_last_messages_and_can_tell_them_from_new_ones(resume_s: float) -> None:
    relay, bob = mesh()
    ann = CutMember(relay, "ann", limits=limits(resume_s=resume_s), history=3).begin()
    assert old(ann) == [2, 3, 4]
    assert ann.member.is_ready
    bob.say("stream", 5)
    bob.settle()
    ann.settle()
    assert (old(ann), new(ann)) == ([2, 3, 4], [5])


def test_who_does_not_ask_gets_nothing() -> None:
    relay, _ = mesh()
    ann = CutMember(relay, "ann").begin()
    assert [message.type for message in ann.messages] == ["presence"]


def test_where_nothing_is_remembered_nothing_comes() -> None:
    relay, bob = mesh(recall_messages_max=0)
    ann = CutMember(relay, "ann", history=3).begin()
    bob.say("stream", 5)
    bob.settle()
    ann.settle()
    assert (old(ann), new(ann)) == ([], [5])


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("is_noticed", [False, True])
@pytest.mark.parametrize("down", range(12))
def test_a_cut_among_them_loses_and_doubles_none(
    down: int, *, is_noticed: bool, as_array: bool
) -> None:
    relay, bob = mesh()
    ann = CutMember(relay, "ann", history=5)
    ann.member.begin(ann.now)
    ann.obey()
    ann.open()
    ann.rise()
    relay.settle()
    ann.fall(2)  # it may come back, and has joined
    bob.say("stream", 5)
    bob.settle()
    ann.fall(down, as_array=as_array)
    ann.cut(is_noticed=is_noticed)
    bob.say("stream", 6)
    bob.settle()
    ann.come_back()
    bob.say("stream", 7)
    bob.settle()
    ann.settle()
    assert (old(ann), new(ann)) == (OLD, [5, 6, 7])
    assert (ann.resumed, ann.gaps) == (1, [])
    ann.cut()
    ann.come_back()
    assert (old(ann), numbers(ann)) == (OLD, [*OLD, 5, 6, 7])


def test_who_cannot_come_back_is_told_and_what_it_has_seen_does_not_come_again() -> None:
    relay, bob = mesh()
    ann = CutMember(relay, "ann", history=5).begin()
    ann.is_network_there = False
    ann.cut()
    ann.wait(21.0)
    bob.say("stream", 5)
    bob.settle()
    ann.come_back()
    bob.say("stream", 6)
    bob.settle()
    ann.settle()
    assert len(ann.gaps) == 1
    assert (old(ann), new(ann)) == (OLD, [6])


def test_a_renewal_does_not_ask_again() -> None:
    relay, bob = mesh()
    ann = CutMember(relay, "ann", history=5).begin()
    ann.renew()
    ann.settle()
    bob.say("stream", 5)
    bob.settle()
    ann.settle()
    assert (old(ann), new(ann), ann.gaps) == (OLD, [5], [])


def test_an_old_command_is_served_by_nobody_and_a_new_one_is() -> None:
    relay, bob = mesh()
    bob.say("broadcast", {"command": "old"}, turnId="c-1")
    bob.settle()
    ann = CutMember(relay, "ann", agents=["coder"], history=50)
    ann.member.serve(None, ann.now)
    ann.begin()
    bob.say("broadcast", {"command": "new"}, turnId="c-2")
    bob.settle()
    ann.settle()
    served = [e.message.turn_id for e in ann.seen if isinstance(e, Handle)]
    assert served == ["c-2"]
    assert relay.peers.keys() == {"ann", "bob"}


def test_an_old_answer_belongs_to_no_turn() -> None:
    relay, bob = mesh()
    ann = CutMember(relay, "ann", history=50)
    turn = ann.member.ask("bob", "x", ann.now, fields={"answers": "all"})
    for answer in ("stream", "turn_end", "error"):
        bob.say(answer, {"chunk": "old", "result": "old", "error": "old"}, turnId=turn)
    bob.settle()
    ann.begin()
    bob.settle()
    bob.say("stream", {"chunk": "new", "chunkNum": 0}, turnId=turn)
    bob.settle()
    ann.settle()
    assert [e.text for e in ann.seen if isinstance(e, Chunk)] == ["new"]


@pytest.mark.parametrize("history", [None, "50", 50.0, True, [50]])
def test_a_history_that_is_no_number_is_refused_at_once(history: Any) -> None:
    with pytest.raises(TypeError, match="history is a number of messages, not"):
        Recalling(history, MembershipLimits())


@pytest.mark.parametrize("history", [-1, 10_001])
def test_a_history_beyond_what_may_be_unread_is_refused_at_once(history: int) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to 10000 .*, not {history}"):
        CutMember(CutRelay(), "ann", history=history)


def test_all_that_may_be_unread_can_be_asked_for() -> None:
    assert Recalling(7, MembershipLimits(unread_messages_max=7)).ask() == {"messages": 7}
