"""How a claim ends when it does not simply hold, and how what was seen is put into words."""

from protocol.verification.conformance.messages import Message


class Failed(Exception):
    """The promise is broken: what was `expected`, and what was `seen` instead.

    `was_closed`: what was seen is that the relay closed a connection.
    """

    def __init__(self, expected: str, seen: str, *, was_closed: bool = False) -> None:
        super().__init__(f"expected: {expected}; seen: {seen}")
        self.expected = expected
        self.seen = seen
        self.was_closed = was_closed


class Lacking(Exception):
    """The relay does without this extension. `seen` says by what that can be told."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(seen)
        self.expected = expected
        self.seen = seen


class NotApplicable(Exception):
    """This promise cannot be checked on this relay, or says nothing about it."""


def expect(kept: bool, expected: str, seen: object) -> None:
    """Raise Failed unless `kept`."""
    if not kept:
        raise Failed(expected, shown(seen))


def shown(seen: object) -> str:
    """`seen` in words, not too many of them."""
    if isinstance(seen, str):
        words = seen
    elif isinstance(seen, list | tuple):
        words = ", ".join(map(_one, seen)) or "nothing"
    else:
        words = _one(seen)
    return words if len(words) <= 300 else f"{words[:280]}... ({len(words)} characters)"


def _one(seen: object) -> str:
    return (seen.text or "an empty text") if isinstance(seen, Message) else repr(seen)
