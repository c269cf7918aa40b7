"""Commands given: a `Turn` waits for the answers to one (protocol/member/asks.py decides)."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Self

import anyio

from actors.client.unread import Shelf, Unread
from protocol.member.errors import RelayError


class Turn:
    """A command and its answers. `await` it for the result, `async for` the chunks, or both.

    Made by `Peer.ask`. `id` is its turn id, `agent` whoever was asked. A task that is cancelled
    while it waits abandons the turn, for all tasks that wait for it.
    """

    def __init__(self, id: str, agent: str, shelf: Shelf, abandon: Callable[[str], None]) -> None:
        self.id = id
        self.agent = agent
        self._abandon = abandon
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next chunk, until the result is there. Raises Lagged after chunks were dropped
        unread, and what `result` raises."""
        with self._abandoned_if_cut_short():
            return await self._chunks.get()

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
        self._error, self._result = error, result
        self._chunks.end(error)
        self._over.set()
