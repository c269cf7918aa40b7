"""A peer in Python: one API for a mesh in this process and for a relay over a WebSocket.

    async with join("ws://localhost:8080/ws", "me", agents=["planner"]) as peer:
        await peer.broadcast("hello")
        print(await peer.ask("coder", "write a haiku"))
        async for message in peer:
            ...

`join` takes a URL, or a connector: `websocket(...)` (actors/client/websocket.py), `agentcore(...)`
(actors/client/agentcore.py), or for a mesh of this process `partial(runtime.connect, "my mesh")`.

A `Peer` is an actor like the ones at the other end. What it decides, `Member`
(protocol/member/member.py) decides; here are its connections, with one reader and one writer each,
its clock, and what its user waits for. It stays connected by itself: heartbeats, reconnection,
renewal before a connection gets too old. What was handed to a connection that then broke is not
sent again, because it may have arrived: delivery is at most once.
"""

import logging
import math
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from actors.client.asking import Turn
from actors.client.changes import Changes
from actors.client.serving import Command, Service, Services
from actors.client.unread import Unread
from actors.client.websocket import Address, Connector, websocket
from actors.clock import Clock, SystemClock
from actors.link import Link, LinkClosed
from actors.signal import Signal
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    BadAddress,
    Left,
    NotConnected,
    RelayError,
    TargetLeft,
    TurnTimeout,
    Unreachable,
)
from protocol.member.lifecycle import MemberState
from protocol.member.member import Arrived, Changed, Close, Finished, Member, Open, Transmit
from protocol.member.messages import Message, RemotePeer, write_message

log = logging.getLogger(__name__)

_MEMBERSHIP_TYPES: Final = frozenset({"presence", "heartbeat", "capabilities"})
URGENT_MAX: Final = 16
"""So many announcements may wait to be sent before the next one waits for them."""
LATE_S: Final = 1.0
"""Who looks at the clock so late (seconds) after a turn was due was asleep, or blocked."""
PAUSE_S_MAX: Final = 1.0
"""The longest pause (seconds) between messages, so that a heartbeat never waits longer."""


def join(
    where: str | Connector,
    id: str,
    *,
    agents: Iterable[Any] = (),
    metadata: Mapping[str, Any] | None = None,
    offline: Literal["wait", "fail"] = "wait",
    within_s: float = 30.0,
    limits: MembershipLimits | None = None,
    clock: Clock | None = None,
) -> "Peer":
    """A peer to enter with `async with`: present once inside, and leaving at the end.

    `agents`: strings, or objects with `agentId`. `metadata`: what the presence says beside them.
    `offline`: what is sent while there is no connection waits in a bounded queue (QueueFull beyond
    it), or fails at once (NotConnected). Entering raises RelayError: what no further attempt would
    mend at once, everything else after `within_s` seconds. Raises TypeError for agents or metadata
    that are no JSON, TooLarge for more of them than a relay takes.
    """
    if offline not in ("wait", "fail"):
        raise ValueError(f'offline must be "wait" or "fail", got {offline!r}')
    connector = websocket(where) if isinstance(where, str) else where
    if not callable(connector):
        raise TypeError(f"a URL or a connector is needed, not {type(where).__name__}")
    limits = limits or MembershipLimits()
    member = Member(
        id, agents, metadata or {}, limits, token=secrets.token_hex(8), roll=random.random
    )
    return Peer(
        member,
        connector,
        limits=limits,
        clock=clock or SystemClock(),
        waits=offline == "wait",
        within_s=within_s,
    )


class _Line:
    """One connection: `urgent` is sent before anything of the queue."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.urgent: deque[str] = deque()
        self.scope = anyio.CancelScope()
        self.is_sending = False


class Peer:
    """A peer of a mesh. Made by `join`."""

    def __init__(
        self,
        member: Member,
        connector: Connector,
        *,
        limits: MembershipLimits,
        clock: Clock,
        waits: bool,
        within_s: float,
    ) -> None:
        self._member = member
        self._connector = connector
        self._limits = limits
        self._clock = clock
        self._waits = waits
        self._within_s = within_s
        self._lines: dict[int, _Line] = {}
        self._tasks: TaskGroup | None = None
        self._changed = Signal()  # state or roster
        self._sendable = Signal()  # the queue or a connection is not what it was
        self._due = Signal()  # something is due earlier than was known
        self._sleeps_until: float | None = None
        self._unread: Unread[Message] = Unread(limits)
        self._turns: dict[str, Turn] = {}
        self._services = Services(self)
        self._over: RelayError | None = None
        self._failure: RelayError | None = None

    # Being here -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The peer's id."""
        return self._member.id

    @property
    def state(self) -> MemberState:
        """Where the membership is in its life (docs/clients.md)."""
        return self._member.state

    @property
    def roster(self) -> Mapping[str, RemotePeer]:
        """Who else is here, by id: a snapshot. While there is no connection, who was."""
        return dict(self._member.roster)

    def changes(self) -> "Changes":
        """Who comes and goes, to iterate over. The first is there at once: everybody, as joined.

        Changes that nobody looked at in time become one: a slow reader misses the detail, never the
        outcome. Ends when the peer leaves; raises what ended it otherwise.
        """
        return Changes(self)

    async def announce(
        self, agents: Iterable[Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Have these agents and this metadata from now on, also after every reconnection; None: the
        same as before.

        Raises TypeError (no JSON) and TooLarge. If the relay does not accept them, its `error`
        arrives as a message, and the peer goes on being what it was. An announcement does not wait
        for what is queued.
        """
        self._check()
        while any(len(line.urgent) >= URGENT_MAX for line in self._lines.values()):
            await self._sendable.wait()
            self._check()
        self._member.announce(agents, metadata, self._clock.now())
        self._obey()
        await anyio.lowlevel.checkpoint()

    def nudge(self) -> None:
        """Look now whether the connection is alive, or try again now: the network is back, say."""
        if self._tasks is None:
            return
        self._member.nudge(self._clock.now())
        self._obey()

    async def leave(self) -> None:
        """Send what is queued, within `leave_within_s`, and leave. Twice is once."""
        with anyio.move_on_after(self._limits.leave_within_s):
            while self._over is None and self._is_sending():
                await self._sendable.wait()
        if self._over is None and self._member.queued:
            log.warning("left unsent", extra={"peer": self.id, "messages": self._member.queued})
        self._member.end(self._clock.now())
        self._obey()

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._keep_time)
            self._member.begin(self._clock.now())
            self._obey()
            with anyio.move_on_after(self._within_s):  # real time: the user's patience
                await self._until_settled()
            self._check()
            if not self._member.is_settled and not self._member.is_in_use:
                raise self._failure or Unreachable(
                    f"not present after {self._within_s:g} s; is the relay running at this URL?"
                )
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):  # not if it is cancelled
                await self.leave()
        finally:
            await self._stop()

    async def _until_settled(self) -> None:
        while not self._member.is_settled and self._over is None:
            # A relay that does not know `capabilities` never says that the roster is complete.
            patience_s = self._limits.probe_within_s if self._member.is_in_use else math.inf
            with anyio.move_on_after(patience_s) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
                return

    async def _stop(self) -> None:
        assert self._tasks is not None
        self._member.end(self._clock.now())
        self._obey()
        self._tasks.cancel_scope.cancel()
        # Not with the body's error: a task group would wrap it.
        await self._tasks.__aexit__(None, None, None)

    def _check(self) -> None:
        if self._over is not None:
            raise self._over.with_traceback(None)  # or that would grow each time

    # Receiving ------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Every message that arrives, presences and what belongs to turns included.

        Raises Lagged after messages were dropped unread; iterate again for the rest. Ends when the
        peer leaves; raises what ended it otherwise.
        """
        return await self._unread.get()

    # Sending --------------------------------------------------------------------------------------

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        to: str | None = None,
        turn_id: str | None = None,
        agent: str | None = None,
        peer: str | None = None,
        **fields: Any,
    ) -> None:
        """Send a message of any type. It is on its way in order; at most once (see above).

        `agent`: the one of this peer's agents that says it (`from`). `peer`: the peer that is meant
        (`targetInstanceId`), where `to` is an agent. `fields`: further fields of the message.
        Raises TypeError (no JSON), TooLarge, QueueFull, NotConnected, what ended the peer, and
        ValueError for the types that the peer sends by itself: presence, heartbeat, capabilities.
        """
        await self._room()
        names = {"to": to, "turn_id": turn_id, "agent": agent, "peer": peer}
        self._post(type, data, **names, **fields)
        await anyio.lowlevel.checkpoint()

    async def _room(self) -> None:
        while self._member.is_in_use and not self._member.has_room:
            self._check()
            await self._sendable.wait()

    def _post(
        self,
        type: str,
        data: Any = None,
        *,
        to: str | None = None,
        turn_id: str | None = None,
        agent: str | None = None,
        peer: str | None = None,
        **fields: Any,
    ) -> str:
        """`send`, but where it would wait for room it raises QueueFull. Returns the text."""
        if type in _MEMBERSHIP_TYPES:
            raise ValueError(f"{type} is sent by the peer itself; use `announce` or `nudge`")
        message: dict[str, Any] = {"type": type, "from": agent or self.id}
        named = {"to": to, "targetInstanceId": peer, "turnId": turn_id}
        message |= {name: value for name, value in named.items() if value is not None}
        if agent is not None:
            message["instanceId"] = self.id
        message |= fields
        if data is not None:
            message["data"] = data
        message["timestamp"] = self._clock.now().wall_ms
        text = write_message(message)
        self._check()
        if not self._waits and not self._member.is_in_use:
            raise NotConnected('there is no connection now; offline="wait" would wait for one')
        self._member.offer(text)
        self._sendable.set()
        if turn_id is not None:
            self._services.answered(turn_id)
        return text

    async def broadcast(self, data: Any, **fields: Any) -> None:
        """Say something to all other peers."""
        await self.send("broadcast", data, **fields)

    async def direct(self, to: str, data: Any, **fields: Any) -> None:
        """Say something to one peer, or to the peer that has the agent `to`."""
        await self.send("direct", data, to=to, **fields)

    async def ack(self, turn_id: str, **fields: Any) -> None:
        """Say that a command was taken."""
        await self.send("ack", {}, turn_id=turn_id, **fields)

    async def stream(self, turn_id: str, chunk: str, number: int, **fields: Any) -> None:
        """Send a piece of the answer to a command; `number` counts from 0."""
        data = {"chunk": chunk, "chunkNum": number}
        await self.send("stream", data, turn_id=turn_id, **fields)

    async def turn_end(self, turn_id: str, result: Any, **fields: Any) -> None:
        """Send the result of a command."""
        await self.send("turn_end", {"result": result}, turn_id=turn_id, **fields)

    async def error(self, turn_id: str, sentence: str, **fields: Any) -> None:
        """Say that a command failed."""
        await self.send("error", {"error": sentence}, turn_id=turn_id, **fields)

    # Asking and serving ---------------------------------------------------------------------------

    def ask(
        self,
        agent: str,
        command: Any,
        *,
        peer: str | None = None,
        timeout_s: float = 60.0,
        **fields: Any,
    ) -> Turn:
        """Give a command to an agent, or to a peer.

        Await the `Turn` for the result; iterate over it for the chunks. Nothing is sent before.
        `peer`: which one is meant, where several have this agent. `timeout_s`: the longest silence
        of the agent. Awaiting raises TurnError and its kinds, and what `send` raises. Whoever stops
        waiting abandons the turn, for all who wait for it.
        """
        if command is None:
            raise TypeError("no peer knows a command that is None")
        if peer is None and len(hosts := self._hosts(agent)) == 1:
            peer = hosts[0]
        return Turn(self, agent, command, peer=peer, timeout_s=timeout_s, fields=fields)

    async def serve(
        self,
        handler: Callable[[Command], Any],
        agents: Iterable[str] | None = None,
    ) -> None:
        """Answer commands until the peer leaves; raises what ended it otherwise.

        The handler, async or not, is called for each: its `command.stream(...)` sends chunks, what
        it returns is the result, and an exception is an `error` with its words. Up to `turns_max`
        commands are handled at a time.
        `agents`: those that are served (this peer's id for commands to the peer itself); by default
        all commands that come. The first `serve` for an agent gets its commands, also those that
        came up to `serve_within_s` before it.
        """
        if isinstance(agents, str):
            raise TypeError("agents is a list of ids")
        if isinstance(self._over, Left):
            return
        self._check()
        service = Service(self, handler, None if agents is None else frozenset(agents))
        self._services.add(service, self._clock.now().at)
        try:
            await service.run()
        finally:
            self._services.remove(service)

    def _hosts(self, agent: str) -> list[str]:
        """The others that have this agent; a peer of this name comes before all agents."""
        roster = self._member.roster
        if agent in roster:
            return [agent]
        return [peer.id for peer in roster.values() if agent in peer.agents]

    # The actor ------------------------------------------------------------------------------------

    def _obey(self) -> None:
        """Do what the member has decided, and look when it must be asked again."""
        for effect in self._member.take_effects():
            match effect:
                case Arrived(message, size):
                    self._arrived(message, size)
                case Transmit(connection, text):
                    self._lines[connection].urgent.append(text)
                    self._sendable.set()
                case Open(connection):
                    assert self._tasks is not None
                    line = self._lines[connection] = _Line(connection)
                    self._tasks.start_soon(self._carry, line)
                case Close(connection):
                    line_or_none = self._lines.pop(connection, None)
                    if line_or_none is not None:
                        line_or_none.scope.cancel()
                case Changed():
                    self._sendable.set()
                    self._changed.set()
                    self._give_up_on_who_left()
                case Finished(error):
                    self._finish(error)
        due = self._next_due()
        if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
            self._due.set()

    def _arrived(self, message: Message, size: int) -> None:
        at = self._clock.now().at
        turn = self._turns.get(message.turn_id or "")
        if turn is not None:
            turn.answer(message, size, at)
        self._services.offer(message, size, at)
        self._unread.put(message, size)

    def _give_up_on_who_left(self) -> None:
        roster = self._member.roster
        for turn in tuple(self._turns.values()):
            if turn.peer in roster:
                turn.saw_peer = True
            elif turn.saw_peer:
                turn.end(TargetLeft(f"{turn.peer} left before it answered"))

    def _finish(self, error: RelayError | None) -> None:
        self._over = error or Left("the peer has left")
        for turn in tuple(self._turns.values()):
            turn.end(self._over)
        self._unread.end(error)
        self._services.end(error)
        self._changed.set()
        self._sendable.set()

    def _next_due(self) -> float | None:
        dues = [turn.due for turn in self._turns.values()]
        member = self._member.deadline()
        return min(dues if member is None else [*dues, member], default=None)

    async def _keep_time(self) -> None:
        while True:
            woken = self._due.next
            due = self._sleeps_until = self._next_due()
            async with anyio.create_task_group() as tasks:
                if due is not None:
                    tasks.start_soon(self._sleep_until, due)
                await woken.wait()
                tasks.cancel_scope.cancel()
            self._sleeps_until = None
            now = self._clock.now()
            if (due := self._member.deadline()) is not None and due <= now.at:
                self._member.expire(now)
            for turn in tuple(self._turns.values()):
                if turn.due > now.at:
                    continue
                if now.at - turn.due > LATE_S and not turn.is_excused:
                    # It was this program that did not listen: the answer may be here already.
                    turn.is_excused, turn.due = True, now.at + self._limits.probe_within_s
                else:
                    turn.end(TurnTimeout(f"no sign of {turn.agent} for {turn.timeout_s:g} s"))
            self._obey()

    async def _sleep_until(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.now().at))
        self._due.set()

    async def _carry(self, line: _Line) -> None:
        """One connection, from its making to its end."""
        with line.scope:
            try:
                link = await self._connector()
                if isinstance(link, (str, Address)):
                    raise BadAddress(
                        "join takes a connector: put this function into websocket(...)"
                    )
            except RelayError as error:
                self._not_made(line, error)
                return
            except Exception as error:
                # Whatever a user's connector raises may hold a credential: only its name is shown.
                kind = type(error).__name__
                self._not_made(line, Unreachable(f"the connection could not be made ({kind})"))
                return
            try:
                await self._use(line, link)
            except Exception:
                log.exception("connection crashed", extra={"peer": self.id})
                self._lost(line)
            finally:
                await link.aclose()

    async def _use(self, line: _Line, link: Link) -> None:
        self._member.opened(line.number, self._clock.now())
        self._obey()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, line, link)
            try:
                while True:
                    frame = await link.receive()
                    self._member.received(line.number, frame, self._clock.now())
                    self._obey()
            except LinkClosed as closed:
                log.info("connection closed", extra={"peer": self.id, "code": closed.code})
            tasks.cancel_scope.cancel()
        self._lost(line)

    def _lost(self, line: _Line) -> None:
        self._member.closed(line.number, self._clock.now())
        self._obey()

    async def _write(self, line: _Line, link: Link) -> None:
        try:
            while link.is_open:  # looked at last before something is taken to be sent
                text: str | float | None
                if line.urgent:
                    text = line.urgent.popleft()
                else:
                    text = self._member.next_text(line.number, self._clock.now())
                if isinstance(text, str):
                    line.is_sending = True
                    try:
                        await link.send(text)
                    finally:
                        line.is_sending = False
                        self._sendable.set()  # there is room now
                elif text is None:
                    await self._sendable.wait()
                else:
                    pause_s = text - self._clock.now().at
                    await self._clock.sleep(min(max(0.0, pause_s), PAUSE_S_MAX))
        except LinkClosed:
            pass  # the reader notices too, after what still arrives

    def _is_sending(self) -> bool:
        lines = self._lines.values()
        return bool(self._member.queued or any(ln.urgent or ln.is_sending for ln in lines))

    def _not_made(self, line: _Line, error: RelayError) -> None:
        self._failure = error
        log.info("not connected", extra={"peer": self.id, "reason": str(error)})
        self._member.failed(line.number, error, self._clock.now())
        self._obey()
