"""Everything that a newcomer has to know: what the others have decided until now, as bytes.

What decides is in it. What only those see who watch the mesh (open commands, flows) is not, and
begins anew at the newcomer.
"""

from collections.abc import Mapping

import msgspec

from protocol.agents import Agent
from protocol.claims import Claim
from protocol.envelope import Announcement, Text
from protocol.limits import Limits
from protocol.mesh.federation.members import Leaving, Member, Members
from protocol.mesh.federation.records import Wire
from protocol.mesh.federation.replica import Replica
from protocol.mesh.items import Entrance
from protocol.wish import EVERYTHING, Wish

Agents = list[tuple[str | None, bytes]]


class ConnectionState(Wire):
    """One connection, and what it wants. `is_followed`: it may fall behind its pace."""

    id: int
    watches: bool
    is_page: bool
    is_followed: bool
    agents: Agents
    others: bool
    topics: list[str] | None
    types: list[str] | None


class PeerState(Wire):
    """One peer, and its connections in the order in which they joined."""

    id: str
    digest: bytes | None
    presence: Text
    presence_at: float
    agents: Agents
    connections: list[ConnectionState]


class MeshState(Wire):
    """One mesh."""

    peers: list[PeerState]
    hosts: dict[str, list[str]]
    left_at: float
    echoes: list[tuple[bytes, str, float, str, float]]
    recent: list[tuple[float, list[Text]]]
    refreshes: tuple[float, list[str]]
    turns: dict[str, list[bytes]]
    laggards: list[tuple[int, float, int, float, bool]]


class MemberState(Wire):
    """One member."""

    node: int
    life: int
    next: int
    is_ready: bool
    parts: bytes


class FederationState(Wire):
    """All of it. `log_at`: the latest time of the log (seconds)."""

    log_at: float
    members: list[MemberState]
    leaving: list[tuple[int, float]]
    meshes: dict[str, MeshState]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(FederationState).decode


def taken(members: Members, replicas: Mapping[str, Replica], log_at: float) -> bytes:
    """What is known now."""
    state = FederationState(
        log_at,
        [MemberState(m.node, m.life, m.next, m.is_ready, m.parts) for m in members],
        [(its.node, its.at) for its in members.leaving],
        {name: _mesh_state(its) for name, its in replicas.items() if not its.is_blank},
    )
    return _encode(state)


def restored(data: bytes, limits: Limits) -> tuple[Members, dict[str, Replica], float]:
    """What another node knew. Raises ValueError if these bytes are no state."""
    try:
        state = _decode(data)
    except msgspec.DecodeError as error:
        raise ValueError("this is no state of a federation") from error
    members = Members()
    for its in state.members:
        members.add(Member(its.node, its.life, its.next, its.is_ready, its.parts))
    members.leaving = [Leaving(node, at) for node, at in state.leaving]
    replicas = {name: _replica(mesh, limits) for name, mesh in state.meshes.items()}
    return members, replicas, state.log_at


def _mesh_state(replica: Replica) -> MeshState:
    mesh = replica.mesh
    roster, audiences = mesh.roster, mesh.audiences
    peers = []
    for peer in roster.peers.values():
        connections = []
        for its in peer.connections.values():
            wish = audiences.wishes.of(its.id)
            connections.append(
                ConnectionState(
                    its.id,
                    its.watches,
                    its.is_page,
                    its.id in audiences.laggards.paced,
                    _written(its.agents),
                    wish.others,
                    None if wish.topics is None else sorted(wish.topics),
                    None if wish.types is None else sorted(wish.types),
                )
            )
        digest = None if peer.claim is None else peer.claim.digest
        agents = _written(peer.agents)
        peers.append(
            PeerState(peer.id, digest, peer.presence, peer.presence_at, agents, connections)
        )
    return MeshState(
        peers,
        roster.hosts(),
        mesh.left_at,
        mesh.echoes.state(),
        mesh.recent.state(),
        mesh.refreshes.state(),
        audiences.laggards.turns.state(),
        audiences.laggards.state(),
    )


def _replica(state: MeshState, limits: Limits) -> Replica:
    replica = Replica(limits)
    mesh = replica.mesh
    roster, audiences = mesh.roster, mesh.audiences
    for its in state.peers:
        claim = None if its.digest is None else Claim(its.digest)
        for c in its.connections:
            entrance = Entrance(claim, c.watches, is_paced=c.is_followed)
            peer = roster.attach(c.id, its.id, _read(c.agents), entrance)
            roster.set_page(c.id, c.is_page)
            said = Announcement(accepts_batches=not c.is_followed, wish=_wish(c))
            audiences.announced(roster.connections[c.id], said, entrance, is_newcomer=True)
        roster.set_agents(peer, _read(its.agents))
        roster.set_presence(peer, its.presence, its.presence_at)
    roster.order_hosts(state.hosts)
    mesh.left_at = state.left_at
    mesh.echoes.restore(state.echoes)
    mesh.recent.restore(state.recent)
    mesh.refreshes.restore(*state.refreshes, roster.peers)
    audiences.laggards.turns.restore(state.turns)
    audiences.laggards.restore(state.laggards)
    replica.effects.clear()  # nobody of them is here
    return replica


def _written(agents: tuple[Agent, ...]) -> Agents:
    return [(agent.id, agent.text) for agent in agents]


def _read(agents: Agents) -> tuple[Agent, ...]:
    return tuple(Agent(id, text) for id, text in agents)


def _wish(its: ConnectionState) -> Wish:
    topics = None if its.topics is None else frozenset(its.topics)
    wish = Wish(its.others, topics, None if its.types is None else frozenset(its.types))
    return EVERYTHING if wish == EVERYTHING else wish
