"""A peer in Python: one API for a mesh in this process and for a relay over a WebSocket.

    async with join("ws://localhost:8080/ws", "me", agents=["planner"]) as peer:
        await peer.broadcast("hello")
        print(await peer.ask("coder", "write a haiku"))
        async for message in peer:
            ...

`join` takes a URL, or a connector: `websocket(...)` (actors/client/websocket.py), `agentcore(...)`
(actors/client/agentcore.py), or for a mesh of this process `partial(runtime.connect, "my mesh")`.

A `Peer` is an actor like the ones at the other end. `Member` (protocol/member/member.py) makes all
decisions; here is what its user calls and waits for. It stays connected by itself: heartbeats,
reconnection, renewal before a connection gets too old. What the relay had not taken when a
connection broke is sent again, if the connection can come back; if not, it may have arrived, and a
`Gap` says so.

Longer than 400 lines because a third of them are the docstrings of the public `Peer`.
"""

import logging
import math
import random
import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from actors.client.asking import Turn
from actors.client.calling import Handler, Threads
from actors.client.changes import Changes
from actors.client.driver import Driver
from actors.client.lines import Lines
from actors.client.serving import Service
from actors.client.unread import Shelf, Unread
from actors.client.websocket import Connector, Token, websocket
from actors.clock import Clock, SystemClock
from protocol.limits import MembershipLimits
from protocol.member.effects import (
    DROP_CODE,
    Announced,
    Arrived,
    AttemptFailed,
    Cancelled,
    Chunk,
    Close,
    Drop,
    Effect,
    Finished,
    Handle,
    Ignored,
    Missed,
    Open,
    PresentTwice,
    Resumed,
    Transmit,
    TurnEnded,
    WishRefused,
)
from protocol.member.errors import Gap, Left, RelayError
from protocol.member.incoming import cost_of
from protocol.member.lifecycle import MemberState
from protocol.member.member import Member
from protocol.member.messages import Message, RemotePeer, write_message

log = logging.getLogger(__name__)

Subscribe = Mapping[str, Any] | bool | None
"""What a program wants: True or None everything, False nothing, or `others`, `topics`, `types`."""


def join(
    where: str | Connector,
    id: str,
    *,
    agents: Iterable[Any] = (),
    metadata: Mapping[str, Any] | None = None,
    offline: Literal["wait", "fail"] = "wait",
    within_s: float = 40.0,
    history: int = 0,
    subscribe: Subscribe = None,
    owner: str | None = None,
    takeover: bool = False,
    token: Token | None = None,
    limits: MembershipLimits | None = None,
    clock: Clock | None = None,
) -> "Peer":
    """A peer to enter with `async with`: present once inside, and leaving at the end.

    `agents`: strings, or objects with `agentId`, `id` or `name`. `metadata`: what the presence says
    beside them. `offline`: what is sent while there is no connection waits in a bounded queue
    (QueueFull beyond it), or fails at once (NotConnected). `within_s`: how long (seconds) joining
    may take, `math.inf` for ever. `history`: so many of the last messages that went to everyone
    before are wanted, too; these are `is_old`, and all there once inside (docs/python.md).
    `subscribe`: what is wanted of what others say to everyone. False: nothing; or a dict with any
    of `others` (False: not what is for somebody else), `topics` (patterns) and `types`. By default
    everything. A program that only asks and serves says False (docs/python.md).

    `owner`: the secret by which the id is this program's, 16 to 256 characters; programs that share
    it share the id. By default a random one, so that nobody else can have the id meanwhile
    (IdTaken). `takeover`: end whoever has the id with the same owner (they get Replaced). `token`:
    for the relay at a URL; a text, or a function, async or not, that is asked for every connection.

    Entering raises RelayError: a permanent error (docs/python.md) at once, IdTaken after
    `taken_for_s`, everything else after `within_s`. Raises TypeError for agents or metadata that
    are no JSON, a history that is no number and something else as `subscribe`, TooLarge for more
    agents and metadata than a relay takes, ValueError for a bad owner, history or `subscribe`.
    """
    if offline not in ("wait", "fail"):
        raise ValueError(f'offline must be "wait" or "fail", got {offline!r}')
    if token is not None and not isinstance(where, str):
        raise TypeError(
            "a token goes with a URL; give it to the connector, as websocket(..., token=)"
        )
    connector = websocket(where, token=token) if isinstance(where, str) else where
    if not callable(connector):
        raise TypeError(f"a URL or a connector is needed, not {type(where).__name__}")
    limits = limits or MembershipLimits()
    fresh_id = partial(secrets.token_hex, 16)
    member = Member(
        id,
        agents,
        metadata or {},
        limits,
        token=secrets.token_hex(8),
        nonce=fresh_id,
        roll=random.random,
        turn_id=fresh_id,
        waits=offline == "wait",
        owner=secrets.token_urlsafe(24) if owner is None and not takeover else owner,
        takeover=takeover,
        shares=owner is not None,
        history=history,
        subscribe=subscribe,
    )
    return Peer(member, connector, limits=limits, clock=clock or SystemClock(), within_s=within_s)


class _Answer:
    """The answer to an announcement, for whoever waits for it."""

    def __init__(self) -> None:
        self._is_there = anyio.Event()
        self._error: RelayError | None = None

    def set(self, error: RelayError | None) -> None:
        self._error = error
        self._is_there.set()

    async def wait(self) -> None:
        await self._is_there.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)


class Peer:
    """A peer of a mesh. Made by `join`.

    Every method that waits may be cancelled; what it had handed to the queue by then is sent.
    """

    def __init__(
        self,
        member: Member,
        connector: Connector,
        *,
        limits: MembershipLimits,
        clock: Clock,
        within_s: float,
    ) -> None:
        self._member = member
        self._limits = limits
        self._within_s = within_s
        self._driver = Driver(member, clock, self._carry_out)
        self._lines = Lines(self._driver, connector)
        self._tasks: TaskGroup | None = None
        self._shelf = Shelf(limits)
        self._unread: Unread[Message] = Unread(self._shelf)
        self._answers: dict[int, _Answer] = {}
        self._turns: dict[str, Turn] = {}
        self._services: dict[int, Service] = {}
        self._threads = Threads(limits.threads_max)
        self._is_present_twice = False
        self._resumed = 0

    # Being here -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The peer's id."""
        return self._member.id

    @property
    def state(self) -> MemberState:
        """Where the membership is in its life (docs/python.md)."""
        return self._member.state

    @property
    def is_present_twice(self) -> bool:
        """Somebody else has been seen in the mesh with this peer's id, without having its `owner`:
        both hear, and serve, the same commands. A warning in the log said so once."""
        return self._is_present_twice

    @property
    def resumed(self) -> int:
        """How often the connection was cut and went on without any loss (docs/python.md). Where it
        could not, the messages have a `Gap`."""
        return self._resumed

    @property
    def roster(self) -> Mapping[str, RemotePeer]:
        """The other peers by id: a snapshot. Without a connection, those that were here last."""
        return dict(self._member.roster)

    def changes(self) -> Changes:
        """The roster as it changes, to iterate over. The first change comes at once: all peers that
        are here, as `joined`.

        Changes that nobody looked at in time become one: a slow reader misses the detail, never the
        outcome. Ends when the peer leaves; raises what ended it otherwise.
        """
        return Changes(self._driver)

    async def announce(
        self, agents: Iterable[Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Have these agents and this metadata from now on, also after every reconnection; None: the
        same as before. Returns when the relay has taken it.

        It does not wait for what is queued. Without a connection it waits for one. If another
        announcement follows before this one is answered, the answer to that is the answer to both.
        Raises TypeError (no JSON), TooLarge, AnnouncementRefused (the peer goes on being what it
        was), and what ended the peer. If this is cancelled, the announcement is made all the same.
        """
        await self._answered(self._member.announce(agents, metadata, self._driver.now()))

    async def subscribe(self, subscribe: Subscribe) -> None:
        """Want this from now on of what others say to everyone, as `subscribe` of `join`.

        What is wanted no more does not come from the call on; what is wanted anew does when this
        returns, as `announce` does. Raises TypeError, ValueError, and as `announce`.
        """
        await self._answered(self._member.subscribe(subscribe, self._driver.now()))

    async def _answered(self, number: int) -> None:
        answer = self._answers[number] = _Answer()
        self._driver.obey()
        try:
            await answer.wait()
        finally:
            self._answers.pop(number, None)

    def nudge(self) -> None:
        """Look now whether the connection is alive, or try again now: the network is back, say."""
        if self._tasks is None:
            return
        self._member.nudge(self._driver.now())
        self._driver.obey()

    async def leave(self) -> None:
        """Cancel what was asked, send what is queued, within `leave_within_s`, and leave.

        From the call on nothing more can be sent (Left). Calling it again does nothing. If it is
        cancelled, the peer is still there: call it again.
        """
        self._member.leave(self._driver.now())
        self._driver.obey()
        with anyio.move_on_after(self._limits.leave_within_s):
            while self.state is not MemberState.ENDED and self._is_sending:
                await self._driver.sendable.wait()
        if self.state is not MemberState.ENDED and self._member.queued:
            log.warning("left unsent", extra={"peer": self.id, "messages": self._member.queued})
        self._member.end(self._driver.now())
        self._driver.obey()

    @property
    def _is_sending(self) -> bool:
        return self._member.queued > 0 or self._lines.is_sending

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._driver.keep_time)
            within_s = None if self._within_s == math.inf else self._within_s
            self._member.begin(self._driver.now(), within_s)
            self._driver.obey()
            while not self._member.is_ready:
                self._driver.check()
                await self._driver.changed.wait()
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

    async def _stop(self) -> None:
        assert self._tasks is not None
        self._member.end(self._driver.now())
        self._driver.obey()
        self._tasks.cancel_scope.cancel()
        # Not with the body's error: a task group would wrap it.
        await self._tasks.__aexit__(None, None, None)

    # Receiving ------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Every message that arrives, presences and what belongs to turns included.

        Raises Lagged after messages were dropped unread, and Gap where some may be missing because
        the connection was lost; iterate again for the rest. Ends when the peer leaves; raises what
        ended it otherwise.
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
        topic: str | None = None,
        **fields: Any,
    ) -> None:
        """Put a message of any type into the queue; waits for room there. Messages go in the order
        of the calls, each at most once (see above).

        `to`: the peer or agent that it is for. `agent`: the one of this peer's agents that says it
        (`from`). `peer`: the peer that is meant (`targetInstanceId`), where `to` is an agent.
        `topic`: what it is about, for those who have subscribed to topics; the methods below take
        it too. `fields`: further fields of the message. Raises TypeError (no JSON), TooLarge,
        QueueFull, NotConnected, what ended the peer, and ValueError for the types that the peer
        sends by itself: presence, heartbeat, capabilities. If it is cancelled while it waits for
        room, the message is not sent.
        """
        message: dict[str, Any] = {"type": type, "from": agent or self.id}
        named = {"to": to, "targetInstanceId": peer, "topic": topic, "turnId": turn_id}
        named["data"] = data
        message |= {name: value for name, value in named.items() if value is not None} | fields
        await self._driver.room()
        self._member.send(message, self._driver.now())
        self._driver.obey()
        await anyio.lowlevel.checkpoint()

    async def sent(self) -> None:
        """Wait until everything that is queued has gone out, and been kept by nobody here for
        being sent again. The relay decides it in this order, and before it answers an `announce`
        that follows. Raises what ended the peer."""
        while self._is_sending:
            self._driver.check()
            await self._driver.sendable.wait()

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
        any: bool = False,
        timeout_s: float = 60.0,
        **fields: Any,
    ) -> Turn:
        """Give a command to an agent, or to a peer. It is queued by this call.

        Await the `Turn` for the result; iterate over it for the chunks. You need do neither. What
        nobody waits for any more is cancelled (see `Turn`), and so is everything when the peer
        leaves.
        `command`: text, or any JSON but None. `peer`: which one is meant, where several have this
        agent. `any`: it may be any of them: one with the fewest commands of this peer, and another
        one, once, if that one leaves or does not take it. `timeout_s`: the longest silence
        (seconds) of the agent. `fields`: further fields of the message; `answers="all"` has it
        answered for all to read. Raises TypeError (no JSON), ValueError, TooLarge, and what ended
        the peer. Awaiting raises TurnError and its kinds, QueueFull, NotConnected, what ended the
        peer.
        """
        turn_id = self._member.ask(
            agent,
            command,
            self._driver.now(),
            peer=peer,
            any=any,
            timeout_s=timeout_s,
            fields=fields,
        )
        turn = self._turns[turn_id] = Turn(
            turn_id, agent, self._shelf, self._abandon, self._driver.abandon_later
        )
        self._driver.obey()
        return turn

    def _abandon(self, turn_id: str) -> None:
        self._member.abandon(turn_id, self._driver.now())
        self._driver.obey()

    async def serve(
        self,
        handler: Handler,
        agents: Iterable[str] | None = None,
        *,
        at_a_time: int | None = None,
    ) -> None:
        """Answer commands until the peer leaves; raises what ended it otherwise.

        The handler is called for each: its `command.stream(...)` sends chunks, what it returns is
        the result, and an exception is logged and told as an `error` with its words. A generator
        yields chunks and returns the result. Async functions run on the event loop; plain ones in
        up to `threads_max` worker threads, where `command.stream` waits by itself. A command is
        cancelled when its asker waits no more: an async handler is cancelled where it waits, and a
        thread goes on until the function looks at `command.is_over` or streams.
        Up to `turns_max` commands are handled at a time. `at_a_time`: so many by this handler, if
        it cannot run more often at once. Up to `service_queue_max` others wait until one has ended;
        their askers hear that they are alive.
        `agents`: those that are served (this peer's id for commands to the peer itself); by default
        all commands that come. The first `serve` for an agent gets its commands, also those that
        came up to `serve_within_s` before it.
        """
        if isinstance(self._member.over, Left):
            return
        number = self._member.serve(agents, self._driver.now(), at_a_time=at_a_time)
        service = self._services[number] = Service(self._driver, handler, self._threads)
        self._driver.obey()
        try:
            await service.run()
        finally:
            self._services.pop(number)
            self._member.stop_serving(number, self._driver.now(), cancels=True)
            self._driver.obey()

    # The actor ------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Arrived(message, size):
                self._unread.put(message, size)
            case Missed(error):
                self._miss(error)
            case Resumed(seconds):
                self._resumed += 1
                facts = {"peer": self.id, "seconds": round(seconds, 3)}
                log.info("came back, and nothing is missing", extra=facts)
            case Transmit(connection, text):
                self._lines.transmit(connection, text)
            case Open(connection):
                assert self._tasks is not None
                self._lines.open(connection, self._tasks)
            case Close(connection):
                self._lines.close(connection)
            case Drop(connection):
                self._lines.close(connection, DROP_CODE)
            case Announced(number, error):
                if number in self._answers:
                    self._answers[number].set(error)
            case Chunk(turn, text, size):
                self._turns[turn].put(text, size)
            case TurnEnded(turn, error, result):
                self._turns.pop(turn).end(error, result)
            case Handle(service=service):
                self._services[service].put(effect)
            case Cancelled(service, command):
                if service in self._services:
                    self._services[service].cancel(command)
            case PresentTwice():
                self._is_present_twice = True
                log.warning("present twice: another program has this id", extra={"peer": self.id})
            case Ignored(what):
                log.warning("ignored", extra={"peer": self.id, "what": what})
            case WishRefused(error):
                sentence = "the relay sends everything, and this peer leaves out the rest: %s"
                log.warning(sentence, error, extra={"peer": self.id})
            case AttemptFailed(error, news):
                level = logging.WARNING if news else logging.INFO
                log.log(level, "not connected, tries again: %s", error, extra={"peer": self.id})
            case Finished(error):
                self._finish(error)

    def _miss(self, error: RelayError) -> None:
        size = 0
        if isinstance(error, Gap):
            size = sum(cost_of(write_message(message.fields)) for message in error.in_doubt)
            facts = {"reason": error.reason, "in_doubt": len(error.in_doubt)}
            log.warning("messages may be missing: %s", error, extra={"peer": self.id, **facts})
        self._unread.gap(error, size)

    def _finish(self, error: RelayError | None) -> None:
        assert self._member.over is not None
        for answer in self._answers.values():
            answer.set(self._member.over)
        for service in self._services.values():
            service.end(error)
        self._unread.end(error)
