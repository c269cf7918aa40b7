"""One node of a federation: what comes from the log goes in, what to append comes out.

The owner reads the log and calls `reached` when it has been opened, `read` with what comes, and
`tick` a few times a second. It appends what `take` returns; whether that arrived, only `read`
tells. If `is_lost` after a call, it must open the log again.

What was said here while the node does not take part waits. If the node is isolated, it is decided
at once.

Longer than 400 lines because whatever happens to a node can change its standing, and all that is
done about that stands together here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.federation.federated import FederatedMesh, Step, fail
from protocol.mesh.federation.joining import Answer, First, Joining, TooMuch
from protocol.mesh.federation.members import Member
from protocol.mesh.federation.outbox import Outbox
from protocol.mesh.federation.records import (
    Bye,
    Entry,
    Evict,
    Found,
    Fragment,
    Hello,
    Item,
    Record,
    Round,
    State,
    Tick,
    fingerprint,
    read,
)
from protocol.mesh.federation.replica import NODE_BITS, Replica
from protocol.mesh.federation.standing import Action, Event, Standing, step
from protocol.mesh.federation.timing import Timing
from protocol.mesh.federation.view import View
from protocol.mesh.lifecycle import Cause

ITEM_BYTES: Final = 200
"""What an item costs beside its text, about."""


@attrs.frozen
class _Said:
    """What has passed the gate of a mesh in one round, and how many bytes that counts for."""

    mesh: FederatedMesh
    steps: Sequence[Step]
    weight: int

    @property
    def items(self) -> list[Item]:
        """What of that the other nodes need."""
        return [one for one in self.steps if isinstance(one, Item)]


class Node:
    """A node, its view of the federation, and those meshes that have connections here.

    `number`: not zero, below 2**32, and of no other node. `changed`: called when the standing is
    another one. `wake`: called when there is more to `take`. `faults`: what a mesh has failed on,
    for the log of the owner, who empties it. `lag_ms`: how long the last entry was on its way from
    the log. `lag_records`: how many more were there then. `records`: how many were read.
    """

    def __init__(
        self,
        number: int,
        limits: Limits,
        timing: Timing,
        now: Instant,
        *,
        changed: Callable[[Standing, str], None] = lambda standing, why: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.number = number
        self.standing = Standing.JOINING
        self.position = 0
        self.lag_ms = self.lag_records = 0
        self.records = 0
        self.meshes: dict[str, FederatedMesh] = {}
        self.faults: list[Exception] = []
        self.is_lost = True
        self.has_left = False
        self.view = View(limits)
        self._limits = limits
        self._timing = timing
        self._fingerprint = fingerprint(limits)
        self._changed = changed
        self._wake = wake
        self._epoch: str | None = None
        self._free_id = number << NODE_BITS
        self._life = 1
        self._outbox = Outbox(number, self._life, timing.record_bytes_max)
        self._joining = Joining(number, self._life, self._fingerprint, timing, now)
        self._said: list[_Said] = []  # while it does not take part
        self._said_bytes = 0
        self._was_full = False
        self._heard_at = self._ticked_at = now.at
        self._is_ticking = False

    # Meshes ---------------------------------------------------------------------------------------

    def mesh(self, name: str, **of_gate: Any) -> FederatedMesh:
        """A mesh, for somebody who has something to say in it. `of_gate`: as for a `LocalMesh`."""
        return FederatedMesh(
            name,
            self._limits,
            self.view.replica(name),
            self,
            first_id=self._free_id,
            **of_gate,
        )

    def enter(self, mesh: FederatedMesh) -> None:
        """This one, which was made here, gets connections."""
        self.meshes[mesh.name] = mesh

    def leave(self, mesh: FederatedMesh) -> None:
        """It has none any more. What they have said last is still on its way."""
        self._free_id = max(self._free_id, mesh.last_id)
        if self.meshes.get(mesh.name) is mesh:
            del self.meshes[mesh.name]
            self.view.forget(mesh.name)

    def say(self, mesh: FederatedMesh, steps: Sequence[Step], now: Instant) -> None:
        """This has passed the gate of a mesh until now, in this order."""
        weight = sum(
            len(getattr(one, "text", b"")) + ITEM_BYTES for one in steps if isinstance(one, Item)
        )
        said = _Said(mesh, steps, weight)
        match self.standing:
            case Standing.ISOLATED:
                self._decide(said, self.view.now(now.wall_ms / 1000), now)
            case Standing.JOINED:
                self._append(said, now)
                self._wake()
            case _:
                self._said.append(said)
                self._said_bytes += weight
        self._note_fullness()

    def _append(self, said: _Said, now: Instant) -> None:
        items = said.items
        if items or len(self._outbox):
            self._outbox.put(Round(said.mesh.name, items), said)
        else:  # there is only something to do here, and nothing before it
            self._decide(said, Instant(self.view.log_at, now.wall_ms), now)

    def _decide(self, said: _Said, at: Instant, now: Instant) -> None:
        """What was said here is applied. Its mesh may have left meanwhile, and another one of the
        same name may have come."""
        mesh, name = said.mesh, said.mesh.name
        mesh.bind(self.view.replica(name))
        hearing = self.meshes.get(name)
        self.faults += mesh.decided(said.steps, at, now, hearing)
        if hearing is not None:
            hearing.wake()
        else:
            self.view.forget(name)

    @property
    def is_full(self) -> bool:
        """So much waits for the log that nothing more should be said."""
        return self.waiting_bytes > self._timing.window_bytes

    def _note_fullness(self) -> None:
        was, self._was_full = self._was_full, self.is_full
        if was and not self._was_full:
            for mesh in self.meshes.values():
                mesh.wake()

    # Towards the log ------------------------------------------------------------------------------

    def take(self, now: Instant, bytes_max: int = 2**20) -> list[bytes]:
        """What to append next, in this order."""
        hello, self._joining.outgoing = self._joining.outgoing, None
        if self.standing is Standing.JOINED:
            return self._outbox.take(now.at, bytes_max)
        return [] if hello is None or self.is_lost else [hello]

    @property
    def has_more(self) -> bool:
        """`take` would return something."""
        if self.standing is Standing.JOINED:
            return self._outbox.has_more
        return self._joining.outgoing is not None and not self.is_lost

    def tick(self, now: Instant) -> None:
        """Let time pass. Call it a few times a second."""
        timing, standing = self._timing, self.standing
        if standing is Standing.ISOLATED:
            return
        if now.at - self._heard_at >= timing.isolate_after_s:
            self._step(Event.SILENCED, now, "nothing has come from the log")
        elif standing is Standing.JOINED:
            if self._outbox.is_late(now.at, timing.retry_s):
                self.retry()
            if not self._is_ticking and now.at - self._ticked_at >= timing.tick_s:
                self._is_ticking = True
                self._ticked_at = now.at
                self._outbox.put(Tick(self._fingerprint, *self.view.last_tick(self.number)))
        elif not self.is_lost:
            self._joining.tick(now)

    def crashed(self, now: Instant) -> None:
        """Something here has failed in a way that nobody has thought of, so what it knows may be
        wrong."""
        if self.standing in (Standing.JOINING, Standing.JOINED):
            self._step(Event.REFUTED, now, "an internal error")

    def retry(self) -> None:
        """Append everything again that has not come back."""
        self._outbox.again()

    def goodbye(self) -> None:
        """The node ends. `has_left`: the others know."""
        if self.standing is Standing.JOINED:
            self._outbox.put(Bye())
        else:
            self.has_left = True

    # From the log ---------------------------------------------------------------------------------

    def reached(self, epoch: str, last: int, now: Instant) -> None:
        """The log has been opened. `epoch`: tells it from every other one. `last`: the position of
        its last entry. Read behind `position` from here on."""
        self._heard_at = now.at
        if self.standing is Standing.JOINED and (epoch != self._epoch or last < self.position):
            self._step(Event.REFUTED, now, "the log is another one")
        self._epoch = epoch
        if self.standing is not Standing.JOINED:
            self.position = last
        self._step(Event.REACHED, now, "the log answers")
        self._outbox.again()
        self.is_lost = False

    def read(self, entries: Sequence[Entry], now: Instant) -> None:
        """These have come from the log."""
        for entry in entries:
            if self.is_lost:
                break
            if entry.position <= self.position:
                continue
            if entry.position != self.position + 1:
                self._step(Event.REFUTED, now, "entries of the log are missing")
                break
            self.position = entry.position
            self._heard_at = now.at
            self.records += 1
            self.lag_ms = max(0, now.wall_ms - round(entry.at * 1000))
            self.lag_records = entry.behind
            record = self._outbox.known(entry.data) or read(entry.data)
            if record is None:
                continue
            if self.standing is Standing.JOINED:
                self._apply(entry, record, now)
            else:
                self._hear(entry, record, now)
        self._tell(now)
        self._note_fullness()

    def _tell(self, now: Instant) -> None:
        """Meshes that have connections here hear what was applied."""
        for name in tuple(self.view.touched):
            self._tell_one(name, now)

    def _tell_one(self, name: str, now: Instant) -> None:
        outcomes = self.view.touched.pop(name)
        mesh = self.meshes.get(name)
        if mesh is not None:
            mesh.happened(outcomes, now)
            mesh.wake()
        elif name in self.view.replicas:
            self.view.replicas[name].effects.clear()
            self.view.forget(name)

    # Taking part ----------------------------------------------------------------------------------

    def _apply(self, entry: Entry, record: Record, now: Instant) -> None:
        view, body = self.view, record.body
        at = view.now(entry.at)
        if isinstance(body, Hello):
            self._welcome(entry, record, body, at, now)
            return
        if isinstance(body, Found):
            if view.heard_at <= body.since:
                self._step(Event.REFUTED, now, "another node has begun the federation anew")
            return
        member = view.take(entry, record)
        if member is None:
            return
        is_own = record.node == self.number
        note = self._outbox.came_back(record.n, now.at) if is_own else None
        if isinstance(body, Fragment):
            complete = None if body.to else view.members.collect(member, body)
            if complete is None:
                return
            body = complete
        match body:
            case Round(name, items):
                if isinstance(note, _Said):
                    if name in view.touched:  # what others have said before comes first
                        self._tell_one(name, now)
                    self._decide(note, at, now)
                else:
                    view.apply(name, items, at)
            case Tick():
                self._on_tick(entry, body, member, at, now)
            case Evict(node):
                if view.evict(body, at) and node == self.number:
                    self._step(Event.REFUTED, now, "the others have evicted this node")
            case Bye():
                view.goodbye(member, entry)
                self.has_left = self.has_left or is_own
            case _:
                pass  # nothing else counts

    def _welcome(
        self, entry: Entry, record: Record, hello: Hello, at: Instant, now: Instant
    ) -> None:
        view = self.view
        if hello.fingerprint != self._fingerprint:
            return
        view.welcome(record, at)
        own = view.members.get(self.number)
        if own is None or own.life != self._life:
            self._step(Event.REFUTED, now, "another node has the number of this one")
        elif view.members.answerer(record.node, hello.attempt) is own:
            state = State(record.life, entry.position, view.state())
            self._outbox.put(state, to=record.node)

    def _on_tick(self, entry: Entry, tick: Tick, member: Member, at: Instant, now: Instant) -> None:
        view, timing = self.view, self._timing
        at_position, digest = view.last_tick(member.node)
        view.tick(member, entry, at, timing.stay_s)
        if member.node == self.number:
            self._is_ticking = False
            for name in self.unseen:
                view.forget(name)
            for silent in view.members.beat(self.number, timing.evict_ticks):
                silent.silence = 0  # if this comes too late, there is another one
                self._outbox.put(Evict(silent.node, silent.life, silent.next))
        elif at_position == tick.at and digest != tick.digest and tick.at:
            difference = f"node {member.node} has decided differently before {tick.at}"
            self.faults.append(RuntimeError(difference))
            nodes = [one.node for one in view.members]
            if nodes.index(self.number) > nodes.index(member.node):  # the elder goes on
                self._step(Event.REFUTED, now, "this node has decided something else")

    # Joining --------------------------------------------------------------------------------------

    def _hear(self, entry: Entry, record: Record, now: Instant) -> None:
        try:
            heard = self._joining.hear(entry, record, now)
        except TooMuch:
            self._step(Event.REFUTED, now, "too much was said before an answer came")
            return
        match heard:
            case First(first):
                self.view.now(first.at)
                self.view.heard_at = first.position
                self.view.members.add(Member(self.number, self._life, is_ready=True))
                self._step(Event.ENTERED, now, "the first node")
            case Answer(state, behind):
                self._enter(state, behind, now)

    def _enter(self, state: State, behind: Sequence[tuple[Entry, Record]], now: Instant) -> None:
        try:
            self.view.restore(state.data, state.position)
        except ValueError:
            return
        for mesh in self.meshes.values():
            mesh.bind(self.view.replica(mesh.name))
        self._step(Event.ENTERED, now, f"{len(self.view.members)} nodes")
        for entry, record in behind:
            if self.standing is not Standing.JOINED:
                break
            self._apply(entry, record, now)

    # Standing -------------------------------------------------------------------------------------

    def _step(self, event: Event, now: Instant, why: str) -> None:
        cell = step(self.standing, event)
        before, self.standing = self.standing, cell.target
        if cell.target is not before:
            self._changed(cell.target, why)
        match cell.action:
            case Action.ASK:
                self.is_lost = event is not Event.REACHED
                self._ask(now)
            case Action.OPEN:
                self._ticked_at = now.at - self._timing.tick_s  # one at once
                said, self._said, self._said_bytes = self._said, [], 0
                for one in said:
                    self._append(one, now)
            case Action.CUT:
                self.is_lost = True
                self._cut(now)
            case Action.EXPEL:
                self._expel(now)
                self._step(Event.CLEARED, now, why)
            case Action.NOTHING | Action.IMPOSSIBLE:
                pass

    def _ask(self, now: Instant) -> None:
        self._life += 1
        self._is_ticking = False
        self._outbox = Outbox(self.number, self._life, self._timing.record_bytes_max)
        self._joining = Joining(self.number, self._life, self._fingerprint, self._timing, now)
        self.view = View(self._limits)
        for mesh in self.meshes.values():
            mesh.bind(self.view.replica(mesh.name))

    def _cut(self, now: Instant) -> None:
        """What was said here counts here, whether or not the others know it."""
        at = self.view.now(now.wall_ms / 1000)
        self.view.only(self.number, Cause.UNREACHABLE, at)
        self._tell(now)
        for said in self._take_said():
            self._decide(said, at, now)
        self._note_fullness()

    def _expel(self, now: Instant) -> None:
        for mesh in tuple(self.meshes.values()):
            mesh.expel(now)
        for said in self._take_said():
            fail(said.steps)
        self._note_fullness()

    def _take_said(self) -> list[_Said]:
        """What was said here and is not decided: nothing of it waits any more."""
        notes = [note for note in self._outbox.notes() if isinstance(note, _Said)]
        said = notes + self._said
        self._said, self._said_bytes = [], 0
        self._outbox = Outbox(self.number, self._life, self._timing.record_bytes_max)
        return said

    # What can be seen -----------------------------------------------------------------------------

    @property
    def nodes(self) -> int:
        """How many nodes take part, as this one sees it."""
        return max(1, len(self.view.members))

    @property
    def refusal(self) -> str | None:
        """Why the others do not let this node in."""
        return self._joining.refusal if self.standing is Standing.JOINING else None

    @property
    def is_waiting(self) -> bool:
        """Something of it has not come back from the log."""
        return len(self._outbox) > 0 or self.standing is Standing.JOINING

    @property
    def waiting_bytes(self) -> int:
        """What was said here and has not come back."""
        return self._outbox.bytes + self._said_bytes

    @property
    def unseen(self) -> Mapping[str, Replica]:
        """The meshes that have no connections here."""
        return {n: its for n, its in self.view.replicas.items() if n not in self.meshes}
