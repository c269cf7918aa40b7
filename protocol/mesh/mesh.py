"""The mesh: decides everything that depends on who is here. Items go in, effects come out.

`Mesh` applies the items that pass the gates (protocol.mesh.items), one after the other, and decides
each at once and completely: who a peer is, where a message goes, which agents a peer has, when it
is offline. It reads no clock but the `now` of an item. So the same items in the same order give the
same effects.
"""

import math
from collections.abc import Sequence
from typing import Final

from protocol import refusals
from protocol.claims import Claim, same_owner
from protocol.codec import content
from protocol.envelope import NO_TURN, Announcement, ErrorCode, Header, Refusal, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import texts
from protocol.mesh.audiences import Audiences
from protocol.mesh.commands import Commands
from protocol.mesh.directory import EMPTY
from protocol.mesh.echoes import ECHO_STEP_BYTES, ECHOED, Echoes, key_of
from protocol.mesh.effects import (
    Admitted,
    Counted,
    Deliver,
    Effect,
    Everyone,
    Only,
    Others,
    PeerJoined,
    PeerLeft,
    Snapshot,
)
from protocol.mesh.flow import Flow
from protocol.mesh.items import Apart, Entrance, Question, Visitor
from protocol.mesh.lifecycle import Cause
from protocol.mesh.recalling import Recent
from protocol.mesh.refreshing import Refreshes
from protocol.mesh.roster import Connection, Peer, Roster
from protocol.mesh.routing import ROUTES, Route
from protocol.mesh.status import Totals
from protocol.mesh.visitors import NO_CONNECTION, speaker_of
from protocol.mesh.work import Work

_EVERYONE: Final = Everyone()
_TYPES: Final = tuple(
    type for type, route in ROUTES.items() if route not in (Route.NOBODY, Route.REFUSED)
)
_STEP_BYTES: Final = 256
"""To tell so many bytes about agents counts as much as to decide a message."""
_PRESENCES: Final = 16
"""So many presences for a newcomer count as a message: to write them costs about as much."""
_OTHERS: Final = Route.OTHERS  # looked up once: this costs a call


class Mesh:
    """Knows who is here and decides what depends on it. Appends what must be done to `effects`.

    It is an `Items` (protocol.mesh.items). A method that raises Refusal has changed nothing.
    """

    def __init__(self, limits: Limits, effects: list[Effect], work: Work | None = None) -> None:
        self.roster = Roster()
        self.echoes = Echoes(limits)
        self.totals = Totals()
        self.left_at = -math.inf  # when the last peer left, so that nobody was here (seconds)
        self._work = Work() if work is None else work
        self._limits = limits
        self._effects = effects
        self.recent = Recent(limits)
        self.refreshes = Refreshes(limits)
        self.audiences = Audiences(limits, effects, self._work, self.totals)
        self.commands = Commands(limits)
        self.flow: Flow | None = None  # while somebody watches

    def count_in(self, totals: Totals) -> None:
        """From here on it is counted there."""
        self.totals = totals
        self.audiences.count_in(totals)

    @property
    def kept_bytes(self) -> int:
        """All presences, and what is remembered of what was said and begun, and who wants what."""
        said = self.echoes.bytes + self.recent.bytes + self.commands.bytes
        return self.roster.presences.bytes + said + self.audiences.bytes

    # Messages -------------------------------------------------------------------------------------

    def said(
        self, connection: int, header: Header, messages: Sequence[Text], route: Route, now: Instant
    ) -> None:
        """Messages for others, all with this header.

        Raises Refusal: `not_present`, `spoofed`, `too_long`, `too_large`, for a direct
        `unknown_target`, `ambiguous_target`, `bad_field`, and for others `echoed`. Raises Apart if
        some of several could be refused alone.
        """
        entry = self.roster.connections.get(connection)
        if entry is None:
            raise refusals.not_present()
        count = len(messages)
        if count > 1 and self.roster.pages and header.type in ECHOED:
            raise Apart  # each may be an echo
        peer = entry.peer
        if header.sender != peer.id or header.instance_id is not None:
            messages = self._with_origin(peer, header, messages)
        if peer.extra_work:  # it is left out for each connection of its own peer
            self._work.extra += peer.extra_work * count
        if route is _OTHERS:
            if self.roster.pages and header.type in ECHOED:
                self._check_echo(entry, header.type, messages[0], now)
            if not self.audiences.differ:
                self._effects.append(Deliver(messages, peer.others))
            else:
                for text in messages:
                    audience = self.audiences.choose(self.roster, peer, header, text, now)
                    self._effects.append(Deliver((text,), audience))
            recent = self.recent
            if recent.now is not now:
                recent.begin(now)
            recent.fresh += messages
            self.totals.relayed += count
            if header.turn_id is not NO_TURN or self.flow is not None:
                self._show(peer, None, header, count, now)
            return
        target = self.roster.resolve(peer, header, self._limits)
        if target is not None:
            if self.audiences.differ:
                for text in messages:
                    self.audiences.laggards.begins(peer, header, text)
            self._effects.append(Deliver(messages, target.only))
            self.totals.relayed += count
            if header.turn_id is not NO_TURN or self.flow is not None:
                self._show(peer, target, header, count, now)
            if target.extra_work:
                self._work.extra += target.extra_work * count

    def _show(
        self, peer: Peer, target: Peer | None, header: Header, count: int, now: Instant
    ) -> None:
        """Note so many messages for whoever watches. `target`: None: everyone."""
        if header.turn_id is not NO_TURN:
            self.commands.said(peer.id, header, bytes(header.turn_id), now, count)
        if self.flow is not None:
            to = None if target is None else target.id
            self.flow.said(peer.id, to, header.type, now, count)

    def visited(
        self, visitor: Visitor, header: Header, text: Text, route: Route, now: Instant
    ) -> int:
        """A message for others, from somebody without a connection. Returns how many get it.

        Raises Refusal, as `said`, and `spoofed` for the name of somebody who is here.
        """
        effects, connections = self._effects, self.roster.connections
        before = len(effects)
        # So `said` need not know of visitors, and no other message pays for them.
        connections[NO_CONNECTION] = speaker_of(self.roster, visitor, header)
        try:
            self.said(NO_CONNECTION, header, (text,), route, now)
        finally:
            del connections[NO_CONNECTION]
        delivered = [effect for effect in effects[before:] if type(effect) is Deliver]
        # (Who is spared it was told so before.)
        return self.audiences.count(self.roster, delivered[-1].audience) if delivered else 0

    def _check_origin(self, peer: Peer, header: Header) -> None:
        """Raise Refusal (`spoofed`, `too_long`) if the message names another origin."""
        sender, instance = header.sender, header.instance_id
        if instance is not None and instance != peer.id:
            refusals.check_name(instance, "instanceId", self._limits)
            sentence = f"`instanceId` {instance!r} is not this peer's id, which is {peer.id!r}"
            raise Refusal(ErrorCode.SPOOFED, sentence)
        if sender is not None and sender != peer.id:
            refusals.check_name(sender, "from", self._limits)
            if sender in self.roster.peers:
                sentence = f"`from` must be this peer or one of its agents, not {sender!r}"
                raise Refusal(ErrorCode.SPOOFED, sentence)

    def _with_origin(self, peer: Peer, header: Header, messages: Sequence[Text]) -> Sequence[Text]:
        """The texts, with fields that tell every receiver the origin: `instanceId`, else `from`.

        The bound of a message holds for what is delivered, so a longer text is checked again.
        """
        if header.sender is None:
            if header.instance_id is not None:
                self._check_origin(peer, header)
            origin = {"from": peer.id}
        else:
            self._check_origin(peer, header)
            if header.instance_id is not None:
                return messages
            origin = {"instanceId": peer.id}
        messages = [texts.with_fields(text, **origin) for text in messages]
        if max(map(len, messages)) > self._limits.message_bytes_max:
            if len(messages) > 1:
                raise Apart
            raise refusals.too_large(self._limits, ", with the origin that the relay adds")
        return messages

    def _check_echo(self, entry: Connection, type: str, text: Text, now: Instant) -> None:
        """Raise Refusal (`echoed`) if a page sends again what others have said; else remember it.

        While no page is here, nobody comes here.
        """
        data, has_turn = content(text)
        key, peer = key_of(type, data), entry.peer.id
        self._work.extra += len(text) // ECHO_STEP_BYTES
        if entry.is_page and not has_turn and self.echoes.is_echo(key, peer, now.at):
            raise refusals.echoed(type)
        self.echoes.remember(key, peer, now.at)

    # Presences and heartbeats ---------------------------------------------------------------------

    def present(
        self,
        connection: int,
        header: Header,
        text: Text,
        said: Announcement,
        now: Instant,
        *,
        entrance: Entrance,
    ) -> tuple[int, ...]:
        """A connection announces a peer. Raises Refusal if the announcement is wrong.

        Returns the connections that it has replaced. They belong to nobody any more.
        """
        entry = self.roster.connections.get(connection)
        id = header.sender
        assert id is not None  # or the gate would have refused it
        if entry is not None and entry.peer.id != id:  # its gate may not have known
            raise refusals.identity_fixed(entry.peer.id)
        agents = said.agents if said.agents is not None else ()
        peer = self.roster.peers.get(id)
        replaced: tuple[int, ...] = ()
        if entry is None and peer is not None:
            replaced = self._check_owner(peer, entrance.claim)
            if not replaced:
                refusals.check_connections(peer.id, len(peer.connections), self._limits)
        union = agents if peer is None or replaced else peer.union_with(connection, agents)
        refusals.check_agents(len(union), self._limits)
        if not said.has_data or union != agents:
            text = texts.presence_with(text, union if union != agents else None)
        refusals.check_presence(text, self._limits)
        if entrance.watches:
            self.audiences.wishes.check(said.wish, (connection, *replaced))

        is_new, is_newcomer = peer is None, entry is None
        peer = self.roster.attach(connection, id, agents, entrance)
        for old in replaced:  # after that: the peer is here all the time
            self.roster.detach(old)
            self.audiences.forget(old, peer, now)
        self.roster.set_agents(peer, union)
        self.roster.set_presence(peer, text, now.at)
        self.refreshes.announced(peer)
        self.roster.set_page(connection, said.is_page and self._limits.echo_within_s > 0)
        self._forget_echoes(now)

        if is_newcomer:
            self._effects.append(Admitted(connection, said.accepts_batches, entrance.watches))
        self.audiences.announced(self.roster.connections[connection], said, entrance, is_newcomer)
        self._effects.append(Deliver((text,), _EVERYONE))
        blind = tuple(own.id for own in peer.connections.values() if not own.watches)
        if blind:  # their own peer they see all the same: it is the mark of a change of connections
            self._effects.append(Deliver((text,), Only(blind)))
        self.totals.relayed += 1
        if is_newcomer and connection not in blind:
            self._effects.append(Snapshot(connection, self.roster.presences.without(peer)))
            self._work.extra += len(self.roster.peers) // _PRESENCES
        if is_newcomer and entrance.recalls is not None:
            recalled: Sequence[Text] = ()
            if entrance.watches:
                remembered = self.recent.last(self._limits.recall_messages_max, now.at)
                self._work.extra += len(remembered)
                wanted = self.audiences.wanted(self.roster, peer, said.wish, remembered)
                recalled = wanted[max(0, len(wanted) - entrance.recalls) :]
            answer = texts.recalled(id, len(recalled), now.wall_ms)
            self._effects.append(Deliver((answer, *recalled), Only((connection,))))
        if is_new:
            self.totals.joined += 1
            self._effects.append(PeerJoined(id, connection, len(peer.agents)))
        return replaced

    def beat(self, connection: int, header: Header, said: Announcement, now: Instant) -> None:
        """A heartbeat. It is not forwarded, but sometimes the presence is repeated.

        Raises Refusal: `not_present`, `spoofed`, or as `present`.
        """
        entry = self.roster.connections.get(connection)
        if entry is None:
            raise refusals.not_present()
        peer = entry.peer
        self._check_origin(peer, header)
        self.echoes.forget(now.at)
        self.recent.forget(now.at)
        if said.agents is not None and said.agents != entry.agents:
            union = peer.union_with(connection, said.agents)
            refusals.check_agents(len(union), self._limits)
            presence = texts.presence_with(peer.presence, union)
            refusals.check_presence(presence, self._limits)
            self.roster.hold(entry, said.agents)
            if self.roster.set_agents(peer, union):
                self._say_again(peer, presence, peer.others, now)
                return
        for other in self.refreshes.beat(peer, now):
            self._say_again(other, other.presence, other.others, now)

    def _say_again(self, peer: Peer, presence: Text, others: Others, now: Instant) -> None:
        """The presence of a peer that is here goes to others. It may be a new one."""
        self.roster.set_presence(peer, presence, now.at)
        self.refreshes.announced(peer)
        self._work.extra += 1
        self._effects.append(Deliver((presence,), others))

    def _forget_echoes(self, now: Instant) -> None:
        if self.roster.pages:
            self.echoes.forget(now.at)
        else:
            self.echoes.clear()

    def _check_owner(self, peer: Peer, claim: Claim | None) -> tuple[int, ...]:
        """Raise Refusal unless this claim is the peer's. Returns the connections that shall end."""
        if not same_owner(peer.claim, claim):
            raise refusals.id_taken(peer.id)
        return tuple(peer.connections) if claim is not None and claim.takes_over else ()

    # Questions ------------------------------------------------------------------------------------

    def asked(self, connection: int, question: Question, now: Instant) -> None:
        """Say what the relay can do, and, to who may watch, which agents are here."""
        agents = EMPTY
        if question.grant.may_watch:
            agents = self.roster.directory(self._limits.directory_bytes_max)
        text = texts.capabilities(
            question.peer,
            question.turn_id,
            _TYPES,
            self._limits,
            now.wall_ms,
            is_paced=question.is_paced,
            grant=question.grant,
            agents=agents,
            resume=question.resume,
        )
        self._work.extra += agents.bytes // _STEP_BYTES
        self._effects.append(Deliver((text,), Only((connection,))))
        if question.counts:
            self._effects.append(Counted(connection))

    # The end --------------------------------------------------------------------------------------

    def gone(self, connection: int, cause: Cause, now: Instant) -> None:
        """A connection no longer counts. A peer goes offline with its last connection."""
        peer = self.roster.detach(connection)
        if peer is None:
            return
        self._forget_echoes(now)
        self.audiences.forget(connection, peer, now)
        others = Others((connection,))  # it is still among those who receive, until `Dismissed`
        if not peer.connections:
            self.refreshes.announced(peer)
            self.totals.left += 1
            self.totals.causes[cause.value] += 1
            self.commands.left(peer.id, now)
            if not self.roster.peers:
                self.left_at = now.at
            offline = texts.offline(peer.id, cause.value, now.wall_ms)
            self._effects.append(Deliver((offline,), others))
            self._effects.append(PeerLeft(peer.id, cause))
        elif self.roster.set_agents(peer, peer.union()):
            self._say_again(peer, self._presence_within(peer), others, now)

    def _presence_within(self, peer: Peer) -> Text:
        """The peer's presence with the agents that are left, within the bound of a presence.

        Two connections may describe one agent differently, so this presence may be longer than the
        one that was accepted. If it is too long, it has only the ids of the agents.
        """
        text = texts.presence_with(peer.presence, peer.agents)
        if len(text) > self._limits.presence_bytes_max:
            bare = [texts.bare_agent(agent.id) for agent in peer.agents if agent.id is not None]
            text = texts.presence_with(peer.presence, bare)
        return text

    def clear(self) -> None:
        """Remove everybody, and tell nobody."""
        self.roster = Roster()
        self.echoes.clear()
        self.recent.clear()
        self.refreshes.clear()
        self.audiences.clear()
        self.commands.clear()
