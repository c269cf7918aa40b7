"""What was said to everyone lately, for those who come later and ask for it (rule 21).

A connection asks in `capabilities`, before its first presence:

    data.history: {"messages": n}       the last n messages that went to everyone

Presences, directs and what the relay itself says are not among them.
"""

from collections import deque
from collections.abc import Iterable, MutableSequence
from itertools import chain, islice, pairwise
from typing import Final

import msgspec

from protocol.codec import data_of, decode_object, decode_value
from protocol.envelope import TEXT_BYTES, ErrorCode, Refusal, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.numbers import whole_number


def how_many(text: Text) -> int | None:
    """How many messages a `capabilities` asks for. None: it does not. Raises Refusal.

    >>> how_many(b'{"type":"capabilities","data":{"history":{"messages":50}}}')
    50
    """
    try:
        wish = data_of(text).get("history")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # `data` is no object: it says nothing
    if wish is None:
        return None
    try:
        return whole_number(decode_value(decode_object(wish)["messages"]))
    except (msgspec.DecodeError, RecursionError, KeyError, ValueError) as error:
        sentence = "`data.history` has `messages`, a whole number from 0 on"
        raise Refusal(ErrorCode.BAD_FIELD, sentence) from error


LITTLE_BYTES: Final = 2**14
"""So much may be fresh, and counts as a whole. To sort in the messages of each round takes longer
than to decide them."""


class Recent:
    """The last messages to everyone in one mesh, oldest first. Times are monotonic seconds, and
    never go back.

    A message costs nearly nothing: `begin` once for each instant, then add it to `fresh`; `settle`
    when more than `LITTLE_BYTES` are fresh. `now` is the instant that has begun. `bytes`: what all
    that costs.
    """

    __slots__ = (
        "_begun",
        "_bytes",
        "_bytes_max",
        "_count",
        "_groups",
        "_keep_s",
        "_messages_max",
        "fresh",
        "now",
    )

    def __init__(self, limits: Limits) -> None:
        self._messages_max = limits.recall_messages_max
        self._bytes_max = limits.recall_bytes_max
        self._keep_s = limits.recall_s
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._groups: deque[tuple[float, list[Text]]] = deque()  # what was said at one instant
        self._bytes = 0
        self._count = 0
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self.fresh: MutableSequence[Text] = [] if self._messages_max else deque(maxlen=0)
        self._begun: list[tuple[float, int]] = []  # each instant, and how many were fresh before
        self.now: Instant | None = None

    @property
    def bytes(self) -> int:
        """What is kept."""
        if not self._count and not self.fresh:
            return 0
        return LITTLE_BYTES + self._bytes + TEXT_BYTES * self._count

    def begin(self, now: Instant) -> None:
        """What comes into `fresh` from here on is said now."""
        self._begun.append((now.at, len(self.fresh)))
        self.now = now

    def settle(self) -> None:
        """Sort in what is fresh. Beyond a bound the oldest are forgotten."""
        fresh, begun = tuple(self.fresh), self._begun
        self._begin_afresh()
        if not fresh:
            return
        if len(fresh) >= self._messages_max:
            self._groups.clear()
            self._bytes = self._count = 0
        for (at, start), (_, end) in pairwise([*begun, (0.0, len(fresh))]):
            self._groups.append((at, list(fresh[start:end])))
        self._count += len(fresh)
        self._bytes += sum(map(len, fresh))
        while self._count > self._messages_max:
            self._forget_first(self._count - self._messages_max)
        while self._bytes > self._bytes_max:
            self._forget_first(1)

    def forget(self, at: float) -> None:
        """Forget what was said too long ago."""
        self.settle()
        groups = self._groups
        while groups and groups[0][0] < at - self._keep_s:
            self._forget_first(len(groups[0][1]))

    def state(self) -> list[tuple[float, list[Text]]]:
        """What is kept, for `restore`: what was said at each time."""
        self.settle()
        return list(self._groups)

    def restore(self, state: Iterable[tuple[float, list[Text]]]) -> None:
        """Keep what another one keeps."""
        self.clear()
        self._groups.extend(state)
        self._count = sum(len(group) for _, group in self._groups)
        self._bytes = sum(sum(map(len, group)) for _, group in self._groups)

    def _forget_first(self, count: int) -> None:
        """So many of the oldest, but only of one instant."""
        group = self._groups[0][1]
        gone = group[:count]
        self._count -= len(gone)
        self._bytes -= sum(map(len, gone))
        if len(gone) == len(group):
            self._groups.popleft()
        else:
            del group[:count]

    def last(self, count: int, at: float) -> tuple[Text, ...]:
        """The last messages, at most so many, in the order in which they were said."""
        self.forget(at)
        newest_first = chain.from_iterable(reversed(group) for _, group in reversed(self._groups))
        return tuple(reversed(tuple(islice(newest_first, count))))
