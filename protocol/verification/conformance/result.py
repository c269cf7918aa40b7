"""What became of one claim."""

from typing import Literal

import attrs

from protocol.verification.conformance.claim import Claim

Outcome = Literal["pass", "fail", "precondition failed", "not applicable", "not run"]
"""How a claim ended.

    pass                   the promise is kept
    fail                   the promise is broken
    precondition failed    it cannot be judged, because another one is broken
    not applicable         the relay does without, or it says nothing about this relay
    not run                it was left out
"""

OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "precondition failed", "not applicable", "not run")


@attrs.frozen
class Result:
    """What became of one claim. `expected` and `seen` are empty if it passed.

    `because`: the broken claim without which this one cannot be judged. `was_closed`: it failed at
    a connection that the relay closed. `ended_the_relay`: since then it takes no connection.
    """

    claim: Claim
    outcome: Outcome
    expected: str = ""
    seen: str = ""
    took_s: float = 0.0
    because: str = ""
    was_closed: bool = False
    ended_the_relay: bool = False

    def as_json(self) -> dict[str, object]:
        """The claim and its outcome, as plain data."""
        claim = self.claim
        return {
            "name": claim.name,
            "promise": claim.promise,
            "rule": claim.rule,
            "level": claim.level,
            "sentence": claim.sentence,
            "needs_time": claim.needs_time,
            "outcome": self.outcome,
            "expected": self.expected,
            "seen": self.seen,
            "because": self.because,
            "took_s": round(self.took_s, 3),
        }
