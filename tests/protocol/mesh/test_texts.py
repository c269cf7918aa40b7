"""What the relay writes: the same text with the fields that it adds, and its own messages."""

import json
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.agents import Agent
from protocol.codec import Codec
from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits
from protocol.mesh import texts
from tests.worlds import json_texts
from tests.worlds.json_texts import exact, loads

CODEC = Codec(Limits())
anything = settings(deadline=None, max_examples=150)


# Adding fields ------------------------------------------------------------------------------------


@given(json_texts.any_object, st.sampled_from(["me", "", 'q"\\', "é\u2028😀", "\x00"]))
@example('{"from":null}', "me")
@example('{"from":"x","fr\\u006fm":null}', "me")
@example("{ }", "me")
@example('{"a":"}"}', "me")
@anything
def test_added_fields_change_nothing_else(text: str, value: str) -> None:
    padded = f" {text}\r\n ".encode()
    result = texts.with_fields(padded, **{"from": value, "instanceId": value})
    assert loads(result) == {**loads(text), "from": value, "instanceId": value}
    untouched = padded[: padded.rindex(b"}")]
    assert result.startswith(untouched)
    assert result.endswith(b"}\r\n ")


def test_an_added_field_stands_at_the_end() -> None:
    assert texts.with_fields(b'{"from":null ,"a":1E+5 } \n', **{"from": "me"}) == (
        b'{"from":null ,"a":1E+5 ,"from":"me"} \n'
    )
    assert texts.with_fields(b"{ }", instanceId="me") == b'{ "instanceId":"me"}'


# Rewriting presences ------------------------------------------------------------------------------

CARDS = (Agent("a", b'"a"'), Agent("b", b'{"id":"b","load":1.50}'))


@given(json_texts.presences())
@anything
def test_a_rewritten_presence_keeps_everything_but_its_agents(text: str) -> None:
    _, before = exact(text)
    _, data = dict(before).get("data") or ("object", [])
    agents = exact('["a",{"id":"b","load":1.50}]')

    def with_data(members: list[Any]) -> tuple[str, list[Any]]:
        return "object", list({**dict(before), "data": ("object", members)}.items())

    assert exact(texts.presence_with(text.encode(), None)) == with_data(data)
    replaced = list({**dict(data), "agents": agents}.items())
    assert exact(texts.presence_with(text.encode(), CARDS)) == with_data(replaced)


def test_a_rewritten_presence_spelled_out() -> None:
    text = b'{"data":{"load":1E+5,"agents":[],"host":"\\u0061"},"x":-0,"from":"me"}'
    assert texts.presence_with(text, CARDS) == (
        b'{"data":{"load":1E+5,"agents":["a",{"id":"b","load":1.50}],"host":"\\u0061"}'
        b',"x":-0,"from":"me"}'
    )
    assert (
        texts.presence_with(b'{"type":"presence","data":null}', None)
        == b'{"type":"presence","data":{}}'
    )
    assert (
        texts.presence_with(b'{"type":"presence"}', ())
        == b'{"type":"presence","data":{"agents":[]}}'
    )


def test_a_rewritten_presence_with_a_lone_surrogate_is_still_readable_by_everybody() -> None:
    text = texts.presence_with(b'{"data":{"host":"\\ud83d","n":1E+5},"from":"me"}', CARDS)
    json.dumps(loads(text), ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert loads(text)["data"]["n"] == 1e5
    assert CODEC.header(text.replace(b"{", b'{"type":"presence",', 1)).sender == "me"


# What the relay says itself -----------------------------------------------------------------------


def test_an_error_names_its_code_says_a_sentence_and_echoes_the_turn() -> None:
    refusal = Refusal(ErrorCode.AMBIGUOUS_TARGET, "Which one?", peers=["a", "b"])
    assert loads(texts.error(refusal, "me", msgspec.Raw(b'"t-1"'), 1234, Limits())) == {
        "type": "error",
        "from": "relay",
        "to": "me",
        "turnId": "t-1",
        "data": {"code": "ambiguous_target", "error": "Which one?", "peers": ["a", "b"]},
        "timestamp": 1234,
    }


def test_an_error_to_one_without_a_name_about_a_message_without_a_turn() -> None:
    assert loads(texts.error(Refusal(ErrorCode.MALFORMED, "No."), None, None, 1234, Limits())) == {
        "type": "error",
        "from": "relay",
        "to": None,
        "data": {"code": "malformed", "error": "No."},
        "timestamp": 1234,
    }


def test_an_offline_presence_carries_no_agents() -> None:
    assert loads(texts.offline("me", "silent", 1234)) == {
        "type": "presence",
        "from": "me",
        "data": {"status": "offline", "reason": "silent", "agents": []},
        "timestamp": 1234,
    }


def test_capabilities_say_what_existing_pages_read_and_what_the_relay_can_do() -> None:
    limits = Limits(message_bytes_max=2048, presence_bytes_max=1024, messages_per_s=50)
    text = texts.capabilities("me", msgspec.Raw(b"7"), ("ack", "stream"), limits, 1234)
    assert loads(text) == {
        "type": "capabilities_response",
        "from": "relay",
        "to": "me",
        "turnId": 7,
        "data": {
            "agentCards": [],
            "activeAgents": [],
            "types": ["ack", "stream"],
            "keepalive": ["pong"],
            "accept": ["batch"],
            "claim": True,
            "subscribe": {"topics": 64, "types": 64},
            "limits": {
                "messageBytes": 2048,
                "messagesPerSecond": 50,
                "messagesBurst": 2000,
                "reapAfterSeconds": 30,
            },
            "history": {"messages": 100},
        },
        "timestamp": 1234,
    }


def test_every_error_code_has_one_word_and_one_sentence() -> None:
    assert len({code.code for code in ErrorCode}) == len(ErrorCode) == 24
    assert all(code.code == code.name.lower() and code.meaning for code in ErrorCode)
