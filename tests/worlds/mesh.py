"""A mesh with hands: it carries out the effects, so that tests see what a connection gets."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from protocol.envelope import TEXT_BYTES, Inbound, Text
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Chosen,
    Deliver,
    Dismissed,
    Everyone,
    Only,
    Others,
    PeerJoined,
    PeerLeft,
    Refused,
    Snapshot,
    Spared,
    Wants,
)
from protocol.mesh.items import Admission, admit_all
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.status import PeerStatus
from protocol.mesh.visiting import Rates, Visit
from tests.worlds.json_texts import loads

WALL_MS = 1_700_000_000_000
"""The wall clock at monotonic time 0."""

Message = dict[str, Any]


def text(type: str, **fields: Any) -> Text:
    """A message as it may be sent. `sender` stands for `from`.

    >>> text("ack", sender="a", turnId=1)
    b'{"type": "ack", "from": "a", "turnId": 1}'
    """
    if "sender" in fields:
        fields = {"from": fields.pop("sender"), **fields}
    return json.dumps({"type": type, **fields}).encode()


def presence(peer: str, *agents: Any, **data: Any) -> Text:
    return text("presence", sender=peer, data={"agents": agents, **data})


class World:
    """Connections of one mesh, by number from 1, and a clock that stands still until `wait`."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        strict: bool = False,
        admit: Admission = admit_all,
    ) -> None:
        self.limits = limits or Limits()
        self.mesh = LocalMesh(self.limits, strict=strict, admit=admit)
        self.at = 1000.0
        self.dismissed: dict[int, Dismissed] = {}
        self.notes: list[PeerJoined | PeerLeft | Refused | Spared] = []
        self.admitted: set[int] = set()
        self._present: set[int] = set()
        self._wish: dict[int, int] = {}
        self._texts: dict[int, list[Text]] = {}
        self._numbers = itertools.count(1)

    # What happens ---------------------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        return Instant(self.at, WALL_MS + round(self.at * 1000))

    def open(self, *, is_paced: bool = False, grant: Grant = OPEN) -> int:
        """A new connection, not announced."""
        connection = next(self._numbers)
        self._texts[connection] = []
        self.mesh.opened(connection, self.now, is_paced=is_paced, grant=grant)
        self._carry_out()
        return connection

    def join(
        self,
        peer: str,
        *agents: Any,
        is_paced: bool = False,
        grant: Grant = OPEN,
        claim: dict[str, Any] | None = None,
        **data: Any,
    ) -> int:
        """A new connection of `peer`, announced. Nobody's news are taken. `claim`: the `data` of a
        `capabilities` before that."""
        connection = self.open(is_paced=is_paced, grant=grant)
        if claim is not None:
            self.say(connection, text("capabilities", data=claim))
        self.say(connection, presence(peer, *agents, **data))
        assert connection in self.admitted
        return connection

    def say(self, connection: int, *messages: Inbound) -> None:
        """The connection sends these at once."""
        self.mesh.received(connection, messages, self.now)
        while connection in self.mesh.unfinished:
            self.mesh.received(connection, (), self.now)
        self._carry_out()

    def visit(
        self, body: Text, grant: Grant = OPEN, rates: Rates | None = None
    ) -> list[dict[str, Any]]:
        """Somebody without a connection says this. What came of each message."""
        visit = Visit(body, grant, rates or Rates(self.limits))
        while not visit.is_over:
            self.mesh.visits.decide(visit, self.now)
            assert visit.held_bytes <= 2 * len(body) + TEXT_BYTES * len(body)
        self._carry_out()
        return [receipt.as_data for receipt in visit.receipts]

    def fall_behind(self, *connections: int) -> None:
        for connection in connections:
            self.mesh.fell_behind(connection, self.now)
        self._carry_out()

    def catch_up(self, *connections: int) -> None:
        for connection in connections:
            self.mesh.caught_up(connection, self.now)
        self._carry_out()

    def pong(self, connection: int) -> None:
        self.mesh.ponged(connection, self.now)
        self._carry_out()

    def end(self, connection: int, cause: Cause = Cause.LEFT) -> None:
        self.mesh.ended(connection, cause, self.now)
        self._carry_out()

    def wait(self, seconds: float) -> None:
        """Time passes; what is due happens at once, as an owner of the mesh sees to it."""
        until = self.at + seconds
        while (due := self.mesh.deadline()) is not None and due <= until:
            self.at = max(self.at, due)
            self.mesh.expire(self.now)
            self._carry_out()
        self.at = until

    def shut_down(self) -> None:
        self.mesh.shut_down(self.now)
        self._carry_out()

    # What is seen ---------------------------------------------------------------------------------

    def texts(self, connection: int) -> list[Text]:
        """What the connection got since the last call, to the letter."""
        got, self._texts[connection] = self._texts[connection], []
        return got

    def got(self, connection: int) -> list[Message]:
        """What the connection got since the last call."""
        return [loads(text) for text in self.texts(connection)]

    def errors(self, connection: int) -> list[str]:
        """The codes of the errors that the connection got, and it got nothing else."""
        got = self.got(connection)
        assert all(message["type"] == "error" and message["from"] == "relay" for message in got)
        return [message["data"]["code"] for message in got]

    def hush(self) -> None:
        """Forget what everybody got up to now."""
        for got in self._texts.values():
            got.clear()

    def is_open(self, connection: int) -> bool:
        return connection not in self.dismissed

    def peers(self) -> dict[str, PeerStatus]:
        return {status.peer: status for status in self.mesh.status(self.now)}

    # ----------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        for effect in self.mesh.take_effects():
            match effect:
                case Deliver(texts, Everyone()):
                    self._deliver(texts, self._present)
                case Deliver(texts, Others(excluded)):
                    self._deliver(texts, self._present - set(excluded))
                case Deliver(texts, Chosen(wishes, excluded, also)):
                    chosen = {c for c in self._present if self._wish.get(c, 0) in wishes}
                    assert chosen.isdisjoint(also)
                    self._deliver(texts, chosen - set(excluded) | set(also))
                case Wants(connection, wish):
                    assert connection in self._present
                    assert self._wish.get(connection, 0) != wish
                    self._wish[connection] = wish
                case Deliver(texts, Only(connections)):
                    self._deliver(texts, set(connections))
                case Snapshot(connection) as snapshot:
                    self._deliver(snapshot.presences, {connection})
                case Admitted(connection, _, watches):
                    assert connection not in self.admitted
                    self.admitted.add(connection)
                    if watches:
                        self._present.add(connection)
                case Dismissed(connection):
                    assert connection not in self.dismissed
                    self.dismissed[connection] = effect
                    self._present.discard(connection)
                case PeerJoined() | PeerLeft() | Refused() | Spared():
                    self.notes.append(effect)

    def _deliver(self, texts: Sequence[Text], connections: set[int]) -> None:
        for text in texts:  # what a receiver's browser could not parse is never sent
            assert isinstance(loads(text), dict)
        for connection in connections:
            assert connection not in self.dismissed
            self._texts[connection] += texts


def world_of(*peers: str, limits: Limits | None = None, strict: bool = False) -> World:
    """A world with a connection (1, 2, ...) for each of these peers, who have all met."""
    world = World(limits, strict=strict)
    for peer in peers:
        world.join(peer)
    world.hush()
    return world
