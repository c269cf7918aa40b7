"""One mesh without any I/O: what happened goes in, what must be done comes out.

`Mesh` is the whole protocol. Its owner tells it what happens to connections (named by number) and
at what `Instant`; it decides at once and completely, and `take_effects()` returns what is to be
done, in order:

    Deliver, Snapshot   texts and who receives them               (protocol.routing)
    Admitted            from here on this connection receives what goes to everyone
    Dismissed           from here on it does not; its socket is to be closed with `code`
    PeerJoined, PeerLeft, Refused    nothing to do; for logs and for people who watch

The order of effects is the order on the wire, for every receiver.

A message passes `received` in this order: rate limit, header, then by type (`ROUTES`): presence,
heartbeat and capabilities have a method each, everything else gets its origin checked and leaves
as one `Deliver`.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Final

import attrs

from protocol import codec
from protocol.agents import Agent
from protocol.codec import Codec
from protocol.envelope import RELAY, ErrorCode, Header, Inbound, Refusal, Text, Unreadable
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import lifecycle, texts
from protocol.mesh.effects import (
    CLOSE_CODES,
    Admitted,
    Deliver,
    Dismissed,
    Effect,
    Everyone,
    Only,
    Others,
    PeerJoined,
    PeerLeft,
    Refused,
    Snapshot,
)
from protocol.mesh.lifecycle import (
    Announced,
    Cause,
    Ended,
    Hangup,
    Heard,
    Join,
    Leave,
    PeerState,
    Renew,
)
from protocol.mesh.roster import Connection, Peer, Roster, merge
from protocol.mesh.routing import ANY_OTHER_TYPE, ROUTES, Route
from protocol.mesh.status import ConnectionStatus, PeerStatus, Totals

_EVERYONE: Final = Everyone()
_TYPES: Final = tuple(type for type, route in ROUTES.items() if route is not Route.NOBODY)


class Mesh:
    """The state of one mesh, and every decision about it. Not thread-safe; never waits."""

    def __init__(self, limits: Limits, *, strict: bool = False) -> None:
        self.limits = limits
        self.roster = Roster()
        self.totals = Totals()
        self._codec = Codec(limits)
        self._routes = dict(ROUTES)
        self._rate_interval_s = 1 / limits.messages_per_s
        self._rate_burst_s = (limits.messages_burst + 0.5) * self._rate_interval_s  # (rounding)
        self._any_other_type = None if strict else ANY_OTHER_TYPE
        self._effects: list[Effect] = []
        # One valid entry per connection, at or before its true deadline: nothing to cancel, and a
        # message costs nothing here.
        self._deadlines: list[tuple[float, int]] = []

    # What happens -------------------------------------------------------------------------------

    def opened(self, id: int, now: Instant, *, is_paced: bool = False) -> None:
        """A socket was accepted. `id` must be new. `is_paced`: an edge limits its frames."""
        if id in self.roster.connections:
            raise ValueError(f"connection {id} is already open")
        connection = Connection(id, lifecycle.opened(now.at), now.at, is_paced=is_paced)
        self.roster.connections[id] = connection
        self._schedule(connection)

    def received(self, id: int, messages: Sequence[Inbound], now: Instant) -> None:
        """Messages arrived on a connection, in this order. Unknown or ended connections:
        ignored."""
        connection = self.roster.connections.get(id)
        if connection is None:
            return
        self._hear(connection, now)
        self._receive(connection, messages, now)

    def _receive(
        self,
        connection: Connection,
        messages: Sequence[Inbound],
        now: Instant,
        *,
        in_batch: bool = False,
    ) -> None:
        fresh = len(messages) - in_batch  # an array has counted already, as its first message
        self.totals.received += fresh
        # The rate limit as one number, the theoretical arrival time of the next message (GCRA):
        # as far ahead of now as the burst allows, and no further.
        due = max(connection.rate_due_at, now.at) + fresh * self._rate_interval_s
        if due - now.at <= self._rate_burst_s:
            connection.rate_due_at = due
        else:
            messages = self._within_rate(connection, messages, now, counted=in_batch)
        decode = self._codec.header
        routes, any_other_type = self._routes, self._any_other_type
        message_bytes_max = self.limits.message_bytes_max
        effect = self._effects.append
        for message in messages:
            try:
                if message.__class__ is not bytes:
                    assert isinstance(message, Unreadable)
                    raise Refusal(message.code, message.sentence)
                if len(message) > message_bytes_max:
                    sentence = f"a message has at most {message_bytes_max} bytes"
                    raise Refusal(ErrorCode.TOO_LARGE, sentence)
                header = decode(message)
                route = routes.get(header.type)
                if route is None:
                    self._check_name(header.type, "type")
                    route = any_other_type
                peer = connection.peer
                if peer is None:
                    self._before_presence(connection, header, message, now)
                elif route is Route.OTHERS:
                    effect(Deliver(self._with_origin(peer, header, message), peer.others))
                    self.totals.relayed += 1
                elif route is Route.TARGET:
                    self._direct(peer, header, message)
                elif route is Route.EVERYONE:
                    self._presence(connection, header, message, now)
                elif route is Route.RELAY:
                    self._for_the_relay(connection, peer, header, message, now)
                elif route is Route.NOBODY:
                    self.totals.withheld += 1
                else:
                    sentence = f"type {header.type!r} is not in the vocabulary"
                    raise Refusal(ErrorCode.UNKNOWN_TYPE, sentence)
            except Refusal as refusal:
                if refusal.code is ErrorCode.NOT_AN_OBJECT and not in_batch:
                    self._receive_array(connection, message, refusal, now)
                else:
                    self._refuse(connection, message, refusal, now)

    def _receive_array(
        self, connection: Connection, message: Inbound, refusal: Refusal, now: Instant
    ) -> None:
        """Many messages in one frame, in the place of that frame; or none, and then a refusal."""
        assert isinstance(message, bytes)
        try:
            batch = self._codec.batch(message)
        except Refusal as too_many:
            batch, refusal = [], too_many
        if batch:
            self._receive(connection, batch, now, in_batch=True)
        else:
            self._refuse(connection, message, refusal, now)

    def heard(self, id: int, now: Instant) -> None:
        """A sign of life: of messages that wait to be `received`, for instance."""
        connection = self.roster.connections.get(id)
        if connection is not None:
            self._hear(connection, now)

    def ponged(self, id: int, now: Instant) -> None:
        """A WebSocket pong arrived: a sign of life of those who asked for that."""
        connection = self.roster.connections.get(id)
        if connection is not None and connection.keepalive_pong:
            self._hear(connection, now)

    def ended(self, id: int, cause: Cause, now: Instant) -> None:
        """A connection is over. Twice is once."""
        connection = self.roster.connections.get(id)
        if connection is not None:
            self._apply(
                connection, lifecycle.transition(connection.life, Ended(now.at, cause)), now
            )

    def shut_down(self, now: Instant) -> None:
        """Everybody is dismissed at once; since nobody stays, nobody is told who goes."""
        for connection in tuple(self.roster.connections.values()):
            step = lifecycle.transition(connection.life, Ended(now.at, Cause.SHUTDOWN))
            self.roster.detach(connection)
            self._apply(connection, attrs.evolve(step, effects=(Hangup(Cause.SHUTDOWN),)), now)

    def deadline(self) -> float | None:
        """When (monotonic seconds) `expire` has something to do; None: never. May be too early."""
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: Instant) -> None:
        """Let time pass: everything whose deadline is at or before `now` happens."""
        while self._deadlines and self._deadlines[0][0] <= now.at:
            at, id = heapq.heappop(self._deadlines)
            connection = self.roster.connections.get(id)
            if connection is None or connection.deadline_at != at:
                continue  # it ended, or an earlier deadline has taken the place of this one
            connection.deadline_at = math.inf
            life = connection.life
            if connection.heard_at > life.since:
                # What a present peer says is only noted as it comes in, and told to the table here.
                life = lifecycle.transition(life, Heard(connection.heard_at)).life
            self._apply(connection, lifecycle.expire(life, now.at, self.limits), now)

    def take_effects(self) -> list[Effect]:
        """What is to be done since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def peer_of(self, id: int) -> str | None:
        """The peer id of a connection; None if it has none, or is over."""
        connection = self.roster.connections.get(id)
        return connection.peer.id if connection is not None and connection.peer else None

    def status(self, now: Instant) -> tuple[PeerStatus, ...]:
        """Who is here, as immutable data."""
        return tuple(
            PeerStatus(
                peer.id,
                min((c.life.state for c in peer.connections.values()), key=_LIVELIEST_FIRST.index),
                tuple(agent.id for agent in peer.agents if agent.id is not None),
                tuple(
                    ConnectionStatus(c.id, c.life.state, max(0.0, now.at - c.heard_at))
                    for c in peer.connections.values()
                ),
            )
            for peer in self.roster.peers.values()
        )

    # Life ---------------------------------------------------------------------------------------

    def _hear(self, connection: Connection, now: Instant) -> None:
        connection.heard_at = now.at
        if connection.life.state is not PeerState.PRESENT:
            self._apply(connection, lifecycle.transition(connection.life, Heard(now.at)), now)

    def _apply(self, connection: Connection, step: lifecycle.Step, now: Instant) -> None:
        """Carry out the effects of a transition that are not about an announcement."""
        connection.life = step.life
        for effect in step.effects:
            match effect:
                case Leave(cause):
                    self._leave(connection, cause, now)
                case Hangup(cause):
                    del self.roster.connections[connection.id]
                    self._effects.append(Dismissed(connection.id, cause, CLOSE_CODES[cause]))
                case Join() | Renew():
                    raise AssertionError("only an announcement joins or renews")
        self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        due = lifecycle.deadline(connection.life, self.limits)
        if due is not None and due < connection.deadline_at:
            connection.deadline_at = due
            heapq.heappush(self._deadlines, (due, connection.id))

    def _leave(self, connection: Connection, cause: Cause, now: Instant) -> None:
        peer = connection.peer
        assert peer is not None
        if self.roster.detach(connection):
            self.totals.left += 1
            text = texts.offline_text(peer.id, cause.value, now.wall_ms)
            # It is still among those who receive, until `Dismissed`.
            self._effects.append(Deliver(text, Others((connection.id,))))
            self._effects.append(PeerLeft(peer.id, cause))
        elif self.roster.set_agents(peer, merge([c.agents for c in peer.connections.values()])):
            peer.presence = texts.presence_with(peer.presence, peer.agents)
            self._effects.append(Deliver(peer.presence, Others((connection.id,))))
            peer.presence_at = now.at

    # Messages -----------------------------------------------------------------------------------

    def _within_rate(
        self,
        connection: Connection,
        messages: Sequence[Inbound],
        now: Instant,
        *,
        counted: int,
    ) -> Sequence[Inbound]:
        """As many of the messages as the rate limit lets through; the rest is refused as one.

        `counted`: so many of them have been let through before.
        """
        limits = self.limits
        due = max(connection.rate_due_at, now.at)
        passed = max(0, int((now.at + self._rate_burst_s - due) / self._rate_interval_s))
        passed = min(passed, len(messages) - counted)
        connection.rate_due_at = due + passed * self._rate_interval_s
        passed += counted
        dropped = len(messages) - passed
        if not dropped:  # rounded the other way than the quick check
            return messages
        sentence = f"more than {limits.messages_per_s:g} messages a second; some were dropped"
        refusal = Refusal(ErrorCode.RATE_LIMITED, sentence)
        if now.at - connection.rate_error_at >= limits.rate_error_every_s:
            connection.rate_error_at = now.at
            self._refuse(connection, None, refusal, now, dropped)
        else:
            self._note_refusal(connection, refusal.code, dropped, now)
        return messages[:passed]

    def _with_origin(self, peer: Peer, header: Header, text: Text) -> Text:
        """The text, from which every receiver can tell the origin peer: `instanceId`, else `from`.

        Raises Refusal: `spoofed`, `too_long`.
        """
        sender, instance = header.sender, header.instance_id
        if instance is not None and instance != peer.id:
            self._check_name(instance, "instanceId")
            sentence = f"`instanceId` {instance!r} is not this peer's id, which is {peer.id!r}"
            raise Refusal(ErrorCode.SPOOFED, sentence)
        if sender == peer.id:
            return text
        if sender is None:
            return texts.with_fields(text, **{"from": peer.id})
        self._check_name(sender, "from")
        if sender in self.roster.peers or sender == RELAY:
            raise Refusal(ErrorCode.SPOOFED, f"`from` {sender!r} is somebody else")
        if instance is None:
            return texts.with_fields(text, instanceId=peer.id)
        return text

    def _direct(self, peer: Peer, header: Header, text: Text) -> None:
        text = self._with_origin(peer, header, text)
        if header.target_instance_id is not None:
            self._check_name(header.target_instance_id, "targetInstanceId")
        elif header.to is not None:
            self._check_name(header.to, "to")
        target = self.roster.resolve(peer, header)
        if target is not None:
            self._effects.append(Deliver(text, target.only))
            self.totals.relayed += 1

    def _before_presence(
        self, connection: Connection, header: Header, text: Text, now: Instant
    ) -> None:
        if header.type == "presence":
            self._presence(connection, header, text, now)
        elif header.type == "capabilities":
            self._capabilities(connection, text, now)
        else:
            raise Refusal(ErrorCode.NOT_PRESENT, "announce yourself first: send a `presence`")

    def _presence(self, connection: Connection, header: Header, text: Text, now: Instant) -> None:
        id = self._identity(connection, header)
        said = self._codec.announcement(text)
        agents = said.agents if said.agents is not None else ()
        peer = self.roster.peers.get(id)
        union = peer.union_with(connection, agents) if peer is not None else agents
        self._check_agents(union)
        if not said.has_data or union != agents:
            text = texts.presence_with(text, union if union != agents else None)
        self._check_presence(text)

        step = lifecycle.transition(connection.life, Announced(now.at))
        connection.life = step.life
        self._schedule(connection)
        connection.agents = agents
        connection.keepalive_pong = said.keepalive_pong
        newcomer = step.effects == (Join(),)
        is_new = peer is None
        peer = self.roster.attach(connection, id)
        self.roster.set_agents(peer, union)
        peer.presence = text
        peer.presence_at = now.at

        if newcomer:
            self._effects.append(Admitted(connection.id, said.accepts_batches))
        self._effects.append(Deliver(text, _EVERYONE))
        self.totals.relayed += 1
        if newcomer:
            self._effects.append(Snapshot(connection.id, self.roster.presences(without=peer)))
        if is_new:
            self.totals.joined += 1
            self._effects.append(PeerJoined(id, connection.id, len(peer.agents)))

    def _for_the_relay(
        self, connection: Connection, peer: Peer, header: Header, text: Text, now: Instant
    ) -> None:
        if header.type == "capabilities":
            self._capabilities(connection, text, now)
        else:
            self._heartbeat(connection, peer, header, text, now)

    def _heartbeat(
        self, connection: Connection, peer: Peer, header: Header, text: Text, now: Instant
    ) -> None:
        """Not forwarded. But clients forget whom they do not hear, so the presence is repeated."""
        self._with_origin(peer, header, text)
        said = self._codec.announcement(text)
        if said.agents is not None and said.agents != connection.agents:
            union = peer.union_with(connection, said.agents)
            self._check_agents(union)
            presence = texts.presence_with(peer.presence, union)
            self._check_presence(presence)
            connection.agents = said.agents
            if self.roster.set_agents(peer, union):
                peer.presence, peer.presence_at = presence, -math.inf
        if now.at - peer.presence_at >= self.limits.presence_refresh_s:
            peer.presence_at = now.at
            self._effects.append(Deliver(peer.presence, peer.others))

    def _capabilities(self, connection: Connection, text: Text, now: Instant) -> None:
        to = connection.peer.id if connection.peer is not None else None
        turn_id = self._codec.turn_id(text)
        answer = texts.capabilities_text(
            to, turn_id, _TYPES, self.limits, now.wall_ms, is_paced=connection.is_paced
        )
        self._effects.append(Deliver(answer, Only((connection.id,))))

    # Checks -------------------------------------------------------------------------------------

    def _identity(self, connection: Connection, header: Header) -> str:
        """The peer id that a presence announces."""
        id = header.sender
        if id is None:
            raise Refusal(ErrorCode.BAD_FIELD, "a presence needs `from`, the peer's id")
        self._check_name(id, "from")
        if connection.peer is not None and id != connection.peer.id:
            sentence = f"this connection belongs to peer {connection.peer.id!r}"
            raise Refusal(ErrorCode.IDENTITY_FIXED, sentence)
        if id == RELAY or header.instance_id not in (None, id):
            sentence = f"{RELAY!r} is the relay's own name, and `instanceId` must equal `from`"
            raise Refusal(ErrorCode.SPOOFED, sentence)
        return id

    def _check_agents(self, agents: Sequence[Agent]) -> None:
        if len(agents) > self.limits.agents_max:
            raise codec.too_many_agents(len(agents), self.limits)
        for agent in agents:
            if agent.id is not None:
                self._check_name(agent.id, "data.agents")
            if agent.id == RELAY:
                raise Refusal(ErrorCode.SPOOFED, f"{RELAY!r} is the relay's own name")

    def _check_presence(self, text: Text) -> None:
        if len(text) > self.limits.presence_bytes_max:
            raise codec.presence_too_large(self.limits)

    def _check_name(self, name: str, field: str) -> None:
        if not name:
            raise Refusal(ErrorCode.BAD_FIELD, f"`{field}` is empty")
        if len(name) > self.limits.id_chars_max:
            sentence = f"`{field}` has {len(name)} characters, {self.limits.id_chars_max} at most"
            raise Refusal(ErrorCode.TOO_LONG, sentence)

    def _refuse(
        self,
        connection: Connection,
        message: Inbound | None,
        refusal: Refusal,
        now: Instant,
        count: int = 1,
    ) -> None:
        """Tell the sender, and nobody else."""
        turn_id = self._codec.turn_id(message) if isinstance(message, bytes) else None
        to = connection.peer.id if connection.peer is not None else None
        text = texts.error_text(refusal, to, turn_id, now.wall_ms)
        self._effects.append(Deliver(text, Only((connection.id,))))
        self._note_refusal(connection, refusal.code, count, now)

    def _note_refusal(
        self, connection: Connection, code: ErrorCode, count: int, now: Instant
    ) -> None:
        self.totals.refused += count
        connection.refusals += count
        if now.at - connection.refusal_logged_at >= self.limits.refusal_log_every_s:
            peer = connection.peer.id if connection.peer is not None else None
            self._effects.append(Refused(connection.id, peer, code, connection.refusals))
            connection.refusals, connection.refusal_logged_at = 0, now.at


_LIVELIEST_FIRST: Final = (
    PeerState.PRESENT,
    PeerState.STALE,
    PeerState.CONNECTING,
    PeerState.REAPED,
)
