"""The state machine of the verification against the core, the actors and a live relay."""

import asyncio
import dataclasses
import inspect
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from actors.relay import comebacks as comebacks_module
from actors.relay.supervisor import Supervisor
from protocol.codec import content
from protocol.envelope import Header
from protocol.grants import OPEN, Grant
from protocol.limits import Limits
from protocol.mesh import announcer as announcer_module
from protocol.mesh import answers as answers_module
from protocol.mesh import connection as connection_module
from protocol.mesh import echoes as echoes_module
from protocol.mesh import gate as gate_module
from protocol.mesh import granting as granting_module
from protocol.mesh import history as history_module
from protocol.mesh import lagging as lagging_module
from protocol.mesh import lifecycle as lifecycle_module
from protocol.mesh import mesh as mesh_module
from protocol.mesh import recalling as recalling_module
from protocol.mesh import resuming as resuming_module
from protocol.mesh import returning as returning_module
from protocol.mesh import roster as roster_module
from protocol.mesh import texts as texts_module
from protocol.mesh import turns as turns_module
from protocol.mesh.echoes import key_of
from protocol.mesh.effects import Deliver, Effect, Everyone
from protocol.mesh.history import History, Missing
from protocol.mesh.items import Entrance
from protocol.mesh.local import LocalMesh
from protocol.mesh.mesh import Mesh
from protocol.mesh.recalling import Recent
from protocol.mesh.resuming import Resumptions
from protocol.mesh.returning import Returns
from protocol.mesh.roster import Peer
from protocol.mesh.texts import recalled
from protocol.verification.machine import TIGHT, RelayMachine, machine_for
from protocol.verification.model import Disagreement, Permit
from protocol.verification.subjects import CoreSubject, Judge, Subject, as_grant
from protocol.verification.subjects import core as core_module
from protocol.verification.subjects.live import LiveSubject
from tests.protocol.verification.wrong_histories import (
    as_parts,
    everything_again,
    missed,
    what_is_left_of_it,
)
from tests.worlds.actor_subject import ActorSubject, parse
from tests.worlds.federation import FederatedSubject
from tests.worlds.live import LiveRelay

ALWAYS = ("join", "stream", "time_passes")
WISHES = (
    *ALWAYS,
    "join_and_want_something",
    "want_something_else",
    "ask_for_what_is_wanted_of_what_was_said",
)
OWNERS = (
    *ALWAYS,
    "announce",
    "beat",
    "claim_again",
    "claim_and_join",
    "direct",
    "join_within_a_permit",
    "take_over",
)
PAGES = (
    *ALWAYS,
    "join_and_command_a_local_agent",
    "join_and_send_again",
    "join_as_a_page",
    "leave",
    "say_what_pages_send_again",
)
PACE = (
    *ALWAYS,
    "ask_and_be_answered",
    "catch_up",
    "fall_behind",
    "join_and_fall_behind",
    "join_at_a_pace",
)
RECALLING = (*ALWAYS, "ask_what_was_said", "join_and_ask_what_was_said", "leave")
COMING_BACK = (
    *ALWAYS,
    "be_cut_and_come_back",
    "come_back_twice_at_once",
    "come_back_with_another_permit",
    "hand_over",
    "join_be_cut_and_come_back",
    "leave",
)
"""Steps of the machine that have to do with one matter. A relay that is wrong in it is found much
sooner with these alone."""

STEPS = {
    name for name, _ in inspect.getmembers(RelayMachine, lambda its: hasattr(its, RULE_MARKER))
}

PATIENCE_S = 20.0
"""How long to wait for what must come: never that long if it does."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Crashes are made here by the dozen."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(
    make_subject: Callable[[], Subject],
    examples: int,
    steps: int,
    *,
    shrink: bool = True,
    only: Collection[str] = STEPS,
    **fields: object,
) -> None:
    """`only`: the steps that the machine takes."""
    assert STEPS.issuperset(only), f"no step is called {set(only) - STEPS}"
    budget = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize="RANDOM_MACHINE" not in os.environ,  # red only by what a change did
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=tuple(Phase) if shrink else (Phase.generate,),
    )
    fields |= dict.fromkeys(STEPS.difference(only))
    run_state_machine_as_test(machine_for(make_subject, **fields), settings=budget)


@pytest.mark.no_cover
def test_the_core_keeps_the_rules() -> None:
    run(lambda: CoreSubject(TIGHT), examples=200, steps=40)


def test_the_core_keeps_the_rules_under_the_default_limits() -> None:
    run(lambda: CoreSubject(Limits()), examples=20, steps=30)


@pytest.mark.no_cover
def test_the_actors_keep_the_rules_in_every_interleaving_that_was_tried() -> None:
    run(lambda: ActorSubject(TIGHT), examples=250, steps=50)


@pytest.mark.no_cover
def test_a_federation_keeps_the_rules() -> None:
    run(lambda: FederatedSubject(TIGHT), examples=50, steps=40)


@pytest.mark.parametrize("marker", ["capabilities", "direct"])
def test_a_live_relay_keeps_the_rules(live: LiveRelay, marker: str) -> None:
    subject = partial(LiveSubject, live.url, marker=marker, patience_s=PATIENCE_S)
    run(subject, examples=15, steps=20, not_utf8=False)


def test_a_live_subject_knows_that_an_end_was_noticed_however_busy_the_relay_is(
    monkeypatch: pytest.MonkeyPatch, live: LiveRelay
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    opening = Supervisor.open

    def note_the_loop(*args: Any, **options: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return opening(*args, **options)

    monkeypatch.setattr(Supervisor, "open", note_the_loop)
    subject = LiveSubject(live.url, settle_s=0.0, patience_s=PATIENCE_S)
    judge = two_peers(subject)
    has_time_again = threading.Event()
    loops[0].call_soon_threadsafe(has_time_again.wait)
    busy = threading.Timer(0.2, has_time_again.set)  # until then nothing is noticed
    busy.start()
    judge.drop(1)
    judge.send(2, b'{"type":"direct","to":"a"}')  # to nobody, by now
    judge.settle()
    busy.join()
    subject.done()


# The judge ----------------------------------------------------------------------------------------

PRESENCE = b'{"type":"presence","from":"%s","data":{}}'


def two_peers(subject: Subject) -> Judge:
    judge = Judge(subject)
    for c, name in ((1, b"a"), (2, b"b")):
        judge.open(c)
        judge.send(c, PRESENCE % name)
    judge.settle()
    return judge


class _Losing(CoreSubject):
    def received(self, c: int) -> list[bytes]:
        return [text for text in super().received(c) if b"secret" not in text]


class _Doubling(CoreSubject):
    def received(self, c: int) -> list[bytes]:
        return [copy for text in super().received(c) for copy in [text] * (1 + (b"secret" in text))]


class _Swapping(CoreSubject):
    def received(self, c: int) -> list[bytes]:
        return list(reversed(super().received(c)))


class _Changing(CoreSubject):
    def received(self, c: int) -> list[bytes]:
        return [text.replace(b"1.0", b"1") for text in super().received(c)]


@pytest.mark.parametrize("wrong", [_Losing, _Doubling, _Swapping, _Changing])
def test_the_judge_notices_what_is_lost_doubled_swapped_and_changed(
    wrong: type[CoreSubject],
) -> None:
    with pytest.raises(Disagreement):
        judge = two_peers(wrong())
        judge.send(1, b'{"type":"ack","n":1.0,"secret":1}', b'{"type":"stream"}')
        judge.settle()


def test_the_judge_notices_who_is_reaped_late_early_or_never() -> None:
    for shift in (-1.0, 1.0, 1e9):
        subject = CoreSubject()
        judge = two_peers(subject)
        subject.mesh.gate._limits = Limits(reap_after_s=30.0 + shift)
        with pytest.raises(Disagreement):
            for _ in range(40):
                judge.subject.pass_time(1.0)
                judge.settle()


class _ToAll(LocalMesh):
    """A direct goes to everybody."""

    def take_effects(self) -> list[Effect]:
        return [
            Deliver(e.texts, Everyone())
            if isinstance(e, Deliver) and b'"direct"' in e.texts[0]
            else e
            for e in super().take_effects()
        ]


def test_the_machine_finds_a_relay_that_sends_directs_to_all() -> None:
    class Wrong(CoreSubject):
        def make_mesh(self, strict: bool) -> LocalMesh:
            return _ToAll(self.limits, strict=strict)

    with pytest.raises(Disagreement):
        run(lambda: Wrong(TIGHT), examples=200, steps=20, shrink=False)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (f"{echoes_module.__name__}.Echoes.is_echo", lambda echoes, key, peer, at: False),
        (f"{mesh_module.__name__}.key_of", lambda its_type, data: key_of("any", data)),
        (f"{mesh_module.__name__}.content", lambda text: (content(text)[0], False)),
        (f"{roster_module.__name__}.Roster._is_at_home", lambda roster, peer, header: False),
    ],
)
def test_the_machine_finds_a_relay_that_does_not_know_what_pages_do(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises(Disagreement):
        run(lambda: CoreSubject(TIGHT), examples=600, steps=30, shrink=False, only=PAGES)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (f"{lagging_module.__name__}.Laggards.spare", lambda *_, **__: ()),
        (f"{turns_module.__name__}.Turns.has_begun", lambda turns, peer, turn: False),
        (f"{roster_module.__name__}.Roster.is_named", lambda roster, peer, header: False),
        (f"{roster_module.__name__}.Roster.is_named", lambda roster, peer, header: True),
        (f"{lagging_module.__name__}.Laggards._tell", lambda *_: None),
    ],
)
def test_the_machine_finds_a_relay_that_spares_laggards_too_much_or_too_little(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises(Disagreement):
        run(lambda: CoreSubject(TIGHT), examples=600, steps=30, shrink=False, only=PACE)


def test_the_machine_finds_a_relay_that_delivers_more_than_the_bound_of_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_origin = Mesh._with_origin

    def without_a_bound(
        mesh: Mesh, peer: Peer, header: Header, messages: Sequence[bytes]
    ) -> Sequence[bytes]:
        large = Mesh(Limits(id_chars_max=TIGHT.id_chars_max), [])
        large.roster = mesh.roster
        return with_origin(large, peer, header, messages)

    monkeypatch.setattr(Mesh, "_with_origin", without_a_bound)
    with pytest.raises(Disagreement):
        run(lambda: CoreSubject(TIGHT), examples=200, steps=40, shrink=False)


def test_the_machine_finds_a_supervisor_that_forgets_who_is_last_in_its_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    round = Supervisor.round

    def forgetful_round(supervisor: Supervisor) -> None:
        if len(supervisor._inbox._ready) > 1:
            supervisor._inbox._ready.pop()
        round(supervisor)

    monkeypatch.setattr(Supervisor, "round", forgetful_round)
    with pytest.raises(Disagreement):
        run(lambda: ActorSubject(TIGHT), examples=200, steps=30, shrink=False)


def _lets_all_pass(*_: object) -> None: ...


def _a_second_too_long(permit: Permit | None) -> Grant:
    if permit is not None and permit.ends_at is not None:
        permit = dataclasses.replace(permit, ends_at=permit.ends_at + 1.0)
    return as_grant(permit)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (f"{mesh_module.__name__}.same_owner", lambda one, other: True),
        (f"{mesh_module.__name__}.Mesh._check_owner", lambda mesh, peer, claim: ()),
        (f"{gate_module.__name__}.Gate.replaced", _lets_all_pass),
        (f"{granting_module.__name__}.check_peer", _lets_all_pass),
        (f"{granting_module.__name__}.check_agents", _lets_all_pass),
        (f"{granting_module.__name__}.check_said", _lets_all_pass),
        (f"{connection_module.__name__}.Connection.claims", _lets_all_pass),
        (f"{core_module.__name__}.as_grant", _a_second_too_long),
        (f"{announcer_module.__name__}.Entrance", lambda claim, _, **_paced: Entrance(claim)),
    ],
)
def test_the_machine_finds_a_relay_that_keeps_no_claim_or_no_grant(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises(Disagreement):
        run(lambda: CoreSubject(TIGHT), examples=600, steps=30, shrink=False, only=OWNERS)


@as_parts
def _the_last_one_is_lost(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    return missed(history, c, received, crc)[:-1]


@as_parts
def _the_first_one_again(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    texts = missed(history, c, received, crc)
    return texts[:1] + texts


@as_parts
def _without_a_crc(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    try:
        return missed(history, c, received, crc)
    except Missing:
        count = history.count(c)
        return missed(history, c, 0, None)[received:] if received <= count else []


def _is_good_twice(resumptions: Resumptions, token: str) -> int | None:
    return resumptions._connections.get(token)


def _counts_anew(returns: Returns, id: int, lost_id: int, *asked: Any) -> bytes:
    resumption = returns._connections[lost_id].resumption
    assert resumption is not None
    resumption.taken = 0
    return come_back(returns, id, lost_id, *asked)


come_back, deadline = Returns.come_back, lifecycle_module.deadline
stay_away = Returns.stay_away


def _says_that_more_was_taken(returns: Returns, *asked: Any, lost_id: int | None = None) -> bytes:
    resumption = None if lost_id is None else returns._connections[lost_id].resumption
    if resumption is not None:
        resumption.taken += 1
    return stay_away(returns, *asked, lost_id=lost_id)


def _never_gives_up(life: lifecycle_module.Life, limits: Limits) -> float | None:
    return deadline(attrs.evolve(life, until=float("inf")), limits)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (f"{history_module.__name__}.History.missed", _the_last_one_is_lost),
        (f"{history_module.__name__}.History.missed", _the_first_one_again),
        (f"{history_module.__name__}.History.missed", everything_again),
        (f"{history_module.__name__}.History.missed", _without_a_crc),
        (f"{history_module.__name__}.History.missed", what_is_left_of_it),
        (f"{resuming_module.__name__}.Resumptions.use", _is_good_twice),
        (f"{returning_module.__name__}.Returns.come_back", _counts_anew),
        (f"{returning_module.__name__}.Returns.goes_back", lambda *_: False),
        (f"{returning_module.__name__}.Returns.stay_away", _says_that_more_was_taken),
        (f"{returning_module.__name__}.Returns.lose", lambda *_: None),
        (f"{returning_module.__name__}.CLEAN", frozenset()),
        (f"{returning_module.__name__}._timeless", lambda grant: OPEN),
        (f"{comebacks_module.__name__}.Comebacks._take_the_rest", _lets_all_pass),
        (f"{lifecycle_module.__name__}.deadline", _never_gives_up),
    ],
)
def test_the_machine_finds_a_relay_to_which_one_cannot_come_back(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises((Disagreement, KeyError)):  # some of them know the connection no more
        run(lambda: ActorSubject(TIGHT), examples=600, steps=30, shrink=False, only=COMING_BACK)


last = Recent.last


def _one_more(text: bytes) -> int | None:
    count = recalling_module.how_many(text)
    return None if count is None else count + 1


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (f"{recalling_module.__name__}.Recent.last", lambda recent, count, at: ()),
        (f"{answers_module.__name__}.how_many", _one_more),
        (f"{recalling_module.__name__}.Recent.last", lambda it, n, at: last(it, n, at)[::-1]),
        (f"{recalling_module.__name__}.Recent.forget", _lets_all_pass),
        (f"{texts_module.__name__}.recalled", lambda to, n, at: recalled(to, n + 1, at)),
    ],
)
def test_the_machine_finds_a_relay_that_tells_wrongly_what_was_said(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises(Disagreement):
        run(lambda: CoreSubject(TIGHT), examples=600, steps=30, shrink=False, only=RECALLING)


def test_frames_are_cut_where_they_end() -> None:
    wire = bytes([0x81, 1, 65, 0x81, 126, 0, 200]) + b"x" * 200 + bytes([0x81, 127]) + b"\0" * 7
    assert parse(wire) == ([b"A", b"x" * 200], bytes([0x81, 127]) + b"\0" * 7)
