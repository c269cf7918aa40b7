"""Messages for who was here before a loss, and how long they wait."""

from typing import Any

import pytest

from protocol.limits import MembershipLimits
from protocol.member.effects import TurnEnded
from protocol.member.errors import TargetLeft, UnknownTarget
from protocol.member.lifecycle import MemberState
from protocol.member.messages import Message
from protocol.member.returns import Returns, Target, target_of
from protocol.member.roster import Roster
from tests.worlds.member import BOB, MemberWorld, joined
from tests.worlds.mesh import text

LIMITS = MembershipLimits(return_within_s=8.0)


def presence(id: str, *agents: str) -> Message:
    return Message({"type": "presence", "from": id, "data": {"agents": list(agents)}})


def lost(*peers: Message) -> tuple[Roster, Returns]:
    """A roster of these, and then the connection was lost, and made again at 100."""
    roster = Roster("ann", LIMITS)
    returns = Returns(LIMITS, roster)
    for peer in peers:
        roster.note(peer, 1)
    returns.lost()
    returns.joined(100.0)
    roster.begin()
    return roster, returns


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"type": "direct", "to": "bob"}, Target("bob", None)),
        ({"type": "direct", "to": "coder", "targetInstanceId": "bob"}, Target("coder", "bob")),
        ({"type": "direct", "to": ["bob"], "targetInstanceId": {}}, Target(None, None)),
        ({"type": "direct"}, Target(None, None)),
        ({"type": "broadcast", "to": "bob"}, None),
    ],
)
def test_only_a_direct_has_one_target(fields: dict[str, Any], target: Target | None) -> None:
    assert target_of(fields) == target


def test_what_is_for_who_was_here_waits_and_nothing_else() -> None:
    _, returns = lost(presence("bob", "helper"))
    for target in (Target("bob", None), Target("helper", None), Target("helper", "bob")):
        assert returns.holds(target)
    for free in (None, Target("carol", None), Target("x", "carol"), Target(None, None)):
        assert not returns.holds(free)


def test_without_a_loss_nothing_waits() -> None:
    roster = Roster("ann", LIMITS)
    returns = Returns(LIMITS, roster)
    roster.note(presence("bob"), 1)
    returns.joined(100.0)
    assert not returns.holds(Target("bob", None))
    assert returns.deadline() is None


def test_whoever_is_back_is_not_waited_for() -> None:
    roster, returns = lost(presence("bob", "helper"), presence("carol", "helper"))
    assert returns.seen("bob")
    roster.note(presence("bob", "helper"), 1)
    assert not returns.seen("bob")
    assert not returns.seen("nobody")
    assert not returns.holds(Target("bob", None))
    assert not returns.holds(Target("helper", None))  # bob has it, too
    assert returns.holds(Target("helper", "carol"))
    assert returns.is_away("carol")


def test_the_wait_is_over_in_time_and_counts_from_the_own_return() -> None:
    roster, returns = lost(presence("bob"))
    assert returns.deadline() == 108.0
    assert not returns.expire(107.9)
    returns.lost()  # again
    assert returns.deadline() is None
    assert returns.holds(Target("bob", None))
    returns.joined(200.0)
    assert returns.expire(208.0)
    assert not returns.holds(Target("bob", None))
    assert not returns.expire(300.0)
    assert roster.peers


# A whole peer -------------------------------------------------------------------------------------


class Restarted(MemberWorld):
    """Ann and bob are present, and then the relay is started again. Ann is back first."""

    def __init__(self) -> None:
        before = joined(LIMITS)
        self.__dict__ = before.__dict__
        self.ended: list[TurnEnded] = []
        self.world.end(BOB)
        for connection in self.live():
            self.pipes[connection].relay_side, side = None, self.pipes[connection].relay_side
            assert side is not None
            self.world.end(side)
            self.lose(connection)

    def back(self) -> None:
        self.wait(0.0)
        self.settle()
        assert self.member.state is MemberState.PRESENT

    def turns(self) -> list[TurnEnded]:
        return [effect for effect in self.seen if isinstance(effect, TurnEnded)]


def test_a_message_for_a_peer_that_comes_back_later_reaches_it() -> None:
    world = Restarted()
    world.send("direct", to="helper", data=1)
    world.send("broadcast", data="to all")
    world.back()
    world.send("direct", to="bob", data=2)
    world.settle()
    assert world.member.queued == 2  # the broadcast has gone
    world.wait(5.0)
    bob = world.world.join("bob", "helper")
    world.settle()
    assert [m["data"] for m in world.world.got(bob) if m["type"] == "direct"] == [1, 2]
    assert world.member.queued == 0


def test_a_command_that_waits_for_its_agent_is_answered() -> None:
    world = Restarted()
    turn = world.member.ask("helper", "x", world.now)
    world.obey()
    world.back()
    world.wait(5.0)
    assert world.turns() == []
    bob = world.world.join("bob", "helper")
    world.settle()
    [command] = [m for m in world.world.got(bob) if m["type"] == "direct"]
    assert command["turnId"] == turn
    answer = text("turn_end", sender="bob", to="ann", turnId=turn, data={"result": 7})
    world.world.say(bob, answer)
    world.settle()
    assert [ended.result for ended in world.turns()] == [7]


def test_a_command_under_way_outlives_the_restart() -> None:
    world = joined(LIMITS)
    turn = world.member.ask("helper", "x", world.now)
    world.settle()
    world.world.end(BOB)
    world.lose(1)
    world.wait(0.0)
    world.settle()
    world.wait(4.0)
    bob = world.world.join("bob", "helper")
    world.world.say(bob, text("turn_end", sender="bob", to="ann", turnId=turn, data={"result": 7}))
    world.settle()
    ended = [effect for effect in world.seen if isinstance(effect, TurnEnded)]
    assert [(end.error, end.result) for end in ended] == [(None, 7)]


def test_who_does_not_come_back_is_given_up_in_time() -> None:
    world = Restarted()
    world.member.ask("helper", "for bob", world.now)
    world.obey()
    world.back()
    world.member.ask("helper", "for whoever has it", world.now)
    world.send("direct", to="helper", data=1)
    world.wait(7.9)
    world.settle()
    assert world.turns() == []
    world.wait(0.2)
    world.settle()
    errors = [type(ended.error) for ended in world.turns()]
    assert errors == [TargetLeft, UnknownTarget]
    assert world.member.queued == 0


def test_who_says_that_it_goes_is_not_waited_for() -> None:
    world = joined(LIMITS)
    world.member.ask("helper", "x", world.now)
    world.settle()
    world.lose(1)  # bob stays
    world.wait(0.0)
    world.settle()
    world.world.end(BOB)
    world.settle()
    ended = [effect for effect in world.seen if isinstance(effect, TurnEnded)]
    assert [type(end.error) for end in ended] == [TargetLeft]


def test_while_messages_wait_the_order_for_each_target_is_kept() -> None:
    world = Restarted()
    for number in range(6):
        world.send("direct", to=("bob", "helper", "carol")[number % 3], data=number)
    carol = world.world.join("carol")
    world.back()
    assert [m["data"] for m in world.world.got(carol) if m["type"] == "direct"] == [2, 5]
    bob = world.world.join("bob", "helper")
    world.send("direct", to="bob", data=6)
    world.settle()
    assert [m["data"] for m in world.world.got(bob) if m["type"] == "direct"] == [0, 1, 3, 4, 6]
