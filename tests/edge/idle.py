"""When a session has been idle for too long, as others have measured it on live runtimes.

The platform asks `/ping` about every 2 s. Idle time is now minus the `time_of_last_update` of the
answer, whatever its status says. Without that field it counts from the last invocation. Whether
traffic on a WebSocket alone counts is documented, but nobody has measured it; here it does not.
"""

import json
from typing import Final

import attrs

POLL_EVERY_S: Final = 2.0
_LEFT_OUT: Final = 5.0  # a clock that jumps by so many polls has left some out


@attrs.frozen
class Health:
    """An answer of `/ping`. `updated_s`: its stamp (seconds since the epoch), if it has one."""

    status: str
    updated_s: float | None

    @classmethod
    def read(cls, body: bytes) -> "Health | None":
        """The answer, or None if it is none."""
        try:
            fields = json.loads(body)
        except ValueError:
            return None
        if not isinstance(fields, dict) or fields.get("status") not in ("Healthy", "HealthyBusy"):
            return None
        updated = fields.get("time_of_last_update")
        return cls(fields["status"], updated if isinstance(updated, int | float) else None)


class Idleness:
    """How long one session has been idle, on the clock of whoever calls (seconds).

    That clock may jump, so that tests need not wait; the session's process does not notice. So what
    happened in a jump is guessed: while somebody is connected, the stamp would have moved.

    `asked_at`: when the session was asked last. `stamp_s`: the latest stamp that it has answered.
    """

    def __init__(self, at: float) -> None:
        self._alive_at = self.asked_at = at
        self.stamp_s: float | None = None

    def invoked(self, at: float) -> None:
        """Somebody called the session: opened a connection."""
        if self.stamp_s is None:
            self._alive_at = at

    def is_due(self, at: float, every_s: float) -> bool:
        """It is time to ask again."""
        return at - self.asked_at >= every_s

    def polled(self, at: float, wall_s: float, health: Health | None, *, is_open: bool) -> float:
        """The session was asked. `wall_s`: the time by the clock of its machine. `is_open`:
        somebody is connected. Returns how long it has been idle."""
        jumped_s = at - self.asked_at
        self.asked_at = at
        if health is not None and health.updated_s is not None:
            if health.updated_s != self.stamp_s:
                self.stamp_s = health.updated_s
                self._alive_at = at - max(0.0, wall_s - health.updated_s)
            elif is_open and jumped_s > _LEFT_OUT * POLL_EVERY_S:
                self._alive_at += jumped_s
        return at - self._alive_at
