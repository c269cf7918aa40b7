"""The part of the mutation check that takes seconds; the command of mutation.py is all of it."""

import ast

import pytest

from protocol.mesh.routing import ROUTES, Route
from tests.protocol.verification import mutation
from tests.protocol.verification.mutation import Mutant


@pytest.mark.no_cover
def test_every_change_of_a_cell_of_the_lifecycle_table_is_noticed() -> None:
    tried, of_behaviour, survivors = mutation.table_survivors()
    assert tried == 20 * (4 * 11 - 1)
    assert of_behaviour > 600
    assert survivors == []


@pytest.fixture(scope="module")
def mutants() -> list[Mutant]:
    return [mutant for file in mutation.TESTS for mutant in mutation.mutants(file)]


def test_every_cell_of_the_routing_table_is_changed_to_every_other_route(
    mutants: list[Mutant],
) -> None:
    changes = {mutant.name for mutant in mutants if ": ROUTES: " in mutant.name}
    assert len(changes) == len(ROUTES) * (len(Route) - 1)
    assert "protocol/mesh/routing.py: ROUTES: 'direct': Route.TARGET -> Route.OTHERS" in changes


def test_every_file_is_changed_and_no_change_is_none(mutants: list[Mutant]) -> None:
    for file in mutation.TESTS:
        original = ast.parse((mutation.ROOT / file).read_text())
        texts = [mutant.text for mutant in mutants if mutant.file == file]
        assert len(texts) >= 2
        assert not {ast.unparse(node) for node in ast.walk(original)}.intersection(texts)
        assert len(set(texts)) == len(texts)


def test_a_change_is_in_its_file_and_nowhere_else(mutants: list[Mutant]) -> None:
    first, second = mutants[:2]
    original = ast.unparse(ast.parse((mutation.ROOT / first.file).read_text())).split("\n")
    for mutant in (first, second, first):
        changed = mutant.write().split("\n")
        assert sum(a != b for a, b in zip(original, changed, strict=True)) == 1


def test_only_changes_that_exist_are_explained(mutants: list[Mutant]) -> None:
    assert set(mutation.EXPLAINED) <= {mutant.name for mutant in mutants}
