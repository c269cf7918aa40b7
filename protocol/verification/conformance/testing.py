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

from protocol.verification.conformance.check import Results
from protocol.verification.conformance.claim import Claim, Level
from protocol.verification.conformance.joining import probed
from protocol.verification.conformance.registry import up_to, with_needs
from protocol.verification.conformance.result import Result
from protocol.verification.conformance.target import Target


def conformance_tests(
    fixture: str = "relay_url",
    *,
    reap_after_s: float | None = None,
    patience_s: float = 5.0,
    level: Level = "extension",
    leave_out: Sequence[str] = (),
) -> Callable[..., None]:
    """One pytest test per claim, against the relay whose URL the fixture `fixture` gives.

    Assign it to a name that begins with `test_`. `level`: this one and those before it. Claims
    that need real time take part only if you say after which silence your relay reaps
    (`reap_after_s`). `leave_out`: names or patterns (`bad-input.*`) of claims that you do not want.
    Skipped is what is not applicable, and what cannot be judged because of a claim that has a test
    of its own.
    """
    import pytest  # noqa: PLC0415 (the command does without it)

    claims = [
        claim
        for claim in up_to(level)
        if (reap_after_s is not None or not claim.needs_time)
        and not any(fnmatch.fnmatchcase(claim.name, pattern) for pattern in leave_out)
    ]
    tested = {claim.name for claim in claims}
    on: dict[str, Results] = {}

    @pytest.mark.parametrize("claim", claims, ids=lambda claim: claim.name)
    def test(claim: Claim, request: pytest.FixtureRequest) -> None:
        url = request.getfixturevalue(fixture)
        result = asyncio.run(run(claim, url))
        is_reported = result.outcome == "precondition failed" and result.because in tested
        if result.outcome == "not applicable" or is_reported:
            pytest.skip(result.seen)
        if result.outcome != "pass":
            pytest.fail(
                f"{claim.promise}\nexpected: {result.expected}\nseen:     {result.seen}",
                pytrace=False,
            )

    async def run(claim: Claim, url: str) -> Result:
        if url not in on:
            target = Target(url=url, reap_after_s=reap_after_s or 30.0, patience_s=patience_s)
            on[url] = Results(await probed(target))
        for needed in with_needs([claim]):
            if needed.name not in on[url].known:
                await on[url].add(needed)
        return on[url].known[claim.name]

    return test
