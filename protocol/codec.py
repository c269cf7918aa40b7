"""Reads the header of a message from its text. Only this module knows what is malformed.

Reading is strict, because a text that one receiver's parser refuses would hurt every receiver: RFC
8259 and nothing more (no NaN, no BOM, no trailing comma), bounded nesting and bounded numbers. The
typed decoder reads the header fields. It checks the rest of the text without building objects.

Two things are worth knowing:

- If a key is there twice, the last one counts, as in every browser. So the receivers see what the
  relay has checked.
- A lone surrogate *escape* (`"\\ud83d"`) is valid JSON. Streams contain such escapes, because they
  cut emojis in two. The decoder refuses them. In this rare case the header is read from a copy of
  the text, in which each surrogate is replaced by another escape of the same length. The text
  itself passes unchanged.

A header costs a few passes over its text, whatever is in it: no step in Python is taken for a
string, an escape or a bracket.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from operator import add
from typing import Any, cast

import msgspec

from protocol import refusals
from protocol.agents import Agent, agent_id
from protocol.envelope import Announcement, ErrorCode, Header, Inbound, Refusal, Text
from protocol.limits import Limits
from protocol.nesting import depth, without_escaped_quotes
from protocol.subscribe import read_wish
from protocol.wish import EVERYTHING, Wish


class _Announced(msgspec.Struct):
    data: dict[str, msgspec.Raw] | None = None


class _Content(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()
    turn_id: msgspec.Raw = msgspec.field(name="turnId", default=msgspec.Raw())


_decode_header = msgspec.json.Decoder(Header).decode
_decode_announced = msgspec.json.Decoder(_Announced).decode
_decode_content = msgspec.json.Decoder(_Content).decode
decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_value = msgspec.json.Decoder(float_hook=float).decode  # `1e999` is JSON too
_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""The escape of a lone surrogate, in a text without escaped backslashes."""
MASK = "\ufffe"
_MASKS = ((b"\xc2\x80", b"\\ue", b"\\uE"), (b"\xc2\x81", b"\\uf", b"\\uF"))
"""Two ways to mask an escaped backslash, and what surrogates begin with. Where two masked copies
differ, there was one of these."""
_BETWEEN = b" \t\r\n,"
_BRACKET_BYTES = 8
"""Where depth must be found, a bracket costs about as much as so many bytes of plain text."""


_COUNTED_MAX = 4096
"""An array that may have at most so many elements is not read beyond them."""


@lru_cache(maxsize=4)
def _check_number(most: int) -> Callable[[bytes], object]:
    """Raises msgspec.ValidationError as soon as an array has more elements than this.

    A decoder of lists makes an object for each element first: for the 350 000 of a megabyte of
    `[[],[],...` it takes 55 MB and 40 ms.
    """
    fields = [(f"e{n}", msgspec.Raw, msgspec.Raw()) for n in range(most)]
    few = msgspec.defstruct("Few", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(few).decode


def content(text: Text) -> tuple[bytes, bool]:
    """What stands in `data`, to the letter, and whether there is a `turnId`. The text has a header.

    Without `data` it is empty. Of a text with lone surrogates it is what stands in two masked
    copies, if they differ: equal for equal data, and for no other.

    >>> content(b'{"type":"invoke", "data": {"n":  1}}')
    (b'{"n":  1}', False)
    """
    try:
        said = _decode_content(text)
        data = bytes(said.data)
    except (msgspec.DecodeError, RecursionError):
        said, other = (_decode_content(_masked(text, way)) for way in (0, 1))
        data = bytes(said.data)
        if data != bytes(other.data):
            data += bytes(other.data)
    return data, bytes(said.turn_id) not in {b"", b"null"}


def header_of(text: Text) -> Header:
    """The header of a message that `Codec.header` has read before."""
    return _decode_header(without_lone_surrogates(text))


class Codec:
    """Reads messages within `limits`. Every reading method raises Refusal, and nothing else.

    `extra_bytes`: how much more than plain text the texts have cost so far, in bytes of plain text.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.extra_bytes = 0
        self._long_number = b"0" * (limits.number_digits_max + 1)
        # A text this short can neither nest too deep nor hold a number that is too long.
        self._surely_flat = min(2 * limits.nesting_max, limits.number_digits_max)

    def header(self, text: Text) -> Header:
        """The header of a message. Checks the whole text, also the fields that are no header.

        >>> Codec(Limits()).header(b'{"type":"stream","from":"a","data":{"chunk":"hi"}}').sender
        'a'
        """
        try:
            if not text.isascii():
                text.decode()
            header = _decode_header(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            header = self._header_once_more(text, error)
        if len(text) > self._surely_flat:
            self._check_shape(text)
        return header

    def headers(self, texts: Sequence[Inbound]) -> list[Header]:
        """The headers of all these messages, for much less than `header` takes for each.

        Empty if something in them needs a closer look: then read them one by one.
        """
        if set(map(type, texts)) != {bytes}:
            return []
        texts = cast("Sequence[Text]", texts)
        limits, longest = self._limits, max(map(len, texts))
        if longest > min(limits.message_bytes_max, limits.number_digits_max):
            return []
        if longest > self._surely_flat:
            arrays, objects = (map(bytes.count, texts, repeat(each)) for each in (b"[", b"{"))
            if max(map(add, arrays, objects)) > limits.nesting_max:
                return []
        try:
            if not all(map(bytes.isascii, texts)):
                for text in texts:
                    text.decode()
            return list(map(_decode_header, texts))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []

    def announcement(self, text: Text, *, is_presence: bool = True) -> Announcement:
        """What the `data` of a presence or heartbeat says. It may be absent or null.

        A heartbeat says nothing about a wish, whatever stands there.
        """
        refusals.check_presence(text, self._limits)  # before it is taken apart
        text = without_lone_surrogates(text)
        try:
            data = _decode_announced(text).data
            if data is None:
                return Announcement(has_data=False)
            has_wish = is_presence and "subscribe" in data
            return Announcement(
                self._agents(data["agents"]) if "agents" in data else None,
                keepalive_pong=bytes(data.get("keepalive", b"")) == b'"pong"',
                accepts_batches=_accepts_batches(data.get("accept")),
                is_page=bytes(data.get("pageId", b"null")) != b"null",
                wish=self._wish(data["subscribe"]) if has_wish else EVERYTHING,
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            sentence = "`data` must be an object, and `data.agents` must be a list"
            raise Refusal(ErrorCode.BAD_FIELD, sentence) from error

    def _agents(self, text: msgspec.Raw) -> tuple[Agent, ...]:
        listed = _decode_raw_list(text)
        refusals.check_agents(len(listed), self._limits)
        values = decode_value(text)
        # (Most are plain names, and there may be hundreds: no call for those.)
        return tuple(
            Agent(value, bytes(text))
            if value.__class__ is str and value and MASK not in value
            else _agent(value, bytes(text))
            for value, text in zip(values, listed, strict=True)
        )

    def _wish(self, text: msgspec.Raw) -> Wish:
        wish = read_wish(decode_value(text), self._limits)
        if any(MASK in name for name in (*(wish.topics or ()), *(wish.types or ()))):
            raise _surrogate_in_id()
        return wish

    def elements(self, text: Text) -> list[msgspec.Raw]:
        """The elements of an array, for `texts`. An empty list if it is no array.

        Raises Refusal if there are more of them than may come at once.
        """
        text, most = _masked(text, 0), self._limits.messages_burst
        if not text.lstrip().startswith(b"["):
            return []
        try:
            if most <= _COUNTED_MAX and text.count(b",") >= most:
                _check_number(most)(text)
            elements = _decode_raw_list(text)
            if len(elements) <= most:
                return elements
        except msgspec.ValidationError:
            pass  # of `_check_number`: there are too many
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        raise Refusal(ErrorCode.TOO_LARGE, f"an array has at most {most} messages")

    def texts(self, text: Text, elements: Sequence[msgspec.Raw]) -> list[Text]:
        """The messages of an array, each as it was written: the first elements of this text.

        >>> codec, text = Codec(Limits()), b'[{"type":"ack"}, 3]'
        >>> codec.texts(text, codec.elements(text))
        [b'{"type":"ack"}', b'3']
        """
        texts, at = [], text.find(b"[") + 1
        for element in elements:  # their lengths tell their places; masks keep the lengths
            while text[at] in _BETWEEN:
                at += 1
            texts.append(text[at : at + len(bytes(element))])
            at += len(texts[-1])
        return texts

    def take_extra_bytes(self) -> int:
        """`extra_bytes` since the last call."""
        extra, self.extra_bytes = self.extra_bytes, 0
        return extra

    def turn_id(self, text: Text) -> msgspec.Raw | None:
        """The `turnId` as it was written, for the echo in an error. None if it cannot be read."""
        try:
            return decode_object(without_lone_surrogates(text)).get("turnId")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _header_once_more(self, text: Text, error: Exception) -> Header:
        """The slow path. A text with lone surrogates has a header; for all others raise Refusal."""
        if isinstance(error, UnicodeDecodeError):
            raise Refusal(ErrorCode.MALFORMED, "not UTF-8") from error
        masked = _masked(text, 0)
        if masked is not text:
            self.extra_bytes += 2 * len(text)
            try:
                header = _decode_header(masked)
            except (msgspec.DecodeError, RecursionError) as other:
                error = other
            else:
                if not all(name is None or name.isascii() for name in _names(header)):
                    twin = _decode_header(_masked(text, 1))
                    return _unmasked_header(header, twin)
                return header
        if isinstance(error, msgspec.ValidationError):
            if text.lstrip(b" \t\r\n").startswith(b"{"):
                raise Refusal(ErrorCode.BAD_FIELD, str(error)) from error
            try:
                _check_syntax(masked)
            except (msgspec.DecodeError, RecursionError) as syntax:
                error = syntax
            else:
                raise Refusal(ErrorCode.NOT_AN_OBJECT, "a message is a JSON object") from error
        raise Refusal(ErrorCode.MALFORMED, str(error)) from error

    def _check_shape(self, text: Text) -> None:
        """Check depth and digits. `text` is JSON already, so every string in it has an end."""
        limits = self._limits
        opening = text.count(b"[") + text.count(b"{")
        if opening > limits.nesting_max:
            self.extra_bytes += _BRACKET_BYTES * opening
            if depth(text) > limits.nesting_max:
                sentence = f"nested deeper than {limits.nesting_max} levels"
                raise Refusal(ErrorCode.MALFORMED, sentence)
        if len(text) > limits.number_digits_max and self._has_long_number(text):
            sentence = f"a number has more than {limits.number_digits_max} digits"
            raise Refusal(ErrorCode.MALFORMED, sentence)

    def _has_long_number(self, text: Text) -> bool:
        """There are too many digits in a row outside of strings."""
        zeros, is_in_string, at = text.translate(_ZEROS), False, 0
        while (found := zeros.find(self._long_number, at)) >= 0:
            quotes = without_escaped_quotes(text[at:found]).count(b'"')
            is_in_string ^= quotes % 2 == 1
            if not is_in_string:
                return True
            at = found + len(self._long_number)
        return False


def _accepts_batches(text: msgspec.Raw | None) -> bool:
    accepted = None if text is None else decode_value(text)
    return isinstance(accepted, list) and "batch" in accepted


def _agent(announced: Any, text: Text) -> Agent:
    id = agent_id(announced)
    if id is None:
        if isinstance(announced, dict):
            return Agent(None, text)  # passed on as it is; nobody can address it
        sentence = "an agent is a non-empty string, or an object with `agentId`, `id` or `name`"
        raise Refusal(ErrorCode.BAD_FIELD, sentence)
    if MASK in id:
        raise _surrogate_in_id()
    return Agent(id, text)


def _surrogate_in_id() -> Refusal:
    sentence = "ids, types and topics must be Unicode text without lone surrogates"
    return Refusal(ErrorCode.BAD_FIELD, sentence)


def _names(header: Header) -> tuple[str | None, ...]:
    return (
        header.type,
        header.sender,
        header.to,
        header.instance_id,
        header.target_instance_id,
    )


def _masked(text: Text, way: int) -> Text:
    """`text`, or a copy without surrogates and of the same length, in one of two ways."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    backslash, lower, upper = _MASKS[way]
    return text.replace(b"\\\\", backslash).replace(b"\\ud", lower).replace(b"\\uD", upper)


def _unmasked_header(one: Header, other: Header) -> Header:
    type, sender, to, instance, target = map(_unmasked, _names(one), _names(other))
    assert type is not None  # it was a string
    return Header(type, sender, to, instance, target, one.turn_id)


def _unmasked(one: str | None, other: str | None) -> str | None:
    """A name, as it is in a text masked in the one way and in the other. Raises Refusal."""
    if one is None or other is None or one == other:
        return one
    chars = (
        a if a == b else "\\" if a == "\x80" else chr(ord(a) - 0x1000)
        for a, b in zip(one, other, strict=True)
    )
    try:
        return "".join(chars).encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise _surrogate_in_id() from None


def data_of(text: Text) -> dict[str, msgspec.Raw]:
    """The members of `data`, as they were written; empty if it is absent or null.

    Raises msgspec.DecodeError if it is no object, and what else reading JSON may raise.
    """
    return _decode_announced(without_lone_surrogates(text)).data or {}


def without_lone_surrogates(text: Text) -> Text:
    """`text`, or a copy in which the escape of a noncharacter replaces each lone surrogate."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    return _without_lone(text)


@lru_cache(maxsize=2)  # one text is asked for several times in a row
def _without_lone(text: Text) -> Text:
    if b"\0" in text:  # no JSON, and it stays none
        return text
    plain = text.replace(b"\\\\", b"\0\0")
    return _LONE.sub(rb"\\ufffe", plain).replace(b"\0\0", b"\\\\")
