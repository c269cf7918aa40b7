"""What was said to everyone lately, for those who come later and ask for it (rule 21).

A connection asks in `capabilities`, before its first presence:

    data.history: {"messages": n}       the last n messages that went to everyone

Presences, directs and what the relay itself says are not among them.
"""

from collections import deque
from itertools import islice
from typing import Final

import msgspec

from protocol.codec import data_of, decode_object
from protocol.envelope import TEXT_BYTES, ErrorCode, Refusal, Text
from protocol.limits import Limits

COUNT_MAX: Final = 2**53
"""Numbers on the wire are at most this, so that every language reads them exactly."""

_decode_any = msgspec.json.Decoder(float_hook=float).decode


def read_wish(text: Text) -> int | None:
    """How many messages a `capabilities` asks for. None: it does not. Raises Refusal.

    >>> read_wish(b'{"type":"capabilities","data":{"history":{"messages":50}}}')
    50
    """
    try:
        wish = data_of(text).get("history")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # `data` is no object: it says nothing
    if wish is None:
        return None
    try:
        count = _decode_any(decode_object(wish)["messages"])
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= COUNT_MAX:
            raise ValueError(count)
    except (msgspec.DecodeError, RecursionError, KeyError, ValueError) as error:
        sentence = "`data.history` has `messages`, a whole number from 0 on"
        raise Refusal(ErrorCode.BAD_FIELD, sentence) from error
    return count


class Recent:
    """The last messages to everyone in one mesh, oldest first. Times are monotonic seconds, and
    never go back."""

    __slots__ = ("_bytes", "_bytes_max", "_count", "_keep_s", "_messages_max", "_said")

    def __init__(self, limits: Limits) -> None:
        self._messages_max = limits.recall_messages_max
        self._bytes_max = limits.recall_bytes_max
        self._keep_s = limits.recall_s
        self._said: deque[tuple[float, Text]] = deque()
        self._bytes = 0
        self._count = 0

    @property
    def bytes(self) -> int:
        """What is kept."""
        return self._bytes + TEXT_BYTES * self._count

    def remember(self, text: Text, at: float) -> None:
        """It goes to everyone now. Beyond a bound the oldest are forgotten."""
        said = self._said  # this is done for every message, so there are few calls in it
        said.append((at, text))
        self._count += 1
        self._bytes += len(text)
        while self._count > self._messages_max or self._bytes > self._bytes_max:
            self._forget_oldest()
        if said and said[0][0] < at - self._keep_s:
            self.forget(at)

    def forget(self, at: float) -> None:
        """Forget what was said too long ago."""
        said = self._said
        while said and said[0][0] < at - self._keep_s:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._bytes -= len(self._said.popleft()[1])
        self._count -= 1

    def last(self, count: int, at: float) -> tuple[Text, ...]:
        """The last messages, at most so many, in the order in which they were said."""
        self.forget(at)
        texts = [text for _, text in islice(reversed(self._said), count)]
        return tuple(reversed(texts))

    def clear(self) -> None:
        """Forget everything."""
        self._said.clear()
        self._bytes = self._count = 0
