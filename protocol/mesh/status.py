"""Status reports of a mesh, and its running totals."""

import attrs

from protocol.mesh.lifecycle import PeerState


@attrs.frozen
class ConnectionStatus:
    """One connection in a status report. `silent_s`: seconds since the relay last heard it."""

    connection: int
    state: PeerState
    silent_s: float


@attrs.frozen
class PeerStatus:
    """One present peer in a status report."""

    peer: str
    state: PeerState
    agents: tuple[str, ...]
    connections: tuple[ConnectionStatus, ...]


@attrs.define
class Totals:
    """Counts since the mesh began. `relayed` counts messages, not deliveries. Of those `refused`
    some were `echoed`. `spared` counts deliveries: answers to others that a connection which was
    behind did not get."""

    received: int = 0
    relayed: int = 0
    refused: int = 0
    echoed: int = 0
    withheld: int = 0
    spared: int = 0
    joined: int = 0
    left: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        pairs = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Totals(*(a + b for a, b in pairs))
