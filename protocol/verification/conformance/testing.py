"""The claims as pytest tests of another project. Needs pytest when it is called, not before.

from protocol.verification.conformance import conformance_tests

@pytest.fixture(scope="session")
def relay_url():
    ...
    yield "ws://localhost:9000/ws"

test_conformance = conformance_tests()
"""

import asyncio
import fnmatch
from collections.abc import Callable, Sequence

from protocol.verification.conformance.check import probed, run_claim
from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.registry import all_claims
from protocol.verification.conformance.report import Result
from protocol.verification.conformance.target import Target


def conformance_tests(
    fixture: str = "relay_url",
    *,
    reap_after_s: float | None = None,
    patience_s: float = 5.0,
    base_only: bool = False,
    leave_out: Sequence[str] = (),
) -> Callable[..., None]:
    """One pytest test per claim, against the relay whose URL the fixture `fixture` gives.

    Assign it to a name that begins with `test_`. Claims that need real time take part only if you
    say after which silence your relay reaps (`reap_after_s`). What is not applicable is skipped.
    `leave_out`: names or patterns (`bad-input.*`) of claims that you do not want.
    """
    import pytest  # noqa: PLC0415 (the command does without it)

    claims = [
        claim
        for claim in all_claims()
        if (claim.is_base or not base_only)
        and (reap_after_s is not None or not claim.needs_time)
        and not any(fnmatch.fnmatchcase(claim.name, pattern) for pattern in leave_out)
    ]
    targets: dict[str, Target] = {}

    @pytest.mark.parametrize("claim", claims, ids=lambda claim: claim.name)
    def test(claim: Claim, request: pytest.FixtureRequest) -> None:
        url = request.getfixturevalue(fixture)
        result = asyncio.run(run(claim, url))
        if result.outcome == "not applicable":
            pytest.skip(result.seen)
        if result.outcome == "fail":
            pytest.fail(
                f"{claim.promise}\nexpected: {result.expected}\nseen:     {result.seen}",
                pytrace=False,
            )

    async def run(claim: Claim, url: str) -> Result:
        if url not in targets:
            target = Target(url=url, reap_after_s=reap_after_s or 30.0, patience_s=patience_s)
            targets[url] = await probed(target)
        return await run_claim(claim, targets[url])

    return test
