"""A simulation from its seed to what is said about it."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from protocol.verification.simulation.events import Event
from protocol.verification.simulation.life import Life, SubjectFactory, play
from protocol.verification.simulation.plan import plan
from protocol.verification.simulation.shrink import shrink
from protocol.verification.subjects import CoreSubject


@attrs.frozen
class Outcome:
    """What came of a history, and of the smallest part of it that fails the same way.

    `minimal` is empty and `minimal_failure` None if nothing failed.
    """

    life: Life
    minimal: tuple[Event, ...] = ()
    minimal_failure: str | None = None

    def lines(self) -> Iterator[str]:
        """The outcome for people, line by line. The lines of events are what `--replay` reads."""
        yield f"{self.life.events} events, {self.life.deliveries} deliveries"
        yield f"sha256 {self.life.digest}"
        if self.life.failure is None:
            yield "right all along"
            return
        yield f"WRONG: {self.life.failure}"
        yield ""
        yield f"{len(self.minimal)} events are enough ({self.minimal_failure}):"
        yield from map(str, self.minimal)


def simulate(
    seed: int,
    peers: int = 10,
    hours: float = 24.0,
    subject: SubjectFactory = CoreSubject,
    *,
    shrink_s: float | None = None,
) -> Outcome:
    """Let a mesh live. A failure is in the outcome, with the smallest history found for it.

    `hours` of virtual time. `shrink_s`: the real time (seconds) for making a failure small; None:
    as long as it takes, and then the outcome depends on nothing but the arguments.
    """
    return examine(lambda: plan(seed, peers, hours), subject, shrink_s=shrink_s)


def examine(
    history: Callable[[], Iterator[Event]],
    subject: SubjectFactory,
    *,
    shrink_s: float | None = None,
) -> Outcome:
    """Let a subject live this history, which is asked for again if it fails. See `simulate`."""
    life = play(history(), subject)
    if life.failure is None:
        return Outcome(life)
    kind = life.failure.partition(":")[0]

    def fails(events: Sequence[Event]) -> bool:
        failure = play(events, subject).failure
        return failure is not None and failure.startswith(kind)

    deadline = None if shrink_s is None else time.monotonic() + shrink_s
    lived = list(itertools.islice(history(), life.events))
    minimal = shrink(lived, fails, lambda: deadline is None or time.monotonic() < deadline)
    return Outcome(life, tuple(minimal), play(minimal, subject).failure)
