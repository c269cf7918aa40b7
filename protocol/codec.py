"""Reads the header of a message from its text. Only this module knows what is malformed.

Reading is strict, because a text that one receiver's parser refuses would hurt every receiver: RFC
8259 and nothing more (no NaN, no BOM, no trailing comma), bounded nesting and bounded numbers. The
typed decoder reads the header fields. It checks the rest of the text without building objects.

Two things are worth knowing:

- If a key is there twice, the last one counts, as in every browser. So the receivers see what the
  relay has checked.
- A lone surrogate *escape* (`"\\ud83d"`) is valid JSON. Streams contain such escapes, because they
  cut emojis in two. The decoder refuses them. In this rare case the header is read from a copy of
  the text, in which each lone escape is replaced by another one of the same length. The text itself
  passes unchanged.
"""

import re
from functools import lru_cache
from itertools import accumulate

import msgspec

from protocol import refusals
from protocol.agents import Agent, agent_id
from protocol.envelope import Announcement, ErrorCode, Header, Refusal, Text
from protocol.limits import Limits


class _Announced(msgspec.Struct):
    data: dict[str, msgspec.Raw] | None = None


_decode_header = msgspec.json.Decoder(Header).decode
_decode_announced = msgspec.json.Decoder(_Announced).decode
decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_agent = msgspec.json.Decoder(float_hook=lambda _: 0.0).decode  # `1e999` is JSON too
_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_SURROGATES = re.compile(
    rb"(?<!\\)(?:\\\\)*+\\u[dD]"
    rb"(?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>[89a-fA-F][0-9a-fA-F]{2}))"
)
"""The escape of a pair of surrogates, or of a lone one, behind any escaped backslashes."""
MASK = "\ufffe"
_BETWEEN = b" \t\r\n,"


class Codec:
    """Reads messages within `limits`. Every reading method raises Refusal, and nothing else."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
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

    def announcement(self, text: Text) -> Announcement:
        """What the `data` of a presence or heartbeat says. It may be absent or null."""
        if len(text) > self._limits.presence_bytes_max:  # before it is taken apart
            raise refusals.presence_too_large(self._limits)
        text = without_lone_surrogates(text)
        try:
            data = _decode_announced(text).data
            if data is None:
                return Announcement(has_data=False)
            keepalive_pong = bytes(data.get("keepalive", b"")) == b'"pong"'
            batches = _accepts_batches(data.get("accept"))
            if "agents" not in data:
                return Announcement(None, keepalive_pong, accepts_batches=batches)
            listed = _decode_raw_list(data["agents"])
            if len(listed) > self._limits.agents_max:
                raise refusals.too_many_agents(len(listed), self._limits)
            agents = tuple(map(_agent, listed))
            return Announcement(agents, keepalive_pong, accepts_batches=batches)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            sentence = "`data` must be an object, and `data.agents` must be a list"
            raise Refusal(ErrorCode.BAD_FIELD, sentence) from error

    def batch(self, text: Text) -> list[Text]:
        """The messages of an array, each as it was written. An empty list if it is no array.

        Raises Refusal if there are more of them than may come at once.

        >>> Codec(Limits()).batch(b'[{"type":"ack"}, 3]')
        [b'{"type":"ack"}', b'3']
        """
        try:
            elements = _decode_raw_list(without_lone_surrogates(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        if len(elements) > self._limits.messages_burst:
            sentence = f"an array has at most {self._limits.messages_burst} messages"
            raise Refusal(ErrorCode.TOO_LARGE, sentence)
        batch, at = [], text.find(b"[") + 1
        for element in elements:  # their lengths tell their places; masks keep the lengths
            while text[at] in _BETWEEN:
                at += 1
            batch.append(text[at : at + len(bytes(element))])
            at += len(batch[-1])
        return batch

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
        masked = without_lone_surrogates(text)
        if masked is not text:
            try:
                header = _decode_header(masked)
            except (msgspec.DecodeError, RecursionError) as other:
                error = other
            else:
                names = (
                    header.type,
                    header.sender,
                    header.to,
                    header.instance_id,
                    header.target_instance_id,
                )
                if any(name is not None and MASK in name for name in names):
                    raise _surrogate_in_id() from error
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
        bare = None
        if text.count(b"[") + text.count(b"{") > limits.nesting_max:
            bare = _STRINGS.sub(b"", text)
            steps = memoryview(bare.translate(_STEPS, _NOT_BRACKETS)).cast("b")
            if max(accumulate(steps)) > limits.nesting_max:
                sentence = f"nested deeper than {limits.nesting_max} levels"
                raise Refusal(ErrorCode.MALFORMED, sentence)
        if len(text) > limits.number_digits_max and self._long_number in text.translate(_ZEROS):
            bare = _STRINGS.sub(b"", text) if bare is None else bare
            if self._long_number in bare.translate(_ZEROS):
                sentence = f"a number has more than {limits.number_digits_max} digits"
                raise Refusal(ErrorCode.MALFORMED, sentence)


def _accepts_batches(text: msgspec.Raw | None) -> bool:
    accepted = None if text is None else _decode_agent(text)
    return isinstance(accepted, list) and "batch" in accepted


def _agent(text: msgspec.Raw) -> Agent:
    announced = _decode_agent(text)
    id = agent_id(announced)
    if id is None:
        if isinstance(announced, dict):
            return Agent(None, bytes(text))  # passed on as it is; nobody can address it
        sentence = "an agent is a non-empty string, or an object with `agentId`, `id` or `name`"
        raise Refusal(ErrorCode.BAD_FIELD, sentence)
    if MASK in id:
        raise _surrogate_in_id()
    return Agent(id, bytes(text))


def _surrogate_in_id() -> Refusal:
    sentence = "ids and types must be Unicode text without lone surrogates"
    return Refusal(ErrorCode.BAD_FIELD, sentence)


def without_lone_surrogates(text: Text) -> Text:
    """`text`, or a copy in which the escape of a noncharacter replaces each lone surrogate."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    return _masked(text)


@lru_cache(maxsize=2)  # one text is asked for several times in a row
def _masked(text: Text) -> Text:
    return _SURROGATES.sub(
        lambda match: match[0][:-4] + b"fffe" if match.lastgroup == "lone" else match[0], text
    )
