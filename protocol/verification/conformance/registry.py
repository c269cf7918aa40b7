"""The registry: every claim, in the order of the rules of docs/protocol.md."""

import math
from collections.abc import Iterable

from protocol.verification.conformance.claim import LEVELS, Claim, Level
from protocol.verification.conformance.claims import CLAIMS


def all_claims() -> tuple[Claim, ...]:
    """Every claim, rule by rule, the specification first; at the end those of no single rule."""
    return tuple(sorted(CLAIMS, key=_place))


def up_to(level: Level) -> tuple[Claim, ...]:
    """The claims of this level and of those before it in LEVELS."""
    chosen = LEVELS[: LEVELS.index(level) + 1]
    return tuple(claim for claim in all_claims() if claim.level in chosen)


def with_needs(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The claims and all that they need or use, each behind that.

    Those that take real time come last but for those that are rough.
    """
    by_name = {claim.name: claim for claim in all_claims()}
    ordered: dict[str, Claim] = {}

    def add(claim: Claim) -> None:
        if claim.name not in ordered:
            for name in (*claim.needs, *claim.uses):
                add(by_name[name])
            ordered[claim.name] = claim

    for claim in claims:
        add(claim)
    return tuple(sorted(ordered.values(), key=lambda claim: (claim.is_rough, claim.needs_time)))


def _place(claim: Claim) -> tuple[float, int]:
    return math.inf if claim.rule is None else claim.rule, LEVELS.index(claim.level)
