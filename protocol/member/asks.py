"""Commands that a peer gives to agents of others, and what comes back.

A command is queued by the call. Answers (`ack`, `stream`, `turn_end`, `error` with its turn id)
count only from the peer that was asked; where the roster did not say which one that is, from the
first that answers. The relay's own `error` counts always. A turn ends with its result, with an
error of the agent or of the relay, in silence (`timeout_s` without a sign of the agent), when the
peer that was asked leaves, when its user abandons it, and with the peer that asked. What was not
sent by then never is.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.effects import Chunk, Effect, TurnEnded
from protocol.member.errors import (
    AmbiguousTarget,
    QueueFull,
    RelayError,
    TargetLeft,
    TurnError,
    TurnTimeout,
    UnknownTarget,
)
from protocol.member.messages import Message, compose, text_of, turn_error
from protocol.member.outgoing import Outgoing
from protocol.member.roster import Roster

ANSWERS: Final = frozenset({"ack", "stream", "turn_end", "error"})
"""The types that answer a command."""
LATE_S: Final = 1.0
"""Whoever looks at the clock so long (seconds) after a turn was due was asleep, or blocked."""


@attrs.define
class _Turn:
    """One command under way. `peer`: who may answer, None while that is open. `due`: when the
    silence is too long, None if never. `ticket`: its place in the queue, None before it has one.
    `saw_peer`: the peer was in the roster, or answered, since the command was given.
    `is_excused`: a clock looked at late was forgiven once."""

    id: str
    agent: str
    peer: str | None
    text: str
    timeout_s: float | None
    due: float | None
    ticket: int | None = None
    saw_peer: bool = False
    is_excused: bool = False


class Asks:
    """The commands that the peer `id` has given. `emit` takes the effects."""

    def __init__(
        self,
        id: str,
        limits: MembershipLimits,
        *,
        roster: Roster,
        announcements: Announcements,
        outgoing: Outgoing,
        emit: Callable[[Effect], None],
    ) -> None:
        self._id = id
        self._limits = limits
        self._roster = roster
        self._announcements = announcements
        self._outgoing = outgoing
        self._emit = emit
        self._turns: dict[str, _Turn] = {}
        self._waiting: dict[str, _Turn] = {}  # of these: for room in the queue

    def ask(
        self,
        turn: str,
        agent: str,
        command: Any,
        now: Instant,
        *,
        peer: str | None,
        timeout_s: float | None,
        fields: Mapping[str, Any],
    ) -> None:
        """Give a command, under the id `turn`. Raises TypeError (no command, no JSON), ValueError
        (a timeout below 0), TooLarge; what else is wrong ends the turn."""
        if command is None:
            raise TypeError("no peer knows a command that is None")
        if timeout_s is not None and not timeout_s >= 0:
            raise ValueError(f"timeout_s must be a number from 0, got {timeout_s!r}")
        if timeout_s == math.inf:
            timeout_s = None
        hosts = self._roster.hosts(agent)
        if peer is None and len(hosts) == 1:
            peer = hosts[0]
        # With `instanceId`, because that is how existing pages know whom to answer.
        message = {"type": "direct", "to": agent, "turnId": turn, "instanceId": self._id}
        if peer is not None:
            message["targetInstanceId"] = peer
        text = compose(self._id, {**message, **fields, "data": {"command": command}}, now)
        self._outgoing.check(text)
        due = None if timeout_s is None else now.at + timeout_s
        under_way = len(self._turns)
        asked = self._turns[turn] = _Turn(turn, agent, peer, text, timeout_s, due)
        asked.saw_peer = peer in self._roster.peers
        if peer in (None, self._id) and agent in (self._id, *self._announcements.agent_ids):
            self._end(asked, self._own_target(agent, peer, hosts))
        elif under_way >= self._limits.asks_max:
            self._end(asked, QueueFull(f"{under_way} commands are under way already"))
        elif not self._waits():
            self._send(asked)
        elif len(self._waiting) < self._limits.turns_max:
            self._waiting[turn] = asked
        else:
            sentence = f"{len(self._waiting)} commands wait for room in the queue already"
            self._end(asked, QueueFull(sentence))

    def _own_target(self, agent: str, peer: str | None, hosts: list[str]) -> TurnError:
        # The relay passes on nothing that its sender has an agent for, and says nothing.
        if peer is None and hosts:
            sentence = f"{len(hosts)} other peers have an agent {agent}: name one (peer)"
            return AmbiguousTarget(sentence, tuple(hosts))
        return UnknownTarget(f"{agent} is of this peer itself, and no other has it")

    def abandon(self, turn: str) -> None:
        """Its user waits no more."""
        if turn in self._turns:
            self._end(self._turns[turn], TurnError("the turn was abandoned"))

    def end(self, error: RelayError) -> None:
        """The peer is over, and every turn with it."""
        for turn in tuple(self._turns.values()):
            self._end(turn, error)

    # Waiting for room in the queue ----------------------------------------------------------------

    def _waits(self) -> bool:
        """A command must wait. Without a connection none does: the queue takes it, or nothing."""
        has_room = self._outgoing.has_room and not self._waiting
        return self._outgoing.is_connected and not has_room

    def flush(self) -> None:
        """There may be room in the queue now, or no connection any more."""
        while self._waiting and (self._outgoing.has_room or not self._outgoing.is_connected):
            turn = self._waiting.pop(next(iter(self._waiting)))
            self._send(turn)

    def _send(self, turn: _Turn) -> None:
        try:
            turn.ticket = self._outgoing.offer(turn.text)
            turn.text = ""  # the queue has it now
        except RelayError as error:
            self._end(turn, error)

    # What happens ---------------------------------------------------------------------------------

    def answer(self, message: Message, size: int, at: float) -> None:
        """A message with the id of a turn arrived."""
        turn = self._turns.get(message.turn_id or "")
        if turn is None or message.type not in ANSWERS:
            return
        if not (message.is_relays and message.type == "error"):
            if turn.peer is None:
                turn.peer = message.origin
            if message.origin != turn.peer:
                return
            turn.saw_peer = turn.saw_peer or not self._roster.is_cut
        if turn.timeout_s is not None:
            turn.due = at + turn.timeout_s
        match message.type:
            case "stream":
                self._emit(Chunk(turn.id, text_of(message.word("chunk")), size))
            case "turn_end":
                self._end(turn, None, message.word("result"))
            case "error":
                self._end(turn, turn_error(message))

    def roster_changed(self) -> None:
        """Somebody has come or gone."""
        peers = self._roster.peers
        for turn in tuple(self._turns.values()):
            if turn.peer in peers:
                turn.saw_peer = True
            elif turn.saw_peer:
                self._end(turn, TargetLeft(f"{turn.peer} left before it answered"))

    def deadline(self) -> float | None:
        """When (monotonic seconds) the first silence is too long; None if never."""
        if not self._turns:
            return None
        dues = [turn.due for turn in self._turns.values() if turn.due is not None]
        return min(dues, default=None)

    def expire(self, at: float) -> None:
        """End what is due."""
        for turn in tuple(self._turns.values()):
            if turn.due is None or turn.due > at:
                continue
            if at - turn.due > LATE_S and not turn.is_excused:
                # It was this program that did not listen: the answer may be here already.
                turn.is_excused, turn.due = True, at + self._limits.probe_within_s
            else:
                sentence = f"no sign of {turn.agent} for {turn.timeout_s:g} s"
                self._end(turn, TurnTimeout(sentence))

    def _end(self, turn: _Turn, error: RelayError | None, result: Any = None) -> None:
        del self._turns[turn.id]
        self._waiting.pop(turn.id, None)
        if error is not None and turn.ticket is not None:
            self._outgoing.withdraw(turn.ticket)
        self._emit(TurnEnded(turn.id, error, result))
