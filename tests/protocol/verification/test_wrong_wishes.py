"""Relays that get rule 22 wrong: the machine finds each, and each claim fails at one of them."""

from collections.abc import Sequence
from typing import Any

import pytest

from protocol import codec as codec_module
from protocol import wish as wish_module
from protocol.codec import Codec
from protocol.envelope import Announcement, Refusal, Text
from protocol.limits import Limits
from protocol.mesh import audiences as audiences_module
from protocol.mesh import mesh as mesh_module
from protocol.mesh import roster as roster_module
from protocol.mesh import wishes as wishes_module
from protocol.mesh.effects import Chosen, Deliver, Everyone, Only
from protocol.mesh.wishes import ALL, Wishes
from protocol.subscribe import read_wish
from protocol.verification.conformance import Target, all_claims, check
from protocol.verification.machine import TIGHT
from protocol.verification.model import Disagreement
from protocol.verification.subjects import CoreSubject
from protocol.wish import EVERYTHING, Wish
from tests.protocol.verification.test_conformance import PATIENCE_S, failed_among
from tests.protocol.verification.test_machine import RECALLING, WISHES, run
from tests.protocol.verification.wrong_relays import small_relay

want, announcement = Wishes.want, Codec.announcement


def _the_first_wish_counts(wishes: Wishes, connection: int, wish: Wish) -> int | None:
    return want(wishes, connection, wish) if wishes.of(connection) == EVERYTHING else None


def _any_wish_is_right(said: Any, limits: Limits) -> Wish:
    try:
        return read_wish(said, limits)
    except Refusal:
        return EVERYTHING


def _heartbeats_too(codec: Codec, text: Text, *, is_presence: bool) -> Announcement:
    return announcement(codec, text)


def _lets_all_pass(*_: object) -> None: ...


IN_THE_CORE = [
    (f"{audiences_module.__name__}.Audiences.choose", lambda _, __, sender, *___: sender.others),
    (f"{audiences_module.__name__}.Audiences._named_only", lambda *_: Only(())),
    (f"{audiences_module.__name__}.Audiences.wanted", lambda _, __, ___, ____, said: said),
    (f"{audiences_module.__name__}.topic_of", lambda text: None),
    (f"{roster_module.__name__}.Roster.named", lambda roster, header: {}),
    (f"{wish_module.__name__}.Wish.has_type", lambda wish, _: True),
    (f"{wish_module.__name__}.Wish.has_topic", lambda wish, _: True),
    (f"{wishes_module.__name__}.ANY_REST", "/"),
    (f"{wishes_module.__name__}.Wishes.check", _lets_all_pass),
    (f"{wishes_module.__name__}.Wishes.want", _the_first_wish_counts),
    (f"{wishes_module.__name__}.Wishes.forget", _lets_all_pass),
    (f"{codec_module.__name__}.read_wish", _any_wish_is_right),
    (f"{codec_module.__name__}.Codec.announcement", _heartbeats_too),
]


@pytest.mark.no_cover
@pytest.mark.parametrize(("place", "wrong"), IN_THE_CORE)
def test_the_machine_finds_a_relay_that_does_not_know_what_is_wanted(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object
) -> None:
    monkeypatch.setattr(place, wrong)
    with pytest.raises(Disagreement):
        only = (*WISHES, *RECALLING, "announce", "beat", "direct")
        run(lambda: CoreSubject(TIGHT), examples=600, steps=30, shrink=False, only=only)


# The claims ---------------------------------------------------------------------------------------


def _a_presence_to_the_plain_ones_alone(texts: Sequence[Text], audience: Any) -> Deliver:
    return Deliver(texts, Chosen((ALL,), (), ()) if isinstance(audience, Everyone) else audience)


WANTED = "what-is-wanted."
AT_THE_CLAIMS = [
    (f"{roster_module.__name__}.Roster.named", lambda roster, header: {},
     {f"{WANTED}nothing-for-others"}),
    (f"{audiences_module.__name__}.Audiences._named_only", lambda *_: Only(()),
     {f"{WANTED}nothing-for-others"}),
    (f"{wishes_module.__name__}.ANY_REST", "/", {f"{WANTED}only-these-topics"}),
    (f"{wish_module.__name__}.Wish.has_type", lambda wish, _: True,
     {f"{WANTED}only-these-types"}),
    (f"{mesh_module.__name__}.Deliver", _a_presence_to_the_plain_ones_alone,
     {f"{WANTED}presences-always-come"}),
    (f"{wishes_module.__name__}.Wishes.want", _the_first_wish_counts, {f"{WANTED}is-said-anew"}),
    (f"{audiences_module.__name__}.Audiences.wanted", lambda _, __, ___, ____, said: said,
     {f"{WANTED}goes-for-what-was-said"}),
    (f"{codec_module.__name__}.read_wish", _any_wish_is_right, {f"{WANTED}a-bad-wish-is-refused"}),
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(("place", "wrong", "broken"), AT_THE_CLAIMS)
async def test_a_relay_that_does_not_know_what_is_wanted_fails_where_it_breaks_the_rule(
    monkeypatch: pytest.MonkeyPatch, place: str, wrong: object, broken: set[str]
) -> None:
    assert await failed_among(broken, monkeypatch, place, wrong) == broken


def test_every_claim_of_what_is_wanted_is_broken_by_some_relay() -> None:
    broken = {name for _, _, names in AT_THE_CLAIMS for name in names}
    assert broken == {claim.name for claim in all_claims() if claim.rule == 22}


@pytest.mark.anyio
async def test_a_relay_that_sends_everything_to_everyone_lacks_the_claims() -> None:
    claims = [claim for claim in all_claims() if claim.rule == 22]
    async with small_relay() as url:
        report = await check(Target(url=url, patience_s=PATIENCE_S), claims)
    assert report.names("not applicable") == {claim.name for claim in claims}
