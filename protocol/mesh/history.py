"""What was delivered lately, so that a connection whose socket was lost can get what it missed.

A connection that asked for it has a *stream*: its messages are counted, and nothing is added to
them. Most of what it gets goes to everyone. So the rounds are kept, and shared by all streams; a
stream has only what differs for it. How many messages a stream has got is the sum of what went to
everyone, corrected in the rounds in which the stream got something of its own. So a round costs the
same however many streams there are. In most rounds streams differ only because nobody hears what it
said itself. Such a round is *plain*, and costs nothing for each of them either.

What is kept is bounded in bytes and in time. If what a stream has missed is no longer there, the
answer says so. It is never a part of it.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol
from zlib import crc32

import attrs

from protocol.envelope import TEXT_BYTES, Text

ROUND_BYTES: Final = 400
"""What a round costs beside its texts."""

_ENTRY_BYTES: Final = 100
"""What it costs to say that one stream got something else."""
_LEFT_OUT_BYTES: Final = 8
"""What it costs to say whom a message left out."""
_UNKNOWN: Final = -1
"""The CRC of a message that was not looked at when it was dropped."""


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


class SharedDelivery(Kept, Protocol):
    """What went to everyone in one round."""

    @property
    def count(self) -> int:
        """How many messages."""
        ...

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


class Delivery(Protocol):
    """What one receiver got in one round instead, in order."""

    @property
    def count(self) -> int:
        """How many messages."""
        ...

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        ...

    @property
    def shared(self) -> "SharedDelivery | None":
        """What it shares with others, or is a part of."""
        ...

    @property
    def own_texts(self) -> Iterable[Text]:
        """Those that are not part of that."""
        ...


@attrs.frozen
class _Round:
    """`left_out`: None unless it is plain. Then `own` is empty."""

    number: int
    at: float
    shared: Kept | None
    own: Mapping[int, Delivery | None]
    left_out: Sequence[Collection[int]] | None
    bytes: int


@attrs.define
class _Stream:
    """`follows_after`: after the round of this number it gets what goes to everyone, if nothing
    else stands in `own`. `ahead`: how many messages it got, less the sum of those to everyone once
    it follows, and more by those of which plain rounds left it out. `skipped`: messages of the
    first round that came before it was opened.

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


_NOTHING: Final[Mapping[int, Delivery | None]] = {}


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
        self._is_plain = True  # the round that comes, as far as streams are concerned
        self._left_out: Counter[int] = Counter()  # messages in plain rounds, by connection
        self._reached_in = -1  # the last plain round that had something for everyone
        self._unknown_in = -1  # the last plain round that was dropped unseen
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
        self._is_plain = False
        follows_after, ahead = float("inf"), 0
        if follows:
            follows_after = self._number - 1
            ahead = self._left_out[connection] - self._shared_count
        self._streams[connection] = _Stream(self._number, skipped, follows_after, ahead)

    def follow(self, connection: int) -> None:
        """From here on it gets what goes to everyone."""
        stream = self._streams.get(connection)
        if stream is not None and stream.follows_after > self._number:
            self._is_plain = False
            stream.follows_after = self._number

    def close(self, connection: int) -> None:
        """The connection is over."""
        self._left_out.pop(connection, None)
        if self._streams.pop(connection, None) is not None and not self._streams:
            self._rounds.clear()
            self.bytes = 0

    def add(
        self, shared: SharedDelivery | None, own: Mapping[int, Delivery | None], at: float
    ) -> None:
        """End a round: what went to everyone, and to whom went something else instead."""
        number = self._number
        self._number += 1
        left_out = shared.left_out if shared is not None and self._is_plain else None
        self._is_plain = True
        bytes = ROUND_BYTES
        kept_shared: Kept | None = shared
        if shared is None or left_out is None:
            kept = self._count(number, shared, own)
            if shared is None and not kept:
                return
            bytes += sum(map(_own_bytes, kept.values())) + _ENTRY_BYTES * len(kept)
            rolls = {id(roll): roll for one in kept.values() if one and (roll := one.shared)}
            if shared is not None:
                rolls[id(shared)] = shared
            for roll in rolls.values():  # as texts and as frames
                bytes += 2 * roll.size + TEXT_BYTES * roll.count
        else:
            kept, kept_shared = _NOTHING, shared.to_keep()
            bytes += shared.size + _LEFT_OUT_BYTES * shared.count
            self._shared_count += shared.count
            self._left_out.update(chain.from_iterable(left_out))
            if set(left_out[0]).isdisjoint(left_out[-1]):
                self._reached_in = number
        self._rounds.append(_Round(number, at, kept_shared, kept, left_out, bytes))
        self.bytes += bytes
        while self._rounds and (
            self.bytes > self._bytes_max or self._rounds[0].at < at - self._keep_s
        ):
            self.drop_oldest()

    def _count(
        self,
        number: int,
        shared: SharedDelivery | None,
        own: Mapping[int, Delivery | None],
    ) -> Mapping[int, Delivery | None]:
        """Count a round that is not plain. Returns what the streams got instead of the rest."""
        streams, shared_count = self._streams, 0 if shared is None else shared.count
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
                stream.ahead -= self._shared_count - self._left_out[connection]
        return kept

    def drop_oldest(self) -> None:
        """Keep one round less. Of what a stream has got, the CRC of the last message stays."""
        if not self._rounds:
            return
        round = self._rounds.popleft()
        self.bytes -= round.bytes
        number, left_out = round.number, round.left_out
        if left_out is not None and number < self._reached_in:
            self._unknown_in = number  # all who follow have got something since
            return
        differ = round.own if left_out is None else set(chain.from_iterable(left_out))
        for connection in differ:
            stream = self._streams.get(connection)
            if stream is None or (left_out is not None and stream.follows_after >= number):
                continue
            if left_out is not None and _are_all(left_out, connection):
                crc = self._crc_of_dropped(stream)
            else:
                texts = self._texts_of(stream, connection, round)
                crc = crc32(texts[-1]) if texts else self._crc_of_dropped(stream)
            stream.dropped_in, stream.dropped_crc = number, crc
        if round.shared is not None:
            self._dropped_in, self._dropped_crc = number, crc32(round.shared.last)

    def _crc_of_dropped(self, stream: _Stream) -> int | None:
        """The CRC of the last message of a stream that is no longer kept. None: there was none."""
        number, crc = stream.dropped_in, stream.dropped_crc
        if self._dropped_in > max(number, stream.follows_after):
            number, crc = self._dropped_in, self._dropped_crc
        return _UNKNOWN if self._unknown_in > max(number, stream.follows_after) else crc

    def _texts_of(self, stream: _Stream, connection: int, round: _Round) -> Sequence[Text]:
        """What a stream got in a round, in order."""
        follows = stream.follows_after < round.number
        if round.left_out is not None:
            if round.shared is None or not follows:
                return ()
            pairs = zip(round.shared.texts, round.left_out, strict=True)
            return [text for text, left_out in pairs if connection not in left_out]
        delivery = round.own.get(connection, round.shared if follows else None)
        texts: Sequence[Text] = () if delivery is None else delivery.texts
        return texts[stream.skipped :] if round.number == stream.opened_in else texts

    def count(self, connection: int) -> int:
        """How many messages a stream has got, up to the end of the last round."""
        stream = self._streams[connection]
        if stream.follows_after < self._number:
            return self._shared_count + stream.ahead - self._left_out[connection]
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
            texts = self._texts_of(stream, connection, round)
            parts.append(texts)
            found += len(texts)
        if found < needed:
            raise Missing("history")
        texts = [text for part in reversed(parts) for text in part][max(0, found - needed - 1) :]
        if received:
            last = crc32(texts.pop(0)) if found > needed else self._crc_of_dropped(stream)
            if last == _UNKNOWN:
                raise Missing("history")
            if last != crc:
                raise Missing("count")
        return texts


def _are_all(left_out: Sequence[Collection[int]], connection: int) -> bool:
    """All messages left out the same, and this connection. To look closer takes longer."""
    return connection in left_out[0] and left_out.count(left_out[0]) == len(left_out)


def _own_bytes(delivery: Delivery | None) -> int:
    if delivery is None:
        return 0
    return sum(len(text) + TEXT_BYTES for text in delivery.own_texts)
