"""What a claim is, and how a file of claims makes them."""

from collections.abc import Awaitable, Callable, Iterator

import attrs

from protocol.verification.conformance.world import World

Check = Callable[[World], Awaitable[None]]
"""Returns if the promise is kept. Raises Failed, Lacking or NotApplicable otherwise."""


@attrs.frozen
class Claim:
    """One promise. `rule` is its number in docs/protocol.md; None: it follows from no single one.

    `is_base`: part of the base specification, which every relay must keep; else an extension.
    `needs_time`: real time has to pass to check it.
    """

    name: str
    promise: str
    rule: int | None
    is_base: bool
    needs_time: bool
    check: Check


class Claims:
    """The claims of one file, in its order: all about one rule, all base or all extensions.

    An instance is a decorator, which makes a claim of a function whose docstring is the promise:

        claim = Claims(rule=5, is_base=True)

        @claim("direct.to-a-peer")
        async def a_direct_reaches_the_peer_that_it_names(world: World) -> None:
            ...
    """

    def __init__(self, *, rule: int | None, is_base: bool) -> None:
        self.rule = rule
        self.is_base = is_base
        self._claims: list[Claim] = []

    def __call__(self, name: str, *, needs_time: bool = False) -> Callable[[Check], Check]:
        """Make a claim of a function. Raises ValueError if it has no docstring."""

        def made(check: Check) -> Check:
            self.add(name, check.__doc__ or "", check, needs_time=needs_time)
            return check

        return made

    def add(self, name: str, promise: str, check: Check, *, needs_time: bool = False) -> None:
        """Add one claim: one of a family of claims that differ in a word. Raises ValueError."""
        words = " ".join(promise.split())
        if not words:
            raise ValueError(f"claim {name!r} needs a promise")
        self._claims.append(Claim(name, words, self.rule, self.is_base, needs_time, check))

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims)
