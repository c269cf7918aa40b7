"""A mesh as one node's supervisor sees it: what passes its gate is decided a moment later."""

import random

import pytest

from protocol.grants import OPEN
from protocol.mesh.mesh import Mesh
from protocol.mesh.visiting import Rates, Visit
from tests.protocol.mesh.federation.world import LIMITS, World


@pytest.fixture
def world() -> World:
    made = World(random.Random(1), nodes=2)
    for place in made.places:
        place.say()
    made.settle()
    return made


def visit(world: World) -> Visit:
    """Somebody without a connection says something at the first node."""
    body = b'[{"type":"broadcast","from":"cron","data":{"n":1}},{"type":"direct","from":"cron"}]'
    made = Visit(body, OPEN, Rates(LIMITS))
    while made.has_more:
        world.places[0].mesh.visits.decide(made, world.now)
    world.places[0].carry_out()
    return made


def test_a_visit_is_over_when_it_comes_back_from_the_log(world: World) -> None:
    its, over = visit(world), []
    its.when_over = lambda: over.append(1)
    assert not its.is_over
    world.settle()
    assert its.is_over
    assert over == [1]
    assert [receipt.as_data.get("code") for receipt in its.receipts] == [None, "bad_field"]
    assert its.receipts[0].received == 2


def test_a_visit_of_which_nobody_knows_whether_it_arrived_says_so(world: World) -> None:
    its = visit(world)
    first = world.places[0]
    first.read(100)
    world.log.last += 5  # entries are missing
    world.log.append(b"", 0.0)
    first.read(100)
    assert its.is_over
    assert {receipt.code for receipt in its.receipts} == {"undecided"}


def test_a_fault_of_the_mesh_ends_only_the_connection_whose_message_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.places
    real = Mesh.said

    def failing(self: Mesh, connection: int, *more: object) -> None:
        if b'"fail"' in more[1][0]:  # type: ignore[index]
            raise ZeroDivisionError("made to fail")
        real(self, connection, *more)  # type: ignore[arg-type]

    for place in world.places:
        monkeypatch.setattr(place.mesh.mesh, "said", failing.__get__(place.mesh.mesh))
    was, other = first.talker, second.talker
    first.hear(was, {"type": "broadcast", "from": "p1", "data": "fail"})
    for place in world.places:
        world.append(place, is_good=True)
        behind = world.log.behind(place.node.position)
        place.node.read(behind, world.now)
        place.carry_out()
    assert [type(error) for error in first.node.faults] == [ZeroDivisionError]
    first.node.faults.clear()
    assert was.closed == 1011
    world.settle()
    assert other.closed is None
    assert ("p1", "offline") in other.heard
    assert first.node.view.digest() == second.node.view.digest()


def test_a_node_whose_insides_have_failed_begins_anew(world: World) -> None:
    first = world.places[0]
    was = first.talker
    first.node.crashed(world.now)
    first.carry_out()
    assert was.closed == 1012
    world.settle(4)
    assert first.talker is not was
    world.settle(2)
    world.check()
