"""A life: a subject lives through a history, and the judge looks after every event."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from protocol.limits import Limits
from protocol.verification.simulation.events import (
    Break,
    Close,
    ComeBack,
    Crash,
    Drop,
    Event,
    HandOver,
    OfConnection,
    Open,
    Pong,
    ReadAgain,
    Report,
    Send,
    Settle,
    ShutDown,
    StopReading,
)
from protocol.verification.simulation.peers import BURST
from protocol.verification.subjects import Judge, Subject

LIMITS: Final = Limits(
    messages_per_s=8.0,
    messages_burst=BURST,
    message_bytes_max=4096,
    presence_bytes_max=2048,
    agents_max=8,
    announcements_per_s=0.5,
    announcements_burst=2,
    wishes_max=4,
    mailbox_messages_max=40,
    quantum_messages=16,
    round_messages_max=256,
    inbox_messages_max=64,
)
"""Every duration as in production; the bounds small, so that histories reach them."""

LOOK_EVERY_S: Final = 60.0
"""How often what takes longer is checked, too (virtual seconds)."""

SubjectFactory = Callable[..., Subject]
"""Called with the limits, and `now=` seconds of virtual time."""


@attrs.frozen
class Life:
    """What came of a history.

    `events` and `deliveries` are counts up to the failure, or the end. `digest` is the sha256 of
    both in hexadecimal. `failure` says what was wrong, beginning with the name of the exception.
    """

    events: int
    deliveries: int
    digest: str
    failure: str | None = None


def play(history: Iterable[Event], subject: SubjectFactory) -> Life:
    """Let a subject live a history, and judge it after every event. Never raises."""
    living = _Living(subject)
    failure = None
    try:
        for event in history:
            living.happen(event)
        living.end()
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return Life(living.events, living.deliveries, living.digest.hexdigest(), failure)


class _Living:
    def __init__(self, make_subject: SubjectFactory) -> None:
        self.make_subject = make_subject
        self.events = 0
        self.deliveries = 0
        self.digest = hashlib.sha256()
        self._looked_at = 0.0
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self.subject = self.make_subject(LIMITS, now=now)
        self.judge = Judge(self.subject)
        self._known: set[int] = set()

    def happen(self, event: Event) -> None:
        """Let the time of the event come, and let it happen, if it still can."""
        self.digest.update(f"{event}\n".encode())
        self.events += 1
        if event.at > self.subject.now:
            self.subject.pass_time(event.at - self.subject.now)
            self.judge.check()
        match event:
            case ShutDown(at):
                self._start_again(at)
            case Settle(at):
                self.judge.settle()
                if at - self._looked_at >= LOOK_EVERY_S:
                    self._looked_at = at
                    _look(self.judge)
            case HandOver(choice=choice):
                self.subject.hand_over(choice)
                if not self.subject.is_immediate:
                    self.judge.check()
            case OfConnection():
                self._happen_to_a_connection(event)
                self.judge.check()
            case _:
                raise AssertionError(event)
        self._note()

    def _happen_to_a_connection(self, event: OfConnection) -> None:
        if isinstance(event, Open):
            self._known.add(event.c)
            self.judge.open(event.c)
            return
        if event.c not in self._known:
            return
        match event:
            case Close(c=c):
                self.judge.close(c)
            case Drop(c=c, cut=cut):
                self.judge.drop(c, cut)
            case Break(c=c, cut=cut):
                self.judge.break_off(c, cut)
            case ReadAgain(c=c):
                self.subject.read_again(c)
            case _ if not self.judge.is_open(event.c):
                pass  # what is about a connection that is not open any more does not happen
            case Send(c=c, messages=messages):
                self.judge.send(c, *messages)
            case ComeBack(c=c, old=old, how=how, otherwise=otherwise):
                self.judge.resume(c, old, how, otherwise=otherwise)
            case Report(c=c):
                self.judge.report(c)
            case Pong(c=c):
                self.subject.pong(c)
            case StopReading(c=c):
                self.subject.stop_reading(c)
            case Crash(c=c, where=where):
                self.subject.crash(c, where)
            case _:
                raise AssertionError(event)

    def _start_again(self, at: float) -> None:
        self.judge.settle()
        self.subject.shut_down()
        for c in self._known:
            self.subject.read_again(c)
        self.end()
        self.subject.done()
        self._begin(at)

    def end(self) -> None:
        """Everything that is on its way arrives."""
        self.judge.settle()
        self._note()

    def _note(self) -> None:
        for c, text in self.judge.transcript:
            self.digest.update(b"%d %d " % (c, len(text)))
            self.digest.update(text)
        self.deliveries += len(self.judge.transcript)
        self.judge.transcript.clear()


def _look(judge: Judge) -> None:
    """What takes longer: the subject's own promises, and invariants of the model itself."""
    judge.look()
    model = judge.model
    for c, connection in model.connections.items():
        if connection.peer is not None and connection.peer not in model.peers:
            raise AssertionError(f"connection {c} belongs to nobody")
    for id in model.peers:
        if not model.of(id):
            raise AssertionError(f"peer {id} has no connection")
