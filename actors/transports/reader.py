"""Reads the WebSocket frames of a client from a stream of bytes (RFC 6455), without any I/O.

    messages = reader.read(data, frames_max)
    reader.pings, reader.pongs      payloads to answer, and answers
    reader.foreign                  a frame that the owner must judge: a close, or a violation

It reads what clients send all day: text and binary messages, fragments, pings and pongs. Every
frame costs about the same, and what is not complete is kept once, however many segments it comes
in. A message beyond its bound is dropped as it comes in; `Unreadable` stands in its place.
"""

import struct
from typing import Final

try:
    from websockets.speedups import apply_mask  # C, where there is a wheel for this machine
except ImportError:  # pragma: no cover
    from websockets.utils import apply_mask

from actors.transports.transport import binary_frame
from protocol.envelope import ErrorCode, Inbound, Unreadable

_FIN: Final = 0x80
_MASKED: Final = 0x80
_FINAL_TEXT: Final = 0x81
_MEDIUM: Final = struct.Struct("!HH4s").unpack_from
"""What is before a text of a middle length: what it is, its length, and its mask."""
_FINAL_MEDIUM_TEXT: Final = 0x81FE
_MEDIUM_MIN: Final = 126
_MEDIUM_MAX: Final = 2**16 - 1
"""The bytes of such a text."""
_DATA: Final = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82))
"""First bytes of frames that carry (parts of) messages, without reserved bits."""
_PING: Final = 0x89
_PONG: Final = 0x8A
_CONTROL_BYTES_MAX: Final = 125

PINGS_MAX: Final = 16
"""So many pings wait for their answers, the latest ones. (RFC 6455, section 5.5.3: the latest one
would be enough.)"""

PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007


class FrameReader:
    """The frames that one client sends, all of them masked. Give it an owner that closes.

    `frames`: how many have been read in all. `held`: bytes that are kept because something is not
    complete. `is_special`: there is more than messages to look at, or `held` has changed. `failed`:
    the close code for what broke the protocol in a way that only the reader sees; nothing is read
    after that, nor after `foreign`.
    """

    __slots__ = (
        "_bytes_max",
        "_data",
        "_fragments",
        "_is_text",
        "_is_too_large",
        "_needed",
        "_skip",
        "failed",
        "foreign",
        "frames",
        "has_more",
        "held",
        "is_special",
        "pings",
        "pongs",
    )

    def __init__(self, message_bytes_max: int) -> None:
        self._bytes_max = message_bytes_max
        self._data: bytes | bytearray = b""
        self._needed = 0  # bytes without which nothing is complete
        self._skip = 0  # bytes still to drop of a frame that is too large
        self._fragments: bytearray | None = None  # of the message that is coming
        self._is_text = False
        self._is_too_large = False
        self.frames = 0
        self.held = 0
        self.has_more = False
        self.is_special = False
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.foreign: bytes | None = None
        self.failed: int | None = None

    def _keep(self, data: bytes) -> None:
        """Put what came in behind what is kept."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if not self._data:
            self._data = data
        else:
            if self._data.__class__ is bytes:
                self._data = bytearray(self._data)
            self._data += data

    def read(self, data: bytes, frames_max: int) -> list[Inbound]:
        """`data` came in: the messages that are complete by now, in order.

        `has_more`: so many frames were read, and there is more; call it again, with no data.
        """
        size = len(data)
        if size > 8 and data[0] == _FINAL_TEXT and not (self._data or self._skip):
            # What comes most of all, one message alone, needs nothing of what follows below.
            length = data[1] - _MASKED
            start = 6
            if length == 126:
                length, start = data[2] << 8 | data[3], 8
            elif length == 127:
                length = -1  # it is long, and read below
            if length == size - start and length <= self._bytes_max and self._fragments is None:
                text = apply_mask(data[start:], data[start - 4 : start])
                if text.isascii() or is_utf8(text):
                    self.frames += 1
                    return [text]
        messages: list[Inbound] = []
        at, bound = 0, self._bytes_max
        if self._data or self._skip:
            self._keep(data)
            if len(self._data) < self._needed:
                self._hold(len(self._data))
                return messages
            data = bytes(self._data)
        elif self._fragments is None:
            at = _texts_in(data, bound, frames_max, messages)
        end = len(data)
        left = frames_max - len(messages)
        needed = 0
        while end - at >= 6 and left:
            first = data[at]
            length = data[at + 1] - _MASKED  # negative: not masked
            start = at + 6
            if length > 125:
                if length == 126:
                    start = at + 8
                    length = data[at + 2] << 8 | data[at + 3]
                else:
                    start = at + 14
                    length = int.from_bytes(data[at + 2 : at + 10])
                if end < start:
                    needed = start - at
                    break
            stop = start + length
            if first == _FINAL_TEXT and 0 <= length <= bound and self._fragments is None:
                if stop > end:
                    needed = stop - at
                    break
                text = apply_mask(data[start:stop], data[start - 4 : start])
                left -= 1
                at = stop
                if text.isascii() or is_utf8(text):
                    messages.append(text)
                    continue
                self.failed = INVALID_TEXT
                self.is_special = True
                break
            if length < 0 or not (
                first in _DATA or (first in (_PING, _PONG) and length <= _CONTROL_BYTES_MAX)
            ):
                # A close, or a violation of which the first bytes are enough.
                self.foreign = data[at : max(min(stop, end), at + 2)]
                if first == 0x88 and length <= _CONTROL_BYTES_MAX and stop > end:
                    self.foreign = None  # the rest of the close is still to come
                    needed = stop - at
                    break
                left -= 1
                at = min(stop, end) if length >= 0 else end
                self.is_special = True
                break
            if length <= bound and stop > end:
                needed = stop - at
                break
            left -= 1
            if length > bound:
                self._skip = max(0, stop - end)
                payload = None
            else:
                payload = apply_mask(data[start:stop], data[start - 4 : start])
            at = min(stop, end)
            if first == _PING:
                self.pings.append(payload or b"")
                if len(self.pings) > PINGS_MAX:
                    del self.pings[0]
                self.is_special = True
            elif first == _PONG:
                self.pongs.append(payload or b"")
                self.is_special = True
            else:
                self._part(first, payload, messages)
                if self.failed is not None:
                    self.is_special = True
                    break
        self.frames += frames_max - left
        if at == end and not (self._data or self.held) and self._fragments is None:
            return messages  # nothing is kept, nor was before, as nearly always
        self._needed = needed
        self._data = data[at:]
        self._hold(end - at)
        if not left and end - at >= 6:
            self.has_more = self.is_special = True
        return messages

    def _hold(self, bytes: int) -> None:
        held = bytes if self._fragments is None else bytes + len(self._fragments)
        if held != self.held:
            self.held = held
            self.is_special = True

    def _part(self, first: int, payload: bytes | None, messages: list[Inbound]) -> None:
        """A frame that carries a message or a part of one; `payload` None: it is too large."""
        is_beginning = first & 0x0F != 0
        if is_beginning is (self._fragments is not None):
            self.failed = PROTOCOL_ERROR  # a continuation of nothing, or a message inside another
            return
        if is_beginning:
            self._fragments = bytearray()
            self._is_text = first & 0x0F == 0x01
            self._is_too_large = False
        assert self._fragments is not None
        if payload is None or len(self._fragments) + len(payload) > self._bytes_max:
            self._is_too_large = True
            self._fragments.clear()
        elif not self._is_too_large:
            self._fragments += payload
        if not first & _FIN:
            return
        message, self._fragments = bytes(self._fragments), None
        if not self._is_text:
            messages.append(self._binary(message))
        elif self._is_too_large:
            sentence = f"a message has at most {self._bytes_max} bytes"
            messages.append(Unreadable(ErrorCode.TOO_LARGE, sentence))
        elif is_utf8(message):
            messages.append(message)
        else:
            self.failed = INVALID_TEXT

    def _binary(self, payload: bytes) -> Inbound:
        """What stands for a binary message: the protocol is text."""
        return binary_frame()


def _texts_in(data: bytes, bytes_max: int, frames_max: int, into: list[Inbound]) -> int:
    """Read as many frames as these begin with that are whole messages of a middle length, as most
    are, if all of them are UTF-8. Returns where the first other frame begins."""
    at, texts = 0, []
    end = min(len(data), frames_max * _MEDIUM_MIN)  # has no more than `frames_max` such frames
    last = end - 8
    while at < last:
        first, length, key = _MEDIUM(data, at)
        start = at + 8
        stop = start + length
        if first != _FINAL_MEDIUM_TEXT or length < _MEDIUM_MIN or stop > end:
            break
        texts.append(apply_mask(data[start:stop], key))
        at = stop
    if bytes_max < _MEDIUM_MAX and not all(len(text) <= bytes_max for text in texts):
        return 0
    if not all(map(bytes.isascii, texts)) and not all(map(is_utf8, texts)):
        return 0
    into += texts
    return at


def is_utf8(text: bytes) -> bool:
    """The bytes are UTF-8.

    >>> is_utf8(b"\\xc3\\xa9"), is_utf8(b"\\xc3")
    (True, False)
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
