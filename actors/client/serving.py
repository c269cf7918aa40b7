"""Commands served: a `Service` calls its handler for each (protocol/member/services.py decides)."""

import logging
from collections import deque
from contextlib import suppress

import anyio

from actors.client.calling import Handler, Threads, call
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
        driver, command = self._driver, Command(self._driver, handle)
        try:
            result = await call(self._handler, command, self._threads)
            await driver.room()
            driver.member.finish(handle.command, result, driver.now())
        except Exception as error:
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
