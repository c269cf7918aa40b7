"""What a gate knows of one connection."""

import math

import attrs

from protocol.claims import Claim
from protocol.envelope import ErrorCode, Refusal
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.mesh.announcing import Announcements
from protocol.mesh.items import Admission
from protocol.mesh.lifecycle import Life
from protocol.mesh.resuming import Resumption


@attrs.define(eq=False)
class Connection:
    """One connection. Times are monotonic seconds.

    `grant`: what it may do. `ends_at`, `ends_at_ms`: when it ends because its grant does, by either
    clock (Unix milliseconds). `claim`: with what it claims its peer's id, if it does. `peer`: the
    peer id that the mesh has accepted for it, None before that. `entering`: the one that it has
    announced while the mesh has not decided about that. `rate_due_at`: the state of the
    rate limit, the theoretical arrival time of the next message (GCRA). `said_at`: when it last
    said something; a pong is only heard. `announcements`: since the first presence.
    `admitted_bytes`: those of its longest announcement. `resumption`: if it may come back after its
    socket was lost. `recalls`: how many earlier messages it wants when it joins, if it asked.
    `received`: how many messages have come from it.
    """

    id: int
    life: Life
    heard_at: float
    is_paced: bool = False
    grant: Grant = OPEN
    said_at: float = -math.inf
    ends_at: float = math.inf
    ends_at_ms: float = math.inf
    claim: Claim | None = None
    peer: str | None = None
    entering: str | None = None
    announcements: Announcements | None = None
    admitted_bytes: int = 0
    resumption: Resumption | None = None
    recalls: int | None = None
    keepalive_pong: bool = False
    deadline_at: float = math.inf
    rate_due_at: float = -math.inf
    rate_error_at: float = -math.inf
    echo_error_at: float = -math.inf
    received: int = 0
    refusals: int = 0
    refusal_logged_at: float = -math.inf

    @property
    def speaks_as(self) -> str | None:
        """The peer for which it speaks, for all that is known here."""
        return self.peer or self.entering

    def has_run_out(self, now: Instant) -> bool:
        """Its grant has ended. The clock that is first counts: one may have stood still, and the
        other may have been set."""
        return now.at >= self.ends_at or now.wall_ms >= self.ends_at_ms

    def claims(self, claim: Claim) -> None:
        """It claims the id that it will announce. Raises Refusal.

        A connection claims once, so whoever guesses secrets needs a connection for each.
        """
        if self.speaks_as is not None:
            raise Refusal(ErrorCode.BAD_FIELD, "`data.claim` comes before the first presence")
        if self.claim not in (None, claim):
            sentence = "this connection has made another claim, and cannot change it"
            raise Refusal(ErrorCode.BAD_FIELD, sentence)
        self.claim = claim

    def ask_for_room(self, bytes: int, admit: Admission) -> None:
        """An announcement of so many bytes needs room for what it has more than the earlier ones.

        Raises Refusal.
        """
        known = 0 if self.speaks_as is None else self.admitted_bytes
        if bytes > known and (refusal := admit(bytes - known)) is not None:
            raise refusal
        self.admitted_bytes = max(known, bytes)
