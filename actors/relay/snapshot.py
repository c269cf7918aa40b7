"""One mesh at one moment, as immutable data."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import attrs

from protocol.mesh.commands import Command
from protocol.mesh.flow import Way
from protocol.mesh.status import PeerStatus, Totals


class Mailbox(NamedTuple):
    """What waits for a connection, in messages and bytes, and how many messages it was sent while
    somebody watched."""

    messages: int
    bytes: int
    sent: int


class Size(NamedTuple):
    """How large a mesh is."""

    connections: int
    peers: int


NOTHING: Final = Mailbox(0, 0, 0)


@attrs.frozen
class MeshStatus:
    """`mailboxes`: by connection number."""

    name: str
    connections: int
    peers: tuple[PeerStatus, ...]
    mailboxes: dict[int, Mailbox]
    totals: Totals

    def mailbox_of(self, peer: PeerStatus) -> Mailbox:
        """All mailboxes of a peer together."""
        boxes = [self.mailboxes.get(its.connection, NOTHING) for its in peer.connections]
        boxes.append(NOTHING)  # it may have none here
        return Mailbox(*map(sum, zip(*boxes, strict=True)))


@attrs.frozen
class Gauges:
    """Numbers of one moment: of a mesh, or of all of them. `away`: connections whose sockets are
    lost, and that may come back. `queued_bytes`: in mailboxes. `states`: peers, by state."""

    connections: int = 0
    away: int = 0
    queued_bytes: int = 0
    states: Counter[str] = attrs.Factory(Counter)

    def __add__(self, other: "Gauges") -> "Gauges":
        return Gauges(
            self.connections + other.connections,
            self.away + other.away,
            self.queued_bytes + other.queued_bytes,
            self.states + other.states,
        )


@attrs.frozen
class Activity:
    """What is going on in a mesh. `commands`: the open ones, and the latest that have ended.
    `flow`: who says how much to whom, since `flow_since_ms`."""

    commands: tuple[Command, ...] = ()
    flow: Sequence[tuple[Way, int]] = ()
    flow_since_ms: int = 0
