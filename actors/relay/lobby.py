"""The lobby: connections of all meshes whose peers have not announced themselves.

There are at most `unannounced_max` of them in a process. One more, and the oldest has to go. So
whoever opens connections and says nothing cannot keep others out.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Set
from typing import Protocol, TypeVar

from actors.clock import Clock
from protocol.limits import Limits

log = logging.getLogger(__name__)


class Guest(Protocol):
    """A connection that waits in the lobby. Told by identity. `id`: its number now."""

    id: int

    def displaced(self) -> None:
        """It must go, unless its presence has arrived by now, or its wish to come back."""
        ...


AnyGuest = TypeVar("AnyGuest", bound=Guest)


def to_end(
    displaced: Iterable[AnyGuest],
    unserved: Set[AnyGuest],
    peer_of: Callable[[int], str | None],
) -> list[AnyGuest]:
    """Those of the displaced who are to end now: they have neither announced themselves nor come
    back. The `unserved` have said something, and nobody knows yet what: they are displaced again.

    `peer_of`: the peer of a connection.
    """
    leaving = []
    for guest in displaced:
        if guest in unserved:
            guest.displaced()
        elif peer_of(guest.id) is None:
            leaving.append(guest)
    return leaving


class Lobby:
    """Who has not announced itself, oldest first. Every method costs the same whoever is there."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._guests: OrderedDict[Guest, None] = OrderedDict()
        self._displaced = 0  # since the last log line
        self._logged_at = -math.inf

    def enter(self, guest: Guest) -> None:
        """A connection was opened. If there are too many now, the oldest is displaced."""
        self._guests[guest] = None
        if len(self._guests) > self._limits.unannounced_max:
            oldest, _ = self._guests.popitem(last=False)
            oldest.displaced()
            self._note()

    def leave(self, guest: Guest) -> None:
        """A connection has announced itself or come back, or is over. Calling it again changes
        nothing."""
        self._guests.pop(guest, None)

    def _note(self) -> None:
        self._displaced += 1
        at = self._clock.now().at
        if at - self._logged_at >= self._limits.refusal_log_every_s:
            log.warning("too many unannounced connections", extra={"displaced": self._displaced})
            self._displaced, self._logged_at = 0, at
