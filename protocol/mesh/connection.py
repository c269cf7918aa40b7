"""What a gate knows of one connection."""

import math

import attrs

from protocol.mesh.announcing import Announcements
from protocol.mesh.items import Admission
from protocol.mesh.lifecycle import Life


@attrs.define(eq=False)
class Connection:
    """One connection. Times are monotonic seconds.

    `peer`: the peer id that the mesh has accepted for it, None before that. `rate_due_at`: the
    state of the rate limit, the theoretical arrival time of the next message (GCRA).
    `announcements`: since the first presence. `admitted_bytes`: those of its longest announcement.
    """

    id: int
    life: Life
    heard_at: float
    is_paced: bool = False
    peer: str | None = None
    announcements: Announcements | None = None
    admitted_bytes: int = 0
    keepalive_pong: bool = False
    deadline_at: float = math.inf
    rate_due_at: float = -math.inf
    rate_error_at: float = -math.inf
    refusals: int = 0
    refusal_logged_at: float = -math.inf

    def ask_for_room(self, bytes: int, admit: Admission) -> None:
        """An announcement of so many bytes needs room for what it has more than the earlier ones.

        Raises Refusal.
        """
        known = 0 if self.peer is None else self.admitted_bytes
        if bytes > known and (refusal := admit(bytes - known)) is not None:
            raise refusal
        self.admitted_bytes = max(known, bytes)
