"""What arrived for a program and was not read yet: bounded, and the oldest go first."""

from collections import deque
from typing import Generic, TypeVar

from actors.signal import Signal
from protocol.limits import MembershipLimits
from protocol.member.errors import Lagged

Item = TypeVar("Item")


class Unread(Generic[Item]):
    """What arrived and was not read yet. Each item goes to one reader."""

    def __init__(self, limits: MembershipLimits) -> None:
        self._limits = limits
        self._items: deque[tuple[Item, int]] = deque()
        self._size = 0
        self._dropped = 0
        self._end: Exception | None = None
        self._changed = Signal()

    def put(self, item: Item, size: int = 0) -> None:
        """Add an item of so many characters; the oldest make room for it."""
        self._items.append((item, size))
        self._size += size
        limits = self._limits
        while len(self._items) > 1 and (
            len(self._items) > limits.unread_messages_max or self._size > limits.unread_bytes_max
        ):
            self._size -= self._items.popleft()[1]
            self._dropped += 1
        self._changed.set()

    def __len__(self) -> int:
        return len(self._items)

    def drain(self) -> list[Item]:
        """All of them, at once."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self._size = self._dropped = 0
        return items

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come. Reading on raises `error`, or ends the iteration."""
        self._end = error or StopAsyncIteration()
        self._changed.set()

    async def get(self) -> Item:
        """The next item; waits for one. Raises Lagged once after items were dropped, then the error
        that ended it, or StopAsyncIteration."""
        while True:
            if self._dropped:
                count, self._dropped = self._dropped, 0
                raise Lagged(count)
            if self._items:
                item, size = self._items.popleft()
                self._size -= size
                return item
            if self._end is not None:
                raise self._end.with_traceback(None)  # or that would grow each time
            await self._changed.wait()
