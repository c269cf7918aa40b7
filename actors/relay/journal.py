"""What happens in one mesh: comings, goings, refusals and failures, for the log and for observers.

There are names and counts, never contents.
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs

from protocol.instant import Instant
from protocol.mesh.effects import Dismissed, PeerJoined, PeerLeft, Refused, Spared
from protocol.mesh.lifecycle import Cause

log = logging.getLogger(__name__)

EVENTS_MAX: Final = 500
"""So many events are remembered, of all meshes together."""

_TOLD_OTHERWISE: Final = (Cause.LEFT, Cause.SHUTDOWN, Cause.CRASHED, Cause.EVICTED)
"""Ends of connections that need no event: of the first two nothing is to be said, the others are
failures."""


@attrs.frozen
class Event:
    """`n`: its number in this process. `at_ms`: Unix milliseconds. `what`: `joined`, `left`,
    `refused`, `spared` or `closed`. `why`: a cause, or the code of an error."""

    n: int
    mesh: str
    at_ms: int
    what: str
    peer: str | None = None
    connection: int | None = None
    why: str | None = None
    count: int | None = None


class Events:
    """The latest events of all meshes of a process."""

    def __init__(self) -> None:
        self.last = 0
        self._latest: deque[Event] = deque(maxlen=EVENTS_MAX)

    def add(self, mesh: str, now: Instant, what: str, **facts: str | int | None) -> None:
        """Something has happened. `facts`: further fields of the event."""
        self.last += 1
        self._latest.append(Event(self.last, mesh, now.wall_ms, what, **facts))  # type: ignore[arg-type]

    def after(self, n: int, mesh: str) -> Iterable[Event]:
        """Those of a mesh that are younger than event `n`, the oldest first."""
        if self.last > n:
            yield from (event for event in self._latest if event.n > n and event.mesh == mesh)


class Journal:
    """What happens in one mesh becomes lines of the log, and `events`."""

    def __init__(self, mesh: str, events: Events) -> None:
        self._mesh = mesh
        self._events = events

    def note(self, effect: PeerJoined | PeerLeft | Refused | Spared, now: Instant) -> None:
        """The mesh has decided this."""
        facts: dict[str, str | int | None]
        match effect:
            case PeerJoined(peer, connection, agents):
                facts = {"peer": peer, "connection": connection, "agents": agents}
                log.info("joined", extra={"mesh": self._mesh, **facts})
                self._event(now, "joined", peer=peer, connection=connection)
            case PeerLeft(peer, cause):
                log.info("left", extra={"mesh": self._mesh, "peer": peer, "cause": cause.value})
                self._event(now, "left", peer=peer, why=cause.value)
            case Refused(connection, peer, code, count):
                facts = {"peer": peer, "connection": connection, "count": count}
                log.warning("refused", extra={"mesh": self._mesh, "code": code.code, **facts})
                self._event(now, "refused", why=code.code, **facts)
            case Spared(connection, peer, count):
                facts = {"peer": peer, "connection": connection, "count": count}
                log.warning("spared", extra={"mesh": self._mesh, **facts})
                self._event(now, "spared", **facts)

    def dismissed(self, end: Dismissed, now: Instant) -> None:
        """The relay has ended a connection."""
        if end.cause not in _TOLD_OTHERWISE:
            self._event(now, "closed", connection=end.connection, why=end.cause.value)

    def failed(
        self,
        connection: int,
        peer: str | None,
        cause: Cause,
        error: BaseException | None,
        reason: str | None,
        *,
        now: Instant,
    ) -> None:
        """A connection had to end. `error`: the exception, if there was one."""
        facts: dict[str, object] = {"mesh": self._mesh, "connection": connection, "peer": peer}
        if reason is not None:
            facts["reason"] = reason
        log.warning(cause.value, extra=facts, exc_info=error)
        self._event(now, "closed", connection=connection, peer=peer, why=cause.value)

    def _event(self, now: Instant, what: str, **facts: str | int | None) -> None:
        self._events.add(self._mesh, now, what, **facts)
