"""Commands from both sides: a `Turn` waits for the answers to one, a `Service` gives answers.

In the words of protocol/vocabulary.py, which are those of the existing pages. Made by `Peer.ask`
and `Peer.serve` (actors/client.py); neither has a task of its own until its user awaits it.
"""

import inspect
import logging
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import attrs

from actors.mailbox import Signal, Unread
from protocol.envelope import RELAY
from protocol.errors import AmbiguousTarget, Lagged, RelayError, TurnError, UnknownTarget
from protocol.vocabulary import Message, is_command, turn_error

if TYPE_CHECKING:
    from actors.client import Peer

log = logging.getLogger(__name__)

SENTENCE_CHARS_MAX: Final = 1000
"""An error says no more than that: one that is too large to be sent would say nothing."""
NOT_SERVED: Final = "cancelled: it is not served any more"


class Turn:
    """A command and its answers. `await` it for the result, `async for` the chunks, or both.

    Answers are taken from the peer that was asked and nobody else; where the roster did not say
    which one that is, from the first that answers.
    """

    def __init__(
        self,
        asker: "Peer",
        agent: str,
        command: Any,
        *,
        peer: str | None,
        timeout_s: float,
        fields: Mapping[str, Any],
    ) -> None:
        self.id = secrets.token_hex(16)
        self.agent = agent
        self.peer = peer
        self.timeout_s = timeout_s
        self.due = float("inf")
        self.is_excused = False  # once, for a clock that was looked at late
        self.saw_peer = False  # since it was sent
        self._asker = asker
        self._command = command
        self._fields = fields
        self._chunks: Unread[str] = Unread(asker._limits)
        self._is_sent = False
        self._text: str | None = None
        self._over = Signal()
        self._result: tuple[Any] | None = None
        self._error: RelayError | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.result().__await__()

    async def result(self) -> Any:
        """`data.result` of the answer. Raises TurnError."""
        with self._abandoned_if_cut_short():
            await self._send()
            while self._result is None and self._error is None:
                await self._over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)  # or that would grow each time
        assert self._result is not None
        return self._result[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next chunk, until the result is there. Raises TurnError, Lagged."""
        with self._abandoned_if_cut_short():
            await self._send()
            return await self._chunks.get()

    @contextmanager
    def _abandoned_if_cut_short(self) -> Iterator[None]:
        try:
            yield
        except (RelayError, StopAsyncIteration):
            raise
        except BaseException:
            self.end(TurnError("the turn was abandoned"))
            raise

    async def _send(self) -> None:
        if self._is_sent:
            return
        self._is_sent = True
        asker = self._asker
        if self.peer in (None, asker.id) and self.agent in {asker.id, *asker._member.agent_ids}:
            # The relay passes on nothing that its sender has an agent for, and says nothing.
            hosts = tuple(asker._hosts(self.agent))
            if self.peer is None and hosts:
                sentence = f"{len(hosts)} other peers have an agent {self.agent}: name one (peer=)"
                self.end(AmbiguousTarget(sentence, hosts))
            else:
                self.end(UnknownTarget(f"{self.agent} is of this peer itself, and no other has it"))
            return
        asker._turns[self.id] = self
        self.saw_peer = self.peer in asker._member.roster
        # With `instanceId`, because that is how existing pages know whom to answer.
        fields = {"instanceId": asker.id, "peer": self.peer, **self._fields}
        data = {"command": self._command}
        try:
            await asker._room()
            self._text = asker._post("direct", data, to=self.agent, turn_id=self.id, **fields)
        except RelayError as error:
            self.end(error)
            return
        self.due = asker._clock.now().at + self.timeout_s
        asker._obey()

    def answer(self, message: Message, size: int, at: float) -> None:
        """A message with this turn's id."""
        is_refusal = message.sender == RELAY and message.type == "error"
        if not is_refusal:
            if self.peer is None:
                self.peer = message.origin
            if message.origin != self.peer:
                return
            self.saw_peer = True
        match message.type:
            case "stream":
                self._chunks.put(str(message.word("chunk") or ""), size)
            case "turn_end":
                self.end(None, message.word("result"))
            case "error":
                self.end(turn_error(message))
            case "ack":
                pass
            case _:
                return
        self.due = at + self.timeout_s

    def end(self, error: RelayError | None, result: Any = None) -> None:
        """It is over. The first end counts. What was not sent yet never will be."""
        self._asker._turns.pop(self.id, None)
        if error is not None and self._text is not None:
            self._asker._member.withdraw(self._text)
        if self._result is None and self._error is None:
            self._error = error
            if error is None:
                self._result = (result,)
            self._chunks.end(error)
            self._over.set()


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
