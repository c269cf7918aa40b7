"""WebSocket frames (RFC 6455), and batches of them: what one receiver gets in one write."""

import struct
from collections.abc import Sequence
from typing import Final

from protocol.envelope import Text

_SHORT: Final = tuple(bytes((0x81, length)) for length in range(126))


_MEDIUM: Final = struct.Struct("!BBH").pack


_LONG: Final = struct.Struct("!BBQ").pack


Buffer = bytes | memoryview


def text_frame(text: Text) -> bytes:
    """An unmasked, unfragmented RFC 6455 text frame.

    >>> text_frame(b"{}")
    b'\\x81\\x02{}'
    """
    length = len(text)
    if length < 126:
        return _SHORT[length] + text
    if length < 65536:
        return _MEDIUM(0x81, 126, length) + text
    return _LONG(0x81, 127, length) + text


def frame_length(text: Text) -> int:
    """The length of `text_frame(text)`."""
    length = len(text)
    return length + (2 if length < 126 else 4 if length < 65536 else 10)


class Batch:
    """What one receiver gets from one round, in order. Immutable, so receivers may share it.

    `buffers` holds all of it as WebSocket frames, in one buffer or in several.
    """

    __slots__ = ("_texts", "buffers", "count")

    def __init__(self, texts: Sequence[Text]) -> None:
        self._texts = texts
        self.count = len(texts)
        self.buffers: list[Buffer] = [
            b"".join(map(text_frame, texts)) if len(texts) > 1 else text_frame(texts[0])
        ]

    @property
    def texts(self) -> Sequence[Text]:
        """The messages."""
        return self._texts


class Fragment(Batch):
    """A piece of one message, as a frame of its own. Only for transports that write `buffers`."""

    __slots__ = ()

    def __init__(self, piece: bytes, *, is_first: bool, is_last: bool) -> None:
        self._texts = ()
        self.count = 0
        frame = text_frame(piece)
        self.buffers = [bytes(((0x80 if is_last else 0) | is_first,)) + frame[1:]]
