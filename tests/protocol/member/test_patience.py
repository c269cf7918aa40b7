"""How long a peer goes on trying."""

import math

import pytest

from protocol.limits import MembershipLimits
from protocol.member.effects import AttemptFailed, Effect, Ready
from protocol.member.errors import IdTaken, NoCredentials, RelayError, Unreachable
from protocol.member.patience import TOLD_MAX, Patience, refuses

FINAL, PASSING, TAKEN = NoCredentials("log in"), Unreachable("nobody there"), IdTaken()
LIMITS = MembershipLimits(give_up_after_s=30, probe_within_s=5, taken_for_s=35)


class Waiting:
    """A patience, and the effects it had."""

    def __init__(self, within_s: float | None = None, *, was_present: bool = False) -> None:
        self.effects: list[Effect] = []
        self.patience = Patience(LIMITS, emit=self.effects.append)
        self.patience.begin(0.0, within_s)
        if was_present:
            self.patience.joined(0.0)

    def fails(self, error: RelayError, at: float, *, is_in_use: bool = False) -> bool:
        return self.patience.failed(error, at, is_in_use=is_in_use)


def test_a_permanent_error_ends_a_peer_that_was_never_present_at_once() -> None:
    waiting = Waiting()
    assert not waiting.fails(PASSING, 1.0)
    assert waiting.fails(FINAL, 2.0)


def test_a_peer_that_was_present_has_its_time_whether_or_not_it_was_told_the_roster() -> None:
    for is_told in (False, True):
        waiting = Waiting(was_present=True)
        if is_told:
            waiting.patience.complete()
        assert not waiting.fails(FINAL, 60.0)
        assert not waiting.fails(FINAL, 89.9)
        assert waiting.fails(FINAL, 90.0)


@pytest.mark.parametrize("what", ["passing error", "closed", "joined"])
def test_anything_else_begins_the_time_anew(what: str) -> None:
    waiting = Waiting(was_present=True)
    assert not waiting.fails(FINAL, 60.0)
    if what == "passing error":
        waiting.fails(PASSING, 80.0)
    elif what == "closed":
        waiting.patience.passed()
    else:
        waiting.patience.joined(80.0)
    assert not waiting.fails(FINAL, 91.0)
    assert waiting.fails(FINAL, 121.0)


@pytest.mark.parametrize("was_present", [True, False])
def test_an_id_that_others_have_is_tried_for_so_long_and_the_last_attempt_decides(
    was_present: bool,
) -> None:
    waiting = Waiting(was_present=was_present)
    assert waiting.patience.last_attempt_at == math.inf
    assert not waiting.fails(TAKEN, 60.0)
    assert waiting.patience.last_attempt_at == 95.0
    assert not waiting.fails(TAKEN, 94.9)
    assert waiting.fails(TAKEN, 95.0)


def test_other_errors_do_not_count_for_that_nor_that_for_others() -> None:
    waiting = Waiting(was_present=True)
    assert not waiting.fails(FINAL, 0.0)
    assert not waiting.fails(TAKEN, 29.0)
    assert not waiting.fails(FINAL, 60.0)
    assert waiting.patience.last_attempt_at == math.inf
    assert not waiting.fails(TAKEN, 70.0)
    assert not waiting.fails(PASSING, 80.0)
    assert waiting.patience.last_attempt_at == math.inf
    assert not waiting.fails(TAKEN, 110.0)
    waiting.patience.joined(111.0)
    assert waiting.patience.last_attempt_at == math.inf


def test_beside_a_connection_in_use_nothing_ends() -> None:
    waiting = Waiting(was_present=True)
    for at in (60.0, 200.0):
        assert not waiting.fails(FINAL, at, is_in_use=True)
    assert not waiting.fails(FINAL, 201.0)


def test_joining_has_its_time_and_ends_with_what_failed_last() -> None:
    waiting = Waiting(10.0)
    assert waiting.patience.deadline() == 10.0
    assert waiting.patience.expire(9.9, is_in_use=False) is None
    error = waiting.patience.expire(10.0, is_in_use=False)
    assert isinstance(error, Unreachable)
    assert "10 s" in str(error)
    waiting = Waiting(10.0)
    waiting.fails(PASSING, 1.0)
    assert waiting.patience.expire(10.0, is_in_use=False) is PASSING
    assert waiting.effects == [AttemptFailed(PASSING, news=True)]


def test_the_reason_of_every_attempt_is_told_and_each_is_news_once() -> None:
    other = Unreachable("somebody else there")
    waiting = Waiting(was_present=True)
    for at, error in enumerate((PASSING, PASSING, other, PASSING, FINAL)):
        waiting.fails(error, float(at))
    waiting.patience.missed(other)
    told = [(e.error, e.news) for e in waiting.effects if isinstance(e, AttemptFailed)]
    assert [news for _, news in told] == [True, False, True, False, True, False]
    assert [error for error, _ in told] == [PASSING, PASSING, other, PASSING, FINAL, other]
    waiting.patience.joined(10.0)
    waiting.fails(PASSING, 11.0)
    assert waiting.effects[-1] == AttemptFailed(PASSING, news=True)


def test_what_is_remembered_to_have_been_told_is_bounded() -> None:
    waiting = Waiting()
    for number in range(10 * TOLD_MAX):
        waiting.fails(Unreachable(f"reason {number}"), 1.0)
    assert len(waiting.patience._told) <= TOLD_MAX


def test_what_ends_the_peer_is_no_attempt_that_another_follows() -> None:
    waiting = Waiting()
    assert waiting.fails(FINAL, 1.0)
    assert waiting.effects == []


def test_joining_ends_with_the_reason_of_an_attempt_that_nobody_answered() -> None:
    waiting = Waiting(10.0)
    waiting.fails(PASSING, 1.0)
    hung = Unreachable("no answer")
    waiting.patience.missed(hung)
    assert waiting.patience.expire(10.0, is_in_use=False) is hung


def test_an_attempt_that_nobody_answered_undoes_no_permanent_error() -> None:
    waiting = Waiting(was_present=True)
    assert not waiting.fails(FINAL, 60.0)
    waiting.patience.missed(Unreachable("no answer"))
    assert waiting.fails(FINAL, 90.0)


@pytest.mark.parametrize(
    ("code", "says_no"),
    [
        *((1000, False), (1001, False), (1005, False), (1006, False), (1011, False)),
        *((1012, False), (1014, False), (1008, True), (1013, True), (1009, True)),
        *((3999, False), (4000, True), (4999, True), (5000, False)),
    ],
)
def test_some_close_codes_say_no(code: int, *, says_no: bool) -> None:
    assert refuses(code) is says_no


def test_a_peer_that_has_joined_by_then_is_ready() -> None:
    waiting = Waiting(3.0, was_present=True)
    assert waiting.patience.expire(3.0, is_in_use=True) is None
    assert waiting.patience.is_ready
    assert waiting.effects == [Ready()]


def test_a_roster_that_nobody_calls_whole_is_waited_for_only_a_while() -> None:
    waiting = Waiting(was_present=True)
    assert waiting.patience.deadline() == 5.0
    waiting.patience.expire(4.9, is_in_use=True)
    assert not waiting.patience.is_ready
    waiting.patience.expire(5.0, is_in_use=True)
    assert waiting.effects == [Ready()]
    assert waiting.patience.deadline() is None


def test_a_connection_that_was_lost_before_does_not_make_it_ready() -> None:
    waiting = Waiting(60.0, was_present=True)
    assert waiting.patience.expire(5.0, is_in_use=False) is None
    assert not waiting.patience.is_ready
    assert waiting.patience.deadline() == 60.0
    waiting.patience.joined(20.0)
    assert waiting.patience.deadline() == 25.0


def test_ready_is_said_once() -> None:
    waiting = Waiting()
    waiting.patience.complete()
    waiting.patience.complete()
    assert waiting.effects == [Ready()]


def test_after_the_end_nothing_is_due() -> None:
    waiting = Waiting(60.0, was_present=True)
    waiting.patience.end()
    assert waiting.patience.deadline() is None
