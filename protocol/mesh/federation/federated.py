"""A mesh as the supervisor of one node sees it: a gate of this node, and a replica of the mesh.

What passes the gate is collected, and `take_effects` hands it to the node, which appends it to the
log. When it has come back, `decided` applies it, and tells the gate what came of it: as in one
process, only later. In between a connection that has announced itself speaks as that peer
(`Gate.entering`).

The replica has the connections of all nodes. Their numbers begin with the number of the node.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from protocol import refusals
from protocol.envelope import Announcement, Header, Refusal, Text
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.answers import Make
from protocol.mesh.connection import Connection
from protocol.mesh.effects import Deliver, Dismissed, Effect, Only
from protocol.mesh.federation.records import Beat, Gone, Item, Lags, Present, Said, Visited
from protocol.mesh.federation.replica import Fault, Outcome, Replica
from protocol.mesh.federation.share import share
from protocol.mesh.items import Admission, Decided, Entrance, Question, Visitor, admit_all
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.routing import Route
from protocol.mesh.status import Totals

Local = Callable[[Outcome, Instant], None]
"""Something to do at this node alone, behind an item: gets what came of that, and when."""
Step = Item | Local


class _OfGate(list[Effect]):
    """Effects of the gate go where they come between items: no answer overtakes another one."""

    def __init__(self, put: Callable[[Effect], None]) -> None:
        self._put = put

    def append(self, effect: Effect) -> None:
        self._put(effect)


@attrs.frozen
class _Answer:
    """A step: the gate answers a connection. `make`: gets the peer of the connection."""

    connection: Connection
    make: Make
    mesh: "FederatedMesh"

    def __call__(self, _: Outcome, at: Instant) -> None:
        if self.connection.id in self.mesh.gate.connections:
            self.give()

    def give(self) -> None:
        text = self.make(self.connection.peer)
        self.mesh._effects.append(Deliver((text,), Only((self.connection.id,))))


class Owner(Protocol):
    """The node of a mesh, as far as the mesh knows it."""

    @property
    def is_full(self) -> bool:
        """So much waits for the log that nothing more should be said."""
        ...

    def say(self, mesh: "FederatedMesh", steps: Sequence[Step], now: Instant) -> None:
        """This has passed the gate of a mesh until now, in this order."""
        ...

    def enter(self, mesh: "FederatedMesh") -> None:
        """This mesh gets connections."""
        ...

    def leave(self, mesh: "FederatedMesh") -> None:
        """It has none any more."""
        ...


class FederatedMesh(LocalMesh):
    """One mesh of a federation at one node.

    `replica`: its state at this node; it may become another one (`bind`). `node`: takes what has
    passed the gate. `first_id`: the numbers of its connections are higher.
    """

    decides_later = True

    def __init__(
        self,
        name: str,
        limits: Limits,
        replica: Replica,
        node: "Owner",
        *,
        first_id: int,
        strict: bool = False,
        admit: Admission = admit_all,
        new_token: Callable[[], str] | None = None,
    ) -> None:
        self._steps: list[Step] = []
        self._is_deciding = False
        super().__init__(limits, strict=strict, admit=admit, new_token=new_token)
        self.name = name
        self.first_id = first_id
        self.wake: Callable[[], None] = lambda: None
        self._limits = limits
        self._node = node
        self._now = Instant(0.0, 0)  # of the latest of these
        self._own_totals, self._others_totals = Totals(), Totals()
        self.last_id = first_id
        self.said = self._said
        self.gate.answers.later = self._answer_later
        self.bind(replica)

    def begin(self, wake: Callable[[], None]) -> None:
        """Connections may come. From here on they hear what happens in the mesh, and `wake` is
        called when they have something to hear, or there is room again."""
        self.wake = wake
        self._node.enter(self)

    def end(self) -> None:
        """No connection is left. What they have said last is still on its way."""
        self.pass_on()
        self._node.leave(self)

    def bind(self, replica: Replica) -> None:
        """From here on this is its state."""
        self.replica = replica
        self.mesh = replica.mesh

    def opened(self, id: int, now: Instant, *, is_paced: bool = False, grant: Grant = OPEN) -> None:
        """A connection was opened, as in one process."""
        self.last_id = max(self.last_id, id)
        super().opened(id, now, is_paced=is_paced, grant=grant)

    def _effects_of_gate(self) -> list[Effect]:
        return _OfGate(self._put)

    def _put(self, effect: Effect) -> None:
        """An effect of the gate. An answer waits for the items before it, unless it is about one
        that is just decided; the end does not."""
        if isinstance(effect, Deliver) and not self._is_deciding:
            assert isinstance(effect.audience, Only)
            [id] = effect.audience.connections
            [text] = effect.texts
            self._steps.append(_Answer(self.gate.connections[id], lambda _: text, self))
            return
        if isinstance(effect, Dismissed):
            self._answer_last(effect.connection)
        self._effects.append(effect)

    def _answer_later(self, connection: Connection, make: Make) -> None:
        answer = _Answer(connection, make, self)
        if self._is_deciding:
            answer.give()
        else:
            self._steps.append(answer)

    def _answer_last(self, connection: int) -> None:
        """Answers to this connection cannot wait any longer."""
        for one in tuple(self._steps):
            if isinstance(one, _Answer) and one.connection.id == connection:
                self._steps.remove(one)
                one.give()

    # Items, from the gate to the log --------------------------------------------------------------

    def _said(
        self, connection: int, header: Header, messages: Sequence[Text], route: Route, now: Instant
    ) -> None:
        is_direct = route is Route.TARGET
        self._steps += [Said.of(connection, header, text, is_direct=is_direct) for text in messages]
        self._now = now

    def visited(  # noqa: PLR0917 (as `said`, and one more)
        self,
        visitor: Visitor,
        header: Header,
        text: Text,
        route: Route,
        now: Instant,
        then: Decided,
    ) -> None:
        """Pass on what a visitor says."""
        said = Said.of(0, header, text, is_direct=route is Route.TARGET)
        self._steps.append(Visited(visitor.peer, visitor.is_proven, said))

        def tell(outcome: Outcome, _: Instant) -> None:
            if not isinstance(outcome, int | Refusal):
                outcome = refusals.undecided()
            then(outcome)

        self._steps.append(tell)
        self._now = now

    def present(
        self,
        connection: int,
        header: Header,
        text: Text,
        said: Announcement,
        now: Instant,
        *,
        entrance: Entrance,
    ) -> None:
        """Pass on a presence."""
        assert header.sender is not None  # or the gate would have refused it
        self._steps.append(Present.of(connection, header, text, said, entrance))
        self._now = now
        self.gate.entering(connection, header.sender)
        self.gate.agents_said(connection, said.agents or ())

    def beat(self, connection: int, header: Header, said: Announcement, now: Instant) -> None:
        """Pass on a heartbeat."""
        self._steps.append(Beat.of(connection, header, said))
        self._now = now
        if said.agents is not None:
            self.gate.agents_said(connection, said.agents)

    def asked(self, connection: int, question: Question, now: Instant) -> None:
        """Answer a question when everything is decided that the connection has said before."""

        def answer(_: Outcome, at: Instant) -> None:
            its = self.gate.connections.get(connection)
            if its is not None:
                self.mesh.asked(connection, question.of(its.peer), at)
                self._share(self)

        self._steps.append(answer)
        self._now = now

    def lagging(self, connection: int, now: Instant, *, is_lagging: bool) -> None:
        """Pass on that a connection has fallen behind, or has caught up."""
        self._steps.append(Lags(connection, is_lagging))
        self._now = now

    def gone(self, connection: int, cause: Cause, now: Instant) -> None:
        """Pass on the end of a connection."""
        self._steps.append(Gone(connection, cause.value))
        self._now = now

    def shut_down(self, now: Instant) -> None:
        """Dismiss everybody here at once. The node says goodbye to the others."""
        self.pass_on()
        self.gate.shut_down(now)
        self._steps.clear()

    def pass_on(self) -> None:
        """Hand over what has passed the gate since the last call."""
        if self._steps:
            steps, self._steps = self._steps, []
            self._node.say(self, steps, self._now)

    # What comes back from the log -----------------------------------------------------------------

    def decided(
        self,
        steps: Sequence[Step],
        at: Instant,
        now: Instant,
        hearing: "FederatedMesh | None",
    ) -> list[Exception]:
        """What was said here is applied, at this time of the log; here it is now.

        `hearing`: whose connections hear of it, this mesh or its successor. Returns the faults that
        it met: these connections end.
        """
        outcome: Outcome = None
        faults = []
        replica = self.replica
        self.mesh.count_in(self._own_totals)
        self._is_deciding = True
        for step in steps:
            if isinstance(step, Item):
                outcome = replica.apply(step, at)
                if outcome is not None:
                    self._share(hearing)
                    self._tell(step, outcome, now)
                    if isinstance(outcome, Fault):
                        faults.append(outcome.error)
            else:
                self._share(hearing)
                step(outcome, at)
        self._is_deciding = False
        self.mesh.count_in(self._others_totals)
        self._share(hearing)
        return faults

    def happened(self, outcomes: Sequence[Outcome], now: Instant) -> None:
        """Items of another node were applied to the replica, and this came of them."""
        self._share(self)
        for outcome in outcomes:
            if isinstance(outcome, tuple):
                self._replace(outcome, now)

    def _share(self, hearing: "FederatedMesh | None") -> None:
        effects = self.replica.effects
        if hearing is None:
            effects.clear()
        elif effects:
            share(effects, hearing.gate.connections, hearing._effects)

    def _tell(self, item: Item, outcome: Outcome, now: Instant) -> None:
        """Tell the gate what came of an item of one of its connections."""
        gate = self.gate
        if isinstance(item, Visited):
            return
        connection = gate.connections.get(item.connection)
        if isinstance(outcome, Fault):
            gate.ended(item.connection, Cause.CRASHED, now)
        elif connection is None:  # it has ended meanwhile
            if isinstance(outcome, tuple):
                self._replace(outcome, now)
        elif isinstance(outcome, Refusal):
            assert isinstance(item, Said | Present | Beat)  # the others are not refused
            gate.refuse(connection, item.text, outcome, now)
            if isinstance(item, Present):
                gate.turned_away(item.connection, now)
            if isinstance(item, Present | Beat):
                gate.agents_said(item.connection, None)
        elif isinstance(item, Present) and isinstance(outcome, tuple):
            assert item.spoken.sender is not None  # or the gate would have refused it
            gate.accepted(item.connection, item.spoken.sender, item.spoken.announcement, now)
            self._replace(outcome, now)

    def _replace(self, connections: Sequence[int], now: Instant) -> None:
        for id in connections:
            self.gate.replaced(id, now)

    def expel(self, now: Instant) -> None:
        """This node takes part no more, so its connections end. What they have said last counts
        nowhere."""
        for id in tuple(self.gate.connections):
            self.gate.ended(id, Cause.UNREACHABLE, now)
        fail(self._steps)
        self._steps.clear()
        self.wake()

    # What comes of it -----------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """Hand over what has passed the gate. What must be done, in order: everything that was
        decided since the last call."""
        self.pass_on()
        return super().take_effects()

    @property
    def is_full(self) -> bool:
        """So much waits for the log that the gate should be told no more messages."""
        return self._node.is_full

    @property
    def totals(self) -> Totals:
        """What this gate has counted, and the mesh for what was said here."""
        return self._totals_with(self._own_totals)

    @property
    def alive_at(self) -> float:
        """As in one process, for the connections that end here."""
        here = (its.heard_at for its in self.gate.connections.values() if its.peer is not None)
        return max(here, default=float("-inf"))


def fail(steps: Sequence[Step]) -> None:
    """These are never applied. Whoever waits for what comes of them hears that."""
    for step in steps:
        if not isinstance(step, Item):
            step(refusals.undecided(), Instant(0.0, 0))
