"""Several nodes, whatever happens to them and to their log: everybody hears what the rules say."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.mesh.federation.standing import Standing
from tests.protocol.mesh.federation.world import World

CLOSED_BY_NODE = 1012


@settings(max_examples=40, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.integers(0, 2**32))
def test_whatever_happens_everybody_hears_what_the_rules_say(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(250):
        world.step()
    world.settle(40)
    for place in world.places:
        place.say()
    world.settle(4)
    world.check()
    latest = [place.talkers[-1] for place in world.places]
    for talker in latest:
        here = {who for who, what in talker.heard if what == "here"}
        assert {other.id for other in latest} <= here


def talking(world: World, rounds: int = 5) -> None:
    for _ in range(rounds):
        for place in world.places:
            place.say()
        world.settle()


@pytest.fixture
def world() -> World:
    made = World(random.Random(1))
    talking(made)
    return made


def test_the_peers_of_a_silent_node_are_offline_after_six_ticks_and_only_once(
    world: World,
) -> None:
    first, _, third = world.places
    world.places.remove(third)
    world.gone.append(third)
    world.settle(9.5)
    assert ("p3", "offline") not in first.talker.heard
    world.settle(4)
    assert first.talker.heard.count(("p3", "offline")) == 1
    assert first.node.nodes == 2
    world.check()


def test_a_node_that_was_evicted_closes_its_connections_and_joins_again(world: World) -> None:
    first, second, third = world.places
    third.is_paused = True
    while ("p3", "offline") not in first.talker.heard:
        world.wait(0.5)
        for place in (first, second):
            world.append(place, is_good=True)
            place.read(100)
    was = third.talker
    world.settle(4)
    assert was.closed == CLOSED_BY_NODE
    assert Standing.FENCED in third.standings
    talking(world)
    assert third.talker is not was
    world.check()


def test_a_node_without_the_log_decides_alone_and_comes_back(world: World) -> None:
    first, second, third = world.places
    third.is_cut = True
    was = third.talker
    while third.node.standing is Standing.JOINED:
        world.wait(0.5)
        for place in (first, second):
            world.append(place, is_good=True)
            place.read(100)
        third.carry_out()
    assert third.node.standing is Standing.ISOLATED
    assert ("p1", "offline") in was.heard
    third.say()
    assert was.closed is None
    world.settle(4)
    assert was.closed == CLOSED_BY_NODE
    talking(world)
    world.check()


def test_a_node_that_says_goodbye_leaves_its_peers_a_moment(world: World) -> None:
    first, _, third = world.places
    third.node.goodbye()
    world.settle()
    assert third.node.has_left
    world.places.remove(third)
    world.gone.append(third)
    world.settle(8)
    assert ("p3", "offline") not in first.talker.heard
    world.settle(6)
    assert first.talker.heard.count(("p3", "offline")) == 1
    world.check()


def test_a_second_federation_on_an_old_log_begins_when_nobody_was_heard_for_long(
    world: World,
) -> None:
    world.gone += world.places
    world.places = []
    place = world.add()
    world.settle(5)
    assert place.standings == []
    world.settle(6)
    assert place.standings == [Standing.JOINED]
    assert place.node.nodes == 1
    other = world.add()
    world.settle()
    assert other.node.standing is Standing.JOINED
    talking(world)
    world.check()


def test_missing_entries_are_found_and_the_node_begins_anew(world: World) -> None:
    first, second, third = world.places
    for _ in range(3):
        first.say()
        world.append(first, is_good=True)
    del world.log.entries[:-1]  # the log keeps too little for whoever is behind
    was = third.talker
    third.read(100)
    assert was.closed == CLOSED_BY_NODE
    first.read(100)
    second.read(100)
    world.settle(16)
    talking(world)
    world.check()


def test_nobody_is_let_in_who_would_decide_otherwise(world: World) -> None:
    place = world.add()
    place.node._fingerprint = "other"
    place.node._joining._fingerprint = "other"
    place.node._joining._ask(world.now)
    world.settle(10)
    assert place.node.standing is Standing.JOINING
    assert place.node.refusal is not None
    assert "another version" in place.node.refusal
    assert world.places[0].node.nodes == 3


def test_two_nodes_that_have_decided_differently_notice_it(world: World) -> None:
    first, _, third = world.places
    replica = third.node.view.replica("m")
    peer = next(iter(replica.mesh.roster.peers.values()))
    replica.mesh.roster.set_presence(peer, peer.presence + b" ", 0.0)
    was = third.talker
    with pytest.raises(AssertionError, match="decided differently"):
        world.settle(5)
    assert was.closed == CLOSED_BY_NODE or any(p.node.faults for p in world.places)
    assert first.talker.closed is None


def test_so_much_waits_for_the_log_that_nothing_more_is_taken() -> None:
    world = World(random.Random(2), nodes=1)
    [place] = world.places
    assert place.talker.closed is None
    world.settle()
    long = {"type": "broadcast", "from": place.id, "data": {"n": 1, "more": "x" * 50_000}}
    for _ in range(200):
        place.hear(place.talker, long)
        if place.mesh.is_full:
            break
    assert place.mesh.is_full
    assert place.node.waiting_bytes < 5 * 2**20
    while place.node.is_waiting:
        world.settle()
    assert not place.mesh.is_full
