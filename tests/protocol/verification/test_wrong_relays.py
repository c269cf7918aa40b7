"""Relays that are wrong as a whole: each is judged, and fails at its own claims only.

What one of them does without altogether says nothing about its other promises. So those that build
on it are not broken there: they cannot be judged.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from websockets.asyncio.server import serve

from protocol.verification.conformance import (
    Claim,
    Level,
    Proof,
    Report,
    Result,
    Target,
    all_claims,
    check,
)
from protocol.verification.conformance import command as command_module
from protocol.verification.conformance.bad_input import BAD_INPUT
from protocol.verification.conformance.causes import ENDED, MUTE
from protocol.verification.conformance.command import QUICK_PATIENCE_S, main
from protocol.verification.conformance.peer import JOIN_S, NOW_S
from protocol.verification.conformance.result import Outcome
from protocol.verification.conformance.world import World
from tests.protocol.verification.test_conformance import PATIENCE_S, SOON_S, judged
from tests.protocol.verification.wrong_relays import Mistake, SmallRelay, small_relay

OFFLINE = {
    "tabs.the-last-one-says-offline-once",
    "joining.a-second-id-leaves-no-ghost",
    "leaving.offline-exactly-once",
    "leaving.a-lost-connection-is-offline-once",
    "leaving.offline-carries-no-agents",
    "leaving.offline-says-why",
    "timestamps.the-relays-are-milliseconds",
}
ERRORS = {
    "direct.an-agent-leaves-with-its-peer",
    "direct.an-agents-id-is-the-first-that-is-one",
    "errors.go-to-the-offender-only",
    "errors.echo-the-turn",
    "errors.have-a-shape",
    "errors.say-what-was-wrong",
}
ROSTER = {"joining.the-roster-holds-the-latest-presences", "joining.the-roster-is-not-repeated"}


@attrs.frozen
class Judgement:
    """What a kit must say of a relay. `hides`: what it cannot judge (None: everything else)."""

    joined_by: Proof
    broken: set[Level]
    fails: set[str]
    hides: set[str] | None
    roots: int


JUDGEMENTS = {
    Mistake.NO_PRESENCE_BACK: Judgement(
        Proof.ROSTER,
        {"specification"},
        {"joining.own-presence-comes-back"},
        {"joining.own-presence-first"},
        1,
    ),
    Mistake.NO_ROSTER: Judgement(
        Proof.DIRECT,
        {"specification", "base"},
        {"joining.own-presence-comes-back", "joining.then-the-roster"},
        {"joining.own-presence-first", *ROSTER},
        2,
    ),
    Mistake.ECHOES: Judgement(
        Proof.OWN,
        {"specification"},
        {
            f"routing.{type}-does-not-come-back"
            for type in ("broadcast", "stream", "ack", "turn-end", "error")
        },
        {"tabs.the-sender-is-all-its-connections"},
        1,
    ),
    Mistake.ONLY_BROADCASTS: Judgement(
        Proof.HEARD,
        {"specification", "base"},
        {
            "before-presence.nothing-is-routed",
            "direct.reaches-only-its-target",
            "direct.to-nobody-is-an-error",
            "heartbeat.not-forwarded",
            "joining.own-presence-comes-back",
            "joining.then-the-roster",
            "leaving.offline-is-heard",
            "liveness.the-silent-are-reaped",
            "origin.forged-from-refused",
            "tabs.the-sender-is-all-its-connections",
            *(
                f"bad-input.{bad.name}"
                for bad in BAD_INPUT
                if bad.is_certain and bad.name != "presence-without-from"
            ),
        },
        {
            "bad-input.rubbish",
            "heartbeat.new-agents-are-announced",
            "joining.own-presence-first",
            "liveness.a-reap-is-announced-once",
            "liveness.a-reaped-socket-is-closed",
            "liveness.the-silent-are-reaped-on-time",
            *OFFLINE,
            *ERRORS,
            *ROSTER,
        },
        7,
    ),
    Mistake.ANSWERS_NOTHING: Judgement(
        Proof.TIME,
        {"specification"},
        {
            "direct.to-a-peer",
            "joining.everybody-sees-the-newcomer",
            "joining.own-presence-comes-back",
            "routing.broadcast-reaches-all-others",
        },
        None,
        1,
    ),
    Mistake.CLOSES_ON_CAPABILITIES: Judgement(
        Proof.OWN,
        {"base"},
        {"capabilities.closes-nothing"},
        {
            "capabilities.answered-at-any-time",
            "capabilities.tell-the-agents",
            "liveness.the-unannounced-are-closed",
            "origin.the-relays-name-is-reserved",
        },
        1,
    ),
}


@pytest.mark.no_cover
@pytest.mark.anyio
@pytest.mark.parametrize("mistake", JUDGEMENTS, ids=lambda mistake: mistake.value)
async def test_a_wrong_relay_is_judged_whole_and_fails_at_its_own_claims_only(
    mistake: Mistake,
) -> None:
    wanted = JUDGEMENTS[mistake]
    async with small_relay(mistake, SOON_S) as url:
        # The small one is for what the relay never says: for that the kit waits to the end.
        target = Target(url=url, reap_after_s=SOON_S, patience_s=PATIENCE_S / 4)
        report = await judged(target, all_claims(), wanted.fails)
    assert report.target.proofs[0] is wanted.joined_by
    assert report.names("fail") == wanted.fails
    if wanted.hides is not None:
        assert report.names("precondition failed") == wanted.hides
    broken = {level for level in ("specification", "base") if report.verdict(level) == "broken"}
    assert broken == wanted.broken
    assert report.verdict("extension") != "broken"
    check_that_roots_explain_everything(report)
    assert len(report.roots) == wanted.roots, [root.says for root in report.roots]


def check_that_roots_explain_everything(report: Report) -> None:
    failed = [name for root in report.roots for name in root.failed]
    hidden = [name for root in report.roots for name in root.hidden]
    assert sorted(failed) == sorted(report.names("fail"))
    assert sorted(hidden) == sorted(report.names("precondition failed"))


@pytest.mark.anyio
async def test_to_a_relay_that_says_nothing_the_kit_listens_long_only_once() -> None:
    async with small_relay(Mistake.ANSWERS_NOTHING) as url:
        target = Target(url=url, patience_s=QUICK_PATIENCE_S)
        report = await check(target, quick=True)
    assert [root.says for root in report.roots] == [MUTE]
    judged = [r for r in report.results if r.took_s]
    listened_s = 2 * QUICK_PATIENCE_S  # to one newcomer, and to two more
    waited_s = sum(3 * (JOIN_S + NOW_S) + report.target.patience_s for _ in judged)
    assert listened_s + waited_s < 10.0
    assert not report.is_conforming


@pytest.mark.anyio
async def test_a_relay_that_ends_is_blamed_once_and_nothing_else_is_judged() -> None:
    wanted = ("direct.to-a-peer", "bad-input.array", "bad-input.null", "bad-input.number")
    claims = [claim for claim in all_claims() if claim.name in wanted]
    server = SmallRelay()
    async with serve(server.handle, "127.0.0.1", 0, compression=None) as listening:

        def read(text: str | bytes) -> dict[str, Any]:
            if text == "[]":
                listening.close(close_connections=True)
            return SmallRelay.read(server, text)

        server.read = read  # type: ignore[method-assign]
        (listener, *_) = listening.sockets
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        report = await check(Target(url=url, patience_s=3.0), claims)
    outcomes = {result.claim.name: result.outcome for result in report.results}
    assert outcomes["direct.to-a-peer"] == "pass"
    assert outcomes["bad-input.array"] == "fail"
    assert report.names("precondition failed") == {"bad-input.null", "bad-input.number"}
    (root,) = report.roots
    assert (root.says, set(root.hidden)) == (ENDED, {"bad-input.null", "bad-input.number"})


@pytest.mark.anyio
async def test_what_keeps_peers_alive_counts_for_no_claim_where_it_is_forwarded() -> None:
    async with small_relay(Mistake.ONLY_BROADCASTS) as url:
        proofs = (Proof.HEARD, Proof.TIME)
        async with World(Target(url=url, reap_after_s=0.2, proofs=proofs)) as world:
            _, peer = await world.joined("a", "b")
            await peer.sees(lambda m: m.type == "heartbeat", "the heartbeat of another peer")
            assert peer.traffic() == []


@pytest.mark.anyio
async def test_only_what_a_chosen_claim_needs_is_judged_with_it() -> None:
    (claim,) = [claim for claim in all_claims() if claim.name == "joining.own-presence-first"]
    async with small_relay(Mistake.NO_PRESENCE_BACK) as url:
        report = await check(Target(url=url, patience_s=3.0), [claim])
    assert report.names("precondition failed") == {claim.name}
    assert report.names("fail") == set()  # of the chosen ones
    assert not report.is_conforming
    (root,) = report.roots
    assert root.failed == ("joining.own-presence-comes-back",)


@pytest.mark.parametrize(("level", "code"), [("specification", 0), ("base", 1)])
def test_the_exit_code_is_that_of_the_chosen_level(
    level: Level, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def judged_already(target: Target, claims: Sequence[Claim], **_: object) -> Report:
        outcome: dict[Level, Outcome] = {
            "specification": "pass",
            "base": "fail",
            "extension": "fail",
        }
        return Report(target, tuple(Result(claim, outcome[claim.level]) for claim in claims))

    monkeypatch.setattr(command_module, "check", judged_already)
    assert main(["ws://localhost/ws", "--level", level]) == code
    shown = capsys.readouterr().out
    assert ("base          broken" in shown) == bool(code)
    assert "extension  " not in shown.partition("level ")[2]
