"""What comes in from the relay: reads a frame, and says what it costs to hold its messages.

Text of many small values takes much more memory once it is read: the 3 characters of `[],` become
80 bytes. So what waits in a peer is counted by what it costs about, which is estimated from the
text, in the same way in both languages:

- 1 byte for a character; 4 for each UTF-16 unit of a text that is not all ASCII, or may not be once
  its escapes are read.
- 64 bytes for each mark (`[`, `{`, `,` or `:`), because a value stands behind it. Marks in strings
  count as well, where they make little difference; else they are left out.
"""

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

import attrs
import msgspec

from protocol.limits import MembershipLimits

MARK_BYTES: Final = 64
"""What a mark costs."""
MARKS_FREE_BYTES: Final = 4096
"""Up to that, and up to 4 times the characters, marks in strings count like all others."""
INTEGER_DIGITS_MAX: Final = 4300
"""Python reads no longer integers; to a browser they are infinite."""

_decode = msgspec.json.Decoder().decode
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode

_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TOKENS = re.compile(rf"{_STRINGS.pattern}|[\[\]{{}}]", re.DOTALL)
_SPACE = " \t\r\n"
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes


class Nonsense(ValueError):
    """A frame that no relay of this protocol sends."""


@attrs.frozen
class Incoming:
    """A message, and the bytes that it costs about."""

    fields: Mapping[str, Any]
    size: int


@attrs.frozen
class Excess:
    """A message of which a peer reads nothing, in so many words, because it is above this bound."""

    what: str
    bound: int


def cost_of(text: str) -> int:
    """The bytes that the values of a JSON text cost about.

    >>> cost_of("[[],[]]"), cost_of('"ab"'), cost_of('"\u00e9"')
    (263, 4, 12)
    """
    size = len(text)
    if not text.isascii():
        size = 2 * len(text.encode("utf-16-le", "surrogatepass"))
    elif "\\u" in text:
        size *= 4
    marks = MARK_BYTES * _marks(text)
    if marks > MARKS_FREE_BYTES and marks > 4 * size:
        marks = MARK_BYTES * _marks(_STRINGS.sub("", text))
    return size + marks


def _marks(text: str) -> int:
    return text.count("[") + text.count("{") + text.count(",") + text.count(":")


def read_frame(text: str | bytes, limits: MembershipLimits) -> list[Incoming | Excess]:
    """The messages of one frame from the relay: an object, or an array of them. What costs more
    than `read_bytes_max`, or nests deeper than `nesting_max`, is an Excess.

    Raises Nonsense: it is no JSON of messages. All binary frames are nonsense.

    >>> read_frame('[{"type":"ack"}]', MembershipLimits())
    [Incoming(fields={'type': 'ack'}, size=142)]
    """
    if not isinstance(text, str):
        raise Nonsense("not JSON")
    cost = cost_of(text)
    if cost > limits.read_bytes_max:
        return [Excess("a frame that costs too much memory to read", limits.read_bytes_max)]
    is_deeper = _is_deeper(text, limits.nesting_max)
    if not text.lstrip(_SPACE).startswith("["):
        return [_too_deep(limits) if is_deeper else Incoming(_message(_parsed(text)), cost)]
    if is_deeper:
        return _read_deep_array(text, limits)
    messages = [_message(fields) for fields in _parsed(text)]
    return list(map(Incoming, messages, map(cost_of, _elements(text))))


def last_message(frame: str) -> str:
    """The last message of a frame that was read, to the letter.

    >>> last_message('[{"type":"a"}, {"type":"b"} ]')
    ' {"type":"b"} '
    """
    if not frame.lstrip(_SPACE).startswith("["):
        return frame
    until = frame[: frame.rindex("]")]
    last, shorter = _elements(frame)[-1], until.rstrip(_SPACE)
    before = shorter[: len(shorter) - len(last)].rstrip(_SPACE)
    return until[len(before) :]


def _read_deep_array(text: str, limits: MembershipLimits) -> list[Incoming | Excess]:
    """An array in which something nests too deep is read one by one."""
    read: list[Incoming | Excess] = []
    for element in _split(text):
        if _is_deeper(element, limits.nesting_max):
            read.append(_too_deep(limits))
        else:
            read.append(Incoming(_message(_parsed(element)), cost_of(element)))
    if not any(isinstance(one, Excess) for one in read):
        raise Nonsense("not JSON")  # what nests too deep has no end
    return read


def _too_deep(limits: MembershipLimits) -> Excess:
    return Excess("a message that nests too deep", limits.nesting_max)


def _message(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise Nonsense("JSON, but not a message: an object with a `type`")
    return fields


def _is_deeper(text: str, nesting_max: int) -> bool:
    """The text nests deeper. The array that a frame may be does not count."""
    if text.count("[") + text.count("{") <= nesting_max:
        return False
    brackets = _STRINGS.sub("", text).encode("utf-8", "replace").translate(_STEPS, _NOT_BRACKETS)
    spare = text.lstrip(_SPACE).startswith("[")
    return max(accumulate(memoryview(brackets).cast("b")), default=0) > nesting_max + spare


def _parsed(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:  # what is valid JSON to a browser, and the fast decoder does not know
        return json.loads(text, parse_constant=_no_json, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Nonsense("not JSON") from None


def _no_json(constant: str) -> Any:
    """NaN and the infinities, which Python's own decoder would take."""
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= INTEGER_DIGITS_MAX else float(digits)


def _elements(text: str) -> list[str]:
    """The texts of the elements of a valid array of objects."""
    try:
        return [str(bytes(raw), "utf-8") for raw in _decode_raw_list(text)]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _split(text)


def _split(text: str) -> list[str]:
    """The objects and arrays in an array, as texts."""
    found: list[str] = []
    depth = begin = 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == 2:
                begin = token.start()
        elif token[0] in "]}":
            depth -= 1
            if depth == 1:
                found.append(text[begin : token.end()])
    return found
