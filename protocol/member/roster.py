"""Who else is in the mesh, as presences tell it, and how two views of that differ.

The roster has bounds (`peers_max`, `roster_bytes_max`). A presence beyond them is ignored: a new
peer is not in the roster, and one that is there stays as it was.

After a connection was lost, the roster still shows who was here. The relay then sends the roster
anew: presences that say the same as before are no news, and whoever is not among them has left
meanwhile. While the connection is lost, nobody is removed.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from protocol.limits import MembershipLimits
from protocol.member.messages import Message, RemotePeer, is_offline


@attrs.frozen
class Change:
    """What has changed in the roster since the change before this one.

    `joined`: peers that have come. `updated`: peers that announce something else. `left`: peers
    that have gone. `here`: all other peers afterwards, by id.
    """

    joined: tuple[RemotePeer, ...]
    updated: tuple[RemotePeer, ...]
    left: tuple[RemotePeer, ...]
    here: Mapping[str, RemotePeer]

    @property
    def is_empty(self) -> bool:
        """Nobody has come, changed or gone."""
        return not (self.joined or self.updated or self.left)


def compare(seen: Mapping[str, RemotePeer], here: Mapping[str, RemotePeer]) -> Change:
    """What has changed from `seen` to `here`.

    >>> compare({"bob": RemotePeer("bob")}, {"ann": RemotePeer("ann")}).left
    (RemotePeer(id='bob', agents=(), data={}),)
    """
    return Change(
        tuple(peer for id, peer in here.items() if id not in seen),
        tuple(peer for id, peer in here.items() if id in seen and seen[id] != peer),
        tuple(peer for id, peer in seen.items() if id not in here),
        here,
    )


@attrs.frozen
class Noted:
    """What a presence was. `is_news`: the program should hear of it. `has_changed`: the roster is
    another now. `is_ignored`: the roster has no room for it."""

    is_news: bool
    has_changed: bool
    is_ignored: bool = False


class Roster:
    """The other peers, by id. `own_id`: the peer whose roster it is."""

    def __init__(self, own_id: str, limits: MembershipLimits, *, shares: bool = False) -> None:
        self.peers: dict[str, RemotePeer] = {}
        self.shared_agent_ids: frozenset[str] = frozenset()
        """The agents of all connections with the peer's own id, as the relay tells them."""
        self.shares = shares
        """Others are meant to have the peer's id, too."""
        self.is_shared = False
        """The peer has been seen with another connection that is not its own."""
        self.is_cut = False
        """Presences were ignored: there may be peers that are not in it."""
        self._own_id = own_id
        self._limits = limits
        self._known: dict[str, tuple[Mapping[str, Any], int]] = {}  # the latest, and its cost
        self._cost = 0
        self._is_repeated = False  # the relay is sending the roster anew
        self._unseen: set[str] = set()  # not in it yet

    def hosts(self, agent: str) -> list[str]:
        """The ids of the others that a command for `agent` may mean: the peer of this name, which
        comes before all agents, or all peers with such an agent."""
        if agent in self.peers:
            return [agent]
        return [peer.id for peer in self.peers.values() if agent in peer.agents]

    def begin(self) -> None:
        """A new connection has announced the peer: the roster will come anew."""
        self._is_repeated, self._unseen, self.is_cut = True, set(self.peers), False

    def cancel(self) -> None:
        """That connection came to nothing."""
        self._is_repeated = False
        self._unseen.clear()

    def complete(self) -> None:
        """The roster has come whole: whoever was not in it has left."""
        for id in self._unseen:
            self._remove(id)
        self.cancel()

    def _remove(self, id: str) -> bool:
        self._cost -= self._known.pop(id, (None, 0))[1]
        return self.peers.pop(id, None) is not None

    def note(self, presence: Message, size: int) -> Noted:
        """A presence arrived, which costs `size` bytes."""
        id = presence.sender
        if not id or id == self._own_id:  # of nobody, or from another connection of the same peer
            return Noted(is_news=True, has_changed=False)
        self._unseen.discard(id)
        if is_offline(presence):
            return Noted(is_news=True, has_changed=self._remove(id))
        fields, cost = self._known.get(id, (None, 0))
        if self._is_repeated and fields == presence.fields:
            return Noted(is_news=False, has_changed=False)
        limits, count = self._limits, len(self._known) + (fields is None)
        if count > limits.peers_max or self._cost - cost + size > limits.roster_bytes_max:
            self.is_cut = True
            return Noted(is_news=True, has_changed=False, is_ignored=True)
        self._known[id] = (presence.fields, size)
        self._cost += size - cost
        peer = RemotePeer.of(presence)
        has_changed = self.peers.get(id) != peer
        if has_changed:
            self.peers[id] = peer
        return Noted(is_news=True, has_changed=has_changed)

    def note_own(self, presence: Message, *, is_anothers: bool) -> None:
        """A presence of the peer itself arrived. `is_anothers`: from a connection of somebody else
        who shares the id."""
        self.is_shared = self.is_shared or is_anothers
        self.shared_agent_ids = frozenset(RemotePeer.of(presence).agents)
