"""The mailboxes of peer actors and supervisor. Each has bounds, and a rule for what exceeds them.

An `Outbox` belongs to a peer actor and holds batches for one receiver. If it is full, it refuses a
batch, and the peer is evicted. Nobody waits for a slow receiver.

An `Inbox` belongs to the supervisor and holds what the peer actors tell it. It has two lanes. The
control lane (somebody came, somebody must go) is emptied first, so no backlog delays it. The data
lane is a queue of *senders* that have something, not of messages. One after the other gives up to a
quantum of messages. So if one sender floods, only its own queue grows; when that is full, the relay
stops reading from this sender.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from actors.frames import Batch
from actors.relay.ledger import Ledger
from protocol.envelope import Inbound
from protocol.limits import Limits

Control = TypeVar("Control")
Item = TypeVar("Item")


class Outbox:
    """Batches that wait for one receiver, in order, behind the one that its transport is busy with.

    `ledger` counts all of them.
    """

    __slots__ = ("_batches", "_begun", "_ledger", "_limits", "bytes", "messages")

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self._batches: deque[Batch] | None = None  # most peers never need one
        self._begun: Batch | None = None
        self._limits = limits
        self._ledger = ledger
        self.messages = 0
        self.bytes = 0

    @property
    def begun_bytes(self) -> int:
        """The bytes of the batch that the transport is busy with."""
        return 0 if self._begun is None else self._begun.size

    def put(self, batch: Batch) -> bool:
        """Queue a batch. Returns False, and changes nothing, if the outbox is full.

        An empty outbox takes one batch of any size, so that any roster can reach a newcomer.
        """
        messages, bytes = self.messages + batch.count, self.bytes + batch.size
        limits = self._limits
        if self.messages and (
            messages > limits.mailbox_messages_max or bytes > limits.mailbox_bytes_max
        ):
            return False
        if self._batches is None:
            self._batches = deque()
        batch = batch.to_hold()
        self._batches.append(batch)
        self.messages, self.bytes = messages, bytes
        self._ledger.hold(batch)  # last: it may clear this outbox
        return True

    def take(self) -> Batch | None:
        """Begin with the next batch. None if there is none. Call `done` when the transport is."""
        if not self._batches:
            return None
        self._begun = batch = self._batches.popleft()
        self.messages -= batch.count
        self.bytes -= batch.size
        return batch

    def begin(self, batch: Batch) -> None:
        """The transport has taken this batch, and is busy with it from now on."""
        self._begun = batch
        self._ledger.hold(batch)

    def done(self) -> None:
        """The transport is busy with nothing."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            self._ledger.drop(begun)

    def clear(self) -> None:
        """Drop what waits."""
        batches, self._batches = self._batches, None
        self.messages = self.bytes = 0
        for batch in batches or ():
            self._ledger.drop(batch)


class Sender(Protocol):
    """Something that gives messages to an `Inbox`, from a queue of its own."""

    def give(self) -> list[Inbound]:
        """Up to a quantum of messages, oldest first."""
        ...

    @property
    def waiting(self) -> bool:
        """It has more to give."""
        ...


AnySender = TypeVar("AnySender", bound=Sender)


class Inbox(Generic[AnySender, Control]):
    """Control messages, and senders that have something to give.

    It calls `wake` when it was empty and gets something.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._control: deque[Control] = deque()
        self._ready: deque[AnySender] = deque()

    def __len__(self) -> int:
        return len(self._ready) + len(self._control)

    def tell(self, message: Control) -> None:
        """Add a control message. A connection makes only a few, so their number is bounded."""
        if not self:
            self._wake()
        self._control.append(message)

    def ready(self, sender: AnySender) -> None:
        """`sender` has something to give. It calls this once, not for every message."""
        if not self._ready and not self._control:
            self._wake()
        self._ready.append(sender)

    def take_control(self) -> Collection[Control]:
        """Take out all control messages, oldest first."""
        if not self._control:  # as in most rounds
            return ()
        control, self._control = self._control, deque()
        return control

    def take_ready(self) -> deque[AnySender]:
        """Take out all senders. A sender that has more than a quantum must call `ready` again."""
        ready, self._ready = self._ready, deque()
        return ready

    def put_back(self, senders: deque[AnySender]) -> None:
        """Put back senders that were taken but not served. They are first in the next round."""
        self._ready.extendleft(reversed(senders))
