"""Nodes of a federation in virtual time, over a log in memory that loses, doubles and delays."""

import json
import random
from collections.abc import Collection, Sequence

from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Chosen,
    Deliver,
    Dismissed,
    Effect,
    Everyone,
    Only,
    Others,
    Snapshot,
    Wants,
)
from protocol.mesh.federation.federated import FederatedMesh
from protocol.mesh.federation.node import Node
from protocol.mesh.federation.records import Beat, Entry, Gone, Present
from protocol.mesh.federation.replica import NODE_BITS, node_of
from protocol.mesh.federation.standing import Standing
from protocol.mesh.federation.timing import Timing
from protocol.mesh.lifecycle import Cause
from protocol.mesh.visiting import Rates, Visit
from protocol.mesh.wishes import ALL
from protocol.verification.model import Disagreement, Message, Permit
from protocol.verification.subjects import (
    CoreSubject,
    Decision,
    Expectations,
    as_grant,
    as_inbound,
    as_told,
)
from protocol.verification.subjects.subject import Happened

MESH = "m"
CONNECTION = 2**NODE_BITS - 1
"""What of the number of a connection tells it from others of its node."""


class MemoryLog:
    """A log. `entries` may be cut off at their beginning, as those of a real one."""

    def __init__(self, epoch: str = "first") -> None:
        self.epoch = epoch
        self.entries: list[Entry] = []
        self.last = 0

    def append(self, data: bytes, at: float) -> None:
        self.last += 1
        self.entries.append(Entry(self.last, at, data))

    def behind(self, position: int) -> list[Entry]:
        first = self.entries[0].position if self.entries else 1
        return self.entries[max(0, position + 1 - first) :]


class FederatedSubject(CoreSubject):
    """The protocol at several nodes. Everything that is done is decided at once at all of them.

    What a node appends is sometimes lost or doubled, and appended again. Now and then a node is
    taken away and another one joins, so that it knows everything from a snapshot alone.
    """

    nodes_at_first = 3

    def __init__(
        self, limits: Limits | None = None, *, strict: bool = False, now: float = 0.0
    ) -> None:
        self._strict = strict
        self._dice = random.Random(1)
        self.log = MemoryLog()
        self.nodes: dict[int, Node] = {}
        self.meshes: dict[int, FederatedMesh] = {}
        self._at: dict[int, int] = {}  # connection -> node
        self._numbers = 0
        super().__init__(limits, strict=strict, now=now)
        for _ in range(self.nodes_at_first):
            self.add_node()

    # Nodes ----------------------------------------------------------------------------------------

    def add_node(self) -> int:
        """Another node joins, and knows everything at once."""
        self._numbers += 1
        number = self._numbers
        node = Node(number, self.limits, Timing(), self._instant)
        mesh = node.mesh(MESH, strict=self._strict)
        mesh.begin(lambda: None)
        self.nodes[number], self.meshes[number] = node, mesh
        node.reached(self.log.epoch, self.log.last, self._instant)
        self.settle_nodes()
        assert node.standing is Standing.JOINED
        return number

    def settle_nodes(self) -> None:
        """Everything that nodes have to say is in the log, and read by all."""
        for mesh in self.meshes.values():
            mesh.pass_on()
        tries = 0
        while True:
            moved = False
            for node in self.nodes.values():
                for data in node.take(self._instant):
                    moved = True
                    luck = self._dice.random()
                    if luck > 0.1:
                        self.log.append(data, self._instant.wall_ms / 1000)
                    if luck > 0.9:
                        self.log.append(data, self._instant.wall_ms / 1000)
            for node in self._shuffled():
                while behind := self.log.behind(node.position):
                    moved = True
                    node.read(behind[: self._dice.randint(1, 20)], self._instant)
                assert not node.faults, node.faults
            for mesh in self.meshes.values():
                mesh.pass_on()
            if not moved:
                late = [n for n in self.nodes.values() if n.is_waiting]
                if not late:
                    break
                for node in late:
                    node.retry()
                    if node.standing is Standing.JOINING:
                        tries += 1  # its hello was lost, perhaps again
                        node.tick(Instant(self.now + 2.5 * tries, 0))
        digests = {node.view.digest() for node in self.nodes.values()}
        if len(digests) > 1:
            raise Disagreement(f"nodes have decided differently: {digests}")

    def _shuffled(self) -> list[Node]:
        nodes = list(self.nodes.values())
        self._dice.shuffle(nodes)
        return nodes

    def _place(self, c: int) -> tuple[FederatedMesh, int]:
        number = self._at[c]
        return self.meshes[number], (number << NODE_BITS) + c

    # What peers and the world do ------------------------------------------------------------------

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        self._received[c] = []
        numbers = sorted(self.nodes)
        self._at[c] = numbers[c % len(numbers)]
        mesh, id = self._place(c)
        mesh.opened(id, self._instant, is_paced=is_paced, grant=as_grant(permit))
        self._decided(Decision("opened", self.now, c))

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if c not in self._closed:
            mesh, id = self._place(c)
            for some in self._parts(mesh, id, messages):
                mesh.received(id, [as_inbound(message) for message in some], self._instant)
                while id in mesh.unfinished:
                    mesh.received(id, (), self._instant)
                self.settle_nodes()
            self._decided(Decision("received", self.now, c, messages))

    def _parts(
        self, mesh: FederatedMesh, id: int, messages: Sequence[Message]
    ) -> Sequence[Sequence[Message]]:
        """What is decided together. A gate goes on as if an announcement that it has passed on was
        accepted. If it is refused, what follows is answered in another way, or held. So an
        announcement that may be refused is decided alone."""
        peer = mesh.peer_of(id)
        if any(self._may_be_refused(peer, message) for message in messages):
            return [[message] for message in messages]
        return [messages]

    def _may_be_refused(self, peer: str | None, message: Message) -> bool:
        try:
            said = json.loads(message or b"")
        except ValueError:
            return False
        if not isinstance(said, dict) or said.get("type") not in ("presence", "heartbeat"):
            return False
        if peer is not None:
            return bool(said.get("from", peer) != peer)
        peers = self.meshes[min(self.meshes)].mesh.roster.peers
        is_short = len(message or b"") < 200  # it has not too many agents
        return not is_short or bool(said.get("from") in peers)

    def visit(self, body: bytes, permit: Permit) -> None:
        visit = Visit(body, as_grant(permit), Rates(self.limits))
        mesh = self.meshes[self._dice.choice(sorted(self.meshes))]
        while visit.has_more:
            mesh.visits.decide(visit, self._instant)
        self.settle_nodes()
        assert visit.is_over
        receipts = as_told(visit.receipts)
        self._decided(Decision("visited", self.now, 0, (body,), permit=permit, receipts=receipts))

    def fall_behind(self, c: int) -> None:
        mesh, id = self._place(c)
        mesh.fell_behind(id, self._instant)
        self._decided(Decision("fell_behind", self.now, c))

    def catch_up(self, c: int) -> None:
        mesh, id = self._place(c)
        mesh.caught_up(id, self._instant)
        self._decided(Decision("caught_up", self.now, c))

    def pong(self, c: int) -> None:
        mesh, id = self._place(c)
        mesh.ponged(id, self._instant)
        self._decided(Decision("ponged", self.now, c))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            dues = [due for mesh in self.meshes.values() if (due := mesh.deadline()) is not None]
            due = min(dues, default=until)
            if min(until, self.now + 1.0) < due:
                self.now = min(until, self.now + 1.0)
            else:
                self.now = max(self.now, min(due, until))
                self._expire()
            for node in self.nodes.values():
                node.tick(self._instant)
            self.settle_nodes()
            if self.now >= until:
                break
        self._expire()
        if self._dice.random() < 0.1 and len(self.nodes) < 6:
            self.add_node()

    def shut_down(self) -> None:
        for mesh in self.meshes.values():
            mesh.shut_down(self._instant)
        self._decisions.append(Decision("shut_down", self.now))
        self._carry_out([])

    def check(self, judge: Expectations) -> None:
        for node in self.nodes.values():
            here = node.view.replica(MESH).mesh.roster.peers
            if here.keys() != judge.model.peers.keys():
                raise Disagreement(f"a node has {[*here]}, here are {[*judge.model.peers]}")

    def _end(self, c: int, cause: Cause) -> None:
        if c not in self._closed:
            mesh, id = self._place(c)
            mesh.ended(id, cause, self._instant)
            self._decided(Decision("ended", self.now, c, cause=cause.value))

    def _expire(self) -> None:
        """The time of each node comes a little later than that of the one before."""
        happened: list[Happened] = []
        for mesh in self.meshes.values():
            mesh.expire(self._instant)
            ids = [its.connection for its in mesh._effects if isinstance(its, Dismissed)]
            happened += [("dismissed", id & CONNECTION) for id in ids]
            for step in mesh._steps:
                match step:
                    case Gone(id):
                        happened.append(("closed", id & CONNECTION))
                        ids.remove(id)
                    case Present(id) | Beat(id):
                        happened.append(("announced", id & CONNECTION))
            happened += [("closed", id & CONNECTION) for id in ids]  # they were never present
            self.settle_nodes()
        self._decisions.append(Decision("elapsed", self.now, happened=happened))
        self._carry_out([])

    def _decided(self, decision: Decision) -> None:
        self._decisions.append(decision)
        self.settle_nodes()
        self._carry_out([])

    def _carry_out(self, effects: list[Effect]) -> None:
        for number, mesh in self.meshes.items():
            for effect in mesh.take_effects():
                self._carry_out_one(number, effect)

    def _carry_out_one(self, number: int, effect: Effect) -> None:
        def here() -> set[int]:
            return {c for c in self._present if self._at[c] == number}

        def numbers(ids: Collection[int]) -> set[int]:
            assert all(node_of(id) == number for id in ids)
            return {id & CONNECTION for id in ids}

        match effect:
            case Deliver(texts, Everyone()):
                self._deliver(texts, here())
            case Deliver(texts, Others(excluded)):
                self._deliver(texts, here() - numbers(excluded))
            case Deliver(texts, Chosen(wishes, excluded, also)):
                chosen = {c for c in here() if self._wishes.get(c, ALL) in wishes}
                self._deliver(texts, chosen - numbers(excluded) | numbers(also))
            case Deliver(texts, Only(connections)):
                self._deliver(texts, numbers(connections))
            case Snapshot(connection) as snapshot:
                self._deliver(snapshot.presences, numbers([connection]))
            case Admitted(connection, watches=True):
                self._present |= numbers([connection])
            case Wants(connection, wish):
                self._wishes[connection & CONNECTION] = wish
            case Dismissed(connection, _, code):
                [c] = numbers([connection])
                if c in self._closed:
                    raise Disagreement(f"connection {c} was closed twice")
                self._present.discard(c)
                self._closed[c] = code
            case _:
                pass  # for logs
