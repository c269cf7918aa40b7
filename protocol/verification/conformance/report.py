"""What became of the claims: for people, and for machines."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import attrs

from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.target import Target

Outcome = Literal["pass", "fail", "not applicable", "not run"]

_SHOWN: Final[Mapping[Outcome, str]] = {
    "pass": "pass",
    "fail": "FAIL",
    "not applicable": "n/a",
    "not run": "-",
}


@attrs.frozen
class Result:
    """What became of one claim. `expected` and `seen` are empty if it passed."""

    claim: Claim
    outcome: Outcome
    expected: str = ""
    seen: str = ""
    took_s: float = 0.0

    def as_json(self) -> dict[str, object]:
        """The claim and its outcome, as plain data."""
        claim = self.claim
        return {
            "name": claim.name,
            "promise": claim.promise,
            "rule": claim.rule,
            "part": "base" if claim.is_base else "extension",
            "needs_time": claim.needs_time,
            "outcome": self.outcome,
            "expected": self.expected,
            "seen": self.seen,
            "took_s": round(self.took_s, 3),
        }


@attrs.frozen
class Report:
    """What became of all claims on one relay."""

    target: Target
    results: tuple[Result, ...]

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many claims have each outcome."""
        counts: dict[Outcome, int] = {"pass": 0, "fail": 0, "not applicable": 0, "not run": 0}
        for result in self.results:
            counts[result.outcome] += 1
        return counts

    @property
    def is_conforming(self) -> bool:
        """Nothing failed."""
        return not self.counts["fail"]

    def names(self, outcome: Outcome) -> set[str]:
        """The names of the claims with this outcome."""
        return {result.claim.name for result in self.results if result.outcome == outcome}

    def as_json(self) -> dict[str, object]:
        """The report as plain data: what `--json` prints."""
        return {
            "url": self.target.url,
            "conforming": self.is_conforming,
            "announces_extensions": self.target.capabilities is not None,
            "reap_after_s": self.target.reap_after_s,
            "counts": self.counts,
            "claims": [result.as_json() for result in self.results],
        }

    def as_table(self) -> str:
        """The report for people: one line per claim, two more where it failed."""
        width = max((len(result.claim.name) for result in self.results), default=0)
        lines = [f"{self.target.url}", ""]
        for result in self.results:
            claim = result.claim
            rule = f"rule {claim.rule}" if claim.rule is not None else "-"
            part = "base" if claim.is_base else "extension"
            head = f"{_SHOWN[result.outcome]:<5} {claim.name:<{width}}  {rule:<8} {part:<10}"
            lines.append(f"{head} {claim.promise}")
            if result.outcome == "fail":
                lines += [f"      expected: {result.expected}", f"      seen:     {result.seen}"]
            elif result.outcome == "not applicable":
                lines.append(f"      {result.seen}")
        counts = self.counts
        lines += ["", ", ".join(f"{counts[outcome]} {outcome}" for outcome in counts)]
        return "\n".join(lines) + "\n"


def listing(claims: Sequence[Claim]) -> str:
    """The claims as a table of Markdown: docs/verification.md is made of it."""
    lines = ["| claim | promise | rule | part |", "|---|---|---|---|"]
    for claim in claims:
        rule = str(claim.rule) if claim.rule is not None else "-"
        part = "base" if claim.is_base else "extension"
        time = ", real time" if claim.needs_time else ""
        lines.append(f"| `{claim.name}` | {claim.promise} | {rule} | {part}{time} |")
    return "\n".join(lines) + "\n"
