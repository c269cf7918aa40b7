"""A mesh whose connections all end in this process: a gate and a mesh in one.

An item that passes the gate is applied at once. So both run in one round, and nothing is copied.

Tell it what happens to connections, and at which `Instant`. Connections are named by number.
`take_effects()` returns what must be done, in order (protocol.mesh.effects).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from protocol.envelope import Announcement, Header, Inbound, Text
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.commands import Command
from protocol.mesh.effects import Effect
from protocol.mesh.flow import Flow, Way
from protocol.mesh.gate import Gate
from protocol.mesh.items import Admission, Decided, Entrance, Question, Visitor, admit_all
from protocol.mesh.lifecycle import Cause, PeerState
from protocol.mesh.mesh import Mesh
from protocol.mesh.resuming import Resumptions
from protocol.mesh.roster import Peer
from protocol.mesh.routing import Route
from protocol.mesh.status import ConnectionStatus, PeerStatus, Totals
from protocol.mesh.visiting import Visits


class LocalMesh:
    """One mesh in one process, and every decision about it. Never waits. Not thread-safe.

    It is itself the `Items` between its gate and its mesh. `admit`: asked before somebody joins.
    `new_token`: makes a text that nobody can guess; without it no connection may come back.
    `visits`: decides about what is said without a connection. `decides_later`: what passes the gate
    is on its way for a while, from `pass_on` on.
    """

    decides_later = False

    def __init__(
        self,
        limits: Limits,
        *,
        strict: bool = False,
        admit: Admission = admit_all,
        new_token: Callable[[], str] | None = None,
    ) -> None:
        self.first_id = 0  # the numbers of connections are higher
        self._effects: list[Effect] = []
        resumptions = None
        if new_token is not None and limits.resume_s:
            resumptions = Resumptions(limits.resume_s, new_token)
        self.gate = Gate(
            limits,
            self,
            self._effects_of_gate(),
            strict=strict,
            admit=admit,
            resumptions=resumptions,
        )
        self.returns = self.gate.returns
        self.codec = self.gate.codec
        self.work = self.gate.answers.work
        self.mesh = Mesh(limits, self._effects, self.work)
        self.unfinished = self.gate.unfinished
        self.said = self.mesh.said  # the item that comes most of all, hence directly
        self.visits = Visits(limits, self.codec, self, self.gate.totals, self.gate.kinds)

    def _effects_of_gate(self) -> list[Effect]:
        """Where the gate puts its effects: between those of the mesh."""
        return self._effects

    # What happens to connections, as the gate has it ----------------------------------------------

    def opened(self, id: int, now: Instant, *, is_paced: bool = False, grant: Grant = OPEN) -> None:
        """A connection was opened. `id` must be new. `is_paced`: an edge limits its frames.
        `grant`: what it may do."""
        self.gate.opened(id, now, is_paced=is_paced, grant=grant)

    def received(self, id: int, messages: Sequence[Inbound], now: Instant) -> int:
        """Messages arrived on a connection, in this order. An unknown connection is ignored.

        While the connection is in `unfinished`, more of an array waits: call this again, with or
        without messages.

        Returns how many messages were decided: the elements of an array count each. What some of
        them cost more than others is in `work` and `codec`.
        """
        return self.gate.received(id, messages, now)

    def heard(self, id: int, now: Instant) -> None:
        """A sign of life, for example a message that still waits to be `received`."""
        self.gate.heard(id, now)

    def ponged(self, id: int, now: Instant) -> None:
        """A WebSocket pong arrived."""
        self.gate.ponged(id, now)

    def fell_behind(self, id: int, now: Instant) -> None:
        """So much waits for a connection that it is too far behind its pace (`Backlog`)."""
        self.gate.lagging(id, now, is_lagging=True)

    def caught_up(self, id: int, now: Instant) -> None:
        """A connection is behind no more, or goes on with another socket."""
        self.gate.lagging(id, now, is_lagging=False)

    def lost(self, id: int, code: int, now: Instant) -> bool:
        """The socket of a connection is gone, with this close code. True: it may come back. Else it
        is over."""
        if self.gate.lost(id, code, now):
            return True
        self.ended(id, Cause.LEFT, now)
        return False

    def ended(self, id: int, cause: Cause, now: Instant) -> None:
        """A connection is over. Calling it again changes nothing."""
        self.gate.ended(id, cause, now)

    def shut_down(self, now: Instant) -> None:
        """Dismiss everybody at once. Nobody stays, so nobody is told who leaves."""
        self.mesh.clear()
        self.gate.shut_down(now)

    def begin(self, wake: Callable[[], None]) -> None:
        """Connections may come. `wake`: called if something happens without them."""

    def end(self) -> None:
        """No connection is left, and none comes any more."""

    def deadline(self) -> float | None:
        """When (monotonic seconds) to call `expire`. It may be too early. None: never."""
        return self.gate.deadline()

    def expire(self, now: Instant) -> None:
        """Let time pass: carry out everything whose deadline is at or before `now`."""
        self.gate.expire(now)

    def pass_on(self) -> None:
        """Let what has passed the gate go. Here it was decided at once."""

    # Items, from the gate to the mesh -------------------------------------------------------------

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
        """Apply a presence, and tell the gate what came of it. Raises Refusal."""
        replaced = self.mesh.present(connection, header, text, said, now, entrance=entrance)
        assert header.sender is not None  # or it would not have been accepted
        self.gate.accepted(connection, header.sender, said, now)
        self.gate.agents_said(connection, said.agents or ())
        for id in replaced:
            self.gate.replaced(id, now)

    def visited(  # noqa: PLR0917 (as `said`, and one more)
        self,
        visitor: Visitor,
        header: Header,
        text: Text,
        route: Route,
        now: Instant,
        then: Decided,
    ) -> None:
        """Apply what a visitor says. Raises Refusal."""
        then(self.mesh.visited(visitor, header, text, route, now))

    def beat(self, connection: int, header: Header, said: Announcement, now: Instant) -> None:
        """Apply a heartbeat, and tell the gate its agents. Raises Refusal."""
        self.mesh.beat(connection, header, said, now)
        if said.agents is not None:
            self.gate.agents_said(connection, said.agents)

    def asked(self, connection: int, question: Question, now: Instant) -> None:
        """Answer a question."""
        self.mesh.asked(connection, question, now)

    def lagging(self, connection: int, now: Instant, *, is_lagging: bool) -> None:
        """Apply that a connection has fallen behind, or has caught up."""
        self.mesh.audiences.laggards.note(connection, now, is_lagging=is_lagging)

    def gone(self, connection: int, cause: Cause, now: Instant) -> None:
        """Apply the end of a connection."""
        self.mesh.gone(connection, cause, now)

    def is_open(self, id: int) -> bool:
        """The connection is not over."""
        return id in self.gate.connections

    @property
    def is_empty(self) -> bool:
        """Nobody is here."""
        return not self.mesh.roster.peers

    @property
    def peers(self) -> int:
        """How many peers are here."""
        return len(self.mesh.roster.peers)

    @property
    def alive_at(self) -> float:
        """The last sign of life of any peer that is here; without peers when the last one left.

        Monotonic seconds; infinitely long ago if nobody was ever here.
        """
        if self.is_empty:
            return self.mesh.left_at
        here = (its.heard_at for its in self.gate.connections.values() if its.peer is not None)
        return max(here, default=self.mesh.left_at)

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept: what the mesh keeps, and announcements that wait."""
        return self.mesh.kept_bytes + self.gate.announcer.held_bytes

    @property
    def is_full(self) -> bool:
        """So much of it is not decided yet that it should be told no more messages."""
        return False

    @property
    def has_effects(self) -> bool:
        """`take_effects` would return something."""
        return bool(self._effects)

    def settle(self) -> None:
        """More than a little (protocol.mesh.recalling) has been said since the last call."""
        self.mesh.recent.settle()

    # What comes of it -----------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """What must be done, in order: everything that was decided since the last call."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    @property
    def totals(self) -> Totals:
        """What gate and mesh have counted so far."""
        return self._totals_with(self.mesh.totals)

    def _totals_with(self, decided: Totals) -> Totals:
        totals = self.gate.totals + decided
        totals.types = Counter({type: kind.count for type, kind in self.gate.kinds.items()})
        return totals

    def peer_of(self, id: int) -> str | None:
        """The peer id of a connection. None if it has none, or if it is over."""
        connection = self.gate.connections.get(id)
        return connection.peer if connection is not None else None

    def status(self, now: Instant) -> tuple[PeerStatus, ...]:
        """Who is here, as immutable data."""
        return tuple(self._status_of(peer, now) for peer in self.mesh.roster.peers.values())

    def states(self) -> Counter[str]:
        """How many peers are in which state. May be called from any thread."""
        return Counter(
            min((one.life.state for one in here), key=_LIVELIEST_FIRST.index).value
            for peer in tuple(self.mesh.roster.peers.values())
            if (
                here := [
                    c for id in tuple(peer.connections) if (c := self.gate.connections.get(id))
                ]
            )
        )

    def watch(
        self, ways: int, now: Instant
    ) -> tuple[tuple[Command, ...], list[tuple[Way, int]], int]:
        """The commands, so many of the largest flows, and since when (Unix milliseconds) these are
        counted: from the first call on, until `unwatch`."""
        flow = self.mesh.flow = self.mesh.flow or Flow(now)
        return self.mesh.commands.all(), flow.most(ways, now), flow.since_ms

    def unwatch(self) -> None:
        """Nobody watches: no flow is counted."""
        self.mesh.flow = None

    def _status_of(self, peer: Peer, now: Instant) -> PeerStatus:
        gate = self.gate
        # A peer of a federation may have connections at other nodes, which know more of them.
        connections = [c for id in peer.connections if (c := gate.connections.get(id)) is not None]
        return PeerStatus(
            peer.id,
            min(
                (c.life.state for c in connections),
                key=_LIVELIEST_FIRST.index,
                default=PeerState.PRESENT,
            ),
            tuple(agent.id for agent in peer.agents if agent.id is not None),
            tuple(
                ConnectionStatus(
                    c.id, c.life.state, max(0.0, now.at - c.heard_at), c.heard_at, c.received
                )
                for c in connections
            ),
            peer.presence,
        )


_LIVELIEST_FIRST: Final = (
    PeerState.PRESENT,
    PeerState.STALE,
    PeerState.CONNECTING,
    PeerState.REAPED,
)
