"""Who is here: adds, finds and removes connections, peers and agents. Sends nothing.

A peer may have several connections (the tabs of one browser share an id). It is here while any of
them is. Its agents are those of all its connections. Removal is always by connection, never by peer
id, so the end of an old socket cannot remove a living one.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import attrs

from protocol.agents import Agent
from protocol.envelope import ErrorCode, Header, Refusal, Text
from protocol.mesh.effects import Only, Others

_PEERS_NAMED_MAX: Final = 20  # in an `ambiguous_target`


@attrs.define(eq=False)
class Connection:
    """One connection of a peer: its number, and the agents that it announced."""

    id: int
    peer: "Peer"
    agents: tuple[Agent, ...] = ()


@attrs.define(eq=False)
class Peer:
    """One peer, and its latest presence as the others got it.

    `others` and `only` are the audiences of its messages. They are made anew when its connections
    change.
    """

    id: str
    presence: Text = b""
    presence_at: float = float("-inf")
    connections: dict[int, Connection] = attrs.Factory(dict)
    agents: tuple[Agent, ...] = ()
    others: Others = Others(())
    only: Only = Only(())

    def union_with(self, connection: int, agents: tuple[Agent, ...]) -> tuple[Agent, ...]:
        """The agents of all connections, each once, if `connection` (old or new) had these."""
        announced = {c.id: c.agents for c in self.connections.values()} | {connection: agents}
        return merge(announced.values())


def merge(announced: Collection[tuple[Agent, ...]]) -> tuple[Agent, ...]:
    """Each agent once, in the order of announcement. One announcement alone stays as it is."""
    if len(announced) == 1:
        return next(iter(announced))
    seen: dict[str | bytes, Agent] = {}
    for agents in announced:
        for agent in agents:
            seen.setdefault(agent.id if agent.id is not None else agent.text, agent)
    return tuple(seen.values())


class Roster:
    """The connections, peers and agents of one mesh."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.peers: dict[str, Peer] = {}
        self._hosts: dict[str, dict[str, Peer]] = {}  # agent id -> peer id -> peer

    def attach(self, connection: int, peer_id: str, agents: tuple[Agent, ...] = ()) -> Peer:
        """Let the connection, with these agents, belong to `peer_id`. Makes the peer if it is new.

        The agents of the peer itself do not change: call `set_agents`.
        """
        peer = self.peers.get(peer_id)
        if peer is None:
            peer = self.peers[peer_id] = Peer(peer_id)
        entry = self.connections.get(connection)
        if entry is None:
            entry = self.connections[connection] = Connection(connection, peer)
            peer.connections[connection] = entry
            _renew_audiences(peer)
        entry.agents = agents
        return peer

    def detach(self, connection: int) -> Peer | None:
        """Remove the connection, and its peer if that has no other connection.

        Returns the peer that the connection belonged to, or None.
        """
        entry = self.connections.pop(connection, None)
        if entry is None:
            return None
        peer = entry.peer
        del peer.connections[connection]
        _renew_audiences(peer)
        if not peer.connections:
            self.set_agents(peer, ())
            del self.peers[peer.id]
        return peer

    def set_agents(self, peer: Peer, agents: tuple[Agent, ...]) -> bool:
        """Set the agents of the peer. Returns True if they have changed."""
        if agents == peer.agents:
            return False
        for id in _ids(peer.agents):
            hosts = self._hosts[id]
            del hosts[peer.id]
            if not hosts:
                del self._hosts[id]
        for id in _ids(agents):
            self._hosts.setdefault(id, {})[peer.id] = peer
        peer.agents = agents
        return True

    def resolve(self, sender: Peer, header: Header) -> Peer | None:
        """The peer that a direct is for. None if the sender itself has the agent.

        Raises Refusal: `unknown_target`, `ambiguous_target`, `bad_field` (no address).
        """
        if header.target_instance_id is not None:
            peer = self.peers.get(header.target_instance_id)
            if peer is None:
                raise _unknown("peer", header.target_instance_id)
            return peer
        if header.to is None:
            raise Refusal(ErrorCode.BAD_FIELD, "a direct needs `to` or `targetInstanceId`")
        peer = self.peers.get(header.to)
        if peer is not None:
            return peer
        hosts = self._hosts.get(header.to)
        if hosts is None:
            raise _unknown("peer or agent", header.to)
        if sender.id in hosts:
            return None
        if len(hosts) > 1:
            peers = sorted(hosts)
            sentence = (
                f"{len(peers)} peers have an agent {header.to!r}: name one in `targetInstanceId`"
            )
            shown = peers[:_PEERS_NAMED_MAX]
            raise Refusal(ErrorCode.AMBIGUOUS_TARGET, sentence, peers=shown)
        return next(iter(hosts.values()))

    def presences(self, without: Peer | None) -> tuple[Text, ...]:
        """The latest presence of everyone here, except of one peer."""
        return tuple(peer.presence for peer in self.peers.values() if peer is not without)


def _renew_audiences(peer: Peer) -> None:
    peer.others = Others(tuple(peer.connections))
    peer.only = Only(tuple(peer.connections))


def _ids(agents: Iterable[Agent]) -> Iterator[str]:
    return iter({agent.id: None for agent in agents if agent.id is not None})


def _unknown(kind: str, name: str) -> Refusal:
    return Refusal(ErrorCode.UNKNOWN_TARGET, f"no {kind} {name!r} is here", target=name)
