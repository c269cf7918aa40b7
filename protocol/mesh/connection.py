"""What a gate knows of one connection."""

import math

import attrs

from protocol.mesh.announcing import Announcements
from protocol.mesh.lifecycle import Life


@attrs.define(eq=False)
class Connection:
    """One connection. Times are monotonic seconds.

    `peer`: the peer id that the mesh has accepted for it, None before that. `rate_due_at`: the
    state of the rate limit, the theoretical arrival time of the next message (GCRA).
    `announcements`: since the first presence.
    """

    id: int
    life: Life
    heard_at: float
    is_paced: bool = False
    peer: str | None = None
    announcements: Announcements | None = None
    keepalive_pong: bool = False
    deadline_at: float = math.inf
    rate_due_at: float = -math.inf
    rate_error_at: float = -math.inf
    refusals: int = 0
    refusal_logged_at: float = -math.inf
