"""What a claim is, at which level it stands, and how a file of claims makes them."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Literal, TypedDict, Unpack

import attrs

from protocol.verification.conformance.world import World

Check = Callable[[World], Awaitable[None]]
"""Returns if the promise is kept. Raises what outcomes.py has otherwise."""

Level = Literal["specification", "base", "extension"]
"""Who makes the promise.

    specification    the specification of the protocol, in words that the claim quotes
    base             every dependable relay of this kind: nothing is lost or reordered, bad input
                     hurts nobody, `offline` is told once, ...
    extension        a relay that has this extension of the protocol
"""

LEVELS: Final[tuple[Level, ...]] = ("specification", "base", "extension")
"""From the one that most relays keep to the one that fewest do."""

BROADCASTS: Final = "routing.broadcast-reaches-all-others"
"""The claim that markers need, and so every claim that settles (`World.settle`)."""


@attrs.frozen
class Claim:
    """One promise. `rule` is its number in docs/protocol.md; None: it follows from no single one.

    `sentence`: what of the specification it checks; empty at the other levels. `needs`: the names
    of the claims without which this one cannot be judged. `needs_time`: real time has to pass.
    `is_rough`: it sends what may end a relay that does not expect it, so it comes last. `offer`:
    the key in the answer to `capabilities` by which a relay says that it has this extension.
    `uses`: the names of claims that it asks for with `World.keeps`, to leave a part out.
    """

    name: str
    promise: str
    rule: int | None
    level: Level
    check: Check
    sentence: str = ""
    needs: tuple[str, ...] = ()
    needs_time: bool = False
    is_rough: bool = False
    offer: str = ""
    uses: tuple[str, ...] = ()


class Options(TypedDict, total=False):
    """What else may be said of a claim. `settles` (default: yes): it uses markers."""

    needs: Sequence[str]
    settles: bool
    needs_time: bool
    is_rough: bool
    uses: Sequence[str]


class Claims:
    """The claims of one file, in its order: all about one rule, and one offer if there is one.

    The decorators say the level:

        claim = Claims(rule=5)

        @claim.base("direct.to-an-agent", needs=["direct.to-a-peer"])
        async def a_direct_reaches_the_peer_of_the_agent_that_it_names(world: World) -> None:
            ...

    The docstring of the function is the promise.
    """

    def __init__(self, *, rule: int | None, offer: str = "") -> None:
        self.rule = rule
        self.offer = offer
        self._claims: list[Claim] = []

    def specification(
        self, name: str, sentence: str, **options: Unpack[Options]
    ) -> Callable[[Check], Check]:
        """Make a claim of a function: of what the specification says in this sentence."""
        return self._maker(name, "specification", sentence, options)

    def base(self, name: str, **options: Unpack[Options]) -> Callable[[Check], Check]:
        """Make a claim of a function: of what every dependable relay owes."""
        return self._maker(name, "base", "", options)

    def extension(self, name: str, **options: Unpack[Options]) -> Callable[[Check], Check]:
        """Make a claim of a function: of what relays may do without."""
        return self._maker(name, "extension", "", options)

    def _maker(
        self, name: str, level: Level, sentence: str, options: Options
    ) -> Callable[[Check], Check]:
        def made(check: Check) -> Check:
            self.add(name, level, check.__doc__ or "", check, sentence, **options)
            return check

        return made

    def add(
        self,
        name: str,
        level: Level,
        promise: str,
        check: Check,
        sentence: str = "",
        **options: Unpack[Options],
    ) -> None:
        """Add one claim: one of a family of claims that differ in a word.

        Raises ValueError if it has no promise, or no sentence where there must be one.
        """
        words = " ".join(promise.split())
        if not words:
            raise ValueError(f"claim {name!r} needs a promise")
        if (level == "specification") != bool(sentence):
            raise ValueError(f"claim {name!r}: the specification, and only it, has a sentence")
        needs = tuple(options.get("needs", ()))
        if options.get("settles", True) and name != BROADCASTS:
            needs = (BROADCASTS, *needs)
        claim = Claim(
            name,
            words,
            self.rule,
            level,
            check,
            sentence,
            needs,
            needs_time=options.get("needs_time", False),
            is_rough=options.get("is_rough", False),
            offer=self.offer,
            uses=tuple(options.get("uses", ())),
        )
        self._claims.append(claim)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims)
