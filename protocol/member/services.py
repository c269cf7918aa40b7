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
`asker_back_within_s`. An asker that missed the end of its turn is told so when it is back (owed).
When this connection goes, or falls asleep, others of its peer may stay; so askers are told `left`.
Which commands of a service wait for others, places decides; which agents this connection serves of
those of its peer, elected.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import attrs

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements
from protocol.member.effects import Cancelled, Effect, Handle, Taken
from protocol.member.elected import Elected
from protocol.member.ends import BUSY, CANCELLED, LEFT, MISSED, STOPPED, End
from protocol.member.errors import RelayError, TurnError
from protocol.member.messages import Message, compose, is_command, reply_to, sentence_of
from protocol.member.outgoing import Outgoing
from protocol.member.owed import Debts
from protocol.member.places import Places
from protocol.member.returns import target_of
from protocol.member.roster import Roster
from protocol.member.served import Served
from protocol.member.unserved import Unserved, Waiting


@attrs.frozen
class _Service:
    """A handler. `agents`: those it serves; None: whatever is for this peer."""

    number: int
    agents: tuple[str, ...] | None


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
        elects: bool = False,
    ) -> None:
        self._id = id
        self._limits = limits
        self._roster = roster
        self._announcements = announcements
        self._outgoing = outgoing
        self._emit = emit
        self._places = Places(limits.service_queue_max)
        self._elected = Elected(takes_part=elects, taken_max=limits.unread_messages_max)
        self._services: list[_Service] = []
        self._numbers = 0
        self._commands: dict[int, Served] = {}  # under way, by number
        self._commands_begun = 0
        self._commands_size = 0
        self._soonest = math.inf  # when something may be due for one of them; never too late
        self._debts = Debts(limits.turns_max)
        self._unserved = Unserved(limits)

    # Who serves -----------------------------------------------------------------------------------

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that some service is for, each once."""
        own = (*self._announcements.agent_ids, self._id)
        named = [own if service.agents is None else service.agents for service in self._services]
        return tuple(dict.fromkeys(agent for agents in named for agent in agents))

    def serve(
        self, agents: Iterable[str] | None, now: Instant, *, at_a_time: int | None = None
    ) -> int:
        """A handler serves these agents from now on (None: whatever is for this peer), beginning
        with what waits for it, so many commands at a time (None: any number). Returns the number of
        the service. Raises TypeError, ValueError."""
        if isinstance(agents, str):
            raise TypeError("agents is a list of ids")
        if at_a_time is not None and (at_a_time < 1 or at_a_time != int(at_a_time)):
            raise ValueError(f"at_a_time must be a whole number from 1, got {at_a_time}")
        self._numbers += 1
        self._places.open(self._numbers, at_a_time)
        served = None if agents is None else tuple(agents)
        self._services.append(_Service(self._numbers, served))
        self.expire(now)
        for waiting in self._unserved.drain():
            self._offer(waiting, now)
        return self._numbers

    def stop(self, service: int, now: Instant, *, cancels: bool) -> None:
        """It serves no more. What waits in it is over; with `cancels` what it has, too."""
        self._services = [other for other in self._services if other.number != service]
        for number in self._places.close(service):
            self.fail(number, STOPPED, now)
        if cancels:
            for number, command in tuple(self._commands.items()):
                if command.service == service:
                    self.fail(number, STOPPED, now)

    def elect(self, agents: Iterable[str] | None, now: Instant) -> None:
        """This connection serves these agents from now on, None: all, beginning with what nobody
        has taken yet. What it has already stays here."""
        self._elected.elect(agents)
        self.expire(now)
        for waiting in self._unserved.drain():
            self._offer(waiting, now)

    def taken(self, turn_id: str, agent: str) -> None:
        """Another connection of this peer has taken a command."""
        self._elected.note_taken(turn_id, agent)
        for waiting in self._unserved.drain():
            is_it = waiting.message.turn_id == turn_id
            served = waiting.served | ({agent} if is_it else frozenset())
            if not served.issuperset(self._named(waiting.message)):
                self._unserved.add(attrs.evolve(waiting, served=served))

    # What arrives ---------------------------------------------------------------------------------

    def note(self, message: Message, size: int, now: Instant) -> None:
        """A message arrived. Only commands are served, and none of the peer's own."""
        if message.type == "cancel":
            self._cancel(message, now)
        elif message.type == "error" and message.is_relays:
            if message.word("code") == "unknown_target":
                self._debts.undelivered(message)
                self._pay(now)
        elif is_command(message) and message.origin != self._id:
            due = now.at + self._limits.serve_within_s
            self._offer(Waiting(message, size, due), now)

    def _offer(self, waiting: Waiting, now: Instant) -> None:
        message, served = waiting.message, set(waiting.served)
        named = self._named(message)
        stands_by = False
        for service in self._services:
            for agent in self._meant(service, message, named):
                if agent in served:
                    continue
                if self._elected.is_taken(message.turn_id, agent):
                    served.add(agent)
                elif not self._elected.serves(agent):
                    stands_by = True
                else:
                    served.add(agent)
                    self._begin(service.number, agent, waiting, now)
        if served.issuperset(named):
            return
        waiting = attrs.evolve(waiting, served=frozenset(served), stands_by=stands_by)
        is_here = stands_by or message.to in self._roster.shared_agent_ids
        if not is_here and any(service.agents is None for service in self._services):
            self._refuse_unserved(waiting, now)  # it never will be
        else:
            self._unserved.add(waiting)
            self._make_room(now)

    def _refuse_unserved(self, waiting: Waiting, now: Instant) -> None:
        """Tell the asker that no agent takes its command. What is for the peer itself, or for all,
        the program may answer by itself, and another program or tab with this id what is for its
        own."""
        message = waiting.message
        if waiting.stands_by:
            return
        agent, own = message.to, self._announcements.agent_ids
        if message.type == "broadcast" or agent in (None, self._id):
            return
        if agent not in self._roster.shared_agent_ids | set(own):
            data = {"error": f"there is no agent {agent} here", "code": "unknown_target"}
        elif agent in own and not self._is_perhaps_anothers:
            data = {"error": f"{agent} is here, but nobody serves it", "code": "not_served"}
        else:
            return
        self._tell(message, self._id, "error", data, now)

    @property
    def _is_perhaps_anothers(self) -> bool:
        """Somebody else with this id may serve what nobody serves here. Of those who are meant to
        share an id one serves, perhaps, and the others never do."""
        return self._roster.is_shared or (self._roster.shares and self._numbers == 0)

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

    def _begin(self, service: int, agent: str, waiting: Waiting, now: Instant) -> None:
        message, size, limits = waiting.message, waiting.size, self._limits
        if self._elected.takes_part and message.turn_id is not None:
            self._emit(Taken(message.turn_id, agent))
        if len(self._commands) >= limits.turns_max or (
            self._commands and self._commands_size + size > limits.unread_bytes_max
        ):
            self._tell(message, agent, "error", BUSY, now)
            return
        if self._places.is_full(service):
            sentence = f"busy: {self._places.queue_max} commands wait for {agent}; try again later"
            self._tell(message, agent, "error", {"error": sentence, "code": "busy"}, now)
            return
        self._commands_begun += 1
        number = self._commands_begun
        ack_at, is_here = now.at + limits.ack_every_s, message.origin in self._roster.peers
        self._commands[number] = Served(service, agent, message, size, ack_at, is_here)
        self._commands_size += size
        self._soonest = min(self._soonest, ack_at) if len(self._commands) > 1 else ack_at
        self._tell(message, agent, "ack", {}, now)
        if self._places.enter(service, number):
            self._emit(Handle(service, number, agent, message))

    def returned(self, number: int) -> None:
        """The handler of this command has ended: the next one may begin."""
        following = self._places.leave(number)
        if following is not None:
            command = self._commands[following]
            self._emit(Handle(command.service, following, command.agent, command.message))

    # Who waits for the answer ---------------------------------------------------------------------

    def _cancel(self, cancel: Message, now: Instant) -> None:
        """An asker waits no more. Nobody else may say that."""
        asked = (cancel.origin, cancel.turn_id)
        for number, command in tuple(self._commands.items()):
            if command.is_of(*asked):
                self._forsake(number, CANCELLED, now)
        for waiting in self._unserved.drain():
            if (waiting.message.origin, waiting.message.turn_id) != asked:
                self._unserved.add(waiting)

    def forsake(self, now: Instant, *, for_good: bool = False) -> None:
        """Nobody works here for a while, or `for_good`: askers of what is under way are told, if
        there is a connection."""
        if for_good:
            self._services.clear()
        for number in tuple(self._commands):
            self._forsake(number, LEFT if self._outgoing.is_connected else None, now)

    def _forsake(self, number: int, end: End | None, now: Instant) -> None:
        """Nobody waits for this command any more, or nobody works on it."""
        command = self._commands.get(number)
        if command is not None:
            has_begun = not self._places.withdraw(command.service, number)
            self._over(number)
            if end is None:
                pass
            elif command.gone_at is None or not command.is_private:
                self._tell(command.message, command.agent, "error", end, now)
            else:
                self._debts.owe(command.message, command.agent, end)
            if has_begun:
                self._emit(Cancelled(command.service, number))

    def roster_changed(self, now: Instant) -> None:
        """Somebody has come or gone."""
        too_long_at, is_sure = now.at + self._limits.asker_back_within_s, not self._roster.is_cut
        for command in self._commands.values():
            is_here = command.message.origin in self._roster.peers
            command.note_asker(is_here=is_here, is_sure=is_sure, too_long_at=too_long_at)
            self._soonest = min(self._soonest, command.due)
        self._pay(now)

    def _pay(self, now: Instant) -> None:
        """Tell askers that are back what they have missed."""
        for owed in self._debts.due(self._roster.peers):
            self._tell(owed.command, owed.agent, "error", owed.data, now)

    def _given(self, command: Served) -> None:
        if command.is_private:
            self._debts.given(command.message, command.agent, MISSED)

    # What waits for a service ---------------------------------------------------------------------

    def _make_room(self, now: Instant) -> None:
        """The oldest go if too much waits, and their askers are told."""
        for oldest in self._unserved.too_many():
            if oldest.message.type != "broadcast" and not oldest.stands_by:
                self._tell(oldest.message, self._id, "error", BUSY, now)

    def answered(self, turn_id: str) -> None:
        """The program itself says something about a command: it need not be served any more, unless
        some of the agents it is for have it already."""
        for waiting in self._unserved.drain():
            if waiting.served or waiting.message.turn_id != turn_id:
                self._unserved.add(waiting)

    def deadline(self) -> float | None:
        """When (monotonic seconds) something is due first; None if nothing is. It may be too early
        while commands are served: it is asked often, and must not look at all of them."""
        soonest = self._soonest if self._commands else math.inf
        if self._unserved.due is not None:
            soonest = min(soonest, self._unserved.due)
        return None if soonest == math.inf else soonest

    def expire(self, now: Instant) -> None:
        """Refuse what has waited long enough, give signs of life, cancel for who is gone."""
        for waited in self._unserved.expired(now.at):
            self._refuse_unserved(waited, now)
        for number, command in tuple(self._commands.items()):
            if command.gone_at is not None and command.gone_at <= now.at:
                self._forsake(number, CANCELLED, now)
            elif command.ack_at is not None and command.ack_at <= now.at:
                command.ack_at = now.at + self._limits.ack_every_s
                if self._outgoing.is_connected and command.gone_at is None:
                    self._tell(command.message, command.agent, "ack", {}, now)
        self._soonest = min((command.due for command in self._commands.values()), default=math.inf)

    # What is answered -----------------------------------------------------------------------------

    def stream(self, command: int, chunk: str, now: Instant) -> int:
        """Send a piece of the answer. Returns its ticket.

        Raises TypeError (no JSON), TurnError (the command is over), and as `Outgoing.offer`.
        """
        streamed = self._under_way(command)
        data = {"chunk": chunk, "chunkNum": streamed.chunks}
        ticket = self._answer(streamed, "stream", data, now)
        streamed.chunk_sent(now.at + self._limits.ack_every_s)
        return ticket

    def finish(self, command: int, result: Any, now: Instant) -> int:
        """Send the result: the command is over. Returns its ticket. Raises as `stream`, and then it
        is not over: `fail` it. TurnError: it was over already."""
        finished = self._under_way(command)
        data = {"result": result, "chunks": finished.chunks}
        ticket = self._answer(finished, "turn_end", data, now)
        self._over(command)
        self._given(finished)
        return ticket

    def fail(self, command: int, sentence: str, now: Instant) -> None:
        """The command is over with an error of so many words, or is over already."""
        failed = self._over(command)
        if failed is not None:
            data = {"error": sentence_of(sentence)}
            self._tell(failed.message, failed.agent, "error", data, now)
            self._given(failed)

    def end(self) -> None:
        """The peer is over: nobody can be answered any more."""
        self._services.clear()
        self._commands.clear()
        self._commands_size = 0
        self._places = Places(self._limits.service_queue_max)
        self._debts.clear()
        self._unserved.drain()

    def _over(self, number: int) -> Served | None:
        command = self._commands.pop(number, None)
        if command is not None:
            self._commands_size -= command.size
            self._places.withdraw(command.service, number)
        return command

    def _under_way(self, command: int) -> Served:
        if command not in self._commands:
            raise TurnError("this command is over; nothing more can be said to it")
        return self._commands[command]

    def _answer(self, command: Served, type: str, data: dict[str, Any], now: Instant) -> int:
        fields = reply_to(command.message, command.agent, type, data)
        return self._outgoing.offer(compose(self._id, fields, now), target_of(fields))

    def _tell(
        self, message: Message, agent: str, type: str, data: dict[str, Any], now: Instant
    ) -> None:
        """Reply without being asked to. Without a connection, and no room to wait for one, nobody
        is told."""
        fields = reply_to(message, agent, type, data)
        with suppress(RelayError):
            text = compose(self._id, fields, now)
            self._outgoing.offer(text, target_of(fields), is_reply=True)
