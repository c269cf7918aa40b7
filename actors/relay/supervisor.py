"""The supervisor: owns one mesh, decides in rounds, and writes once per receiver and round.

A round takes all control messages, and up to a quantum of messages from every connection that has
some. The mesh decides each message at once. What it decides goes on tapes. Then each peer actor
concerned is told once. `round()` is synchronous and complete, so a test that calls it by hand
chooses the interleaving. `run()` only decides when a round happens.

A failure of one connection does not reach another. If an exception occurs while its messages are
decided, this connection ends (1011). An exception in its peer actor never reaches the supervisor.

Longer than 400 lines because all that a round does, from what comes in to what goes out, stands
together here.
"""

import math
from collections.abc import Collection
from functools import partial
from typing import Final

import anyio.lowlevel

from actors.clock import Clock
from actors.relay.comebacks import Comebacks
from actors.relay.control import Control, Displaced, Failed, Lagging, Opened, Ponged
from actors.relay.journal import Journal
from actors.relay.lobby import to_end
from actors.relay.mailboxes import Inbox
from actors.relay.peer import PeerActor
from actors.relay.process import Process
from actors.relay.rests import LONE, Rests
from actors.relay.snapshot import Gauges, Mailbox, MeshStatus
from actors.relay.tapes import Tapes
from actors.relay.traffic import SAMPLED
from actors.relay.visits import VisitQueue
from actors.signal import Signal
from actors.transports.paced import Pace, PacedTransport
from actors.transports.transport import Transport
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Chosen,
    Counted,
    Deliver,
    Dismissed,
    Effect,
    Only,
    Others,
    PeerJoined,
    PeerLeft,
    Refused,
    Returning,
    Snapshot,
    Spared,
    Wants,
)
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.recalling import LITTLE_BYTES as LITTLE_SAID_BYTES
from protocol.mesh.status import Totals

TICK_S: Final = 0.25
"""How often (seconds) a mesh looks for deadlines that have passed."""

POLLS: Final = 5
"""Passes of the event loop after which everything that had arrived before has been delivered: one
reads the socket, the others are for tasks between socket and peer actor."""

LITTLE_BYTES: Final = 16 * 1024
"""Who has no more than this to say is served although a round has all its bytes."""


class Supervisor:
    """The actor of one mesh.

    `process`: what meshes share. `mesh`: who is here, and every decision. `tapes`: what is sent.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        clock: Clock,
        *,
        process: Process | None = None,
        mesh: LocalMesh | None = None,
    ) -> None:
        process = process or Process(limits, clock)
        self.name = name
        self._limits = limits
        self._clock = clock
        self.mesh = mesh or LocalMesh(limits)
        self._lobby = process.lobby
        self._work = Signal()
        self._inbox: Inbox[PeerActor, Control[PeerActor]] = Inbox(self._work.set)
        self.visits = VisitQueue(limits, self._work.set)
        self._actors: dict[int, PeerActor] = {}
        self._receivers: dict[int, PeerActor] = {}  # those whom the mesh knows
        self._next_id = self.mesh.first_id + 1
        self._traffic = process.traffic
        self._journal = Journal(name, process.events)
        self._pace = Pace(limits, clock)
        self._paced: dict[int, PacedTransport] = {}
        self.tapes = Tapes(self._traffic)
        self._ledger = process.ledger
        self._crowd = process.crowd
        self._comebacks = Comebacks(
            limits,
            self.mesh,
            self._ledger,
            self._lobby,
            actors=self._actors,
            receivers=self._receivers,
            paced=self._paced,
            carry_out=lambda now: self._carry_out(self.mesh.take_effects(), now),
            fail=lambda actor, error, now: self._fail(actor, Cause.CRASHED, error, now),
        )
        self._read_until = Instant(-math.inf, 0)  # everything that came until then has been read
        self._kept_bytes = 0  # as the ledger knows it
        self._said_bytes = 0  # that the mesh has not sorted in
        self._rests = Rests(limits.flush_gap_s, clock, process.holds)
        self._displaced: list[PeerActor] = []  # they end behind what is decided before
        self._meanwhile = self._take_in_meanwhile if self.mesh.decides_later else None

    def open(
        self, transport: Transport, *, is_paced: bool = False, grant: Grant = OPEN
    ) -> PeerActor:
        """Make a connection. Returns its peer actor, the port of this transport.

        `is_paced`: an edge in front of the transport limits frames. `grant`: what it may do.
        """
        if is_paced:
            transport = self._paced[self._next_id] = PacedTransport(
                transport, self._pace, self._limits
            )
        actor = PeerActor(
            self._next_id,
            transport,
            self._inbox,
            self._limits,
            self._ledger,
            crowd=self._crowd,
            grant=grant,
        )
        self._next_id += 1
        self._actors[actor.id] = actor
        self._lobby.enter(actor)
        return actor

    @property
    def connections(self) -> int:
        """The number of connections, also those that are closing."""
        return len(self._actors)

    @property
    def totals(self) -> Totals:
        """A copy of what the mesh has counted so far."""
        return self.mesh.totals

    # Rounds ---------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """A round would find something to do now."""
        waits = bool(self._inbox or self.visits.waiting)
        is_half_done = self.mesh.has_effects or bool(self._displaced)
        return is_half_done or (waits and not self.mesh.is_full)

    def wake(self) -> None:
        """There may be something to do."""
        self._work.set()

    def round(self, read_until: Instant | None = None) -> None:
        """Decide what waits, and tell every peer actor concerned.

        `read_until`: a time up to which everything that came in has been read; whoever was silent
        until then is late. By default that is now.
        """
        now = self._clock.now()
        bytes_left, ready = self._take_in(now)
        mesh = self.mesh
        until, deadline = read_until or now, mesh.deadline()
        if deadline is not None and deadline <= until.at:
            for actor in ready:  # what waits has been heard
                mesh.heard(actor.id, now)
            mesh.expire(until)
        self._carry_out(mesh.take_effects(), now)
        if self._displaced:
            for actor in to_end(self._displaced, set(ready), mesh.peer_of):
                mesh.ended(actor.id, Cause.DISPLACED, now)
            self._displaced.clear()
            self._carry_out(mesh.take_effects(), now)
        traffic = self._traffic
        traffic.untaken_bytes += bytes_left
        traffic.rounds = rounds = traffic.rounds + 1
        if not rounds % SAMPLED:
            traffic.rounds_s.note(self._clock.now().at - now.at)
        if (kept_bytes := mesh.kept_bytes) != self._kept_bytes:
            self._kept_bytes = kept_bytes
            self._ledger.keep(self.name, kept_bytes)

    def _take_in_meanwhile(self) -> None:
        """Between two rounds: what has come in goes on its way to where it is decided."""
        self._take_in(self._clock.now())
        self.mesh.pass_on()

    def _take_in(self, now: Instant) -> tuple[int, Collection[PeerActor]]:
        """Decide what waits. Returns how many bytes more might have been decided, and those actors
        for which something waits on."""
        mesh, codec, work = self.mesh, self.mesh.codec, self.mesh.work
        for control in self._inbox.take_control():
            if isinstance(control, Displaced):
                self._displaced.append(control.actor)
            else:
                self._obey(control, now)
        messages_left = 0 if mesh.is_full else self._limits.round_messages_max
        bytes_left = self._limits.round_bytes_max
        if messages_left and self.visits.waiting:
            messages_left -= self.visits.decide(mesh, now)
        little_left = self._limits.quantum_bytes
        ready = self._inbox.take_ready()
        later: list[PeerActor] = []
        while ready and messages_left > 0:
            actor = ready.popleft()
            waiting_bytes = actor.inbound_bytes
            if bytes_left <= 0:  # but who has little does not wait behind many long messages
                if waiting_bytes > min(little_left, LITTLE_BYTES):
                    later.append(actor)
                    continue
                little_left -= waiting_bytes
            messages = actor.give()
            bytes_left -= waiting_bytes - actor.inbound_bytes
            if messages or actor.undecided_bytes:
                try:
                    messages_left -= mesh.received(actor.id, messages, now)
                except Exception as error:
                    self._fail(actor, Cause.CRASHED, error, now)
                    messages_left -= len(messages)
                if work.extra:
                    messages_left -= work.take()
                if codec.extra_bytes:
                    actor.charge(codec.take_extra_bytes())
                if mesh.unfinished or actor.undecided_bytes:
                    rest = mesh.unfinished.get(actor.id)
                    actor.undecided(*(rest.count, rest.bytes) if rest is not None else (0, 0))
            elif actor.close_code is None:  # a part of a message came in
                self.mesh.heard(actor.id, now)
            if actor.close_code is not None and not actor.waiting:
                self._closed(actor, actor.close_code, now)
        if later:
            ready.extendleft(reversed(later))
        if ready:
            self._inbox.put_back(ready)  # they keep their places in the queue
        return bytes_left, ready

    def _closed(self, actor: PeerActor, code: int, now: Instant) -> None:
        """The socket of an actor is gone, and everything that came from there has been decided."""
        if self.mesh.lost(actor.id, code, now):
            self._comebacks.away(actor.id)
        else:
            self._actors.pop(actor.id, None)  # gone already, if it was ended before that
            self._paced.pop(actor.id, None)

    def _obey(self, control: Control[PeerActor], now: Instant) -> None:
        match control:
            case Opened(actor):
                is_paced = actor.id in self._paced
                self.mesh.opened(actor.id, now, is_paced=is_paced, grant=actor.grant)
                self._receivers[actor.id] = actor
            case Ponged(actor):
                self.mesh.ponged(actor.id, now)
            case Lagging(actor, is_lagging):
                (self.mesh.fell_behind if is_lagging else self.mesh.caught_up)(actor.id, now)
            case Failed(actor, cause, error, reason):
                self._fail(actor, cause, error, now, reason)

    def _fail(
        self,
        actor: PeerActor,
        cause: Cause,
        error: BaseException | None,
        now: Instant,
        reason: str | None = None,
    ) -> None:
        self._journal.failed(actor.id, self.mesh.peer_of(actor.id), cause, error, reason, now=now)
        self.mesh.ended(actor.id, cause, now)

    def _carry_out(self, effects: list[Effect], now: Instant) -> None:
        if not effects:
            return
        tapes = self.tapes
        tapes.plain.is_kept = self._comebacks.is_busy and not tapes.differ
        tape = tapes if tapes.differ else tapes.plain
        dismissed: list[Dismissed] = []
        came_or_went = 0
        for effect in effects:
            if type(effect) is Deliver:  # the one that comes per message, hence not in the match
                audience = effect.audience
                if type(audience) is Others:
                    tape.others(audience.excluded, effect.texts)
                elif type(audience) is Only:
                    tape.only(audience.connections, effect.texts)
                elif type(audience) is Chosen:
                    tapes.chosen(audience, effect.texts)
                else:
                    tape.everyone(effect.texts)
                continue
            match effect:
                case Snapshot(connection, blocks):
                    tapes.snapshot(connection, blocks)
                case Admitted(connection, accepts_batches, watches):
                    if watches:
                        tapes.plain.admit(connection)
                        self._comebacks.history.follow(connection)
                    self._lobby.leave(self._receivers[connection])
                    if accepts_batches and connection in self._paced:
                        self._paced[connection].accepts_batches = True
                case Wants(connection, wish):
                    tapes.want(connection, wish)
                    tape = tapes
                case Dismissed(connection):
                    tapes.dismiss(connection)
                    self._comebacks.closed(connection)
                    dismissed.append(effect)
                case Counted() | Returning():
                    self._comebacks.asked(effect, tapes.tape_of(effect.connection))
                case PeerJoined() | PeerLeft():
                    came_or_went += 1
                    self._journal.note(effect, now)
                case Refused() | Spared():
                    self._journal.note(effect, now)
        receivers = self._receivers
        began_at = self._rests.began_at(len(receivers)) if tape.is_shared else None
        leaving = {end.connection for end in dismissed} if dismissed else ()
        keep = partial(self._comebacks.keep, now=now) if self._comebacks.is_busy else None
        count, bytes, owns = tapes.tell_all(receivers, leaving, keep)
        if count:
            self._rests.sent(len(receivers), count, bytes, began_at, came_or_went)
            self._said_bytes += bytes
        else:
            said = len(effects)
            if said <= LONE:  # but each may be many messages
                said = sum(len(one.texts) if type(one) is Deliver else 1 for one in effects)
            self._rests.sent_privately(said, now.at)
        for end in dismissed:
            self._journal.dismissed(end, now)
            flush = end.cause is Cause.SHUTDOWN
            actor = receivers.pop(end.connection)
            if actor.close_code is not None:  # it was lost, and did not come back
                self._actors.pop(actor.id, None)
                self._paced.pop(actor.id, None)
            self._lobby.leave(actor)
            last = next(filter(None, (own.get(end.connection) for own in owns)), None)
            actor.stop(end.cause, last, flush=flush)
        if self._said_bytes > LITTLE_SAID_BYTES:
            self._said_bytes = 0
            self.mesh.settle()
        if self._comebacks.is_busy:
            self._comebacks.answer(now)

    # When rounds happen ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold rounds until the last connection has gone."""
        while self._actors or self.has_work:  # looked at last: nothing is awaited after it
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tick)
                tasks.start_soon(self._pace.keep)
                while self._actors or self.has_work:
                    if not self.has_work:
                        await self._work.wait()
                    self.round(self._read_until)
                    await self._rests.rest(len(self._inbox), self._meanwhile)
                tasks.cancel_scope.cancel()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            deadline, now = self.mesh.deadline(), self._clock.now()
            if deadline is not None and deadline <= now.at:
                # A process that was suspended wakes up late for every deadline, while the signs of
                # life of its peers wait in the kernel. So all sockets are read once before.
                for _ in range(POLLS):
                    await anyio.lowlevel.checkpoint()
                self._read_until = now
                self._work.set()

    # The end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Decide what waits. Then close every connection (1001) after what is queued for it."""
        while self.has_work:
            self.round()
        self.mesh.shut_down(self._clock.now())
        self._carry_out(self.mesh.take_effects(), self._clock.now())
        self._work.set()  # nothing follows from a connection that was away, and it may be the last

    def hurry(self) -> None:
        """Close the connections that still have something queued, and drop that."""
        for actor in self._actors.values():
            actor.hurry()
        for paced in self._paced.values():
            paced.hurry()

    def abort(self) -> None:
        """Cut all connections that are left."""
        for actor in tuple(self._actors.values()):
            self._lobby.leave(actor)
            actor.abort()

    def gauges(self) -> Gauges:
        """Numbers of now. May be called from any thread."""
        queued_bytes = sum(actor.queued[1] for actor in tuple(self._actors.values()))
        away = self._comebacks.away_count
        return Gauges(len(self._actors), away, queued_bytes, self.mesh.states())

    def status(self) -> MeshStatus:
        """A snapshot. It never changes."""
        return MeshStatus(
            self.name,
            len(self._actors),
            self.mesh.status(self._clock.now()),
            {id: Mailbox(*its.queued, self.tapes.sent_to(id)) for id, its in self._actors.items()},
            self.totals,
        )
