"""The table of standings: total, with laws that every other table breaks."""

from collections.abc import Callable, Iterator, Mapping

import pytest

from protocol.mesh.federation import standing as module
from protocol.mesh.federation.standing import (
    TABLE,
    Action,
    Cell,
    Event,
    ImpossibleStep,
    Standing,
    step,
)

Table = Mapping[tuple[Standing, Event], Cell]
J, D, I, F = Standing  # noqa: E741
IMPOSSIBLE, NOTHING = Action.IMPOSSIBLE, Action.NOTHING


def total(table: Table) -> bool:
    return table.keys() == {(standing, event) for standing in Standing for event in Event}


def what_is_impossible_or_does_nothing_changes_nothing(table: Table) -> bool:
    still = (IMPOSSIBLE, NOTHING)
    return all(cell.target is at for (at, _), cell in table.items() if cell.action in still)


def only_who_asked_can_enter(table: Table) -> bool:
    entered = {at: table[at, Event.ENTERED] for at in Standing}
    return entered.pop(J) == Cell(D, Action.OPEN) and all(
        cell.action is IMPOSSIBLE for cell in entered.values()
    )


def whoever_is_silent_for_too_long_decides_alone_unless_its_part_is_over(table: Table) -> bool:
    cut = Cell(I, Action.CUT)
    return [table[at, Event.SILENCED] for at in Standing] == [
        cut,
        cut,
        Cell(I, NOTHING),
        Cell(F, NOTHING),
    ]


def what_was_decided_and_does_not_count_ends_with_its_connections(table: Table) -> bool:
    return (
        table[D, Event.REFUTED] == Cell(F, Action.EXPEL)
        and table[J, Event.REFUTED] == Cell(J, Action.ASK)
        and table[I, Event.REFUTED].action is IMPOSSIBLE
        and table[F, Event.REFUTED].action is NOTHING
    )


def an_island_ends_when_the_log_answers(table: Table) -> bool:
    return (
        table[I, Event.REACHED] == Cell(F, Action.EXPEL)
        and table[J, Event.REACHED] == Cell(J, Action.ASK)
        and table[D, Event.REACHED].action is NOTHING
        and table[F, Event.REACHED].action is NOTHING
    )


def only_without_connections_a_fenced_node_asks_again(table: Table) -> bool:
    cleared = {at: table[at, Event.CLEARED] for at in Standing}
    return cleared.pop(F) == Cell(J, Action.ASK) and all(
        cell.action is IMPOSSIBLE for cell in cleared.values()
    )


LAWS: list[Callable[[Table], bool]] = [
    total,
    what_is_impossible_or_does_nothing_changes_nothing,
    only_who_asked_can_enter,
    whoever_is_silent_for_too_long_decides_alone_unless_its_part_is_over,
    what_was_decided_and_does_not_count_ends_with_its_connections,
    an_island_ends_when_the_log_answers,
    only_without_connections_a_fenced_node_asks_again,
]


@pytest.mark.parametrize("law", LAWS)
def test_the_table_keeps_the_law(law: Callable[[Table], bool]) -> None:
    assert law(TABLE)


def changes() -> Iterator[tuple[tuple[Standing, Event], Cell]]:
    for key, cell in TABLE.items():
        for target in Standing:
            for action in Action:
                if Cell(target, action) != cell:
                    yield key, Cell(target, action)


def test_every_change_of_a_cell_breaks_a_law() -> None:
    unnoticed = [
        (key, cell) for key, cell in changes() if all(law({**TABLE, key: cell}) for law in LAWS)
    ]
    assert not unnoticed
    assert len(list(changes())) == len(TABLE) * (len(Standing) * len(Action) - 1)


def test_a_step_that_is_impossible_says_so() -> None:
    with pytest.raises(ImpossibleStep, match="entered while fenced"):
        step(F, Event.ENTERED)


def test_the_rows_show_every_cell() -> None:
    rows = module.table_rows().splitlines()
    assert len(rows) == 2 + len(Standing)
    assert "joined, *open*" in rows[2]
