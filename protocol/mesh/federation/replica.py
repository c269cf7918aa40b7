"""One mesh at one node of a federation: the same at every node that has applied the same items."""

import math
from collections.abc import Callable
from typing import Final
from zlib import crc32

import attrs

from protocol.envelope import Refusal
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import Effect
from protocol.mesh.federation.records import Beat, Gone, Item, Lags, Present, Said, Visited
from protocol.mesh.items import Visitor
from protocol.mesh.lifecycle import Cause
from protocol.mesh.mesh import Mesh
from protocol.mesh.recalling import LITTLE_BYTES
from protocol.mesh.routing import Route
from protocol.mesh.work import Work

NODE_BITS: Final = 32
"""The number of a connection has the number of its node above so many bits."""


@attrs.frozen(eq=False)
class Fault:
    """The mesh has failed on an item. It did so at every node, so they go on together."""

    error: Exception


Outcome = None | int | tuple[int, ...] | Refusal | Fault
"""What came of an item: nothing to tell, to how many connections something went, the connections
that an announcement has replaced, or why it was not applied. The same at every node."""


def node_of(connection: int) -> int:
    """The node at which a connection ends.

    >>> node_of((7 << 32) + 1)
    7
    """
    return connection >> NODE_BITS


class Replica:
    """A mesh, and the effects of what was applied to it and not taken yet (`effects`)."""

    def __init__(self, limits: Limits) -> None:
        self.effects: list[Effect] = []
        self.work = Work()
        self.mesh = Mesh(limits, self.effects, self.work)
        self._fresh_bytes = 0

    def apply(self, item: Item, now: Instant) -> Outcome:
        """Apply an item at this time of the log."""
        mesh = self.mesh
        try:
            if type(item) is Said:  # the one that comes per message
                route = Route.TARGET if item.is_direct else Route.OTHERS
                mesh.said(item.connection, item.header, (item.text,), route, now)
                self._fresh_bytes += len(item.text)
                if self._fresh_bytes > LITTLE_BYTES:
                    self._fresh_bytes = 0
                    mesh.recent.settle()
                return None
            match item:
                case Visited(peer, is_proven, said):
                    route = Route.TARGET if said.is_direct else Route.OTHERS
                    visitor = Visitor(peer, is_proven)
                    return mesh.visited(visitor, said.header, said.text, route, now)
                case Present(connection, text, spoken):
                    header, announced = spoken.header("presence"), spoken.announcement
                    entrance = item.entrance
                    return mesh.present(connection, header, text, announced, now, entrance=entrance)
                case Beat(connection, spoken):
                    mesh.beat(connection, spoken.header("heartbeat"), spoken.announcement, now)
                case Lags(connection, is_lagging):
                    mesh.audiences.laggards.note(connection, now, is_lagging=is_lagging)
                case Gone(connection):
                    mesh.gone(connection, item.why, now)
        except Refusal as refusal:
            return refusal
        except Exception as error:
            return Fault(error)
        return None

    def without(self, is_gone: Callable[[int], bool], cause: Cause, now: Instant) -> None:
        """The connections of all nodes of which this is true are gone."""
        peers = tuple(self.mesh.roster.peers.values())  # in the same order at every node
        for connection in [id for peer in peers for id in tuple(peer.connections)]:
            if is_gone(node_of(connection)):
                self.mesh.gone(connection, cause, now)

    @property
    def is_empty(self) -> bool:
        """Nobody is here."""
        return not self.mesh.roster.connections

    @property
    def is_blank(self) -> bool:
        """Nobody is here, and nothing is remembered of those who were."""
        mesh = self.mesh
        return (
            self.is_empty
            and mesh.left_at == -math.inf
            and not mesh.recent.bytes
            and not mesh.echoes.bytes
        )

    def clear(self) -> None:
        """Forget everything."""
        self.mesh.clear()
        self.mesh.left_at = -math.inf

    @property
    def kept_bytes(self) -> int:
        """What the mesh keeps."""
        return self.mesh.kept_bytes

    def digest(self, name: str) -> int:
        """Something that differs, most likely, if the mesh was decided differently."""
        mesh, roster = self.mesh, self.mesh.roster
        facts = (
            name,
            len(roster.peers),
            len(roster.connections),
            roster.presences.bytes,
            roster.watching,
            len(roster.pages),
            mesh.echoes.bytes,
            mesh.audiences.wishes.bytes,
            mesh.audiences.laggards.turns.bytes,
            sum(map(len, (peer.agents for peer in roster.peers.values()))),
        )
        return crc32(repr(facts).encode())
