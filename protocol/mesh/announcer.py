"""Takes an announcement: checks it, then passes it to the mesh, or holds it for later.

Checked here is what concerns one connection alone: the names, the grant, the room that it needs.
How often a connection may announce something, and what becomes of the rest, is in
protocol.mesh.announcing.
"""

from collections.abc import Callable, Sequence

import attrs

from protocol.codec import Codec
from protocol.envelope import Header, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import granting
from protocol.mesh.announcing import PRESENCE, Announced, check_agents, check_identity
from protocol.mesh.connection import Connection
from protocol.mesh.items import Admission, Entrance, Items


class Announcer:
    """Takes the announcements of all connections of one gate. Every method may raise Refusal.

    `admit`: asked before a first or a longer announcement passes. `held`: called after an
    announcement was held, since the connection has something to do at another time now.

    `held_bytes`: those of everything that is held, of all connections.
    """

    def __init__(
        self,
        limits: Limits,
        codec: Codec,
        items: Items,
        *,
        admit: Admission,
        held: Callable[[Connection], None],
    ) -> None:
        self._limits = limits
        self._codec = codec
        self._items = items
        self._admit = admit
        self._held = held
        self.held_bytes = 0

    def present(self, connection: Connection, header: Header, text: Text, now: Instant) -> None:
        """A presence."""
        announced = self._announced(connection, header, text)
        check_identity(header, connection.peer, self._limits)
        assert header.sender is not None  # checked just now
        granting.check_peer(connection.grant, header.sender)
        self._offer(connection, announced, now)

    def beat(self, connection: Connection, header: Header, text: Text, now: Instant) -> None:
        """A heartbeat of a connection that belongs to a peer."""
        announced = self._announced(connection, header, text)
        announcements = connection.announcements
        assert announcements is not None  # it belongs to a peer
        if announcements.is_news(announced.said):
            self._offer(connection, announced, now)
        else:  # a sign of life, and nothing else
            said = announced.said
            if said.agents is not None:
                said = attrs.evolve(said, agents=None)
            self._items.beat(connection.id, header, said, now)

    def take(self, connection: Connection, at: float) -> Announced:
        """Take out the held one whose time has come, for `announce`."""
        announcements = connection.announcements
        assert announcements is not None  # it has something that is held
        before = announcements.held_bytes
        announced = announcements.take(at)
        self.held_bytes += announcements.held_bytes - before
        return announced

    def forget(self, connection: Connection) -> Sequence[Announced]:
        """The connection is over, or was turned away. What was held of it goes with it."""
        if connection.announcements is None:
            return ()
        self.held_bytes -= connection.announcements.held_bytes
        return connection.announcements.held

    def announce(self, connection: Connection, announced: Announced, now: Instant) -> None:
        """Pass it to the mesh."""
        id, header, said = connection.id, announced.header, announced.said
        if announced.is_presence:
            entrance = Entrance(
                connection.claim,
                connection.grant.may_watch,
                is_paced=connection.is_paced,
                recalls=connection.recalls,
            )
            self._items.present(id, header, announced.text, said, now, entrance=entrance)
        else:
            self._items.beat(id, header, said, now)

    def _announced(self, connection: Connection, header: Header, text: Text) -> Announced:
        is_presence = header.type == PRESENCE
        said = self._codec.announcement(text, is_presence=is_presence)
        check_agents(said.agents or (), self._limits)
        granting.check_agents(connection.grant, said.agents or ())
        return Announced(header, text, said)

    def _offer(self, connection: Connection, announced: Announced, now: Instant) -> None:
        connection.ask_for_room(len(announced.text), self._admit)
        announcements = connection.announcements
        if announcements is None:
            self.announce(connection, announced, now)
            return
        if (
            announcements.must_wait(now.at)
            and (refusal := self._admit(len(announced.text))) is not None
        ):
            raise refusal
        before = announcements.held_bytes
        if announcements.offer(announced, now.at):
            self.announce(connection, announced, now)
        else:
            self.held_bytes += announcements.held_bytes - before
            self._held(connection)
