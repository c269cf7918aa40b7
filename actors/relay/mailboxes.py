"""Mailboxes: bounded, and each with its overflow policy.

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

from actors.frames import Batch
from protocol.envelope import Inbound
from protocol.limits import Limits

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
        """These were taken and were not served: they are first in the next round."""
        self._ready.extendleft(reversed(senders))
