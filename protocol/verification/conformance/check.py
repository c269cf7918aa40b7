"""The runner: asks a relay what it is, and then checks it, claim by claim."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import attrs

from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable
from protocol.verification.conformance.registry import all_claims
from protocol.verification.conformance.report import Outcome, Report, Result
from protocol.verification.conformance.target import Target
from protocol.verification.conformance.world import World

E = TypeVar("E", bound=Exception)

ATTEMPTS: Final = 3
"""How often a claim is tried if it fails and this program itself was too late to tell."""


class Unreachable(Exception):
    """There is nothing at the URL that can be checked. The text says why, in one line."""


async def check(
    target: Target,
    claims: Iterable[Claim] | None = None,
    *,
    quick: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Report:
    """Check a relay: one claim after the other, and at the end all at once that need real time.

    `claims`: which (None: all). `quick` leaves those out that need real time. `say` is told what is
    going on. Raises Unreachable.
    """
    target = await probed(target)
    chosen = tuple(all_claims() if claims is None else claims)
    results: dict[str, Result] = {}
    for claim in chosen:
        if not claim.needs_time:
            say(claim.name)
            results[claim.name] = await run_claim(claim, target)
    slow = [claim for claim in chosen if claim.needs_time]
    if quick:
        results |= {claim.name: Result(claim, "not run") for claim in slow}
    elif slow:
        say(f"{len(slow)} claims about silence, of {1.5 * target.reap_after_s:.0f} s and more")
        done = await asyncio.gather(*(run_claim(claim, target) for claim in slow))
        results |= {result.claim.name: result for result in done}
    return Report(target, tuple(results[claim.name] for claim in chosen))


# The relay as a whole -----------------------------------------------------------------------------


async def probed(target: Target) -> Target:
    """`target`, with what can only be learnt by asking: mesh names, capabilities.

    Raises Unreachable: no relay, or one that does not let a peer join.
    """
    try:
        target = await _reached(target)
        async with World(target) as world:
            peer = await world.connect()
            peer.id = world.name("probe")
            await peer.send("capabilities", turnId=world.token)
            await peer.announce()
            for message in peer.taken():
                if message.type == "capabilities_response":
                    return attrs.evolve(target, capabilities=dict(message.data))
            return target
    except Failed as failed:
        raise Unreachable(f"cannot join a mesh at {target.url}: {failed}") from None
    except (OSError, ValueError) as error:  # includes URLs that are none
        raise Unreachable(f"cannot reach {target.url}: {error}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] != "websockets":
            raise
        raise Unreachable(f"cannot reach {target.url}: {error}") from None


async def _reached(target: Target) -> Target:
    """The target, without mesh names if it does not take them."""
    try:
        async with World(target) as world:
            await world.connect()
            return target
    except Failed:
        plain = attrs.evolve(target, has_mesh_names=False)
        try:
            async with World(plain) as world:
                await world.connect()
                return plain
        except Failed as failed:
            raise Unreachable(f"cannot reach {target.url}: {failed.seen}") from None


# One claim ----------------------------------------------------------------------------------------


async def run_claim(claim: Claim, target: Target) -> Result:
    """Check one claim, with peers of its own. Never raises for what the relay does.

    A failure says nothing if this program itself was held up, so that peers that must speak in time
    did not. Then the claim is tried again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        result, late_s = await _attempt(claim, target)
        was_held_up = late_s > target.reap_after_s / 4
        if result.outcome != "fail" or not was_held_up or attempt == ATTEMPTS:
            break
    return result


async def _attempt(claim: Claim, target: Target) -> tuple[Result, float]:
    """The result, and by how much this program was late (seconds)."""
    began = time.monotonic()
    outcome: Outcome = "pass"
    expected = seen = ""
    bound_s = 12 * target.patience_s + (4 * target.reap_after_s if claim.needs_time else 0)
    world = World(target)
    try:
        async with asyncio.timeout(bound_s), world:
            await claim.check(world)
    except* Failed as group:
        failed = _first(group, Failed)
        outcome, expected, seen = "fail", failed.expected, failed.seen
    except* Lacking as group:
        lacking = _first(group, Lacking)
        has_extensions = target.capabilities is not None
        outcome = "fail" if claim.is_base or has_extensions else "not applicable"
        expected, seen = lacking.expected, lacking.seen
    except* NotApplicable as group:
        outcome, seen = "not applicable", str(_first(group, NotApplicable))
    except* TimeoutError:
        outcome, expected, seen = "fail", f"an end within {bound_s:g} s", "none"
    return Result(claim, outcome, expected, seen, time.monotonic() - began), world.late_s


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error
