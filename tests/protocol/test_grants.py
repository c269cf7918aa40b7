"""What a grant covers, and which values make none."""

from typing import Any

import pytest

from protocol.grants import OPEN, PATTERNS_MAX, Grant


@pytest.mark.parametrize(
    "bad",
    [
        {"peer": ""},
        {"peer": 7},
        {"peer": "half \ud83d"},
        {"meshes": ["m"]},
        {"meshes": ("",)},
        {"agents": "coder"},
        {"agents": ("a",) * (PATTERNS_MAX + 1)},
        {"ends_at_ms": 1e300},
        {"ends_at_ms": float("nan")},
        {"ends_at_ms": "soon"},
        {"ends_at_ms": 2**53 + 1},
    ],
    ids="-".join,
)
def test_a_value_that_means_nothing_is_refused_by_name(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        Grant(**bad)


def test_the_largest_values_that_mean_something_are_taken() -> None:
    Grant(ends_at_ms=2**53)
    Grant(ends_at_ms=-(2**53))
    Grant(agents=("a",) * PATTERNS_MAX, meshes=("m",) * PATTERNS_MAX)


def test_the_open_grant_covers_everything() -> None:
    assert OPEN.covers_mesh("any")
    assert OPEN.covers_peer("any")
    assert OPEN.covers_agent("any")
    assert Grant() == OPEN


def test_an_empty_list_covers_nothing_and_a_pattern_what_begins_so() -> None:
    assert not Grant(agents=()).covers_agent("coder")
    lab = Grant(meshes=("lab-*", "team"))
    names = ("lab-", "lab-7", "team", "team2", "lab", "LAB-7", "a-lab-7")
    assert [lab.covers_mesh(name) for name in names] == [True, True, True] + [False] * 4
    assert Grant(meshes=("*",)).covers_all_meshes()
    assert not lab.covers_all_meshes()
    assert Grant(agents=("a*b",)).covers_agent("a*b")  # only the last character is special
    assert not Grant(agents=("a*b",)).covers_agent("axb")
