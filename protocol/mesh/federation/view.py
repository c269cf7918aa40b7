"""What all nodes that take part know in common: who takes part, and every mesh.

It changes only by what comes from the log, in the order of the log, by the clock of the log. So it
is the same at every node that has read as far. What a node itself has to do about it is in
protocol.mesh.federation.node.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.federation import snapshots
from protocol.mesh.federation.members import Leaving, Member, Members
from protocol.mesh.federation.records import Entry, Evict, Hello, Item, Record
from protocol.mesh.federation.replica import Outcome, Replica
from protocol.mesh.lifecycle import Cause

Touched = dict[str, list[Outcome]]
"""The meshes in which something has happened, and what came of items, as far as that concerns
gates."""


class View:
    """`heard_at`: the position of the latest record that counts. `log_at`: the latest time of the
    log (seconds); it never goes back here. `touched`: since the owner has emptied it."""

    def __init__(self, limits: Limits) -> None:
        self.members = Members()
        self.replicas: dict[str, Replica] = {}
        self.touched: Touched = {}
        self.heard_at = 0
        self.log_at = 0.0
        self._limits = limits
        self._ticks: dict[int, tuple[int, int]] = {}  # by node: its last Tick, our digest there

    def state(self) -> bytes:
        """For a newcomer."""
        return snapshots.taken(self.members, self.replicas, self.log_at)

    def restore(self, data: bytes, position: int) -> None:
        """Know what another node knew at this position. Raises ValueError."""
        self.members, self.replicas, self.log_at = snapshots.restored(data, self._limits)
        self.heard_at = position

    def now(self, at: float) -> Instant:
        """Now, by the clock of the log, which says this now (seconds)."""
        self.log_at = max(self.log_at, at)
        return Instant(self.log_at, round(self.log_at * 1000))

    # Meshes ---------------------------------------------------------------------------------------

    def replica(self, name: str) -> Replica:
        """The mesh of this name. It begins now if nobody is there."""
        replica = self.replicas.get(name)
        if replica is None:
            replica = self.replicas[name] = Replica(self._limits)
        return replica

    def apply(self, name: str, items: Sequence[Item], at: Instant) -> None:
        """What was said in a mesh, at another node."""
        replica = self.replica(name)
        outcomes = self.touched.setdefault(name, [])
        for item in items:
            outcome = replica.apply(item, at)
            if outcome is not None and outcome != ():
                outcomes.append(outcome)

    def forget(self, name: str) -> None:
        """Nobody at this node needs this mesh, unless somebody is there, or was lately."""
        if name in self.replicas and self.replicas[name].is_blank:
            del self.replicas[name]

    def _forget_old(self, at: Instant) -> None:
        """A mesh without anybody is forgotten after some time, by all nodes at the same place."""
        for replica in self.replicas.values():
            if replica.is_empty and at.at - replica.mesh.left_at >= self._limits.recall_s:
                replica.clear()

    def without(self, node: int, cause: Cause, at: Instant) -> None:
        """The peers of a node are gone."""
        self._without(lambda other: other == node, cause, at)

    def only(self, node: int, cause: Cause, at: Instant) -> None:
        """The peers of all other nodes are gone, and nobody else takes part."""
        self.members = Members()
        self._ticks.clear()
        self._without(lambda other: other != node, cause, at)

    def _without(self, is_gone: Callable[[int], bool], cause: Cause, at: Instant) -> None:
        for name, replica in self.replicas.items():
            replica.without(is_gone, cause, at)
            self.touched.setdefault(name, [])

    # Members --------------------------------------------------------------------------------------

    def welcome(self, record: Record, at: Instant) -> None:
        """A newcomer, or one that has got no answer yet."""
        member = self.members.get(record.node)
        if member is not None and member.life > record.life:
            return  # it was said long ago
        if member is not None and member.life < record.life:
            self._remove(record.node, Cause.UNREACHABLE, at)
            member = None
        if member is None:
            self.members.add(Member(record.node, record.life))
        else:
            member.silence = 0

    def take(self, entry: Entry, record: Record) -> Member | None:
        """The member of which this is the next record, if it counts."""
        member = None if isinstance(record.body, Hello) else self.members.take(record)
        if member is not None:
            self.heard_at = entry.position
        return member

    def evict(self, evict: Evict, at: Instant) -> bool:
        """A node was silent. False: something of it has come meanwhile."""
        member = self.members.get(evict.node)
        if member is None or (member.life, member.next) != (evict.life, evict.n):
            return False
        self._remove(evict.node, Cause.UNREACHABLE, at)
        return True

    def goodbye(self, member: Member, entry: Entry) -> None:
        """A node leaves. Its peers stay for a moment."""
        self.members.remove(member.node)
        self.members.leaving.append(Leaving(member.node, entry.at))

    def _remove(self, node: int, cause: Cause, at: Instant) -> None:
        self.members.remove(node)
        self._ticks.pop(node, None)
        self.without(node, cause, at)

    # Ticks ----------------------------------------------------------------------------------------

    def tick(self, member: Member, entry: Entry, at: Instant, stay_s: float) -> None:
        """A Tick of a member has come: those who left `stay_s` ago are gone."""
        for leaving in tuple(self.members.leaving):
            if entry.at - leaving.at >= stay_s:
                self.members.leaving.remove(leaving)
                self.without(leaving.node, Cause.SHUTDOWN, at)
        self._forget_old(at)
        self._ticks[member.node] = (entry.position, self.digest())

    def last_tick(self, node: int) -> tuple[int, int]:
        """The position of the last Tick of this node, and what was decided here by then."""
        return self._ticks.get(node, (0, 0))

    def digest(self) -> int:
        """Something that differs, most likely, where something else was decided."""
        replicas = self.replicas.items()
        facts = [(m.node, m.life, m.next) for m in self.members]
        meshes = sorted((name, its.digest(name)) for name, its in replicas if not its.is_blank)
        return crc32(repr((facts, meshes)).encode())
