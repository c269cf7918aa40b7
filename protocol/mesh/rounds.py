"""Rounds that are kept, and how those who come back walk through them.

When the first connection comes back, the rounds are *gathered*: plain rounds behind one another
become one, and some rounds together make a `Group`. A group knows what everybody got who got
nothing else. So a thousand connections that come back at once take steps by the group, not by the
message, and share what they have missed.

Nothing is gathered while nobody comes back.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, Protocol

import attrs

from protocol.envelope import Text

ROUND_BYTES: Final = 400
"""What a round costs beside its texts."""
GROUP_BYTES: Final = 2**16
GROUP_ROUNDS: Final = 32
"""A group with so much is full."""


class Kept(Protocol):
    """Messages that are kept, in order."""

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        ...

    @property
    def last(self) -> Text:
        """The last message."""
        ...


class Missed(Protocol):
    """Some of the messages that a stream has missed, in order."""

    @property
    def count(self) -> int:
        """How many messages."""
        ...

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        ...

    @property
    def first(self) -> Text:
        """The first message."""
        ...

    def behind(self, count: int) -> "Missed":
        """The same without the first `count` messages."""
        ...


class SharedDelivery(Missed, Kept, Protocol):
    """What went to everyone in one round."""

    @property
    def size(self) -> int:
        """Their bytes as frames."""
        ...

    @property
    def left_out(self) -> Sequence[Collection[int]] | None:
        """For each message, the connections that did not get it. None if there is more in which
        receivers differ."""
        ...

    def to_keep(self) -> Kept:
        """The same messages for longer than a round."""
        ...


class Delivery(Missed, Protocol):
    """What one receiver got in one round instead, in order."""

    @property
    def shared(self) -> "Sequence[SharedDelivery]":
        """What it shares with others, or is a part of."""
        ...

    @property
    def own_texts(self) -> Iterable[Text]:
        """Those that are not part of that."""
        ...


class Joined(Missed, Kept, Protocol):
    """What went to everyone in several plain rounds."""

    def ranges(self, ranges: Sequence[tuple[int, int]]) -> Missed:
        """Only these messages: each range has the number of its first, and of the next one."""
        ...


@attrs.frozen
class Joins:
    """How messages are put one behind the other, for many who share the result.

    `as_one`: makes one of several `Kept` or `Joined`, which are not needed any more. `in_a_row`:
    only refers to several `Missed`.
    """

    as_one: Callable[[Sequence[Any]], Joined]
    in_a_row: Callable[[Sequence[Any]], Missed]


@attrs.define(eq=False)  # not frozen: it is made for every round, and that takes longer
class Round:
    """What went to everyone, and to whom went something else instead.

    `left_out`: None unless it is plain. Then `own` is empty. Several plain rounds may have become
    one: it has the number and the time of the last.
    """

    number: int
    at: float
    shared: Any  # Kept, or None; once it is gathered, Joined if it is plain, else SharedDelivery
    own: Mapping[int, Delivery | None]
    left_out: Sequence[Collection[int]] | None
    bytes: int

    def part_of(self, connection: int, *, follows: bool) -> Missed | None:
        """What a connection got in it. Only once it is gathered."""
        if self.left_out is None:
            found: Missed | None = self.own.get(connection, self.shared if follows else None)
            return found
        if not follows:
            return None
        ranges, start = [], 0
        for number, left_out in enumerate(self.left_out):
            if connection in left_out:
                if start < number:
                    ranges.append((start, number))
                start = number + 1
        if not start:
            return self.shared  # type: ignore[no-any-return]
        if start < len(self.left_out):
            ranges.append((start, len(self.left_out)))
        return self.shared.ranges(ranges) if ranges else None


@attrs.define(eq=False)
class Group:
    """Some rounds, oldest first. `differ`: who did not get just what went to everyone.

    `whole`: what all others got; None if its oldest round is gone. `bytes`: before that.
    """

    rounds: deque[Round]
    differ: Set[int]
    whole: Missed | None
    bytes: int

    @classmethod
    def of(cls, runs: Sequence[Sequence[Round]], joins: Joins) -> "Group":
        """A group of rounds. Each run of plain ones becomes one."""
        rounds = deque(_as_one(run, joins) for run in runs)
        differ: set[int] = set()
        for round in rounds:
            differ.update(chain.from_iterable(round.left_out) if round.left_out else round.own)
        whole = joins.in_a_row([round.shared for round in rounds if round.shared is not None])
        return cls(rounds, differ, whole, sum(round.bytes for round in rounds))

    @property
    def is_full(self) -> bool:
        """Nothing more belongs to it."""
        is_large = self.bytes >= GROUP_BYTES or len(self.rounds) >= GROUP_ROUNDS
        return is_large or self.whole is None

    def drop_oldest(self) -> Round:
        """Without its oldest round."""
        self.whole = None
        return self.rounds.popleft()


def gather(rounds: Iterable[Round], joins: Joins) -> Iterator[Group]:
    """These rounds, which may have been gathered before, in groups."""
    runs: list[list[Round]] = []
    bytes = 0
    for round in rounds:
        if runs and _continues(runs[-1][-1], round):
            runs[-1].append(round)
        else:
            runs.append([round])
        bytes += round.bytes
        if bytes >= GROUP_BYTES or len(runs) >= GROUP_ROUNDS:
            yield Group.of(runs, joins)
            runs, bytes = [], 0
    if runs:
        yield Group.of(runs, joins)


def _continues(before: Round, round: Round) -> bool:
    """Both are plain, and no round between them was. So nobody began to follow in between."""
    is_next = before.number + 1 == round.number
    return is_next and before.left_out is not None and round.left_out is not None


def _as_one(run: Sequence[Round], joins: Joins) -> Round:
    """Plain rounds as one; one that is not plain, as it is."""
    last = run[-1]
    if last.left_out is None:
        return last
    left_out = [one for round in run for one in round.left_out or ()]
    bytes = sum(round.bytes for round in run) - ROUND_BYTES * (len(run) - 1)
    shared = joins.as_one([round.shared for round in run])
    return Round(last.number, last.at, shared, last.own, left_out, bytes)
