"""Messages as programs see them: what is read, what is written, what is no message."""

import json
from typing import Any

import pytest

from protocol.instant import Instant
from protocol.member.errors import (
    AmbiguousTarget,
    AnswerGap,
    NotServed,
    TurnFailed,
    TurnRefused,
    UnknownTarget,
)
from protocol.member.messages import (
    Message,
    RemotePeer,
    compose,
    copy_of,
    is_command,
    is_offline,
    is_private,
    opened,
    reply_to,
    sentence_of,
    text_of,
    turn_error,
    write_message,
)

NOW = Instant(1.0, 5)


def test_half_a_character_is_written() -> None:
    message = {"type": "stream", "data": {"chunk": "\ud83d"}}
    assert json.loads(write_message(message)) == message


def test_what_is_no_number_is_written_as_null_beside_half_a_character_too() -> None:
    for beside in ("x", "\ud83d"):
        written = write_message([beside, float("inf"), {"a": (float("nan"), 1.5)}])
        assert json.loads(written) == [beside, None, {"a": [None, 1.5]}]


def test_what_others_say_instead_of_text_is_shown_as_far_as_it_can_be() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert text_of(deep, "nothing") == "nothing"
    assert text_of(10**4000) == str(10**4000)
    assert sentence_of({"a": "z" * 5000}) == '{"a":"' + "z" * 994


def test_what_is_no_json_is_not_written() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for wrong in (object(), endless, {"n": {1, 2}.__iter__()}):
        with pytest.raises(TypeError):
            write_message({"type": "a", "data": wrong})


def test_a_copy_is_what_arrives() -> None:
    agent = {"agentId": "a", "tools": ("x", "y")}
    assert copy_of([agent]) == [{"agentId": "a", "tools": ["x", "y"]}]


def test_what_a_message_says_is_read_without_trusting_it() -> None:
    message = Message({"type": "ack", "from": 7, "to": [], "turnId": {}, "data": "text"})
    assert (message.sender, message.origin, message.to, message.turn_id) == (None,) * 4
    assert message.word("command") is None
    named = Message({"type": "ack", "from": "coder", "instanceId": "bob", "data": {"a": 1}})
    assert (named.sender, named.origin, named.word("a")) == ("coder", "bob", 1)
    assert Message({"type": "ack", "from": "bob", "instanceId": 7}).origin == "bob"


def test_a_peer_has_the_agents_that_have_an_id() -> None:
    agents = ["a", {"agentId": 5, "id": "x"}, "", 7, {"name": "n"}, {}]
    peer = RemotePeer.of(Message({"type": "presence", "from": "bob", "data": {"agents": agents}}))
    assert peer.agents == ("a", "x", "n")
    nothing: tuple[object, ...] = (None, 7, [], {"agents": "a"})
    for data in nothing:
        assert RemotePeer.of(Message({"type": "presence", "data": data})).agents == ()


def test_a_peer_is_offline_if_it_says_so() -> None:
    said = [{"status": "offline"}, {"status": "online"}, {}, None]
    seen = [is_offline(Message({"type": "presence", "data": data})) for data in said]
    assert seen == [True, False, False, False]


def test_a_command_has_a_turn_and_asks_for_something() -> None:
    command = {"type": "direct", "turnId": "t", "data": {"command": "x"}}
    assert is_command(Message(command))
    assert is_command(Message({**command, "type": "broadcast"}))
    assert is_command(Message({**command, "data": {"command": 0}}))
    wrongs: tuple[dict[str, object], ...] = (
        {"type": "stream"},
        {"turnId": None},
        {"data": {}},
        {"data": {"command": None}},
    )
    for wrong in wrongs:
        assert not is_command(Message({**command, **wrong}))


def test_an_error_of_the_relay_says_what_it_is() -> None:
    def error(sender: str, **data: Any) -> Any:
        return turn_error(Message({"type": "error", "from": sender, "data": data}))

    assert type(error("bob", code="ambiguous_target", error="x")) is TurnFailed
    assert type(error("relay", code="unknown_target", error="x")) is UnknownTarget
    several = error("relay", code="ambiguous_target", error="x", peers=["a", "b"])
    assert isinstance(several, AmbiguousTarget)
    assert several.peers == ("a", "b")
    assert error("relay", code="ambiguous_target", error="x", peers="ab").peers == ()
    refused = error("relay", code="rate_limited", error="slow")
    assert isinstance(refused, TurnRefused)
    assert (refused.code, str(refused)) == ("rate_limited", "slow (rate_limited)")
    assert "without words" in str(error("bob"))


def test_a_peer_may_say_that_it_has_no_such_agent_or_does_not_serve_it() -> None:
    kinds = {"unknown_target": UnknownTarget, "not_served": NotServed, "missed": AnswerGap}
    for code, kind in kinds.items():
        said = {"type": "error", "from": "bob", "data": {"code": code, "error": "x"}}
        assert type(turn_error(Message(said))) is kind


def test_an_answer_to_the_asker_alone_is_read_as_what_it_answers() -> None:
    command = Message(
        {
            **{"type": "direct", "from": "tab", "instanceId": "ann", "turnId": "t"},
            "answers": "direct",
        }
    )
    reply = reply_to(command, "coder", "stream", {"chunk": "a"})
    assert reply == {
        **{"type": "direct", "from": "coder", "to": "ann", "targetInstanceId": "ann"},
        **{"answer": "stream", "turnId": "t", "data": {"chunk": "a"}},
    }
    read = opened(Message(reply))
    assert (read.type, is_private(read)) == ("stream", True)
    public = Message(reply_to(Message({"from": "tab", "turnId": "t"}), "coder", "ack", {}))
    assert public.fields == {
        **{"type": "ack", "from": "coder", "to": "tab", "turnId": "t", "data": {}}
    }
    assert opened(public) is public
    assert not is_private(public)


@pytest.mark.parametrize("answer", [None, "", "direct", "presence", 5, ["ack"], {"ack": 1}])
def test_what_is_no_answer_is_read_as_it_came(answer: Any) -> None:
    message = Message({"type": "direct", "answer": answer})
    assert opened(message) is message


def test_what_should_be_text_becomes_text() -> None:
    values = ["", "a", None, 0, True, {"a": [1]}]
    assert [text_of(value, "-") for value in values] == ["", "a", "-", "0", "true", '{"a":[1]}']


def test_a_message_is_completed_by_who_sends_it_and_when() -> None:
    assert json.loads(compose("ann", {"type": "a"}, NOW)) == {
        **{"type": "a", "from": "ann", "timestamp": 5}
    }
    named = json.loads(compose("ann", {"type": "a", "from": "coder"}, NOW))
    assert named["instanceId"] == "ann"
    given = {"type": "a", "from": "coder", "instanceId": "x", "timestamp": 1}
    assert json.loads(compose("ann", given, NOW)) == given
    assert "instanceId" not in json.loads(compose("ann", {"type": "a", "from": "ann"}, NOW))


@pytest.mark.parametrize("type", ["presence", "heartbeat", "capabilities"])
def test_what_the_peer_sends_by_itself_is_not_composed(type: str) -> None:
    with pytest.raises(ValueError, match="announce"):
        compose("ann", {"type": type}, NOW)
