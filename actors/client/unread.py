"""What arrived for a program and was not read yet: bounded, and the oldest go first."""

import weakref
from collections import deque
from typing import Any, Generic, TypeVar

from actors.signal import Signal
from protocol.limits import MembershipLimits
from protocol.member.errors import Lagged, RelayError

Item = TypeVar("Item")


class Shelf:
    """All that is unread of one peer, its messages and the chunks of its turns: together it costs
    no more than `unread_bytes_max`. Beyond, the heaviest loses its oldest items."""

    def __init__(self, limits: MembershipLimits) -> None:
        self.limits = limits
        self._size = 0
        # Weak, because a program may drop a turn with all its chunks.
        self._full: weakref.WeakSet[Unread[Any]] = weakref.WeakSet()

    def put(self, unread: "Unread[Any]", size: int) -> None:
        """So much more is unread there."""
        self._full.add(unread)
        self._size += size
        if self._size > self.limits.unread_bytes_max:
            self._make_room()

    def take(self, unread: "Unread[Any]", size: int) -> None:
        """So much was read there."""
        self._size -= size
        if not unread:
            self._full.discard(unread)

    def _make_room(self) -> None:
        self._size = sum(unread.size for unread in self._full)
        while self._size > self.limits.unread_bytes_max:
            heaviest = max(self._full, key=lambda unread: unread.size)
            if len(heaviest) == 1 and heaviest.size == self._size:
                return  # the latest stays in any case
            heaviest.drop()


class Unread(Generic[Item]):
    """What arrived and was not read yet. Each item goes to one reader."""

    def __init__(self, shelf: Shelf) -> None:
        self.size = 0
        """What it costs, in bytes."""
        self._shelf = shelf
        self._items: deque[tuple[Item, int]] = deque()
        self._dropped = 0
        self._read = 0  # how many items were read or dropped, since the beginning
        self._gaps: deque[tuple[int, RelayError]] = deque()  # each before the item of this number
        self._end: Exception | None = None
        self._changed = Signal()

    def put(self, item: Item, size: int = 0) -> None:
        """Add an item that costs so many bytes; the oldest make room for it."""
        self._items.append((item, size))
        self.size += size
        self._shelf.put(self, size)
        if len(self._items) > self._shelf.limits.unread_messages_max:
            self.drop()
        self._changed.set()

    def gap(self, error: RelayError) -> None:
        """Something may be missing before the next item. Of several such errors in a row the last
        is told."""
        place = self._read + len(self._items)
        if self._gaps and self._gaps[-1][0] == place:
            self._gaps.pop()
        self._gaps.append((place, error))
        self._changed.set()

    def rest(self) -> tuple[Item, ...]:
        """What was not read, which stays here."""
        return tuple(item for item, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def drop(self) -> None:
        """The oldest item goes. Whoever reads is told."""
        self._take()
        self._dropped += 1
        while len(self._gaps) > 1 and self._gaps[1][0] <= self._read:
            self._gaps.popleft()  # they are in one place now

    def _take(self) -> Item:
        item, size = self._items.popleft()
        self._read += 1
        self.size -= size
        self._shelf.take(self, size)
        return item

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come. Reading on raises `error`, or ends the iteration."""
        self._end = error or StopAsyncIteration()
        self._changed.set()

    async def get(self) -> Item:
        """The next item; waits for one. Raises Lagged once after items were dropped, the error of
        each gap in its place, at the end the error that ended it, or StopAsyncIteration."""
        while True:
            if self._dropped:
                count, self._dropped = self._dropped, 0
                raise Lagged(count)
            if self._gaps and self._gaps[0][0] <= self._read:
                _, error = self._gaps.popleft()
                raise error
            if self._items:
                return self._take()
            if self._end is not None:
                raise self._end.with_traceback(None)  # or that would grow each time
            await self._changed.wait()
