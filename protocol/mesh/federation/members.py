"""Who belongs to a federation, and which records count: computed from the log alone.

A record counts if its node takes part with this life, and the record is the next one of it. So a
record that was appended twice, or behind a lost one, counts nowhere; its node appends again from
the lost one on.

A node is silent while nothing of it comes between the Ticks of another one. No clock decides that:
a node counts its own Ticks, which have come back from the log.
"""

from collections.abc import Iterator

import attrs

from protocol.mesh.federation.records import Fragment, Hello, Record, Whole, whole

PARTS_BYTES_MAX = 2**24
"""So many bytes of fragments of one node are kept. (A longer body counts nowhere.)"""


@attrs.define(eq=False)
class Member:
    """A node that takes part. `next`: the number of its next record. `is_ready`: it knows what the
    others know. `parts`: the fragments of a body that is not complete. `silence`: how many Ticks of
    this node came since its last record (of others, this number is not the same)."""

    node: int
    life: int
    next: int = 1
    is_ready: bool = False
    parts: bytes = b""
    silence: int = 0


@attrs.frozen
class Leaving:
    """A node that has said goodbye, `at` a time of the log. Its peers may come back to another
    node."""

    node: int
    at: float


class Members:
    """The members of a federation, the eldest first, and those who have just left."""

    def __init__(self) -> None:
        self._of: dict[int, Member] = {}
        self.leaving: list[Leaving] = []

    def __iter__(self) -> Iterator[Member]:
        return iter(self._of.values())

    def __len__(self) -> int:
        return len(self._of)

    def get(self, node: int) -> Member | None:
        """The member of this number."""
        return self._of.get(node)

    def add(self, member: Member) -> None:
        """It takes part, as the youngest."""
        self._of.pop(member.node, None)
        self._of[member.node] = member

    def remove(self, node: int) -> None:
        """It takes part no more."""
        self._of.pop(node, None)

    def answerer(self, newcomer: int, attempt: int) -> Member | None:
        """Who answers this attempt of a newcomer: another one each time, the eldest first."""
        ready = [member for member in self if member.is_ready and member.node != newcomer]
        return ready[(attempt - 1) % len(ready)] if ready else None

    def take(self, record: Record) -> Member | None:
        """The member from which this record is, if it counts. It is its latest from here on."""
        member = self._of.get(record.node)
        if (
            member is None
            or member.life != record.life
            or member.next != record.n
            or isinstance(record.body, Hello)
        ):
            return None
        member.next += 1
        member.is_ready = True
        member.silence = 0
        return member

    @staticmethod
    def collect(member: Member, part: Fragment) -> Whole | None:
        """A fragment that counts, and is for all. Returns the body that is complete with it."""
        member.parts = (b"" if part.index == 0 else member.parts) + part.data
        if len(member.parts) > PARTS_BYTES_MAX:
            member.parts = b""
        if not part.is_last:
            return None
        parts, member.parts = member.parts, b""
        return whole(parts)

    def beat(self, own: int, most: int) -> list[Member]:
        """A Tick of node `own`, which is this one, has come back. Returns who was silent for so
        many of them now."""
        silent = []
        for member in self:
            if member.node != own:
                member.silence += 1
                if member.silence >= most:
                    silent.append(member)
        return silent
