"""What comes in from the relay: what is read, what is no message, what it costs."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import MembershipLimits
from protocol.member.incoming import Excess, Incoming, Nonsense, cost_of, read_frame
from protocol.member.messages import write_message

LIMITS = MembershipLimits()


def read(text: str | bytes) -> list[dict[str, Any]]:
    return [dict(one.fields) for one in whole(text)]


def whole(text: str | bytes, limits: MembershipLimits = LIMITS) -> list[Incoming]:
    incoming = read_frame(text, limits)
    assert all(isinstance(one, Incoming) for one in incoming)
    return [one for one in incoming if isinstance(one, Incoming)]


def is_excess(text: str, limits: MembershipLimits) -> bool:
    (one,) = read_frame(text, limits)
    return isinstance(one, Excess)


def weight(value: Any, seen: set[int]) -> int:
    """The bytes that a value takes in this process, beside what was `seen` already."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    gc_head = 16 if isinstance(value, (list, dict)) else 0
    items: list[Any] = []
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = [*value, *value.values()]
    return sys.getsizeof(value) + gc_head + sum(weight(item, seen) for item in items)


def test_a_frame_is_one_message_or_an_array_of_them() -> None:
    assert read('{"type":"a"}') == [{"type": "a"}]
    assert read(' [ {"type":"a"} , {"type":"b"} ] ') == [{"type": "a"}, {"type": "b"}]
    assert read("[]") == []


@pytest.mark.parametrize("nonsense", ["", "x", "7", "null", "[1]", "{}", '{"type":1}', "[[]]"])
def test_everything_else_is_nonsense(nonsense: str) -> None:
    with pytest.raises(Nonsense):
        read_frame(nonsense, LIMITS)


@pytest.mark.parametrize("nonsense", [b"\xff", b'{"type":"a"}', '{"type":"a","n":NaN}'])
def test_no_browser_reads_bytes_or_constants_and_no_peer_does(nonsense: str | bytes) -> None:
    with pytest.raises(Nonsense):
        read_frame(nonsense, LIMITS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d"', "\ud83d"),
        ('"\ud83d"', "\ud83d"),
        ("1e999", float("inf")),
        ("1" * 4000, int("1" * 4000)),
        ("1" * 5000, float("inf")),
        ("-" + "1" * 5000, float("-inf")),
    ],
)
def test_what_a_browser_reads_is_read(text: str, value: Any) -> None:
    message = f'{{"type":"a","data":{text}}}'
    assert read(message) == [{"type": "a", "data": value}]
    assert read(f'[{message}, {{"type":"b"}}]') == [{"type": "a", "data": value}, {"type": "b"}]
    costs = [one.size for one in whole(f'[{message}, {{"type":"b"}}]')]
    assert costs == [cost_of(message), cost_of('{"type":"b"}')]


def test_every_message_of_an_array_has_its_own_cost() -> None:
    small, large = '{"type":"a"}', '{"type":"b","data":[[],[],[]]}'
    frame = f" [{small}\n,{large}]"
    assert [one.size for one in whole(frame)] == [cost_of(small), cost_of(large)]


@pytest.mark.parametrize(
    "small",
    ["[]", "{}", "[1]", '{"a":1}', '"ab"', "1.5", "1000", '{"a":[]}', '""', "null"],
)
def test_a_text_of_small_values_costs_what_they_take(small: str) -> None:
    text = f"[{','.join([small] * 1000)}]"
    (one,) = whole(f'{{"type":"a","data":{text}}}')
    assert 0.8 * weight(one.fields, set()) <= one.size


@pytest.mark.parametrize("letter", ["\u00e9", "\u4e16", "\U0001f916", "\\ud83e\\udd16"])
def test_one_wide_letter_makes_all_of_a_text_wide(letter: str) -> None:
    (one,) = whole(f'{{"type":"a","data":"{letter}{"x" * 9000}"}}')
    assert one.size >= weight(one.fields["data"], set())


def test_a_text_with_commas_costs_little_more_than_itself() -> None:
    for data in ("1,2,3," * 10_000, "[{,:" * 10_000, '[\\"[' * 10_000):
        text = write_message({"type": "a", "data": data})
        assert cost_of(text) == len(text) + 4 * 64
    prose = write_message({"type": "a", "data": "Whatever it is, he said: go on. " * 10_000})
    assert cost_of(prose) < 5 * len(prose)


@given(st.recursive(st.integers() | st.text(max_size=5), st.lists))
def test_any_value_costs_something(value: Any) -> None:
    text = write_message(value)
    assert len(text) <= cost_of(text) <= 64 * len(text) + 4 * len(text)


def test_what_costs_too_much_is_not_read() -> None:
    limits = MembershipLimits(read_bytes_max=2000)
    assert not is_excess(f'{{"type":"a","data":[{"[]," * 10}[]]}}', limits)
    assert is_excess(f'{{"type":"a","data":[{"[]," * 20}[]]}}', limits)
    assert is_excess("[],[]," * 20, limits)  # before anybody looks whether it is JSON


def nested(depth: int) -> str:
    return f'{{"type":"a","said":"[[[[[[[[[[[[","data":{"[" * depth}{"]" * depth}}}'


def test_what_nests_too_deep_is_not_read() -> None:
    limits = MembershipLimits(nesting_max=8)
    for depth, is_too_deep in ((7, False), (8, True), (100_000, True)):
        assert is_excess(nested(depth), limits) == is_too_deep
        assert is_excess(f" [{nested(depth)}]", limits) == is_too_deep
    wide = f'{{"type":"a","data":[{"[]," * 100}[]]}}'
    assert not is_excess(wide, limits)


def test_what_nests_too_deep_loses_nothing_beside_it() -> None:
    read = read_frame(f'[{{"type":"b"}}, {nested(100_000)} ,{{"type":"c"}}]', LIMITS)
    kinds = [one.fields["type"] if isinstance(one, Incoming) else one for one in read]
    assert kinds == ["b", Excess("a message that nests too deep", 256), "c"]


@pytest.mark.parametrize("end", ["", "]", "]]}"])
def test_what_nests_too_deep_and_has_no_end_is_nonsense(end: str) -> None:
    with pytest.raises(Nonsense):
        read_frame("[" * 10**5 + end, LIMITS)
