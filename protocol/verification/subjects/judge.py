"""The judge: compares what a subject did with what the model says, all along.

The order among connections is the relay's to choose, so the judge takes it from the subject. It
takes everything else from the model: what was decided must be what was sent, in the order of every
sender, and what came out must be what the model says, for every receiver, in order, nothing twice,
nothing lost, nothing beside.

What holds for a connection holds for the one that goes on with it. The judge plays the part of the
peer then: it counts what arrives, and sends again what the relay has not taken. So a peer that was
cut must receive exactly what it would have received without the cut.
"""

from collections import deque
from collections.abc import Sequence

from protocol.verification.model import (
    Closed,
    Disagreement,
    Expected,
    Message,
    Model,
    Permit,
    Resume,
    Roster,
    Ticket,
    Uncounted,
    Untouched,
    read,
)
from protocol.verification.subjects.counting import Counts, How
from protocol.verification.subjects.subject import Decision, Subject


class Judge:
    """Compares a subject with the model, all along."""

    def __init__(self, subject: Subject, *, strict: bool = False) -> None:
        self.subject = subject
        resumes = subject.can_resume and subject.limits.resume_s > 0
        self.model = Model(subject.limits, strict=strict, now=subject.now, resumes=resumes)
        self.sent: dict[int, deque[Message]] = {}
        self.left: set[int] = set()
        self._unnoticed: set[int] = set()  # of those: the relay cannot know it
        self._closed: set[int] = set()  # of those: it was told
        self._counts: dict[int, Counts] = {}
        self._otherwise: dict[int, tuple[Message, ...]] = {}
        self._again: dict[int, list[Message]] = {}
        self._to_say: list[tuple[int, tuple[Message, ...]]] = []
        self.transcript: list[tuple[int, bytes]] = []
        """What was received, with the connection, since somebody last cleared this."""
        self._expected: dict[int, deque[Expected]] = {}
        self._open: set[int] = set()  # of those: something is expected, or they are over
        self._ends: dict[int, int] = {}
        self._permits: dict[int, Permit | None] = {}  # of those not opened yet
        self._paced: set[int] = set()
        self._visits = 0  # that were not answered yet

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

    def visit(self, body: bytes, permit: Permit) -> None:
        """Somebody without a connection says this, and waits for the answer."""
        self._visits += 1
        self.subject.visit(body, permit)

    def close(self, c: int) -> None:
        """A peer closes, after what it sent."""
        if c not in self.left:
            self.left.add(c)
            self._closed.add(c)
            self.subject.close(c)

    def drop(self, c: int, cut: int = 0) -> None:
        """The network cuts a connection; `cut` says where, among what was on its way."""
        if c not in self.left:
            self.left.add(c)
            self.subject.drop(c, cut)

    def break_off(self, c: int, cut: int = 0) -> None:
        """The same, and the relay does not notice it."""
        if c not in self.left:
            self.left.add(c)
            self._unnoticed.add(c)
            self.subject.break_off(c, cut)

    def resume(
        self, c: int, old: int, how: How = "right", *, otherwise: tuple[Message, ...] = ()
    ) -> None:
        """On the connection `c` a peer wants to go on with `old`, in this way. If it may not, or
        cannot, it says what it says `otherwise`."""
        self.check()
        counts = self._counts.get(old)
        if counts is None or counts.token is None:
            self.send(c, *otherwise)
            return
        self._otherwise[c] = otherwise
        self.send(c, counts.ask(how))

    def report(self, c: int) -> None:
        """A peer says how many messages have arrived, if it counts them."""
        self.check()
        counts = self._counts.get(c)
        if counts is not None and counts.token is not None:
            self.send(c, counts.report())

    def settle(self) -> None:
        """Let everything happen that can happen without time or peers, and check it.

        Raises Disagreement if something was wrong, or somebody was not heard to the end.
        """
        self.subject.settle(self)
        while self.check():
            self.subject.settle(self)
        if self._visits:
            raise Disagreement(f"{self._visits} visitors were not answered")
        for c, connection in self.model.connections.items():
            if c in self.left:
                if c not in self._unnoticed and not self.model.is_lost(c):
                    raise Disagreement(f"connection {c} has gone, and nobody noticed")
                continue
            if c in self._ends:  # it lives on without its socket
                continue
            if self.sent[c]:
                raise Disagreement(f"connection {c} was not heard to its end: {self.sent[c]}")
            if connection.peer is not None and connection.peer not in self.model.peers:
                raise AssertionError("the model is wrong")

    def is_open(self, c: int) -> bool:
        """Neither end has closed, as far as its peer can know."""
        return c not in self.left and c not in self._ends and self.subject.closed_with(c) is None

    # Comparing ------------------------------------------------------------------------------------

    def check(self) -> bool:
        """Raise Disagreement if the subject did anything else than the model.

        True: because of what came out, peers have said something more.
        """
        self.follow()
        for c in sorted(self._open.union(self.subject.active())):
            if c in self._expected:
                self._compare(c)
        to_say, self._to_say = self._to_say, []
        for c, messages in to_say:
            self.send(c, *messages)
        return bool(to_say)

    def look(self) -> None:
        """Check what takes longer, too: what only this kind of subject promises."""
        self.check()
        self.subject.check(self)

    def follow(self) -> None:
        """Let the model do what the subject decided."""
        for decision in self.subject.decisions():
            old = self._follow(decision)
            for c, expected in self.model.take().items():
                for one in expected:
                    self._open.add(c)
                    if isinstance(one, Closed):
                        self._ends[c] = one.code
                    elif c in self._expected:  # or it is lost, and can come back no more
                        self._expect(c, one, decision.at)
            if old is not None:
                self._go_on(decision.connection, *old)

    def _expect(self, c: int, one: Expected, at: float) -> None:
        self._expected[c].append(one)
        if isinstance(one, Ticket) and one.opens:
            self._counts[c] = Counts()
        elif c in self._counts and not isinstance(one, (Ticket, Uncounted)):
            count = len(one.presences) if isinstance(one, Roster) else 1
            self._counts[c].decided_at += [at] * count

    def _go_on(self, c: int, old: int, ask: Resume) -> None:
        """`c` goes on with `old`: what that one has not received, this one must."""
        counts = self._counts[old]
        self._expected[c] += map(Untouched, counts.got[ask.received :])
        self._expected[c] += self._expected[old]
        self._open.add(c)
        self._counts[c] = counts.gone_on(ask)
        self._again[c] = [*self.sent[old]]

    def missing(self, c: int) -> int:
        """How many messages the connection must still receive."""
        return sum(
            len(one.presences) if isinstance(one, Roster) else 1
            for one in self._expected.get(c, ())
        )

    def _follow(self, decision: Decision) -> tuple[int, Resume] | None:
        """Let the model do it. If the connection goes on with another one: which, and how."""
        what, at, c, messages, cause, happened, other, permit, receipts = decision
        model = self.model
        model.now = at
        match what:
            case "opened":
                model.opened(c, self._permits.pop(c), is_paced=c in self._paced)
            case "received":
                if c not in model.connections:
                    return None
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
            case "lost":
                if c in self._closed and not model.is_asked_for(c):
                    raise Disagreement(f"connection {c} was closed, and is kept")
                model.lost(c, has_socket=c not in self.left or c in self._unnoticed)
            case "resumed":
                ask, _ = model.asked(c)
                model.resumed(c, other, self._faults(c)[0])
                return other, ask
            case "refused":
                certain, possible = self._faults(c)
                model.refused(c, certain | possible)
            case "ended":
                if c in model.connections:
                    self._check_end(c, cause)
                    model.ended(c, cause)
            case "elapsed":
                model.elapsed(happened, self.subject.late_s)
            case "visited":
                assert permit is not None
                [body] = messages
                assert body is not None
                self._visits -= 1
                self._check_receipts(model.visited(body, permit), receipts)
            case "shut_down":
                model.shut_down()
            case _:
                raise AssertionError(what)
        return None

    def _check_receipts(
        self, expected: Sequence[set[str] | int], receipts: Sequence[str | int]
    ) -> None:
        """Raise Disagreement unless a visitor was answered this."""
        if len(expected) != len(receipts) or not all(
            got in right if isinstance(right, set) else got == right
            for right, got in zip(expected, receipts, strict=True)
        ):
            raise Disagreement(f"a visitor was answered {receipts}, and not {expected}")

    def _faults(self, c: int) -> tuple[set[str], set[str]]:
        """What must, and what may, keep `c` from going on with the connection that it means."""
        ask, old = self.model.asked(c)
        if old is None:
            return set(), set()
        limits = self.model.limits
        kept_since = self.model.now - limits.resume_s - limits.reap_after_s
        return self._counts[old].faults(ask, max(kept_since, self.subject.forgotten_until()))

    def _check_end(self, c: int, cause: str) -> None:
        if cause == "left" and c not in self.left:
            raise Disagreement(f"connection {c} is said to have left; it is there")
        if cause == "left" and c not in self._closed and self.model.may_come_back(c):
            raise Disagreement(f"connection {c} was cut off, and is not kept")
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
            self._open.discard(c)
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
            self._open.discard(c)

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
            self._count(c, first, text)
            return
        assert not isinstance(first, Closed)
        if not first.accepts(text):
            raise Disagreement(f"connection {c}: expected {first}, received {text!r}")
        expected.popleft()
        self._count(c, first, text)

    def _count(self, c: int, accepted: Expected, text: bytes) -> None:
        """The part of the peer: this has arrived."""
        if isinstance(accepted, Ticket):
            resume = read(text)["data"]["resume"]
            counts = self._counts[c]
            counts.token, counts.epoch = resume["token"], resume["epoch"]
            self.model.learned(c, counts.token, counts.epoch)
            if not accepted.opens and (again := self._again.pop(c)):
                self._to_say.append((c, tuple(again)))
        elif isinstance(accepted, Uncounted):
            self._to_say.append((c, self._otherwise.pop(c, ())))
        elif c in self._counts and self._counts[c].token is not None:
            self._counts[c].got.append(text)
