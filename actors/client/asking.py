"""Commands given: a `Turn` waits for the answers to one (protocol/member/asks.py decides)."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import anyio

from actors.client.unread import Shelf, Unread
from protocol.member.errors import RelayError, TurnError


class Turn:
    """A command and its answers. `await` it for the result, `async for` the chunks, or both.

    Made by `Peer.ask`. `id` is its turn id, `agent` whoever was asked. The turn is abandoned, for
    all tasks that wait for it, by `cancel`, by a task that is cancelled while it waits, by a loop
    over the chunks that is broken off, and at the end of `async with turn`. Then whoever works on
    the command is told to stop.
    """

    def __init__(
        self,
        id: str,
        agent: str,
        shelf: Shelf,
        abandon: Callable[[str], None],
        dropped: Callable[[str], None],
    ) -> None:
        self.id = id
        self.agent = agent
        self._abandon = abandon
        self._dropped = dropped
        self._chunks: Unread[str] = Unread(shelf)
        self._over = anyio.Event()
        self._error: RelayError | None = None
        self._result: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.result().__await__()

    async def result(self) -> Any:
        """`data.result` of the answer. Raises TurnError, and what ended the peer."""
        with self._abandoned_if_cut_short():
            await self._over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)  # or that would grow each time
        return self._result

    def __aiter__(self) -> AsyncIterator[str]:
        """The chunks, until the result is there. Raises Lagged after chunks were dropped unread,
        and what `result` raises. A loop that is broken off abandons the turn."""
        return _Loop(self)

    async def __anext__(self) -> str:
        """The next chunk, as iterating gives it."""
        with self._abandoned_if_cut_short():
            return await self._chunks.get()

    def cancel(self) -> None:
        """Abandon the turn: waiting for it raises TurnError. Once it is over, nothing happens."""
        self._abandon(self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    @contextmanager
    def _abandoned_if_cut_short(self) -> Iterator[None]:
        try:
            yield
        except (RelayError, StopAsyncIteration):
            raise
        except BaseException:
            self._abandon(self.id)
            raise

    # For the peer ---------------------------------------------------------------------------------

    def put(self, chunk: str, size: int) -> None:
        """A chunk has come, which costs about so many bytes."""
        self._chunks.put(chunk, size)

    def end(self, error: RelayError | None, result: Any) -> None:
        """The turn is over."""
        if isinstance(error, TurnError):
            error.chunks = self._chunks.rest()
        self._error, self._result = error, result
        self._chunks.end(error)
        self._over.set()

    def dropped(self) -> None:
        """A loop over the chunks was broken off. May be called from anywhere, by the collector of
        garbage."""
        if not self._over.is_set():
            self._dropped(self.id)


class _Loop:
    """One loop over the chunks of a turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return await anext(self._turn)
        except BaseException:  # such as Lagged: another loop may go on
            self._is_over = True
            raise

    def __del__(self) -> None:
        if not self._is_over:
            self._turn.dropped()
