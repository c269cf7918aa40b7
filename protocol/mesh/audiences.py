"""Who gets what a peer says to all others, where that is not simply all of them.

There are two reasons to leave a connection out: it is too far behind, and this is an answer to
somebody else (rule 20, protocol.mesh.lagging); or it wants something else (rule 22,
protocol.mesh.wishes). While neither can be, `differ` is False, and a message costs nothing here.
"""

from collections.abc import Collection, Sequence
from typing import Final

from protocol.codec import header_of
from protocol.envelope import Announcement, Header, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import Audience, Chosen, Effect, Only, Others, Wants
from protocol.mesh.items import Entrance
from protocol.mesh.lagging import Laggards
from protocol.mesh.roster import Connection, Peer, Roster
from protocol.mesh.status import Totals
from protocol.mesh.wishes import Wishes, topic_of
from protocol.mesh.work import Work
from protocol.wish import EVERYTHING, Wish

_COPIES: Final = 8
"""To look at so many receivers of one message costs about as much as to decide a message."""
_NOBODY: Final = Only(())


class Audiences:
    """The connections of one mesh that may not get everything. `differ`: there are some."""

    def __init__(self, limits: Limits, effects: list[Effect], work: Work, totals: Totals) -> None:
        self.laggards = Laggards(limits, effects, work)
        self.wishes = Wishes(limits, work)
        self.differ = False
        self._has_wishes = False
        self._effects = effects
        self._work = work
        self._totals = totals

    def announced(
        self, connection: Connection, said: Announcement, entrance: Entrance, is_newcomer: bool
    ) -> None:
        """A connection has announced itself; what it wants has passed `wishes.check`."""
        if not connection.watches:
            return
        if is_newcomer and entrance.is_paced and not said.accepts_batches:
            self.laggards.follow(connection)
        wish = self.wishes.want(connection.id, said.wish)
        if wish is not None:
            self._effects.append(Wants(connection.id, wish))
        self._look()

    def count_in(self, totals: Totals) -> None:
        """From here on it is counted there."""
        self._totals = totals

    @property
    def bytes(self) -> int:
        """What it costs to know who has begun which turn, and who wants what."""
        return self.laggards.turns.bytes + self.wishes.bytes

    def forget(self, connection: int, peer: Peer, now: Instant) -> None:
        """A connection of this peer is over."""
        self.laggards.forget(connection, peer, now)
        self.wishes.forget(connection)
        self._look()

    def clear(self) -> None:
        """Everybody has gone."""
        self.laggards.clear()
        self.wishes.clear()
        self._look()

    def _look(self) -> None:
        self._has_wishes = bool(self.wishes)  # kept, because it is looked at for every message
        self.differ = self._has_wishes or bool(self.laggards.paced)

    def choose(
        self, roster: Roster, sender: Peer, header: Header, text: Text, now: Instant
    ) -> Others | Chosen | Only:
        """Who gets what this peer says to all others. Who is spared it is told, and counted."""
        excluded, laggards, wishes = sender.others.excluded, self.laggards, self.wishes
        topic = topic_of(text) if wishes.topics else None
        named = roster.named(header) if self._has_wishes else {}
        if laggards.paced:

            def wants(connection: int) -> bool:
                return wishes.of(connection).has(header.type, topic, is_for_others=bool(named))

            laggards.begins(sender, header, text)
            spared = laggards.spare(roster, sender, header, text, now, wants=wants)
            self._totals.spared += len(spared)
            excluded += spared
        if not self._has_wishes:
            return Others(excluded) if excluded is not sender.others.excluded else sender.others
        chosen = wishes.selected(header.type, topic, is_for_some=bool(named))
        also = _NOBODY
        if named:
            also = self._named_only(named.values(), sender, header.type, topic)
        return Chosen(chosen, excluded, also.connections) if chosen else also

    def count(self, roster: Roster, audience: Audience) -> int:
        """To how many connections something goes."""
        match audience:
            case Only(connections):
                return len(connections)
            case Chosen(chosen, excluded, also):
                return self.wishes.reached(chosen, excluded) + len(also)
            case Others(excluded):
                left_out = sum(roster.connections[id].watches for id in excluded)
                self._work.extra += len(excluded) // _COPIES
                return roster.watching - left_out
        return roster.watching

    def _named_only(
        self, named: Collection[Peer], sender: Peer, type: str, topic: str | None
    ) -> Only:
        """The connections of those who are named that want nothing for others, but this."""
        found, steps = [], 0
        for peer in named:
            if peer is not sender:
                steps += len(peer.connections)
                for connection in peer.connections:
                    wish = self.wishes.of(connection)
                    if not wish.others and wish.has(type, topic, is_for_others=False):
                        found.append(connection)
        self._work.extra += steps // _COPIES
        if len(named) == 1 and found and len(found) == steps:  # as nearly always
            return peer.only
        return Only(tuple(found))

    def wanted(
        self, roster: Roster, peer: Peer, wish: Wish, said: Sequence[Text]
    ) -> Sequence[Text]:
        """What a connection of this peer wants of what was said to all others."""
        if wish == EVERYTHING:
            return said
        return [text for text in said if _is_wanted(roster, peer, wish, text)]


def _is_wanted(roster: Roster, peer: Peer, wish: Wish, text: Text) -> bool:
    header = header_of(text)
    named = roster.named(header)
    is_for_others = bool(named) and peer.id not in named
    return wish.has(header.type, topic_of(text), is_for_others=is_for_others)
