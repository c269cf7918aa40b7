"""Commands that others give to this peer's agents: who gets which, what waits, what is refused.

A service is a handler of the program, for some agents or for whatever is for this peer. A command
goes to the first service for the agent it names; the peer's own id stands for the peer itself. A
peer is visible to others before its program gets as far as `serve`, so a command that nobody
serves waits `serve_within_s` for a service, and then its asker is told. More than `turns_max` at a
time, or than cost `unread_bytes_max`, are told that the peer is busy.

Every command that a service takes is answered by an `ack` at once, and by one `turn_end` or `error`
at the end. As long as the agent says nothing, the `ack` is repeated every `ack_every_s`: to an
asker that is answered alone always, to everyone only before the first chunk, because existing pages
take it for a beginning. A command is cancelled when its asker says so, or is offline for
`asker_back_within_s`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import attrs

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.effects import Cancelled, Effect, Handle
from protocol.member.errors import RelayError, TurnError
from protocol.member.messages import Message, compose, is_command, reply_to, sentence_of
from protocol.member.outgoing import Outgoing
from protocol.member.roster import Roster

STOPPED: Final = "cancelled: it is not served any more"
CANCELLED: Final = "cancelled: nobody waits for it any more"
BUSY: Final = "busy: too many commands at a time; try again later"


@attrs.frozen
class _Service:
    """A handler. `agents`: those it serves; None: whatever is for this peer."""

    number: int
    agents: tuple[str, ...] | None


@attrs.frozen
class _Unserved:
    """A command that waits for a service, and the agents that have it already."""

    message: Message
    size: int
    due: float
    served: frozenset[str] = frozenset()


@attrs.define
class _Command:
    """A command that a service has, at the cost of `size` bytes. `chunks`: how many were sent.
    `ack_at`: when to give another sign of life (None: never). `asker_was_here`: its asker has been
    in the roster meanwhile. `gone_at`: when the asker has been away for too long."""

    service: int
    agent: str
    message: Message
    size: int
    ack_at: float | None
    asker_was_here: bool
    chunks: int = 0
    gone_at: float | None = None

    @property
    def is_private(self) -> bool:
        """Only its asker receives the answers."""
        return self.message.fields.get("answers") == "direct"


class Services:
    """The services of the peer `id`. `emit` takes the effects."""

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
        self._services: list[_Service] = []
        self._numbers = 0
        self._commands: dict[int, _Command] = {}  # under way, by number
        self._commands_begun = 0
        self._commands_size = 0
        self._unserved: deque[_Unserved] = deque()
        self._unserved_size = 0

    # Who serves -----------------------------------------------------------------------------------

    def serve(self, agents: Iterable[str] | None, now: Instant) -> int:
        """A handler serves these agents from now on (None: whatever is for this peer), beginning
        with what waits for it. Returns the number of the service. Raises TypeError."""
        if isinstance(agents, str):
            raise TypeError("agents is a list of ids")
        self._numbers += 1
        served = None if agents is None else tuple(agents)
        self._services.append(_Service(self._numbers, served))
        self.expire(now)
        for waiting in self._drain():
            self._offer(waiting, now)
        return self._numbers

    def stop(self, service: int, now: Instant, *, cancels: bool) -> None:
        """It serves no more. `cancels`: nor what it has already; whoever waits for that is told."""
        self._services = [other for other in self._services if other.number != service]
        if cancels:
            for number, command in tuple(self._commands.items()):
                if command.service == service:
                    self.fail(number, STOPPED, now)

    # What arrives ---------------------------------------------------------------------------------

    def note(self, message: Message, size: int, now: Instant) -> None:
        """A message arrived. Only commands are served, and none of the peer's own."""
        if message.type == "cancel":
            self._cancel(message, now)
        elif is_command(message) and message.origin != self._id:
            due = now.at + self._limits.serve_within_s
            self._offer(_Unserved(message, size, due), now)

    def _offer(self, waiting: _Unserved, now: Instant) -> None:
        message, served = waiting.message, set(waiting.served)
        named = self._named(message)
        for service in self._services:
            for agent in self._meant(service, message, named):
                if agent not in served:
                    served.add(agent)
                    self._begin(service.number, agent, waiting, now)
        if served.issuperset(named):
            return
        is_here = message.to in self._roster.shared_agent_ids
        if not is_here and any(service.agents is None for service in self._services):
            self._refuse_unserved(message, now)  # it never will be
        else:
            self._wait(attrs.evolve(waiting, served=frozenset(served)))
            self._make_room(now)

    def _refuse_unserved(self, message: Message, now: Instant) -> None:
        """Tell the asker that no agent takes its command. What is for the peer itself, or for all,
        the program may answer by itself, and another program with this id what is for its own."""
        agent, own = message.to, self._announcements.agent_ids
        if message.type == "broadcast" or agent in (None, self._id):
            return
        if agent not in self._roster.shared_agent_ids | set(own):
            data = {"error": f"there is no agent {agent} here", "code": "unknown_target"}
        elif agent in own and not self._roster.is_shared:
            data = {"error": f"{agent} is here, but nobody serves it", "code": "not_served"}
        else:
            return
        self._refuse(message, self._id, data, now)

    def _named(self, message: Message) -> tuple[str, ...]:
        """The agents that a command is for."""
        if message.type == "broadcast":
            return self._announcements.agent_ids or (self._id,)
        return (self._id if message.to is None else message.to,)

    def _meant(
        self, service: _Service, message: Message, named: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Those of the service's agents that it is for."""
        if service.agents is None:
            own = (*self._announcements.agent_ids, self._id)
            return tuple(agent for agent in named if agent in own)
        if message.type == "broadcast":
            return service.agents
        return tuple(agent for agent in named if agent in service.agents)

    def _begin(self, service: int, agent: str, waiting: _Unserved, now: Instant) -> None:
        message, size, limits = waiting.message, waiting.size, self._limits
        if len(self._commands) >= limits.turns_max or (
            self._commands and self._commands_size + size > limits.unread_bytes_max
        ):
            self._refuse(message, agent, {"error": BUSY, "code": "busy"}, now)
            return
        self._commands_begun += 1
        number = self._commands_begun
        ack_at, is_here = now.at + limits.ack_every_s, message.origin in self._roster.peers
        self._commands[number] = _Command(service, agent, message, size, ack_at, is_here)
        self._commands_size += size
        self._tell(message, agent, "ack", {}, now)
        self._emit(Handle(service, number, agent, message))

    # Who waits for the answer ---------------------------------------------------------------------

    def _cancel(self, cancel: Message, now: Instant) -> None:
        """An asker waits no more. Nobody else may say that."""
        asked = (cancel.origin, cancel.turn_id)
        for number, command in tuple(self._commands.items()):
            if (command.message.origin, command.message.turn_id) == asked:
                self._forsake(number, now)
        for waiting in self._drain():
            if (waiting.message.origin, waiting.message.turn_id) != asked:
                self._wait(waiting)

    def _forsake(self, number: int, now: Instant) -> None:
        """Nobody waits for this command any more."""
        command = self._over(number)
        if command is not None:
            if command.gone_at is None or not command.is_private:
                data = {"error": CANCELLED, "code": "cancelled"}
                self._refuse(command.message, command.agent, data, now)
            self._emit(Cancelled(command.service, number))

    def roster_changed(self, now: Instant) -> None:
        """Somebody has come or gone."""
        for command in self._commands.values():
            if command.message.origin in self._roster.peers:
                command.asker_was_here, command.gone_at = True, None
            elif command.asker_was_here and command.gone_at is None and not self._roster.is_cut:
                command.gone_at = now.at + self._limits.asker_back_within_s

    # What waits for a service ---------------------------------------------------------------------

    def _wait(self, command: _Unserved) -> None:
        self._unserved.append(command)
        self._unserved_size += command.size

    def _make_room(self, now: Instant) -> None:
        """The oldest go if too much waits, and their askers are told."""
        limits = self._limits
        while len(self._unserved) > 1 and (
            len(self._unserved) > limits.turns_max or self._unserved_size > limits.unread_bytes_max
        ):
            oldest = self._unserved.popleft()
            self._unserved_size -= oldest.size
            if oldest.message.type != "broadcast":
                self._refuse(oldest.message, self._id, {"error": BUSY, "code": "busy"}, now)

    def _drain(self) -> list[_Unserved]:
        drained = list(self._unserved)
        self._unserved.clear()
        self._unserved_size = 0
        return drained

    def answered(self, turn_id: str) -> None:
        """The program itself says something about a command: it need not be served any more, unless
        some of the agents it is for have it already."""
        for waiting in self._drain():
            if waiting.served or waiting.message.turn_id != turn_id:
                self._wait(waiting)

    def deadline(self) -> float | None:
        """When (monotonic seconds) something is due first; None if nothing is."""
        dues = [self._unserved[0].due] if self._unserved else []
        for command in self._commands.values():
            dues += [due for due in (command.ack_at, command.gone_at) if due is not None]
        return min(dues, default=None)

    def expire(self, now: Instant) -> None:
        """Refuse what has waited long enough, give signs of life, cancel for who is gone."""
        while self._unserved and self._unserved[0].due <= now.at:
            waited = self._unserved.popleft()
            self._unserved_size -= waited.size
            self._refuse_unserved(waited.message, now)
        for number, command in tuple(self._commands.items()):
            if command.gone_at is not None and command.gone_at <= now.at:
                self._forsake(number, now)
            elif command.ack_at is not None and command.ack_at <= now.at:
                command.ack_at = now.at + self._limits.ack_every_s
                if self._outgoing.is_connected and command.gone_at is None:
                    self._tell(command.message, command.agent, "ack", {}, now)

    # What is answered -----------------------------------------------------------------------------

    def stream(self, command: int, chunk: str, now: Instant) -> int:
        """Send a piece of the answer. Returns its ticket.

        Raises TypeError (no JSON), TurnError (the command is over), and as `Outgoing.offer`.
        """
        streamed = self._under_way(command)
        data = {"chunk": chunk, "chunkNum": streamed.chunks}
        ticket = self._answer(streamed, "stream", data, now)
        streamed.chunks += 1
        streamed.ack_at = now.at + self._limits.ack_every_s if streamed.is_private else None
        return ticket

    def finish(self, command: int, result: Any, now: Instant) -> int:
        """Send the result: the command is over. Returns its ticket. Raises as `stream`, and then it
        is not over: `fail` it. TurnError: it was over already."""
        finished = self._under_way(command)
        data = {"result": result, "chunks": finished.chunks}
        ticket = self._answer(finished, "turn_end", data, now)
        self._over(command)
        return ticket

    def fail(self, command: int, sentence: str, now: Instant) -> None:
        """The command is over with an error of so many words, or is over already."""
        failed = self._over(command)
        if failed is not None:
            data = {"error": sentence_of(sentence)}
            self._refuse(failed.message, failed.agent, data, now)

    def end(self) -> None:
        """The peer is over: nobody can be answered any more."""
        self._services.clear()
        self._commands.clear()
        self._commands_size = 0
        self._drain()

    def _over(self, number: int) -> _Command | None:
        command = self._commands.pop(number, None)
        if command is not None:
            self._commands_size -= command.size
        return command

    def _under_way(self, command: int) -> _Command:
        if command not in self._commands:
            raise TurnError("this command is over; nothing more can be said to it")
        return self._commands[command]

    def _answer(self, command: _Command, type: str, data: dict[str, Any], now: Instant) -> int:
        return self._outgoing.offer(self._text(command.message, command.agent, type, data, now))

    def _refuse(self, message: Message, agent: str, data: dict[str, Any], now: Instant) -> None:
        self._tell(message, agent, "error", data, now)

    def _tell(
        self, message: Message, agent: str, type: str, data: dict[str, Any], now: Instant
    ) -> None:
        """Reply without being asked to. Without a connection, and no room to wait for one, nobody
        is told."""
        with suppress(RelayError):
            self._outgoing.offer(self._text(message, agent, type, data, now), is_reply=True)

    def _text(
        self, message: Message, agent: str, type: str, data: dict[str, Any], now: Instant
    ) -> str:
        return compose(self._id, reply_to(message, agent, type, data), now)
