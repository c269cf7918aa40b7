"""The judge: compares what a subject did with what the model says, all along.

The order among connections is the relay's to choose, so the judge takes it from the subject. It
takes everything else from the model: what was decided must be what was sent, in the order of every
sender, and what came out must be what the model says, for every receiver, in order, nothing twice,
nothing lost, nothing beside.
"""

from collections import deque

from protocol.verification.model import (
    Closed,
    Disagreement,
    Expected,
    Message,
    Model,
    Permit,
    Roster,
)
from protocol.verification.subjects.subject import Decision, Subject


class Judge:
    """Compares a subject with the model, all along."""

    def __init__(self, subject: Subject, *, strict: bool = False) -> None:
        self.subject = subject
        self.model = Model(subject.limits, strict=strict, now=subject.now)
        self.sent: dict[int, deque[Message]] = {}
        self.left: set[int] = set()
        self.transcript: list[tuple[int, bytes]] = []
        """What was received, with the connection, since somebody last cleared this."""
        self._expected: dict[int, deque[Expected]] = {}
        self._ends: dict[int, int] = {}
        self._permits: dict[int, Permit | None] = {}  # of those not opened yet
        self._paced: set[int] = set()

    # What the caller lets peers do; the judge notes what will have to come of it -----------------

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        """A peer connects; `c` is a number that was never used. `permit`, `is_paced`: as the
        subject has it."""
        self.sent[c] = deque()
        self._expected[c] = deque()
        self._permits[c] = permit
        if is_paced:
            self._paced.add(c)
        self.subject.open(c, permit, is_paced=is_paced)

    def send(self, c: int, *messages: Message) -> None:
        """A peer sends these at once, as far as the subject takes them. Nothing, if it has gone."""
        if c in self.left:
            return
        messages = tuple(m for m in messages if self.subject.takes(c, m))
        self.sent[c].extend(messages)
        self.subject.send(c, messages)

    def close(self, c: int) -> None:
        """A peer closes, after what it sent."""
        if c not in self.left:
            self.left.add(c)
            self.subject.close(c)

    def drop(self, c: int, cut: int = 0) -> None:
        """The network cuts a connection; `cut` says where, among what was on its way."""
        if c not in self.left:
            self.left.add(c)
            self.subject.drop(c, cut)

    def settle(self) -> None:
        """Let everything happen that can happen without time or peers, and check it.

        Raises Disagreement if something was wrong, or somebody was not heard to the end.
        """
        self.subject.settle(self)
        self.check()
        for c, connection in self.model.connections.items():
            if c in self.left:
                raise Disagreement(f"connection {c} has gone, and nobody noticed")
            if self.sent[c]:
                raise Disagreement(f"connection {c} was not heard to its end: {self.sent[c]}")
            if connection.peer is not None and connection.peer not in self.model.peers:
                raise AssertionError("the model is wrong")

    def is_open(self, c: int) -> bool:
        """Neither end has closed, as far as its peer can know."""
        return c not in self.left and c not in self._ends and self.subject.closed_with(c) is None

    # Comparing ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise Disagreement if the subject did anything else than the model."""
        self.follow()
        for c in tuple(self._expected):
            self._compare(c)

    def look(self) -> None:
        """Check what takes longer, too: what only this kind of subject promises."""
        self.check()
        self.subject.check(self)

    def follow(self) -> None:
        """Let the model do what the subject decided."""
        for decision in self.subject.decisions():
            self._follow(decision)
            for c, expected in self.model.take().items():
                for one in expected:
                    if isinstance(one, Closed):
                        self._ends[c] = one.code
                    else:
                        self._expected[c].append(one)

    def missing(self, c: int) -> int:
        """How many messages the connection must still receive."""
        return sum(
            len(one.presences) if isinstance(one, Roster) else 1
            for one in self._expected.get(c, ())
        )

    def _follow(self, decision: Decision) -> None:
        what, at, c, messages, cause, happened = decision
        model = self.model
        model.now = at
        match what:
            case "opened":
                model.opened(c, self._permits.pop(c), is_paced=c in self._paced)
            case "received":
                if c not in model.connections:
                    return
                for message in messages:
                    if not self.sent[c] or self.sent[c].popleft() != message:
                        raise Disagreement(f"{c} was heard to say {message!r} out of its order")
                model.received(c, messages)
            case "heard":
                model.heard(c)
            case "ponged":
                model.ponged(c)
            case "fell_behind":
                model.fell_behind(c)
            case "caught_up":
                model.caught_up(c)
            case "ended":
                if c in model.connections:
                    self._check_end(c, cause)
                    model.ended(c, cause)
            case "elapsed":
                model.elapsed(happened, self.subject.late_s)
            case "shut_down":
                model.shut_down()
            case _:
                raise AssertionError(what)

    def _check_end(self, c: int, cause: str) -> None:
        if cause == "left" and c not in self.left:
            raise Disagreement(f"connection {c} is said to have left; it is there")
        self.subject.check_end(self, c, cause)

    def _compare(self, c: int) -> None:
        expected = self._expected[c]
        subject = self.subject
        for text in subject.received(c):
            self.transcript.append((c, text))
            if not expected:
                raise Disagreement(f"connection {c} received, beside all it should: {text!r}")
            self._accept(c, expected, text)
        ended = c in self._ends
        waiting = subject.waiting(c)
        if waiting == 0 and not expected and not ended:  # as it nearly always is
            return
        if waiting is not None and waiting != self.missing(c):
            raise Disagreement(
                f"connection {c}: {self.missing(c)} messages have not come, {waiting} are on their "
                f"way; missing: {[*expected][:3]}"
            )
        code = self.subject.closed_with(c)
        if ended and c not in self.left and code is not None and code != self._ends[c]:
            raise Disagreement(f"connection {c} was closed with {code}, not {self._ends[c]}")
        if ended and (waiting is None or not expected):
            if code is None and c not in self.left and waiting is not None:
                raise Disagreement(f"connection {c} is over and was not closed")
            del self._expected[c]

    def _accept(self, c: int, expected: deque[Expected], text: bytes) -> None:
        first = expected[0]
        if isinstance(first, Roster):
            for presence in first.presences:
                if presence.accepts(text):
                    break
            else:
                raise Disagreement(f"connection {c}: expected {first}, received {text!r}")
            rest = [other for other in first.presences if other is not presence]
            expected.popleft()
            if rest:
                expected.appendleft(Roster(rest))
            return
        assert not isinstance(first, Closed)
        if not first.accepts(text):
            raise Disagreement(f"connection {c}: expected {first}, received {text!r}")
        expected.popleft()
