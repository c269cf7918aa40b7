"""What waits to be sent, and when it may go: bounds, pace, arrays of messages, frames.

The relay tells its own bounds in `capabilities_response` (`data.limits`, `data.accept`). The queue
keeps below them, so that the relay never has to drop anything: it uses 0.9 of the messages (and,
behind AgentCore's edge, of the frames) that may come in a second. Messages that wait at the same
time share one frame as an array, if the relay takes arrays: a frame costs both ends more than a
message, and in front of AgentCore frames are counted.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import attrs

from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import NotConnected, QueueFull, RelayError, TooLarge
from protocol.member.messages import Message
from protocol.member.returns import Target
from protocol.rate import Rate

PACE: Final = 0.9
"""The part of the relay's rate limit that the queue uses; the rest is for heartbeats."""
BURST: Final = 0.5
"""The part of its burst; the rest is for what the network holds up and then delivers at once."""

RATE_LEAST_PER_S: Final = 0.1
"""The least rate of messages that a relay may have (protocol/limits.py)."""


@attrs.frozen
class Frame:
    """What goes into one frame, and the tickets of the messages in it. `said`: those of them that
    the program has said itself."""

    text: str
    tickets: tuple[int, ...]
    said: tuple[str, ...] = ()


@attrs.frozen
class Dropped:
    """A message that will not be sent after all."""

    ticket: int
    error: RelayError


@attrs.frozen
class _Queued:
    text: str
    size: int
    target: Target | None
    is_said: bool


class Outgoing:
    """The queue of one peer. Every message in it has a ticket, a number from 1.

    `waits`: without a connection messages wait for one; else they are refused. `splits`: the
    connection sends a long message as several frames; a browser cannot. `overfill`: while there is
    a connection, so many times the bounds of the queue may wait. `holds`: what is for this target
    must not go yet (returns).
    """

    def __init__(
        self,
        limits: MembershipLimits,
        *,
        waits: bool = True,
        splits: bool = True,
        overfill: int = 1,
        holds: Callable[[Target | None], bool] = lambda target: False,
    ) -> None:
        self.is_connected = False
        """There is a connection in use. The peer says so."""
        self._limits = limits
        self._waits = waits
        self._splits = splits
        self._overfill = overfill
        self._holds = holds
        self._queue: OrderedDict[int, _Queued] = OrderedDict()
        self._bytes = 0
        self._ticket = 0
        relay = Limits()  # until the relay tells its own
        self._message_bytes_max = relay.message_bytes_max
        self._messages = Rate(PACE * relay.messages_per_s, BURST * relay.messages_burst)
        self._frames: Rate | None = None  # only where an edge in front of the relay counts them
        self._frame_bytes = relay.frame_bytes_max
        self._takes_arrays = False
        self._knows_relay = False
        self._has_news = False

    def take_news(self) -> bool:
        """More may be sent than when this was asked last."""
        has_news, self._has_news = self._has_news, False
        return has_news

    def __len__(self) -> int:
        return len(self._queue)

    # Putting in and taking out --------------------------------------------------------------------

    def check(self, text: str, what: str = "message") -> int:
        """The bytes of a text that the relay takes. Raises TooLarge."""
        size = bytes_of(text)
        if size > self._message_bytes_max:
            raise TooLarge(
                f"the {what} has {size} bytes, and the relay takes {self._message_bytes_max}"
            )
        if not self._splits and self._frames is not None and size > self._frame_bytes:
            raise TooLarge(
                f"the {what} has {size} bytes, and what is in front of the relay takes frames of "
                f"{self._frame_bytes}; a page cannot split a message, so send it in parts "
                "(`stream`)"
            )
        return size

    @property
    def has_room(self) -> bool:
        """The queue takes another message."""
        return self._has_room(0)

    def _has_room(self, spare: int) -> bool:
        limits, times = self._limits, self._overfill if self.is_connected else 1
        return (
            len(self._queue) < times * limits.queue_messages_max + spare
            and self._bytes < times * limits.queue_bytes_max + spare * 2**10
        )

    def offer(
        self,
        text: str,
        target: Target | None = None,
        *,
        is_said: bool = False,
        is_reply: bool = False,
    ) -> int:
        """Put a message into the queue. Returns its ticket. `target`: the one whom it is for.

        `is_said`: the program says it, and not the peer for it, as in commands and answers.
        `is_reply`: a short reply that the peer gives by itself (an `ack`, a refusal). So that no
        asker is left without one, `turns_max` of these may wait beyond the bounds.
        Raises TooLarge, QueueFull, and NotConnected where messages do not wait for a connection.
        """
        size = self.check(text)
        if not self._waits and not self.is_connected:
            raise NotConnected('there is no connection now; offline="wait" would wait for one')
        if not self._has_room(self._limits.turns_max if is_reply else 0):
            raise self._full()
        self._ticket += 1
        self._queue[self._ticket] = _Queued(text, size, target, is_said)
        self._has_news = True
        self._bytes += size
        return self._ticket

    def withdraw(self, ticket: int) -> bool:
        """Take a message out of the queue again. Returns whether it was still there."""
        if ticket not in self._queue:
            return False
        self._bytes -= self._queue.pop(ticket).size
        return True

    def disconnected(self) -> list[Dropped]:
        """There is no connection any more. What may not wait for the next one is dropped, the
        newest first. With `overfill` 1 nothing is dropped: senders were told that it is sent."""
        self.is_connected = False
        self._messages.clear()  # the relay counts by connection
        if self._frames is not None:
            self._frames.clear()
        dropped: list[Dropped] = []
        if self._overfill == 1:
            return dropped
        limits = self._limits
        while self._queue and (
            not self._waits
            or len(self._queue) > limits.queue_messages_max
            or self._bytes > limits.queue_bytes_max
        ):
            ticket, queued = self._queue.popitem()
            self._bytes -= queued.size
            lost = NotConnected("the connection was lost before this was sent")
            dropped.append(Dropped(ticket, self._full() if self._waits else lost))
        return dropped

    def _full(self) -> QueueFull:
        limits = self._limits
        return QueueFull(
            f"{len(self._queue)} messages wait to be sent already "
            f"(at most {limits.queue_messages_max}, of {limits.queue_bytes_max} bytes together)"
        )

    # Sending --------------------------------------------------------------------------------------

    def next_frame(self, at: float, patient_until: float) -> Frame | float | None:
        """What to send at monotonic time `at`; or, if the pace forbids it, at what time to ask
        again; or None: nothing waits.

        A relay that has not told its bounds yet is waited for until `patient_until`.
        """
        sendable = self._sendable()
        first = next(sendable, None)
        if first is None:
            return None
        due = self._opens_at()
        if not self._knows_relay:
            due = max(due, patient_until)
        if due > at:
            return due
        texts: list[str] = []
        tickets: list[int] = []
        said: list[str] = []
        total = 1  # a bracket; behind each message comes a comma, or the other one
        most = min(self._frame_bytes, self._message_bytes_max)  # an array is bounded as a message
        for ticket in chain((first,), sendable):
            queued = self._queue[ticket]
            size = queued.size
            if tickets and (
                not self._takes_arrays or total + size + 1 > most or self._messages.opens_at() > at
            ):
                break
            self._bytes -= size
            self._messages.take(at)
            texts.append(queued.text)
            tickets.append(ticket)
            if queued.is_said:
                said.append(queued.text)
            total += size + 1
        for ticket in tickets:
            del self._queue[ticket]
        is_array = len(texts) > 1
        self._take_frame(total if is_array else total - 2, at)
        text = f"[{','.join(texts)}]" if is_array else texts[0]
        return Frame(text, tuple(tickets), tuple(said))

    def _opens_at(self) -> float:
        due = self._messages.opens_at()
        return due if self._frames is None else max(due, self._frames.opens_at())

    def _take_frame(self, size: int, at: float) -> None:
        if self._frames is not None:
            self._frames.take(at, math.ceil(size / self._frame_bytes))

    def repeat(self, size: int, count: int, at: float) -> float | None:
        """A frame of so many bytes and messages is to be sent again, at monotonic time `at`. If the
        pace forbids it, returns at what time to ask again."""
        due = self._opens_at()
        if due > at:
            return due
        self._messages.take(at, count)
        self._take_frame(size, at)
        return None

    def _sendable(self) -> Iterator[int]:
        """The tickets of what may go now, in order."""
        held: dict[Target | None, bool] = {}
        for ticket, queued in self._queue.items():
            target = queued.target
            if target is not None and target not in held:
                held[target] = self._holds(target)
            if not held.get(target):
                yield ticket

    def released(self) -> None:
        """What was held may go now."""
        self._has_news = self._has_news or bool(self._queue)

    # What the relay allows ------------------------------------------------------------------------

    def learn(self, capabilities: Message) -> None:
        """The relay has told its own bounds. What is nonsense among them changes nothing."""
        self._knows_relay = self._has_news = True
        accepted, bounds = capabilities.word("accept"), capabilities.word("limits")
        self._takes_arrays = isinstance(accepted, list) and "batch" in accepted
        if not isinstance(bounds, dict):
            return
        self._message_bytes_max = _count(bounds.get("messageBytes")) or self._message_bytes_max
        per_s = _rate(bounds.get("messagesPerSecond"))
        if per_s is not None:
            burst = _count(bounds.get("messagesBurst"))
            self._messages.set(PACE * per_s, BURST * (per_s if burst is None else burst))
        frames_per_s = _rate(bounds.get("framesPerSecond"))
        self._frame_bytes = _count(bounds.get("frameBytes")) or self._frame_bytes
        if frames_per_s is not None:
            self._frames = self._frames or Rate(1.0, 0)
            self._frames.set(PACE * frames_per_s, 0)
        elif bounds.get("framesPerSecond") is None:
            self._frames = None


def positive(value: Any) -> float | None:
    """The value if it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if 0 < number < math.inf else None


def whole(value: Any) -> int | None:
    """The value if it is a count.

    >>> whole(3.0), whole(-1)
    (3, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value <= 2**53 and value == int(value) else None


def _rate(value: Any) -> float | None:
    """The value if it is a rate (1/s) that a relay may have: a smaller one would mute the peer."""
    number = positive(value)
    return number if number is not None and number >= RATE_LEAST_PER_S else None


def _count(value: Any) -> int | None:
    """The whole part of the value if that is a finite number from 1."""
    number = positive(value)
    return int(number) if number is not None and number >= 1 else None


def bytes_of(text: str) -> int:
    """The bytes that a text has in UTF-8.

    >>> bytes_of("a"), bytes_of("é")
    (1, 2)
    """
    return len(text) if text.isascii() else len(text.encode())
