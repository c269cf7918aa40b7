"""Commands served: a `Service` gives answers."""

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from actors.client.unread import Unread
from protocol.member.errors import Lagged, RelayError
from protocol.member.messages import Message, is_command

if TYPE_CHECKING:
    from actors.client.peer import Peer

log = logging.getLogger(__name__)

SENTENCE_CHARS_MAX: Final = 1000
"""An error says no more than that: one that is too large to be sent would say nothing."""


NOT_SERVED: Final = "cancelled: it is not served any more"


class Command:
    """A command to one of this peer's agents."""

    def __init__(self, peer: "Peer", message: Message, agent: str) -> None:
        self.message = message
        self.agent = agent
        self.turn_id = message.turn_id or ""
        self._peer = peer
        self._chunks = 0

    @property
    def text(self) -> Any:
        """What is asked: `data.command`."""
        return self.message.word("command")

    @property
    def asker(self) -> str | None:
        """The peer that asks."""
        return self.message.origin

    async def stream(self, chunk: str) -> None:
        """Send a piece of the answer."""
        number, self._chunks = self._chunks, self._chunks + 1
        await self._peer.stream(self.turn_id, chunk, number, **self.address)

    @property
    def address(self) -> dict[str, Any]:
        """Who answers whom, as keyword arguments of `Peer.send`."""
        agent = None if self.agent == self._peer.id else self.agent
        return {"to": self.message.sender, "agent": agent}


@attrs.frozen
class _Unserved:
    """A command, and the agents that have it already."""

    message: Message
    size: int
    since: float
    served: frozenset[str] = frozenset()


class Services:
    """Which handler gets which command: the first service that is for the agent it names.

    A peer is visible to others before its program gets as far as `serve`, so a command that nobody
    serves waits a while for one who does.
    """

    def __init__(self, peer: "Peer") -> None:
        self.running = 0
        self._peer = peer
        self._services: list[Service] = []
        limits = peer._limits
        self._unserved: Unread[_Unserved] = Unread(
            attrs.evolve(limits, unread_messages_max=limits.turns_max)
        )

    def add(self, service: "Service", at: float) -> None:
        """It serves from now on, beginning with what waits for it."""
        self._services.append(service)
        for command in self._unserved.drain():
            if at - command.since <= self._peer._limits.serve_within_s:
                self._offer(command)

    def remove(self, service: "Service") -> None:
        """It serves no longer: who waits for it is told."""
        self._services.remove(service)
        for command in service.commands.drain():
            self.refuse(command, NOT_SERVED)

    def offer(self, message: Message, size: int, at: float) -> None:
        """Any message that arrived; only commands are served."""
        if is_command(message) and message.origin != self._peer.id:
            self._offer(_Unserved(message, size, at))

    def _offer(self, command: _Unserved) -> None:
        message, served = command.message, set(command.served)
        for service in self._services:
            for agent in sorted(service.meant(message) - served):
                served.add(agent)
                service.commands.put(Command(self._peer, message, agent), command.size)
        named = self.named(message)
        if named <= served:
            return
        is_here = message.to in self._peer._member.shared_agent_ids
        if not is_here and any(service.is_for_all for service in self._services):
            # Then it is for none that this peer has, and never will be served.
            sentence = f"there is no agent {message.to} here"
            self.refuse(Command(self._peer, message, self._peer.id), sentence)
        else:
            waiting = attrs.evolve(command, served=frozenset(served))
            self._unserved.put(waiting, command.size)

    def named(self, message: Message) -> frozenset[str]:
        """Whom a command is for; the peer's id stands for the peer itself."""
        itself = frozenset({self._peer.id})
        if message.type == "broadcast":
            return self._peer._member.agent_ids or itself
        return frozenset({message.to}) if message.to is not None else itself

    def answered(self, turn_id: str) -> None:
        """The program answers this command by hand."""
        if self._unserved:
            for command in self._unserved.drain():
                if command.served or command.message.turn_id != turn_id:
                    self._unserved.put(command, command.size)

    def refuse(self, command: Command, sentence: str, **words: str) -> None:
        """Answer a command with an error, now."""
        data = {"error": sentence[:SENTENCE_CHARS_MAX], **words}
        try:
            self._peer._post("error", data, turn_id=command.turn_id, **command.address)
        except RelayError as error:  # nobody can be told
            log.warning("no answer", extra={"peer": self._peer.id, "reason": str(error)})

    def end(self, error: RelayError | None) -> None:
        """No more commands will come."""
        for service in self._services:
            service.commands.end(error)


class Service:
    """A handler and the commands that wait for it; `agents` None: whatever is for this peer."""

    def __init__(
        self,
        peer: "Peer",
        handler: Callable[[Command], Any],
        agents: frozenset[str] | None,
    ) -> None:
        self.commands: Unread[Command] = Unread(peer._limits)
        self._peer = peer
        self._handler = handler
        self._agents = agents

    @property
    def is_for_all(self) -> bool:
        """It serves whatever is for this peer."""
        return self._agents is None

    def meant(self, message: Message) -> frozenset[str]:
        """Those served here whom the command is for."""
        named = self._peer._services.named(message)
        if self._agents is None:
            return named & (self._peer._member.agent_ids | {self._peer.id})
        return self._agents if message.type == "broadcast" else named & self._agents

    async def run(self) -> None:
        """Answer commands until the peer ends; raises what ended it, unless it left."""
        ended: RelayError | None = None
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    command = await self.commands.get()
                except Lagged as lagged:
                    log.warning(
                        "commands dropped", extra={"peer": self._peer.id, "n": lagged.count}
                    )
                    continue
                except StopAsyncIteration:
                    break
                except RelayError as error:
                    ended = error
                    break
                services = self._peer._services
                if services.running >= self._peer._limits.turns_max:
                    services.refuse(command, "busy: too many commands at a time", code="busy")
                    continue
                services.running += 1
                tasks.start_soon(self._handle, command)
            tasks.cancel_scope.cancel()  # nobody can be answered any more
        if ended is not None:  # out here, because a task group would wrap it
            raise ended

    async def _handle(self, command: Command) -> None:
        peer, services = self._peer, self._peer._services
        try:
            await peer.ack(command.turn_id, **command.address)
            result = self._handler(command)
            if inspect.isawaitable(result):
                result = await result
            await peer.turn_end(command.turn_id, result, **command.address)
        except Exception as error:
            log.warning("command failed", extra={"peer": peer.id}, exc_info=error)
            services.refuse(command, _sentence(error))
        except BaseException:
            services.refuse(command, NOT_SERVED)
            raise
        finally:
            services.running -= 1


def _sentence(error: Exception) -> str:
    with suppress(Exception):
        if words := str(error):
            return words
    return type(error).__name__
