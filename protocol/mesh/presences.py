"""The presences of those who are here, in pieces that all newcomers share.

A newcomer gets the presence of everyone. If a thousand peers come at once, these are half a million
texts. So they are kept in blocks, in the order of joining. A block is made when a newcomer gets it,
and stays until one of its presences changes. Whoever delivers it can make its bytes once for all
newcomers, and what waits for them is a few references.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from protocol.envelope import Text
from protocol.mesh.effects import Block

LEAF_PEERS: Final = 64
"""A block has at most so many presences. If one changes, the block is made anew."""


class Present(Protocol):
    """Somebody who is here, with the latest presence. `leaf`: where it is among the others."""

    id: str
    presence: Text
    leaf: "Leaf | None"


class Leaf:
    """Some of those who are here, and their block, unless it has to be made anew."""

    __slots__ = ("block", "peers")

    def __init__(self) -> None:
        self.peers: dict[str, Present] = {}
        self.block: Block | None = None


class Presences:
    """The presences of one roster. `bytes`: of all of them."""

    def __init__(self) -> None:
        self.bytes = 0
        self._leaves: list[Leaf] = []

    def add(self, peer: Present) -> None:
        """Somebody is here, behind all others."""
        if not self._leaves or len(self._leaves[-1].peers) >= LEAF_PEERS:
            self._leaves.append(Leaf())
        peer.leaf = leaf = self._leaves[-1]
        leaf.peers[peer.id] = peer
        leaf.block = None
        self.bytes += len(peer.presence)

    def change(self, peer: Present, text: Text) -> None:
        """Somebody who is here has this presence from now on."""
        if text != peer.presence and peer.leaf is not None:
            peer.leaf.block = None
        self.bytes += len(text) - len(peer.presence)
        peer.presence = text

    def remove(self, peer: Present) -> None:
        """Somebody is here no more."""
        leaf, peer.leaf = peer.leaf, None
        if leaf is not None:
            del leaf.peers[peer.id]
            leaf.block = None
            if not leaf.peers:
                self._leaves.remove(leaf)
            self.bytes -= len(peer.presence)

    def without(self, newcomer: Present) -> tuple[Block, ...]:
        """The latest presence of everyone else, in the order of joining."""
        blocks = []
        for leaf in self._leaves:
            if leaf is newcomer.leaf:
                others = [peer for peer in leaf.peers.values() if peer is not newcomer]
                if others:
                    blocks.append(_block(others))
            else:
                if leaf.block is None:
                    leaf.block = _block(leaf.peers.values())
                blocks.append(leaf.block)
        return tuple(blocks)


def _block(peers: Iterable[Present]) -> Block:
    return Block(tuple(peer.presence for peer in peers))
