"""Events print themselves, and are read again from what they printed."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.verification.model import BINARY
from protocol.verification.simulation import parse_history, plan
from protocol.verification.simulation.events import (
    KINDS,
    Crash,
    Event,
    HandOver,
    Send,
    Settle,
    parse,
)
from protocol.verification.subjects.counting import HOW

_FIELDS = {
    "at": st.integers(0, 4 * 86_400 * 30).map(lambda quarters: quarters / 4),
    "c": st.integers(0, 10**6),
    "messages": st.lists(st.one_of(st.binary(), st.just(BINARY))).map(tuple),
    "cut": st.integers(0, 9),
    "where": st.integers(0, 9),
    "choice": st.integers(0, 999),
    "old": st.integers(0, 10**6),
    "how": st.sampled_from(HOW),
    "otherwise": st.lists(st.one_of(st.binary(), st.just(BINARY))).map(tuple),
}
events = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(kind, *(_FIELDS[field.name] for field in attrs.fields(kind)))
)


@given(events)
def test_an_event_is_what_its_line_says(event: Event) -> None:
    line = str(event)
    assert "\n" not in line
    assert parse(line) == event


def test_every_kind_of_event_has_a_word_of_its_own() -> None:
    assert len({kind.word for kind in KINDS}) == len(KINDS)
    assert all(kind.word for kind in KINDS)


def test_a_line_shows_the_time_the_connection_and_the_messages() -> None:
    assert str(Send(9.75, 3, (b"{}", BINARY))) == "      9.75 s  send          3  (b'{}', None)"
    assert str(Settle(86_400.0)) == "  86400.00 s  settle"
    assert str(Crash(1.0, 12, 4)) == "      1.00 s  crash        12  4"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1.0",
        "1.0 s",
        "1.0 s fly 3",
        "1.0 s send 3",
        "1.0 s send 3 (b'",
        "1.0 s send x (b'',)",
        "x s settle",
        "1.0 s open",
        "1.0 s hand __import__('os')",
    ],
)
def test_a_line_that_no_event_printed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no event"):
        parse(line)


def test_a_whole_history_is_read_again_without_its_empty_lines() -> None:
    history = list(plan(3, peers=5, hours=0.1))
    assert any(isinstance(event, HandOver) for event in history)
    assert parse_history(["", *map(str, history), "  "]) == history


def test_an_event_may_be_moved_to_an_earlier_time() -> None:
    assert Crash(10.0, 1, 2).earlier(2.5) == Crash(7.5, 1, 2)
