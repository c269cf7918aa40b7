"""Rounds are put into groups of a bounded size, and tell what each connection got in them."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.mesh import rounds as rounds_module
from protocol.mesh.rounds import ROUND_BYTES, Group, Joins, Round, Shelf, gather
from tests.protocol.mesh.test_history import Given, each, to_all, to_one

A, B = 1, 2


def as_one(rounds: Sequence[Given]) -> Given:
    return Given([text for round in rounds for text in round.texts], ())


JOINS = Joins(as_one, as_one)


@pytest.fixture(autouse=True)
def sizes() -> Iterator[None]:
    with (
        mock.patch.object(rounds_module, "GROUP_ROUNDS", 3),
        mock.patch.object(rounds_module, "GROUP_BYTES", 5000),
    ):
        yield


def plain(number: int, *left_out: Collection[int], bytes: int = 500) -> Round:
    texts = [b"%d %d" % (number, n) for n in range(len(left_out))]
    return Round(number, float(number), to_all(*texts), {}, each(*left_out), bytes)


def mixed(number: int, own: dict[int, Given | None] | None = None, bytes: int = 500) -> Round:
    return Round(number, float(number), to_all(b"%d" % number), own or {}, None, bytes)


def shape(groups: Iterable[Group]) -> list[list[int]]:
    """The numbers of the rounds in each group."""
    return [[round.number for round in group.rounds] for group in groups]


def test_plain_rounds_behind_one_another_become_one() -> None:
    (group,) = gather([plain(1, (), (A,)), plain(2, (B,)), plain(3, ())], JOINS)
    (round,) = group.rounds
    assert round.number == round.at == 3
    assert round.left_out == each((), (A,), (B,), ())
    assert round.first == 1
    assert round.shared.texts == [b"1 0", b"1 1", b"2 0", b"3 0"]
    assert round.bytes == group.bytes == 1500 - 2 * ROUND_BYTES
    assert group.differ == {A, B}
    assert group.whole is not None
    assert group.whole.texts == round.shared.texts


def test_those_between_which_something_else_was_do_not() -> None:
    # Round 4 was not kept; and in 6 somebody may have begun to follow.
    told = [plain(1, ()), plain(3, ()), plain(5, ()), mixed(6), mixed(7), plain(8, ())]
    assert shape(gather(told, JOINS)) == [[1, 3, 5], [6, 7, 8]]


def test_a_group_has_so_many_rounds_or_so_many_bytes_but_one_round_more_than_this() -> None:
    assert shape(gather([mixed(n) for n in range(8)], JOINS)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    long = [mixed(n, bytes=2500) for n in range(4)]
    assert shape(gather(long, JOINS)) == [[0, 1], [2, 3]]
    assert shape(gather([mixed(0, bytes=4999), *long[1:]], JOINS)) == [[0, 1], [2, 3]]
    assert shape(gather([plain(n, ()) for n in range(25)], JOINS)) == [[9], [19], [24]]


@pytest.mark.parametrize(
    ("rounds", "is_full"),
    [
        ([mixed(1)], False),
        ([mixed(1), mixed(2)], False),
        ([mixed(1), mixed(2), mixed(3)], True),
        ([mixed(1, bytes=4999)], False),
        ([mixed(1, bytes=5000)], True),
    ],
)
def test_a_group_that_is_not_full_takes_more(rounds: list[Round], is_full: bool) -> None:
    (group,) = gather(rounds, JOINS)
    assert group.is_full is is_full
    group.drop_oldest()  # then nothing fits behind what is left as if it were all
    assert group.is_full
    assert group.whole is None


def test_who_differs_is_known() -> None:
    own = {A: to_one(b"private"), B: None}
    (group,) = gather([mixed(1, own), mixed(2), plain(3, (7,))], JOINS)
    assert group.differ == {A, B, 7}
    (group,) = gather([Round(1, 1.0, None, {A: to_one(b"private")}, None, 500)], JOINS)
    assert group.differ == {A}
    assert group.whole is not None
    assert group.whole.count == 0


def test_what_a_connection_got_in_a_plain_round() -> None:
    (group,) = gather([plain(1, (A,), (B,), (), (A, B), (A,))], JOINS)
    (round,) = group.rounds
    texts = round.shared.texts

    def got(connection: int) -> list[bytes]:
        part = round.part_of(connection, follows=True)
        return [] if part is None else list(part.texts)

    assert got(A) == [texts[1], texts[2]]
    assert got(B) == [texts[0], texts[2], texts[4]]
    assert round.part_of(3, follows=True) is round.shared
    assert round.part_of(3, follows=False) is None
    (group,) = gather([plain(1, (A,), (A,))], JOINS)
    assert group.rounds[0].part_of(A, follows=True) is None


def test_ranges_are_never_empty() -> None:
    ranges: list[Sequence[tuple[int, int]]] = []

    class Noted(Given):
        def ranges(self, chosen: Sequence[tuple[int, int]]) -> Given:
            ranges.append(chosen)
            return Given.ranges(self, chosen)

    left_out = ((A,), (), (A,), (A,), (), (), (A,))
    round = Round(1, 1.0, Noted([b"x"] * 7, ()), {}, each(*left_out), 500)
    assert round.part_of(A, follows=True) is not None
    assert ranges == [[(1, 2), (4, 6)]]


def test_what_a_connection_got_in_another_round() -> None:
    mine = to_one(b"private")
    round = mixed(1, {A: mine, B: None})
    assert round.part_of(A, follows=True) is round.part_of(A, follows=False) is mine
    assert round.part_of(B, follows=True) is None
    assert round.part_of(3, follows=True) is round.shared
    assert round.part_of(3, follows=False) is None


# All that is kept ---------------------------------------------------------------------------------


def numbers_back(shelf: Shelf, groups: int = 99) -> list[list[int]]:
    """The numbers of the rounds in the newest groups, newest group first."""
    return shape(itertools.islice(shelf.back(), groups))


def shelf_with(count: int) -> Shelf:
    shelf = Shelf(JOINS)
    shelf.new.extend(mixed(number) for number in range(count))
    return shelf


def test_rounds_are_gathered_when_somebody_has_missed_them_so_many_at_once() -> None:
    with mock.patch.object(rounds_module, "AT_ONCE", 4):
        shelf = shelf_with(10)
        assert numbers_back(shelf, 1) == [[9]]
        assert [len(shelf._old), len(shelf._groups), len(shelf.new)] == [6, 2, 0]
        assert numbers_back(shelf, 3) == [[9], [6, 7, 8], [5]]
        assert [len(shelf._old), len(shelf._groups)] == [2, 4]
        shelf.new.extend(mixed(number) for number in (10, 11, 12))
        assert numbers_back(shelf) == [[12], [9, 10, 11], [6, 7, 8], [5], [2, 3, 4], [0, 1]]
        shelf.clear()
        assert shelf.oldest is shelf.drop_oldest() is None
        assert numbers_back(shelf) == []


def test_a_group_of_which_a_round_is_gone_is_not_whole() -> None:
    shelf = shelf_with(5)
    assert numbers_back(shelf) == [[3, 4], [0, 1, 2]]
    dropped = shelf.drop_oldest()
    assert dropped is not None
    assert dropped.number == 0
    assert [group.whole is None for group in shelf.back()] == [False, True]
    shelf.drop_oldest()
    shelf.drop_oldest()
    assert numbers_back(shelf) == [[3, 4]]
    shelf.drop_oldest()
    shelf.new.append(mixed(5))
    assert numbers_back(shelf) == [[5], [4]]  # what is left of a group takes nothing more


def test_what_gathering_saves_is_told_once() -> None:
    shelf = Shelf(JOINS)
    shelf.new.extend(plain(number, ()) for number in range(5))
    assert shelf.take_saved() == 0
    assert numbers_back(shelf) == [[4]]
    assert shelf.take_saved() == 4 * ROUND_BYTES
    assert numbers_back(shelf) == [[4]]
    assert shelf.take_saved() == 0
    shelf.new.append(plain(5, ()))
    assert numbers_back(shelf) == [[5]]
    assert shelf.take_saved() == ROUND_BYTES


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["add", "add", "add", "drop", "look", "look at some"])))
def test_a_shelf_has_all_rounds_in_their_order(story: list[str]) -> None:
    shelf, number = Shelf(JOINS), 0
    kept: list[int] = []
    with mock.patch.object(rounds_module, "AT_ONCE", 2):
        for what in story:
            match what:
                case "add":
                    shelf.new.append(mixed(number))
                    kept.append(number)
                    number += 1
                case "drop":
                    dropped = shelf.drop_oldest()
                    assert (dropped and dropped.number) == (kept.pop(0) if kept else None)
                case "look":
                    groups = numbers_back(shelf)
                    assert [n for group in reversed(groups) for n in group] == kept
                    assert all(len(group) <= 3 for group in groups)
                case _:
                    some = [n for group in reversed(numbers_back(shelf, 2)) for n in group]
                    assert some == kept[len(kept) - len(some) :]
            assert (shelf.oldest and shelf.oldest.number) == (kept[0] if kept else None)
