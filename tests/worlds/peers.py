"""What peers in Python are tested with: waiting, serving, a connector that can be turned off."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector
from actors.clock import VirtualClock
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import Gap, RelayError, Unreachable
from protocol.member.messages import Message
from tests.worlds.live import PATIENCE_S

Serve = Callable[[Command], Any]
Memory = Callable[[], Awaitable[MemoryLink]]
QUICK = MembershipLimits(backoff_first_s=0.02, retry_max_s=0.05, backoff_max_s=0.05)
"""Reconnects at once."""
SECRET = "s3cr3t-t0ken"
"""What no error and no log line may show."""


async def until(condition: Callable[[], bool]) -> None:
    """Let everything run until this is so."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.001)


async def message_of(peer: Peer, type: str) -> Message:
    """The next message of this type, whatever was lost before it."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                message = await anext(peer)
            except Gap:
                continue
            if message.type == type:
                return message


class Serving:
    """`async with`: a handler serves meanwhile."""

    def __init__(
        self,
        peer: Peer,
        handler: Serve,
        agents: list[str] | None = None,
        *,
        at_a_time: int | None = None,
    ) -> None:
        self._serve = partial(peer.serve, handler, agents, at_a_time=at_a_time)
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> None:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._serve)
        await anyio.lowlevel.checkpoint()

    async def __aexit__(self, *_: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)


class Thinking:
    """A handler that goes on until it is stopped. `begun`, `stopped`: it has."""

    def __init__(self) -> None:
        self.begun, self.stopped = anyio.Event(), anyio.Event()

    async def __call__(self, _: Command) -> None:
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()


async def write(command: Command) -> Any:
    for word in str(command.text).split():
        await command.stream(word)
    if command.text == "fail":
        raise ValueError("cannot do that")
    return {"words": len(str(command.text).split()), "by": command.agent}


class Switch:
    """A connector that can be turned off, which breaks its connections."""

    def __init__(self, where: Memory) -> None:
        self._where = where
        self._links: list[MemoryLink] = []
        self.is_on = True

    async def __call__(self) -> MemoryLink:
        if not self.is_on:
            raise Unreachable("off")
        self._links.append(await self._where())
        return self._links[-1]

    def off(self) -> None:
        self.is_on = False
        while self._links:
            self._links.pop().close()


async def given_up(url: str, tried: Callable[[], bool], **options: Any) -> Unreachable:
    """What joining ends with at a relay that cannot be reached. Its time passes in small steps
    until it has `tried` as is wanted, and then at once, so no machine is too slow."""
    clock, within_s = VirtualClock(), 1e6
    caught: list[Unreachable] = []

    async def try_to_join() -> None:
        with pytest.raises(Unreachable) as given:
            async with join(url, "ann", clock=clock, within_s=within_s, **options):
                pass
        caught.append(given.value)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(try_to_join)
            while not tried():
                await anyio.sleep(0.001)
                await clock.advance(0.001)
            await clock.jump(within_s)
    return caught[0]


async def in_virtual_time(body: Callable[[Connector, VirtualClock], Awaitable[None]]) -> None:
    clock = VirtualClock()
    async with Runtime(Limits(), clock) as runtime:

        async def connect() -> MemoryLink:
            return await runtime.connect("mesh")

        await body(connect, clock)


async def value_of(value: Any) -> Any:
    return value


async def swallow_error(turn: Awaitable[Any]) -> None:
    with pytest.raises(RelayError):
        await turn
