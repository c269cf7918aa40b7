"""Log lines that others can cause: at most one a second for each kind, and none is long."""

import logging
from typing import Final

from actors.clock import Clock

log = logging.getLogger("relay")

EVERY_S: Final = 1.0
"""Time between two lines of one kind."""

KINDS_MAX: Final = 64
"""So many kinds are told apart. There are fewer; more could only come from outside."""

FACT_CHARS_MAX: Final = 80
"""Characters of a fact that a client may have chosen."""


class Throttle:
    """Admits one event of each kind in `EVERY_S` seconds, and counts the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}  # when one was admitted, how many were not

    def admit(self, kind: str) -> int | None:
        """How many of this kind were kept back since the last one that was admitted. None: this one
        is kept back, too."""
        now = self._clock.now().at
        at, kept_back = self._kinds.get(kind, (-EVERY_S, 0))
        if now - at < EVERY_S:
            self._kinds[kind] = at, kept_back + 1
            return None
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return kept_back


class RefusalLog:
    """Logs what was refused: requests, and openings of WebSockets."""

    def __init__(self, clock: Clock) -> None:
        self._throttle = Throttle(clock)

    def tell(self, event: str, reason: str = "", **facts: object) -> None:
        """Log that something was refused, if no line of this event and reason was logged within
        the last second. `facts` go into the line; texts among them are shortened."""
        suppressed = self._throttle.admit(f"{event}: {reason}")
        if suppressed is None:
            return
        facts = {name: short(f) if isinstance(f, str) else f for name, f in facts.items()}
        if reason:
            facts["reason"] = reason
        if suppressed:
            facts["suppressed"] = suppressed
        log.warning(event, extra=facts)


def short(text: str, chars_max: int = FACT_CHARS_MAX) -> str:
    """A text that takes little room in a line of JSON: printable ASCII, and not much of it.

    >>> short("a" * 200, 5), short("gr\\u00fc\\x00n")
    ('aaaaa...', 'gr??n')
    """
    cut = text if len(text) <= chars_max else f"{text[:chars_max]}..."
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in cut)
