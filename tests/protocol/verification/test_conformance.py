"""The conformance kit: our relay passes it, and every known mistake fails at its own claim.

This file is also an example of how another project puts the kit into its own test suite: the
fixture `relay_url` and the line `test_our_relay = conformance_tests(...)` are all that is needed.
"""

import json
import socket
import time
from collections.abc import Container, Iterable, Iterator
from typing import Any

import attrs
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from actors.relay import comebacks as comebacks_module
from protocol.limits import Limits
from protocol.mesh import answers as answers_module
from protocol.mesh import connection as connection_module
from protocol.mesh import history as history_module
from protocol.mesh import lifecycle as lifecycle_module
from protocol.mesh import mesh as mesh_module
from protocol.mesh import recalling as recalling_module
from protocol.mesh import resuming as resuming_module
from protocol.mesh import returning as returning_module
from protocol.mesh import texts as texts_module
from protocol.mesh.history import History
from protocol.mesh.lagging import Laggards
from protocol.mesh.recalling import Recent
from protocol.mesh.resuming import Resume, Resumption, Resumptions
from protocol.mesh.returning import Returns
from protocol.verification.conformance import (
    Claim,
    Failed,
    Report,
    Results,
    Target,
    Unreachable,
    World,
    all_claims,
    check,
    conformance_tests,
    probed,
    run_claim,
    up_to,
)
from protocol.verification.conformance.bad_input import BAD_INPUT
from protocol.verification.conformance.check import ATTEMPTS
from protocol.verification.conformance.claim import Check
from protocol.verification.conformance.command import main
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.registry import with_needs
from tests.protocol.verification.wrong_histories import (
    as_parts,
    everything_again,
    missed,
    what_is_left_of_it,
)
from tests.protocol.verification.wrong_relays import Mistake, small_relay
from tests.worlds.live import LiveRelay

BASE = up_to("base")
PATIENCE_S = 20.0
"""How long a claim waits for what must come. One that passes never waits this long."""
IN_VAIN_S = 1.0
"""The same for claims that fail: for want of a message, and that takes all of it."""
SOON_S = 1.0
"""After which silence the small relay reaps, in tests of that."""
REAPS_SOON = Limits(
    announce_within_s=2.0, stale_after_s=1.0, presence_refresh_s=1.6, reap_after_s=2.0
)

# Our relay ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def relay_url() -> Iterator[str]:
    """A relay as `python relay.py` runs it."""
    with LiveRelay() as relay:
        yield relay.url


test_our_relay = conformance_tests(patience_s=PATIENCE_S)


def test_nothing_that_needs_no_time_is_inapplicable_to_our_relay(
    relay_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([relay_url, "--quick", "--json", "--patience", str(PATIENCE_S)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["announces_extensions"]
    assert report["counts"]["not applicable"] == 0
    assert report["counts"]["not run"] == sum(claim.needs_time for claim in all_claims())
    assert all(claim["took_s"] == 0.0 for claim in report["claims"] if claim["needs_time"])


def test_our_relay_keeps_every_promise_about_time(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveRelay(limits=REAPS_SOON) as relay:
        chosen = ("liveness.*", "heartbeat.*", "coming-back.over-time")
        options = [word for name in chosen for word in ("--only", name)] + ["--reap-after", "2.0"]
        assert main([relay.url, "--json", "--patience", str(PATIENCE_S), *options]) == 0
    claims = {claim["name"]: claim for claim in json.loads(capsys.readouterr().out)["claims"]}
    about_time = {claim.name for claim in all_claims() if claim.needs_time and claim.rule != 20}
    assert about_time <= set(claims)
    left_out = [name for name, claim in claims.items() if claim["outcome"] != "pass"]
    assert left_out == ["liveness.pongs-count-for-those-who-ask"]  # it pings every 10 s
    assert claims[left_out[0]]["outcome"] == "not applicable"


def spares_nobody(*_: object, **__: object) -> tuple[int, ...]:
    return ()


def begins_nothing(*_: object) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pace", "wrong", "outcome"),
    [
        ("on", {}, "pass"),
        ("off", {}, "not applicable"),
        ("on", {"spare": spares_nobody}, "fail"),
        ("on", {"begins": begins_nothing}, "fail"),
    ],
)
async def test_a_relay_behind_an_edge_keeps_rule_20(
    monkeypatch: pytest.MonkeyPatch, pace: str, wrong: dict[str, Any], outcome: str
) -> None:
    (claim,) = [claim for claim in all_claims() if claim.rule == 20]
    for name, function in wrong.items():
        monkeypatch.setattr(Laggards, name, function)
    with LiveRelay(pace=pace) as relay:
        patience_s = PATIENCE_S if outcome == "pass" else 3 * IN_VAIN_S
        report = await check(Target(url=relay.url, patience_s=patience_s), [claim])
    assert [result.outcome for result in report.results] == [outcome]


# Other relays -------------------------------------------------------------------------------------


async def judged(
    target: Target, claims: Iterable[Claim], fail: Container[str], *, quick: bool = False
) -> Report:
    """The same as `check`, but what will fail waits in vain for a shorter time."""
    patient = await probed(target)
    hasty = attrs.evolve(patient, patience_s=min(IN_VAIN_S, patient.patience_s))
    claims = [claim for claim in claims if not (quick and claim.needs_time)]
    results = Results(patient)
    for claim in with_needs(claims):
        results.target = hasty if claim.name in fail else patient
        await results.add(claim)
    return results.report(claims)


FAILS: dict[Mistake, set[str]] = {
    Mistake.CLOSING_ONE_TAB_SAYS_OFFLINE: {
        "tabs.closing-one-hides-nobody",
        "tabs.late-death-of-an-old-socket-hides-nobody",
        "tabs.the-last-one-says-offline-once",
    },
    Mistake.DIRECT_TO_AGENT_IS_DROPPED: {"direct.to-an-agent"},
    Mistake.REAP_SAYS_OFFLINE_TWICE: {"liveness.a-reap-is-announced-once"},
    Mistake.FORGED_FROM_IS_DELIVERED: {"origin.forged-from-refused"},
    Mistake.MALFORMED_CLOSES: {f"bad-input.{bad.name}" for bad in BAD_INPUT if bad.is_certain},
    Mistake.JOIN_DISCONNECTS_THE_SENDER: {"joining.during-a-storm-disconnects-nobody"},
    Mistake.SECOND_ID_LEAVES_A_GHOST: {"joining.a-second-id-leaves-no-ghost"},
    Mistake.STALLED_READER_BLOCKS_ALL: {"load.a-stalled-reader-blocks-nobody"},
    Mistake.HEARTBEAT_IS_FORWARDED: {"heartbeat.not-forwarded"},
    Mistake.DIRECT_GOES_TO_ALL: {"direct.reaches-only-its-target"},
    Mistake.DIRECT_IS_OVERTAKEN: {"order.one-sender-across-types"},
}
"""The claims at which a relay with this mistake fails: these, and no others."""

HIDES: dict[Mistake, set[str]] = {
    Mistake.DIRECT_TO_AGENT_IS_DROPPED: {
        "direct.to-an-agent-announced-as-an-object",
        "direct.an-agent-leaves-with-its-peer",
    },
    Mistake.MALFORMED_CLOSES: {"bad-input.rubbish"},
}
"""The claims that cannot be judged then."""


@pytest.mark.anyio
async def test_a_small_relay_of_the_base_protocol_passes_and_its_lacks_are_not_applicable() -> None:
    async with small_relay(reap_after_s=SOON_S) as url:
        target = Target(url=url, reap_after_s=SOON_S, patience_s=PATIENCE_S)
        report = await check(target, all_claims())
    assert report.names("fail") == set()
    assert report.is_conforming
    assert {claim.name for claim in BASE} <= report.names("pass")
    assert {
        "capabilities.answered-at-any-time",
        "errors.echo-the-turn",
        "meshes.never-see-one-another",
        "origin.the-origin-is-added",
        "withheld.types-with-credentials",
    } <= report.names("not applicable")


@pytest.mark.anyio
@pytest.mark.parametrize("mistake", FAILS, ids=lambda mistake: mistake.value)
async def test_every_known_mistake_fails_at_its_own_claim(mistake: Mistake) -> None:
    with_time = mistake is Mistake.REAP_SAYS_OFFLINE_TWICE
    reap_after_s = SOON_S if with_time else 30.0
    async with small_relay(mistake, reap_after_s) as url:
        target = Target(url=url, reap_after_s=reap_after_s, patience_s=PATIENCE_S)
        report = await judged(target, BASE, FAILS[mistake], quick=not with_time)
    assert report.names("fail") == FAILS[mistake]
    assert report.names("precondition failed") == HIDES.get(mistake, set())
    assert not report.is_conforming
    for failed in (result for result in report.results if result.outcome == "fail"):
        assert failed.expected
        assert failed.seen
        assert f"FAIL {failed.claim.name}" in report.as_table()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("place", "wrong", "broken"),
    [
        (
            f"{mesh_module.__name__}.same_owner",
            lambda one, other: True,
            {
                "owners.others-are-refused",
                "owners.share-and-lapse",
                "owners.unclaimed-ids-stay-open",
            },
        ),
        (f"{mesh_module.__name__}.Mesh._check_owner", lambda *_: (), {"owners.takeover"}),
        (
            f"{connection_module.__name__}.Connection.claims",
            lambda *_: None,
            {"owners.a-bad-claim-is-refused"},
        ),
    ],
)
async def test_a_relay_that_keeps_no_claim_of_an_id_fails_where_it_breaks_it(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object, broken: set[str]
) -> None:
    assert await failed_among(broken, monkeypatch, place, wrong) == broken


@as_parts
def _as_if_all_had_arrived(history: History, c: int, received: int, _: int | None) -> list[bytes]:
    texts = missed(history, c, 0, None)
    return texts[received:]


def _counts_frames_anew(returns: Returns, id: int, lost_id: int, *asked: Any) -> bytes:
    answer = come_back(returns, id, lost_id, *asked)
    resumption = returns._connections[lost_id].resumption
    assert resumption is not None
    resumption.taken = 0
    return answer


def _keeps_its_token(resumptions: Resumptions, connection: int, resumption: Resumption) -> None:
    resumption.token = resumption.token or resumptions._new_token()
    resumptions._connections[resumption.token] = connection


def _late_or_not(returns: Returns, id: int, request: Resume) -> int | str:
    connection = returns._connections[id]
    peer, connection.peer = connection.peer, None
    try:
        return find(returns, id, request)
    finally:
        connection.peer = peer


come_back, find, use = Returns.come_back, Returns.find, Resumptions.use


def _any_epoch(returns: Returns, id: int, request: Resume) -> int | str:
    assert returns._resumptions is not None
    return find(returns, id, attrs.evolve(request, epoch=returns._resumptions.epoch))


def _any_token(resumptions: Resumptions, token: str) -> int | None:
    return use(resumptions, token) or next(iter(resumptions._connections.values()), None)


def _nothing(*_: object) -> None: ...


def _never_over(life: lifecycle_module.Life, limits: Limits) -> float | None:
    return deadline(attrs.evolve(life, until=float("inf")), limits)


deadline = lifecycle_module.deadline


REFUSED = "coming-back.refused."


WRONG_RETURNS: list[tuple[str, object, set[str]]] = [
    # A second return without anything new tells everything again.
    (
        f"{history_module.__name__}.History.missed",
        everything_again,
        {"coming-back.again-without-anything-new"},
    ),
    # A count begins anew with a return.
    (
        f"{returning_module.__name__}.Returns.come_back",
        _counts_frames_anew,
        {"coming-back.the-counts-go-on"},
    ),
    # What was trimmed is told as if nothing had been missed.
    (
        f"{history_module.__name__}.History.missed",
        what_is_left_of_it,
        {"coming-back.all-or-nothing"},
    ),
    # Nothing is kept while somebody is away.
    (
        f"{returning_module.__name__}.Returns.lose",
        _nothing,
        {
            "coming-back.nothing-is-missed",
            "coming-back.before-any-message",
            "coming-back.what-was-not-taken-is-sent-again",
        },
    ),
    # Who is back before the relay has noticed is a stranger, or what it said last is lost.
    (
        f"{comebacks_module.__name__}.Comebacks._take_the_rest",
        _nothing,
        {"coming-back.before-the-relay-noticed"},
    ),
    (
        f"{history_module.__name__}.History.missed",
        _as_if_all_had_arrived,
        {f"{REFUSED}another-last-message", f"{REFUSED}no-crc", f"{REFUSED}more-than-was-sent"},
    ),
    (
        f"{returning_module.__name__}.Returns.goes_back",
        lambda *_: False,
        {f"{REFUSED}fewer-than-it-said"},
    ),
    (f"{returning_module.__name__}.CLEAN", frozenset(), {"coming-back.a-clean-close-leaves"}),
    (
        f"{resuming_module.__name__}.Resumptions.renew",
        _keeps_its_token,
        {f"{REFUSED}a-token-that-was-used"},
    ),
    (f"{returning_module.__name__}.Returns.find", _any_epoch, {f"{REFUSED}another-epoch"}),
    (f"{returning_module.__name__}.Returns.find", _late_or_not, {f"{REFUSED}too-late"}),
    (f"{resuming_module.__name__}.Resumptions.use", _any_token, {f"{REFUSED}a-guessed-token"}),
    (
        f"{resuming_module.__name__}.whole_number",
        lambda value, *_: value,
        {f"{REFUSED}what-cannot-be-read"},
    ),
    (
        f"{answers_module.__name__}.texts.about_coming_back",
        lambda to, turn_id, data, wall_ms: b'{"type":"capabilities_response","data":{}}',
        {"coming-back.reports-are-answered"},
    ),
    (f"{lifecycle_module.__name__}.deadline", _never_over, {"coming-back.over-time"}),
]
"""What a relay gets wrong, and at which claims it fails. Known bugs of others are among them."""


async def failed_among(
    names: set[str], monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> set[str]:
    """Which of these claims fail, if our relay has something wrong in this place."""
    with LiveRelay() as relay:
        patient = await probed(Target(url=relay.url, patience_s=PATIENCE_S))
        target = attrs.evolve(patient, patience_s=IN_VAIN_S)
        monkeypatch.setattr(place, wrong)
        return {
            claim.name
            for claim in all_claims()
            if claim.name in names and (await run_claim(claim, target)).outcome == "fail"
        }


@pytest.mark.anyio
@pytest.mark.parametrize(("place", "wrong", "broken"), WRONG_RETURNS)
async def test_a_relay_to_which_one_cannot_come_back_fails_where_it_breaks_the_rule(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object, broken: set[str]
) -> None:
    assert await failed_among(broken, monkeypatch, place, wrong) == broken


def test_every_claim_of_coming_back_is_broken_by_some_relay() -> None:
    broken = {name for _, _, names in WRONG_RETURNS for name in names}
    every = {claim.name for claim in all_claims() if claim.rule == 19}
    assert every - broken == {f"{REFUSED}in-another-mesh"}  # the next test


last, how_many, recalled = Recent.last, recalling_module.how_many, texts_module.recalled
SAID = "what-was-said."


def _wish(text: bytes) -> int | None:
    return 50 if b'"history"' in text else None


def _talkative(to: str, count: int, wall_ms: int) -> bytes:
    return recalled(to, count, wall_ms).replace(b'"data":{', b'"data":{"more":1,')


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("place", "wrong", "broken"),
    [
        (f"{recalling_module.__name__}.Recent.last", lambda it, n, at: last(it, n, at)[::-1],
         {f"{SAID}arrives-behind-the-roster"}),
        (f"{answers_module.__name__}.how_many", lambda text: how_many(text) and 50,
         {f"{SAID}only-what-went-to-everyone"}),
        (f"{mesh_module.__name__}.texts.recalled", lambda to, n, at: recalled(to, n + 1, at),
         {f"{SAID}arrives-behind-the-roster", f"{SAID}stays-in-its-mesh"}),
        (f"{mesh_module.__name__}.texts.recalled", _talkative,
         {f"{SAID}arrives-behind-the-roster"}),
        (f"{answers_module.__name__}.how_many", _wish, {f"{SAID}a-bad-wish-is-refused"}),
    ],
)  # fmt: skip
async def test_a_relay_that_tells_wrongly_what_was_said_fails_where_it_breaks_the_rule(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object, broken: set[str]
) -> None:
    assert await failed_among(broken, monkeypatch, place, wrong) == broken


@pytest.mark.anyio
async def test_a_relay_whose_meshes_share_their_tokens_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared: dict[str, int] = {}

    def open(resumptions: Resumptions, connection: int, seconds: float) -> Resumption:
        resumptions._connections, resumptions.epoch = shared, "one for all"
        return opening(resumptions, connection, seconds)

    def use_any(resumptions: Resumptions, token: str) -> int | None:
        resumptions._connections, resumptions.epoch = shared, "one for all"
        return use(resumptions, token)

    opening = Resumptions.open
    monkeypatch.setattr(Resumptions, "open", open)
    monkeypatch.setattr(Resumptions, "use", use_any)
    (claim,) = [claim for claim in all_claims() if claim.name == f"{REFUSED}in-another-mesh"]
    with LiveRelay() as relay:
        patient = await probed(Target(url=relay.url, patience_s=PATIENCE_S))
        target = attrs.evolve(patient, patience_s=IN_VAIN_S)
        assert (await run_claim(claim, target)).outcome == "fail"


@pytest.mark.anyio
async def test_a_relay_that_offers_neither_to_come_back_nor_what_was_said_lacks_these_claims() -> (
    None
):
    claims = [claim for claim in all_claims() if claim.rule in (19, 21)]
    with LiveRelay(limits=Limits(resume_s=0.0, recall_messages_max=0)) as relay:
        report = await check(Target(url=relay.url, patience_s=PATIENCE_S), claims)
    assert report.names("not applicable") == {claim.name for claim in claims}
    assert report.is_conforming


@pytest.mark.anyio
async def test_a_relay_that_refuses_urls_with_a_query_is_checked_without_mesh_names() -> None:
    def refuse_queries(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(404, "not here") if "?" in request.path else None

    claims = [claim for claim in all_claims() if claim.name.startswith(("meshes.", "direct.to-a"))]
    async with small_relay(process_request=refuse_queries) as url:
        report = await check(Target(url=url, patience_s=PATIENCE_S), claims)
    assert not report.target.has_mesh_names
    assert report.names("not applicable") == {"meshes.never-see-one-another"}
    assert report.names("fail") == set()


# A machine that is too slow to tell -------------------------------------------------------------


def a_claim(check: Check, *, needs_time: bool) -> Claim:
    return Claim("some.claim", "A promise.", None, "base", check, needs_time=needs_time)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("needs_time", "late_s", "tries"),
    [(True, 0.3, ATTEMPTS), (True, 0.2, 1), (False, 0.3, ATTEMPTS)],
)
async def test_a_claim_is_tried_again_where_the_kit_was_late(
    needs_time: bool, late_s: float, tries: int
) -> None:
    worlds: list[World] = []

    async def fail(world: World) -> None:
        worlds.append(world)
        world.late_s = late_s
        raise Failed("this", "that")

    target = Target(url="ws://nowhere.invalid/ws", reap_after_s=1.0)
    result = await run_claim(a_claim(fail, needs_time=needs_time), target)
    assert (result.outcome, result.expected, result.seen) == ("fail", "this", "that")
    assert len(worlds) == tries


@pytest.mark.anyio
async def test_a_claim_that_holds_when_it_is_tried_again_passes() -> None:
    tried = 0

    async def fail_once(world: World) -> None:
        nonlocal tried
        tried += 1
        world.late_s = 1.0
        expect(tried > 1, "this", "that")

    target = Target(url="ws://nowhere.invalid/ws", reap_after_s=1.0)
    result = await run_claim(a_claim(fail_once, needs_time=True), target)
    assert (result.outcome, tried) == ("pass", 2)


@pytest.mark.anyio
async def test_a_world_knows_how_late_it_was_itself() -> None:
    async with World(Target(url="ws://nowhere.invalid/ws", reap_after_s=0.08)) as world:
        await world.pause(0)  # now it waits for its next heartbeat, 0.01 s from here
        time.sleep(0.1)  # noqa: ASYNC251 - the machine has something else to do
        while not world.late_s:
            await world.pause(0)
        assert world.late_s >= 0.08


# The command --------------------------------------------------------------------------------------


def test_a_failure_is_exit_code_1_and_says_what_was_expected_and_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with LiveRelay(limits=Limits(messages_burst=100, messages_per_s=10.0)) as relay:
        assert main([relay.url, "--only", "load.a-burst*", "--patience", "3"]) == 1
    table = capsys.readouterr().out
    assert "FAIL load.a-burst-of-600-passes" in table
    assert "expected: " in table
    assert "seen: " in table
    assert "extension     broken" in table
    assert "fails: load.a-burst-of-600-passes" in table.partition("Root causes")[2]


def test_the_report_has_a_shape_for_machines(
    relay_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([relay_url, "--json", "--only", "direct.to-a-peer"]) == 0
    report = json.loads(capsys.readouterr().out)
    (claim,) = report.pop("claims")
    counts = {"pass": 1, "fail": 0, "precondition failed": 0, "not applicable": 0, "not run": 0}
    none = dict.fromkeys(counts, 0)
    assert report == {
        "url": relay_url,
        "conforming": True,
        "announces_extensions": True,
        "joined_by": "own",
        "reap_after_s": 30.0,
        "counts": counts,
        "levels": {
            "specification": {"verdict": "kept", "counts": counts},
            "base": {"verdict": "not checked", "counts": none},
            "extension": {"verdict": "not checked", "counts": none},
        },
        "roots": [],
    }
    assert claim.pop("took_s") >= 0.0
    assert claim == {
        "name": "direct.to-a-peer",
        "promise": "A direct reaches the peer that `to` names.",
        "rule": 5,
        "level": "specification",
        "sentence": "`direct` to one peer",
        "because": "",
        "needs_time": False,
        "outcome": "pass",
        "expected": "",
        "seen": "",
    }


@pytest.mark.parametrize("path", ["/nothing-here", "/ws?mesh=" + "x" * 300])
def test_a_url_that_takes_no_peers_is_exit_code_2_and_one_line(
    path: str, relay_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = relay_url.removesuffix("/ws") + path
    assert main([url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"check: cannot reach {url}: ")
    assert shown.err.count("\n") == 1


def test_an_address_where_nothing_listens_is_exit_code_2_and_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can listen there
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}/ws"
        assert main([url]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"check: cannot reach {url}: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://localhost/ws"],
        ["ws://localhost/ws", "--only", "no.such-claim"],
        ["ws://localhost/ws", "--reap-after", "0"],
        ["ws://localhost/ws", "--header", "no colon"],
    ],
)
def test_a_bad_command_line_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_claims_can_be_listed_without_a_relay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "| claim | promise | rule | level |"
    assert len(rows) == 2 + len(all_claims())


@pytest.mark.anyio
async def test_a_relay_that_lets_nobody_join_is_unreachable() -> None:
    limits = Limits(message_bytes_max=1024, presence_bytes_max=1024, id_chars_max=8)
    with LiveRelay(limits=limits) as relay:
        with pytest.raises(Unreachable, match="cannot join a mesh"):
            await check(Target(url=relay.url, patience_s=3.0))


def test_other_projects_get_only_the_tests_that_they_ask_for() -> None:
    def names(test: object) -> set[str]:
        (mark,) = test.pytestmark  # type: ignore[attr-defined]
        return {claim.name for claim in mark.args[1]}

    everything = {claim.name for claim in all_claims()}
    timeless = {claim.name for claim in all_claims() if not claim.needs_time}
    assert names(conformance_tests()) == timeless
    assert names(conformance_tests(reap_after_s=30.0)) == everything
    assert names(conformance_tests(level="base")) == timeless & {claim.name for claim in BASE}
    assert not any(
        name.startswith("bad-input.")
        for name in names(conformance_tests(leave_out=["bad-input.*"]))
    )
