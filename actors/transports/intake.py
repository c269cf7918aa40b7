"""How fast one connection is read: so many frames and bytes a second, after a burst.

A connection that has read more than its burst is in *debt*: it rests, and what its peer sends waits
in the kernel and then with the peer. Nothing is lost.

Reading only counts; time counts when the burst is used up. So a read costs no look at a clock.
"""

from actors.transports.transport import Port
from protocol.limits import Limits


class Intake:
    """The budget of one connection. Times are monotonic seconds.

    `frames_until`: so many frames in all may be read before there is a debt. `bytes_left`: so many
    more bytes; whoever reads counts down. A negative number is a debt.
    """

    __slots__ = ("_counted_at", "_limits", "bytes_left", "frames_until")

    def __init__(self, limits: Limits, at: float) -> None:
        self._limits = limits
        self._counted_at = at
        self.frames_until: float = limits.frames_in_burst
        self.bytes_left: float = limits.bytes_in_burst

    def rest_s(self, frames: int, at: float, port: Port) -> float:
        """Seconds for which nothing may be read, after `frames` in all were read until `at`.

        Whoever is in debt also waits for a turn among all who are (`Port.turn_s`). That wait pays
        off nothing. A frame counts there for as many bytes as may come in its time.
        """
        limits = self._limits
        passed_s = max(0.0, at - self._counted_at)
        frames_left = self.frames_until - frames + passed_s * limits.frames_in_per_s
        bytes_left = self.bytes_left + passed_s * limits.bytes_in_per_s
        self.frames_until = frames + min(limits.frames_in_burst, frames_left)
        self.bytes_left = min(limits.bytes_in_burst, bytes_left)
        self._counted_at = at
        debt_s = max(-frames_left / limits.frames_in_per_s, -bytes_left / limits.bytes_in_per_s)
        if debt_s <= 0.0:
            return 0.0
        turn_s = port.turn_s(debt_s * limits.bytes_in_per_s, at)
        self._counted_at += max(0.0, turn_s - debt_s)
        return max(debt_s, turn_s)
