"""The reference model against expectations written by hand, rule by rule of docs/protocol.md."""

import json
from typing import Any

import pytest

from protocol.limits import Limits
from protocol.verification.model import (
    BINARY,
    Closed,
    Disagreement,
    Expected,
    Made,
    Model,
    Roster,
    Untouched,
    agent_id,
    matches,
    read,
    union,
)


def text(type: str, **fields: Any) -> bytes:
    if "sender" in fields:
        fields = {"from": fields.pop("sender"), **fields}
    return json.dumps({"type": type, **fields}).encode()


def presence(peer: str, *agents: Any) -> bytes:
    return text("presence", sender=peer, data={"agents": list(agents)})


def mesh(*peers: str, limits: Limits | None = None) -> Model:
    """A mesh with connections 1, 2, ... of these peers, who have all met."""
    model = Model(limits or Limits())
    for c, peer in enumerate(peers, start=1):
        model.opened(c)
        model.received(c, [presence(peer)])
    model.take()
    return model


def shown(expected: dict[int, list[Expected]]) -> dict[int, list[Any]]:
    """Untouched texts as bytes, error codes as words, what else is made as values."""

    def one(what: Expected) -> Any:
        match what:
            case Untouched(text):
                return text
            case Closed(code):
                return code
            case Roster(presences):
                return [one(its) for its in presences]
            case Made({"type": "error", "data": data}):
                return "/".join(sorted(data.fields["code"].values))
            case Made(value):
                return value
        raise AssertionError(what)

    return {c: [one(what) for what in its] for c, its in expected.items()}


def say(model: Model, c: int, *messages: bytes | None) -> dict[int, list[Any]]:
    model.received(c, messages)
    return shown(model.take())


def test_a_newcomer_gets_its_own_presence_and_then_the_roster() -> None:
    model = mesh("a", "b")
    model.opened(3)
    assert say(model, 3, presence("c")) == {
        1: [presence("c")],
        2: [presence("c")],
        3: [presence("c"), [presence("a"), presence("b")]],
    }
    assert say(model, 3, presence("c")) == {c: [presence("c")] for c in (1, 2, 3)}


def test_tabs_are_one_peer_and_the_last_says_offline_once() -> None:
    model = mesh("a", "b")
    model.opened(3)
    both = {"type": "presence", "from": "a", "data": {"agents": ["x", "y"]}}
    say(model, 1, presence("a", "x"))
    assert say(model, 3, presence("a", "y")) == {1: [both], 2: [both], 3: [both, [presence("b")]]}
    assert say(model, 1, text("ack", sender="a")) == {2: [text("ack", sender="a")]}
    assert say(model, 2, text("direct", sender="b", to="y")).keys() == {1, 3}
    model.ended(1, "left")
    fewer = {"type": "presence", "from": "a", "data": {"agents": ["y"]}}
    assert shown(model.take()) == {2: [fewer], 3: [fewer], 1: [1000]}
    model.ended(3, "crashed")
    model.ended(3, "left")
    gone = shown(model.take())
    assert gone[2][0]["data"] == {"status": "offline", "reason": "crashed", "agents": []}
    assert (len(gone[2]), gone[3]) == (1, [1011])


def test_the_origin_is_made_true_or_refused() -> None:
    model = mesh("a", "b")
    agent = {"type": "ack", "from": "agent", "instanceId": "a"}
    assert say(model, 1, text("ack", sender="agent")) == {2: [agent]}
    assert say(model, 1, text("ack")) == {2: [{"type": "ack", "from": "a"}]}
    for forged in ({"sender": "b"}, {"sender": "relay"}, {"instanceId": "b"}):
        assert say(model, 1, text("ack", **forged)) == {1: ["spoofed"]}


def test_an_array_is_its_messages_for_the_rate_too() -> None:
    limits = Limits(messages_per_s=1, messages_burst=3)
    ack = text("ack", sender="a")
    for counts in ((1, 1, 1), (2, 1), (3,)):
        model = mesh("a", "b", limits=limits)
        model.now = 10.0
        for count in counts:
            array = b"[" + b",".join([ack] * count) + b"]"
            assert say(model, 1, array) == {2: [ack] * count}
        assert say(model, 1, ack) == {1: ["rate_limited"]}


def test_a_direct_goes_to_an_instance_a_peer_or_the_one_other_host_of_an_agent() -> None:
    model = mesh("a", "b", "c")
    say(model, 1, presence("a", "mine"))
    say(model, 2, presence("b", "mine", "one", "two"))
    say(model, 3, presence("c", {"agentId": "two"}))
    for fields in ({"to": "b"}, {"to": "one"}, {"to": "two", "targetInstanceId": "b"}):
        sent = text("direct", sender="a", **fields)
        assert say(model, 1, sent) == {2: [sent]}
    assert say(model, 1, text("direct", to="mine")) == {}
    assert say(model, 1, text("direct", to="two")) == {1: ["ambiguous_target"]}
    assert say(model, 1, text("direct", to="nobody")) == {1: ["unknown_target"]}
    assert say(model, 1, text("direct")) == {1: ["bad_field"]}


def test_a_direct_between_local_agents_stays_at_home() -> None:
    model = mesh("a", "b")
    say(model, 1, presence("a", "mine"))
    say(model, 2, presence("b", "one"))
    assert say(model, 1, text("direct", sender="local", to="one")) == {1: ["unknown_target"]}
    for sender, fields in (("mine", {}), ("local", {"instanceId": "a"})):
        sent = text("direct", sender=sender, to="one", **fields)
        assert say(model, 1, sent).keys() == {2}
    for fields in ({"to": "b"}, {"to": "one", "targetInstanceId": "b"}):
        assert say(model, 1, text("direct", sender="local", **fields)).keys() == {2}


def test_what_is_not_wanted_is_left_out_of_what_goes_to_everyone() -> None:
    model = mesh("a", "b", "c", limits=Limits(wishes_max=1))
    wish = {"others": False, "topics": ["t/*", "u"], "types": ["ack", "x"]}
    wants = text("presence", sender="b", data={"agents": ["mine"], "subscribe": wish})
    assert say(model, 2, wants) == {c: [wants] for c in (1, 2, 3)}
    for fields in ({}, {"topic": "t/1"}, {"topic": 7}, {"to": "b"}, {"to": "mine"}, {"to": "?"}):
        assert say(model, 1, text("ack", sender="a", **fields)).keys() == {2, 3}
    for fields in ({"topic": "t"}, {"to": "c"}, {"to": "b", "targetInstanceId": "c"}):
        assert say(model, 1, text("ack", sender="a", **fields)).keys() == {3}
    assert say(model, 1, text("stream", sender="a")).keys() == {3}
    assert say(model, 1, text("direct", sender="a", to="b", topic="t")).keys() == {2}
    another = text("presence", sender="c", data={"subscribe": {"types": []}})
    assert say(model, 3, another) == {3: ["too_many_wishes"]}
    assert say(model, 3, text("presence", sender="c", data={"subscribe": wish})).keys() == {1, 2, 3}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "malformed"),
        (b'{"type":"ack","n":NaN}', "malformed"),
        (b'{"type":"ack","n":' + b"[" * 200 + b"]" * 200 + b"}", "malformed"),
        (b'{"type":"ack","n":' + b"1" * 5000 + b"}", "malformed"),
        (b"\xff", "malformed"),
        (b"[]", "not_an_object"),
        (b"{}", "bad_field"),
        (b'{"type":"ack","to":1}', "bad_field"),
        (b'{"type":"ack","to":"\\ud83d"}', "bad_field"),
        (BINARY, "binary"),
        (presence("b"), "identity_fixed"),
        (presence("a", "relay"), "spoofed"),
        (presence("a", ""), "bad_field"),
        (presence("a", *map(str, range(300))), "too_many_agents"),
        (text("presence", sender="a", data=[]), "bad_field"),
        (text("presence", sender="a", data={"subscribe": {"topics": ["a*b"]}}), "bad_field"),
        (text("presence", sender="a", data={"subscribe": {"types": ["x" * 300]}}), "too_long"),
        (text("presence", sender="a", data={"x": "x" * 70_000}), "too_large"),
        (text("x" * 300), "too_long"),
        (text("ack", data="x" * 2**20), "too_large"),
    ],
)
def test_what_is_wrong_is_answered_and_reaches_nobody(sent: bytes | None, code: str) -> None:
    model = mesh("a", "b")
    assert say(model, 1, sent) == {1: [code]}
    assert say(model, 1, text("ack", sender="a")) == {2: [text("ack", sender="a")]}


@pytest.mark.parametrize(
    ("given", "added"),
    [({"sender": "a"}, 0), ({}, len(',"from":"a"')), ({"sender": "x"}, len(',"instanceId":"a"'))],
)
def test_the_bound_of_a_message_holds_for_what_is_delivered(
    given: dict[str, str], added: int
) -> None:
    model = mesh("a", "b", limits=Limits(message_bytes_max=2048, presence_bytes_max=1024))
    room = 2048 - added - len(text("ack", **given, data=""))
    assert say(model, 1, text("ack", **given, data="x" * room)).keys() == {2}
    assert say(model, 1, text("ack", **given, data="x" * (room + 1))) == {1: ["too_large"]}


def test_before_presence_only_capabilities_are_answered() -> None:
    model = mesh("a")
    model.opened(2)
    assert say(model, 2, text("ack")) == {2: ["not_present"]}
    (answer,) = say(model, 2, text("capabilities", turnId=1))[2]
    assert (answer["type"], answer["from"]) == ("capabilities_response", "relay")
    assert matches(answer["turnId"], read(b"1"))


def test_what_carries_credentials_and_heartbeats_are_kept() -> None:
    model = mesh("a", "b")
    assert say(model, 1, text("configure"), text("relay-log"), text("heartbeat", sender="a")) == {}


def test_heartbeats_repeat_the_presence_when_agents_change_and_about_every_20_s() -> None:
    model = mesh("a", "b")
    changed = {"type": "presence", "from": "a", "data": {"agents": ["x"]}}
    assert say(model, 1, text("heartbeat", data={"agents": ["x"]})) == {2: [changed]}
    model.now = 17.25
    assert say(model, 1, text("heartbeat")) == {}
    model.now = 17.5
    assert say(model, 1, text("heartbeat")) == {2: [changed]}
    assert say(model, 1, text("heartbeat")) == {}


def test_the_silent_are_due_after_30_s_and_pongs_count_for_those_who_ask() -> None:
    model = mesh("a", "b", "c")
    say(model, 3, text("presence", sender="c", data={"keepalive": "pong"}))
    model.opened(4)
    model.now = 10.0
    say(model, 1, b"nonsense")
    model.ponged(2)
    model.ponged(3)
    assert model.due(29.75) == {}
    assert model.due(40.0) == {1: 40.0, 2: 30.0, 3: 40.0, 4: 30.0}
    model.now = 30.0
    model.elapsed([("closed", 4), ("closed", 2)], late_s=0.0)
    assert shown(model.take())[2] == [1008]
    model.now = 42.0
    with pytest.raises(Disagreement):
        model.elapsed([("closed", 1)], late_s=5.0)
    with pytest.raises(Disagreement):
        model.elapsed([("closed", 1), ("closed", 3)], late_s=1.0)


def test_what_is_announced_too_soon_is_announced_later_as_it_is_in_the_end() -> None:
    model = mesh("a", "b", limits=Limits(announcements_burst=1, announcements_per_s=0.5))
    say(model, 1, presence("a", "x"))
    beat = text("heartbeat", data={"agents": ["z"]})
    assert say(model, 1, presence("a", "y"), presence("a", "later"), beat, beat) == {}
    model.now = 1.0
    assert say(model, 1, text("heartbeat")) == {}
    for happened in ([("announced", 1)], [("announced", 2)]):
        with pytest.raises((Disagreement, AssertionError)):
            model.elapsed(happened, late_s=0.0)
    model.now = 2.0
    with pytest.raises(Disagreement):
        model.elapsed([], late_s=0.0)
    model.elapsed([("announced", 1)], late_s=0.0)
    later = presence("a", "later")
    assert shown(model.take()) == {1: [later], 2: [later]}
    model.now = 5.0
    with pytest.raises(Disagreement):
        model.elapsed([("announced", 1)], late_s=0.5)
    model.elapsed([("announced", 1)], late_s=1.0)
    assert shown(model.take()) == {2: [{**json.loads(later), "data": {"agents": ["z"]}}]}


def test_a_flood_is_cut_off_and_answered_once_a_second() -> None:
    model = mesh("a", "b", limits=Limits(messages_burst=4, messages_per_s=2.0))
    sent = text("ack", sender="a")
    assert say(model, 1, *[sent] * 9) == {1: ["rate_limited"], 2: [sent] * 3}
    model.now = 0.5
    assert say(model, 1, sent, sent) == {2: [sent]}
    model.now = 1.0
    assert say(model, 1, sent, sent) == {1: ["rate_limited"], 2: [sent]}


def test_a_shutdown_closes_everybody_and_announces_nobody() -> None:
    model = mesh("a", "b")
    model.shut_down()
    assert shown(model.take()) == {1: [1001], 2: [1001]}
    assert not model.peers


def test_made_messages_are_compared_by_value_and_numbers_by_letter() -> None:
    assert Made({"n": read(b"1.0")}).accepts(b' {"n" : 1.0}')
    assert not Made({"n": read(b"1.0")}).accepts(b'{"n":1}')
    assert not Made({"n": read(b"1.0")}).accepts(b'{"n":1.0,"m":2}')
    assert not Made({}).accepts(b"{")


def test_a_union_has_each_agent_once_in_the_order_of_announcement() -> None:
    assert union([["x", {"id": "y"}], [{"agentId": "x"}, "z", {}], [{}]]) == [
        "x",
        {"id": "y"},
        "z",
        {},
    ]
    assert union([["x", "x"]]) == ["x", "x"]
    assert agent_id({"name": "n", "id": "i"}) == "i"
    assert agent_id({"agentId": "", "id": 5, "name": "n"}) == "n"
    assert agent_id("") is None
