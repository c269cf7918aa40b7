"""RFC 6455 frames, and batches of them: what goes to one receiver in one write.

A batch is held by reference wherever it waits. The bytes that many receivers share are made once.
The frames of private messages are made when a socket takes them, and that of a short one does not
wait with it. So what waits for a receiver that does not read costs a few references, whatever its
size.
"""

import struct
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from protocol.envelope import TEXT_BYTES, Text

_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack
_HEADERS: Final = tuple(
    bytes((0x81, length)) if length < 126 else _MEDIUM(0x81, 126, length) for length in range(1024)
)
"""By the length of the text, for most texts."""

Buffer = bytes | memoryview

CHUNK_BYTES: Final = 2**18
"""A socket is given no more than this at once, and the next part when it takes more."""
JOIN_BYTES_MAX: Final = 8192
"""Up to this size a copy is cheaper than several buffers in one write."""
_TOGETHER: Final = 256
"""At most so many short texts are framed together."""
BUFFERS_MAX: Final = 64
"""More buffers than this in one write are joined: kernels limit their number."""


def text_frame(text: Text) -> bytes:
    """An unmasked, unfragmented RFC 6455 text frame.

    >>> text_frame(b"{}")
    b'\\x81\\x02{}'
    """
    length = len(text)
    if length < len(_HEADERS):  # as most: one call less
        return _HEADERS[length] + text
    return _header(length) + text


def text_frames(texts: Sequence[Text]) -> list[bytes]:
    """`text_frame` of each.

    >>> text_frames([b"{}"])
    [b'\\x81\\x02{}']
    """
    try:
        return [_HEADERS[len(text)] + text for text in texts]
    except IndexError:  # one is longer
        return list(map(text_frame, texts))


def frame_length(text: Text) -> int:
    """The length of `text_frame(text)`."""
    length = len(text)
    return length + (2 if length < 126 else 4 if length < 65536 else 10)


def frames_length(texts: Sequence[Text]) -> int:
    """The length of `text_frame` of all texts.

    >>> frames_length([b"{}", b""])
    6
    """
    lengths = list(map(len, texts))
    if max(lengths, default=0) < 126:
        return sum(lengths) + 2 * len(lengths)
    return sum(map(frame_length, texts))


def _places_of(frames: bytes) -> Iterator[tuple[int, int]]:
    """Where the text of each frame begins and ends, of frames as `text_frame` makes them."""
    at = 0
    while at < len(frames):
        length, start = frames[at + 1], at + 2
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(frames[at + 2 : start])
        at = start + length
        yield start, at


def ends_of(frames: bytes) -> Sequence[int]:
    """Where the frames begin, as `text_frame` makes them, and where the last one ends.

    >>> list(ends_of(text_frame(b"{}") + text_frame(b"")))
    [0, 4, 6]
    """
    return array("Q", (0, *(end for _, end in _places_of(frames))))


def text_of(frame: bytes) -> Text:
    """The text of one frame."""
    length = frame[1]
    return frame[2 if length < 126 else 4 if length == 126 else 10 :]


def texts_of(frames: bytes) -> list[Text]:
    """The texts of these frames.

    >>> texts_of(text_frame(b"{}") + text_frame(b""))
    [b'{}', b'']
    """
    return [frames[start:end] for start, end in _places_of(frames)]


def _header(length: int) -> bytes:
    if length < len(_HEADERS):
        return _HEADERS[length]
    return _MEDIUM(0x81, 126, length) if length < 65536 else _LONG(0x81, 127, length)


def frame_parts(text: Text) -> tuple[Buffer, ...]:
    """`text_frame(text)` in parts: a long text is not copied."""
    if len(text) <= JOIN_BYTES_MAX:
        return (text_frame(text),)
    return (_header(len(text)), text)


def parts_of(texts: Sequence[Text]) -> Iterator[Buffer]:
    """The frames of these texts, made as they are asked for: short ones together, and long ones are
    not copied."""
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        if sum(map(len, some)) <= CHUNK_BYTES // 4:
            yield b"".join(text_frames(some))
        else:
            for text in some:
                yield from frame_parts(text)


class Batch:
    """What one receiver gets from one round, in order. Immutable; receivers may share it.

    `count` is the number of messages, `size` their bytes as WebSocket frames.
    """

    __slots__ = ("_texts", "count", "size")

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self.count = len(texts)
        self.size = frames_length(texts)

    @property
    def wire(self) -> bytes | None:
        """All of it as WebSocket frames, if one buffer of at most `CHUNK_BYTES` has it, or easily
        could."""
        return None

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        return self._texts

    @property
    def first(self) -> Text:
        """The first message."""
        return self.texts[0]

    @property
    def last(self) -> Text:
        """The last message."""
        return self.texts[-1]

    @property
    def shared(self) -> "Sequence[SharedBatch]":
        """The batches whose bytes this one refers to."""
        return ()

    @property
    def own_texts(self) -> Iterable[Text]:
        """The messages that it holds beside those of `shared`."""
        return self._texts

    def behind(self, count: int) -> "Batch":
        """The same without the first `count` messages."""
        return Batch(self.texts[count:])

    def to_hold(self) -> "Batch":
        """The same messages, for one receiver that does not take them now: they keep little else
        alive."""
        return self

    def _parts(self) -> Iterator[Buffer]:
        yield from parts_of(self._texts)

    @property
    def buffers(self) -> list[Buffer]:
        """All of it as WebSocket frames, in one buffer or several. Made anew by each call."""
        return joined(list(self._parts()))

    def chunks(self) -> Iterator[list[Buffer]]:
        """The same in lists of at most `CHUNK_BYTES`, each made when it is asked for."""
        chunk: list[Buffer] = []
        room = CHUNK_BYTES
        for part in self._parts():
            if len(part) <= room:
                chunk.append(part)
                room -= len(part)
                continue
            rest = memoryview(part)
            while len(rest) > room:
                yield joined([*chunk, rest[:room]])
                rest = rest[room:]
                chunk, room = [], CHUNK_BYTES
            chunk.append(rest)
            room -= len(rest)
        if chunk:
            yield joined(chunk)


class Single(Batch):
    """One private message of at most `JOIN_BYTES_MAX`. It is common, and made in few steps."""

    __slots__ = ("_text", "wire")

    count = 1
    wire: bytes

    def __init__(self, text: Text) -> None:
        self._text = text
        self.wire = wire = text_frame(text)
        self.size = len(wire)

    @property
    def texts(self) -> Sequence[Text]:
        """The message."""
        return (self._text,)

    @property
    def own_texts(self) -> Iterable[Text]:
        """The message."""
        return (self._text,)

    def to_hold(self) -> Batch:
        """The message without its frame, which is a copy."""
        return Batch((self._text,))

    def _parts(self) -> Iterator[Buffer]:
        yield self.wire


class SharedBatch(Batch):
    """A batch that most receivers of a round share: its bytes are made once, in one buffer.

    `frames` is this buffer. `holders`: how many receivers hold it, or parts of it
    (actors/relay/ledger.py). `left_out`: who does not get which of the messages: so many behind one
    another, and the connections that do not get them. None if these are not all differences between
    receivers.
    """

    __slots__ = ("_last_bytes", "frames", "holders", "left_out", "wire")

    wire: bytes | None

    def __init__(self, frames: Sequence[bytes]) -> None:
        """`frames`: the frame of each message, as `text_frame` makes it."""
        self._texts = ()
        self.holders = 0
        self.left_out: Sequence[tuple[Collection[int], int]] | None = None
        self.count = len(frames)
        self.frames = frames[0] if self.count == 1 else b"".join(frames)
        self.size = len(self.frames)
        self.wire = self.frames if self.size <= CHUNK_BYTES else None
        self._last_bytes = len(frames[-1])

    @property
    def texts(self) -> Sequence[Text]:
        """The messages. They are only made for transports that ask for them, and then once."""
        if not self._texts:
            self._texts = texts_of(self.frames)
        return self._texts

    @property
    def held_bytes(self) -> int:
        """What it costs to hold it: the messages as frames, and as texts."""
        return 2 * self.size + TEXT_BYTES * self.count

    @property
    def shared(self) -> "Sequence[SharedBatch]":
        """Itself."""
        return (self,)

    def to_keep(self) -> "Frames":
        """The same messages for longer than a round."""
        return Frames(self)

    @property
    def last(self) -> Text:
        """The last message."""
        return text_of(self.frames[self.size - self._last_bytes :])

    @property
    def own_texts(self) -> Iterable[Text]:
        """None."""
        return ()

    def _parts(self) -> Iterator[Buffer]:
        yield self.frames

    @property
    def buffers(self) -> list[Buffer]:
        """All of it as WebSocket frames."""
        return [self.frames]


class Frames:
    """What `SharedBatch`es hold, for somebody who keeps it and rarely looks: one buffer of each,
    and not many small texts."""

    __slots__ = ("_buffers", "_last_bytes", "count")

    def __init__(self, batch: SharedBatch) -> None:
        self._buffers = [batch.frames]
        self._last_bytes = batch._last_bytes
        self.count = batch.count

    def put(self, batch: SharedBatch) -> None:
        """And what this one holds."""
        self._buffers.append(batch.frames)
        self._last_bytes = batch._last_bytes
        self.count += batch.count

    @property
    def frames(self) -> bytes:
        """The frames of all messages. Made anew by each call."""
        return b"".join(self._buffers)

    @property
    def last(self) -> Text:
        """The last message."""
        newest = self._buffers[-1]
        return text_of(newest[len(newest) - self._last_bytes :])

    @property
    def texts(self) -> Sequence[Text]:
        """The messages. Made anew by each call."""
        return texts_of(self.frames)


class Fragment(Batch):
    """A piece of one message, as a frame of its own. Only for transports that write frames."""

    __slots__ = ("_frame",)

    def __init__(self, piece: bytes, *, is_first: bool, is_last: bool) -> None:
        self._texts = ()
        self.count = 0
        frame = text_frame(piece)
        self._frame = bytes(((0x80 if is_last else 0) | is_first,)) + frame[1:]
        self.size = len(frame)

    def _parts(self) -> Iterator[Buffer]:
        yield self._frame

    @property
    def buffers(self) -> list[Buffer]:
        """The frame."""
        return [self._frame]


def joined(parts: list[Buffer]) -> list[Buffer]:
    """The parts, or one buffer instead, where that is cheaper to write."""
    if len(parts) > BUFFERS_MAX or sum(map(len, parts)) <= JOIN_BYTES_MAX:
        return [b"".join(parts)]
    return parts
