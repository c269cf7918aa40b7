"""The codec: what it reads is what `json.loads` reads, what it refuses is refused, what it writes
is the same text with the fields that it was asked for."""

import json
import re
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.agents import Agent
from protocol.codec import Codec, without_lone_surrogates
from protocol.envelope import Announcement, ErrorCode, Header, Refusal
from protocol.limits import Limits
from protocol.verification.model import depth, digits
from protocol.verification.model import read as plainly_read
from tests.actors.relay.test_cost import calls_of
from tests.worlds import json_texts
from tests.worlds.heavy_texts import KINDS
from tests.worlds.json_texts import HEADER_FIELDS

CODEC = Codec(Limits())
NO_TURN = Header("").turn_id
anything = settings(deadline=None, max_examples=150)


def header(text: str | bytes, codec: Codec = CODEC) -> Header:
    """The header, but for the `turnId`, which is any JSON."""
    found = codec.header(text if isinstance(text, bytes) else text.encode())
    found.turn_id = NO_TURN
    return found


def refused(text: str | bytes, codec: Codec = CODEC) -> ErrorCode:
    with pytest.raises(Refusal) as refusal:
        header(text, codec)
    return refusal.value.code


def message(data: str, **fields: Any) -> bytes:
    """A message with these fields, and this text as `data`."""
    fields = {"type": "stream", **fields, "data": 0}
    return json.dumps(fields).replace(": 0}", f": {data}}}").encode()


class Pairs(list[tuple[str, Any]]):
    """A JSON object with the keys that stand twice."""


def expected(text: bytes) -> Header | None:
    """What `header` must return, by the standard library; None where it must refuse."""
    try:
        pairs = json.loads(
            text.decode(),
            parse_constant=lambda _: 1 / 0,
            object_pairs_hook=Pairs,
        )
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    if not isinstance(pairs, Pairs):
        return None
    for name, value in pairs:
        # Every one counts, also one that is overruled: refusing more is safe.
        legal = isinstance(value, str) or (value is None and name != "type")
        if name in HEADER_FIELDS and not legal:
            return None
    fields: list[Any] = [dict(pairs).get(name) for name in HEADER_FIELDS]
    try:
        "".join(field for field in fields if field is not None).encode()
    except UnicodeEncodeError:
        return None
    return Header(*fields) if fields[0] is not None else None


# Reading the header -------------------------------------------------------------------------------


@given(json_texts.messages)
@example('{"type":"a","type":"b"}')
@example('{"type":"a","\\u0074ype":"b"}')
@example('{"type":"a","from":"\\ufffd","data":"\\ud83d"}')
@example('{"type":"a","data":"\\ud83d","data":"\\\\ud83d"}')
@anything
def test_the_header_is_what_json_loads_reads(text: str) -> None:
    header_expected = expected(text.encode())
    if header_expected is None:
        assert refused(text) is ErrorCode.BAD_FIELD  # it is a JSON object
    else:
        assert header(text) == header_expected


@given(st.one_of(json_texts.damaged(json_texts.messages), st.binary(), json_texts.values))
@example(b'{"type":"a","data":"\xff"}')
@example(b'{"type":"a","data":"\xff\\ud83d"}')
@example(b'{"type":"\xff","data":"\\ud83d"}')
@example(b'["\\ud83d",')
@anything
def test_what_json_loads_refuses_is_refused_and_nothing_else(text: bytes | str) -> None:
    text = text if isinstance(text, bytes) else text.encode()
    header_expected = expected(text)
    try:
        assert header(text) == header_expected
    except Refusal:
        assert header_expected is None


@given(
    st.one_of(json_texts.damaged(json_texts.messages), json_texts.damaged(json_texts.presences()))
)
@example(b'{"data":{"agents":["\xff"]}}')
@example(b'{"type":"\xff","data":"\\ud83d"}')
@example(b'{"data":{"agents":[{"id":"x","load":1e999}],"keepalive":[1e999]}}')
@anything
def test_reading_raises_refusals_and_nothing_else_whatever_comes(text: bytes) -> None:
    for read in (CODEC.header, CODEC.announcement, CODEC.turn_id):
        try:
            read(text)
        except Refusal as refusal:
            assert read != CODEC.turn_id
            assert refusal.sentence


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", ErrorCode.MALFORMED),
        (b" \n", ErrorCode.MALFORMED),
        (b"hello", ErrorCode.MALFORMED),
        (b"\x00", ErrorCode.MALFORMED),
        (b'{"type":"ack"', ErrorCode.MALFORMED),
        (b'{"type":"ack",}', ErrorCode.MALFORMED),
        (b"{'type':'ack'}", ErrorCode.MALFORMED),
        (b'{"type":"ack"} {"type":"ack"}', ErrorCode.MALFORMED),
        (b'\xef\xbb\xbf{"type":"ack"}', ErrorCode.MALFORMED),  # a byte order mark
        (b'{"type":"ack","data":NaN}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":[Infinity]}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":-Infinity}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":"\\ud83d","more":NaN}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":01}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":+1}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":.5}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":"a\nb"}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":"\\x"}', ErrorCode.MALFORMED),
        (b'{"type":"ack","data":"\xff"}', ErrorCode.MALFORMED),  # not UTF-8
        (b'{"type":"ack","data":"\xed\xa0\xbd"}', ErrorCode.MALFORMED),  # a surrogate as UTF-8
        (b"[" * 10_000, ErrorCode.MALFORMED),
        (b"[]", ErrorCode.NOT_AN_OBJECT),
        (b'["\\ud83d"]', ErrorCode.NOT_AN_OBJECT),
        (b" null", ErrorCode.NOT_AN_OBJECT),
        (b"3", ErrorCode.NOT_AN_OBJECT),
        (b'"ack"', ErrorCode.NOT_AN_OBJECT),
        (b"{}", ErrorCode.BAD_FIELD),
        (b'{"type":null}', ErrorCode.BAD_FIELD),
        (b'{"type":3}', ErrorCode.BAD_FIELD),
        (b'{"type":"ack","from":3}', ErrorCode.BAD_FIELD),
        (b'{"type":"ack","to":["a"]}', ErrorCode.BAD_FIELD),
        (b'{"type":"ack","instanceId":{}}', ErrorCode.BAD_FIELD),
        (b'{"type":"ack","targetInstanceId":false,"data":"\\ud83d"}', ErrorCode.BAD_FIELD),
    ],
)
def test_bad_input_is_refused_with_its_code(text: bytes, code: ErrorCode) -> None:
    assert refused(text) is code


def test_null_header_fields_are_absent_ones() -> None:
    assert header(b'{"type":"ack","from":null,"to":null,"instanceId":null}') == Header("ack")


# Bounds -------------------------------------------------------------------------------------------


def nested(depth: int, brackets: tuple[str, str] = ("[", "]")) -> str:
    return brackets[0] * depth + brackets[1] * depth


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":[', "]}")])
def test_nesting_passes_up_to_the_bound_and_not_one_deeper(brackets: tuple[str, str]) -> None:
    per_repeat = 1 if brackets == ("[", "]") else 2
    within = nested(126 // per_repeat, brackets)  # the message itself is one level
    assert header(message(f"[{within}]")).type == "stream"
    assert header(message(f"[[],{within}]")).type == "stream"
    assert refused(message(f"[[{within}]]")) is ErrorCode.MALFORMED


def test_the_depth_bound_is_the_limits() -> None:
    codec = Codec(Limits(nesting_max=8))
    assert header(message(nested(7)), codec).type == "stream"
    assert refused(message(nested(8)), codec) is ErrorCode.MALFORMED


@pytest.mark.parametrize("text", ['"{}"', '"\\"{}"', '{{"{}":1}}', '["a\\\\","{}"]'])
def test_brackets_inside_strings_do_not_count(text: str) -> None:
    assert header(message(text.format("[" * 10_000))).type == "stream"
    assert header(message(text.format("{" * 10_000 + "\\ud83d"))).type == "stream"


def test_neighbours_do_not_add_up_to_depth() -> None:
    assert header(message("[" + "[[]]," * 10_000 + "{}]")).type == "stream"


@pytest.mark.parametrize("closed", [nested(10_000), "[" * 10_000, "[" * 10_000 + "{}" * 10_000])
def test_ten_thousand_levels_are_refused(closed: str) -> None:
    assert refused(message(closed)) is ErrorCode.MALFORMED
    assert refused(closed) in (ErrorCode.MALFORMED, ErrorCode.NOT_AN_OBJECT)


@pytest.mark.parametrize("number", ["{}", "-{}", "[1,{}]", "{}.5", "0.{}", "1e-{}", "{}E5"])
def test_a_number_passes_up_to_the_bound_and_not_one_digit_longer(number: str) -> None:
    codec = Codec(Limits(number_digits_max=300))
    assert header(message(number.format("9" * 300)), codec).type == "stream"
    assert refused(message(number.format("9" * 301)), codec) is ErrorCode.MALFORMED


def test_a_number_of_5000_digits_is_refused_and_a_string_of_them_passes() -> None:
    digits = "9" * 5000
    assert refused(message(digits)) is ErrorCode.MALFORMED
    assert refused(message(f'["\\\\",{digits}]')) is ErrorCode.MALFORMED  # outside after all
    assert header(message(f'"{digits}"')).type == "stream"
    assert header(message(f'["\\"{digits}"]')).type == "stream"
    assert header(message(f'{{"{digits}":"{digits}"}}')).type == "stream"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 129 + '"' + '\\"' * 20_000,
        '{"type":"stream","data":"' + "[" * 129 + '\\"' * 20_000,
        '{"type":"stream","data":[' + '"\\\\",' * 20_000 + "[" * 129,
        '"' * 20_000 + "[" * 129,
        "9" * 5000 + '"' + '\\"' * 20_000,
        '{"type":"' + "\\ud83d" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_text_made_to_be_slow_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    refused(text)
    assert time.process_time() - start < 0.5  # a quadratic scan takes seconds


texts_of_any_shape = st.recursive(
    st.one_of(
        st.integers(0, 10**24).map(str),
        st.sampled_from(
            [
                '""',
                '"["',
                '"]{"',
                '"\\\\"',
                '"\\""',
                '"\\\\\\"["',
                '"' + "1" * 30 + '"',
                "0." + "5" * 22,
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda values: f"[{','.join(values)}]"),
        st.lists(inner, max_size=3).map(lambda values: f'{{"k{{":[[{"],[".join(values)}]]}}'),
    ),
    max_leaves=25,
)


@given(texts_of_any_shape)
@example("[" * 11 + '"[[","]]",' + "[]" + "]" * 11)
@example("[[[[]]],[[[[]]]],[[[[[]]]]]]")
@settings(deadline=None, max_examples=400)
def test_depth_and_digits_are_those_of_a_plain_reading(data: str) -> None:
    text = message(data)
    value = plainly_read(text)
    for nesting, digits_max in ((8, 20), (9, 21), (12, 24)):
        codec = Codec(Limits(nesting_max=nesting, number_digits_max=digits_max))
        is_within = depth(value) <= nesting and digits(value) <= digits_max
        try:
            codec.header(text)
        except Refusal as refusal:
            assert refusal.code is ErrorCode.MALFORMED
            assert not is_within
        else:
            assert is_within


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_any_kind_takes_a_step_in_python_for_what_is_in_it(kind: str) -> None:
    def calls(size: int) -> int:
        text = KINDS[kind](size)
        return calls_of(lambda: (CODEC.header(text), CODEC.turn_id(text)))

    calls(2**10)  # makes what is made once
    assert calls(2**18) <= calls(2**14) + 20


@pytest.mark.parametrize("element", [b"[],", b"0,", b"{},", b'"\\ud800",'])
def test_an_array_is_not_read_beyond_what_may_come(element: bytes) -> None:
    text = b"[" + element * (2**20 // len(element)) + b"0]"
    with pytest.raises(Refusal) as first:  # makes what is made once
        CODEC.elements(text)
    assert first.value.code is ErrorCode.TOO_LARGE
    tracemalloc.start()
    with pytest.raises(Refusal):
        CODEC.elements(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(text)  # an object for each element would be 50 times as much


def test_as_many_elements_as_may_come_are_read() -> None:
    most = Limits().messages_burst
    elements = CODEC.elements(b"[" + b",".join([b"[1,1]"] * most) + b"]")
    assert len(elements) == most
    assert CODEC.texts(b"[ 1, 2 ,3]", CODEC.elements(b"[ 1, 2 ,3]")[:2]) == [b"1", b"2"]


# Lone surrogates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lone", [r"\ud83d", r"\uDE00", r"\ude00\ud83d", r"\ud83d\ud83d\ude00", r"\\\ud83d"]
)
@pytest.mark.parametrize("data", ['"{}"', '{{"{}":1}}', '["a",{{"chunk":"b{}"}}]'])
def test_lone_surrogate_escapes_pass_anywhere_in_data(lone: str, data: str) -> None:
    assert header(message(data.format(lone), sender="me")) == header(message("0"))


@pytest.mark.parametrize("name", HEADER_FIELDS)
@pytest.mark.parametrize("id", [r"\ud83d", r"a\uDE00", r"\ude00\ud83d"])
def test_lone_surrogate_escapes_in_names_are_refused(name: str, id: str) -> None:
    assert refused(f'{{"type":"ack","{name}":"{id}"}}') is ErrorCode.BAD_FIELD


def test_an_escaped_backslash_before_u_is_no_escape() -> None:
    assert header(r'{"type":"ack","from":"\\ud83d"}').sender == r"\ud83d"
    assert header(r'{"type":"ack","from":"\\ud83d","data":"\ud83d"}').sender == r"\ud83d"
    assert header(r'{"type":"ack","from":"\ud83d\ude00","data":"\ud83d"}').sender == "😀"


names = st.text(
    st.sampled_from(
        ["a", "\\", "\x80", "\x81", "\ue83d", "\uf83d", "\ud55c", "\U0001f600", "\ufffe"]
    ),
    min_size=1,
    max_size=6,
)


@given(names, names, st.sampled_from(["\ud83d", "\ude00", "\\\ud83d", "\ud83d\U0001f600"]))
@anything
def test_names_are_exact_beside_lone_surrogates(sender: str, to: str, chunk: str) -> None:
    fields = {"type": "direct", "from": sender, "to": to, "data": chunk}
    for spelled in (
        json.dumps(fields).encode(),
        json.dumps(fields).replace("\\ud", "\\uD").encode(),
    ):
        assert header(spelled) == Header("direct", sender, to)
        assert refused(spelled.replace(b'"to": "', b'"to": "\\uDe00')) is ErrorCode.BAD_FIELD


@given(
    st.lists(
        st.sampled_from(["\\ud83d", "\\uDE00", "\\\\", "\\n", "a", '\\"', "\\ufffd"]), max_size=8
    )
)
@anything
def test_only_lone_surrogates_are_replaced_in_what_the_relay_writes(pieces: list[str]) -> None:
    text = f'["{"".join(pieces)}"]'
    (found,) = json.loads(without_lone_surrogates(text.encode()))
    (original,) = json.loads(text)
    assert found == re.sub("[\ud800-\udfff]", "\ufffe", original)


def test_a_name_with_a_replacement_character_passes_beside_a_lone_surrogate() -> None:
    assert header(r'{"type":"ack","from":"\ufffd","data":"\ud83d"}').sender == "\ufffd"


# Announcements ------------------------------------------------------------------------------------


def announcement(data: str) -> Announcement:
    return CODEC.announcement(message(data, type="presence", sender="me"))


@pytest.mark.parametrize(
    ("agent", "id"),
    [
        ('"helper"', "helper"),
        (r'"h\u0065lper"', "helper"),
        ('{"agentId":"helper","name":"Helper"}', "helper"),
        ('{"name":"Helper","id":"helper"}', "helper"),
        ('{"name":"helper"}', "helper"),
        ('{"agentId":3,"id":"helper"}', "helper"),
        ('{"id":"helper","note":"\\\\ud83d","load":-0.0,"big":123456789012345678901}', "helper"),
        ('{"id":"helper","load":1e999}', "helper"),
        ('{"color":"red"}', None),
        ('{"id":3}', None),
        ("{}", None),
    ],
)
def test_an_agent_is_a_string_or_an_object_and_is_kept_as_written(agent: str, id: str) -> None:
    assert announcement(f'{{"agents":[ {agent} ]}}').agents == (Agent(id, agent.encode()),)


@pytest.mark.parametrize(
    "data",
    [
        '"hello"',
        "[]",
        "3",
        "false",
        '{"agents":null}',
        '{"agents":{}}',
        '{"agents":"helper"}',
        '{"agents":[""]}',
        '{"agents":[3]}',
        '{"agents":[null]}',
        '{"agents":[["helper"]]}',
        '{"agents":["\\ud83d"]}',
        '{"agents":[{"id":"\\ud83d"}]}',
    ],
)
def test_data_that_announces_nothing_legal_is_refused(data: str) -> None:
    with pytest.raises(Refusal) as refusal:
        announcement(data)
    assert refusal.value.code is ErrorCode.BAD_FIELD


def test_lone_surrogates_beside_an_agents_id_pass() -> None:
    for data in (
        r'{"agents":[{"id":"helper","note":"\ud83d"}]}',
        r'{"\ud83d":1,"host":"\ude00","agents":["helper"]}',
    ):
        (agent,) = announcement(data).agents or ()
        assert agent.id == "helper"


def test_an_announcement_is_bounded_in_bytes_and_agents() -> None:
    codec = Codec(Limits(presence_bytes_max=1024, agents_max=3))
    longest = message('{"agents":["a","b","c"]}').ljust(1024)
    assert len(codec.announcement(longest).agents or ()) == 3
    for data, code in (
        ('{"agents":["a","b","c","d"]}', ErrorCode.TOO_MANY_AGENTS),
        ('{"agents":[3,3,3,3]}', ErrorCode.TOO_MANY_AGENTS),
        (f'{{"host":"{"x" * 1024}"}}', ErrorCode.TOO_LARGE),
    ):
        with pytest.raises(Refusal) as refusal:
            codec.announcement(message(data, type="presence"))
        assert refusal.value.code is code


def test_absent_agents_are_told_from_none() -> None:
    assert announcement("{}") == Announcement(agents=None)
    assert announcement('{"agents":[]}') == Announcement(agents=())


def test_absent_and_null_data_say_nothing() -> None:
    assert CODEC.announcement(b'{"type":"presence"}') == Announcement(has_data=False)
    assert announcement("null") == Announcement(has_data=False)


@pytest.mark.parametrize(
    ("value", "is_asked_for"),
    [('"pong"', True), (' "pong" ', True), ('"ping"', False), ("true", False), ('["pong"]', False)],
)
def test_keepalive_pong_is_asked_for_by_that_word_only(value: str, is_asked_for: bool) -> None:
    assert announcement(f'{{"keepalive":{value}}}').keepalive_pong is is_asked_for


def test_the_last_of_two_agents_fields_counts() -> None:
    assert announcement('{"agents":["a"],"agents":["b"]}').agents == (Agent("b", b'"b"'),)
    text = b'{"data":{"agents":["a"]},"data":{"agents":["b"]}}'
    assert CODEC.announcement(text).agents == (Agent("b", b'"b"'),)


# The turn id --------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ['"t-1"', "1E+5", '{"a": [1 ,2]}', "null", '"\\u0041"'])
def test_a_turn_id_is_echoed_as_it_was_written(id: str) -> None:
    found = CODEC.turn_id(f'{{"type":"direct","turnId": {id} ,"data":1}}'.encode())
    assert found is not None
    assert bytes(found).decode() == id


@pytest.mark.parametrize("text", [b"", b"[]", b'{"type":"ack"}', b'{"turnId":1', b'{"turnId":NaN}'])
def test_where_no_turn_id_can_be_read_there_is_none(text: bytes) -> None:
    assert CODEC.turn_id(text) is None
