"""The conformance kit: checks any relay of this protocol, claim by claim, over real WebSockets.

    python -m protocol.verification check ws://localhost:8080/ws
    python -m protocol.verification check ws://localhost:8080/ws --quick
    python -m protocol.verification check ws://localhost:8080/ws --json

The relay need not be this project's, nor written in Python. Each claim stands at a level: of the
`specification`, whose sentence it quotes; of the `base`, which every dependable relay owes; or an
`extension`. An extension that a relay does without is "not applicable", unless the relay answers
`capabilities`, by which it says that it has the extensions. A claim is a small async function. It
talks to the relay through a `World`: it joins peers, lets them send, and compares what the others
received. It returns if the promise is kept and raises otherwise:

    Failed           the promise is broken; says what was expected and what was seen
    Lacking          the relay does without this extension: a failure only if it says it has it
    NotApplicable    cannot be told here, for instance because a bound is set higher

A claim that builds on what another one is about `needs` it. If that one is broken, this one is not
judged: "precondition failed". So what fails has its cause in itself, and causes.py can say in a few
sentences why.

That something does *not* arrive is never shown by waiting: `World.settle` lets every peer send
markers, which by rule 11 arrive after all that was caused before. What must arrive is waited for,
up to `Target.patience_s`. Only claims with `needs_time` let real time pass.

Claims do not disturb one another: ids are fresh for each, and where the relay has meshes, so is the
mesh; what belongs to other claims or to other people's peers is not looked at.

    claims/               the claims, a file for each rule of docs/protocol.md
    registry.py           all of them in order
    claim.py              what a claim is, its level, and how a file makes them
    specification.py      the sentences that claims of that level quote
    joining.py            what a relay lets a newcomer hear, learnt before all claims
    world.py, peer.py     the world that a claim plays in, and who lives there
    sockets.py            the one module that opens sockets
    target.py             the relay under test
    messages.py           what arrived
    outcomes.py           how a claim ends when it does not simply hold
    bad_input.py          the table of bad input, for the claims of rule 7
    silence.py            what the claims about silence share
    counted.py            what the claims about coming back share
    check.py              the runner
    result.py             what became of one claim
    causes.py             the few root causes of what became of all
    report.py             what became of all, for people and for machines
    command.py            the command
    testing.py            the claims as tests of another project
"""

from protocol.verification.conformance.check import Results, check, run_claim
from protocol.verification.conformance.claim import LEVELS, Claim, Claims, Level
from protocol.verification.conformance.joining import Unreachable, probed
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable
from protocol.verification.conformance.registry import all_claims, up_to
from protocol.verification.conformance.report import Report, counted, listing
from protocol.verification.conformance.result import Result
from protocol.verification.conformance.target import Proof, Target
from protocol.verification.conformance.testing import conformance_tests
from protocol.verification.conformance.world import World

__all__ = [
    "LEVELS",
    "Claim",
    "Claims",
    "Failed",
    "Lacking",
    "Level",
    "NotApplicable",
    "Proof",
    "Report",
    "Result",
    "Results",
    "Target",
    "Unreachable",
    "World",
    "all_claims",
    "check",
    "conformance_tests",
    "counted",
    "listing",
    "probed",
    "run_claim",
    "up_to",
]
