"""What was delivered lately, so that a connection whose socket was lost can get what it missed.

A connection that asked for it has a *stream*: its messages are counted, and nothing is added to
them. Most of what it gets goes to everyone. So the rounds are kept, and shared by all streams; a
stream has only what differs for it. How many messages a stream has got is the sum of what went to
everyone, corrected in the rounds in which the stream got something of its own. So a round costs the
same however many streams there are. In most rounds streams differ only because nobody hears what it
said itself. Such a round is *plain*, and costs nothing for each of them either. Plain rounds behind
one another grow into one *run*, which costs little more than its messages.

What is kept is bounded in bytes and in time. If what a stream has missed is no longer there, the
answer says so. It is never a part of it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final
from zlib import crc32

import attrs

from protocol.envelope import TEXT_BYTES, Text
from protocol.mesh.rounds import (
    ROUND_BYTES,
    Delivery,
    Joins,
    Kept,
    LeftOut,
    Missed,
    Round,
    SharedDelivery,
    Shelf,
)

_ENTRY_BYTES: Final = 100
"""What it costs to say that one stream got something else."""
_LEFT_OUT_BYTES: Final = 80
"""What it costs to say whom some messages left out."""
_PART_BYTES: Final = 48
"""What a round costs that is a part of a run, beside its messages."""
RUN_PART: Final = 64
RUN_S: Final = 0.25
"""A run that is one of so many parts of what may be kept, or has gone on for so long (seconds),
grows no more: it is kept as a whole, or not at all."""


@attrs.define
class _Stream:
    """`follows_from`: from the round of this number on it gets what goes to everyone, if nothing
    else stands in `own`. `ahead`: how many messages it got, less the sum of those to everyone once
    it follows, and more by those of which plain rounds left it out. `skipped`: messages of the
    first round that came before it was opened.

    `dropped_in`: the last round that is no longer kept and had something of its own. `dropped_crc`:
    the CRC of its last message until then, None if there was none."""

    opened_in: int
    skipped: int
    follows_from: float
    ahead: int
    dropped_in: int = -1
    dropped_crc: int | None = None


class Missing(Exception):
    """What was missed cannot be told exactly. `reason`: `history` (it is no longer kept) or `count`
    (this number of messages was never sent, or the last of them was another one)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_NEVER: Final = float("inf")
_NOTHING: Final[Mapping[int, Delivery | None]] = {}


class History:
    """The rounds of one mesh, newest last. Times are monotonic seconds.

    `open`, `follow` and `close` belong to the round that `add` ends. `bytes`: what is kept.
    `joins`: puts together what was missed.
    """

    def __init__(self, bytes_max: int, keep_s: float, joins: Joins) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._run_bytes_max = bytes_max // RUN_PART
        self._keep_s = keep_s
        self._shelf = Shelf(joins)
        self._streams: dict[int, _Stream] = {}
        self._number = 0
        self._is_plain = True  # the round that comes, as far as streams are concerned
        self._run: Round | None = None  # the newest round, if it may grow
        self._run_until = 0.0
        self._left_out: Counter[int] = Counter()  # in plain rounds but the run's, by connection
        self._aside: list[Round] = []  # plain ones that are no longer kept, oldest first
        self._dropped_in = -1  # the last round to everyone that is no longer kept, and not plain
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
        self._end_run()
        follows_from, ahead = _NEVER, 0
        if follows:
            follows_from = self._number
            ahead = self._left_out[connection] - self._shared_count
        self._streams[connection] = _Stream(self._number, skipped, follows_from, ahead)

    def follow(self, connection: int) -> None:
        """From the next round on it gets what goes to everyone. It gets something of its own in
        this one."""
        stream = self._streams.get(connection)
        if stream is not None and stream.follows_from == _NEVER:
            self._is_plain = False
            self._end_run()
            stream.follows_from = self._number + 1

    def close(self, connection: int) -> None:
        """The connection is over."""
        self._end_run()
        self._left_out.pop(connection, None)
        if self._streams.pop(connection, None) is not None and not self._streams:
            self._shelf.clear()
            self._aside.clear()
            self.bytes = 0

    def add(
        self, shared: SharedDelivery | None, own: Mapping[int, Delivery | None], at: float
    ) -> None:
        """End a round: what went to everyone, and to whom went something else instead. While nobody
        is to come back, nothing is kept."""
        if not self._streams or (shared is not None and self._extend_run(shared, at)):
            return
        number, is_plain = self._number, self._is_plain
        self._number, self._is_plain = number + 1, True
        if is_plain and shared is not None and (left_out := shared.left_out) is not None:
            self._begin_run(number, shared, left_out, at)
        else:
            self._end_run()
            kept = self._count(number, shared, own)
            if shared is None and not kept:
                return
            bytes = ROUND_BYTES + sum(map(_own_bytes, kept.values())) + _ENTRY_BYTES * len(kept)
            rolls = {id(roll): roll for one in kept.values() if one for roll in one.shared}
            if shared is not None:
                rolls[id(shared)] = shared
            bytes += sum(roll.held_bytes for roll in rolls.values())
            self._shelf.new.append(Round(number, at, shared, kept, None, bytes))
            self.bytes += bytes
        self._drop(at)

    def _extend_run(self, shared: SharedDelivery, at: float) -> bool:
        """In most rounds this is all: the round is plain, and the run goes on with it. False: it is
        not, or there is no run that may grow."""
        run, left_out = self._run, shared.left_out
        if (
            run is None
            or left_out is None
            or at > self._run_until
            or run.bytes > self._run_bytes_max
        ):
            return False
        run.number, run.at = self._number, at
        self._number += 1
        run.shared.put(shared)
        bytes = shared.size + _PART_BYTES
        all_left_out: list[LeftOut] = run.left_out  # type: ignore[assignment]  # it is plain
        excluded, count = all_left_out[-1]
        if len(left_out) == 1 and left_out[0][0] is excluded:  # the same sender speaks on
            all_left_out[-1] = excluded, count + shared.count
        else:
            bytes += _LEFT_OUT_BYTES * _go_on(all_left_out, left_out)
        self._shared_count += shared.count
        run.bytes += bytes
        self.bytes += bytes
        if self.bytes > self._bytes_max:
            self._drop(at)
        return True

    def _begin_run(
        self, number: int, shared: SharedDelivery, left_out: Sequence[LeftOut], at: float
    ) -> None:
        """A plain round with which no run goes on."""
        self._end_run()
        bytes = shared.size + _PART_BYTES + ROUND_BYTES + _LEFT_OUT_BYTES * len(left_out)
        run = Round(number, at, shared.to_keep(), _NOTHING, [*left_out], bytes)
        self._run, self._run_until = run, at + RUN_S
        self._shelf.new.append(run)
        self._shared_count += shared.count
        self.bytes += bytes

    def _drop(self, at: float) -> None:
        """Keep no more than may be kept."""
        while (oldest := self._shelf.oldest) is not None and (
            self.bytes > self._bytes_max or oldest.at < at - self._keep_s
        ):
            self.drop_oldest()

    def _end_run(self) -> None:
        """The run grows no more, and is counted."""
        if self._run is not None:
            for left_out, count in self._run.left_out or ():
                for connection in left_out:
                    self._left_out[connection] += count
            self._run = None

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
            if stream.follows_from <= number:
                stream.ahead -= shared_count
            elif stream.follows_from == number + 1:
                stream.ahead -= self._shared_count - self._left_out[connection]
        return kept

    def drop_oldest(self) -> bool:
        """Keep one round less. Of what a stream has got, the CRC of the last message can still be
        told. False: no round is left."""
        round = self._shelf.drop_oldest()
        if round is None:
            return False
        if round.left_out is not None:
            if round is self._run:
                self._end_run()
            self._lay_aside(round)
            return True
        self.bytes -= round.bytes
        for connection in round.own:
            stream = self._streams.get(connection)
            if stream is not None:
                last = self._last_of_own(stream, connection, round)
                crc = self._crc_of_dropped(stream, connection) if last is None else crc32(last)
                stream.dropped_in, stream.dropped_crc = round.number, crc
        if round.shared is not None:
            self._dropped_in, self._dropped_crc = round.number, crc32(round.shared.last)
        return True

    def _lay_aside(self, round: Round) -> None:
        """A plain round is no longer kept, and most likely nobody will ask for its last messages.

        So they are not looked at. Of the rounds that were laid aside before, those stay that have
        something for whom all later ones left out.
        """
        stay, left_out = [round], {*_left_out_of_all(round)}
        for older in reversed(self._aside):
            if left_out and left_out - (also := _left_out_of_all(older)):
                stay.append(older)
                left_out &= also
            else:
                self.bytes -= older.bytes
        self._aside = stay[::-1]

    def _crc_of_dropped(self, stream: _Stream, connection: int) -> int | None:
        """The CRC of the last message of a stream that is no longer kept. None: there was none."""
        number, crc = stream.dropped_in, stream.dropped_crc
        if self._dropped_in > number and self._dropped_in >= stream.follows_from:
            number, crc = self._dropped_in, self._dropped_crc
        for round in reversed(self._aside):
            if round.number > number:
                last = self._last_of_plain(stream, connection, round)
                if last is not None:
                    return crc32(last)
        return crc

    def _last_of_own(self, stream: _Stream, connection: int, round: Round) -> Text | None:
        """The last message that a stream got in a round with something of its own."""
        delivery = round.own[connection]
        skipped = stream.skipped if round.number == stream.opened_in else 0
        return None if delivery is None or delivery.count <= skipped else delivery.last

    def _last_of_plain(self, stream: _Stream, connection: int, round: Round) -> Text | None:
        """The last message that a stream got in a plain round. None: it got nothing."""
        if round.number < stream.follows_from:
            return None
        assert round.left_out is not None
        shared: Kept = round.shared
        end = shared.count
        for left_out, count in reversed(round.left_out):
            if connection not in left_out:
                return shared.last if end == shared.count else shared.texts[end - 1]
            end -= count
        return None

    def count(self, connection: int) -> int:
        """How many messages a stream has got, up to the end of the last round."""
        self._end_run()
        stream = self._streams[connection]
        if stream.follows_from <= self._number:
            return self._shared_count + stream.ahead - self._left_out[connection]
        return stream.ahead

    def missed(self, connection: int, received: int, crc: int | None) -> list[Missed]:
        """The messages of a stream after the first `received` ones, in parts. Raises Missing.

        `crc`: the CRC-32 of the last one that was received, None if that is none.
        """
        stream, sent = self._streams[connection], self.count(connection)
        if not 0 <= received <= sent or (crc is None) != (received == 0):
            raise Missing("count")
        needed = sent - received
        wanted = needed + (received > 0)
        parts: list[Missed] = []
        found = 0
        back = self._back(stream, connection, needed)
        while found < wanted and (part := next(back, None)) is not None:
            parts.append(part)
            found += part.count
        self.bytes -= self._shelf.take_saved()
        if found < needed:
            raise Missing("history")
        if received:
            last = self._crc_of_dropped(stream, connection)
            if found > needed:  # only because of the last part
                first = parts.pop().behind(found - needed - 1)
                last = crc32(first.first)
                parts.append(first.behind(1))
            if last != crc:
                raise Missing("count")
        return [part for part in reversed(parts) if part.count]

    def _back(self, stream: _Stream, connection: int, needed: int) -> Iterator[Missed]:
        """What a stream got, as far as it is kept, newest first. The last `needed` messages come in
        parts as large as possible. Nothing is gathered before it is asked for."""
        found = 0
        for group in self._shelf.back():
            whole = group.whole
            # In the round in which a stream began, it got something of its own, and is in `differ`.
            is_alike = (
                connection not in group.differ and stream.follows_from <= group.rounds[0].number
            )
            if whole is not None and is_alike and found + whole.count <= needed:
                found += whole.count
                yield whole
                continue
            for round in reversed(group.rounds):
                follows = stream.follows_from <= round.number
                part = round.part_of(connection, follows=follows)
                if part is not None and round.number == stream.opened_in:
                    part = part.behind(stream.skipped)
                if part is not None:
                    found += part.count
                    yield part


def _left_out_of_all(round: Round) -> Set[int]:
    """Who got nothing of a plain round, of those who follow."""
    assert round.left_out is not None
    first, last = set(round.left_out[0][0]), round.left_out[-1][0]
    if first.isdisjoint(last):
        return set()
    return first.intersection(*(left_out for left_out, _ in round.left_out))


def _own_bytes(delivery: Delivery | None) -> int:
    if delivery is None:
        return 0
    return sum(len(text) + TEXT_BYTES for text in delivery.own_texts)


def _go_on(before: list[LeftOut], left_out: Sequence[LeftOut]) -> int:
    """Put one behind the other. Returns how much longer it is."""
    (excluded, count), (also, more) = before[-1], left_out[0]
    if also is not excluded:
        before += left_out
        return len(left_out)
    before[-1] = excluded, count + more
    before += left_out[1:]
    return len(left_out) - 1
