"""Connections that may come back: what they ask for, and the tokens with which they do.

A connection asks in `capabilities` (rule 19 in docs/protocol.md):

    data.resume: {"seconds": s}                             Open: be counted, and may come back
    data.received: h                                        Report: h messages have arrived
    data.resume: {"token", "epoch", "received", "crc"}      Resume: go on with a lost connection

What a returning connection missed is in the history of its mesh (protocol.mesh.history). Here is
which connection a token stands for, and how many frames of it have been taken. A token is good
once: it is used up when somebody shows it, whatever comes of that.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from protocol.codec import data_of, decode_object, decode_value
from protocol.envelope import ErrorCode, Refusal, Text
from protocol.mesh.numbers import COUNT_MAX, number, whole_number

TOKEN_CHARS_MAX: Final = 100


@attrs.frozen
class Open:
    """Count from here on; the connection may come back within so many seconds."""

    seconds: float


@attrs.frozen
class Report:
    """So many messages have arrived."""

    received: int


@attrs.frozen
class Resume:
    """Go on with the connection of this token, behind the first `received` messages.

    `crc`: the CRC-32 of the last of these, None if there is none.
    """

    token: str = attrs.field(repr=False)
    epoch: str
    received: int
    crc: int | None


Request = Open | Report | Resume


def read_request(text: Text) -> Request | None:
    """What a `capabilities` asks for. None: nothing of this kind. Raises Refusal.

    >>> read_request(b'{"type":"capabilities","data":{"resume":{"seconds":20}}}')
    Open(seconds=20.0)
    """
    try:
        data = data_of(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # `data` is no object: it says nothing
    try:
        if "resume" in data:
            fields = {
                name: decode_value(value) for name, value in decode_object(data["resume"]).items()
            }
            if "token" not in fields:
                return Open(float(number(fields.get("seconds"), COUNT_MAX)))
            received = whole_number(fields.get("received"))
            crc = fields.get("crc")
            return Resume(
                _name(fields["token"]),
                _name(fields.get("epoch")),
                received,
                None if crc is None else whole_number(crc, 2**32 - 1),
            )
        if "received" in data:
            return Report(whole_number(decode_value(data["received"])))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        sentence = "`data.resume` or `data.received` is not as rule 19 has it"
        raise Refusal(ErrorCode.BAD_FIELD, sentence) from error
    return None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= TOKEN_CHARS_MAX:
        raise ValueError
    return value


@attrs.define(eq=False)
class Resumption:
    """What a gate knows of a connection that may come back.

    `seconds`: how long it may be away. `taken`: the frames that came after it asked. `received`:
    how many messages have arrived, as it said last.
    """

    seconds: float
    token: str = attrs.field(repr=False)
    taken: int = 0
    received: int = 0


class Resumptions:
    """Those of one gate, by token. `seconds_max`: how long a connection may be away, at most.

    `new_token`: makes a text that nobody can guess.

    `epoch`: differs from that of every other gate, also after a restart.
    """

    def __init__(self, seconds_max: float, new_token: Callable[[], str]) -> None:
        self.epoch = new_token()
        self.seconds_max = seconds_max
        self._new_token = new_token
        self._connections: dict[str, int] = {}

    def open(self, connection: int, seconds: float) -> Resumption:
        """The connection may come back."""
        resumption = Resumption(min(seconds, self.seconds_max), "")
        self.renew(connection, resumption)
        return resumption

    def renew(self, connection: int, resumption: Resumption) -> None:
        """The connection has come back, or opens: with another token it may do so again."""
        self.close(resumption)
        resumption.token = self._new_token()
        self._connections[resumption.token] = connection

    def use(self, token: str) -> int | None:
        """The connection of a token, which is used up. None: nobody has this token."""
        return self._connections.pop(token, None)

    def close(self, resumption: Resumption) -> None:
        """The connection is over, or its token is."""
        self._connections.pop(resumption.token, None)
