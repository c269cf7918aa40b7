"""The supervisor and its peer actors under a deterministic scheduler, for verification.

The actors are synchronous state machines: everything that can happen between two of them is one
call of `Supervisor.turn` or of a `PeerActor`'s port. So a scheduler is the choice of the next call,
and `hand_over(choice)` is that choice: messages reach the peer actor one by one or together, the
supervisor has its round now or later, a socket takes more now or later, a close is noticed now or
later. Time is virtual, and ticks are where the supervisor's own task would have them.

What is checked beside the rules: nothing that a peer actor took is lost or heard twice, only peers
whose mailbox is full are evicted, only what was made to crash is said to have crashed, and the
bytes on the wire are whole WebSocket frames wherever a connection is cut.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from actors.clock import SystemClock
from actors.frames import Batch
from actors.link import ABNORMAL
from actors.relay.control import Lagging
from actors.relay.peer import PeerActor
from actors.relay.supervisor import TICK_S, Supervisor
from actors.relay.visits import VisitActor
from actors.transports.transport import Port
from protocol.envelope import Inbound
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import Effect, Returning
from protocol.mesh.history import History
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.visiting import Rates, Visit
from protocol.verification.model import BINARY, Disagreement, Message, Permit
from protocol.verification.subjects import (
    WALL_MS,
    Decision,
    Expectations,
    Expiry,
    Subject,
    as_grant,
    as_inbound,
    as_told,
)


class RecordingMesh(LocalMesh):
    """A mesh that notes what it is told, in order, and fails where it is asked to."""

    def __init__(self, limits: Limits, *, strict: bool = False) -> None:
        numbers = itertools.count(1)
        super().__init__(limits, strict=strict, new_token=lambda: f"token {next(numbers)}")
        self.decisions: list[Decision] = []
        self.crashing: set[int] = set()
        self.paced: set[int] = set()
        self.permits: dict[Visit, Permit] = {}
        self._decide_visit = self.visits.decide
        self.visits.decide = self._visited  # type: ignore[method-assign]
        self._done: list[Effect] = []
        self._expiry = Expiry(self)
        self._come_back, self._stay_away = self.returns.come_back, self.returns.stay_away
        self.returns.come_back = self._resumed  # type: ignore[method-assign,assignment]
        self.returns.stay_away = self._refused  # type: ignore[method-assign]

    def opened(self, id: int, now: Instant, *, is_paced: bool = False, grant: Grant = OPEN) -> None:
        super().opened(id, now, is_paced=id in self.paced, grant=grant)
        self.decisions.append(Decision("opened", now.at, id))

    def received(self, id: int, messages: Sequence[Inbound], now: Instant) -> int:
        if id in self.crashing:
            raise RuntimeError("made to crash")
        heard = tuple(m if isinstance(m, bytes) else BINARY for m in messages)
        decided = super().received(id, messages, now)
        while id in self.unfinished and not self._is_returning(
            id
        ):  # the model decides arrays whole
            decided += super().received(id, (), now)
        self.decisions.append(Decision("received", now.at, id, heard))
        return decided

    def _visited(self, visit: Visit, now: Instant) -> int:
        body, decided = visit.body, 0
        while not visit.is_over:  # the model decides arrays whole
            decided += self._decide_visit(visit, now)
        permit, receipts = self.permits.pop(visit), as_told(visit.receipts)
        noted = Decision("visited", now.at, 0, (body,), permit=permit, receipts=receipts)
        self.decisions.append(noted)
        return decided

    def _is_returning(self, id: int) -> bool:
        return any(isinstance(e, Returning) and e.connection == id for e in self._effects)

    def _resumed(self, id: int, lost_id: int, *asked: Any) -> bytes:
        answer = self._come_back(id, lost_id, *asked)
        self.decisions.append(Decision("resumed", asked[-1].at, id, other=lost_id))
        return answer

    def _refused(self, id: int, *asked: Any, **known: Any) -> bytes:
        answer = self._stay_away(id, *asked, **known)
        self.decisions.append(Decision("refused", asked[-1].at, id))
        return answer

    def lost(self, id: int, code: int, now: Instant) -> bool:
        is_kept = super().lost(id, code, now)
        if is_kept:
            self.decisions.append(Decision("lost", now.at, id))
        return is_kept

    def heard(self, id: int, now: Instant) -> None:
        super().heard(id, now)
        self.decisions.append(Decision("heard", now.at, id))

    def ponged(self, id: int, now: Instant) -> None:
        super().ponged(id, now)
        self.decisions.append(Decision("ponged", now.at, id))

    def fell_behind(self, id: int, now: Instant) -> None:
        super().fell_behind(id, now)
        self.decisions.append(Decision("fell_behind", now.at, id))

    def caught_up(self, id: int, now: Instant) -> None:
        super().caught_up(id, now)
        self.decisions.append(Decision("caught_up", now.at, id))

    def ended(self, id: int, cause: Cause, now: Instant) -> None:
        super().ended(id, cause, now)
        self.decisions.append(Decision("ended", now.at, id, cause=cause.value))

    def shut_down(self, now: Instant) -> None:
        super().shut_down(now)
        self.decisions.append(Decision("shut_down", now.at))

    def expire(self, now: Instant) -> None:
        self._done += super().take_effects()
        self._expiry.begin()
        super().expire(now)
        effects = super().take_effects()
        self._done += effects
        happened = self._expiry.happened(effects)
        self.decisions.append(Decision("elapsed", now.at, happened=happened))

    def take_effects(self) -> list[Effect]:
        done, self._done = self._done, []
        return done + super().take_effects()


class Socket:
    """Both ends of a connection, and what is on its way between them."""

    writes_frames = False

    def __init__(self, writing: Callable[[], None] = lambda: None) -> None:
        self._writing = writing
        self.actor: PeerActor
        self.coming: deque[Message] = deque()
        """From the peer, not yet at the relay."""
        self.wire = bytearray()
        """From the relay, not yet read by the peer."""
        self.on_the_wire = 0  # messages
        self.pongs = 0
        self.taken = 0
        self.decided = 0
        self.peer_reads = True
        self.relay_reads = True
        self.is_blocked = False
        self.has_left = False
        self.leaves_with = ABNORMAL
        self.is_broken = False
        self.is_over = False
        self.is_failing = False
        self.closed_with: int | None = None

    # What the peer actor calls (Transport) --------------------------------------------------------

    async def run(self, port: Port) -> None:
        raise NotImplementedError

    def hold_little(self) -> None: ...

    def send(self, batch: Batch) -> bool:
        if self.is_failing:
            raise RuntimeError("made to crash")
        if self.is_over or self.has_left:
            return True
        if self.closed_with is not None:
            raise Disagreement("something was sent after the close")
        if self.is_blocked:
            raise Disagreement("something was sent to a socket that takes no more")
        if self.is_broken:
            self.is_blocked = not self.peer_reads
            return self.peer_reads
        self._writing()
        for buffer in batch.buffers:
            self.wire += buffer
        self.on_the_wire += batch.count
        self.is_blocked = not self.peer_reads
        return self.peer_reads

    def close(self, code: int, reason: str) -> None:
        if self.closed_with is not None:
            raise Disagreement(f"closed with {self.closed_with}, and again with {code}")
        self.closed_with = code

    def abort(self) -> None:
        raise NotImplementedError

    def charge(self, bytes: int) -> None:
        pass

    def pause_reading(self) -> None:
        self.relay_reads = False

    def resume_reading(self) -> None:
        self.relay_reads = True

    # What can happen to it ------------------------------------------------------------------------

    def options(self) -> Iterator[Callable[[], None]]:
        """What could happen next."""
        if self.is_over:
            return
        if self.coming and self.relay_reads:
            yield self.deliver_one
            yield self.deliver_all
        if self.pongs:
            yield self.deliver_pong
        if self.is_blocked and self.peer_reads:
            yield self.take_more
        if self.closed_with is not None or (self.has_left and not self.coming):
            yield self.notice_close

    def deliver_one(self) -> None:
        self._deliver([self.coming.popleft()])

    def deliver_all(self) -> None:
        messages, self.coming = list(self.coming), deque()
        self._deliver(messages)

    def _deliver(self, messages: list[Message]) -> None:
        if self.closed_with is None:
            self.taken += len(messages)
        self.actor.received([as_inbound(message) for message in messages])

    def deliver_pong(self) -> None:
        self.pongs -= 1
        self.actor.ponged()

    def take_more(self) -> None:
        self.is_blocked = False
        self.actor.writable()

    def notice_close(self) -> None:
        self.is_over = True
        self.coming.clear()
        self.actor.closed(self.closed_with or self.leaves_with)

    # What the peer reads --------------------------------------------------------------------------

    def read(self) -> list[bytes]:
        """Whole messages; a frame whose end was cut off is none."""
        is_cut = self.has_left or self.is_broken
        if not self.wire or not (self.peer_reads or is_cut):
            return []
        texts, rest = parse(bytes(self.wire))
        if rest and not is_cut:
            raise Disagreement(f"half a frame on the wire: {rest!r}")
        self.wire.clear()
        self.on_the_wire = 0
        return texts


def parse(wire: bytes) -> tuple[list[bytes], bytes]:
    """The texts of unmasked, unfragmented RFC 6455 text frames, and what is left over.

    >>> parse(bytes([0x81, 2, 0x7b, 0x7d, 0x81]))
    ([b'{}'], b'\\x81')
    """
    texts: list[bytes] = []
    at, size = 0, len(wire)
    while at + 2 <= size:
        if wire[at] != 0x81:
            raise Disagreement(f"no text frame: {wire[at : at + 20]!r}")
        length, start = wire[at + 1], at + 2
        if length > 125:
            wide = 2 if length == 126 else 8
            if start + wide > size:
                break
            length, start = int.from_bytes(wire[start : start + wide]), start + wide
        if start + length > size:
            break
        texts.append(wire[start : start + length])
        at = start + length
    return texts, wire[at:]


class Memory:
    """Notes what a history forgets although its time has not come: until when (seconds)."""

    def __init__(self, history: History) -> None:
        self.forgotten_until = -math.inf
        self._history = history
        self._drop = history.drop_oldest
        history.drop_oldest = self._drop_oldest  # type: ignore[method-assign]

    def _drop_oldest(self) -> bool:
        shelf = self._history._shelf
        oldest, newest = shelf.oldest, shelf.new[-1].at if shelf.new else -math.inf
        if oldest is not None and oldest.at >= newest - self._history._keep_s:
            self.forgotten_until = max(self.forgotten_until, oldest.at)
        return self._drop()


class VirtualClock(SystemClock):
    """Stands still until somebody moves it."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> Instant:
        return Instant(self.at, WALL_MS + round(self.at * 1000))


class ActorSubject(Subject):
    """The actors. Nothing happens but through `hand_over`, `settle` and `pass_time`."""

    has_time = True
    has_permits = True
    has_pace = True
    has_visits = True
    can_crash = True
    can_resume = True
    is_immediate = False
    late_s = 1.0

    def __init__(self, limits: Limits | None = None, *, now: float = 0.0) -> None:
        self.limits = limits or Limits()
        self.clock = VirtualClock(now)
        self.supervisor = Supervisor("verification", self.limits, self.clock)
        self.mesh = self.make_mesh()
        self.supervisor.mesh = self.supervisor._comebacks._mesh = self.mesh
        self.memory = Memory(self.supervisor._comebacks.history)
        self.sockets: dict[int, Socket] = {}
        self._alive: dict[int, Socket] = {}
        self._writing: set[int] = set()  # something is on the wire
        self._numbers: dict[int, int] = {}  # the supervisor's -> the caller's
        self._made_to_crash: set[int] = set()

    def make_mesh(self) -> RecordingMesh:
        """What the supervisor asks. Here is the place for another one."""
        return RecordingMesh(self.limits)

    @property
    def now(self) -> float:  # type: ignore[override]
        return self.clock.at

    # What peers and the world do ------------------------------------------------------------------

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        socket = self.sockets[c] = self._alive[c] = Socket(lambda: self._writing.add(c))
        socket.actor = self.supervisor.open(socket, grant=as_grant(permit))
        if is_paced:  # for the mesh: this socket has no pace, it is told that it is behind
            self.mesh.paced.add(socket.actor.id)
        self._numbers[socket.actor.id] = c

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if not self.sockets[c].is_over:
            self.sockets[c].coming.extend(messages)

    def visit(self, body: bytes, permit: Permit) -> None:
        supervisor, rates = self.supervisor, Rates(self.limits)
        visit = VisitActor("", as_grant(permit), rates, supervisor._ledger, self.clock)
        visit.take(body)
        visit.complete()
        assert visit._visit is not None
        self.mesh.permits[visit._visit] = permit
        supervisor.visits.put(visit)

    def close(self, c: int) -> None:
        self.sockets[c].has_left = True
        self.sockets[c].leaves_with = (1000, 1001, 1005)[c % 3]

    def drop(self, c: int, cut: int = 0) -> None:
        self.sockets[c].has_left = True
        self._cut(c, cut)

    def break_off(self, c: int, cut: int = 0) -> None:
        self.sockets[c].is_broken = True
        self.sockets[c].pongs = 0
        self._cut(c, cut)

    def _cut(self, c: int, cut: int) -> None:
        socket = self.sockets[c]
        socket.coming = deque(itertools.islice(socket.coming, cut))
        del socket.wire[len(socket.wire) * cut // 10 :]

    def pong(self, c: int) -> None:
        self.sockets[c].pongs = 1

    def stop_reading(self, c: int) -> None:
        self.sockets[c].peer_reads = False

    def read_again(self, c: int) -> None:
        self.sockets[c].peer_reads = True

    def fall_behind(self, c: int) -> None:
        self.supervisor._inbox.tell(Lagging(self.sockets[c].actor, is_lagging=True))

    def catch_up(self, c: int) -> None:
        self.supervisor._inbox.tell(Lagging(self.sockets[c].actor, is_lagging=False))

    def crash(self, c: int, where: int = 0) -> None:
        socket = self.sockets[c]
        is_gone = socket.is_over or socket.has_left or socket.is_broken
        if is_gone or socket.closed_with is not None:
            return
        self._made_to_crash.add(c)
        if where % 3 == 0:
            socket.is_failing = True
        elif where % 3 == 1:
            self.mesh.crashing.add(socket.actor.id)
        else:
            socket.is_over = True
            socket.actor.crashed(RuntimeError("made to crash"))

    def pass_time(self, seconds: float) -> None:
        until = self.clock.at + seconds
        while True:
            if self.supervisor.has_work:
                tick = self.clock.at + TICK_S
            else:
                due = self.mesh.deadline()
                tick = math.inf if due is None else math.ceil(due / TICK_S) * TICK_S
            if tick > until:
                break
            self.clock.at = max(self.clock.at, tick)
            self.supervisor.round()
        self.clock.at = until

    def shut_down(self) -> None:
        self.supervisor.drain()

    # Interleaving ---------------------------------------------------------------------------------

    def _options(self) -> list[Callable[[], None]]:
        self._alive = {c: socket for c, socket in self._alive.items() if not socket.is_over}
        options = [option for socket in self._alive.values() for option in socket.options()]
        if self.supervisor.has_work:
            options.append(self.supervisor.round)
        return options

    def hand_over(self, choice: int) -> bool:
        options = self._options()
        if options:
            options[choice % len(options)]()
        return bool(options)

    def settle(self, judge: Expectations) -> None:
        while options := self._options():
            options[-1]()

    # What it did ----------------------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        noted, self.mesh.decisions = self.mesh.decisions, []
        decisions: list[Decision] = []
        for decision in noted:
            c, other = (
                self._numbers.get(decision.connection, 0),
                self._numbers.get(decision.other, 0),
            )
            happened = [(what, self._numbers[id]) for what, id in decision.happened]
            decisions.append(decision._replace(connection=c, happened=happened, other=other))
            match decision.what:
                case "received":
                    self.sockets[c].decided += len(decision.messages)
                case "ended":
                    self._check_end(c, decision.cause)
                case "lost":
                    self._check_end(c, "left")
                case "resumed":  # the lost one's number goes on with the other socket
                    numbers, id, lost = self._numbers, decision.connection, decision.other
                    numbers[id], numbers[lost] = numbers[lost], numbers[id]
                    if other in self._made_to_crash:
                        self._made_to_crash.add(c)
        return decisions

    def _check_end(self, c: int, cause: str) -> None:
        socket = self.sockets[c]
        went = socket.closed_with is None and c not in self._made_to_crash
        if cause == "left" and went and socket.decided != socket.taken:
            raise Disagreement(f"{c} left, and {socket.taken - socket.decided} were not heard")

    def active(self) -> Collection[int]:
        return self._writing

    def received(self, c: int) -> list[bytes]:
        socket = self.sockets[c]
        got = socket.read()
        if not socket.wire:
            self._writing.discard(c)
        return got

    def waiting(self, c: int) -> int | None:
        socket = self.sockets[c]
        if socket.has_left or socket.is_broken or socket.is_failing or socket.is_over:
            return None
        if socket.closed_with not in (None, 1001):  # cut off; what was on the wire may come
            return None
        return socket.actor.queued[0] + socket.on_the_wire

    def closed_with(self, c: int) -> int | None:
        return self.sockets[c].closed_with

    def forgotten_until(self) -> float:
        return self.memory.forgotten_until

    def check_end(self, judge: Expectations, c: int, cause: str) -> None:
        if cause == "crashed" and c not in self._made_to_crash:
            raise Disagreement(f"connection {c} crashed, and nobody made it")
        if cause == "evicted":
            waiting = judge.missing(c) - self.sockets[c].on_the_wire
            if waiting <= self.limits.mailbox_messages_max:
                raise Disagreement(f"connection {c} was evicted with {waiting} messages waiting")
