"""Commands served: who gets which, what waits, what is refused, and how each is answered."""

import json
from typing import Any

import pytest

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.effects import Effect, Handle
from protocol.member.errors import QueueFull, TooLarge, TurnError
from protocol.member.messages import Message
from protocol.member.outgoing import Frame, Outgoing
from protocol.member.roster import Roster
from protocol.member.services import Services


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
    server.roster.note_own(Message(own))
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
    assert server.services.deadline() is None


def test_what_has_waited_long_enough_is_forgotten() -> None:
    server = Server(serve_within_s=20)
    server.hear("a", "1")
    server.services.expire(19.9)
    assert server.services.deadline() == 20.0
    server.services.expire(20.0)
    assert server.services.deadline() is None
    server.serve()
    assert server.handled() == []


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
        {**named, "type": "turn_end", "data": {"result": None}},
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
