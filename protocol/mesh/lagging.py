"""Connections that are behind their pace, and what they are spared (rule 20 in docs/protocol.md).

An edge limits the frames of a connection, and without arrays each message takes one. So a mesh may
say more than such a connection can ever get. Most of that are answers to others, which only their
askers need. So a connection that is too far behind is spared them until it has caught up: `ack`,
`stream`, `turn_end` and `error` of a turn that its own peer has not begun, if they do not name its
peer or an agent of it either. It loses nothing else, and it is told now and then.

`Backlog` says when a connection is too far behind; the owner of its queue asks. `Laggards` knows
those of one mesh. While no connection is there that may fall behind, a message costs nothing more.
"""

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from protocol import refusals
from protocol.envelope import Header, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import texts
from protocol.mesh.effects import Deliver, Effect, Only, Spared
from protocol.mesh.roster import Connection, Peer, Roster
from protocol.mesh.turns import ANSWERS, Turns, turn_of
from protocol.mesh.work import ERROR_WORK, Work

CAUGHT_UP: Final = 0.5
"""Who is behind by less than this part of `lag_s` has caught up."""

_STEP_BYTES: Final = 4096
"""To read the turn of a text of so many bytes costs about as much as to decide a message."""
_STEPS: Final = 8
"""To look at so many connections that are behind costs about as much."""


class Backlog:
    """Whether one connection is too far behind its pace: from `lag_s` on, until half of it."""

    __slots__ = ("_lag_s", "is_lagging")

    def __init__(self, limits: Limits) -> None:
        self._lag_s = limits.lag_s
        self.is_lagging = False

    def changes(self, behind_s: float) -> bool:
        """The connection is behind by so much. True: `is_lagging` has changed."""
        was, bound_s = self.is_lagging, self._lag_s
        self.is_lagging = behind_s >= (bound_s * CAUGHT_UP if was else bound_s)
        return self.is_lagging is not was


@attrs.define(eq=False)
class _Paced:
    """A connection that may fall behind. `told_at`: when it last heard that it is spared answers.
    `count`: those that it was spared since this was logged."""

    connection: Connection
    told_at: float = float("-inf")
    count: int = 0
    logged_at: float = float("-inf")


class Laggards:
    """The connections of one mesh that may fall behind, and those that are.

    `paced`: those that may; while it is empty, no message need be shown.
    """

    def __init__(self, limits: Limits, effects: list[Effect], work: Work) -> None:
        self.paced: dict[int, _Paced] = {}
        self.turns = Turns(limits)
        self._behind: dict[int, _Paced] = {}
        self._limits = limits
        self._effects = effects
        self._work = work

    def follow(self, connection: Connection) -> None:
        """This connection has joined, is paced, takes no arrays, and gets what goes to everyone."""
        self.paced[connection.id] = _Paced(connection)
        self.turns.follow(connection.peer.id)

    def note(self, connection: int, now: Instant, *, is_lagging: bool) -> None:
        """The connection has fallen behind, or has caught up."""
        paced = self.paced.get(connection)
        if paced is None:
            return
        if is_lagging:
            self._behind[connection] = paced
        else:
            self._behind.pop(connection, None)
            self._log(paced, now)

    def forget(self, connection: int, peer: Peer, now: Instant) -> None:
        """The connection of this peer is over."""
        paced = self.paced.pop(connection, None)
        self._behind.pop(connection, None)
        if paced is not None and paced.count:
            paced.logged_at = float("-inf")
            self._log(paced, now)
        if not peer.connections:
            self.turns.forget(peer.id)

    def clear(self) -> None:
        """Everybody has gone."""
        self.paced.clear()
        self._behind.clear()
        self.turns = Turns(self._limits)

    def state(self) -> list[tuple[int, float, int, float, bool]]:
        """Each connection that may fall behind: when it was last told, how many answers it was
        spared, when that was logged, and whether it is behind. For `restore`."""
        return [
            (id, its.told_at, its.count, its.logged_at, id in self._behind)
            for id, its in self.paced.items()
        ]

    def restore(self, state: Iterable[tuple[int, float, int, float, bool]]) -> None:
        """Know what another one knows of the connections that are followed here, too."""
        for id, told_at, count, logged_at, is_behind in state:
            paced = self.paced[id]
            paced.told_at, paced.count, paced.logged_at = told_at, count, logged_at
            if is_behind:
                self._behind[id] = paced

    def begins(self, peer: Peer, header: Header, text: Text) -> None:
        """The peer says something that passes. If that begins a turn, it is remembered."""
        if header.type not in ANSWERS and self.turns.follows(peer.id):
            self._work.extra += len(text) // _STEP_BYTES
            turn = turn_of(text)
            if turn is not None:
                self.turns.begin(peer.id, turn)

    def spare(
        self,
        roster: Roster,
        sender: Peer,
        header: Header,
        text: Text,
        now: Instant,
        *,
        wants: Callable[[int], bool],
    ) -> tuple[int, ...]:
        """Which connections do not get what `sender` says to all others. They are told.

        `wants`: a connection, which the message does not name, wants it.
        """
        if not self._behind or header.type not in ANSWERS:
            return ()
        self._work.extra += len(self._behind) // _STEPS + len(text) // _STEP_BYTES
        turn = turn_of(text)
        if turn is None:
            return ()
        spared = [
            paced
            for paced in self._behind.values()
            if (peer := paced.connection.peer) is not sender
            and not self.turns.has_begun(peer.id, turn)
            and not roster.is_named(peer, header)
            and wants(paced.connection.id)
        ]
        for paced in spared:
            if now.at - paced.told_at >= self._limits.lag_told_every_s:
                paced.told_at = now.at
                self._tell(paced, now)
            paced.count += 1
            self._log(paced, now)
        return tuple(paced.connection.id for paced in spared)

    def _tell(self, paced: _Paced, now: Instant) -> None:
        peer, limits = paced.connection.peer.id, self._limits
        text = texts.error(refusals.lagging(limits), peer, None, now.wall_ms, limits)
        self._work.extra += ERROR_WORK
        self._effects.append(Deliver((text,), Only((paced.connection.id,))))

    def _log(self, paced: _Paced, now: Instant) -> None:
        """Now and then it is told to whoever reads the logs."""
        if paced.count and now.at - paced.logged_at >= self._limits.refusal_log_every_s:
            connection = paced.connection
            self._effects.append(Spared(connection.id, connection.peer.id, paced.count))
            paced.count, paced.logged_at = 0, now.at
