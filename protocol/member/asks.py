"""Commands that a peer gives to agents of others, and what comes back.

A command is queued by the call. Answers (`ack`, `stream`, `turn_end`, `error` with its turn id)
count only from the peer that was asked; where the roster did not say which one that is, from the
first that answers. The relay's own `error` counts always. A turn ends with its result, with an
error of the agent or of the relay, when a chunk of the answer is missing, in silence (`timeout_s`
without a sign of the agent), when the peer that was asked leaves, when its user abandons it, and
with the peer that asked. What was not sent by then never is. If it was sent, and nobody waits for
the answer any more, the peer that was asked is told to stop (`cancel`).

Where any of several peers may answer, one of those is chosen that have the fewest commands of this
peer. If that one leaves, or says that it does not take the command, before it has given a sign of
life, another one is asked, once.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.chunks import Chunks
from protocol.member.effects import Chunk, Effect, TurnEnded
from protocol.member.errors import (
    AmbiguousTarget,
    AnswerGap,
    NotServed,
    QueueFull,
    RelayError,
    TargetLeft,
    TurnError,
    TurnTimeout,
    UnknownTarget,
)
from protocol.member.messages import (
    ANSWERS,
    Message,
    compose,
    is_private,
    text_of,
    turn_error,
)
from protocol.member.outgoing import Dropped, Outgoing
from protocol.member.returns import Returns, Target
from protocol.member.roster import Roster

LATE_S: Final = 1.0
"""Whoever looks at the clock so long (seconds) after a turn was due was asleep, or blocked."""
NOT_TAKEN: Final = frozenset({"unknown_target", "ambiguous_target", "not_served", "busy"})
"""The errors that say that nobody has begun with the command."""


@attrs.define
class _Turn:
    """One command under way. `peer`: who may answer, None while that is open. `due`: when the
    silence is too long. `ticket`: its place in the queue, None before it has one.
    `saw_peer`: the peer was in the roster, or answered, since the command was given.
    `is_excused`: a clock looked at late was forgiven once. `message`: the command, as long as
    another peer may be asked instead. `before`: the peer that was asked first, if it is another;
    `is_before_told`: it was told to stop, or has stopped.
    `is_taken`: the peer has given a sign of life."""

    id: str
    agent: str
    peer: str | None
    text: str
    timeout_s: float | None
    due: float = math.inf
    ticket: int | None = None
    saw_peer: bool = False
    is_excused: bool = False
    message: Mapping[str, Any] | None = None
    before: str | None = None
    is_before_told: bool = False
    is_taken: bool = False
    chunks: Chunks = attrs.Factory(Chunks)


class Asks:
    """The commands that the peer `id` has given. `roll` gives numbers in [0, 1). `emit` takes the
    effects."""

    def __init__(
        self,
        id: str,
        limits: MembershipLimits,
        *,
        roster: Roster,
        announcements: Announcements,
        outgoing: Outgoing,
        returns: Returns,
        roll: Callable[[], float],
        emit: Callable[[Effect], None],
    ) -> None:
        self._id = id
        self._limits = limits
        self._roster = roster
        self._announcements = announcements
        self._outgoing = outgoing
        self._returns = returns
        self._roll = roll
        self._emit = emit
        self._turns: dict[str, _Turn] = {}
        self._soonest = math.inf  # when one of them may be due; never too late
        self._load: Counter[str] = Counter()  # how many of these any of several might answer
        self._waiting: dict[str, _Turn] = {}  # of these: for room in the queue
        self._cancels: deque[str] = deque(maxlen=limits.asks_max)  # texts that wait for room, too

    def ask(
        self,
        turn: str,
        agent: str,
        command: Any,
        now: Instant,
        *,
        peer: str | None,
        any: bool,
        timeout_s: float | None,
        fields: Mapping[str, Any],
    ) -> None:
        """Give a command, under the id `turn`. Raises TypeError (no command, no JSON), ValueError
        (a timeout below 0, `peer` and `any` together), TooLarge; what else is wrong ends the
        turn."""
        if command is None:
            raise TypeError("no peer knows a command that is None")
        if timeout_s is not None and not timeout_s >= 0:
            raise ValueError(f"timeout_s must be a number from 0, got {timeout_s!r}")
        if timeout_s == math.inf:
            timeout_s = None
        if any and peer is not None:
            raise ValueError("`any` and `peer` cannot both say who is meant")
        hosts = self._roster.hosts(agent)
        if peer is None and hosts and (any or len(hosts) == 1):
            peer = self._choice(hosts)
        # With `instanceId`, because that is how existing pages know whom to answer.
        message = {"type": "direct", "to": agent, "turnId": turn, "instanceId": self._id}
        said = {**message, "answers": "direct", **fields, "data": {"command": command}}
        text = self._text(said, peer, now)
        self._outgoing.check(text)
        under_way = len(self._turns)
        asked = self._turns[turn] = _Turn(turn, agent, None, text, timeout_s)
        self._wait_for(asked, timeout_s, now)
        asked.message = said if any else None
        self._aim(asked, peer)
        if peer in (None, self._id) and agent in (self._id, *self._announcements.agent_ids):
            self._end(asked, self._own_target(agent, peer, hosts))
        elif under_way >= self._limits.asks_max:
            self._end(asked, QueueFull(f"{under_way} commands are under way already"))
        else:
            self._offer(asked)

    def _text(self, said: Mapping[str, Any], peer: str | None, now: Instant) -> str:
        target = {} if peer is None else {"targetInstanceId": peer}
        return compose(self._id, {**target, **said}, now)

    def _own_target(self, agent: str, peer: str | None, hosts: list[str]) -> TurnError:
        # The relay passes on nothing that its sender has an agent for, and says nothing.
        if peer is None and hosts:
            sentence = f"{len(hosts)} other peers have an agent {agent}: name one (peer)"
            return AmbiguousTarget(sentence, tuple(hosts))
        return UnknownTarget(f"{agent} is of this peer itself, and no other has it")

    def abandon(self, turn: str, now: Instant) -> None:
        """Its user waits no more."""
        if turn in self._turns:
            self._give_up(self._turns[turn], TurnError("the turn was abandoned"), now)

    def leave(self, error: RelayError, now: Instant) -> None:
        """The peer is leaving: nobody will hear an answer."""
        for turn in tuple(self._turns.values()):
            if self._outgoing.is_connected:
                self._give_up(turn, error, now)
            else:
                self._end(turn, error)

    def end(self, error: RelayError) -> None:
        """The peer is over, and every turn with it."""
        for turn in tuple(self._turns.values()):
            self._end(turn, error)

    # Any of several -------------------------------------------------------------------------------

    def _choice(self, hosts: list[str]) -> str:
        """One of those that have the fewest commands of this peer."""
        fewest = min(self._load[host] for host in hosts)
        idle = [host for host in hosts if self._load[host] == fewest]
        return idle[int(self._roll() * len(idle))] if len(idle) > 1 else idle[0]

    def _aim(self, turn: _Turn, peer: str | None) -> None:
        """The turn is for this peer from now on."""
        if turn.peer is not None:
            self._load[turn.peer] -= 1
            if not self._load[turn.peer]:
                del self._load[turn.peer]
        turn.peer = peer
        turn.saw_peer = peer in self._roster.peers
        if peer is not None:
            self._load[peer] += 1

    def _ask_another(self, turn: _Turn, hosts: Iterable[str], now: Instant) -> bool:
        """Ask another one of these peers instead. False: there is none, or it is too late."""
        said, others = turn.message, [host for host in hosts if host not in (turn.peer, self._id)]
        if said is None or turn.is_taken or not others:
            return False
        if turn.ticket is not None:
            self._outgoing.withdraw(turn.ticket)
        self._waiting.pop(turn.id, None)
        turn.before = turn.peer
        self._aim(turn, self._choice(others))
        turn.message, turn.ticket = None, None
        turn.text = self._text(said, turn.peer, now)
        self._wait_for(turn, turn.timeout_s, now)
        self._offer(turn)
        return True

    # Waiting for room in the queue ----------------------------------------------------------------

    def _offer(self, turn: _Turn) -> None:
        if not self._waits():
            self._send(turn)
        elif len(self._waiting) < self._limits.turns_max:
            self._waiting[turn.id] = turn
        else:
            sentence = f"{len(self._waiting)} commands wait for room in the queue already"
            self._end(turn, QueueFull(sentence))

    def _waits(self) -> bool:
        """A command must wait. Without a connection none does: the queue takes it, or nothing."""
        has_room = self._outgoing.has_room and not self._waiting
        return self._outgoing.is_connected and not has_room

    def flush(self) -> None:
        """There may be room in the queue now, or no connection any more."""
        self._flush_cancels()
        while self._waiting and (self._outgoing.has_room or not self._outgoing.is_connected):
            turn = self._waiting.pop(next(iter(self._waiting)))
            self._send(turn)

    def _flush_cancels(self) -> None:
        while self._cancels and self._outgoing.has_room:
            with suppress(RelayError):  # its own offline presence says it as well
                self._outgoing.offer(self._cancels.popleft())

    def _send(self, turn: _Turn) -> None:
        try:
            turn.ticket = self._outgoing.offer(turn.text, Target(turn.agent, turn.peer))
            turn.text = ""  # the queue has it now
        except RelayError as error:
            self._end(turn, error)

    def unsent(self, dropped: Iterable[Dropped]) -> None:
        """These messages will not be sent, because the connection was lost."""
        errors = {lost.ticket: lost.error for lost in dropped}
        if errors:
            for turn in tuple(self._turns.values()):
                if turn.ticket in errors:
                    self._end(turn, errors[turn.ticket])

    # What happens ---------------------------------------------------------------------------------

    def answer(self, message: Message, size: int, now: Instant) -> None:
        """A message with the id of a turn arrived (as `opened`)."""
        turn = self._turns.get(message.turn_id or "")
        if turn is None or message.type not in ANSWERS:
            return
        if message.is_relays and message.type == "error":
            if turn.before is not None and message.word("target") == turn.before:
                return  # the command to the peer that was asked first came too late
        else:
            if turn.peer is None:
                self._aim(turn, message.origin)
            if message.origin != turn.peer:
                self._answered_too_late(turn, message, now)
                return
            turn.saw_peer = turn.saw_peer or not self._roster.is_cut
            if message.type != "error":
                turn.is_taken, turn.message = True, None
        self._wait_for(turn, turn.timeout_s, now)
        match message.type:
            case "error":
                self._refused(turn, message, now)
            case "stream":
                self._streamed(turn, message, size, now)
            case "turn_end":
                result = message.word("result")
                wrong = turn.chunks.end(message.word("chunks"))
                if wrong is None:
                    self._end(turn, None, result)
                else:
                    self._end(turn, AnswerGap(wrong, result))

    def _answered_too_late(self, turn: _Turn, message: Message, now: Instant) -> None:
        """The peer that was asked first had the command, and is back: it is told to stop, once."""
        if turn.before is None or message.origin != turn.before or turn.is_before_told:
            return
        turn.is_before_told = True
        if message.type in ("ack", "stream"):
            self._cancel(turn.before, turn.id, now)

    def _streamed(self, turn: _Turn, message: Message, size: int, now: Instant) -> None:
        begins = (0,) if is_private(message) else (0, 1)
        wrong = turn.chunks.note(message.word("chunkNum"), begins=begins)
        if wrong is None:
            self._emit(Chunk(turn.id, text_of(message.word("chunk")), size))
        else:
            self._give_up(turn, AnswerGap(wrong), now)

    def _refused(self, turn: _Turn, message: Message, now: Instant) -> None:
        error, code = turn_error(message), message.word("code")
        if isinstance(error, NotServed) and turn.is_taken:
            return  # another program under the same id has not served it, and one has
        hosts = error.peers if isinstance(error, AmbiguousTarget) else None
        is_taken = not (isinstance(code, str) and code in NOT_TAKEN)
        if is_taken or not self._ask_another(turn, hosts or self._roster.hosts(turn.agent), now):
            self._end(turn, error)

    def roster_changed(self, now: Instant) -> None:
        """Somebody has come or gone."""
        peers = self._roster.peers
        for turn in tuple(self._turns.values()):
            if turn.peer in peers:
                turn.saw_peer = True
            elif self._returns.is_away(turn.peer):
                pass  # it may be back any moment, and go on with what it has
            elif turn.saw_peer and not self._ask_another(turn, self._roster.hosts(turn.agent), now):
                self._end(turn, TargetLeft(f"{turn.peer} left before it answered"))

    def deadline(self) -> float | None:
        """When (monotonic seconds) the first silence is too long; None if never. It may be too
        early while there are several turns: it is asked often, and must not look at all of them."""
        return self._soonest if self._turns and self._soonest < math.inf else None

    def _wait_for(self, turn: _Turn, within_s: float | None, now: Instant) -> None:
        """A sign of life must come within so many seconds."""
        turn.due = math.inf if within_s is None else now.at + within_s
        self._soonest = min(self._soonest, turn.due) if len(self._turns) > 1 else turn.due

    def expire(self, now: Instant) -> None:
        """End what is due."""
        at = now.at
        for turn in tuple(self._turns.values()):
            if turn.due > at:
                continue
            if at - turn.due > LATE_S and not turn.is_excused:
                # It was this program that did not listen: the answer may be here already.
                turn.is_excused, turn.due = True, at + self._limits.probe_within_s
            else:
                sentence = f"no sign of {turn.agent} for {turn.timeout_s:g} s"
                self._give_up(turn, TurnTimeout(sentence), now)
        self._soonest = min((turn.due for turn in self._turns.values()), default=math.inf)

    def _give_up(self, turn: _Turn, error: RelayError, now: Instant) -> None:
        """End a turn whose answer nobody wants any more, and tell that to whoever works on it."""
        was_sent = turn.ticket is not None and not self._outgoing.withdraw(turn.ticket)
        if was_sent:
            self._cancel(turn.peer or turn.agent, turn.id, now)
        self._end(turn, error)

    def _cancel(self, to: str, turn: str, now: Instant) -> None:
        told = {"type": "cancel", "to": to, "turnId": turn}
        self._cancels.append(compose(self._id, told, now))
        self._flush_cancels()

    def _end(self, turn: _Turn, error: RelayError | None, result: Any = None) -> None:
        del self._turns[turn.id]
        self._waiting.pop(turn.id, None)
        self._aim(turn, None)
        if error is not None and turn.ticket is not None:
            self._outgoing.withdraw(turn.ticket)
        self._emit(TurnEnded(turn.id, error, result))
