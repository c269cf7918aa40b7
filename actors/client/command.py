"""A command that is served, as its handler sees it."""

import concurrent.futures
import threading
from collections.abc import Awaitable, Generator
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from actors.client.driver import Driver
from protocol.member.effects import Handle
from protocol.member.errors import TurnError
from protocol.member.messages import Message


class _Done(Awaitable[None]):
    """Nothing is left to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class Command:
    """A command to one of this peer's agents, as a handler gets it.

    `agent`: the one that is asked, or the peer's own id. `message`: the whole message. `turn_id`:
    what ties the command and its answers together.
    """

    def __init__(self, driver: Driver, handle: Handle) -> None:
        self.message: Message = handle.message
        self.agent = handle.agent
        self.turn_id = handle.message.turn_id or ""
        self.is_over = False
        """It was answered or cancelled: nothing more can be said to it. A plain function, which
        nobody can stop, may look at this from time to time."""
        self._driver = driver
        self._number = handle.command
        self._token = anyio.lowlevel.current_token()
        self._thread = threading.get_ident()

    @property
    def text(self) -> Any:
        """What is asked: `data.command`, text or any JSON."""
        return self.message.word("command")

    @property
    def asker(self) -> str | None:
        """The id of the peer that asks."""
        return self.message.origin

    def stream(self, chunk: str) -> Awaitable[None]:
        """Send a piece of the answer; waits for room in the queue.

        Await it in a coroutine. In a plain function, and in any other thread than that of the event
        loop, the call itself waits. Raises as `Peer.send`, and TurnError after the command was
        answered or cancelled.
        """
        if threading.get_ident() == self._thread:
            return self._stream(chunk)
        if not self.is_over:  # else the event loop may be over, too
            try:
                anyio.from_thread.run(self._stream, chunk, token=self._token)
                return _Done()
            except (anyio.RunFinishedError, concurrent.futures.CancelledError):
                pass
        raise TurnError("this command is over; nothing more can be said to it")

    async def _stream(self, chunk: str) -> None:
        await self._driver.room()
        self._driver.member.stream(self._number, chunk, self._driver.now())
        self._driver.obey()
        await anyio.lowlevel.checkpoint()
