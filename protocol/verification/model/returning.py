"""Who may come back, and with which reasons a relay may say no (rule 19), read plainly."""

from dataclasses import dataclass
from typing import Any, Final

from protocol.verification.model.expected import Made
from protocol.verification.model.reading import Number

COUNT_MAX: Final = 2**53
NAME_CHARS_MAX: Final = 100


@dataclass(frozen=True)
class Open:
    """The messages count from the answer on, and its peer may come back within so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Report:
    """So many messages have arrived."""

    received: int


@dataclass(frozen=True)
class Resume:
    """A peer wants to go on with the connection of this token, behind its `received` messages."""

    token: str
    epoch: str
    received: int
    crc: int | None


Request = Open | Report | Resume


def request_of(data: Any) -> tuple[Request | None, set[str]]:
    """What the `data` of a `capabilities` asks for in this matter, and its faults."""
    if not isinstance(data, dict):
        return None, set()
    try:
        if "resume" in data:
            asked = data["resume"]
            if not isinstance(asked, dict):
                raise ValueError
            if "token" not in asked:
                return Open(_number(asked.get("seconds"), COUNT_MAX)), set()
            crc = asked.get("crc")
            return Resume(
                _name(asked["token"]),
                _name(asked.get("epoch")),
                _whole(asked.get("received"), COUNT_MAX),
                None if crc is None else _whole(crc, 2**32 - 1),
            ), set()
        if "received" in data:
            return Report(_whole(data["received"], COUNT_MAX)), set()
    except ValueError:
        return None, {"bad_field"}
    return None, set()


def _number(value: Any, most: int) -> float:
    if not isinstance(value, Number) or not 0 <= float(value.literal) <= most:
        raise ValueError
    return float(value.literal)


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, Number) or not value.literal.isdigit():
        raise ValueError
    if int(value.literal) > most:
        raise ValueError
    return int(value.literal)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NAME_CHARS_MAX:
        raise ValueError
    return value


@dataclass
class Resumption:
    """What a relay has to know of a connection that may come back.

    `taken`: the frames that came after it asked. `reported`: the messages that have arrived, as it
    said. `until`: its socket is gone, and it may come back until then (seconds).
    """

    seconds: float
    taken: int = 0
    reported: int = 0
    until: float = float("inf")


@dataclass(eq=False)
class Ticket(Made):
    """An answer with a token. With `opens` the messages behind it count; else the counts go on, and
    this answer is no part of them."""

    opens: bool = True


@dataclass(eq=False)
class Uncounted(Made):
    """An answer that is no part of the counts: its peer may not go on."""
