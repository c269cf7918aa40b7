"""What a node has to append to the log, until it has come back from there.

Records may be lost on the way, or be appended twice. So each is kept until it was applied, and if
it does not come back in time, it is appended again, and everything behind it. What has come back is
known by its number, and nothing else tells that it arrived.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from protocol.mesh.federation.records import Body, Record, Whole, fragments, written

RECORD_BYTES: Final = 100
"""What a record costs beside its bytes."""


@attrs.frozen
class Waiting:
    """A record that has not come back, and as it is appended. `bytes`: what it counts. `note`:
    what its node wants to know again then."""

    record: Record
    data: bytes
    bytes: int
    note: object


class Outbox:
    """The records of one life of a node. `bytes`: of those that are for all and have not come
    back."""

    def __init__(self, node: int, life: int, record_bytes_max: int) -> None:
        self.bytes = 0
        self._node = node
        self._life = life
        self._record_bytes_max = record_bytes_max
        self._next = 1
        self._waiting: deque[Waiting] = deque()
        self._sent = 0  # so many of those that wait have been appended
        self.sent_at = 0.0  # when the oldest one was (seconds)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, body: Whole, note: object = None, to: int = 0) -> None:
        """Append this, in as many records as it takes. `note` is that of the last one. `to`: it is
        for this node alone (0: for all)."""
        parts: Sequence[Body] = list(fragments(body, self._record_bytes_max, to))
        for number, part in enumerate(parts, start=1):
            record = Record(self._node, self._life, self._next, part)
            data, is_last = written(record), number == len(parts)
            bytes = 0 if to else len(data) + RECORD_BYTES
            self._waiting.append(Waiting(record, data, bytes, note if is_last else None))
            self._next += 1
            self.bytes += bytes

    def take(self, at: float, bytes_max: int) -> list[bytes]:
        """The next ones to append at this time (monotonic seconds), but not many more bytes."""
        taken: list[bytes] = []
        if self._sent == 0:
            self.sent_at = at
        while self._sent < len(self._waiting) and bytes_max > 0:
            data = self._waiting[self._sent].data
            taken.append(data)
            bytes_max -= len(data)
            self._sent += 1
        return taken

    @property
    def has_more(self) -> bool:
        """There is something to append."""
        return self._sent < len(self._waiting)

    def known(self, data: bytes) -> Record | None:
        """The record that this is, if it is the oldest that waits. It need not be read again."""
        first = self._waiting[0] if self._waiting else None
        return first.record if first is not None and first.data == data else None

    def came_back(self, n: int, at: float) -> object:
        """Record `n`, the oldest that waits, was applied at this time. Returns its note."""
        first = self._waiting.popleft()
        assert first.record.n == n, "records count only in their order"
        self.bytes -= first.bytes
        self._sent = max(0, self._sent - 1)
        self.sent_at = at  # the next one has its whole time from here on
        return first.note

    def is_late(self, at: float, after_s: float) -> bool:
        """What was appended does not come back."""
        return self._sent > 0 and at - self.sent_at >= after_s

    def again(self) -> None:
        """Append everything again that has not come back."""
        self._sent = 0

    def notes(self) -> Iterator[object]:
        """The notes of all that wait, the oldest first."""
        return (waiting.note for waiting in self._waiting if waiting.note is not None)
