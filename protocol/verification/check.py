"""The old place of the conformance kit, for one release: see protocol.verification.conformance."""

import warnings
from typing import Any

from protocol.verification import conformance


<<<<<<< HEAD
class Unreachable(Exception):
    """There is nothing at the URL that can be checked. The text says why, in one line."""


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


_SHOWN: Final[Mapping[Outcome, str]] = {
    "pass": "pass",
    "fail": "FAIL",
    "not applicable": "n/a",
    "not run": "-",
}


# Running ------------------------------------------------------------------------------------------


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


async def run_claim(claim: Claim, target: Target) -> Result:
    """Check one claim, with peers of its own. Never raises for what the relay does."""
    began = time.monotonic()
    outcome: Outcome = "pass"
    expected = seen = ""
    bound_s = 12 * target.patience_s + (4 * target.reap_after_s if claim.needs_time else 0)
    try:
        async with asyncio.timeout(bound_s), World(target) as world:
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
    return Result(claim, outcome, expected, seen, time.monotonic() - began)


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error


async def check(
    target: Target,
    claims: Iterable[Claim] | None = None,
    *,
    quick: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Report:
    """Check a relay: one claim after the other, and at the end all at once that need real time.

    `quick` leaves those out. `say` is told what is going on. Raises Unreachable.
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


# As tests of another project ----------------------------------------------------------------------


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


# The command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m protocol.verification check ...`. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__} check",
        description="Check a relay of this protocol, claim by claim, over real WebSockets.",
        epilog="Exit code: 0 nothing failed, 1 something did, 2 the relay cannot be reached.",
    )
    parser.add_argument("url", nargs="?", help="such as ws://localhost:8080/ws")
    parser.add_argument(
        "--quick", action="store_true", help="only claims that need no real time: under 10 s"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--base", action="store_true", help="only the base specification")
    parser.add_argument(
        "--only", action="append", metavar="NAME", default=[], help="a claim, or a pattern: tabs.*"
    )
    parser.add_argument("--list", action="store_true", help="list the claims, check nothing")
    parser.add_argument(
        "--reap-after",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="the silence after which this relay reaps a peer (default: 30)",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        metavar="S",
        help=f"how long to wait for what must come (default: 5, with --quick {QUICK_PATIENCE_S:g})",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        type=_header,
        help="an HTTP header of the opening handshake, for relays that want a token",
    )
    options = parser.parse_args(arguments)
    claims = [
        claim
        for claim in all_claims()
        if (claim.is_base or not options.base)
        and (not options.only or any(fnmatch.fnmatchcase(claim.name, p) for p in options.only))
    ]
    if not claims:
        parser.error(f"no claim is called {' or '.join(options.only)}; see --list")
    if options.list:
        sys.stdout.write(listing(claims))
        return 0
    if options.url is None or urlsplit(options.url).scheme not in ("ws", "wss"):
        parser.error("a URL is needed, such as ws://localhost:8080/ws")
    target = Target(
        url=options.url,
        reap_after_s=options.reap_after,
        patience_s=options.patience or (QUICK_PATIENCE_S if options.quick else 5.0),
        headers=dict(options.header),
    )
    try:
        report = asyncio.run(check(target, claims, quick=options.quick, say=_progress))
    except Unreachable as unreachable:
        sys.stderr.write(f"check: {unreachable}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _progress("")
    shown = json.dumps(report.as_json(), indent=2) + "\n" if options.json else report.as_table()
    sys.stdout.write(shown)
    return 0 if report.is_conforming else 1


def _progress(words: str) -> None:
    """One line that is written over, for people who wait at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{words[:78]:<78}\r")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 86400 seconds")
    return value


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'NAME: VALUE'")
    return name.strip(), value.strip()


def listing(claims: Sequence[Claim]) -> str:
    """The claims as a table of Markdown: docs/verification.md is made of it."""
    lines = ["| claim | promise | rule | part |", "|---|---|---|---|"]
    for claim in claims:
        rule: Any = claim.rule if claim.rule is not None else "-"
        part = "base" if claim.is_base else "extension"
        time = ", real time" if claim.needs_time else ""
        lines.append(f"| `{claim.name}` | {claim.promise} | {rule} | {part}{time} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
=======
def __getattr__(name: str) -> Any:
    if name not in conformance.__all__:
        raise AttributeError(name)
    warnings.warn(f"import {name} from {conformance.__name__}", DeprecationWarning, stacklevel=2)
    return getattr(conformance, name)
>>>>>>> a72d329 (Verification in rooms: a file of claims for each rule, the core apart from what opens sockets, events with types)
