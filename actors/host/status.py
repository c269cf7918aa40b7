"""The answer of `/invocations`: who is here, and with `details` more about each."""

from collections.abc import Sequence

import attrs

from actors.relay.snapshot import MeshStatus
from protocol.mesh.status import PeerStatus


def report(meshes: Sequence[MeshStatus], details: bool) -> dict[str, object]:
    """Who is here, as JSON. With `details` also the state, agents, last sign of life (seconds ago)
    and mailbox of every peer, and counts per mesh."""
    peers = sorted(peer.peer for mesh in meshes for peer in mesh.peers)
    answer: dict[str, object] = {"status": "ok", "peers": peers, "count": len(peers)}
    if details:
        answer["meshes"] = {
            mesh.name: {
                "connections": mesh.connections,
                "peers": {peer.peer: _peer_report(peer, mesh) for peer in mesh.peers},
                "totals": attrs.asdict(mesh.totals),
            }
            for mesh in meshes
        }
    return answer


def _peer_report(peer: PeerStatus, mesh: MeshStatus) -> dict[str, object]:
    mailbox = mesh.mailbox_of(peer)
    return {
        "state": peer.state.value,
        "agents": peer.agents,
        "connections": len(peer.connections),
        # None: all its connections are at other relays of the federation.
        "last_seen_s": min((round(c.silent_s, 3) for c in peer.connections), default=None),
        "mailbox_messages": mailbox.messages,
        "mailbox_bytes": mailbox.bytes,
    }
