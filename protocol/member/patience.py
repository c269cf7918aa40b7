"""How long a peer goes on trying: when joining has taken too long, and when errors end the peer.

Permanent errors are those that another attempt cannot repair (`is_transient` is false). A peer that
was never present ends with the first one. A peer that has been present ends only after
`give_up_after_s` of nothing else, because tokens get renewed, and a proxy in front of a relay may
answer anything while the relay restarts.

While nobody answers, the peer tries again and again, seldom more than a few seconds apart
(lifecycle). Only where somebody answers and refuses it tries ever less often: with an error, or
with a close code of `REFUSES`. Each reason is told once (`AttemptFailed`), and the last one is what
joining ends with if it takes too long.

An id that somebody else has is tried again for `taken_for_s` in any case: perhaps that is only this
program's own last connection, which died unnoticed.
"""

import math
from collections.abc import Callable
from typing import Final

from protocol.instant import first_of
from protocol.limits import MembershipLimits
from protocol.member.effects import AttemptFailed, Effect, Ready
from protocol.member.errors import IdTaken, RelayError, Unreachable

REFUSES: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010, 1013})
"""The close codes with which a relay says no: a rule was broken, or there is no room."""
OWN_CODES: Final = range(4000, 5000)
"""Codes that whatever is in front of a relay may have of its own. They count as a no, too."""

TOLD_MAX: Final = 16
"""So many reasons are told once each; whatever is told beyond that is told again."""


def refuses(code: int) -> bool:
    """Whoever closed a connection with this code said no.

    >>> refuses(1008), refuses(1001)
    (True, False)
    """
    return code in REFUSES or code in OWN_CODES


class Patience:
    """The patience of one peer. `emit` takes the effects `Ready` and `AttemptFailed`."""

    def __init__(self, limits: MembershipLimits, *, emit: Callable[[Effect], None]) -> None:
        self.is_ready = False
        """The peer has joined, and the roster has come whole, or will never be said to have."""
        self._limits = limits
        self._emit = emit
        self._was_present = False
        self._failing_since: float | None = None  # with nothing but permanent errors
        self._is_taken = False  # all of them: somebody else has the id
        self._failure: RelayError | None = None  # the latest
        self._told: set[str] = set()  # since it was present last
        self._within_s = 0.0
        self._join_due: float | None = None
        self._ready_due: float | None = None  # from then on nobody will say that it is whole

    def begin(self, at: float, within_s: float | None) -> None:
        """The peer begins to join; `within_s` seconds are enough for that, None: any time is."""
        if within_s is not None:
            self._within_s, self._join_due = within_s, at + within_s

    def joined(self, at: float, since: float | None = None) -> None:
        """A connection has joined. A relay that knows no `capabilities` never says that the roster
        is whole: `probe_within_s` after `since` (None: after `at`) it counts as whole."""
        self._failing_since = None
        self._was_present = True
        self._told.clear()
        self._ready_due = (at if since is None else since) + self._limits.probe_within_s

    def passed(self) -> None:
        """An attempt has failed, and not with a permanent error."""
        self._failing_since = None

    def missed(self, error: Unreachable) -> None:
        """An attempt has failed because nobody answered; no permanent error is undone by that."""
        self._failure = error
        self._tell(error)

    def failed(self, error: RelayError, at: float, *, is_in_use: bool) -> bool:
        """An attempt has failed; `is_in_use`: another connection is there. True: give up."""
        gives_up = self._gives_up(error, at, is_in_use=is_in_use)
        if not gives_up:
            self._tell(error)
        return gives_up

    def _tell(self, error: RelayError) -> None:
        reason = str(error)
        news = reason not in self._told
        if news:
            if len(self._told) >= TOLD_MAX:
                self._told.clear()
            self._told.add(reason)
        self._emit(AttemptFailed(error, news))

    def _gives_up(self, error: RelayError, at: float, *, is_in_use: bool) -> bool:
        self._failure = error
        if error.is_transient:
            self._failing_since = None
            return False
        if is_in_use:
            return False
        is_taken = isinstance(error, IdTaken)
        if self._failing_since is None or is_taken is not self._is_taken:
            self._failing_since, self._is_taken = at, is_taken
        lasts_s = at - self._failing_since
        if is_taken:
            return lasts_s >= self._limits.taken_for_s
        return not self._was_present or lasts_s >= self._limits.give_up_after_s

    @property
    def last_attempt_at(self) -> float:
        """When (monotonic seconds) another attempt must be made at the latest, because it decides;
        infinite if none does."""
        if self._failing_since is None or not self._is_taken:
            return math.inf
        return self._failing_since + self._limits.taken_for_s

    def complete(self) -> None:
        """The roster is whole, or as complete as it will be."""
        if not self.is_ready:
            self.is_ready = True
            self._emit(Ready())

    def end(self) -> None:
        """The peer is over."""
        self._join_due = self._ready_due = None

    def deadline(self) -> float | None:
        """When (monotonic seconds) the waiting for the first joining is over; None if never."""
        if self.is_ready:
            return None
        return first_of(self._join_due, self._ready_due)

    def expire(self, at: float, *, is_in_use: bool) -> RelayError | None:
        """What is due: the peer is ready, if a connection is there (`is_in_use`), or it has been
        joining for too long. Returns the error to end with then: the latest, if there is one."""
        due = self.deadline()
        if due is None or due > at:
            return None
        if is_in_use:
            self.complete()
        elif due == self._join_due:
            sentence = (
                f"nobody has answered at this URL within {self._within_s:g} s; check host and "
                "port, and whether a firewall is in between"
            )
            return self._failure or Unreachable(sentence)
        else:
            self._ready_due = None  # that connection was lost; the next one has time of its own
        return None
