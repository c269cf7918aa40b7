"""The runner: asks a relay what it is, and then checks it, claim by claim."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import attrs

from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.joining import probed
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable
from protocol.verification.conformance.registry import all_claims, with_needs
from protocol.verification.conformance.report import Report
from protocol.verification.conformance.result import Outcome, Result
from protocol.verification.conformance.target import Target
from protocol.verification.conformance.world import World

E = TypeVar("E", bound=Exception)

ATTEMPTS: Final = 3
"""How often a claim is tried if it fails and this program itself was too late to tell."""


async def check(
    target: Target,
    claims: Iterable[Claim] | None = None,
    *,
    quick: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Report:
    """Check a relay: one claim after the other, those at once that need real time, the rough last.

    `claims`: which (None: all). What these need is checked, too. `quick` leaves those out that need
    real time. `say` is told what is going on. Raises Unreachable.
    """
    target = await probed(target)
    chosen = tuple(all_claims() if claims is None else claims)
    results = Results(target)
    everything = with_needs(chosen)
    slow = [claim for claim in everything if claim.needs_time]
    for claim in everything:
        if not (claim.needs_time or claim.is_rough):
            say(claim.name)
            await results.add(claim)
    if quick:
        results.leave_out(slow)
    elif slow:
        say(f"{len(slow)} claims about silence, of {1.5 * target.reap_after_s:.0f} s and more")
        await results.add_at_once(slow)
    for claim in everything:
        if claim.is_rough:
            say(claim.name)
            await results.add(claim)
    return results.report(chosen)


# One claim after another --------------------------------------------------------------------------


class Results:
    """What became of the claims so far, which decides what may be judged next."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.known: dict[str, Result] = {}
        self.gone_since = ""  # the claim that ended the relay

    async def add(self, claim: Claim) -> Result:
        """Check one claim, once what it needs has been checked. Never raises for the relay."""
        result = self._beforehand(claim)
        if result is None:
            result = await run_claim(claim, self.target, self._broken())
            suspect = result.was_closed or result.outcome == "fail"
            if suspect and not await self._is_there():
                self.gone_since = claim.name
                result = attrs.evolve(result, ended_the_relay=True)
        self.known[claim.name] = result
        return result

    async def add_at_once(self, claims: list[Claim]) -> None:
        """Check claims that need real time, which may need one another."""
        judged = [claim for claim in claims if self._beforehand(claim) is None]
        broken = self._broken()
        results = await asyncio.gather(*(run_claim(c, self.target, broken) for c in judged))
        found = {result.claim.name: result for result in results}
        for claim in claims:  # each stands behind what it needs
            before = self._beforehand(claim)
            result = found.get(claim.name, before)
            assert result is not None
            is_explained = result.outcome == "fail" and before is not None
            self.known[claim.name] = before if is_explained and before is not None else result

    def leave_out(self, claims: Iterable[Claim]) -> None:
        """These are not run."""
        self.known |= {claim.name: Result(claim, "not run") for claim in claims}

    def report(self, chosen: Iterable[Claim]) -> Report:
        """The report on the chosen claims; the others are in it as what these need."""
        names = [claim.name for claim in chosen]
        others = tuple(r for name, r in self.known.items() if name not in names)
        return Report(self.target, tuple(self.known[name] for name in names), others)

    def _beforehand(self, claim: Claim) -> Result | None:
        """What becomes of a claim that cannot be judged; None: it can, as far as is known."""
        if self.gone_since:
            words = "the relay is gone"
            return Result(claim, "precondition failed", seen=words, because=self.gone_since)
        if claim.offer and claim.offer not in (self.target.capabilities or {}):
            words = f"no `data.{claim.offer}` in the answer to `capabilities`"
            return Result(claim, "not applicable", seen=words)
        for name in claim.needs:
            needed = self.known.get(name)
            match needed.outcome if needed is not None else "not run":
                case "fail":
                    return _unmet(claim, name)
                case "precondition failed":
                    assert needed is not None
                    return attrs.evolve(needed, claim=claim)
                case "not applicable":
                    return Result(
                        claim, "not applicable", seen=f"builds on {name}, which is not either"
                    )
        return None

    def _broken(self) -> frozenset[str]:
        good = ("pass", "not run")
        return frozenset(name for name, r in self.known.items() if r.outcome not in good)

    async def _is_there(self) -> bool:
        """Does the relay still take connections? It is given the patience to come back."""
        ends_at = time.monotonic() + self.target.patience_s
        while True:
            try:
                async with World(self.target) as world:
                    await world.connect()
                    return True
            except Failed:
                if time.monotonic() > ends_at:
                    return False
                await asyncio.sleep(self.target.patience_s / 20)


def _unmet(claim: Claim, name: str) -> Result:
    words = f"cannot be judged without {name}"
    return Result(claim, "precondition failed", seen=words, because=name)


# One claim ----------------------------------------------------------------------------------------


async def run_claim(claim: Claim, target: Target, broken: Iterable[str] = ()) -> Result:
    """Check one claim, with peers of its own. Never raises for what the relay does.

    `broken`: the names of claims that are known not to hold. A failure says nothing if this
    program itself was held up, so that peers that must speak in time did not. Then the claim is
    tried again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        result, late_s = await _attempt(claim, target, frozenset(broken))
        was_held_up = late_s > target.reap_after_s / 4
        if result.outcome != "fail" or not was_held_up or attempt == ATTEMPTS:
            break
    return result


async def _attempt(claim: Claim, target: Target, broken: frozenset[str]) -> tuple[Result, float]:
    """The result, and by how much this program was late (seconds)."""
    began = time.monotonic()
    outcome: Outcome = "pass"
    expected = seen = ""
    was_closed = False
    bound_s = 12 * target.patience_s + (4 * target.reap_after_s if claim.needs_time else 0)
    world = World(target, broken)
    lacks: Outcome = "fail" if target.capabilities is not None else "not applicable"
    try:
        async with asyncio.timeout(bound_s), world:
            await claim.check(world)
    except* Failed as group:
        failed = _first(group, Failed)
        outcome, expected, seen = "fail", failed.expected, failed.seen
        was_closed = failed.was_closed
        if was_closed and claim.level == "extension":  # what it asks is nonsense to the relay
            outcome = lacks
    except* Lacking as group:
        lacking = _first(group, Lacking)
        outcome = lacks if claim.level == "extension" else "fail"
        expected, seen = lacking.expected, lacking.seen
    except* NotApplicable as group:
        outcome, seen = "not applicable", str(_first(group, NotApplicable))
    except* TimeoutError:
        outcome, expected, seen = "fail", f"an end within {bound_s:g} s", "none"
    took_s = time.monotonic() - began
    result = Result(claim, outcome, expected, seen, took_s, was_closed=was_closed)
    return result, world.late_s


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error
