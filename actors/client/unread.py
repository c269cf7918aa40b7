"""What arrived for a program and was not read yet: bounded, and the oldest go first."""

import weakref
from collections import deque
from typing import Any, Generic, TypeVar

import attrs

from actors.signal import Signal
from protocol.limits import MembershipLimits
from protocol.member.errors import Gap, Lagged, RelayError

Item = TypeVar("Item")


@attrs.define
class _Hole:
    """Something may be missing before the item of this number. `size`: what its error costs."""

    place: int
    error: RelayError
    size: int


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
        if not unread.size:
            self._full.discard(unread)

    def _make_room(self) -> None:
        self._size = sum(unread.size for unread in self._full)
        while self._size > self.limits.unread_bytes_max:
            heaviest = max(self._full, key=lambda unread: unread.size)
            if heaviest.is_last and heaviest.size == self._size:
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
        self._gaps: deque[_Hole] = deque()
        self._end: Exception | None = None
        self._changed = Signal()

    def put(self, item: Item, size: int = 0) -> None:
        """Add an item that costs so many bytes; the oldest make room for it."""
        self._items.append((item, size))
        self.size += size
        self._shelf.put(self, size)
        while len(self._items) > self._shelf.limits.unread_messages_max:
            self.drop()
        self._changed.set()

    def gap(self, error: RelayError, size: int = 0) -> None:
        """Something may be missing before the next item; the error costs so many bytes. Several in
        a row become one."""
        self._gaps.append(_Hole(self._read + len(self._items), error, size))
        self.size += size
        self._join_gaps()
        self._shelf.put(self, size)
        self._changed.set()

    def _join_gaps(self) -> None:
        """Those that are in one place now, at the end or before the first item."""
        gaps = self._gaps
        while len(gaps) > 1 and gaps[1].place <= self._read:
            first = gaps.popleft()
            gaps[0] = _joined(first, gaps[0])
        while len(gaps) > 1 and gaps[-2].place == gaps[-1].place:
            last = gaps.pop()
            gaps[-1] = _joined(gaps[-1], last)

    def rest(self) -> tuple[Item, ...]:
        """What was not read, which stays here."""
        return tuple(item for item, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_last(self) -> bool:
        """It has one item, and nothing that could go before that."""
        return len(self._items) == 1 and not (self._gaps and self._gaps[0].size)

    def drop(self) -> None:
        """The oldest item goes, or what an error before it tells. Whoever reads is told."""
        hole = self._gaps[0] if self._gaps else None
        if hole is not None and hole.size and hole.place <= self._read:
            self._empty(hole)
            return
        self._take()
        self._dropped += 1
        self._join_gaps()

    def _empty(self, hole: _Hole) -> None:
        size, hole.size = hole.size, 0
        self.size -= size
        self._shelf.take(self, size)
        if isinstance(hole.error, Gap):
            self._dropped += len(hole.error.in_doubt)
            hole.error = Gap(hole.error.seconds, hole.error.reason)

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
            if self._gaps and self._gaps[0].place <= self._read:
                hole = self._gaps.popleft()
                self.size -= hole.size
                self._shelf.take(self, hole.size)
                raise hole.error
            if self._items:
                return self._take()
            if self._end is not None:
                raise self._end.with_traceback(None)  # or that would grow each time
            await self._changed.wait()


def _joined(first: _Hole, second: _Hole) -> _Hole:
    """Two errors in one place as one: the later, with what the program has sent before either."""
    error = second.error
    if isinstance(first.error, Gap) and isinstance(error, Gap):
        error = Gap(error.seconds, error.reason, (*first.error.in_doubt, *error.in_doubt))
    return _Hole(second.place, error, first.size + second.size)
