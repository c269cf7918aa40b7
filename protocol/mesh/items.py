"""The seam between gates and mesh: what passes a gate, in the one order of the mesh.

    connection -> Gate -> items -> Mesh -> effects -> connections

A gate (protocol.mesh.gate) decides what concerns one connection alone, in the process where the
connection ends. A mesh (protocol.mesh.mesh) applies items in one order and decides everything that
depends on who is here. It is deterministic: the same items in the same order give the same effects,
wherever they are applied. So a mesh may be cut here: gates in many processes, and between them and
the mesh whatever brings all items into one order. In one process there is nothing between
(protocol.mesh.local): an item is one plain call, and nothing is copied.

Whoever applies an item hands its outcome to the gate that the item came from: `Gate.accepted` for a
presence that was taken, `Gate.refuse` for a `Refusal`.
"""

from typing import Protocol

from protocol.envelope import Announcement, Header, Text
from protocol.instant import Instant
from protocol.mesh.lifecycle import Cause
from protocol.mesh.routing import Route


class Items(Protocol):
    """What a gate may pass on. `connection` is the number of the connection that it came from;
    numbers are unique in the mesh. Every method may raise Refusal, except `gone`."""

    def present(
        self, connection: int, header: Header, text: Text, said: Announcement, now: Instant
    ) -> None:
        """The connection announces a peer. `said`: what `text`, a presence, says in its `data`."""
        ...

    def said(self, connection: int, header: Header, text: Text, route: Route) -> None:
        """The connection sends a message to others: `route` is OTHERS or TARGET."""
        ...

    def beat(self, connection: int, header: Header, said: Announcement, now: Instant) -> None:
        """The connection sent a heartbeat. `said`: what it says in its `data`."""
        ...

    def gone(self, connection: int, cause: Cause, now: Instant) -> None:
        """The connection no longer counts for its peer."""
        ...
