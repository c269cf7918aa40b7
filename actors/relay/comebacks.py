"""Connections that come back: what they missed is kept, and the lost one gets another socket.

A lost connection keeps its number, its place in the mesh and its actor, whose socket is gone. The
connection that comes back has a number and an actor of its own. Then both actors change places: the
one with the socket takes the number of the lost connection, and everything goes on behind it.
"""

from collections.abc import Callable, Mapping

from actors.frames import Batch, SharedBatch, Single
from actors.link import ABNORMAL
from actors.relay.ledger import CONNECTION_BYTES, Ledger
from actors.relay.lobby import Lobby
from actors.relay.peer import PeerActor
from actors.relay.rounds import JOINS, Several
from actors.relay.tape import Tape
from actors.transports.paced import PacedTransport
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import Counted, Returning
from protocol.mesh.history import History, Missing
from protocol.mesh.local import LocalMesh


class Comebacks:
    """Those of one mesh. `actors`, `receivers`, `paced`: the supervisor's, by connection.

    `carry_out`: carries out what the mesh has decided so far. `fail`: ends a connection because of
    an exception.

    `is_busy`: there is something to keep, or somebody to answer. While nobody may come back, a
    round costs nothing more.
    """

    def __init__(
        self,
        limits: Limits,
        mesh: LocalMesh,
        ledger: Ledger,
        lobby: Lobby,
        *,
        actors: dict[int, PeerActor],
        receivers: dict[int, PeerActor],
        paced: dict[int, PacedTransport],
        carry_out: Callable[[Instant], None],
        fail: Callable[[PeerActor, Exception, Instant], None],
    ) -> None:
        # A peer may have heard nothing for long before its socket is known to be gone.
        keep_s = limits.resume_s + limits.reap_after_s
        self.history = History(limits.history_bytes_max, keep_s, JOINS)
        self._mesh = mesh
        self._ledger = ledger
        self._lobby = lobby
        self._actors = actors
        self._receivers = receivers
        self._paced = paced
        self._carry_out = carry_out
        self._fail = fail
        self._away: set[int] = set()
        self._counted_bytes = 0
        self._returning: list[Returning] = []
        self.is_busy = False

    def keep(
        self, shared: SharedBatch | None, own: Mapping[int, Batch | None], *, now: Instant
    ) -> None:
        """Keep what a round has sent. It gives way to everything else that the process holds."""
        history, ledger = self.history, self._ledger
        history.add(shared, own, now.at)
        others = ledger.held - self._counted_bytes
        while others + history.bytes > ledger.bytes_max // 2 and history.drop_oldest():
            pass
        change, self._counted_bytes = history.bytes - self._counted_bytes, history.bytes
        if change:
            ledger.add(change)
        self.is_busy = bool(history or self._returning)

    def asked(self, effect: Counted | Returning, tape: Tape) -> None:
        """A connection may come back from here on (of this tape), or wants to. The latter is
        answered after the round."""
        self.is_busy = True
        match effect:
            case Counted(connection):
                before, follows = tape.count_of(connection), connection in tape.present
                self.history.open(connection, before, follows=follows)
            case Returning():
                self._returning.append(effect)

    @property
    def away_count(self) -> int:
        """How many connections are away, and may come back."""
        return len(self._away)

    def away(self, connection: int) -> None:
        """Its socket is gone, and it may come back. It costs as much as before."""
        if connection not in self._away:
            self._away.add(connection)
            self._ledger.stand(CONNECTION_BYTES)

    def closed(self, connection: int) -> None:
        """It is over."""
        self.history.close(connection)
        self._is_no_longer_away(connection)

    def _is_no_longer_away(self, connection: int) -> None:
        if connection in self._away:
            self._away.discard(connection)
            self._ledger.stand(-CONNECTION_BYTES)

    def answer(self, now: Instant) -> None:
        """The round is over: answer those who want to come back."""
        if self._returning:
            returning, self._returning = self._returning, []
            for asked in returning:
                self._come_back(asked, now)

    def _come_back(self, asked: Returning, now: Instant) -> None:
        id, request, mesh = asked.connection, asked.request, self._mesh
        actor = self._receivers.get(id)
        if actor is None:  # it has ended in the same round
            return
        known: int | None = None
        found = mesh.returns.find(id, request)
        if isinstance(found, int):
            self._take_the_rest(found, now)
            if not mesh.is_open(found):  # by what it said last
                found = "unknown"
        if isinstance(found, int):
            try:
                if mesh.returns.goes_back(found, request):
                    raise Missing("count")
                missed = self.history.missed(found, request.received, request.crc)
            except Missing as missing:
                mesh.lost(found, ABNORMAL, now)  # its token is used up, so its time runs out
                known, found = found, missing.reason
        if isinstance(found, str):
            no = mesh.returns.stay_away(id, found, asked.text, now, lost_id=known)
            actor.tell(Batch([no]))
            return
        answer = mesh.returns.come_back(id, found, request, asked.text, now)
        self._change_places(actor, self._actors[found])
        mesh.caught_up(found, now)  # whatever waited for the old socket
        batches = (part if isinstance(part, Batch) else Batch(part.texts) for part in missed)
        actor.tell(Several([Single(answer), *batches]))

    def _take_the_rest(self, lost: int, now: Instant) -> None:
        """Decide what the old socket has still delivered. Nothing more comes from there."""
        old, mesh = self._actors[lost], self._mesh
        messages = old.detach()
        try:
            if messages:
                mesh.received(lost, messages, now)
            while lost in mesh.unfinished:
                mesh.received(lost, (), now)
        except Exception as error:
            self._fail(old, error, now)
        self._carry_out(now)

    def _change_places(self, new: PeerActor, old: PeerActor) -> None:
        self._lobby.leave(new)
        self._is_no_longer_away(old.id)
        new.id, old.id = old.id, new.id
        new_pace, old_pace = self._paced.pop(old.id, None), self._paced.pop(new.id, None)
        if new_pace is not None:
            self._paced[new.id] = new_pace
            if old_pace is not None:
                new_pace.accepts_batches = old_pace.accepts_batches
        del self._receivers[old.id]
        self._receivers[new.id] = self._actors[new.id] = new
        if old.close_code is None:
            self._actors[old.id] = old
            if old_pace is not None:
                self._paced[old.id] = old_pace
        else:
            del self._actors[old.id]
