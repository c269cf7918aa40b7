"""A connection of a peer that can go on over another socket: what is counted, kept and said.

This is the peer's side of rule 19 in docs/protocol.md; the relay's is protocol/mesh/resuming.py.
One `Resuming` is one connection, over as many sockets as it takes. Both sides count: the relay the
frames of the peer, the peer the messages of the relay. So after a cut each can say how far it got.

| stage | a frame goes out | a message comes in | the socket is lost |
|---|---|---|---|
| OFF: not asked, refused, or over | - | - | OFF |
| ASKED: `ask` was sent | kept | - | OFF; what is kept is in doubt |
| OPEN: `offered` said yes | kept; in time a report | counted | AWAY |
| AWAY: no socket, until `deadline` | (none) | (none) | (none) |
| RETURNING: `come_back` was sent | (none) | only the answer | AWAY |

What ends it, in any stage: `stop`. After `uncountable` it goes on, but cannot come back. What leads
on:

    ASKED      offered with a token     OPEN     the frames behind the question are counted
    ASKED      offered without          OFF      nothing was promised, so nothing is in doubt
    OPEN       taken                    OPEN     so many frames are kept no longer
    RETURNING  came_back, resumed       OPEN     those not taken go again (`again`), before all else
    RETURNING  came_back, refused       OFF      what is kept, and not said to be taken, is in doubt
    AWAY       the deadline             OFF      what is kept is in doubt

The sender waits while `has_room` is false: what is kept is bounded, and only the relay's word ends
keeping it. A relay that gives a token, and then no answer although it says other things, is not
waited for longer than `silent_after_s`: then the connection cannot come back any more (`stop`).

What the program has said is kept apart (`said`), so that it can be told what is in doubt: it was
sent, and nobody knows whether it has arrived.
"""

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final
from zlib import crc32

import attrs

from protocol.limits import MembershipLimits
from protocol.member.incoming import last_message
from protocol.member.outgoing import bytes_of, positive, whole

REPORTS_MAX: Final = 16
"""So many reports are awaited at a time; the oldest are forgotten."""
NAME_CHARS_MAX: Final = 256
"""A longer token, or epoch, is none."""


class Stage(enum.Enum):
    """Where a connection is: the table above."""

    OFF = "off"
    ASKED = "asked"
    OPEN = "open"
    AWAY = "away"
    RETURNING = "returning"


@attrs.frozen
class Kept:
    """A frame with `count` messages of the queue that was sent. `said`: those that the program has
    said."""

    text: str
    size: int
    said: tuple[str, ...]
    count: int


class Resuming:
    """One connection. Times are monotonic seconds."""

    def __init__(self, limits: MembershipLimits) -> None:
        self.stage = Stage.OFF
        self.received = 0
        """So many messages have arrived."""
        self.taken = 0
        """So many frames the relay has taken, as it said last."""
        self.reason: str | None = None
        """Why it has not come back, or cannot: the relay's word; or `window` (the deadline was
        over), `unsupported` (the relay does not know how), `unanswered` (it was lost before the
        relay had said that it may), `uncounted`, or `broken` (what the relay says cannot be
        right, or it says nothing)."""
        self._limits = limits
        self._token: str | None = None
        self._epoch = ""
        self._seconds = 0.0
        self._kept: deque[Kept] = deque()
        self._again: deque[Kept] = deque()  # of these, what is to be sent again, and was not yet
        self._bytes = 0  # of both
        self._last = ""  # the frame with the last message that was counted
        self._unreported = 0  # frames behind the last report
        self._unreported_bytes = 0
        self._reports: deque[tuple[str, float]] = deque(maxlen=REPORTS_MAX)
        self._reported_at: float | None = None
        self._until: float | None = None

    @property
    def sent(self) -> int:
        """So many frames were sent, the same one once."""
        return self.taken + len(self._kept) + len(self._again)

    @property
    def has_room(self) -> bool:
        """Another frame may be sent."""
        frames = len(self._kept) + len(self._again)
        limits = self._limits
        return self.stage is Stage.OFF or (
            frames < limits.unconfirmed_frames_max and self._bytes < limits.unconfirmed_bytes_max
        )

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """What the program has sent, and the relay has not said it has taken, in order."""
        return tuple(text for kept in (*self._kept, *self._again) for text in kept.said)

    @property
    def waiting(self) -> int:
        """How many messages of the queue are to be sent again, as far as is known."""
        again = self._kept if self.is_away else self._again
        return sum(kept.count for kept in again) if again else 0

    @property
    def can_return(self) -> bool:
        """If its socket is lost now, it may come back."""
        return self.stage is Stage.OPEN and self._token is not None

    # Asking ---------------------------------------------------------------------------------------

    def ask(self) -> dict[str, Any] | None:
        """The connection is new. What to ask (`data.resume`); None: nothing."""
        if not self._limits.resume_s:
            return None
        self.stage = Stage.ASKED
        return {"seconds": self._limits.resume_s}

    def offered(self, resume: Any) -> None:
        """The relay has answered what was asked."""
        if self.stage is not Stage.ASKED:
            return
        self._take_offer(resume if isinstance(resume, dict) else {})
        if self._token is None:
            self.stop("unsupported")
        else:
            self.stage = Stage.OPEN

    def _take_offer(self, offer: Mapping[str, Any]) -> None:
        token, epoch = _name(offer.get("token")), _name(offer.get("epoch"))
        self._token = None if epoch is None else token
        self._epoch = epoch or ""
        seconds = positive(offer.get("seconds"))
        most = self._limits.resume_s
        self._seconds = most if seconds is None else min(most, seconds)

    def uncountable(self) -> None:
        """Nobody knows how many messages have arrived. So it cannot come back."""
        self._token, self.reason = None, "uncounted"

    def stop(self, reason: str = "broken") -> None:
        """It cannot come back any more. Nothing more is kept; what was kept stays in doubt, unless
        the relay has promised nothing."""
        self.stage, self.reason = Stage.OFF, reason
        if reason == "unsupported":
            self._kept.clear()
            self._bytes = 0
        self._reports.clear()
        self._until = None

    # Counting -------------------------------------------------------------------------------------

    def frame(self, text: str, said: Iterable[str] = (), count: int = 1) -> None:
        """A frame with so many messages of the queue goes out."""
        if self.stage in (Stage.ASKED, Stage.OPEN):
            self._keep(Kept(text, bytes_of(text), tuple(said), count))

    def _keep(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._bytes += kept.size
        self._unreported += 1
        self._unreported_bytes += kept.size

    def message(self, frame: str) -> None:
        """A message has arrived in this frame. The answers to `ask` and `come_back` do not count:
        they come before this stage."""
        if self.stage is Stage.OPEN:
            self.received += 1
            self._last = frame

    # Reporting ------------------------------------------------------------------------------------

    @property
    def report_due(self) -> float | None:
        """When it is time for a report, because many frames have gone out; None: not for now.

        0.0, which is at once, if it is the first; or if so much of what may be kept has gone out
        that sending would soon have to wait for the answer.
        """
        if self.stage is not Stage.OPEN or self._again:
            return None
        frames, limits = self._unreported, self._limits
        if (
            frames >= max(1, limits.unconfirmed_frames_max // 2)
            or self._unreported_bytes >= limits.unconfirmed_bytes_max // 2
        ):
            return 0.0
        if frames < limits.unreported_frames_max:
            return None
        return 0.0 if self._reported_at is None else self._reported_at + limits.report_every_s

    def report(self, turn_id: str, at: float) -> dict[str, Any] | None:
        """A report: what to say (`data`) under this turn id. None: there is nobody to tell."""
        if self.stage is not Stage.OPEN:
            return None
        self._reports.append((turn_id, at))
        self._reported_at = at
        self._unreported, self._unreported_bytes = -1, 0  # its own frame is in the answer
        return {"received": self.received}

    def is_report(self, turn_id: str) -> bool:
        """The answer to this report is awaited."""
        return any(turn_id == report for report, _ in self._reports)

    def reported(self, turn_id: str, taken: Any) -> bool:
        """The relay has answered a report. Returns whether something is kept no longer."""
        while self._reports and self._reports.popleft()[0] != turn_id:
            pass  # what is answered later has made it superfluous
        count = whole(taken)
        if self.stage is not Stage.OPEN or count is None or count < self.taken:
            return False
        if count > self.taken + len(self._kept):
            self.stop()
        else:
            self._drop(count)
        return True

    def _drop(self, count: int) -> None:
        for _ in range(count - self.taken):
            self._bytes -= self._kept.popleft().size
        self.taken = count

    def is_ignored(self, at: float) -> bool:
        """The relay has left a report without an answer for too long."""
        return bool(self._reports) and at - self._reports[0][1] > self._limits.silent_after_s

    # A lost socket --------------------------------------------------------------------------------

    def lost(self, at: float) -> bool:
        """The socket is gone. Returns whether the connection may come back; if not, what is in
        doubt is still there to be read."""
        self._reports.clear()
        self._kept.extend(self._again)
        self._again.clear()
        self._unreported, self._unreported_bytes = len(self._kept), self._bytes
        if self.stage is Stage.RETURNING:
            self.stage = Stage.AWAY
        elif self.can_return:
            self.stage, self._until = Stage.AWAY, at + self._seconds
        elif self.stage is not Stage.AWAY:
            if self.stage is Stage.ASKED:
                self.reason = "unanswered"
            self.stage = Stage.OFF
        return self.stage is Stage.AWAY

    @property
    def is_away(self) -> bool:
        """It has no socket, or not yet, and may come back."""
        return self.stage in (Stage.AWAY, Stage.RETURNING)

    def deadline(self) -> float | None:
        """When it cannot come back any more. While the relay is asked, it is waited for."""
        return self._until if self.stage is Stage.AWAY else None

    def expire(self, at: float) -> bool:
        """Returns whether the time is over. What is in doubt is still there to be read."""
        due = self.deadline()
        if due is None or due > at:
            return False
        self.stage, self.reason = Stage.OFF, "window"
        return True

    def come_back(self) -> dict[str, Any]:
        """A new socket is open. What to ask there, before anything else (`data.resume`)."""
        self.stage = Stage.RETURNING
        asked = {"token": self._token, "epoch": self._epoch, "received": self.received}
        if self.received:
            asked["crc"] = crc32(last_message(self._last).encode())
        return asked

    def came_back(self, resume: Any) -> bool:
        """The relay has answered. Returns whether the connection goes on; if not, `reason` says
        why, and what is in doubt is still there to be read."""
        if self.stage is not Stage.RETURNING:
            return False
        answer: Mapping[str, Any] = resume if isinstance(resume, dict) else {}
        taken = whole(answer.get("taken"))
        if taken is not None and not self.taken <= taken <= self.taken + len(self._kept):
            taken = None
        if answer.get("resumed") is not True:
            self.stage, self.reason = Stage.OFF, _name(answer.get("reason")) or "unsupported"
            self._drop(self.taken if taken is None else taken)
        elif taken is None:
            self.stage, self.reason = Stage.OFF, "broken"
        else:
            self._drop(taken)
            self._again, self._kept = self._kept, deque()
            self._unreported = self._unreported_bytes = 0
            self._until = None
            self._take_offer(answer)
            self.stage, self.reason = Stage.OPEN, None if self._token else "unsupported"
        return self.stage is Stage.OPEN

    @property
    def is_behind(self) -> bool:
        """There is something to be sent again, before anything that is new."""
        return bool(self._again)

    def again(self) -> Kept:
        """The next frame that is to be sent again. It goes out now."""
        kept = self._again.popleft()
        self._bytes -= kept.size
        self._keep(kept)
        return kept

    def peek(self) -> Kept:
        """The frame that `again` will give."""
        return self._again[0]


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= NAME_CHARS_MAX else None
