"""The chunks of one answer: which one is missing, and whose numbers are believed."""

import random
from typing import Any

import pytest

from protocol.member.chunks import Chunks


def verdict(*numbers: Any, total: Any = None, begins: tuple[int, ...] = (0, 1)) -> str | None:
    """The first thing that is wrong with an answer of chunks with these numbers."""
    chunks = Chunks()
    for number in numbers:
        wrong = chunks.note(number, begins=begins)
        if wrong is not None:
            return wrong
    return chunks.end(total)


@pytest.mark.parametrize("first", [0, 1])
def test_an_answer_may_begin_with_0_as_ours_do_or_with_1_as_existing_pages_do(first: int) -> None:
    assert verdict(*range(first, first + 20)) is None
    assert verdict(*range(first, first + 20), total=20) is None


def test_an_answer_that_only_our_peers_can_have_given_begins_with_0() -> None:
    assert verdict(0, 1, begins=(0,)) is None
    assert verdict(1, 2, begins=(0,)) == (
        "the answer began with chunk 1: the ones before it were lost"
    )


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ((0, 1, 2, 3, 4, 7), "chunks 5 to 6 of the answer were lost"),
        ((0, 2), "chunk 1 of the answer was lost"),
        ((1, 3), "chunk 2 of the answer was lost"),
        ((2, 3), "the answer began with chunk 2: the ones before it were lost"),
        ((-1,), "the answer began with chunk -1: the ones before it were lost"),
    ],
)
def test_a_hole_and_a_missing_start_are_told(numbers: tuple[int, ...], wrong: str) -> None:
    assert verdict(*numbers) == wrong


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1, 0), (0, 1, 2, 1), (1, 1)])
def test_a_repetition_is_told_with_its_likely_cause(numbers: tuple[int, ...]) -> None:
    wrong = verdict(*numbers)
    assert wrong is not None
    assert "more than one program" in wrong


@pytest.mark.parametrize(
    ("numbers", "total", "wrong"),
    [
        ((0, 1, 2), 20, "the answer had 20 chunks, and 3 came"),
        ((1, 2, 3), 4, "the answer had 4 chunks, and 3 came"),
        ((), 7, "the answer had 7 chunks, and 0 came"),
        ((0, 1), 1, "the answer had 1 chunks, and 2 came"),
    ],
)
def test_a_missing_end_is_told_by_the_number_of_chunks(
    numbers: tuple[int, ...], total: int, wrong: str
) -> None:
    assert verdict(*numbers, total=total) == wrong


@pytest.mark.parametrize("number", [None, "0", True, 0.5, float("inf"), 2**53 + 2, 10**400, [0]])
def test_whoever_does_not_number_its_chunks_is_not_judged(number: Any) -> None:
    assert verdict(number, number, number, total=99) is None
    assert verdict(0, number, 7, total=99) is None
    assert verdict(0, 1, total=number) is None


def test_numbers_are_believed_as_both_languages_read_them() -> None:
    assert verdict(0.0, 1, 2.0, total=3.0) is None
    assert verdict(0.0, 2.0) == "chunk 1 of the answer was lost"


def test_no_loss_of_a_worker_that_counts_goes_unnoticed() -> None:
    dice = random.Random(1)
    for _ in range(500):
        first, count = dice.choice([0, 1]), dice.randrange(1, 12)
        sent = list(range(first, first + count))
        got = [number for number in sent if dice.random() < 0.8]
        assert (verdict(*got, total=count) is None) == (got == sent)
