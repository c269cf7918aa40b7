"""The registry: every claim, in the order of the rules of docs/protocol.md."""

import math

from protocol.verification.conformance.base import CLAIMS as BASE
from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.extensions import CLAIMS as EXTENSIONS


def all_claims() -> tuple[Claim, ...]:
    """Every claim, rule by rule, the base first; at the end those of no single rule."""
    return tuple(sorted(BASE + EXTENSIONS, key=_place))


def _place(claim: Claim) -> float:
    return math.inf if claim.rule is None else claim.rule
