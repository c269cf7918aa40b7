"""The registry of claims: in the order of the rules, each in the file of its rule, with names."""

import re
from collections import Counter
from pathlib import Path

import pytest

from protocol.verification.conformance import LEVELS, Claim, all_claims
from protocol.verification.conformance.registry import with_needs
from protocol.verification.conformance.report import SHOWN
from protocol.verification.conformance.specification import WHOLE
from tests import ROOT

FILE = re.compile(r"\.claims\.(?:rule_(\d\d)_[a-z_0-9]+|no_single_rule)$")


def file_of(claim: Claim) -> re.Match[str]:
    """The file in which the claim's function is; its group is the rule."""
    match = FILE.search(claim.check.__module__)
    assert match is not None, claim.name
    return match


def is_of_a_family(claim: Claim) -> bool:
    """One function makes the checks of several claims, which differ in a word."""
    return "<locals>" in claim.check.__qualname__


def test_every_rule_of_the_protocol_has_a_claim() -> None:
    # Rule 15 is an extension without a number of its own there; rule 17 needs tokens.
    assert {claim.rule for claim in all_claims()} - {None} == {*range(1, 15), 16, *range(18, 23)}


def test_claims_stand_in_the_order_of_the_rules_and_the_specification_comes_first() -> None:
    places = [(claim.rule or 99, LEVELS.index(claim.level)) for claim in all_claims()]
    assert places == sorted(places)


def test_every_claim_is_in_the_file_of_its_rule() -> None:
    for claim in all_claims():
        if is_of_a_family(claim) and claim.name.startswith("bad-input."):
            continue  # these are made from a table in a file of its own
        (rule,) = file_of(claim).groups()
        assert rule == (f"{claim.rule:02}" if claim.rule is not None else None), claim.name


def test_what_stands_at_the_level_of_the_specification_quotes_it() -> None:
    for claim in all_claims():
        is_quoted = claim.sentence.casefold() in WHOLE.casefold()
        assert bool(claim.sentence) == (claim.level == "specification"), claim.name
        assert is_quoted, claim.name


def test_nothing_needs_a_claim_of_a_level_that_fewer_relays_keep() -> None:
    # Otherwise a relay could break nothing of a level, and this level could not be judged.
    by_name = {claim.name: claim for claim in all_claims()}
    for claim in by_name.values():
        for name in claim.needs:
            assert LEVELS.index(by_name[name].level) <= LEVELS.index(claim.level), claim.name


def test_what_a_claim_needs_is_judged_before_it() -> None:
    order = [claim.name for claim in with_needs(all_claims())]
    assert sorted(order) == sorted(claim.name for claim in all_claims())
    for claim in all_claims():
        for name in (*claim.needs, *claim.uses):
            assert order.index(name) < order.index(claim.name), claim.name


def test_every_name_of_a_claim_and_of_its_function_is_its_own() -> None:
    claims = all_claims()
    assert len({claim.name for claim in claims}) == len(claims)
    functions = Counter(claim.check.__name__ for claim in claims if not is_of_a_family(claim))
    assert set(functions.values()) == {1}
    assert all(len(name) >= 10 and not name.startswith("_") for name in functions)


@pytest.mark.parametrize("report", sorted((ROOT / "docs" / "reports").glob("*.txt")), ids=str)
def test_the_reports_in_the_documents_are_about_the_claims_of_today(report: Path) -> None:
    lines = (line.split() for line in report.read_text().splitlines())
    names = [words[1] for words in lines if words and words[0] in SHOWN.values()]
    assert names == [claim.name for claim in all_claims()]  # foreign.py, beside this, makes them
