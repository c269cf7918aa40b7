"""Root causes: the few sentences about a relay that explain why claims fail or cannot be judged."""

import fnmatch
from collections.abc import Iterable
from typing import Final

import attrs

from protocol.verification.conformance.claim import LEVELS, Level
from protocol.verification.conformance.result import Result


@attrs.frozen
class Cause:
    """What a relay does or does not, and the claims (names or patterns) that fail for it.

    `closes`: only failures count at which the relay closed a connection (False: only others).
    `signs`: it is the cause only if all of these claims fail.
    """

    says: str
    claims: tuple[str, ...]
    closes: bool | None = None
    signs: frozenset[str] = frozenset()

    def explains(self, result: Result, failed: frozenset[str]) -> bool:
        """Does it explain this failure, if these claims fail?"""
        if not self.signs <= failed:
            return False
        is_one = any(fnmatch.fnmatchcase(result.claim.name, pattern) for pattern in self.claims)
        return is_one and self.closes in (None, result.was_closed)


@attrs.frozen
class Root:
    """A cause that was found. `failed`: what fails for it. `hidden`: what nobody can judge then."""

    says: str
    level: Level
    failed: tuple[str, ...]
    hidden: tuple[str, ...]


ENDED: Final = "The relay ends, or takes no connection any more, at what is sent here."
MUTE: Final = "The relay sends nothing at all."

_UNREAD: Final = ("bad-input.not-json", "heartbeat.not-forwarded", "direct.reaches-only-its-target")

CAUSES: Final = (
    Cause(
        "The relay passes on whatever comes, without reading it.",
        ("bad-input.*", "before-presence.*", "origin.forged-*", *_UNREAD),
        closes=False,
        signs=frozenset(_UNREAD),
    ),
    Cause("A newcomer does not receive its own presence.", ("joining.own-presence-comes-back",)),
    Cause("A newcomer hears others before itself.", ("joining.own-presence-first",)),
    Cause("The presence of a newcomer does not reach all.", ("joining.everybody-sees-*",)),
    Cause("A newcomer does not hear who is here.", ("joining.then-the-roster",)),
    Cause("What is for all others does not reach them.", ("routing.*-reaches-all-others",)),
    Cause("What a peer sends comes back to it.", ("routing.*-does-not-come-back",)),
    Cause("A direct does not reach the peer that it names.", ("direct.to-a-peer",)),
    Cause("Agents cannot be reached by their names.", ("direct.to-an-agent*",)),
    Cause("What is for one peer, or for the relay alone, is passed on to others.",
        ("direct.reaches-only-its-target", "heartbeat.not-forwarded"),
    ),
    Cause("Who sends what the relay cannot read loses its connection.",
        ("bad-input.*", "direct.to-nobody-is-an-error"), closes=True),
    Cause("What is no valid message is passed on.", ("bad-input.*",), closes=False),
    Cause("Connections that have not announced themselves take part.", ("before-presence.*",)),
    Cause("Nobody is told that a peer has left.", ("leaving.offline-is-heard",)),
    Cause("A sender is not told what was wrong.", ("direct.to-nobody-is-an-error",)),
    Cause("Several connections under one id are not one peer.", ("tabs.*",)),
    Cause("A peer that asks what the relay does not know loses its connection.",
          ("capabilities.closes-nothing",)),
    Cause("Silent peers are not reaped in time.",
          ("liveness.the-silent-*", "liveness.a-reap*")),
)  # fmt: skip
"""Tried in this order: the first that fits explains a failure. Else its own promise does."""


def roots(results: Iterable[Result], *, is_mute: bool = False) -> tuple[Root, ...]:
    """What explains these failures, what explains most first."""
    results = tuple(results)
    failing = frozenset(result.claim.name for result in results if result.outcome == "fail")
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.outcome == "fail":
            says = MUTE if is_mute else _says(result, failing)
            groups.setdefault(says, []).append(result)
    found = []
    for says, group in groups.items():
        failed = tuple(result.claim.name for result in group)
        level = min((result.claim.level for result in group), key=LEVELS.index)
        hidden = tuple(result.claim.name for result in results if result.because in failed)
        found.append(Root(says, level, failed, hidden))
    return tuple(sorted(found, key=lambda root: -len(root.failed) - len(root.hidden)))


def _says(result: Result, failed: frozenset[str]) -> str:
    if result.ended_the_relay:
        return ENDED
    for cause in CAUSES:
        if cause.explains(result, failed):
            return cause.says
    return f"This is broken: {result.claim.promise}"
