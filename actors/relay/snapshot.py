"""One mesh at one moment, as immutable data."""

import attrs

from protocol.mesh.status import PeerStatus, Totals


@attrs.frozen
class MeshStatus:
    """`mailboxes`: queued messages and bytes, by connection number."""

    name: str
    connections: int
    peers: tuple[PeerStatus, ...]
    mailboxes: dict[int, tuple[int, int]]
    totals: Totals
