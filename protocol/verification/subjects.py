"""What is checked: a relay as a machine sees it, and the judge that compares it with the model.

A `Subject` is a relay under test. Three of them:

    CoreSubject     protocol.mesh.Mesh alone                            (here)
    LiveSubject     any relay at a WebSocket URL                        (here)
    ActorSubject    the supervisor and the peer actors, under a scheduler with virtual time
                    (tests/worlds/actor_subject.py: the protocol may not import the actors)

A subject is told what peers do, and says two things: what it *decided*, in which order, and what
every connection received. The order among connections is the relay's to choose, so the judge takes
it from the subject; everything else it takes from the model: what was decided must be what was
sent, in the order of every sender, and what came out must be what the model says, for every
receiver, in order, nothing twice, nothing lost, nothing beside.
"""

import contextlib
import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Sequence
from socket import SHUT_RDWR
from typing import Final, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from protocol.envelope import ErrorCode, Inbound, Unreadable
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Deliver,
    Dismissed,
    Effect,
    Everyone,
    Only,
    Others,
    Snapshot,
)
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.verification.model import (
    BINARY,
    Closed,
    Disagreement,
    Expected,
    Message,
    Model,
    Roster,
)

WALL_MS: Final = 1_700_000_000_000
"""The wall clock at virtual time 0."""


class Decision(NamedTuple):
    """One thing that a subject decided, at virtual time `at` (seconds).

    `what`: opened, received, ponged, ended, elapsed or shut_down. `closed`: whom an `elapsed`
    closed.
    """

    what: str
    at: float
    connection: int = 0
    messages: Sequence[Message] = ()
    cause: str = ""
    closed: Sequence[int] = ()


class Subject:
    """A relay under test. Connections are named by numbers that the caller chooses.

    What a connection that is over is told is ignored. Methods that a relay cannot follow say so in
    the flags, and do nothing.
    """

    limits: Limits
    has_time = False
    """Time passes when told to, and the rules about time are checked."""
    can_crash = False
    """`crash` does something."""
    is_immediate = True
    """What is done is decided at once: there is nothing to interleave."""
    late_s = 0.0
    """By how much a reap may be late (seconds)."""
    now = 0.0
    """Virtual time (seconds)."""

    # What peers and the world do ------------------------------------------------------------------

    def open(self, c: int) -> None:
        """A peer connects."""
        raise NotImplementedError

    def send(self, c: int, messages: Sequence[Message]) -> None:
        """A peer sends these, at once."""
        raise NotImplementedError

    def close(self, c: int) -> None:
        """A peer closes, after what it sent."""
        raise NotImplementedError

    def drop(self, c: int, cut: int = 0) -> None:
        """The network cuts a connection; `cut` says where, among what was on its way."""
        self.close(c)

    def pong(self, c: int) -> None:
        """A peer answers a ping."""

    def stop_reading(self, c: int) -> None:
        """A peer takes nothing more for now."""

    def read_again(self, c: int) -> None:
        """It takes again."""

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

    def settle(self, expected: "Judge") -> None:
        """Let everything happen that can happen without time or peers; `expected` judges."""

    # What it did ----------------------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """What it decided since the last call."""
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

    def check(self, judge: "Judge") -> None:
        """Raise Disagreement on what only this kind of subject promises."""

    def check_end(self, judge: "Judge", c: int, cause: str) -> None:
        """Raise Disagreement if it had no reason to end this connection."""

    def done(self) -> None:
        """The subject is not needed any more."""


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

    # What the caller lets peers do; the judge notes what will have to come of it -----------------

    def open(self, c: int) -> None:
        self.sent[c] = deque()
        self._expected[c] = deque()
        self.subject.open(c)

    def send(self, c: int, *messages: Message) -> None:
        if c in self.left:
            return
        self.sent[c].extend(messages)
        self.subject.send(c, messages)

    def close(self, c: int) -> None:
        if c not in self.left:
            self.left.add(c)
            self.subject.close(c)

    def drop(self, c: int, cut: int = 0) -> None:
        if c not in self.left:
            self.left.add(c)
            self.subject.drop(c, cut)

    def settle(self) -> None:
        """Everything that can happen without time or peers has happened, and was right."""
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
        what, at, c, messages, cause, closed = decision
        model = self.model
        model.now = at
        match what:
            case "opened":
                model.opened(c)
            case "received":
                if c not in model.connections:
                    return
                for message in messages:
                    if not self.sent[c] or self.sent[c].popleft() != message:
                        raise Disagreement(f"{c} was heard to say {message!r} out of its order")
                model.received(c, messages)
            case "ponged":
                model.ponged(c)
            case "ended":
                if c in model.connections:
                    self._check_end(c, cause)
                    model.ended(c, cause)
            case "elapsed":
                model.elapsed(closed, self.subject.late_s)
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


# The core -----------------------------------------------------------------------------------------


def as_inbound(message: Message) -> Inbound:
    """A message of the model as the core takes it."""
    return Unreadable(ErrorCode.BINARY, "a binary frame") if message is BINARY else message


class CoreSubject(Subject):
    """The protocol alone. It decides at once, and time is exact."""

    has_time = True
    can_crash = True

    def __init__(
        self, limits: Limits | None = None, *, strict: bool = False, now: float = 0.0
    ) -> None:
        self.limits = limits or Limits()
        self.now = now
        self.mesh = self.make_mesh(strict)
        self._present: set[int] = set()
        self._received: dict[int, list[bytes]] = {}
        self._closed: dict[int, int] = {}
        self._decisions: list[Decision] = []

    def make_mesh(self, strict: bool) -> LocalMesh:
        """What is checked. Here is the place for another one."""
        return LocalMesh(self.limits, strict=strict)

    @property
    def _instant(self) -> Instant:
        return Instant(self.now, WALL_MS + round(self.now * 1000))

    def open(self, c: int) -> None:
        self._received[c] = []
        self.mesh.opened(c, self._instant)
        self._decided(Decision("opened", self.now, c))

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if c not in self._closed:
            self.mesh.received(c, [as_inbound(message) for message in messages], self._instant)
            self._decided(Decision("received", self.now, c, messages))

    def close(self, c: int) -> None:
        self._end(c, Cause.LEFT)

    def crash(self, c: int, where: int = 0) -> None:
        self._end(c, Cause.CRASHED)

    def pong(self, c: int) -> None:
        self.mesh.ponged(c, self._instant)
        self._decided(Decision("ponged", self.now, c))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.mesh.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self._expire()
        self.now = until
        self._expire()

    def shut_down(self) -> None:
        self.mesh.shut_down(self._instant)
        self._decided(Decision("shut_down", self.now))

    def decisions(self) -> list[Decision]:
        decisions, self._decisions = self._decisions, []
        return decisions

    def received(self, c: int) -> list[bytes]:
        got = self._received[c]
        if got:
            self._received[c] = []
        return got

    def closed_with(self, c: int) -> int | None:
        return self._closed.get(c)

    def check(self, judge: Judge) -> None:
        seen = {
            peer.peer: (peer.state.value, peer.agents) for peer in self.mesh.status(self._instant)
        }
        if seen.keys() != judge.model.peers.keys():
            raise Disagreement(f"status shows {seen}, here are {[*judge.model.peers]}")
        for id, (state, _) in seen.items():
            if (state == "stale") != judge.model.is_stale(id):
                raise Disagreement(f"status shows peer {id} as {state}")

    def _end(self, c: int, cause: Cause) -> None:
        if c not in self._closed:
            self.mesh.ended(c, cause, self._instant)
            self._decided(Decision("ended", self.now, c, cause=cause.value))

    def _expire(self) -> None:
        self.mesh.expire(self._instant)
        effects = self.mesh.take_effects()
        closed = [effect.connection for effect in effects if isinstance(effect, Dismissed)]
        self._decisions.append(Decision("elapsed", self.now, closed=closed))
        self._carry_out(effects)

    def _decided(self, decision: Decision) -> None:
        self._decisions.append(decision)
        self._carry_out(self.mesh.take_effects())

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(text, Everyone()):
                    self._deliver(text, self._present)
                case Deliver(text, Others(excluded)):
                    self._deliver(text, self._present.difference(excluded))
                case Deliver(text, Only(connections)):
                    self._deliver(text, set(connections))
                case Snapshot(connection, presences):
                    for text in presences:
                        self._deliver(text, {connection})
                case Admitted(connection):
                    self._present.add(connection)
                case Dismissed(connection, _, code):
                    if connection in self._closed:
                        raise Disagreement(f"connection {connection} was closed twice")
                    self._present.discard(connection)
                    self._closed[connection] = code
                case _:
                    pass  # for logs

    def _deliver(self, text: bytes, connections: set[int]) -> None:
        for c in connections:
            if c in self._closed:
                raise Disagreement(f"connection {c} is closed, and was sent {text!r}")
            self._received[c].append(text)


# Any relay at a URL -------------------------------------------------------------------------------

_MARKER: Final = "verification-marker-"


class LiveSubject(Subject):
    """A relay at a WebSocket URL, this one or another. Time passes only really, so it is not told.

    What was sent is known to be decided when a question that came after it is answered: with
    `marker="capabilities"` by `capabilities_response` or an error; with `marker="direct"`, for
    relays without that type, a direct to oneself does it.

    `meshes`: the relay keeps meshes apart by `?mesh=NAME`, so this one gets a fresh name; else it
    relies on the relay being empty.
    """

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        *,
        meshes: bool = True,
        marker: str = "capabilities",
        patience_s: float = 5.0,
        settle_s: float = 0.02,
    ) -> None:
        self.limits = limits or Limits()
        self.url = url
        if meshes:
            self.url += ("&" if "?" in url else "?") + f"mesh={uuid.uuid4().hex}"
        self._marker = marker
        self._patience_s = patience_s
        self._settle_s = settle_s
        self._sockets: dict[int, ClientConnection] = {}
        self._stacks: dict[int, contextlib.ExitStack] = {}
        self._received: dict[int, list[bytes]] = {}
        self._peers: dict[int, str] = {}
        self._claimed: dict[int, str] = {}
        self._closed: dict[int, int] = {}
        self._not_reading: set[int] = set()
        self._decisions: list[Decision] = []
        self._numbers = itertools.count()

    def open(self, c: int) -> None:
        stack = self._stacks[c] = contextlib.ExitStack()
        self._sockets[c] = stack.enter_context(
            connect(self.url, compression=None, max_size=None, max_queue=None, proxy=None)
        )
        self._received[c] = []
        self._decisions.append(Decision("opened", 0.0, c))

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if c in self._closed or c not in self._sockets:
            return
        for message in messages:
            self._sockets[c].send(b"\x00" if message is BINARY else message.decode())
            self._note_claim(c, message)
            # One by one, because the relay may take them in several turns.
            self._decisions.append(Decision("received", 0.0, c, (message,)))
        self._ask(c)

    def close(self, c: int) -> None:
        self._go(c, cleanly=True)

    def drop(self, c: int, cut: int = 0) -> None:
        self._go(c, cleanly=False)

    def stop_reading(self, c: int) -> None:
        self._not_reading.add(c)

    def read_again(self, c: int) -> None:
        self._not_reading.discard(c)

    def settle(self, expected: Judge) -> None:
        expected.follow()
        for c in tuple(self._sockets):
            if c not in self._not_reading:
                deadline = time.monotonic() + self._patience_s
                self._ask(c)
                # What follows from a connection that went cannot be asked for, only waited for.
                while expected.missing(c) > len(self._received[c]) and c not in self._closed:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(self._settle_s)
                    self._ask(c)

    def decisions(self) -> list[Decision]:
        decisions, self._decisions = self._decisions, []
        return decisions

    def received(self, c: int) -> list[bytes]:
        if c in self._not_reading:
            return []
        got, self._received[c] = self._received[c], []
        return got

    def waiting(self, c: int) -> int | None:
        return None if c in self._not_reading or c not in self._sockets else 0

    def closed_with(self, c: int) -> int | None:
        return self._closed.get(c)

    def done(self) -> None:
        for c in tuple(self._sockets):
            self._go(c, cleanly=True)

    def _go(self, c: int, cleanly: bool) -> None:
        socket = self._sockets.pop(c, None)
        if socket is None:
            return
        if not cleanly:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(SHUT_RDWR)
        self._stacks.pop(c).close()
        time.sleep(self._settle_s)
        self._decisions.append(Decision("ended", 0.0, c, cause="left"))

    def _note_claim(self, c: int, message: Message) -> None:
        try:
            fields = json.loads(message or b"")
        except ValueError:
            return
        if isinstance(fields, dict) and fields.get("type") == "presence":
            self._claimed[c] = str(fields.get("from"))

    def _ask(self, c: int) -> None:
        """Everything that the relay had for `c` before it took this question is received."""
        name = f"{_MARKER}{next(self._numbers)}"
        question = {"type": self._marker, "turnId": name}
        if self._marker == "direct" and c in self._peers:
            question |= {"from": self._peers[c], "to": self._peers[c]}
            question["targetInstanceId"] = self._peers[c]
        socket = self._sockets[c]
        try:
            socket.send(json.dumps(question))
            while True:
                text = socket.recv(self._patience_s)
                if isinstance(text, bytes):
                    raise Disagreement(f"connection {c} received a binary frame: {text!r}")
                if _MARKER in text:
                    if name in text:
                        return
                    continue  # asked by another tab
                self._received[c].append(text.encode())
                self._note_own_presence(c, text)
        except ConnectionClosed as closed:
            self._closed[c] = closed.rcvd.code if closed.rcvd is not None else 1006
        except TimeoutError:
            raise Disagreement(f"connection {c} got no answer to {question}") from None

    def _note_own_presence(self, c: int, text: str) -> None:
        if c in self._claimed and c not in self._peers and '"presence"' in text:
            sender = json.loads(text).get("from")
            if sender == self._claimed[c]:
                self._peers[c] = sender
