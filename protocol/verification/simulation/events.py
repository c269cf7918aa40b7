"""What can happen in a simulation: frozen values, each with its time.

An event prints itself as one line, and `parse` reads that line again. So the history that a failing
simulation prints is also what reproduces the failure (`simulate --replay FILE`).

>>> print(Send(12.5, 3, (b'{"type":"ack"}', BINARY)))
     12.50 s  send          3  (b'{"type":"ack"}', None)
>>> parse("12.50 s  send  3  (b'{\\"type\\":\\"ack\\"}', None)")
Send(at=12.5, c=3, messages=(b'{"type":"ack"}', None))
"""

import ast
from collections.abc import Iterable
from typing import ClassVar, Final, Self

import attrs

from protocol.verification.model import BINARY, Message
from protocol.verification.subjects.counting import How

__all__ = ["BINARY"]  # for the docstring's example


@attrs.frozen
class Event:
    """One thing that happens at virtual time `at` (seconds; a multiple of a hundredth)."""

    word: ClassVar[str] = ""
    """What the line of the event calls it."""

    at: float

    def earlier(self, seconds: float) -> Self:
        """The same event, this much earlier."""
        return attrs.evolve(self, at=self.at - seconds)

    def __str__(self) -> str:
        names = [field.name for field in attrs.fields(type(self))[1:]]
        values = [getattr(self, name) for name in names]
        shown = [
            f"{value:5}" if name == "c" else f"{value!r}"
            for name, value in zip(names, values, strict=True)
        ]
        return "  ".join([f"{self.at:10.2f} s", f"{self.word:8}", *shown]).rstrip()


@attrs.frozen
class Settle(Event):
    """Everything that is on its way arrives."""

    word = "settle"


@attrs.frozen
class HandOver(Event):
    """One of the things that are on their way arrives: the one with this number, counted round."""

    word = "hand"
    choice: int


@attrs.frozen
class ShutDown(Event):
    """The relay stops, and a new one starts empty."""

    word = "stop"


@attrs.frozen
class OfConnection(Event):
    """Something that happens to connection `c`, a number."""

    c: int


@attrs.frozen
class Open(OfConnection):
    """A peer connects."""

    word = "open"


@attrs.frozen
class Send(OfConnection):
    """A peer sends these messages, at once."""

    word = "send"
    messages: tuple[Message, ...]


@attrs.frozen
class Close(OfConnection):
    """A peer closes, after what it sent."""

    word = "close"


@attrs.frozen
class Drop(OfConnection):
    """The network cuts a connection; `cut` (0 to 9) says where, among what was on its way."""

    word = "drop"
    cut: int


@attrs.frozen
class Break(OfConnection):
    """The same, and the relay does not notice it."""

    word = "break"
    cut: int


@attrs.frozen
class ComeBack(OfConnection):
    """A peer wants to go on with connection `old`, on `c`, which is new. `how`: with the right
    counts and token, or with others. If it may not, it says what it says `otherwise`."""

    word = "back"
    old: int
    how: How
    otherwise: tuple[Message, ...]


@attrs.frozen
class Report(OfConnection):
    """A peer says how many messages have arrived."""

    word = "report"


@attrs.frozen
class Pong(OfConnection):
    """A peer answers a ping."""

    word = "pong"


@attrs.frozen
class StopReading(OfConnection):
    """A peer takes nothing more for now."""

    word = "stall"


@attrs.frozen
class ReadAgain(OfConnection):
    """It takes again."""

    word = "read"


@attrs.frozen
class Crash(OfConnection):
    """What serves a connection fails; `where` (0 to 9) chooses among the places where it can."""

    word = "crash"
    where: int


KINDS: Final[tuple[type[Event], ...]] = (
    Open,
    Send,
    Close,
    Drop,
    Break,
    ComeBack,
    Report,
    Pong,
    StopReading,
    ReadAgain,
    Crash,
    HandOver,
    Settle,
    ShutDown,
)
_BY_WORD: Final = {kind.word: kind for kind in KINDS}


def parse(line: str) -> Event:
    """The event that printed this line. Raises ValueError if none did."""
    try:
        at, _, word, *rest = line.split(maxsplit=3)
        kind = _BY_WORD[word]
        wanted = len(attrs.fields(kind)) - 1
        values = rest[0].split(maxsplit=wanted - 1) if wanted else rest
        return kind(float(at), *map(ast.literal_eval, values))
    except (ValueError, KeyError, TypeError, SyntaxError, IndexError) as error:
        raise ValueError(f"no event: {line!r}") from error


def parse_history(lines: Iterable[str]) -> list[Event]:
    """The events that these lines say, empty lines left out. Raises ValueError."""
    return [parse(line) for line in lines if line.strip()]
