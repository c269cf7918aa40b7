"""What connections have missed, as batches: whoever was away at the same time shares the bytes.

A thousand connections may come back at once, and each has missed a thousand messages. So what they
have missed is neither read nor framed nor copied for each of them: `Rounds` has the frames of
several rounds in one buffer, and a batch `Several` consists of references to such buffers, with the
few private messages of its receiver between them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final
from weakref import ref

from actors.frames import Batch, Buffer, Frames, SharedBatch, ends_of, text_of
from protocol.envelope import Text
from protocol.mesh.rounds import Joins


class _Texts(list[Text]):
    """A list that is not kept if nobody else holds it."""

    __slots__ = ("__weakref__",)


class Rounds(SharedBatch):
    """What went to everyone in several rounds, one behind the other."""

    __slots__ = ("_ends", "_read")

    def __init__(self, frames: bytes, count: int) -> None:
        self.frames = frames
        self.holders = 0
        self.left_out = None
        self.size = len(frames)
        self.wire = None  # it is never sent alone
        self.count = count
        self._ends: Sequence[int] = ()
        self._read: ref[_Texts] | None = None

    @classmethod
    def of(cls, rounds: "Sequence[Frames | Rounds]") -> "Rounds":
        """All of these."""
        first = rounds[0]
        if isinstance(first, Rounds) and len(rounds) == 1:
            return first
        count = sum(round.count for round in rounds)
        return cls(b"".join(round.frames for round in rounds), count)

    @property
    def ends(self) -> Sequence[int]:
        """The place of every message in `frames`, and the end. Most rounds are passed on whole."""
        self._ends = self._ends or ends_of(self.frames)
        return self._ends

    @property
    def texts(self) -> Sequence[Text]:
        """The messages. While somebody holds them, others get the same ones."""
        texts = None if self._read is None else self._read()
        if texts is None:
            texts = _Texts(map(self.text, range(self.count)))
            self._read = ref(texts)
        return texts

    @property
    def first(self) -> Text:
        """The first message."""
        return self.text(0)

    @property
    def last(self) -> Text:
        """The last message."""
        return self.text(self.count - 1)

    def text(self, number: int) -> Text:
        """One message."""
        return text_of(self.frames[self.ends[number] : self.ends[number + 1]])

    def behind(self, count: int) -> Batch:
        """The same without the first `count` messages."""
        return self.ranges([(count, self.count)])

    def ranges(self, ranges: Sequence[tuple[int, int]]) -> Batch:
        """Only these messages: each range has the number of its first, and of the next one."""
        return _Ranges(self, ranges)


class _Ranges(Batch):
    """Some of the messages of `Rounds`. No range is empty."""

    __slots__ = ("_ranges", "_read", "_rounds")

    def __init__(self, rounds: Rounds, ranges: Sequence[tuple[int, int]]) -> None:
        self._rounds = rounds
        self._ranges = ranges
        self._read: Sequence[Text] = ()
        ends = rounds.ends
        self.count = sum(end - start for start, end in ranges)
        self.size = sum(ends[end] - ends[start] for start, end in ranges)

    @property
    def texts(self) -> Sequence[Text]:
        """The messages. This batch holds all of the rounds' texts, so that others get the same."""
        self._read = all = self._rounds.texts
        return [text for start, end in self._ranges for text in all[start:end]]

    @property
    def first(self) -> Text:
        """The first message."""
        return self._rounds.text(self._ranges[0][0])

    def behind(self, count: int) -> Batch:
        """The same without the first `count` messages."""
        ranges = []
        for start, end in self._ranges:
            skipped = min(count, end - start)
            count -= skipped
            if start + skipped < end:
                ranges.append((start + skipped, end))
        return _Ranges(self._rounds, ranges)

    @property
    def shared(self) -> Sequence[SharedBatch]:
        """The rounds."""
        return (self._rounds,)

    @property
    def own_texts(self) -> Iterable[Text]:
        """None."""
        return ()

    def _parts(self) -> Iterator[Buffer]:
        frames, ends = memoryview(self._rounds.frames), self._rounds.ends
        for start, end in self._ranges:
            yield frames[ends[start] : ends[end]]


class Several(Batch):
    """Several batches for one receiver, one behind the other."""

    __slots__ = ("_batches", "_made", "_read")

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._made: Sequence[Buffer] | None = None
        self.count = sum(batch.count for batch in batches)
        self.size = sum(batch.size for batch in batches)
        self._read: list[Sequence[Text]] = []

    @property
    def texts(self) -> Sequence[Text]:
        """The messages. This batch holds them, so that others get the same ones."""
        self._read = self._read or [batch.texts for batch in self._batches]
        return list(chain.from_iterable(self._read))

    @property
    def shared(self) -> Sequence[SharedBatch]:
        """What all of them refer to."""
        return [shared for batch in self._batches for shared in batch.shared]

    @property
    def own_texts(self) -> Iterable[Text]:
        """What they hold beside that."""
        return chain.from_iterable(batch.own_texts for batch in self._batches)

    @classmethod
    def for_many(cls, batches: Sequence[SharedBatch]) -> "Several":
        """The same as a part of what several receivers get."""
        several = cls(batches)
        several._made = [batch.frames for batch in batches]
        return several

    def _parts(self) -> Iterator[Buffer]:
        if self._made is not None:
            return iter(self._made)
        return chain.from_iterable(batch._parts() for batch in self._batches)


JOINS: Final = Joins(Rounds.of, Several.for_many)
