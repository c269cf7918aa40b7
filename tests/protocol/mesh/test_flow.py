"""Who has said how much to whom: counted while somebody watches, and for a minute."""

from protocol.instant import Instant
from protocol.mesh.flow import BEYOND, KEYS_MAX, PARTS, WITHIN_S, Flow, Way
from tests.worlds.mesh import World, presence, text


def at(seconds: float) -> Instant:
    return Instant(seconds, round(seconds * 1000))


def test_it_counts_for_a_minute_and_forgets_part_by_part() -> None:
    flow = Flow(at(0))
    for second in range(120):
        flow.said("a", None, "stream", at(second))
        [(way, count)] = flow.most(9, at(second))
        assert way == Way("a", None, "stream")
        part_s = WITHIN_S / PARTS
        assert min(second + 1, WITHIN_S) <= count <= min(second + 1, WITHIN_S + part_s)
    assert flow.most(9, at(120 + WITHIN_S + WITHIN_S / PARTS)) == []


def test_after_a_long_silence_nothing_is_left() -> None:
    flow = Flow(at(0))
    flow.said("a", None, "stream", at(0))
    assert flow.most(9, at(1e9)) == []
    flow.said("a", None, "ack", at(1e9))
    assert flow.most(9, at(1e9 + 1)) == [(Way("a", None, "ack"), 1)]


def test_the_largest_come_first() -> None:
    flow = Flow(at(0))
    for name, count in (("few", 1), ("many", 3), ("some", 2)):
        for _ in range(count):
            flow.said(name, "x", "direct", at(0))
    assert [way.sender for way, _ in flow.most(2, at(0))] == ["many", "some"]


def test_beyond_so_many_ways_they_are_counted_together() -> None:
    flow = Flow(at(0))
    for n in range(KEYS_MAX + 5):
        flow.said(f"p{n}", None, "stream", at(0))
    flow.said("p0", None, "stream", at(0))
    counts = dict(flow.most(10_000, at(0)))
    assert len(counts) == KEYS_MAX + 1
    assert counts[BEYOND] == 5
    assert counts["p0", None, "stream"] == 2  # type: ignore[index]


def test_a_mesh_counts_only_while_it_is_watched_and_names_peers() -> None:
    world = World()
    ann, bob = world.open(), world.open()
    world.say(ann, presence("ann", "asker"))
    world.say(bob, presence("bob", "coder"))
    world.say(ann, text("direct", sender="ann", to="bob"))
    assert world.mesh.watch(9, world.now)[1] == []
    world.say(ann, text("direct", sender="asker", to="coder"))
    world.say(bob, text("stream", sender="bob"))
    _, ways, since_ms = world.mesh.watch(9, world.now)
    assert sorted(ways) == [(("ann", "bob", "direct"), 1), (("bob", None, "stream"), 1)]
    assert since_ms == world.now.wall_ms
    world.mesh.unwatch()
    assert world.mesh.watch(9, world.now)[1] == []
