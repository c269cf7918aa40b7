"""What became of all claims: for people, and for machines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import attrs

from protocol.verification.conformance.causes import Root, roots
from protocol.verification.conformance.claim import LEVELS, Claim, Level
from protocol.verification.conformance.result import OUTCOMES, Outcome, Result
from protocol.verification.conformance.target import Target

Verdict = Literal["kept", "broken", "not judged", "not checked"]
"""On a level: nothing failed; something did; something cannot be judged; it was not chosen."""

SHOWN: Final[Mapping[Outcome, str]] = {
    "pass": "pass",
    "fail": "FAIL",
    "precondition failed": "pre",
    "not applicable": "n/a",
    "not run": "-",
}
"""What a line of a report begins with."""


@attrs.frozen
class Report:
    """What became of the chosen claims on one relay, and of others that these need."""

    target: Target
    results: tuple[Result, ...]
    needed: tuple[Result, ...] = ()

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many claims have each outcome."""
        return _counts(self.results)

    def of(self, level: Level) -> tuple[Result, ...]:
        """The results of this level alone."""
        return tuple(result for result in self.results if result.claim.level == level)

    def verdict(self, level: Level) -> Verdict:
        """The verdict on this level alone."""
        counts = _counts(self.of(level))
        if counts["fail"]:
            return "broken"
        if counts["precondition failed"]:
            return "not judged"
        return "kept" if any(counts.values()) else "not checked"

    @property
    def is_conforming(self) -> bool:
        """Everything that was chosen could be judged, and nothing failed."""
        return all(self.verdict(level) in ("kept", "not checked") for level in LEVELS)

    @property
    def roots(self) -> tuple[Root, ...]:
        """The causes that explain all failures, what explains most first."""
        return roots((*self.results, *self.needed), is_mute=self.target.is_mute)

    def names(self, outcome: Outcome) -> set[str]:
        """The names of the claims with this outcome."""
        return {result.claim.name for result in self.results if result.outcome == outcome}

    def as_json(self) -> dict[str, object]:
        """The report as plain data: what `--json` prints."""
        levels = {
            level: {"verdict": self.verdict(level), "counts": _counts(self.of(level))}
            for level in LEVELS
        }
        return {
            "url": self.target.url,
            "conforming": self.is_conforming,
            "announces_extensions": self.target.capabilities is not None,
            "joined_by": self.target.proofs[0].name.lower(),
            "reap_after_s": self.target.reap_after_s,
            "counts": self.counts,
            "levels": levels,
            "roots": [attrs.asdict(root) for root in self.roots],
            "claims": [result.as_json() for result in self.results],
        }

    def as_table(self) -> str:
        """The report for people: what was seen claim by claim, the verdicts, the root causes."""
        said = "by its answer to `capabilities`" if self.target.capabilities else "none"
        lines = [
            f"{self.target.url}",
            f"that a peer has joined is told by: {self.target.proofs[0].value}",
            f"extensions that it announces: {said}",
            "",
            *self._claims(),
            "",
            *self._verdicts(),
        ]
        if found := self.roots:
            lines += ["", "Root causes, what explains most first:"]
            for number, root in enumerate(found, 1):
                lines += _shown(number, root)
        return "\n".join(lines) + "\n"

    def _claims(self) -> Iterable[str]:
        width = max((len(result.claim.name) for result in self.results), default=0)
        for result in self.results:
            claim = result.claim
            rule = f"rule {claim.rule}" if claim.rule is not None else "-"
            head = f"{SHOWN[result.outcome]:<4} {claim.name:<{width}}  {rule:<7} {claim.level:<13}"
            yield f"{head} {claim.promise}"
            if result.outcome == "fail":
                if claim.sentence:
                    yield f"       specification: {claim.sentence}"
                yield f"       expected:      {result.expected}"
                yield f"       seen:          {result.seen}"
            elif result.expected:
                yield f"       does without: {result.expected}"
                yield f"       seen:         {result.seen}"
            elif result.outcome in ("precondition failed", "not applicable"):
                yield f"       {result.seen}"

    def _verdicts(self) -> Iterable[str]:
        yield f"{'level':<14}{'verdict':<12}" + "".join(f"{name:>21}" for name in OUTCOMES)
        for level in LEVELS:
            if (verdict := self.verdict(level)) != "not checked":
                counts = _counts(self.of(level))
                numbers = "".join(f"{counts[outcome]:>21}" for outcome in OUTCOMES)
                yield f"{level:<14}{verdict:<12}{numbers}"


def counted(claims: Sequence[Claim]) -> str:
    """How many claims each level has, as a table of Markdown."""
    lines = ["| level | claims | with real time |", "|---|---|---|"]
    for level in LEVELS:
        of = [claim for claim in claims if claim.level == level]
        lines.append(f"| {level} | {len(of)} | {sum(claim.needs_time for claim in of)} |")
    return "\n".join(lines) + "\n"


def listing(claims: Sequence[Claim]) -> str:
    """The claims as a table of Markdown: docs/verification.md is made of it."""
    lines = ["| claim | promise | rule | level |", "|---|---|---|---|"]
    for claim in claims:
        rule = str(claim.rule) if claim.rule is not None else "-"
        time = ", real time" if claim.needs_time else ""
        quoted = f' The specification: "{claim.sentence}".' if claim.sentence else ""
        lines.append(f"| `{claim.name}` | {claim.promise}{quoted} | {rule} | {claim.level}{time} |")
    return "\n".join(lines) + "\n"


def _counts(results: Iterable[Result]) -> dict[Outcome, int]:
    counts: dict[Outcome, int] = dict.fromkeys(OUTCOMES, 0)
    for result in results:
        counts[result.outcome] += 1
    return counts


def _shown(number: int, root: Root) -> Iterable[str]:
    yield f"{number:>2}. {root.says} ({root.level})"
    yield f"    fails: {_some(root.failed)}"
    if root.hidden:
        yield f"    hides: {_some(root.hidden)}"


def _some(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    shown, more = names[:4], len(names) - 4
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
