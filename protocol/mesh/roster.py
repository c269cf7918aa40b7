"""Who is here: adds, finds and removes connections, peers and agents. Sends nothing.

A peer may have several connections (the tabs of one browser share an id). It is here while any of
them is. Its agents are those of all its connections. Removal is always by connection, never by peer
id, so the end of an old socket cannot remove a living one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import attrs

from protocol import refusals
from protocol.agents import Agent
from protocol.claims import Claim
from protocol.envelope import ErrorCode, Header, Refusal, Text
from protocol.limits import Limits
from protocol.mesh.directory import Directory, directory
from protocol.mesh.effects import Only, Others
from protocol.mesh.items import PLAIN, Entrance
from protocol.mesh.presences import Leaf, Presences

_COPIES: Final = 8
"""To note so many receivers of one message costs about as much as to decide a message."""
_PEERS_NAMED_MAX: Final = 20  # in an `ambiguous_target`


Held = tuple[int, int, Agent]
"""An agent as one connection announced it: when this connection joined, its place in the
announcement, the agent. Their order is the order of a union."""


@attrs.define(eq=False)
class Connection:
    """One connection of a peer: its number, and the agents that it announced.

    `joined`: the how manyth connection of the mesh it was. `watches`: it gets what goes to
    everyone. `is_page`: it sends again what it receives (protocol.mesh.echoes).
    """

    id: int
    peer: "Peer"
    joined: int = 0
    watches: bool = True
    agents: tuple[Agent, ...] = ()
    is_page: bool = False


@attrs.define(eq=False)
class Peer:
    """One peer, and its latest presence as the others got it.

    `claim`: with what its connections have claimed its id; None: with nothing, all of them.
    `others` and `only` are the audiences of its messages. They are made anew when its connections
    change. `extra_work`: what each message costs because it has so many (in messages).
    """

    id: str
    claim: Claim | None = None
    presence: Text = b""
    presence_at: float = float("-inf")
    leaf: Leaf | None = None
    connections: dict[int, Connection] = attrs.Factory(dict)
    agents: tuple[Agent, ...] = ()
    others: Others = Others(())
    only: Only = Only(())
    extra_work: int = 0
    _held: dict[str | bytes, list[Held]] = attrs.Factory(dict)  # who has an agent, oldest first

    def union_with(self, connection: int, agents: tuple[Agent, ...]) -> tuple[Agent, ...]:
        """The agents of all connections, each once, if `connection` (old or new) had these.

        They are in the order of joining and announcing, and of two cards of one agent the first
        stays. One announcement alone stays as it is. What this costs does not grow with the number
        of connections.
        """
        if self.connections.keys() <= {connection}:
            return agents
        entry = self.connections.get(connection)
        joined = entry.joined if entry is not None else _LAST
        first = self._firsts(without=joined)
        for place, agent in enumerate(agents):
            known = first.get(key := _key(agent))
            if known is None or known[0] > joined:
                first[key] = (joined, place, agent)
        return tuple(agent for _, _, agent in sorted(first.values()))

    def union(self) -> tuple[Agent, ...]:
        """The agents of all connections, as `union_with` has them."""
        if len(self.connections) == 1:
            (alone,) = self.connections.values()
            return alone.agents
        return tuple(agent for _, _, agent in sorted(self._firsts().values()))

    def _firsts(self, without: int | None = None) -> dict[str | bytes, Held]:
        """Each agent as it was announced first, except by the connection that joined then."""
        first: dict[str | bytes, Held] = {}
        for key, held in self._held.items():
            if held[0][0] != without:
                first[key] = held[0]
            elif len(held) > 1:
                first[key] = held[1]
        return first

    def _hold(self, connection: Connection, agents: tuple[Agent, ...]) -> None:
        """From now on the connection has these agents, and no others."""
        for key in {_key(agent) for agent in connection.agents}:
            held = self._held[key]
            if len(held) == 1:
                del self._held[key]
            else:
                del held[bisect_left(held, (connection.joined,))]
        connection.agents = agents
        seen: set[str | bytes] = set()
        for place, agent in enumerate(agents):
            key = _key(agent)
            if key not in seen:
                seen.add(key)
                held = self._held.setdefault(key, [])
                mine = (connection.joined, place, agent)
                held.insert(bisect_left(held, mine[:1]), mine)


_LAST: Final = 2**63
"""Joined after all others."""


def _key(agent: Agent) -> str | bytes:
    """What is the same in two announcements of one agent."""
    return agent.id if agent.id is not None else agent.text


class Roster:
    """The connections, peers and agents of one mesh."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.peers: dict[str, Peer] = {}
        self.presences = Presences()
        self.watching = 0  # how many connections get what goes to everyone
        self.pages: set[int] = set()  # connections that send again what they receive
        self._hosts: dict[str, dict[str, Peer]] = {}  # agent id -> peer id -> peer
        self._joined = 0
        self._directory: Directory | None = None  # until agents change

    def attach(
        self,
        connection: int,
        peer_id: str,
        agents: tuple[Agent, ...] = (),
        entrance: Entrance = PLAIN,
    ) -> Peer:
        """Let the connection, with these agents, belong to `peer_id`. Makes the peer if it is new.

        The agents of the peer itself do not change: call `set_agents`. `entrance` counts if the
        connection is new; its claim must be the peer's.
        """
        peer = self.peers.get(peer_id)
        if peer is None:
            peer = self.peers[peer_id] = Peer(peer_id, entrance.claim)
            self.presences.add(peer)
        entry = self.connections.get(connection)
        if entry is None:
            self._joined += 1
            entry = Connection(connection, peer, self._joined, entrance.watches)
            self.connections[connection] = entry
            peer.connections[connection] = entry
            self.watching += entry.watches
            _renew_audiences(peer)
        self.hold(entry, agents)
        return peer

    def hold(self, entry: Connection, agents: tuple[Agent, ...]) -> None:
        """Let the connection have these agents. Those of its peer do not change: `set_agents`."""
        entry.peer._hold(entry, agents)

    def detach(self, connection: int) -> Peer | None:
        """Remove the connection, and its peer if that has no other connection.

        Returns the peer that the connection belonged to, or None.
        """
        entry = self.connections.pop(connection, None)
        if entry is None:
            return None
        self.pages.discard(connection)
        self.watching -= entry.watches
        peer = entry.peer
        self.hold(entry, ())
        del peer.connections[connection]
        _renew_audiences(peer)
        if not peer.connections:
            self.set_agents(peer, ())
            self.presences.remove(peer)
            del self.peers[peer.id]
        return peer

    def set_page(self, connection: int, is_page: bool) -> None:
        """Note whether this connection, which is here, is a page that sends things again."""
        self.connections[connection].is_page = is_page
        (self.pages.add if is_page else self.pages.discard)(connection)

    def set_presence(self, peer: Peer, text: Text, at: float) -> None:
        """Set the presence of a peer that is here, and the time at which the others got it."""
        self.presences.change(peer, text)
        peer.presence_at = at

    def set_agents(self, peer: Peer, agents: tuple[Agent, ...]) -> bool:
        """Set the agents of the peer. Returns True if they have changed."""
        if agents == peer.agents:
            return False
        self._directory = None
        for id in _ids(peer.agents):
            hosts = self._hosts[id]
            del hosts[peer.id]
            if not hosts:
                del self._hosts[id]
        for id in _ids(agents):
            self._hosts.setdefault(id, {})[peer.id] = peer
        peer.agents = agents
        return True

    def resolve(self, sender: Peer, header: Header, limits: Limits) -> Peer | None:
        """The peer that a direct is for. None if the sender itself has the agent.

        Existing pages publish what they say to their own agents, too. So an agent of others is not
        found by its name alone by somebody whom the sender has not announced (`_is_at_home`).

        Raises Refusal: `unknown_target`, `ambiguous_target`, `bad_field` (no address), `too_long`.
        """
        if header.target_instance_id is not None:
            refusals.check_name(header.target_instance_id, "targetInstanceId", limits)
            peer = self.peers.get(header.target_instance_id)
            if peer is None:
                raise _unknown("peer", header.target_instance_id)
            return peer
        if header.to is None:
            raise Refusal(ErrorCode.BAD_FIELD, "a direct needs `to` or `targetInstanceId`")
        peer = self.peers.get(header.to)
        if peer is not None:
            return peer
        refusals.check_name(header.to, "to", limits)
        hosts = self._hosts.get(header.to)
        if hosts is None:
            raise _unknown("peer or agent", header.to)
        if sender.id in hosts:
            return None
        if self._is_at_home(sender, header):
            sentence = (
                f"{header.sender!r} is not announced here, so a direct from it to an agent needs "
                "`instanceId`, or the peer in `targetInstanceId`"
            )
            raise Refusal(ErrorCode.UNKNOWN_TARGET, sentence, target=header.to)
        if len(hosts) > 1:
            sentence = (
                f"{len(hosts)} peers have an agent {header.to!r}: name one in `targetInstanceId`"
            )
            shown = sorted(islice(hosts, _PEERS_NAMED_MAX))  # of many, those who had it first
            raise Refusal(ErrorCode.AMBIGUOUS_TARGET, sentence, peers=shown)
        return next(iter(hosts.values()))

    def hosts(self) -> dict[str, list[str]]:
        """The peers that have an agent, of each agent that several have: who had it first."""
        return {agent: list(hosts) for agent, hosts in self._hosts.items() if len(hosts) > 1}

    def order_hosts(self, hosts: Mapping[str, Iterable[str]]) -> None:
        """Let the peers that have these agents, which are the same, be in this order."""
        for agent, peers in hosts.items():
            its = self._hosts[agent]
            self._hosts[agent] = {id: its[id] for id in peers}

    def has_agent(self, id: str, without: str | None = None) -> bool:
        """Somebody has announced an agent of this name, and not (also) the peer `without`."""
        hosts = self._hosts.get(id)
        return hosts is not None and without not in hosts

    def named(self, header: Header) -> Mapping[str, Peer]:
        """The peers that a message for everyone names, of those that are here, by id."""
        target, to = header.target_instance_id, header.to
        if target is not None:
            to = target
        elif to is not None and to not in self.peers:
            return self._hosts.get(to, {})
        peer = None if to is None else self.peers.get(to)
        return {} if peer is None else {peer.id: peer}

    def is_named(self, peer: Peer, header: Header) -> bool:
        """The header names this peer, or in `to` an agent of it."""
        to = header.to
        if peer.id in (to, header.target_instance_id):
            return True
        return to is not None and peer.id in self._hosts.get(to, ())

    def directory(self, bytes_max: int) -> Directory:
        """Which agents are here, for existing pages. Made anew when agents have changed."""
        if self._directory is None:
            agents = (agent for peer in self.peers.values() for agent in peer.agents)
            self._directory = directory(agents, bytes_max)
        return self._directory

    def _is_at_home(self, sender: Peer, header: Header) -> bool:
        """The message is from one local agent of the sender to another, for all that can be told:
        `from` is neither the peer nor an agent that it announced, and nothing names the peer."""
        name = header.sender
        if name is None or name == sender.id or header.instance_id is not None:
            return False
        return sender.id not in self._hosts.get(name, ())


def _renew_audiences(peer: Peer) -> None:
    peer.others = Others(tuple(peer.connections))
    peer.only = Only(tuple(peer.connections))
    peer.extra_work = len(peer.connections) // _COPIES


def _ids(agents: Iterable[Agent]) -> Iterator[str]:
    return iter({agent.id: None for agent in agents if agent.id is not None})


def _unknown(kind: str, name: str) -> Refusal:
    return Refusal(ErrorCode.UNKNOWN_TARGET, f"no {kind} {name!r} is here", target=name)
