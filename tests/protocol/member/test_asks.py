"""Commands given: whom they reach, who may answer, and every way in which a turn ends."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.asks import LATE_S, Asks
from protocol.member.effects import Chunk, Effect, TurnEnded
from protocol.member.errors import (
    AmbiguousTarget,
    AnswerGap,
    Left,
    NotConnected,
    NotServed,
    QueueFull,
    RelayError,
    TargetLeft,
    TooLarge,
    TurnError,
    TurnFailed,
    TurnRefused,
    TurnTimeout,
    UnknownTarget,
)
from protocol.member.messages import Message
from protocol.member.outgoing import Frame, Outgoing
from protocol.member.returns import Returns
from protocol.member.roster import Roster


class Asker:
    """Peer `ann` with the agents `mine` and `twin`. Bob has `helper`, carol and dave `twin`."""

    def __init__(self, *, messages: int = 100, turns: int = 2, waits: bool = True) -> None:
        limits = MembershipLimits(queue_messages_max=messages, turns_max=turns, probe_within_s=5.0)
        self.effects: list[Effect] = []
        self.roll = 0.0
        self.roster = Roster("ann", MembershipLimits())
        self.outgoing = Outgoing(limits, waits=waits)
        self.outgoing.is_connected = True
        self.asks = Asks(
            "ann",
            limits,
            roster=self.roster,
            announcements=Announcements("ann", ["mine", "twin"], {}, None),
            outgoing=self.outgoing,
            returns=Returns(limits, self.roster),
            roll=lambda: self.roll,
            emit=self.effects.append,
        )
        for peer, agent in (("bob", "helper"), ("carol", "twin"), ("dave", "twin")):
            self.come(peer, agent)
        self.count = 0

    def come(self, peer: str, *agents: str, **data: Any) -> None:
        said = {"type": "presence", "from": peer, "data": {"agents": list(agents), **data}}
        if self.roster.note(Message(said), 0).has_changed:
            self.asks.roster_changed(Instant(0.0, 7))

    def go(self, peer: str) -> None:
        self.come(peer, status="offline")

    def ask(
        self,
        agent: str = "helper",
        command: Any = "x",
        *,
        at: float = 0.0,
        peer: str | None = None,
        any: bool = False,
        timeout_s: float | None = 60.0,
        **fields: Any,
    ) -> str:
        self.count += 1
        turn, now = f"turn-{self.count}", Instant(at, 7)
        self.asks.ask(
            turn, agent, command, now, peer=peer, any=any, timeout_s=timeout_s, fields=fields
        )
        return turn

    def hear(
        self,
        type: str,
        turn: str,
        sender: str = "bob",
        at: float = 0.0,
        fields: Mapping[str, Any] | None = None,
        **data: Any,
    ) -> None:
        said = {"type": type, "from": sender, "to": "ann", "turnId": turn, "data": data}
        said |= fields or {}
        self.asks.answer(Message(said), 10, Instant(at, 7))

    def sent(self) -> list[dict[str, Any]]:
        """What leaves the queue."""
        messages = []
        while isinstance(frame := self.outgoing.next_frame(1e9, 0.0), Frame):
            messages.append(json.loads(frame.text))
        return messages

    def ended(self) -> TurnEnded:
        """The one turn that has ended since this was asked last."""
        (ended,) = [effect for effect in self.effects if isinstance(effect, TurnEnded)]
        self.effects.clear()
        return ended

    def error(self) -> RelayError:
        error = self.ended().error
        assert error is not None
        return error


# Whom a command reaches ---------------------------------------------------------------------------


def test_a_command_is_queued_by_the_call_and_says_whom_to_answer() -> None:
    asker = Asker()
    turn = asker.ask("helper", {"do": "it"}, priority=1)
    assert asker.sent() == [
        {
            **{"type": "direct", "from": "ann", "to": "helper", "turnId": turn},
            **{"instanceId": "ann", "targetInstanceId": "bob", "priority": 1},
            "answers": "direct",
            **{"data": {"command": {"do": "it"}}, "timestamp": 7},
        }
    ]


@pytest.mark.parametrize(
    ("agent", "peer", "target"),
    [
        ("helper", None, "bob"),
        ("helper", "carol", "carol"),
        ("bob", None, "bob"),
        ("nobody", None, None),
        ("nobody", "eve", "eve"),
        ("twin", "dave", "dave"),
        ("mine", "bob", "bob"),
    ],
)
def test_the_peer_that_is_meant_is_named_if_it_is_known(
    agent: str, peer: str | None, target: str | None
) -> None:
    asker = Asker()
    asker.ask(agent, peer=peer)
    (sent,) = asker.sent()
    assert sent.get("targetInstanceId") == target


def test_a_peer_named_like_an_agent_comes_first() -> None:
    asker = Asker()
    asker.come("helper")
    asker.ask("helper")
    assert asker.sent()[0]["targetInstanceId"] == "helper"


@pytest.mark.parametrize(("agent", "peer"), [("mine", None), ("ann", None), ("twin", "ann")])
def test_a_peers_own_agent_that_no_other_has_is_unknown(agent: str, peer: str | None) -> None:
    asker = Asker()
    asker.ask(agent, peer=peer)
    assert isinstance(asker.error(), UnknownTarget)
    assert asker.sent() == []


def test_a_peers_own_agent_that_several_others_have_is_ambiguous() -> None:
    asker = Asker()
    asker.ask("twin")
    error = asker.error()
    assert isinstance(error, AmbiguousTarget)
    assert error.peers == ("carol", "dave")
    asker.go("dave")
    asker.ask("twin")
    assert asker.sent()[0]["targetInstanceId"] == "carol"


def test_what_is_no_command_is_refused_and_nothing_is_under_way() -> None:
    asker = Asker()
    for command, error in ((None, TypeError), (object(), TypeError), ("x" * 2**20, TooLarge)):
        with pytest.raises(error):
            asker.ask(command=command)
    for timeout_s in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout_s"):
            asker.ask(timeout_s=timeout_s)
    assert asker.effects == []
    assert asker.asks.deadline() is None


# Who may answer -----------------------------------------------------------------------------------


def test_chunks_and_the_result_come_from_the_peer_that_was_asked() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.hear("ack", turn)
    asker.hear("stream", turn, chunk="a")
    asker.hear("stream", turn, chunk={"n": 1})
    asker.hear("turn_end", turn, result=[1])
    asker.hear("turn_end", turn, result="late")
    assert asker.effects == [
        Chunk(turn, "a", 10),
        Chunk(turn, '{"n":1}', 10),
        TurnEnded(turn, None, [1]),
    ]


def test_nobody_else_may_answer() -> None:
    asker = Asker()
    turn = asker.ask()
    for type in ("ack", "stream", "turn_end", "error"):
        asker.hear(type, turn, "carol", at=50.0)
    assert asker.effects == []
    assert asker.asks.deadline() == 60.0


def test_where_it_is_open_the_first_that_answers_may() -> None:
    asker = Asker()
    turn = asker.ask("ghost")
    asker.hear("direct", turn, "dave")  # that is no answer
    asker.hear("ack", turn, "carol")
    asker.hear("turn_end", turn, "dave", result=1)
    asker.hear("turn_end", turn, "carol", result=2)
    assert asker.ended().result == 2


def test_the_relay_may_refuse_and_nothing_more() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.hear("turn_end", turn, "relay", result=1)
    asker.hear("error", turn, "relay", code="rate_limited", error="slow")
    assert isinstance(asker.error(), TurnRefused)


def test_an_error_of_the_agent_ends_the_turn() -> None:
    asker = Asker()
    asker.hear("error", asker.ask(), error="cannot")
    error = asker.error()
    assert isinstance(error, TurnFailed)
    assert str(error) == "cannot"


def test_a_message_of_another_turn_is_none_of_its_answers() -> None:
    asker = Asker()
    asker.ask()
    asker.hear("turn_end", "turn-9", result=1)
    assert asker.effects == []


# Silence ------------------------------------------------------------------------------------------


def test_silence_ends_a_turn_and_every_sign_begins_it_anew() -> None:
    asker = Asker()
    turn = asker.ask(at=100.0, timeout_s=60.0)
    assert asker.asks.deadline() == 160.0
    asker.hear("ack", turn, at=150.0)
    assert asker.asks.deadline() == 210.0
    asker.hear("question", turn, at=200.0)
    asker.asks.expire(Instant(209.9, 7))
    assert asker.effects == []
    asker.asks.expire(Instant(210.0, 7))
    error = asker.error()
    assert isinstance(error, TurnTimeout)
    assert "60 s" in str(error)


def test_without_a_timeout_a_turn_waits_for_ever() -> None:
    asker = Asker()
    for timeout_s in (None, float("inf")):
        turn = asker.ask(timeout_s=timeout_s)
        asker.hear("ack", turn, at=5.0)
        assert asker.asks.deadline() is None
    asker.asks.expire(Instant(1e9, 7))
    assert asker.effects == []


def test_who_looks_too_late_at_the_clock_waits_a_little_more_once() -> None:
    asker = Asker()
    asker.ask(timeout_s=60.0)
    asker.asks.expire(Instant(60.0 + LATE_S + 0.5, 7))
    assert asker.effects == []
    assert asker.asks.deadline() == 60.0 + LATE_S + 0.5 + 5.0
    asker.asks.expire(Instant(1000.0, 7))
    assert isinstance(asker.error(), TurnTimeout)


# Who leaves ---------------------------------------------------------------------------------------


def test_the_peer_that_was_asked_has_left() -> None:
    asker = Asker()
    asker.ask()
    asker.go("carol")
    assert asker.effects == []
    asker.go("bob")
    assert isinstance(asker.error(), TargetLeft)


def test_a_peer_that_was_not_here_yet_has_not_left() -> None:
    asker = Asker()
    asker.ask(peer="eve")
    asker.go("carol")
    assert asker.effects == []
    asker.come("eve")
    asker.go("eve")
    assert isinstance(asker.error(), TargetLeft)


def test_a_peer_that_answered_before_it_was_seen_can_leave() -> None:
    asker = Asker()
    asker.hear("ack", asker.ask("ghost"), "eve")
    asker.come("dave", "other")
    assert isinstance(asker.error(), TargetLeft)


def test_the_end_of_the_peer_is_that_of_its_turns() -> None:
    asker = Asker()
    asker.ask()
    asker.asks.end(Left())
    assert isinstance(asker.error(), Left)


# What was not sent --------------------------------------------------------------------------------


def test_a_turn_that_is_over_is_not_sent_any_more() -> None:
    asker = Asker()
    asker.asks.abandon(asker.ask(), Instant(0.0, 7))
    error = asker.error()
    assert type(error) is TurnError
    assert "abandoned" in str(error)
    asker.ask(timeout_s=0.0)
    asker.asks.expire(Instant(0.0, 7))
    assert asker.sent() == []
    asker.asks.abandon("turn-1", Instant(0.0, 7))


def test_an_answered_command_stays_sent() -> None:
    asker = Asker()
    asker.hear("turn_end", asker.ask(), result=1)
    assert len(asker.sent()) == 1  # somebody may have a turn of that id


def test_while_the_queue_is_full_commands_wait_in_order() -> None:
    asker = Asker(messages=1)
    asker.outgoing.offer('{"type":"other"}')
    first, second = asker.ask(), asker.ask()
    sent = []
    while messages := asker.outgoing.next_frame(1e9, 0.0):
        assert isinstance(messages, Frame)
        sent.append(json.loads(messages.text).get("turnId"))
        asker.asks.flush()
    assert sent == [None, first, second]
    assert asker.effects == []


def test_so_many_commands_may_wait() -> None:
    asker = Asker(messages=1, turns=2)
    asker.ask()
    asker.ask()
    asker.ask()
    assert asker.effects == []
    asker.ask()
    assert isinstance(asker.error(), QueueFull)


def test_a_command_that_waits_may_be_over_before() -> None:
    asker = Asker(messages=1)
    asker.ask()
    asker.asks.abandon(asker.ask(), Instant(0.0, 7))
    asker.sent()
    asker.asks.flush()
    assert asker.sent() == []


def test_without_a_connection_no_command_waits_for_room() -> None:
    asker = Asker(messages=1)
    asker.ask()
    asker.ask()
    asker.outgoing.disconnected()
    asker.asks.flush()
    assert isinstance(asker.error(), QueueFull)
    asker.ask()
    assert isinstance(asker.error(), QueueFull)
    failing = Asker(waits=False)
    failing.outgoing.disconnected()
    failing.ask()
    assert isinstance(failing.error(), NotConnected)


# A gap in the answer ------------------------------------------------------------------------------


def test_a_hole_in_the_answer_ends_the_turn_and_stops_its_worker() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.sent()
    for number in (0, 1, 4):
        asker.hear("stream", turn, chunk=str(number), chunkNum=number)
    assert asker.effects[:2] == [Chunk(turn, "0", 10), Chunk(turn, "1", 10)]
    error = asker.error()
    assert isinstance(error, AnswerGap)
    assert str(error) == "chunks 2 to 3 of the answer were lost"
    assert [(m["type"], m["to"], m["turnId"]) for m in asker.sent()] == [("cancel", "bob", turn)]


def test_an_end_that_is_missing_shows_with_the_result_which_is_kept() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.sent()
    asker.hear("stream", turn, chunk="a", chunkNum=1)
    asker.hear("turn_end", turn, result="done", chunks=20)
    error = asker.error()
    assert isinstance(error, AnswerGap)
    assert error.result == "done"
    assert asker.sent() == []  # its worker is at the end


def test_an_answer_to_the_asker_alone_begins_with_chunk_0() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.hear("stream", turn, fields={"answer": "stream"}, chunk="b", chunkNum=1)
    assert isinstance(asker.error(), AnswerGap)


def test_what_others_say_is_no_chunk_of_the_answer() -> None:
    asker = Asker()
    turn = asker.ask("ghost")
    for sender, number in (("carol", 0), ("dave", 0), ("carol", 1), ("dave", 1)):
        asker.hear("stream", turn, sender, chunk=sender, chunkNum=number)
    assert asker.effects == [Chunk(turn, "carol", 10)] * 2


# Nobody waits any more ----------------------------------------------------------------------------


def test_an_abandoned_turn_is_cancelled_where_it_is_worked_on() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.sent()
    asker.asks.abandon(turn, Instant(1.0, 8))
    assert asker.sent() == [
        {"type": "cancel", "from": "ann", "to": "bob", "turnId": turn, "timestamp": 8}
    ]
    asker.asks.abandon(turn, Instant(1.0, 8))
    assert asker.sent() == []


def test_a_timeout_cancels_too() -> None:
    asker = Asker()
    turn = asker.ask(timeout_s=5.0)
    asker.sent()
    asker.asks.expire(Instant(5.0, 7))
    assert isinstance(asker.error(), TurnTimeout)
    assert [(m["type"], m["turnId"]) for m in asker.sent()] == [("cancel", turn)]


def test_where_it_is_open_who_answers_the_agent_is_told() -> None:
    asker = Asker()
    first, second = asker.ask("ghost"), asker.ask("ghost")
    asker.sent()
    asker.hear("ack", second, "eve")
    for turn in (first, second):
        asker.asks.abandon(turn, Instant(0.0, 7))
    assert [m["to"] for m in asker.sent()] == ["ghost", "eve"]


def test_a_turn_that_ends_by_itself_cancels_nothing() -> None:
    asker = Asker()
    asker.hear("turn_end", asker.ask(), result=1)
    asker.hear("error", asker.ask(), error="no")
    asker.hear("error", asker.ask(), "relay", code="rate_limited")
    asker.ask()
    asker.go("bob")
    assert {m["type"] for m in asker.sent()} == {"direct"}


def test_whoever_leaves_cancels_all_that_it_has_asked() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.sent()
    waiting = asker.ask()
    asker.asks.leave(Left(), Instant(0.0, 7))
    assert [(m["type"], m["turnId"]) for m in asker.sent()] == [("cancel", turn)]
    ended = {effect.turn for effect in asker.effects if isinstance(effect, TurnEnded)}
    assert ended == {turn, waiting}


def test_without_a_connection_whoever_leaves_does_not_wait_for_one_to_say_so() -> None:
    asker = Asker()
    asker.ask()
    asker.sent()
    asker.outgoing.disconnected()
    asker.asks.leave(Left(), Instant(0.0, 7))
    assert isinstance(asker.error(), Left)
    assert len(asker.outgoing) == 0


def test_of_thousands_that_are_abandoned_at_once_every_one_is_cancelled() -> None:
    asker = Asker(messages=3)
    turns = []
    for _ in range(50):
        turns.append(asker.ask())
        asker.sent()
    for turn in turns:
        asker.asks.abandon(turn, Instant(0.0, 7))
    assert len(asker.outgoing) == 3
    cancelled = []
    while messages := asker.sent():
        cancelled += [message["turnId"] for message in messages]
        asker.asks.flush()
    assert cancelled == turns


def test_without_a_connection_and_no_waiting_for_one_a_cancel_is_left_out() -> None:
    asker = Asker(waits=False)
    turn = asker.ask()
    asker.sent()
    asker.outgoing.disconnected()
    asker.asks.abandon(turn, Instant(0.0, 7))
    asker.outgoing.is_connected = True
    asker.asks.flush()
    assert asker.sent() == []


def test_a_command_that_the_queue_gave_up_has_failed_at_once() -> None:
    asker = Asker(waits=False)
    first = asker.ask()
    asker.sent()
    second = asker.ask()
    outgoing = Outgoing(MembershipLimits(), waits=False, overfill=10)
    outgoing.is_connected = True
    for _ in range(2):
        outgoing.offer("{}")
    asker.asks.unsent(outgoing.disconnected()[:1])
    ended = asker.ended()
    assert ended.turn == second != first
    assert isinstance(ended.error, NotConnected)
    asker.asks.unsent([])


# Any of several -----------------------------------------------------------------------------------


def targets(asker: Asker) -> list[str | None]:
    return [m.get("targetInstanceId") for m in asker.sent()]


def test_any_of_several_is_one_of_those_with_the_fewest_commands() -> None:
    asker = Asker()
    asker.come("eve", "twin")
    turns = [asker.ask("twin", any=True) for _ in range(6)]
    assert targets(asker) == ["carol", "dave", "eve"] * 2
    asker.hear("turn_end", turns[1], "dave", result=1)
    asker.ask("twin", any=True)
    assert targets(asker) == ["dave"]
    asker.roll = 0.99
    asker.ask("twin", any=True)
    assert targets(asker) == ["eve"]


def test_chance_decides_between_those_that_have_equally_many() -> None:
    chosen = set()
    for roll in (0.0, 0.49, 0.51, 0.99):
        asker = Asker()
        asker.roll = roll
        asker.ask("twin", any=True)
        chosen.update(targets(asker))
    assert chosen == {"carol", "dave"}


def test_any_of_one_or_none_is_as_usual() -> None:
    asker = Asker()
    for agent in ("helper", "bob", "nobody"):
        asker.ask(agent, any=True)
    assert targets(asker) == ["bob", "bob", None]
    asker.ask("mine", any=True)
    assert isinstance(asker.error(), UnknownTarget)
    with pytest.raises(ValueError, match="any"):
        asker.ask("twin", any=True, peer="dave")


def test_if_the_chosen_leaves_before_a_sign_of_life_another_is_asked_once() -> None:
    asker = Asker()
    turn = asker.ask("twin", "go", any=True, at=1.0)
    asker.ask("twin", peer="carol")  # that one is meant, and no other
    assert targets(asker) == ["carol", "carol"]
    asker.go("carol")
    assert isinstance(asker.error(), TargetLeft)
    (again,) = asker.sent()
    assert (again["targetInstanceId"], again["turnId"]) == ("dave", turn)
    assert again["data"] == {"command": "go"}
    asker.hear("turn_end", turn, "carol", result="late")
    assert asker.effects == []
    asker.go("dave")
    assert isinstance(asker.error(), TargetLeft)
    assert asker.sent() == []


@pytest.mark.parametrize(("type", "count"), [("ack", 1), ("stream", 1), ("turn_end", 0)])
def test_the_one_that_left_and_works_on_it_after_all_is_told_to_stop_once(
    type: str, count: int
) -> None:
    asker = Asker()
    turn = asker.ask("twin", any=True)
    asker.go("carol")
    asker.come("carol", "twin")
    asker.sent()
    for _ in range(3):
        asker.hear(type, turn, "carol", result="first")
        asker.hear(type, turn, "eve", result="forged")
    assert [(m["type"], m["to"]) for m in asker.sent()] == [("cancel", "carol")] * count
    asker.hear("turn_end", turn, "dave", result="second")
    assert asker.ended().result == "second"


def test_after_a_sign_of_life_no_other_is_asked() -> None:
    asker = Asker()
    asker.hear("ack", asker.ask("twin", any=True), "carol")
    asker.sent()
    asker.go("carol")
    assert isinstance(asker.error(), TargetLeft)
    assert asker.sent() == []


def test_a_command_that_was_not_sent_goes_to_the_other_alone() -> None:
    asker = Asker()
    asker.ask("twin", any=True)
    asker.go("carol")
    assert targets(asker) == ["dave"]


def test_the_relays_word_about_the_one_that_left_comes_too_late() -> None:
    asker = Asker()
    turn = asker.ask("twin", any=True)
    asker.go("carol")
    late: dict[str, Any] = {
        "code": "unknown_target",
        "error": "no peer 'carol' is here",
        "target": "carol",
    }
    asker.hear("error", turn, "relay", **late)
    assert asker.effects == []
    asker.hear("error", turn, "relay", **{**late, "target": "dave"})
    assert isinstance(asker.error(), UnknownTarget)


@pytest.mark.parametrize("code", ["unknown_target", "not_served", "busy"])
def test_if_the_chosen_does_not_take_it_another_is_asked_once(code: str) -> None:
    asker = Asker()
    turn = asker.ask("twin", any=True)
    asker.sent()
    asker.hear("error", turn, "carol", code=code, error="not me")
    assert asker.effects == []
    assert targets(asker) == ["dave"]
    asker.hear("error", turn, "dave", code=code, error="nor me")
    assert "nor me" in str(asker.error())


def test_another_error_of_the_chosen_is_the_answer() -> None:
    asker = Asker()
    asker.hear("error", asker.ask("twin", any=True), "carol", error="it failed", code=["busy"])
    assert isinstance(asker.error(), TurnFailed)


def test_where_the_roster_knows_less_than_the_relay_its_list_helps() -> None:
    asker = Asker()
    turn = asker.ask("far", any=True)
    asker.sent()
    named: dict[str, Any] = {
        "code": "ambiguous_target",
        "error": "several",
        "peers": ["ann", "x", "y"],
    }
    asker.hear("error", turn, "relay", **named)
    assert targets(asker) == ["x"]
    asker.hear("turn_end", turn, "x", result=1)
    assert asker.ended().result == 1


def test_the_other_that_is_asked_finds_the_queue_as_every_command_does() -> None:
    asker = Asker(messages=1, turns=1)
    asker.ask("twin", any=True)
    asker.sent()
    asker.outgoing.offer('{"type":"x"}')
    asker.ask()  # waits for room
    asker.go("carol")
    assert isinstance(asker.error(), QueueFull)


# Nobody serves it ---------------------------------------------------------------------------------


def test_a_peer_that_does_not_serve_its_agent_says_so() -> None:
    asker = Asker()
    asker.hear("error", asker.ask(), code="not_served", error="nobody serves it")
    assert isinstance(asker.error(), NotServed)


def test_unless_another_program_under_its_id_has_taken_the_command() -> None:
    asker = Asker()
    turn = asker.ask()
    asker.hear("ack", turn)
    asker.hear("error", turn, code="not_served", error="nobody serves it")
    assert asker.effects == []
    asker.hear("turn_end", turn, result=1)
    assert asker.ended().result == 1
