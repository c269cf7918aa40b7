"""What may be expected of a connection, and whether a text that arrived is that."""

from dataclasses import dataclass, field
from typing import Any, Final

from protocol.verification.model.reading import LONE_SURROGATE, Number, read


class Disagreement(AssertionError):
    """A relay did something else than the rules say."""


# Values that the rules leave open, in whole or in part --------------------------------------------


class _Any:
    """A value that the rules leave open, within a kind."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __repr__(self) -> str:
        return f"<{self.what}>"


A_TIME: Final = _Any("an integer time")
A_SENTENCE: Final = _Any("a sentence")
AN_OBJECT: Final = _Any("an object")
A_NAME: Final = _Any("a name")


@dataclass(frozen=True)
class OneOf:
    """Any of these strings."""

    values: frozenset[str]


@dataclass(frozen=True)
class Amount:
    """This number, however it is spelled."""

    value: float


@dataclass(frozen=True)
class Maybe:
    """This value, or no such field."""

    value: Any


@dataclass(frozen=True)
class AtLeast:
    """An object with these fields, and perhaps others."""

    fields: dict[str, Any]


# What a connection receives -----------------------------------------------------------------------


@dataclass(eq=False)
class Untouched:
    """These bytes."""

    text: bytes

    def accepts(self, text: bytes) -> bool:
        """Is the text these bytes?"""
        return text == self.text


@dataclass(eq=False)
class Made:
    """This JSON value, in which some parts may be left open."""

    value: Any
    _accepted: bytes | None = field(default=None, repr=False)

    def accepts(self, text: bytes) -> bool:
        """Does the text say this value?"""
        if text == self._accepted:  # as a fan-out is: one text for many receivers
            return True
        try:
            got = read(text)
        except ValueError:
            return False
        if not matches(self.value, got):
            return False
        self._accepted = text
        return True


@dataclass(eq=False)
class Roster:
    """All of these, in any order."""

    presences: list["Untouched | Made"]


@dataclass(frozen=True)
class Closed:
    """The connection ends with this code. Nothing comes after it."""

    code: int


Expected = Untouched | Made | Roster | Closed


def matches(expected: Any, got: Any) -> bool:
    """Whether a value that was read is what was expected.

    >>> matches({"code": OneOf(frozenset({"a", "b"}))}, {"code": "b"})
    True
    """
    match expected:
        case AtLeast(fields):
            return isinstance(got, dict) and all(
                matches(value, got[name]) if name in got else isinstance(value, Maybe)
                for name, value in fields.items()
            )
        case dict():
            return (
                isinstance(got, dict)
                and got.keys() <= expected.keys()
                and matches(AtLeast(expected), got)
            )
        case list():
            return (
                isinstance(got, list)
                and len(got) == len(expected)
                and all(map(matches, expected, got))
            )
        case Maybe(value):
            return matches(value, got)
        case Amount(value):
            return isinstance(got, Number) and float(got.literal) == value
        case OneOf(values):
            return isinstance(got, str) and got in values
        case str():
            # Half an emoji may be replaced in a text that the relay has to write anew.
            return isinstance(got, str) and _whole(got) == _whole(expected)
    if expected is A_TIME:
        return isinstance(got, Number) and got.literal.isdigit()
    if expected is A_SENTENCE or expected is A_NAME:
        return isinstance(got, str) and bool(got)
    if expected is AN_OBJECT:
        return isinstance(got, dict)
    return bool(expected == got)


def _whole(text: str) -> str:
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffe", text)
