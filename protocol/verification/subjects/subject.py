"""A relay as the machine and the simulation see it: what they tell it, and what it tells the judge.

A subject is told what peers do. It says two things: what it *decided*, in which order, and what
every connection received.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Protocol

from protocol.limits import Limits
from protocol.verification.model import Message, Model, Permit

Happened = tuple[Literal["announced", "dismissed", "closed"], int]
"""What the passing of time did to a connection: a held announcement was applied, it
was dismissed and gets nothing more, or it ended."""

Kind = Literal[
    "opened",
    "heard",
    "received",
    "ponged",
    "lost",
    "resumed",
    "refused",
    "ended",
    "elapsed",
    "shut_down",
    "fell_behind",
    "caught_up",
    "visited",
]
"""What a subject can decide. `heard`: something came in, and is not decided yet. `lost`: the socket
is gone, and the connection may come back. `resumed`, `refused`: it goes on with a lost one, or may
not."""


class Decision(NamedTuple):
    """One thing that a subject decided, at virtual time `at` (seconds).

    `messages`: what was `received`. `cause`: why the connection has `ended`, a key of the model's
    CLOSE_CODES. `happened`: what an `elapsed` did, in order. `other`: the connection with which a
    `resumed` one goes on. `permit`: what somebody without a connection may do who has `visited`,
    and `receipts` what was answered to each message: a code, or how many get it.
    """

    what: Kind
    at: float
    connection: int = 0
    messages: Sequence[Message] = ()
    cause: str = ""
    happened: Sequence[Happened] = ()
    other: int = 0
    permit: Permit | None = None
    receipts: Sequence[str | int] = ()


class Expectations(Protocol):
    """What a subject may ask of its judge."""

    model: Model
    """What must be true after the decisions that were followed so far."""

    def follow(self) -> None:
        """Let the model do what the subject decided since the last call."""

    def missing(self, c: int) -> int:
        """How many messages the connection must still receive."""


class Subject:
    """A relay under test. Connections are named by numbers that the caller chooses.

    A subject ignores what it is told about a connection that is over. Where a relay cannot follow a
    method, the flags say so, and the method does nothing.
    """

    limits: Limits
    has_time = False
    """Time passes when told to, and the rules about time are checked."""
    has_permits = False
    """What a connection may do can be said when it opens."""
    has_pace = False
    """Connections can be paced, and be told to be behind."""
    can_crash = False
    """`crash` does something."""
    can_resume = False
    """Connections may come back, and it is told what was decided about that."""
    has_visits = False
    """Something can be said without a connection."""
    is_immediate = True
    """What is done is decided at once: there is nothing to interleave."""
    late_s = 0.0
    """By how much a reap may be late (seconds)."""
    now = 0.0
    """Virtual time (seconds)."""

    def takes(self, c: int, message: Message) -> bool:
        """What comes of this message can be told without knowing the time."""
        return True

    # What peers and the world do ------------------------------------------------------------------

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        """A peer connects. `permit`: what its host lets it do; None: everything. `is_paced`: an
        edge limits its frames."""
        raise NotImplementedError

    def send(self, c: int, messages: Sequence[Message]) -> None:
        """A peer sends these, at once."""
        raise NotImplementedError

    def visit(self, body: bytes, permit: Permit) -> None:
        """Somebody without a connection says this: one message, or an array."""

    def close(self, c: int) -> None:
        """A peer closes, after what it sent."""
        raise NotImplementedError

    def drop(self, c: int, cut: int = 0) -> None:
        """The network cuts a connection; `cut` says where, among what was on its way."""
        self.close(c)

    def break_off(self, c: int, cut: int = 0) -> None:
        """The network cuts a connection as `drop` does, and the relay does not notice it."""
        self.drop(c, cut)

    def pong(self, c: int) -> None:
        """A peer answers a ping."""

    def stop_reading(self, c: int) -> None:
        """A peer takes nothing more for now."""

    def read_again(self, c: int) -> None:
        """It takes again."""

    def fall_behind(self, c: int) -> None:
        """So much waits for a connection that it is too far behind, if it can be."""

    def catch_up(self, c: int) -> None:
        """It is behind no more."""

    def crash(self, c: int, where: int = 0) -> None:
        """What serves a connection fails; `where` chooses among the places where it can."""

    def pass_time(self, seconds: float) -> None:
        """Time passes."""

    def shut_down(self) -> None:
        """The relay stops."""

    # Interleaving ---------------------------------------------------------------------------------

    def hand_over(self, choice: int) -> bool:
        """Let one of the things that could happen next happen. False if there is none."""
        return False

    def settle(self, judge: Expectations) -> None:
        """Let everything happen that can happen without time or peers."""

    # What it did ----------------------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """What it decided since the last call."""
        raise NotImplementedError

    def active(self) -> Collection[int]:
        """The connections whose peers may have received something since the last call of
        `received`."""
        raise NotImplementedError

    def received(self, c: int) -> Sequence[bytes]:
        """What the connection's peer received since the last call."""
        raise NotImplementedError

    def waiting(self, c: int) -> int | None:
        """Messages decided and not yet received, rightly. None: the rest may be lost."""
        return 0

    def closed_with(self, c: int) -> int | None:
        """The code with which the relay closed. None: it did not, or the peer went first."""
        raise NotImplementedError

    def check(self, judge: Expectations) -> None:
        """Raise Disagreement on what only this kind of subject promises."""

    def forgotten_until(self) -> float:
        """What was decided by then (seconds) may be forgotten, because it was too much to keep."""
        return float("-inf")

    def check_end(self, judge: Expectations, c: int, cause: str) -> None:
        """Raise Disagreement if it had no reason to end this connection."""

    def done(self) -> None:
        """The subject is not needed any more."""
