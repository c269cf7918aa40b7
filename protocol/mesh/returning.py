"""Connections that are lost and come back: what a gate decides about them.

    asked       a `capabilities` asks to be counted, reports, or wants to go on with a lost one
    lose        a socket is gone: may the connection come back?
    find        which connection a returning one means
    come_back   the two become one: the lost one lives on with the socket of the other

Between `find` and `come_back` the owner of the sockets takes what the old one has still delivered,
and looks up what was missed (protocol.mesh.history).
"""

from collections.abc import Callable
from typing import Final

import attrs

from protocol.envelope import ErrorCode, Refusal, Text
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.mesh import lifecycle
from protocol.mesh.answers import Answers
from protocol.mesh.connection import Connection
from protocol.mesh.effects import Effect, Returning
from protocol.mesh.items import Items, Question
from protocol.mesh.lifecycle import Heard, Lost
from protocol.mesh.resuming import Open, Report, Resume, Resumptions, read_request
from protocol.mesh.unfinished import Unfinished
from protocol.mesh.work import RETURN_WORK

CLEAN: Final = frozenset((1000, 1001, 1005))
"""Close codes with which a peer leaves. After all others, and without any, its socket is lost."""
TIME_OVER: Final = 1001
"""With this code AgentCore's edge ends a connection whose time is over. So behind an edge the
socket is lost then, too; a peer of ours that leaves says 1000."""


class Returns:
    """The connections of one gate that may come back, among its `connections`.

    `resumptions`: None if nobody may. `schedule`: called when something about the end of a
    connection has changed.
    """

    def __init__(
        self,
        connections: dict[int, Connection],
        unfinished: dict[int, Unfinished],
        answers: Answers,
        items: Items,
        effects: list[Effect],
        *,
        resumptions: Resumptions | None,
        schedule: Callable[[Connection], None],
    ) -> None:
        self._connections = connections
        self._unfinished = unfinished
        self._answers = answers
        self._items = items
        self._effects = effects
        self._resumptions = resumptions
        self._schedule = schedule

    def asked(
        self, connection: Connection, text: Text, now: Instant, *, behind: int | None
    ) -> bool:
        """Answer a `capabilities`. Raises Refusal.

        `behind`: how many frames came behind it at once; None if it is part of an array. True: it
        wants to go on with a lost connection, and these frames wait until that is decided.
        """
        resumptions = self._resumptions
        request = None if resumptions is None else read_request(text)
        if resumptions is None or request is None:
            self._ask(connection, self._answers.question(connection, text), now)
            return False
        if behind is None:
            sentence = "`data.resume` and `data.received` come in a frame of their own"
            raise Refusal(ErrorCode.BAD_FIELD, sentence)
        resumption = connection.resumption
        match request:
            case Open(seconds):
                question = self._answers.question(connection, text)  # first: it may be refused
                is_new = resumption is None
                if is_new:
                    connection.resumption = resumptions.open(connection.id, seconds)
                    connection.resumption.taken = behind
                self._ask(connection, attrs.evolve(question, counts=is_new), now)
            case Report(received):
                if resumption is None:
                    sentence = "`data.received` comes after `data.resume`"
                    raise Refusal(ErrorCode.BAD_FIELD, sentence)
                resumption.received = max(resumption.received, received)
                data: dict[str, object] = {"taken": resumption.taken - behind}
                self._answers.reported(connection, text, data, now)
            case Resume():
                self._answers.work.extra += RETURN_WORK
                self._effects.append(Returning(connection.id, request, text))
                return True
        return False

    def lose(self, connection: Connection, code: int, now: Instant) -> lifecycle.Step | None:
        """Its socket is gone, with this close code. None: it cannot come back."""
        resumption = connection.resumption
        is_clean = code in CLEAN and not (connection.is_paced and code == TIME_OVER)
        if resumption is None or connection.peer is None or is_clean:
            return None
        life = connection.life
        if connection.heard_at > life.since:
            life = lifecycle.transition(life, Heard(connection.heard_at)).life
        return lifecycle.transition(life, Lost(now.at, now.at + resumption.seconds))

    def find(self, id: int, request: Resume) -> int | str:
        """Which connection a returning one means, or the reason why it may not go on with it.

        The token is used up, whatever comes of it.
        """
        resumptions, connection = self._resumptions, self._connections[id]
        assert resumptions is not None, "or it would not have been read"
        lost = resumptions.use(request.token)
        if request.epoch != resumptions.epoch:
            return "epoch"
        if connection.speaks_as is not None or connection.resumption is not None:
            return "late"
        if lost is None or self._connections[lost].peer is None:  # there is nothing to come back to
            return "unknown"
        if _timeless(self._connections[lost].grant) != _timeless(connection.grant):
            return "grant"
        return lost

    def goes_back(self, lost_id: int, request: Resume) -> bool:
        """Fewer messages are said to have arrived than were said before.

        Ask this when all that the lost connection has said is decided.
        """
        resumption = self._connections[lost_id].resumption
        assert resumption is not None, "it had a token"
        return request.received < resumption.received

    def come_back(self, id: int, lost_id: int, request: Resume, text: Text, now: Instant) -> Text:
        """The lost connection lives on with the socket of `id`, which is no connection any more.

        `text`: in which it asked for that. Returns the answer.
        """
        new, lost = self._connections.pop(id), self._connections[lost_id]
        resumption, resumptions = lost.resumption, self._resumptions
        assert resumption is not None, "it had a token"
        assert resumptions is not None
        resumptions.renew(lost_id, resumption)
        resumption.received = request.received
        resume = {"resumed": True, "taken": resumption.taken, **(self._offer(lost) or {})}
        waiting = self._unfinished.pop(id, None)
        if waiting is not None:
            self._unfinished[lost_id] = waiting
            resumption.taken += len(waiting.messages) + waiting.dropped
        lost.grant, lost.is_paced = new.grant, new.is_paced
        lost.ends_at, lost.ends_at_ms = new.ends_at, new.ends_at_ms
        lost.heard_at = lost.said_at = now.at
        lost.life = lifecycle.transition(lost.life, Heard(now.at)).life
        self._schedule(lost)
        self._answers.totals.returns["resumed"] += 1
        return self._answers.about_coming_back(lost, text, {"resume": resume}, now)

    def stay_away(
        self, id: int, reason: str, text: Text, now: Instant, *, lost_id: int | None = None
    ) -> Text:
        """A returning connection may not go on with a lost one, for this reason: it begins anew.

        `lost_id`: the lost one, if it is known and all that it has said is decided. Returns the
        answer.
        """
        connection = self._connections[id]
        self._answers.totals.returns[reason] += 1
        resume: dict[str, object] = {"resumed": False, "reason": reason}
        lost = None if lost_id is None else self._connections[lost_id].resumption
        if lost is not None:
            resume["taken"] = lost.taken
        resume |= self._offer(connection) or {}
        return self._answers.about_coming_back(connection, text, {"resume": resume}, now)

    def forget(self, connection: Connection) -> None:
        """The connection is over."""
        if connection.resumption is not None and self._resumptions is not None:
            self._resumptions.close(connection.resumption)

    def _ask(self, connection: Connection, question: Question, now: Instant) -> None:
        """Everything else that is asked, the mesh answers."""
        question = attrs.evolve(question, resume=self._offer(connection))
        self._items.asked(connection.id, question, now)

    def _offer(self, connection: Connection) -> dict[str, object] | None:
        resumption, resumptions = connection.resumption, self._resumptions
        if resumptions is None:
            return None
        if resumption is None:
            return {"seconds": resumptions.seconds_max}
        epoch = resumptions.epoch
        return {"token": resumption.token, "epoch": epoch, "seconds": resumption.seconds}


def _timeless(grant: Grant) -> Grant:
    return attrs.evolve(grant, ends_at_ms=None)
