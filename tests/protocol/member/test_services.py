"""Commands served: who gets which, what waits, what is refused, and how each is answered."""

import json
from typing import Any

import pytest

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.effects import Cancelled, Effect, Handle
from protocol.member.errors import QueueFull, TooLarge, TurnError
from protocol.member.messages import Message
from protocol.member.outgoing import Frame, Outgoing
from protocol.member.roster import Roster
from protocol.member.services import Services

PRIVATE: dict[str, Any] = {"answers": "direct"}
"""What a command says that is answered to its asker alone."""


class Server:
    """Peer `ann` with the agents `a` and `b`."""

    def __init__(self, *agents: str, waits: bool = True, **limits: float) -> None:
        bounds = MembershipLimits(**{"turns_max": 9, **limits})  # type: ignore[arg-type]
        self.effects: list[Effect] = []
        self.roster = Roster("ann", MembershipLimits())
        self.outgoing = Outgoing(bounds, waits=waits)
        self.outgoing.is_connected = True
        self.services = Services(
            "ann",
            bounds,
            roster=self.roster,
            announcements=Announcements("ann", agents or ("a", "b"), {}, None),
            outgoing=self.outgoing,
            emit=self.effects.append,
        )
        self.at = 0.0

    @property
    def now(self) -> Instant:
        return Instant(self.at, 7)

    def serve(self, *agents: str) -> int:
        """Serve these agents; without any: whatever is for this peer."""
        return self.services.serve(agents or None, self.now)

    def hear(
        self,
        to: str | None = "a",
        turn: str = "c",
        type: str = "direct",
        size: int = 1,
        **more: Any,
    ) -> None:
        named = {} if to is None else {"to": to}
        said = {"type": type, "from": "bob", "turnId": turn, "data": {"command": "x"}}
        self.services.note(Message({**said, **named, **more}), size, self.now)

    def come(self, peer: str, **data: Any) -> None:
        said = Message({"type": "presence", "from": peer, "data": {"agents": [], **data}})
        if self.roster.note(said, 0).has_changed:
            self.services.roster_changed(self.now)

    def go(self, peer: str) -> None:
        self.come(peer, status="offline")

    def wait(self, seconds: float) -> None:
        """Time passes; what is due happens at its time."""
        until = self.at + seconds
        while (due := self.services.deadline()) is not None and due <= until:
            self.at = due
            self.services.expire(self.now)
        self.at = until

    def cancelled(self) -> list[tuple[int, int]]:
        """Service and number of the commands that were cancelled since this was asked last."""
        cancelled = [e for e in self.effects if isinstance(e, Cancelled)]
        self.effects.clear()
        return [(effect.service, effect.command) for effect in cancelled]

    def handled(self) -> list[tuple[int, str, str | None]]:
        """Service, agent and turn of what was handed on since this was asked last."""
        handled = [e for e in self.effects if isinstance(e, Handle)]
        self.effects.clear()
        return [(handle.service, handle.agent, handle.message.turn_id) for handle in handled]

    def sent(self) -> list[dict[str, Any]]:
        messages = []
        while isinstance(frame := self.outgoing.next_frame(1e9, 0.0), Frame):
            messages.append(json.loads(frame.text))
        return messages

    def said(self) -> list[tuple[str, str, Any]]:
        """Type, turn and data of what leaves the queue."""
        return [(m["type"], m["turnId"], m["data"]) for m in self.sent()]


# Who gets which -----------------------------------------------------------------------------------


def test_a_command_goes_to_the_first_service_for_its_agent() -> None:
    server = Server()
    first, second = server.serve("a"), server.serve()
    server.hear("a", "1")
    server.hear("b", "2")
    server.hear("ann", "3")
    server.hear(None, "4")
    assert server.handled() == [
        *((first, "a", "1"), (second, "b", "2"), (second, "ann", "3"), (second, "ann", "4")),
    ]


def test_the_peers_id_stands_for_the_peer_itself() -> None:
    server = Server()
    itself = server.serve("ann")
    server.hear("ann", "1")
    server.hear("a", "2")
    assert server.handled() == [(itself, "ann", "1")]


def test_a_broadcast_is_for_every_agent_and_each_answers_once() -> None:
    server = Server()
    first, second = server.serve("a", "c", "a"), server.serve()
    server.hear(None, "1", "broadcast")
    assert server.handled() == [(first, "a", "1"), (first, "c", "1"), (second, "b", "1")]


def test_a_broadcast_to_a_peer_without_agents_is_for_the_peer() -> None:
    server = Server("")
    server.services._announcements.want(server.services._announcements.made([], None))
    service = server.serve()
    server.hear("whoever", "1", "broadcast")
    assert server.handled() == [(service, "ann", "1")]


@pytest.mark.parametrize(
    "more",
    [
        {"turnId": None},
        {"data": {}},
        {"data": "x"},
        {"type": "invoke"},
        {"from": "ann"},
        {"instanceId": "ann"},
    ],
)
def test_what_is_no_command_or_the_peers_own_is_not_served(more: dict[str, Any]) -> None:
    server = Server()
    server.serve()
    server.hear(**{"type": "direct", **more})
    assert server.effects == []
    assert server.sent() == []


def test_a_command_for_an_agent_that_is_nowhere_is_refused_where_all_is_served() -> None:
    server = Server()
    server.serve("a")
    server.hear("typo", "1")
    assert server.sent() == []  # another service may come
    server.serve()
    server.hear("typo", "2")
    errors = {turn: data["error"] for _, turn, data in server.said()}
    assert errors == {"1": "there is no agent typo here", "2": "there is no agent typo here"}


def test_agents_of_another_connection_of_the_peer_are_left_to_it() -> None:
    server = Server()
    server.serve()
    own = {"type": "presence", "from": "ann", "data": {"agents": ["a", "b", "c"]}}
    server.roster.note_own(Message(own), is_anothers=True)
    server.hear("c")
    assert server.sent() == []
    assert server.handled() == []


def test_a_service_that_has_stopped_gets_nothing_more() -> None:
    server = Server()
    service = server.serve("a")
    server.services.stop(service, server.now, cancels=False)
    server.hear("a", "1")
    assert server.handled() == []


def test_who_serves_must_be_a_list() -> None:
    with pytest.raises(TypeError, match="list"):
        Server().services.serve("a", Instant(0.0, 0))


# What waits ---------------------------------------------------------------------------------------


def test_a_command_waits_for_a_service_that_comes_in_time() -> None:
    server = Server(serve_within_s=20)
    server.hear("a", "1")
    server.at = 10.0
    server.hear("a", "2")
    assert server.services.deadline() == 20.0
    server.at = 20.0
    service = server.serve()
    assert server.handled() == [(service, "a", "2")]
    server.services.finish(1, None, server.now)
    assert server.services.deadline() is None


def test_what_has_waited_long_enough_is_forgotten() -> None:
    server = Server(serve_within_s=20)
    server.hear("a", "1")
    server.services.expire(Instant(19.9, 7))
    assert server.services.deadline() == 20.0
    server.services.expire(Instant(20.0, 7))
    assert server.services.deadline() is None
    server.serve()
    assert server.handled() == []


def refused(server: Server, *hears: str, type: str = "direct", **more: Any) -> list[Any]:
    """Turn and code of what is refused after commands to these agents have waited long enough."""
    for to in hears:
        server.hear(to, to, type, **more)
    server.at += 20.0
    server.services.expire(server.now)
    return [(turn, data["code"]) for type, turn, data in server.said() if type == "error"]


def test_the_asker_of_an_agent_that_nobody_serves_is_told() -> None:
    server = Server()
    assert refused(server, "a", "typo") == [("a", "not_served"), ("typo", "unknown_target")]
    server.serve("b")
    assert refused(server, "a") == [("a", "not_served")]
    assert refused(server, "b") == []


def test_what_the_program_may_answer_by_itself_is_not_refused() -> None:
    server = Server()
    assert refused(server, "ann") == []
    assert refused(server, "a", type="broadcast") == []
    server.hear("a", "1")
    server.services.answered("1")
    assert refused(server) == []


def test_what_another_program_under_the_same_id_may_serve_is_not_refused() -> None:
    server = Server()
    own = {"type": "presence", "from": "ann", "data": {"agents": ["a", "b", "c"]}}
    server.roster.note_own(Message(own), is_anothers=True)
    assert refused(server, "a", "c") == []
    assert refused(server, "typo") == [("typo", "unknown_target")]


def test_a_broadcast_waits_for_the_agents_not_served_yet() -> None:
    server = Server()
    first = server.serve("a")
    server.hear(None, "1", "broadcast")
    second = server.serve("a", "b")
    assert server.handled() == [(first, "a", "1"), (second, "b", "1")]


def test_a_command_that_the_program_answers_itself_waits_no_more() -> None:
    server = Server()
    server.hear("a", "1")
    server.hear("a", "2")
    server.services.answered("1")
    service = server.serve()
    assert server.handled() == [(service, "a", "2")]


def test_unless_some_of_its_agents_have_it_already() -> None:
    server = Server()
    server.serve("a")
    server.hear(None, "1", "broadcast")
    server.services.answered("1")
    second = server.serve("b")
    assert server.handled()[-1] == (second, "b", "1")


def test_what_waits_is_bounded_and_the_oldest_go() -> None:
    server = Server(turns_max=2)
    for turn in "1234":
        server.hear("a", turn)
    server.serve()
    assert [turn for _, _, turn in server.handled()] == ["3", "4"]
    server = Server(unread_bytes_max=1024)
    for turn in "123":
        server.hear("a", turn, size=600)
    server.serve()
    assert [turn for _, _, turn in server.handled()] == ["3"]


# How each is answered -----------------------------------------------------------------------------


def test_a_command_is_acknowledged_at_once_and_answered_in_the_words_of_pages() -> None:
    server = Server()
    server.serve()
    origin: dict[str, Any] = {"from": "tab-agent", "instanceId": "page"}
    server.hear("a", "1", **origin)
    server.services.stream(1, "some", server.now)
    server.services.stream(1, "more", server.now)
    server.services.finish(1, None, server.now)
    named = {"from": "a", "to": "tab-agent", "turnId": "1", "instanceId": "ann", "timestamp": 7}
    assert server.sent() == [
        {**named, "type": "ack", "data": {}},
        {**named, "type": "stream", "data": {"chunk": "some", "chunkNum": 0}},
        {**named, "type": "stream", "data": {"chunk": "more", "chunkNum": 1}},
        {**named, "type": "turn_end", "data": {"result": None, "chunks": 2}},
    ]


def test_the_peer_itself_answers_under_its_own_name() -> None:
    server = Server()
    server.serve()
    server.hear("ann")
    (ack,) = server.sent()
    assert ack["from"] == "ann"
    assert "instanceId" not in ack


def test_a_failure_is_told_in_a_thousand_characters_and_once() -> None:
    server = Server()
    server.serve()
    server.hear()
    server.services.fail(1, "y" * 2000, server.now)
    server.services.fail(1, "again", server.now)
    assert [data for _, _, data in server.said()] == [{}, {"error": "y" * 1000}]


def test_nothing_more_is_said_to_a_command_that_is_over() -> None:
    server = Server()
    server.serve()
    server.hear()
    server.services.finish(1, 1, server.now)
    with pytest.raises(TurnError, match="over"):
        server.services.stream(1, "x", server.now)
    with pytest.raises(TurnError, match="over"):
        server.services.finish(1, 2, server.now)


def test_a_result_that_cannot_be_sent_leaves_the_command_to_be_failed() -> None:
    server = Server()
    server.serve()
    server.hear()
    for result, error in ((object(), TypeError), ("x" * 2**20, TooLarge)):
        with pytest.raises(error):
            server.services.finish(1, result, server.now)
    server.services.fail(1, "no", server.now)
    assert [type for type, _, _ in server.said()] == ["ack", "error"]


def test_a_chunk_that_cannot_be_sent_has_no_number() -> None:
    server = Server()
    server.serve()
    server.hear()
    with pytest.raises(TooLarge):
        server.services.stream(1, "x" * 2**20, server.now)
    server.services.stream(1, "y", server.now)
    assert server.said()[-1][2]["chunkNum"] == 0


def test_beyond_the_bound_it_is_busy_until_one_is_over() -> None:
    server = Server(turns_max=1)
    server.serve()
    server.hear("a", "1")
    server.hear("a", "2")
    assert [turn for _, _, turn in server.handled()] == ["1"]
    _, (type, turn, data) = server.said()
    assert (type, turn, data["code"]) == ("error", "2", "busy")
    server.services.fail(1, "no", server.now)
    server.hear("a", "3")
    assert [turn for _, _, turn in server.handled()] == ["3"]


def test_cancelling_a_service_tells_who_waits_for_it_and_nobody_else() -> None:
    server = Server()
    service = server.serve("a")
    server.serve("b")
    server.hear("a", "1")
    server.hear("b", "2")
    server.sent()
    server.services.stop(service, server.now, cancels=True)
    ((type, turn, data),) = server.said()
    assert (type, turn) == ("error", "1")
    assert "cancelled" in data["error"]
    server.services.finish(2, 1, server.now)


def test_acks_and_refusals_are_sent_though_the_queue_is_full_but_no_results() -> None:
    server = Server(queue_messages_max=1, turns_max=3)
    server.outgoing.offer('{"type":"x","turnId":"","data":0}')
    server.serve()
    server.hear("a", "1")
    server.hear("a", "2")
    with pytest.raises(QueueFull):
        server.services.finish(1, 1, server.now)
    server.services.fail(1, "no", server.now)
    assert [type for type, _, _ in server.said()] == ["x", "ack", "ack", "error"]


def test_without_a_connection_and_no_waiting_for_one_nobody_is_told() -> None:
    server = Server(waits=False)
    server.serve()
    server.outgoing.disconnected()
    server.hear()
    assert len(server.handled()) == 1
    server.services.fail(1, "no", server.now)
    assert server.sent() == []


def test_after_the_end_nothing_is_under_way_or_waits() -> None:
    server = Server()
    server.serve("b")
    server.hear("a", "1")
    server.hear("b", "2")
    server.services.end()
    assert server.services.deadline() is None
    server.sent()
    server.services.fail(1, "no", server.now)
    assert server.sent() == []


def test_whoever_asks_so_is_answered_alone() -> None:
    server = Server()
    server.serve()
    server.hear("a", "1", **{"from": "tab-agent", "instanceId": "page", **PRIVATE})
    server.services.stream(1, "some", server.now)
    server.services.finish(1, "all", server.now)
    named: dict[str, Any] = {
        **{"type": "direct", "from": "a", "to": "page", "targetInstanceId": "page"},
        **{"turnId": "1", "instanceId": "ann", "timestamp": 7},
    }
    assert server.sent() == [
        {**named, "answer": "ack", "data": {}},
        {**named, "answer": "stream", "data": {"chunk": "some", "chunkNum": 0}},
        {**named, "answer": "turn_end", "data": {"result": "all", "chunks": 1}},
    ]


def test_refusals_go_to_the_asker_alone_too() -> None:
    server = Server(turns_max=1)
    server.serve()
    for turn in "12":
        server.hear("a", turn, **PRIVATE)
    server.hear("typo", "3", **PRIVATE)
    assert [(m["type"], m["answer"], m["turnId"]) for m in server.sent()] == [
        *(("direct", "ack", "1"), ("direct", "error", "2"), ("direct", "error", "3")),
    ]


@pytest.mark.parametrize("answers", [None, "all", True, ["direct"], "Direct"])
def test_whoever_does_not_ask_so_is_answered_for_all(answers: Any) -> None:
    server = Server()
    server.serve()
    server.hear("a", "1", answers=answers)
    assert [m["type"] for m in server.sent()] == ["ack"]


# Signs of life ------------------------------------------------------------------------------------


def acks_after(server: Server, seconds: float) -> int:
    server.sent()
    server.wait(seconds)
    return len(server.sent())


def test_while_an_agent_thinks_its_peer_gives_signs_of_life() -> None:
    server = Server(ack_every_s=10)
    server.serve()
    server.hear("a", "1")
    assert server.services.deadline() == 10.0
    assert acks_after(server, 9.9) == 0
    assert acks_after(server, 50.2) == 6
    server.wait(0.0)
    server.services.finish(1, 1, server.now)
    assert acks_after(server, 100.0) == 0
    assert server.services.deadline() is None


def test_a_failed_command_gives_no_sign_of_life() -> None:
    server = Server()
    server.serve()
    server.hear("a", "1")
    server.services.fail(1, "no", server.now)
    assert acks_after(server, 100.0) == 0


def test_for_all_to_read_there_is_none_after_the_first_chunk() -> None:
    server = Server(ack_every_s=10)
    server.serve()
    server.hear("a", "1")
    server.hear("b", "2", **PRIVATE)
    for number in (1, 2):
        server.services.stream(number, "x", server.now)
    server.sent()
    server.wait(30.0)
    assert [(m["turnId"], m["answer"]) for m in server.sent()] == [("2", "ack")] * 3
    server.services.stream(2, "y", server.now)
    assert acks_after(server, 9.9) == 0
    assert acks_after(server, 0.2) == 1


def test_whoever_was_asleep_gives_one_sign_of_life_and_not_all_of_them() -> None:
    server = Server(ack_every_s=10)
    server.serve()
    server.hear("a", "1")
    server.sent()
    server.at = 1000.0
    server.services.expire(server.now)
    assert len(server.sent()) == 1
    assert server.services.deadline() == 1010.0


def test_without_a_connection_signs_of_life_do_not_pile_up() -> None:
    server = Server(ack_every_s=10)
    server.serve()
    server.hear("a", "1")
    server.sent()
    server.outgoing.disconnected()
    server.wait(100.0)
    assert len(server.outgoing) == 0
    server.outgoing.is_connected = True
    assert acks_after(server, 10.0) == 1


# Nobody waits any more ----------------------------------------------------------------------------


def cancel(server: Server, turn: str, sender: str = "bob", **more: Any) -> None:
    said = {"type": "cancel", "from": sender, "to": "ann", "turnId": turn, **more}
    server.services.note(Message(said), 1, server.now)


def test_an_asker_may_cancel_and_everybody_sees_the_end() -> None:
    server = Server()
    first, second = server.serve("a"), server.serve("b")
    server.hear(None, "1", "broadcast")
    server.hear("a", "2")
    server.sent()
    cancel(server, "1")
    assert server.cancelled() == [(first, 1), (second, 2)]
    assert [(type, turn, data["code"]) for type, turn, data in server.said()] == [
        *(("error", "1", "cancelled"), ("error", "1", "cancelled")),
    ]
    cancel(server, "1")
    with pytest.raises(TurnError, match="over"):
        server.services.finish(1, "late", server.now)
    server.services.fail(1, "late", server.now)
    assert server.sent() == []
    server.services.finish(3, "in time", server.now)


def test_nobody_else_may_cancel() -> None:
    server = Server()
    server.serve()
    agent: dict[str, Any] = {"from": "agent", "instanceId": "bob"}
    server.hear("a", "1", **agent)
    cancel(server, "1", "eve")
    cancel(server, "1", "bob", instanceId="eve")
    cancel(server, "2")
    server.services.note(Message({"type": "cancel", "from": "bob", "turnId": None}), 1, server.now)
    assert server.cancelled() == []
    cancel(server, "1")
    assert len(server.cancelled()) == 1


def test_what_waits_for_a_service_may_be_cancelled() -> None:
    server = Server()
    for turn in "12":
        server.hear("a", turn)
    cancel(server, "1")
    service = server.serve()
    assert server.handled() == [(service, "a", "2")]


def test_an_asker_that_stays_away_has_cancelled() -> None:
    server = Server(asker_back_within_s=6)
    server.come("bob")
    service = server.serve()
    server.hear("a", "1", **PRIVATE)
    server.hear("a", "2")
    server.sent()
    server.go("bob")
    server.wait(5.9)
    assert server.cancelled() == []
    server.wait(0.2)
    assert server.cancelled() == [(service, 1), (service, 2)]
    assert [turn for _, turn, _ in server.said()] == ["2"]  # nobody would hear the other
    assert server.services.deadline() is None


def test_an_asker_that_comes_back_has_not() -> None:
    server = Server(asker_back_within_s=6)
    server.serve()
    server.hear("a", "1")
    server.come("bob")  # seen after its command
    for _ in range(3):
        server.go("bob")
        server.wait(5.0)
        server.come("bob")
    server.wait(100.0)
    assert server.cancelled() == []


def test_an_asker_that_was_never_seen_has_not_left() -> None:
    server = Server()
    server.serve()
    server.hear("a", "1")
    server.come("eve")
    server.go("eve")
    server.wait(100.0)
    assert server.cancelled() == []


def test_an_asker_that_is_away_gets_no_signs_of_life() -> None:
    server = Server(ack_every_s=1, asker_back_within_s=60)
    server.come("bob")
    server.serve()
    server.hear("a", "1")
    server.go("bob")
    assert acks_after(server, 30.0) == 0
    server.come("bob")
    assert acks_after(server, 10.0) == 10
