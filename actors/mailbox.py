"""Mailboxes: bounded, and each with its overflow policy.

`Unread` belongs to a program that is a peer: what arrived for it. Beyond its bounds the oldest go,
and the reader is told, so that a program that reads nothing keeps its connection.

`Outbox` belongs to a peer actor: batches on their way to one receiver. Beyond its bounds it
refuses, and the peer is evicted; nobody waits for a slow receiver.

`Inbox` belongs to the supervisor: what the peer actors tell it. It has two lanes. The control lane
(somebody came, somebody must go) is taken first and whole, so no backlog delays it. The data lane
is a queue of *senders* that have something, not of messages: each in turn gives up to a quantum,
so a flood from one only lengthens its own queue, and beyond its bounds that sender is no longer
read.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import anyio

from actors.fanout import Batch
from protocol.errors import Lagged
from protocol.limits import Limits, MembershipLimits
from protocol.mesh import Inbound

Control = TypeVar("Control")
Item = TypeVar("Item")


class Outbox:
    """Batches that wait for one receiver, in order."""

    __slots__ = ("_batches", "_limits", "bytes", "messages")

    def __init__(self, limits: Limits) -> None:
        self._batches: deque[Batch] | None = None  # most peers never need one
        self._limits = limits
        self.messages = 0
        self.bytes = 0

    def put(self, batch: Batch) -> bool:
        """Queue a batch. False, and nothing changes, if it is full.

        An empty outbox takes any one batch, so that a roster of any size can reach a newcomer.
        """
        messages, bytes = self.messages + batch.count, self.bytes + _size(batch)
        limits = self._limits
        if self.messages and (
            messages > limits.mailbox_messages_max or bytes > limits.mailbox_bytes_max
        ):
            return False
        if self._batches is None:
            self._batches = deque()
        self._batches.append(batch)
        self.messages, self.bytes = messages, bytes
        return True

    def take(self) -> Batch | None:
        """The next batch, or None."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self.messages -= batch.count
        self.bytes -= _size(batch)
        return batch

    def clear(self) -> None:
        """Drop everything."""
        self._batches = None
        self.messages = self.bytes = 0


def _size(batch: Batch) -> int:
    return sum(map(len, batch.buffers))


class Sender(Protocol):
    """Whoever has a queue of its own in an `Inbox`."""

    def give(self, quantum: int) -> list[Inbound]:
        """Up to `quantum` messages, oldest first."""
        ...

    @property
    def waiting(self) -> bool:
        """There is more to give."""
        ...


AnySender = TypeVar("AnySender", bound=Sender)


class Inbox(Generic[AnySender, Control]):
    """Control messages, and senders that have something to give. Calls `wake` when it gets work
    and had none."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._control: deque[Control] = deque()
        self._ready: deque[AnySender] = deque()

    def __bool__(self) -> bool:
        return bool(self._ready or self._control)

    def tell(self, message: Control) -> None:
        """A control message. Bounded by the number of connections: each has a few in its life."""
        if not self:
            self._wake()
        self._control.append(message)

    def ready(self, sender: AnySender) -> None:
        """`sender` has something to give. It calls this when that begins, not for every message."""
        if not self._ready and not self._control:
            self._wake()
        self._ready.append(sender)

    def take_control(self) -> deque[Control]:
        """All control messages, oldest first."""
        control, self._control = self._control, deque()
        return control

    def take_ready(self) -> deque[AnySender]:
        """All who have something; whoever has more than a quantum must be `ready` again."""
        ready, self._ready = self._ready, deque()
        return ready

    def put_back(self, senders: deque[AnySender]) -> None:
        """These were taken and did not have their turn: they are first in the next."""
        self._ready.extendleft(reversed(senders))


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
        """Nothing more will come. Who reads on gets `error`, or the end of the iteration."""
        self._end = error or StopAsyncIteration()
        self._changed.set()

    async def get(self) -> Item:
        """The next item. Raises Lagged once after items were dropped, and the end's error."""
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


class Signal:
    """Something changed: everyone who waits looks again."""

    def __init__(self) -> None:
        self.next = anyio.Event()

    def set(self) -> None:
        event, self.next = self.next, anyio.Event()
        event.set()

    async def wait(self) -> None:
        await self.next.wait()
