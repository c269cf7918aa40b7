"""The lifecycle table: laws over every cell, and a check that no cell can change unnoticed.

A law is a plain function that asserts something about `lifecycle.TABLE` as it is now. Each is a
test here; the mutation check at the end puts another table in its place and expects a law to fail.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, cast

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import Limits
from protocol.mesh import lifecycle
from protocol.mesh.lifecycle import (
    Announced,
    Cause,
    Edge,
    Elapsed,
    Ended,
    Event,
    Hangup,
    Heard,
    ImpossibleTransition,
    Join,
    Leave,
    Life,
    Lost,
    PeerState,
    Renew,
    Step,
    deadline,
    diagram,
    expire,
    opened,
    table_rows,
    transition,
)

CONNECTING, PRESENT, STALE, REAPED = PeerState
EVENTS = (Announced, Heard, Elapsed, Lost, Ended)
ACTIONS = {
    action.__name__: action
    for action in (
        lifecycle.ignored,
        lifecycle.impossible,
        lifecycle.join,
        lifecycle.renew,
        lifecycle.touch,
        lifecycle.age,
        lifecycle.lose,
        lifecycle.give_up,
        lifecycle.reap,
        lifecycle.forget,
        lifecycle.part,
    )
}
WINDOW_S = 5.0
LIMITS = Limits(announce_within_s=30.0, stale_after_s=15.0, reap_after_s=30.0)

# Every cell once more, for a record that is `since` 100 and an event at 110. What `Ended` brings is
# tried with every cause; EVICTED stands for it here. A REAPED record has the cause LEFT.
SILENT, UNANNOUNCED, EVICTED, LEFT = Cause.SILENT, Cause.UNANNOUNCED, Cause.EVICTED, Cause.LEFT
EXPECTED: dict[tuple[PeerState, type[Event]], tuple[Any, ...]] = {
    # cell                   target      action        since  cause, effects
    (CONNECTING, Announced): (PRESENT, "join", 110.0, None, (Join(),)),
    (CONNECTING, Heard): (CONNECTING, "ignored", 100.0, None, ()),
    (CONNECTING, Elapsed): (REAPED, "give_up", 100.0, UNANNOUNCED, (Hangup(UNANNOUNCED),)),
    (CONNECTING, Lost): (REAPED, "forget", 100.0, LEFT, (Hangup(LEFT),)),
    (CONNECTING, Ended): (REAPED, "forget", 100.0, EVICTED, (Hangup(EVICTED),)),
    (PRESENT, Announced): (PRESENT, "renew", 110.0, None, (Renew(),)),
    (PRESENT, Heard): (PRESENT, "touch", 110.0, None, ()),
    (PRESENT, Elapsed): (STALE, "age", 100.0, None, ()),
    (PRESENT, Lost): (STALE, "lose", 100.0, None, ()),
    (PRESENT, Ended): (REAPED, "part", 100.0, EVICTED, (Leave(EVICTED), Hangup(EVICTED))),
    (STALE, Announced): (PRESENT, "renew", 110.0, None, (Renew(),)),
    (STALE, Heard): (PRESENT, "touch", 110.0, None, ()),
    (STALE, Elapsed): (REAPED, "reap", 100.0, SILENT, (Leave(SILENT), Hangup(SILENT))),
    (STALE, Lost): (STALE, "lose", 100.0, None, ()),
    (STALE, Ended): (REAPED, "part", 100.0, EVICTED, (Leave(EVICTED), Hangup(EVICTED))),
    (REAPED, Announced): (REAPED, "ignored", 100.0, LEFT, ()),
    (REAPED, Heard): (REAPED, "ignored", 100.0, LEFT, ()),
    (REAPED, Elapsed): (REAPED, "impossible", None, None, None),
    (REAPED, Lost): (REAPED, "ignored", 100.0, LEFT, ()),
    (REAPED, Ended): (REAPED, "ignored", 100.0, LEFT, ()),
}


def record(state: PeerState) -> Life:
    return Life(state, 100.0, LEFT if state is REAPED else None)


def event(kind: type[Event], at: float = 110.0, cause: Cause = EVICTED) -> Event:
    make: Any = kind
    if kind is Lost:
        return Lost(at, at + WINDOW_S)
    return Ended(at, cause) if kind is Ended else cast(Event, make(at))


def hangup(step: Step) -> Hangup:
    return Hangup(cast(Cause, step.life.cause))


def paths(length: int = 5) -> Iterator[list[tuple[Life, Event, Step]]]:
    """Everything that can happen to a connection in so many events, from its opening on."""
    for kinds in itertools.product(EVENTS, repeat=length):
        life, path = opened(100.0), []
        for at, kind in enumerate(kinds, start=101):
            if life.state is REAPED and kind is Elapsed:
                continue  # it has no deadline
            happened = event(kind, float(at))
            step = transition(life, happened)
            path.append((life, happened, step))
            life = step.life
        yield path


def effects_of(path: list[tuple[Life, Event, Step]], kind: type) -> list[Any]:
    return [effect for _, _, step in path for effect in step.effects if isinstance(effect, kind)]


# Laws ---------------------------------------------------------------------------------------------


def law_every_cell_is_written() -> None:
    assert set(lifecycle.TABLE) == set(itertools.product(PeerState, EVENTS))


def law_every_cell_is_as_written_here() -> None:
    for cell, (target, action, since, cause, effects) in EXPECTED.items():
        assert lifecycle.TABLE[cell] == Edge(target, ACTIONS[action])
        if effects is not None:
            step = transition(record(cell[0]), event(cell[1]))
            until = 115.0 if action == "lose" else math.inf
            assert step == Step(Life(target, since, cause, until), effects)


def law_every_event_has_an_answer_in_every_state_except_a_deadline_where_there_is_none() -> None:
    for state, kind in itertools.product(PeerState, EVENTS):
        has_deadline = deadline(record(state), LIMITS) is not None
        if kind is Elapsed and not has_deadline:
            with pytest.raises(ImpossibleTransition):
                transition(record(state), event(kind))
        else:
            assert isinstance(transition(record(state), event(kind)), Step)


def law_the_reaped_stay_as_they_are() -> None:
    for cause, kind, other in itertools.product(Cause, (Announced, Heard, Lost, Ended), Cause):
        life = Life(REAPED, 100.0, cause)
        assert transition(life, event(kind, cause=other)) == Step(life, ())


def law_only_a_first_announcement_joins_and_each_later_one_renews() -> None:
    for path in paths():
        for life, happened, step in path:
            announced = isinstance(happened, Announced)
            assert (Join() in step.effects) == (announced and life.state is CONNECTING)
            assert (Renew() in step.effects) == (announced and life.state in (PRESENT, STALE))
        assert len(effects_of(path, Join)) <= 1


def law_who_never_announced_never_leaves_and_who_did_leaves_exactly_once() -> None:
    for path in paths():
        joined = bool(effects_of(path, Join))
        over = path[-1][2].life.state is REAPED
        assert len(effects_of(path, Leave)) == (joined and over)


def law_the_socket_is_closed_exactly_once_and_exactly_when_it_is_over() -> None:
    for path in paths():
        assert len(effects_of(path, Hangup)) == (path[-1][2].life.state is REAPED)
        for life, _, step in path:
            ends = life.state is not REAPED and step.life.state is REAPED
            assert [e for e in step.effects if isinstance(e, Hangup)] == [
                hangup(step) for _ in range(ends)
            ]
            assert step.effects[-1:] == (hangup(step),) or not ends


def law_a_cause_is_there_exactly_when_it_is_over_and_all_effects_name_the_same() -> None:
    for path in paths():
        for _, _, step in path:
            assert (step.life.cause is not None) == (step.life.state is REAPED)
            for effect in step.effects:
                if isinstance(effect, Leave | Hangup):
                    assert effect.cause is step.life.cause


def law_an_end_is_an_end_in_every_state_with_its_own_cause() -> None:
    for state, cause in itertools.product((CONNECTING, PRESENT, STALE), Cause):
        assert transition(record(state), Ended(110.0, cause)).life == Life(REAPED, 100.0, cause)


def law_a_peer_that_speaks_is_present_again_from_then_on() -> None:
    kinds: tuple[type[Event], ...] = (Announced, Heard)
    for state, kind in itertools.product((PRESENT, STALE), kinds):
        assert transition(record(state), event(kind)).life == Life(PRESENT, 110.0)


def law_talking_does_not_extend_the_time_to_announce() -> None:
    assert transition(record(CONNECTING), Heard(110.0)) == Step(record(CONNECTING), ())


def law_an_announcement_makes_present() -> None:
    assert transition(record(CONNECTING), Announced(110.0)).life == Life(PRESENT, 110.0)


def law_silence_makes_stale_and_then_reaped_and_counts_from_the_last_word() -> None:
    assert transition(record(CONNECTING), Elapsed(130.0)).life == Life(REAPED, 100.0, UNANNOUNCED)
    assert transition(record(PRESENT), Elapsed(115.0)) == Step(Life(STALE, 100.0), ())
    assert transition(record(STALE), Elapsed(130.0)).life == Life(REAPED, 100.0, SILENT)


def law_a_lost_one_is_stale_at_once_and_has_until_its_time_or_the_end_of_its_silence() -> None:
    for state, until in itertools.product((PRESENT, STALE), (115.0, 200.0)):
        lost = transition(record(state), Lost(110.0, until))
        assert lost == Step(Life(STALE, 100.0, until=until), ())
        assert deadline(lost.life, LIMITS) == min(until, 130.0)
        assert transition(lost.life, Heard(112.0)).life == Life(PRESENT, 112.0)
        assert transition(lost.life, Announced(112.0)).life == Life(PRESENT, 112.0)
        again = transition(lost.life, Lost(112.0, until + 7.0))
        assert again.life == lost.life  # losing it twice gives no more time
        over = transition(lost.life, Elapsed(115.0))
        assert over.life == Life(REAPED, 100.0, SILENT)


def law_who_is_lost_before_it_announced_itself_is_over() -> None:
    over = transition(record(CONNECTING), Lost(110.0, 130.0))
    assert over == Step(Life(REAPED, 100.0, LEFT), (Hangup(LEFT),))


LAWS_OF_BEHAVIOUR: tuple[Callable[[], None], ...] = (
    law_every_event_has_an_answer_in_every_state_except_a_deadline_where_there_is_none,
    law_talking_does_not_extend_the_time_to_announce,
    law_an_announcement_makes_present,
    law_a_peer_that_speaks_is_present_again_from_then_on,
    law_silence_makes_stale_and_then_reaped_and_counts_from_the_last_word,
    law_an_end_is_an_end_in_every_state_with_its_own_cause,
    law_a_lost_one_is_stale_at_once_and_has_until_its_time_or_the_end_of_its_silence,
    law_who_is_lost_before_it_announced_itself_is_over,
    law_the_reaped_stay_as_they_are,
    law_a_cause_is_there_exactly_when_it_is_over_and_all_effects_name_the_same,
    law_the_socket_is_closed_exactly_once_and_exactly_when_it_is_over,
    law_only_a_first_announcement_joins_and_each_later_one_renews,
    law_who_never_announced_never_leaves_and_who_did_leaves_exactly_once,
)
LAWS = (law_every_cell_is_written, law_every_cell_is_as_written_here, *LAWS_OF_BEHAVIOUR)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[], None]) -> None:
    law()


# Time told late -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [PRESENT, STALE])
@pytest.mark.parametrize("kind", [Heard, Announced])
def test_an_event_told_late_does_not_turn_time_back(state: PeerState, kind: type[Event]) -> None:
    assert transition(Life(state, 100.0), event(kind, at=90.0)).life == Life(PRESENT, 100.0)


def test_a_deadline_in_reaped_raises_and_changes_nothing() -> None:
    life = Life(REAPED, 100.0, LEFT)
    with pytest.raises(ImpossibleTransition, match="Elapsed in state REAPED"):
        transition(life, Elapsed(130.0))
    assert life == Life(REAPED, 100.0, LEFT)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        life.since = 1.0  # type: ignore[misc]


def test_an_end_without_a_cause_raises() -> None:
    for action in (lifecycle.forget, lifecycle.part):
        with pytest.raises(ImpossibleTransition, match="Heard has no cause"):
            action(Life(PRESENT, 100.0), Heard(110.0))


# Deadlines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "due"), [(CONNECTING, 107.0), (PRESENT, 103.0), (STALE, 105.0), (REAPED, None)]
)
def test_the_deadline_follows_from_the_record(state: PeerState, due: float | None) -> None:
    limits = Limits(
        announce_within_s=7.0, stale_after_s=3.0, reap_after_s=5.0, presence_refresh_s=4.0
    )
    assert deadline(record(state), limits) == due


REAPED_BY_SILENCE = Step(Life(REAPED, 100.0, SILENT), (Leave(SILENT), Hangup(SILENT)))


@pytest.mark.parametrize(
    ("life", "now", "expected"),
    [
        (Life(CONNECTING, 100.0), 129.999, Step(Life(CONNECTING, 100.0))),
        (
            Life(CONNECTING, 100.0),
            130.0,
            Step(Life(REAPED, 100.0, UNANNOUNCED), (Hangup(UNANNOUNCED),)),
        ),
        (Life(PRESENT, 100.0), 114.999, Step(Life(PRESENT, 100.0))),
        (Life(PRESENT, 100.0), 115.0, Step(Life(STALE, 100.0))),
        (Life(PRESENT, 100.0), 129.999, Step(Life(STALE, 100.0))),
        (Life(PRESENT, 100.0), 130.0, REAPED_BY_SILENCE),
        (Life(STALE, 100.0), 129.999, Step(Life(STALE, 100.0))),
        (Life(STALE, 100.0), 130.0, REAPED_BY_SILENCE),
        (Life(PRESENT, 100.0), 1e9, REAPED_BY_SILENCE),
        (Life(REAPED, 100.0, LEFT), 1e9, Step(Life(REAPED, 100.0, LEFT))),
    ],
)
def test_time_runs_out_exactly_at_the_deadline(life: Life, now: float, expected: Step) -> None:
    assert expire(life, now, LIMITS) == expected


def test_a_process_that_slept_passes_through_all_states_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def watched(life: Life, happened: Event) -> Step:
        seen.append((life.state, happened))
        return transition(life, happened)

    monkeypatch.setattr(lifecycle, "transition", watched)
    assert expire(Life(PRESENT, 100.0), 5000.0, LIMITS) == REAPED_BY_SILENCE
    assert seen == [(PRESENT, Elapsed(115.0)), (STALE, Elapsed(130.0))]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # seconds that pass before it
            st.sampled_from([Announced, Heard, None, Ended]),
            st.integers(0, 20),  # how late it is told
        ),
        max_size=20,
    )
)
@settings(deadline=None)
def test_over_any_history_nobody_is_reaped_early_or_lives_on_too_long(
    history: list[tuple[int, type[Event] | None, int]],
) -> None:
    now, life = 1000.0, opened(1000.0)
    spoke = now  # the last sign of life that counts
    effects: list[Any] = []
    for passed, kind, late in history:
        now += passed
        step = expire(life, now, LIMITS)
        effects += step.effects
        if life.state is not REAPED:
            assert (step.life.state is REAPED) == (now - spoke >= 30.0)
            assert (step.life.state is STALE) == (
                life.state is not CONNECTING and 15.0 <= now - spoke < 30.0
            )
        life = step.life
        if kind is None:
            continue
        happened = event(kind, now - late if kind is Heard else now)
        if life.state in (PRESENT, STALE) or (life.state is CONNECTING and kind is Announced):
            spoke = max(spoke, happened.at) if kind is not Ended else spoke
        step = transition(life, happened)
        assert step.life.since >= life.since
        life, effects = step.life, effects + list(step.effects)
    joined, left, hung_up = (
        sum(isinstance(effect, kind) for effect in effects) for kind in (Join, Leave, Hangup)
    )
    assert hung_up == (life.state is REAPED)
    assert left == (joined and life.state is REAPED)
    assert joined <= 1


# What is generated from the table -----------------------------------------------------------------


def test_the_diagram_has_one_arrow_per_cell_in_which_something_happens() -> None:
    lines = diagram().splitlines()
    meaningful = [cell for cell, row in EXPECTED.items() if row[1] not in ("ignored", "impossible")]
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> connecting" in lines
    assert "    present --> stale: Elapsed / age" in lines
    assert "    reaped --> [*]" in lines
    assert sum(" / " in line for line in lines) == len(meaningful) == 14


def test_the_table_of_the_docs_shows_all_twenty_cells() -> None:
    header, _, *rows = table_rows().splitlines()
    assert header == "| | Announced | Heard | Elapsed | Lost | Ended |"
    assert [row.count(", *") for row in rows] == [5, 5, 5, 5]
    assert rows[3] == (
        "| **reaped** | reaped, *ignored* | reaped, *ignored* "
        "| reaped, *impossible* | reaped, *ignored* | reaped, *ignored* |"
    )


# No cell can change unnoticed ---------------------------------------------------------------------


def mutants() -> Iterator[tuple[tuple[PeerState, type[Event]], Edge]]:
    """Every cell with every other pair of target and action."""
    for cell, edge in tuple(lifecycle.TABLE.items()):
        for target, action in itertools.product(PeerState, ACTIONS.values()):
            if Edge(target, action) != edge:
                yield cell, Edge(target, action)


def outcome(cell: tuple[PeerState, type[Event]], edge: Edge) -> tuple[object, ...]:
    """What the cell would do, if this were written in it."""
    results: list[object] = [edge.target]
    for cause, at in itertools.product(Cause, (90.0, 110.0)):
        try:
            results.append(edge.action(record(cell[0]), event(cell[1], at, cause)))
        except ImpossibleTransition:
            results = ["impossible"]  # whatever the target is
    return tuple(results)


def some_law_fails(laws: tuple[Callable[[], None], ...]) -> bool:
    for law in laws:
        try:
            law()
        except (AssertionError, ImpossibleTransition, pytest.fail.Exception):
            return True
    return False


@pytest.mark.no_cover
def test_every_change_of_one_cell_breaks_a_law(monkeypatch: pytest.MonkeyPatch) -> None:
    original = lifecycle.TABLE
    tried = 0
    for cell, edge in mutants():
        table = MappingProxyType({**original, cell: edge})
        monkeypatch.setattr(lifecycle, "TABLE", table)
        assert some_law_fails(LAWS), f"{cell} may become {edge}"
        if outcome(cell, edge) != outcome(cell, original[cell]):
            # Whoever changes the table and the copy of it here alike still meets these.
            assert some_law_fails(LAWS_OF_BEHAVIOUR), f"{cell} may behave as {edge}"
        tried += 1
    assert tried == 20 * (4 * 11 - 1)


def test_a_table_without_one_cell_breaks_a_law(monkeypatch: pytest.MonkeyPatch) -> None:
    original = lifecycle.TABLE
    for cell in original:
        table = {other: edge for other, edge in original.items() if other != cell}
        monkeypatch.setattr(lifecycle, "TABLE", table)
        assert some_law_fails((law_every_cell_is_written,))
