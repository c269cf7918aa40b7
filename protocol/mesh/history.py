"""What was delivered lately, so that a connection whose socket was lost can get what it missed.

A connection that asked for it has a *stream*: its messages are counted, and nothing is added to
them. Most of what it gets goes to everyone. So the rounds are kept, and shared by all streams; a
stream has only what differs for it. How many messages a stream has got is the sum of what went to
everyone, corrected in the rounds in which the stream got something of its own. So a round costs the
same however many streams there are.

What is kept is bounded in bytes and in time. If what a stream has missed is no longer there, the
answer says so. It is never a part of it.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol
from zlib import crc32

import attrs

from protocol.envelope import TEXT_BYTES, Text

ROUND_BYTES: Final = 400
"""What a round costs beside its texts."""


class Delivery(Protocol):
    """What receivers got in one round, in order."""

    @property
    def count(self) -> int:
        """How many messages."""
        ...

    @property
    def size(self) -> int:
        """Their bytes as frames."""
        ...

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        ...

    @property
    def last(self) -> Text:
        """The last message."""
        ...

    @property
    def own_texts(self) -> Iterable[Text]:
        """Those that are not part of what went to everyone."""
        ...


@attrs.frozen
class _Round:
    number: int
    at: float
    shared: Delivery | None
    own: Mapping[int, Delivery | None]
    bytes: int


@attrs.define
class _Stream:
    """`follows_after`: after the round of this number it gets what goes to everyone, if nothing
    else stands in `own`. `ahead`: how many messages it got, less the sum of those to everyone once
    it follows. `skipped`: messages of the first round that came before it was opened.

    `dropped_in`: the last round that is no longer kept and had something of its own. `dropped_crc`:
    the CRC of its last message until then, None if there was none."""

    opened_in: int
    skipped: int
    follows_after: float
    ahead: int
    dropped_in: int = -1
    dropped_crc: int | None = None


class Missing(Exception):
    """What was missed cannot be told exactly. `reason`: `history` (it is no longer kept) or `count`
    (this number of messages was never sent, or the last of them was another one)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class History:
    """The rounds of one mesh, newest last. Times are monotonic seconds.

    `open`, `follow` and `close` belong to the round that `add` ends. `bytes`: what is kept.
    """

    def __init__(self, bytes_max: int, keep_s: float) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self._rounds: deque[_Round] = deque()
        self._streams: dict[int, _Stream] = {}
        self._number = 0
        self._dropped_in = -1  # the last round to everyone that is no longer kept
        self._dropped_crc = 0  # of its last message
        self._shared_count = 0  # messages to everyone in all rounds so far

    def __bool__(self) -> bool:
        """Something is to be kept."""
        return bool(self._streams)

    def open(self, connection: int, skipped: int, *, follows: bool) -> None:
        """From here on the messages of this connection are counted.

        `skipped`: how many it has got in this round already. `follows`: it gets what goes to
        everyone already, from before this round.
        """
        follows_after, ahead = (
            (self._number - 1, -self._shared_count) if follows else (float("inf"), 0)
        )
        self._streams[connection] = _Stream(self._number, skipped, follows_after, ahead)

    def follow(self, connection: int) -> None:
        """From here on it gets what goes to everyone."""
        stream = self._streams.get(connection)
        if stream is not None and stream.follows_after > self._number:
            stream.follows_after = self._number

    def close(self, connection: int) -> None:
        """The connection is over."""
        if self._streams.pop(connection, None) is not None and not self._streams:
            self._rounds.clear()
            self.bytes = 0

    def add(self, shared: Delivery | None, own: Mapping[int, Delivery | None], at: float) -> None:
        """End a round: what went to everyone, and to whom went something else instead."""
        number, streams = self._number, self._streams
        self._number += 1
        shared_count = 0 if shared is None else shared.count
        fewer, more = (own, streams) if len(own) < len(streams) else (streams, own)
        kept = {connection: own[connection] for connection in fewer if connection in more}
        self._shared_count += shared_count
        for connection, delivery in kept.items():
            stream = streams[connection]
            stream.ahead += 0 if delivery is None else delivery.count
            if number == stream.opened_in:
                stream.ahead -= stream.skipped
            if stream.follows_after < number:
                stream.ahead -= shared_count
            elif stream.follows_after == number:
                stream.ahead -= self._shared_count
        if shared is None and not kept:
            return
        bytes = ROUND_BYTES + sum(map(_own_bytes, kept.values()))
        if shared is not None:  # as texts and as frames
            bytes += 2 * shared.size + TEXT_BYTES * shared.count
        self._rounds.append(_Round(number, at, shared, kept, bytes))
        self.bytes += bytes
        while self._rounds and (
            self.bytes > self._bytes_max or self._rounds[0].at < at - self._keep_s
        ):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Keep one round less. Of what a stream has got, the CRC of the last message stays."""
        if not self._rounds:
            return
        round = self._rounds.popleft()
        self.bytes -= round.bytes
        for connection, delivery in round.own.items():
            stream = self._streams.get(connection)
            if stream is None:
                continue
            crc = self._crc_of_dropped(stream)
            if delivery is not None and not (
                round.number == stream.opened_in and delivery.count == stream.skipped
            ):
                crc = crc32(delivery.last)
            stream.dropped_in, stream.dropped_crc = round.number, crc
        if round.shared is not None:
            self._dropped_in, self._dropped_crc = round.number, crc32(round.shared.last)

    def _crc_of_dropped(self, stream: _Stream) -> int | None:
        """The CRC of the last message of a stream that is no longer kept. None: there was none."""
        if self._dropped_in > max(stream.dropped_in, stream.follows_after):
            return self._dropped_crc
        return stream.dropped_crc

    def count(self, connection: int) -> int:
        """How many messages a stream has got, up to the end of the last round."""
        stream = self._streams[connection]
        if stream.follows_after < self._number:
            return self._shared_count + stream.ahead
        return stream.ahead

    def missed(self, connection: int, received: int, crc: int | None) -> list[Text]:
        """The messages of a stream after the first `received` ones. Raises Missing.

        `crc`: the CRC-32 of the last one that was received, None if that is none.
        """
        stream, sent = self._streams[connection], self.count(connection)
        if not 0 <= received <= sent or (crc is None) != (received == 0):
            raise Missing("count")
        needed = sent - received
        parts: list[Sequence[Text]] = []
        found = 0
        for round in reversed(self._rounds):
            if found >= needed + (received > 0) or round.number < stream.opened_in:
                break
            default = round.shared if stream.follows_after < round.number else None
            delivery = round.own.get(connection, default)
            texts: Sequence[Text] = () if delivery is None else delivery.texts
            if round.number == stream.opened_in:
                texts = texts[stream.skipped :]
            parts.append(texts)
            found += len(texts)
        if found < needed:
            raise Missing("history")
        texts = [text for part in reversed(parts) for text in part][max(0, found - needed - 1) :]
        if received:
            last = crc32(texts.pop(0)) if found > needed else self._crc_of_dropped(stream)
            if last != crc:
                raise Missing("count")
        return texts


def _own_bytes(delivery: Delivery | None) -> int:
    if delivery is None:
        return 0
    return sum(len(text) + TEXT_BYTES for text in delivery.own_texts)
