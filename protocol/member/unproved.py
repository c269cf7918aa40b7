"""Joining a relay that does not send a presence back: other signs that it has taken the presence.

This project's relay sends a presence back before anything else. Other relays of the protocol do
not, or they never answer `capabilities`. A peer joins these, too, at the latest `probe_within_s`
after it has announced itself:

1. At half of that time it sends a direct to itself. If that arrives, the relay has decided the
   presence, which came before.
2. Else it counts as joined when the time is over, if the relay has said anything at all since then:
   a presence of somebody else, or an answer. Where nothing is heard there may be no relay.

What such a connection cannot do, because both need the peer's own presence in the order of all
messages: it is never replaced by another one while it is in use, and announcements count as taken
when they are sent.
"""

from typing import Final

from protocol.limits import MembershipLimits

ASKS_AT: Final = 0.5
"""The part of `probe_within_s` after which a peer sends a direct to itself."""

PROBE: Final = "probe"
"""The key in `data` that marks such a direct. No program is told of it."""


class Unproved:
    """A presence that was sent at monotonic time `at` (seconds), and has not come back."""

    def __init__(self, at: float, limits: MembershipLimits) -> None:
        self.at = at
        self.is_taken = False
        """It counts as taken, without having come back."""
        self.direct: str | None = None
        """The turn id of the direct to itself, once that was sent."""
        self._ask_due = at + ASKS_AT * limits.probe_within_s
        self._due = at + limits.probe_within_s
        self._has_heard = False

    def deadline(self) -> float | None:
        """When (monotonic seconds) something is due by itself; None: never."""
        if self.direct is None:
            return self._ask_due
        return self._due if self._has_heard and not self.is_taken else None

    def must_ask(self, at: float) -> bool:
        """It is time for the direct."""
        return self.direct is None and self._ask_due <= at

    def heard(self) -> None:
        """The relay has said something that is not about this presence."""
        self._has_heard = True

    def is_due(self, at: float) -> bool:
        """The presence counts as taken from now on."""
        return self._has_heard and self._due <= at
