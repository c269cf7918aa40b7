"""Nodes whose peers talk all the time, over a log that loses and doubles, in virtual time."""

import json
import random
from collections.abc import Sequence
from typing import Any

from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Deliver,
    Dismissed,
    Everyone,
    Only,
    Others,
    Snapshot,
)
from protocol.mesh.federation.federated import FederatedMesh
from protocol.mesh.federation.node import Node
from protocol.mesh.federation.standing import Standing
from protocol.mesh.federation.timing import Timing
from tests.worlds.federation import MESH, MemoryLog
from tests.worlds.nodes import judge

LIMITS = Limits()
TIMING = Timing(record_bytes_max=400)
"""Many bodies are in several fragments."""


class Talker:
    """A peer at a node: what it has heard, as `judge` wants it, and whether it still hears."""

    def __init__(self, id: str, connection: int) -> None:
        self.id = id
        self.connection = connection
        self.heard: list[tuple[str, Any]] = []
        self.closed: int | None = None

    def take(self, text: bytes) -> None:
        assert self.closed is None
        message = json.loads(text)
        who = message.get("from")
        if message["type"] == "broadcast":
            self.heard.append((who, message["data"]["n"]))
        elif message["type"] == "presence":
            is_gone = message["data"].get("status") == "offline"
            self.heard.append((who, "offline" if is_gone else "here"))


class Place:
    """A node with its mesh and a talker."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.is_paused = False
        self.is_cut = False
        self.standings: list[Standing] = []
        self.node = Node(number, LIMITS, TIMING, world.now, changed=self._changed)
        self.mesh: FederatedMesh = self.node.mesh(MESH)
        self.mesh.begin(lambda: None)
        self.present: set[int] = set()
        self.talkers: list[Talker] = []
        self.said = 0
        self._opened = self.mesh.first_id
        self.reach()

    def _changed(self, standing: Standing, _: str) -> None:
        self.standings.append(standing)

    @property
    def id(self) -> str:
        return f"p{self.node.number}"

    def reach(self) -> None:
        if not self.is_cut:
            self.node.reached(self.world.log.epoch, self.world.log.last, self.world.now)

    @property
    def talker(self) -> Talker:
        """The one that is connected now."""
        if not self.talkers or self.talkers[-1].closed is not None:
            self._opened += 1
            talker = Talker(self.id, self._opened)
            self.talkers.append(talker)
            self.mesh.opened(talker.connection, self.world.now)
            self.hear(talker, {"type": "presence", "from": self.id, "data": {}})
        return self.talkers[-1]

    def say(self) -> None:
        talker = self.talker
        self.said += 1
        data = {"n": self.said, "more": "x" * self.world.dice.choice([0, 0, 900])}
        self.hear(talker, {"type": "broadcast", "from": self.id, "data": data})

    def hear(self, talker: Talker, message: dict[str, Any]) -> None:
        if talker.closed is None:
            self.mesh.received(talker.connection, [json.dumps(message).encode()], self.world.now)
            self.carry_out()

    def read(self, count: int) -> None:
        if self.node.is_lost:
            self.reach()
        behind = self.world.log.behind(self.node.position)
        self.node.read(behind[:count], self.world.now)
        assert not self.node.faults, self.node.faults
        self.carry_out()

    def carry_out(self) -> None:
        for effect in self.mesh.take_effects():
            match effect:
                case Deliver(texts, Everyone()):
                    self._deliver(texts, self.present)
                case Deliver(texts, Others(excluded)):
                    self._deliver(texts, self.present - set(excluded))
                case Deliver(texts, Only(those)):
                    self._deliver(texts, set(those))
                case Snapshot(connection) as snapshot:
                    self._deliver(snapshot.presences, {connection})
                case Admitted(connection):
                    self.present.add(connection)
                case Dismissed(connection, _, code):
                    self.present.discard(connection)
                    for talker in self.talkers:
                        if talker.connection == connection:
                            assert talker.closed is None
                            talker.closed = code
                case _:
                    pass

    def _deliver(self, texts: Sequence[bytes], those: set[int]) -> None:
        for talker in self.talkers:
            if talker.connection in those:
                for text in texts:
                    talker.take(text)


class World:
    """`dice`: decides everything that happens."""

    def __init__(self, dice: random.Random, nodes: int = 3) -> None:
        self.dice = dice
        self.at = 1000.0
        self.log = MemoryLog()
        self.places: list[Place] = []
        self.gone: list[Place] = []
        self._numbers = 0
        for _ in range(nodes):
            self.add()
            self.settle()

    @property
    def now(self) -> Instant:
        return Instant(self.at, round(1_700_000_000_000 + self.at * 1000))

    def add(self) -> Place:
        self._numbers += 1
        place = Place(self, self._numbers)
        self.places.append(place)
        return place

    def append(self, place: Place, *, is_good: bool = False) -> None:
        """What a node has to append is on its way; something of it may get lost, or come twice."""
        for data in place.node.take(self.now, 1000):
            luck = 0.5 if is_good else self.dice.random()
            if place.is_cut or luck < 0.1:
                continue
            self.log.append(data, self.now.wall_ms / 1000)
            if luck > 0.9:
                self.log.append(data, self.now.wall_ms / 1000)

    def wait(self, seconds: float) -> None:
        self.at += seconds
        for place in self.places:
            if not place.is_paused:
                place.node.tick(self.now)
                place.carry_out()

    def step(self) -> None:
        """Something happens."""
        place = self.dice.choice(self.places)
        match self.dice.choices(range(9), [20, 20, 25, 25, 1, 1, 1, 1, 1])[0]:
            case 0 if not place.is_paused:
                place.say()
            case 1 if not place.is_paused:
                self.append(place)
            case 2 if not place.is_paused and not place.is_cut:
                place.read(self.dice.randint(1, 8))
            case 3:
                self.wait(self.dice.choice([0.1, 0.5, 1.0]))
            case 4 if len(self.places) > 1:  # killed
                self.places.remove(place)
                self.gone.append(place)
            case 5 if len(self.places) < 5:
                self.add()
            case 6:
                place.is_paused = not place.is_paused
            case 7:
                place.is_cut = not place.is_cut
            case 8 if self.dice.random() < 0.2:
                self.log = MemoryLog(f"epoch {self.at}")
                for one in self.places:
                    one.node.is_lost = True  # its connection is gone, too

    def settle(self, seconds: float = 0.0) -> None:
        """Everything is healed, and goes on for so long."""
        for place in self.places:
            place.is_paused = place.is_cut = False
        until = self.at + seconds
        while True:
            for _ in range(30):
                for place in self.places:
                    self.append(place, is_good=True)
                    place.read(1000)
            if self.at >= until:
                return
            self.wait(0.5)

    def check(self) -> None:
        """What everybody heard follows the rules, and all nodes have decided the same."""
        joined = [place.node for place in self.places]
        assert {node.standing for node in joined} == {Standing.JOINED}
        assert len({node.view.digest() for node in joined}) == 1
        for place in self.places + self.gone:
            for talker in place.talkers:
                judge([talker])  # type: ignore[list-item]
        judge([place.talkers[-1] for place in self.places if place.talkers])  # type: ignore[misc]
