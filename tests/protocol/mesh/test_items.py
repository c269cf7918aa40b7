"""The seam: the mesh that applies the same items elsewhere decides the same.

A world plays a random life of a mesh in one process, and every item that passes the gate is noted.
Replicas then apply the items, each with a mesh of its own.
"""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.envelope import Refusal, Text
from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.effects import Dismissed, Effect, PeerJoined, PeerLeft, Refused, Snapshot, Spared
from protocol.mesh.items import Apart
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.mesh import Mesh
from protocol.mesh.roster import Roster
from protocol.mesh.routing import Route
from tests.worlds.mesh import World, presence, text

Item = tuple[str, tuple[Any, ...], dict[str, Any]]

LIMITS = Limits(
    message_bytes_max=2048,
    presence_bytes_max=1024,
    agents_max=4,
    messages_per_s=50.0,
    messages_burst=50,
)


class NotingMesh(LocalMesh):
    """A mesh in one process that notes the items between its gate and its mesh."""

    def __init__(self, limits: Limits, *, strict: bool = False) -> None:
        super().__init__(limits, strict=strict)
        self.items: list[Item] = []
        self.said = self._noting("said", self.mesh.said)
        self.visited = self._noting("visited", super().visited)  # type: ignore[method-assign]
        self.present = self._noting("present", super().present)  # type: ignore[method-assign]
        self.beat = self._noting("beat", super().beat)  # type: ignore[method-assign]
        self.gone = self._noting("gone", super().gone)  # type: ignore[method-assign]
        self.lagging = self._noting("lagging", super().lagging)  # type: ignore[method-assign]

    def _noting(self, name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.items.append((name, arguments, named))
            return apply(*arguments, **named)

        return noted


class NotingWorld(World):
    """A world around a `NotingMesh`; `effects` is all that the mesh decided."""

    def __init__(self) -> None:
        super().__init__(LIMITS)
        self.mesh: NotingMesh = NotingMesh(LIMITS)
        self.effects: list[Effect] = []
        take = self.mesh.take_effects

        def take_and_keep() -> list[Effect]:
            effects = take()
            self.effects += effects
            return effects

        self.mesh.take_effects = take_and_keep  # type: ignore[method-assign]


def live(chance: random.Random) -> NotingWorld:
    """A mesh's life of some hundred steps."""
    world = NotingWorld()
    here: list[int] = []
    names = ("ann", "bob", "cid")
    for _ in range(150):
        connection = chance.choice(here) if here else 0
        step = chance.randrange(15)
        if step < 2 or not here:
            here.append(world.open(is_paced=chance.random() < 0.5))
        elif step < 5:
            agents = chance.sample(
                ["a", "b", {"id": "c", "n": 1.50}, "relay", 7], chance.randrange(4)
            )
            world.say(connection, presence(chance.choice(names), *agents))
        elif step < 8:
            types = ["stream", "stream", "direct", "broadcast", "direct", "odd", "relay-log"]
            type = chance.choice(types)
            fields = {
                "to": chance.choice([*names, "a", "b", None]),
                "sender": chance.choice([None, *names, "a", "relay"]),
                "turnId": chance.choice([1, "t", chance.randrange(100)]),
            }
            size = chance.choice([0, 0, 1900, 1990])
            world.say(connection, text(type, **fields, data="x" * size), b"[1]", b"{")
        elif step == 8:
            world.say(
                connection, text("heartbeat", data={"agents": chance.choice([["a"], ["b", 1]])})
            )
        elif step == 9:
            world.say(connection, text("capabilities"))
        elif step == 10:
            world.wait(chance.choice([0.1, 16.0, 31.0]))
        elif step == 14:
            grant = chance.choice([Grant(), Grant(peer="ann")])
            type, to = chance.choice(["stream", "direct", "odd"]), chance.choice([*names, "a"])
            sender = chance.choice([None, "ann", "dan", "a"])
            world.visit(text(type, sender=sender, to=to, turnId=1), grant)
        elif step > 11:
            chance.choice([world.fall_behind, world.fall_behind, world.catch_up])(connection)
            for other in here:
                world.say(other, text("stream", turnId=chance.randrange(100)))
        elif chance.random() < 0.5:
            world.end(connection, chance.choice([Cause.LEFT, Cause.EVICTED]))
        here = [one for one in here if world.is_open(one)]
    return world


def replayed(items: list[Item]) -> tuple[list[Effect], Mesh]:
    """What a mesh elsewhere makes of these items, and that mesh."""
    effects: list[Effect] = []
    mesh = Mesh(LIMITS, effects)
    for name, arguments, named in items:
        apply = mesh.audiences.laggards.note if name == "lagging" else getattr(mesh, name)
        # A mesh answers a visit at once, and nobody waits for it.
        given = arguments[:-1] if name == "visited" else arguments
        with contextlib.suppress(Refusal, Apart):  # the gate tells the sender, or says them anew
            apply(*given, **named)
    return effects, mesh


def of_the_mesh(effect: Effect) -> bool:
    """The mesh decides it, not the gate."""
    if isinstance(effect, Dismissed | Refused):
        return False
    said_by_the_relay = getattr(effect, "texts", (b"",))[0]
    if b'"code":"lagging"' in said_by_the_relay:
        return True
    return not said_by_the_relay.startswith(
        (b'{"type":"error"', b'{"type":"capabilities_response"')
    )


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_the_same_items_in_the_same_order_give_the_same_effects_and_the_same_roster(
    seed: int,
) -> None:
    world = live(random.Random(seed))
    decided = [effect for effect in world.effects if of_the_mesh(effect)]
    effects, mesh = replayed(world.mesh.items)
    assert effects == decided
    original = world.mesh.mesh.roster
    assert presences(mesh.roster) == presences(original)
    assert set(mesh.roster.connections) == set(original.connections)
    assert mesh.totals == world.mesh.mesh.totals


def presences(roster: Roster) -> list[tuple[str, Text]]:
    return [(peer.id, peer.presence) for peer in roster.peers.values()]


def test_a_life_has_everything_that_the_mesh_decides() -> None:
    worlds = [live(random.Random(seed)) for seed in range(5)]
    kinds = {name for world in worlds for name, _, _ in world.mesh.items}
    assert kinds == {"present", "said", "visited", "beat", "gone", "lagging"}
    assert {PeerJoined, PeerLeft, Snapshot, Spared} <= {
        type(effect) for world in worlds for effect in world.effects
    }


def test_an_item_of_a_connection_that_is_not_present_is_refused_and_changes_nothing() -> None:
    effects: list[Effect] = []
    mesh = Mesh(LIMITS, effects)
    world = NotingWorld()
    world.say(world.join("ann"), text("stream"), text("heartbeat"))
    by_name = {name: arguments for name, arguments, _ in world.mesh.items}
    for name in ("said", "beat"):
        with pytest.raises(Refusal):
            getattr(mesh, name)(*by_name[name])
    mesh.gone(1, Cause.LEFT, world.now)
    assert effects == []
    assert mesh.totals == Mesh(LIMITS, []).totals
    assert Route.OTHERS in by_name["said"]
