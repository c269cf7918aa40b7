"""When the presence of a peer that only sends heartbeats is said again, together with others.

Clients forget a peer that they do not hear of, so its presence is repeated (rule 9 in
docs/protocol.md). If each were repeated by itself, a mesh of `n` peers would make `n` writes for
each of them, `n²` in all. So a peer takes along all those whose time would come soon. From then on
they go together, and every receiver gets them in one write.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.roster import Peer

DUE: Final = 7 / 8
"""From this part of `presence_refresh_s` on a presence is due at the next heartbeat."""
SOON: Final = 6 / 8
"""From this part on it goes with another one."""
AT_ONCE_BYTES: Final = 2**18
"""More than this does not go at once. The rest goes at a heartbeat a little later."""
PAUSE: Final = 1 / 80
"""So much later, as a part of `presence_refresh_s`."""


class Refreshes:
    """The peers of one mesh that have sent a heartbeat since their presence was said."""

    def __init__(self, limits: Limits) -> None:
        self._due_s = limits.presence_refresh_s * DUE
        self._soon_s = limits.presence_refresh_s * SOON
        self._pause_s = limits.presence_refresh_s * PAUSE
        self._beaten: dict[str, Peer] = {}  # in the order of their heartbeats
        self._not_before = -math.inf

    def announced(self, peer: Peer) -> None:
        """Its presence was said, or it is gone."""
        self._beaten.pop(peer.id, None)

    def beat(self, peer: Peer, now: Instant) -> list[Peer]:
        """A heartbeat of this peer. Returns those whose presences are to be said again now."""
        self._beaten.setdefault(peer.id, peer)
        if now.at - peer.presence_at < self._due_s or now.at < self._not_before:
            return []
        together: list[Peer] = []
        bytes = 0
        for other in self._beaten.values():
            if now.at - other.presence_at < self._soon_s:
                continue
            if bytes > AT_ONCE_BYTES:
                self._not_before = now.at + self._pause_s
                break
            together.append(other)
            bytes += len(other.presence)
        return together

    def state(self) -> tuple[float, list[str]]:
        """What is known, for `restore`: not before when, and who has sent a heartbeat."""
        return self._not_before, list(self._beaten)

    def restore(self, not_before: float, beaten: Iterable[str], peers: Mapping[str, Peer]) -> None:
        """Know what another one knows. `peers`: those who are here, by id."""
        self._not_before = not_before
        self._beaten = {id: peers[id] for id in beaten}

    def clear(self) -> None:
        """Everybody has gone."""
        self._beaten.clear()
