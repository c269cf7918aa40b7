"""One round's messages for all receivers, written once.

A mesh has one interleaving, and nearly every receiver gets nearly all of it. So a round is one
`Tape` of frames that go to everyone present. A receiver that differs has a list of cuts: its own
messages left out, private messages spliced in. Receivers without cuts share one `Batch`, framed and
joined once; a receiver with cuts gets slices of the same bytes. The cost of a round is
one write per receiver, however many messages it holds.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Final, cast

from actors.frames import (
    JOIN_BYTES_MAX,
    Batch,
    Buffer,
    SharedBatch,
    Single,
    frames_length,
    joined,
    parts_of,
    text_frame,
    text_frames,
    text_of,
    texts_of,
)
from protocol.envelope import Text

_Piece = tuple[int, int] | Text | SharedBatch  # a range of the tape, or something private


class _Spliced(Batch):
    """Parts of a tape, private texts, and batches that the receiver shares with some others only.
    `ends` has the place of every message in the wire."""

    __slots__ = ("_ends", "_own", "_pieces", "_tape", "shared")

    shared: Sequence[SharedBatch]

    def __init__(self, tape: SharedBatch, pieces: list[_Piece], ends: Sequence[int]) -> None:
        self._tape = tape
        self._pieces = pieces
        self._ends = ends
        self.shared = shared = [tape]
        self._own = own = cast("list[Text]", [piece for piece in pieces if type(piece) is bytes])
        self.count, self.size = len(own), frames_length(own)
        if self.count < len(pieces):
            for piece in pieces:
                if type(piece) is tuple:
                    start, end = piece
                    self.count += end - start
                    self.size += ends[end] - ends[start]
                elif type(piece) is not bytes:
                    batch = cast("SharedBatch", piece)
                    shared.append(batch)
                    self.count += batch.count
                    self.size += batch.size

    @property
    def texts(self) -> Sequence[Text]:
        """Only built for transports that ask for it."""
        texts: list[Text] = []
        for piece in self._pieces:
            texts += self._tape.texts[slice(*piece)] if isinstance(piece, tuple) else _texts(piece)
        return texts

    @property
    def last(self) -> Text:
        """The last message. Of the others nothing is looked at."""
        piece = self._pieces[-1]
        if not isinstance(piece, tuple):
            return piece if isinstance(piece, bytes) else piece.last
        start, end = self._ends[piece[1] - 1 : piece[1] + 1]
        return text_of(self._tape.frames[start:end])

    @property
    def own_texts(self) -> Iterable[Text]:
        """The private texts."""
        return self._own

    def to_hold(self) -> Batch:
        """The texts alone, if they are a small part of the tape."""
        return self if self.size * 2 >= self._tape.size else Batch(self.texts)

    def _parts(self) -> Iterator[Buffer]:
        wire, ends = memoryview(self._tape.frames), self._ends
        for kind, pieces in groupby(self._pieces, type):
            if kind is tuple:
                for start, end in cast("Iterable[tuple[int, int]]", pieces):
                    yield wire[ends[start] : ends[end]]
            elif kind is bytes:
                yield from parts_of(cast("list[Text]", list(pieces)))
            else:
                yield from (batch.frames for batch in cast("Iterable[SharedBatch]", pieces))

    @property
    def buffers(self) -> list[Buffer]:
        """All of it as WebSocket frames, in one buffer or several."""
        return joined(list(self._parts()))


def _texts(piece: Text | SharedBatch) -> Sequence[Text]:
    return (piece,) if isinstance(piece, bytes) else piece.texts


def _count(piece: _Piece) -> int:
    if isinstance(piece, tuple):
        return piece[1] - piece[0]
    return 1 if isinstance(piece, bytes) else piece.count


class _Cut:
    """Where one receiver's copy differs from the tape.

    `pieces` are ranges of the tape and what else it gets, in order; the tape from `start` on is
    still to come. A receiver that is not present has `start` beyond every tape.
    """

    __slots__ = ("pieces", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.pieces: list[_Piece] = []

    def catch_up(self, end: int) -> None:
        if self.start < end:
            self.pieces.append((self.start, end))
            self.start = end

    def skip(self, start: int, end: int) -> None:
        if self.start <= start:
            self.catch_up(start)
            self.start = end


_ABSENT: Final = sys.maxsize


class Tape:
    """Collects one round. Receivers are named by connection number. `is_kept`: what is made of it
    is kept for longer, so it says what receivers do not get (`SharedBatch.left_out`). It changes
    only between rounds. `frames`: what goes to everyone, so far. While it is not kept, and no run
    goes on (`end_run`), a frame may be put there without a call."""

    def __init__(self) -> None:
        self.present: set[int] = set()
        self.is_kept = False
        self.frames: list[bytes] = []
        self._left_out: list[tuple[Collection[int], int]] = []  # whom, and in how many texts
        # Messages of one sender often come in a run. What all of these leave out is noted once.
        self._run: Collection[int] | None = None  # who is left out since then
        self._run_start = 0
        self._is_plain = True  # nothing else differs between those who are present
        self._cuts: dict[int, _Cut] = {}
        # What somebody got before there was anything else: often a round has nothing but this.
        self._private: dict[int, list[Text]] = {}

    @property
    def is_shared(self) -> bool:
        """Something goes to several receivers, so far."""
        return bool(self.frames)

    def admit(self, connection: int) -> None:
        """From here on the connection gets what goes to everyone."""
        self.end_run()
        self._is_plain = False
        self._cut(connection).start = len(self.frames)
        self.present.add(connection)

    def dismiss(self, connection: int) -> None:
        """From here on the connection gets nothing."""
        self.end_run()
        self._is_plain = False
        cut = self._cut(connection)
        cut.catch_up(len(self.frames))
        cut.start = _ABSENT
        self.present.discard(connection)

    def release(self, connection: int) -> list[Text]:
        """From here on the connection belongs to another tape. Returns what it got on this one."""
        self.end_run()
        self._is_plain = False
        cut = self._cut(connection)
        del self._cuts[connection]
        cut.catch_up(len(self.frames))
        self.present.discard(connection)
        got: list[Text] = []
        for piece in cut.pieces:
            got += (
                texts_of(b"".join(self.frames[slice(*piece)]))
                if isinstance(piece, tuple)
                else _texts(piece)
            )
        return got

    def count_of(self, connection: int) -> int:
        """How many messages the connection has on this tape so far."""
        self.end_run()
        end, cut = len(self.frames), self._cuts.get(connection)
        if cut is None:
            private = len(self._private.get(connection, ()))
            return private + (end if connection in self.present else 0)
        return sum(map(_count, cut.pieces)) + max(0, end - cut.start)

    def everyone(self, texts: Sequence[Text]) -> None:
        """They go to all who are present."""
        self.others((), texts)

    def others(self, excluded: Collection[int], texts: Sequence[Text]) -> None:
        """They go to all who are present, except these."""
        if excluded is not self._run:
            self.end_run()
            self._run, self._run_start = excluded, len(self.frames)
        if len(texts) == 1:  # as most often
            self.frames.append(text_frame(texts[0]))
        else:
            self.frames += text_frames(texts)

    def end_run(self) -> None:
        """Note whom the messages of a run leave out, before something else is put on the tape."""
        run = self._run
        if run is None:
            return
        start, end = self._run_start, len(self.frames)
        if self.is_kept:
            self._left_out.append((run, end - start))
        for connection in run:
            self._cut(connection).skip(start, end)
        self._run = None

    def leave_out(self, connection: int, frame: bytes) -> None:
        """The connection does not get this frame, if it is the last one of `frames`."""
        index = len(self.frames) - 1
        if index >= 0 and self.frames[index] is frame:
            self._is_plain = False
            self._cut(connection).skip(index, index + 1)

    def only(self, connections: Iterable[int], texts: Sequence[Text] = ()) -> None:
        """They go to these, present or not."""
        self._is_plain = False
        end, cuts = len(self.frames), self._cuts
        if not (end or cuts):
            private = self._private
            for connection in connections:
                if connection in private:
                    private[connection] += texts
                else:
                    private[connection] = [*texts]
            return
        self.end_run()
        for connection in connections:
            cut = cuts.get(connection) or self._cut(connection)
            if cut.start < end:
                cut.catch_up(end)
            cut.pieces += texts

    def splice(self, connection: int, pieces: Iterable[Text | SharedBatch]) -> None:
        """Goes to this one, present or not: texts, and batches that others get, too."""
        self.only((connection,))
        self._cut(connection).pieces += pieces

    def finish(self) -> tuple[SharedBatch | None, dict[int, Batch | None]]:
        """End the round: what everyone present gets, and who gets something else."""
        self.end_run()
        if self.frames or self._cuts:
            for connection in tuple(self._private):
                self._cut(connection)
        frames, cuts, private = self.frames, self._cuts, self._private
        left_out, is_plain = self._left_out, self._is_plain
        self.frames, self._cuts, self._private = [], {}, {}
        self._left_out, self._is_plain = [], True
        own: dict[int, Batch | None] = {}
        if not frames:
            for connection, cut in cuts.items():  # there is no tape to have ranges of
                pieces = cast("list[Text | SharedBatch]", cut.pieces)
                private[connection] = [text for piece in pieces for text in _texts(piece)]
            for connection, texts in private.items():
                if len(texts) == 1 and len(texts[0]) <= JOIN_BYTES_MAX:
                    own[connection] = Single(texts[0])
                else:
                    own[connection] = Batch(texts) if texts else None
            return None, own
        shared = SharedBatch(frames)
        if is_plain and self.is_kept:
            shared.left_out = left_out
        ends: list[int] = []  # made if somebody gets a part: often only the sender differs
        for connection, cut in cuts.items():
            cut.catch_up(len(frames))
            if cut.pieces:
                ends = ends or list(accumulate(map(len, frames), initial=0))
                own[connection] = _Spliced(shared, cut.pieces, ends)
            else:
                own[connection] = None
        return shared, own

    def _cut(self, connection: int) -> _Cut:
        cut = self._cuts.get(connection)
        if cut is None:
            cut = _Cut(0 if connection in self.present else _ABSENT)
            cut.pieces += self._private.pop(connection, ())
            self._cuts[connection] = cut
        return cut
