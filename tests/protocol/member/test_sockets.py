"""A member comes back to a relay after cuts: nothing is lost, doubled, or told in another order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import MembershipLimits
from protocol.member.lifecycle import MemberState
from tests.worlds.cuts import CutMember, CutRelay, numbers

AWAY = pytest.mark.parametrize("is_noticed", [True, False])


def pair(**limits: Any) -> tuple[CutRelay, CutMember, CutMember]:
    relay = CutRelay(**limits)
    ann, bob = (CutMember(relay, name).begin() for name in ("ann", "bob"))
    ann.settle()
    bob.settle()
    ann.story.clear()
    bob.story.clear()
    return relay, ann, bob


def settle(*members: CutMember) -> None:
    for _ in range(3):
        for member in members:
            member.settle()


@AWAY
def test_a_cut_loses_and_doubles_nothing_in_either_direction(is_noticed: bool) -> None:
    relay, ann, bob = pair()
    for n in range(5):
        ann.say("stream", n)
        bob.say("stream", 100 + n)
    ann.pump()
    bob.pump()
    bob.rise()
    relay.settle()
    ann.cut(up=2, down=3, is_noticed=is_noticed)
    assert ann.member.state is MemberState.WAITING
    assert "bob" in ann.member.roster
    bob.say("direct", 200, to="ann")
    ann.say("stream", 5)
    bob.settle()
    assert relay.peers.keys() == {"ann", "bob"}
    ann.come_back()
    settle(bob, ann)
    assert ann.member.state is MemberState.PRESENT
    assert numbers(ann) == [100, 101, 102, 103, 104, 200]
    assert numbers(bob) == [0, 1, 2, 3, 4, 5]
    assert (ann.resumed, ann.gaps) == (1, [])
    assert bob.data("presence") == []  # nobody has come or gone
