"""Presences that are repeated go together (rule 9): when, whose, and not too many at once."""

from typing import Any
from unittest import mock

from protocol.limits import Limits
from protocol.mesh import refreshing
from protocol.mesh.refreshing import AT_ONCE_BYTES
from tests.worlds.mesh import World, presence, text, world_of


def repeated(world: World, connection: int) -> list[str]:
    """Whose presences the connection got since the last call."""
    return [message["from"] for message in world.got(connection) if message["type"] == "presence"]


def test_a_peer_takes_along_those_whose_time_comes_soon() -> None:
    world = World(Limits(stale_after_s=100.0, reap_after_s=200.0))
    for peer in ("a", "b", "c", "d", "silent"):
        world.join(peer)
        world.wait(1.0)
    world.wait(5.0)  # a: 10 s, b: 9 s, c: 8 s, d: 7 s
    world.hush()
    for connection in (4, 3, 1):
        world.say(connection, text("heartbeat"))
    world.wait(7.25)  # a: 17.25 s
    world.say(1, text("heartbeat"))
    assert repeated(world, 5) == []
    world.wait(0.25)
    world.say(1, text("heartbeat"))  # c: 15.5 s; d: 14.5 s; b has sent none
    assert repeated(world, 5) == ["c", "a"]
    assert repeated(world, 1) == ["c"]
    assert repeated(world, 3) == ["a"]
    world.wait(17.25)
    world.say(1, text("heartbeat"))
    assert repeated(world, 5) == []
    world.say(4, text("heartbeat"))
    assert repeated(world, 5) == ["d", "a"]  # c has sent none since
    world.wait(0.25)
    for connection in (3, 1):
        world.say(connection, text("heartbeat"))
    assert repeated(world, 5) == ["c"]


def test_soon_begins_at_its_bound() -> None:
    world = World(Limits(stale_after_s=100.0, reap_after_s=200.0, presence_refresh_s=16.0))
    for peer in ("a", "b", "c"):
        world.join(peer)
        world.wait(1.0)
    world.wait(11.0)  # a: 14 s, b: 13 s, c: 12 s
    world.say(3, text("heartbeat"))
    world.hush()
    world.say(1, text("heartbeat"))
    assert repeated(world, 2) == ["c", "a"]


def test_most_go_together() -> None:
    world = World(Limits(stale_after_s=29.0))
    for n in range(20):
        world.join(f"p{n}")
        world.wait(0.5)
    watcher = world.join("w")
    times: dict[float, int] = {}
    for step in range(400):
        world.wait(0.5)
        world.say(1 + step % 20, text("heartbeat"))  # each every 10 s
        world.say(watcher, text("ack"))
        if count := len(repeated(world, watcher)):
            times[world.at] = count
    assert sum(times.values()) >= 20 * 9  # of 200 s
    assert len(times) <= 30
    pauses = [b - a for a, b in zip(times, list(times)[1:], strict=False)]
    assert max(pauses) <= 20.0


def test_a_change_of_agents_is_told_at_once_and_alone() -> None:
    world = world_of("a", "b", "c")
    world.wait(8.0)
    world.say(2, text("heartbeat"))
    world.wait(8.0)
    world.say(1, text("heartbeat", data={"agents": ["new"]}))
    assert repeated(world, 3) == ["a"]
    world.wait(2.0)
    world.say(1, text("heartbeat"))
    assert repeated(world, 3) == []
    world.say(2, text("heartbeat"))
    assert repeated(world, 3) == ["b"]


def test_whoever_announced_itself_or_left_is_not_taken_along() -> None:
    world = world_of("a", "b", "c", "d")
    world.wait(1.0)
    for connection in (2, 3):
        world.say(connection, text("heartbeat"))
    world.say(2, presence("b"))
    world.end(3)
    world.wait(16.5)
    world.hush()
    world.say(1, text("heartbeat"))
    assert repeated(world, 4) == ["a"]


def joined(world: World, count: int, **data: Any) -> list[int]:
    connections = [world.join(f"p{n}", **data) for n in range(count)]
    world.wait(10.0)
    for connection in connections:
        world.say(connection, text("heartbeat"))
    world.wait(8.0)
    world.hush()
    return connections


def test_of_many_bytes_not_all_go_at_once_but_the_rest_a_little_later() -> None:
    world = World()
    watcher = world.join("w")
    connections = joined(world, 12, padding="x" * 60_000)
    world.say(connections[11], text("heartbeat"))
    first = repeated(world, watcher)
    assert first == [f"p{n}" for n in range(AT_ONCE_BYTES // 60_000 + 1)]
    world.say(connections[10], text("heartbeat"))
    assert repeated(world, watcher) == []
    world.say(connections[9], text("heartbeat", data={"agents": ["new"]}))
    assert repeated(world, watcher) == ["p9"]  # this does not wait
    world.wait(0.25)
    world.say(connections[11], text("heartbeat"))
    assert repeated(world, watcher) == [f"p{n}" for n in range(len(first), 10) if n != 9] + ["p10"]


def test_just_as_many_bytes_as_may_go_at_once_are_not_yet_too_many() -> None:
    world = World()
    watcher = world.join("w")
    connections = joined(world, 4)
    size = len(presence("p0"))
    with mock.patch.object(refreshing, "AT_ONCE_BYTES", 2 * size):
        world.say(connections[3], text("heartbeat"))
    assert repeated(world, watcher) == ["p0", "p1", "p2"]


def test_a_mesh_that_is_empty_remembers_nobody() -> None:
    world = World()
    joined(world, 2)
    assert world.mesh.mesh.refreshes._beaten
    world.shut_down()
    assert not world.mesh.mesh.refreshes._beaten
