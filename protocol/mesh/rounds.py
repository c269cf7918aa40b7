"""Rounds that are kept, and how those who come back walk through them.

When a connection comes back, the rounds that it has missed are *gathered*: plain rounds behind one
another become one, and some rounds together make a `Group`. A group knows what everybody got who
got nothing else. So a thousand connections that come back at once take steps by the group, not by
the message, and share what they have missed.

Nothing is gathered that nobody has missed.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from operator import attrgetter
from typing import Any, Final, Protocol

import attrs

from protocol.envelope import Text

ROUND_BYTES: Final = 400
"""What a round costs beside its texts."""
GROUP_BYTES: Final = 2**16
GROUP_ROUNDS: Final = 32
"""A group with so much is full."""
AT_ONCE: Final = 256
"""So many rounds are gathered at once, and more if somebody has missed more."""


class Kept(Protocol):
    """Messages that are kept, in order."""

    @property
    def count(self) -> int:
        """How many messages."""
        ...

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


LeftOut = tuple[Collection[int], int]
"""So many messages behind one another, and the connections that did not get them."""


class SharedDelivery(Missed, Kept, Protocol):
    """What went to everyone in one round."""

    @property
    def size(self) -> int:
        """Their bytes as frames."""
        ...

    @property
    def held_bytes(self) -> int:
        """What it costs to hold them."""
        ...

    @property
    def left_out(self) -> Sequence[LeftOut] | None:
        """Who did not get which of them: of all messages, in order. None if there is more in which
        receivers differ."""
        ...

    def to_keep(self) -> "Pile":
        """The same messages for longer than a round."""
        ...


class Pile(Kept, Protocol):
    """What went to everyone in one round or several, to be kept. Most of it is never looked at."""

    def put(self, shared: Any) -> None:
        """And in one more: a `SharedDelivery` of the same kind."""
        ...


class Delivery(Missed, Protocol):
    """What one receiver got in one round instead, in order."""

    @property
    def last(self) -> Text:
        """The last message."""
        ...

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
    one: it has the number and the time of the last, and `first` is the number of the first.
    """

    number: int
    at: float
    shared: Any  # Pile if it is plain, and Joined once it is gathered; else SharedDelivery or None
    own: Mapping[int, Delivery | None]
    left_out: list[LeftOut] | None
    bytes: int
    first: int = attrs.field(default=attrs.Factory(attrgetter("number"), takes_self=True))

    def part_of(self, connection: int, *, follows: bool) -> Missed | None:
        """What a connection got in it. Only once it is gathered."""
        if self.left_out is None:
            found: Missed | None = self.own.get(connection, self.shared if follows else None)
            return found
        if not follows:
            return None
        ranges, start, end = [], 0, 0
        for left_out, count in self.left_out:
            if connection in left_out:
                if start < end:
                    ranges.append((start, end))
                start = end + count
            end += count
        if not start:
            return self.shared  # type: ignore[no-any-return]
        if start < end:
            ranges.append((start, end))
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
            differ.update(*(left_out for left_out, _ in round.left_out or ()), round.own)
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


class Shelf:
    """All rounds that are kept, oldest first: those that nobody has asked for, groups, and `new`
    ones. Append to `new` what is kept."""

    def __init__(self, joins: Joins) -> None:
        self.new: deque[Round] = deque()
        self._joins = joins
        self._old: deque[Round] = deque()
        self._groups: deque[Group] = deque()
        self._saved = 0

    @property
    def oldest(self) -> Round | None:
        """The oldest round."""
        rounds = self._old or (self._groups[0].rounds if self._groups else self.new)
        return rounds[0] if rounds else None

    def drop_oldest(self) -> Round | None:
        """Take the oldest round away. Returns it."""
        if self._old:
            return self._old.popleft()
        if self._groups:
            round = self._groups[0].drop_oldest()
            if not self._groups[0].rounds:
                self._groups.popleft()
            return round
        return self.new.popleft() if self.new else None

    def clear(self) -> None:
        """Take all of them away."""
        for rounds in (self._old, self._groups, self.new):
            rounds.clear()

    def back(self) -> Iterator[Group]:
        """The groups, newest first. Rounds are gathered when their groups are asked for."""
        if not self._groups:
            self._old.extend(self.new)
        else:
            last = self._groups[-1]
            if self.new and not last.is_full:
                self._groups.pop()
                self.new.extendleft(reversed(last.rounds))
            self._groups.extend(self._gather(self.new))
        self.new.clear()
        yield from tuple(reversed(self._groups))
        while self._old:
            some = [self._old.pop() for _ in range(min(len(self._old), AT_ONCE))]
            groups = self._gather(some[::-1])
            self._groups.extendleft(reversed(groups))
            yield from reversed(groups)

    def _gather(self, rounds: Collection[Round]) -> list[Group]:
        groups = list(gather(rounds, self._joins))
        self._saved += sum(round.bytes for round in rounds) - sum(group.bytes for group in groups)
        return groups

    def take_saved(self) -> int:
        """The bytes that were saved by gathering since the last call."""
        saved, self._saved = self._saved, 0
        return saved


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
    is_next = before.number + 1 == round.first
    return is_next and before.left_out is not None and round.left_out is not None


def _as_one(run: Sequence[Round], joins: Joins) -> Round:
    """Plain rounds as one; one that is not plain, as it is."""
    last = run[-1]
    if last.left_out is None:
        return last
    left_out = [one for round in run for one in round.left_out or ()]
    bytes = sum(round.bytes for round in run) - ROUND_BYTES * (len(run) - 1)
    shared = joins.as_one([round.shared for round in run])
    return Round(last.number, last.at, shared, last.own, left_out, bytes, run[0].first)
