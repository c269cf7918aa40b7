"""Commands served: a `Service` calls its handler for each (protocol/member/services.py decides)."""

import inspect
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel

from actors.client.driver import Driver
from actors.signal import Signal
from protocol.member.effects import Handle
from protocol.member.errors import RelayError
from protocol.member.messages import Message

log = logging.getLogger(__name__)


class Command:
    """A command to one of this peer's agents, as a handler gets it.

    `agent`: the one that is asked, or the peer's own id. `message`: the whole message. `turn_id`:
    what ties the command and its answers together.
    """

    def __init__(self, driver: Driver, handle: Handle) -> None:
        self.message: Message = handle.message
        self.agent = handle.agent
        self.turn_id = handle.message.turn_id or ""
        self._driver = driver
        self._number = handle.command

    @property
    def text(self) -> Any:
        """What is asked: `data.command`, text or any JSON."""
        return self.message.word("command")

    @property
    def asker(self) -> str | None:
        """The id of the peer that asks."""
        return self.message.origin

    async def stream(self, chunk: str) -> None:
        """Send a piece of the answer; waits for room in the queue. Raises as `Peer.send`, and
        TurnError after the command was answered."""
        await self._driver.room()
        self._driver.member.stream(self._number, chunk, self._driver.now())
        self._driver.obey()
        await anyio.lowlevel.checkpoint()


class Service:
    """A handler, and the commands that were given to it and not begun yet: no more than
    `turns_max`, because more are refused before they come here."""

    def __init__(self, driver: Driver, handler: Callable[[Command], Any]) -> None:
        self._driver = driver
        self._handler = handler
        self._begun: deque[Handle] = deque()
        self._news = Signal()
        self._is_over = False
        self._error: RelayError | None = None

    def put(self, handle: Handle) -> None:
        """A command to handle."""
        self._begun.append(handle)
        self._news.set()

    def end(self, error: RelayError | None) -> None:
        """No more commands will come."""
        self._is_over, self._error = True, error
        self._news.set()

    async def run(self) -> None:
        """Handle commands until the peer is over; raises what ended it, unless it left."""
        async with anyio.create_task_group() as tasks:
            while not self._is_over:
                while self._begun:
                    tasks.start_soon(self._handle, self._begun.popleft())
                await self._news.wait()
            tasks.cancel_scope.cancel()  # nobody can be answered any more
        if self._error is not None:  # out here, because a task group would wrap it
            raise self._error.with_traceback(None)

    async def _handle(self, handle: Handle) -> None:
        driver = self._driver
        try:
            result = self._handler(Command(driver, handle))
            if inspect.isawaitable(result):
                result = await result
            await driver.room()
            driver.member.finish(handle.command, result, driver.now())
        except Exception as error:
            if driver.member.over is None:  # else that is all that has failed
                log.warning("command failed", extra={"peer": driver.member.id}, exc_info=error)
            driver.member.fail(handle.command, _sentence(error), driver.now())
        driver.obey()


def _sentence(error: Exception) -> str:
    with suppress(Exception):
        if words := str(error):
            return words
    return type(error).__name__
