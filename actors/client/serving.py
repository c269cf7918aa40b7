"""Commands served: a `Service` calls its handler for each (protocol/member/services.py decides)."""

import logging
from collections import deque
from contextlib import suppress

import anyio

from actors.client.calling import Ends, Handler, Threads, call
from actors.client.command import Command
from actors.client.driver import Driver
from actors.signal import Signal
from protocol.member.effects import Handle
from protocol.member.errors import RelayError

log = logging.getLogger(__name__)


class Service:
    """A handler, and the commands that were given to it and not begun yet: no more than
    `turns_max`, because more are refused before they come here."""

    def __init__(self, driver: Driver, handler: Handler, threads: Threads) -> None:
        self._driver = driver
        self._handler = handler
        self._threads = threads
        self._begun: deque[Handle] = deque()
        self._scopes: dict[int, anyio.CancelScope] = {}  # of those that run, by number
        self._news = Signal()
        self._is_over = False
        self._error: RelayError | None = None

    def put(self, handle: Handle) -> None:
        """A command to handle."""
        self._begun.append(handle)
        self._news.set()

    def cancel(self, command: int) -> None:
        """Nobody waits for this command any more: its handler is cancelled, wherever it waits."""
        self._begun = deque(handle for handle in self._begun if handle.command != command)
        if command in self._scopes:
            self._scopes[command].cancel()

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
        scope = self._scopes[handle.command] = anyio.CancelScope()
        ends: Ends = []
        try:
            with scope:
                await self._answer(handle, scope, ends)
        finally:
            del self._scopes[handle.command]
        for end in ends:  # a thread goes on when its command is cancelled
            await end.wait()
        self._driver.member.returned(handle.command)
        self._driver.obey()

    async def _answer(self, handle: Handle, scope: anyio.CancelScope, ends: Ends) -> None:
        driver, command = self._driver, Command(self._driver, handle)
        try:
            result = await call(self._handler, command, self._threads, ends)
            await driver.room()
            if not scope.cancel_called:  # else nobody waits for what it found all the same
                driver.member.finish(handle.command, result, driver.now())
        except Exception as error:
            if scope.cancel_called:
                return  # the command is over; so much for what it says of that
            if driver.member.over is None:  # else that is all that has failed
                extra = {"peer": driver.member.id, "agent": handle.agent}
                log.error("handler failed", extra=extra, exc_info=error)
            driver.member.fail(handle.command, _sentence(error), driver.now())
        finally:
            command.is_over = True
        driver.obey()


def _sentence(error: Exception) -> str:
    with suppress(Exception):
        if words := str(error):
            return words
    return type(error).__name__
