"""How much of what came at once on a connection is decided at once, and what waits for its turn."""

import pytest

from protocol.envelope import Text
from protocol.limits import Limits
from protocol.mesh.gate import _STEP_BYTES
from tests.worlds.mesh import World, presence, text, world_of

FEW = Limits(quantum_messages=4)


def decided(world: World, *messages: Text) -> tuple[int, int]:
    """How many of these messages of connection 1 are decided at once, and how many wait."""
    count = world.mesh.received(1, messages, world.now)
    waiting = world.mesh.unfinished.get(1)
    return count, 0 if waiting is None else waiting.count


def numbered(*numbers: int) -> list[Text]:
    return [text("stream", sender="a", n=n) for n in numbers]


def array(*messages: Text) -> Text:
    return b"[" + b",".join(messages) + b"]"


def heard(world: World) -> list[int]:
    """What the second connection has got."""
    return [message["n"] for message in world.got(2) if "n" in message]


@pytest.mark.parametrize(
    "cheap", [b"{", text("presence"), text("heartbeat"), text("configure")], ids=str
)
def test_what_comes_behind_something_cheap_does_not_wait(cheap: Text) -> None:
    world = world_of("a", "b", limits=FEW)
    count, waiting = decided(world, cheap, *numbered(*range(9)))
    assert (count, waiting) == (10, 0)


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.parametrize(("steps", "waits"), [(4, False), (5, True)])
def test_what_comes_behind_a_long_announcement_waits(
    steps: int, waits: bool, is_refused: bool
) -> None:
    world = world_of("a", "b", limits=FEW)
    long = presence("another" if is_refused else "a").ljust(steps * _STEP_BYTES)
    assert decided(world, long, *numbered(1, 2)) == ((1, 2) if waits else (3, 0))
    if waits:
        assert decided(world, *numbered(3)) == (3, 0)
    world.say(1)
    assert heard(world) == [1, 2, 3][: 3 if waits else 2]


@pytest.mark.parametrize(("elements", "waits"), [(4, False), (5, True)])
def test_what_comes_behind_a_long_array_waits_with_the_rest_of_it(
    elements: int, waits: bool
) -> None:
    world = world_of("a", "b", limits=FEW)
    first = decided(world, array(*numbered(*range(elements))), *numbered(10, 11))
    assert first == ((5, 3) if waits else (7, 0))
    if waits:
        assert decided(world) == (3, 0)
    world.say(1)
    assert heard(world) == [*range(elements), 10, 11]


def test_another_connection_need_not_wait_for_that() -> None:
    world = world_of("a", "b", limits=FEW)
    assert decided(world, array(*numbered(*range(9)))) == (5, 5)
    world.say(2, text("stream", sender="b", n=20))
    assert decided(world, *numbered(30)) == (4, 2)
    world.say(1)
    assert heard(world) == [*range(9), 30]


def test_the_gate_hears_of_agents_of_a_connection_that_is_gone_or_was_never_there() -> None:
    world = world_of("a")
    unannounced = world.open()
    for connection in (99, unannounced):
        world.mesh.gate.agents_said(connection, ())
    world.end(1)
    world.mesh.gate.agents_said(1, ())
    assert world.peers() == {}


def test_a_message_of_or_to_a_peer_with_many_connections_counts_for_more() -> None:
    world = world_of(*["a"] * 24, "b", "c")
    work = world.mesh.work
    work.take()
    costs = []
    for connection, said in (
        (1, text("stream")),
        (25, text("stream")),
        (25, text("direct", to="a")),
        (25, text("direct", to="c")),
    ):
        world.say(connection, said)
        costs.append(work.take())
    assert costs == [3, 0, 3, 0]
