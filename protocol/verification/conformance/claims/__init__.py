"""The claims, a file for each rule of docs/protocol.md; each says its level itself."""

from itertools import chain
from typing import Final

from protocol.verification.conformance.claim import Claim
from protocol.verification.conformance.claims.no_single_rule import claim as no_single_rule
from protocol.verification.conformance.claims.rule_01_text import claim as rule_01
from protocol.verification.conformance.claims.rule_02_several_connections import claim as rule_02
from protocol.verification.conformance.claims.rule_03_joining import claim as rule_03
from protocol.verification.conformance.claims.rule_04_origin import claim as rule_04
from protocol.verification.conformance.claims.rule_05_direct import claim as rule_05
from protocol.verification.conformance.claims.rule_06_before_presence import claim as rule_06
from protocol.verification.conformance.claims.rule_07_bad_input import claim as rule_07
from protocol.verification.conformance.claims.rule_08_liveness import claim as rule_08
from protocol.verification.conformance.claims.rule_09_heartbeats import claim as rule_09
from protocol.verification.conformance.claims.rule_10_offline import claim as rule_10
from protocol.verification.conformance.claims.rule_11_order import claim as rule_11
from protocol.verification.conformance.claims.rule_12_meshes import claim as rule_12
from protocol.verification.conformance.claims.rule_13_withheld import claim as rule_13
from protocol.verification.conformance.claims.rule_14_timestamps import claim as rule_14
from protocol.verification.conformance.claims.rule_16_owners import claim as rule_16
from protocol.verification.conformance.claims.rule_18_echoes import claim as rule_18
from protocol.verification.conformance.claims.rule_19_coming_back import claim as rule_19
from protocol.verification.conformance.claims.rule_20_falling_behind import claim as rule_20
from protocol.verification.conformance.claims.rule_21_what_was_said import claim as rule_21
from protocol.verification.conformance.claims.rule_22_what_is_wanted import claim as rule_22

CLAIMS: Final[tuple[Claim, ...]] = tuple(
    chain(
        rule_01,
        rule_02,
        rule_03,
        rule_04,
        rule_05,
        rule_06,
        rule_07,
        rule_08,
        rule_09,
        rule_10,
        rule_11,
        rule_12,
        rule_13,
        rule_14,
        rule_16,
        rule_18,
        rule_19,
        rule_20,
        rule_21,
        rule_22,
        no_single_rule,
    )
)
"""All of them, in the order of the rules."""
