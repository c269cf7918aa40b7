"""Grants (rule 17): a connection does what its grant covers, for as long as it lasts."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import CLOSE_CODES, PeerJoined
from protocol.mesh.lifecycle import Cause
from tests.worlds.mesh import WALL_MS, Message, World, presence, text

ANN = Grant(peer="ann", agents=("coder", "test-*"))


def world_with(grant: Grant, peer: str = "ann", *agents: Any) -> tuple[World, int, int]:
    """A world in which `bob` watches, `peer` has this grant, and nobody has news."""
    world = World()
    bob = world.join("bob", "helper")
    connection = world.join(peer, *agents, grant=grant)
    world.hush()
    return world, connection, bob


def ends_in(world: World, seconds: float, **more: Any) -> Grant:
    return Grant(ends_at_ms=world.now.wall_ms + round(seconds * 1000), **more)


# Who it may be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["ann", "ann/laptop", "ann/a/b"])
def test_17_it_may_be_its_peer_and_what_is_below(id: str) -> None:
    world, connection, _ = world_with(ANN, id)
    assert world.mesh.peer_of(connection) == id


@pytest.mark.parametrize("id", ["bob", "anna", "ANN", "ann\u0000", "nn", " ann", "a", "bob/ann"])
def test_17_it_may_be_nobody_else(id: str) -> None:
    world = World()
    bob = world.join("bob")
    connection = world.open(grant=ANN)
    world.hush()
    world.say(connection, presence(id))
    assert world.errors(connection) == ["not_granted"]
    assert world.is_open(connection)
    assert world.got(bob) == []
    world.say(connection, presence("ann"))
    assert world.mesh.peer_of(connection) == "ann"


def test_17_a_presence_needs_its_own_name_also_as_an_instance() -> None:
    world = World()
    connection = world.open(grant=ANN)
    world.say(connection, text("presence", sender="ann", instanceId="bob"), text("presence"))
    assert world.errors(connection) == ["spoofed", "bad_field"]


# Its agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "agent", ["planner", {"id": "planner"}, {"color": "#000"}, "test", "Coder"]
)
@pytest.mark.parametrize("type", ["presence", "heartbeat"])
def test_17_agents_beyond_the_grant_are_announced_by_no_way(type: str, agent: Any) -> None:
    world, connection, bob = world_with(ANN, "ann", "coder")
    world.say(connection, text(type, sender="ann", data={"agents": ["coder", agent]}))
    assert world.errors(connection) == ["not_granted"]
    assert world.got(bob) == []
    assert world.peers()["ann"].agents == ("coder",)


def test_17_agents_of_the_grant_are_announced() -> None:
    world, connection, bob = world_with(ANN)
    world.say(connection, presence("ann", "coder", {"name": "test-7"}))
    world.say(connection, text("heartbeat", data={"agents": ["test-8"]}))
    assert [m["data"]["agents"] for m in world.got(bob)] == [
        ["coder", {"name": "test-7"}],
        ["test-8"],
    ]


@pytest.mark.parametrize("type", ["broadcast", "direct", "stream", "ack", "error", "ring-update"])
def test_17_it_speaks_only_for_agents_that_it_may_have(type: str) -> None:
    world, connection, bob = world_with(ANN)
    fields = {"to": "bob", "turnId": "t"}
    wrong = [
        text(type, sender="planner", **fields),
        text(type, sender="planner", instanceId="ann", **fields),
        text(type, sender="bob", **fields),
        text(type, sender="helper", **fields),
        text(type, sender="ann/laptop", **fields),
    ]
    world.say(connection, *wrong)
    world.say(connection, b"[" + b",".join(wrong) + b"]")
    got = world.got(connection)
    assert [m["data"]["code"] for m in got] == ["not_granted"] * 10
    assert {m["turnId"] for m in got} == {"t"}
    assert world.got(bob) == []
    right = [
        text(type, **fields),
        text(type, sender="ann", **fields),
        text(type, sender="coder", **fields),
        text(type, sender="test-1", instanceId="ann", **fields),
    ]
    world.say(connection, *right)
    assert world.got(connection) == []
    assert [m.get("instanceId", m["from"]) for m in world.got(bob)] == ["ann"] * 4


def test_17_a_long_name_is_not_repeated_to_whoever_sends_it() -> None:
    world, connection, _ = world_with(ANN)
    world.say(connection, text("broadcast", sender="é" * 10_000))
    (error,) = world.texts(connection)
    assert b'"too_long"' in error
    assert len(error) < 500


def test_17_the_origin_is_made_true_as_ever() -> None:
    world, connection, _ = world_with(Grant(peer="ann"))
    world.say(
        connection,
        text("broadcast", sender="bob"),
        text("broadcast", sender="ann", instanceId="bob"),
        text("broadcast", sender="relay"),
    )
    assert world.errors(connection) == ["spoofed"] * 3


# Sending and watching -----------------------------------------------------------------------------


def test_17_who_may_not_send_is_here_and_says_nothing() -> None:
    world, connection, bob = world_with(Grant(may_send=False))
    world.say(
        connection,
        text("broadcast", sender="ann"),
        text("direct", sender="ann", to="bob"),
        text("odd", sender="ann"),
        text("direct", sender="ann", to="nobody"),  # not even whether somebody is here
    )
    assert world.errors(connection) == ["not_granted"] * 4
    assert world.got(bob) == []
    world.say(connection, text("heartbeat"), text("capabilities"), text("relay-log"))
    assert [m["type"] for m in world.got(connection)] == ["capabilities_response"]
    world.say(bob, text("broadcast", sender="bob"), text("direct", sender="bob", to="ann"))
    assert len(world.got(connection)) == 2


def test_17_who_may_not_send_and_is_not_here_hears_that_first() -> None:
    world = World()
    connection = world.open(grant=Grant(may_send=False))
    world.say(connection, text("broadcast", sender="ann"))
    assert world.errors(connection) == ["not_present"]


def test_17_who_may_not_watch_gets_what_is_for_it_alone() -> None:
    world = World()
    bob = world.join("bob", "helper")
    connection = world.open(grant=Grant(may_watch=False))
    world.say(connection, presence("ann"))
    (own,) = world.got(connection)  # no roster
    assert (own["type"], own["from"]) == ("presence", "ann")
    assert [m["from"] for m in world.got(bob)][-1] == "ann"
    late = world.join("cid")
    world.say(bob, text("broadcast", sender="bob"), presence("bob", "h"), text("odd", sender="bob"))
    world.end(late)
    assert world.got(connection) == []
    world.say(bob, text("direct", sender="bob", to="ann"))
    world.say(connection, text("capabilities"), text("direct", sender="ann", to="nobody"))
    types = [m["type"] for m in world.got(connection)]
    assert types == ["direct", "capabilities_response", "error"]
    world.say(connection, presence("ann", "x"))
    assert [m["data"]["agents"] for m in world.got(connection)] == [["x"]]
    world.hush()
    world.say(connection, text("broadcast", sender="ann"))
    assert [m["type"] for m in world.got(bob)] == ["broadcast"]
    world.end(connection)
    assert [m["data"].get("status") for m in world.got(bob)] == ["offline"]


def test_17_of_two_tabs_the_one_that_may_watch_does() -> None:
    world = World()
    bob = world.join("bob")
    blind = world.join("ann", "h", grant=Grant(may_watch=False))
    seeing = world.join("ann", "k")
    world.hush()
    world.say(seeing, presence("ann", "l"))
    assert [m["data"]["agents"] for m in world.got(blind)] == [["h", "l"]]  # its own peer it sees
    assert [m["data"]["agents"] for m in world.got(seeing)] == [["h", "l"]]
    world.say(blind, presence("ann", "h"))
    assert len(world.got(blind)) == len(world.got(seeing)) == 1
    world.hush()
    world.say(bob, text("direct", sender="bob", to="ann"), text("stream", sender="bob"))
    assert [m["type"] for m in world.got(blind)] == ["direct"]
    assert [m["type"] for m in world.got(seeing)] == ["direct", "stream"]


# Its end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_present", [True, False])
def test_17_after_the_end_and_a_grace_it_is_told_and_closed(is_present: bool) -> None:
    world = World(Limits(announce_within_s=100))
    bob = world.join("bob")
    connection = world.open(grant=ends_in(world, 20.0))
    if is_present:
        world.say(connection, presence("ann"))
    world.wait(14)
    for c in (bob, connection):
        world.say(c, text("heartbeat" if c == bob or is_present else "capabilities"))
    world.wait(10.9)
    world.hush()
    assert world.is_open(connection)
    world.wait(0.2)
    (error,) = world.got(connection)
    assert (error["type"], error["data"]["code"]) == ("error", "expired")
    dismissed = world.dismissed[connection]
    assert (dismissed.cause, dismissed.code) == (Cause.EXPIRED, CLOSE_CODES[Cause.EXPIRED])
    assert dismissed.code == 1008
    told = [(m["data"]["status"], m["data"]["reason"]) for m in world.got(bob)]
    assert told == ([("offline", "expired")] if is_present else [])


def test_17_within_the_grace_it_may_do_everything() -> None:
    world = World()
    bob = world.join("bob")
    connection = world.join("ann", grant=ends_in(world, 1.0))
    world.wait(5.9)
    world.hush()
    world.say(connection, text("stream", sender="ann"), presence("ann", "h"))
    assert len(world.got(bob)) == 2


def test_17_a_renewal_overlaps_and_nobody_hears_of_the_end() -> None:
    world = World()
    bob = world.join("bob")
    old = world.join("ann", grant=ends_in(world, 10.0, peer="ann"), claim={"claim": "x" * 16})
    new = world.join("ann", grant=ends_in(world, 60.0, peer="ann"), claim={"claim": "x" * 16})
    world.hush()
    world.say(new, text("heartbeat"))
    world.wait(16)
    assert (world.is_open(old), world.is_open(new)) == (False, True)
    assert world.got(bob) == []


def test_17_a_grant_that_has_ended_at_the_opening_ends_the_connection_at_the_first_look() -> None:
    world = World()
    connection = world.open(grant=ends_in(world, -3600.0))
    world.wait(0)
    assert not world.is_open(connection)


def test_17_what_it_says_when_its_time_is_up_is_not_heard_not_even_in_the_same_round() -> None:
    world = World(Limits(grant_grace_s=0.0))
    bob = world.join("bob")
    connection = world.join("ann", grant=ends_in(world, 10.0))
    world.hush()
    world.at += 10.0  # nobody has looked at deadlines yet
    world.say(connection, text("stream", sender="ann"))
    assert world.errors(connection) == ["expired"]
    assert [m["data"]["reason"] for m in world.got(bob)] == ["expired"]
    world.mesh.received(connection, [text("stream", sender="ann")], world.now)
    world._carry_out()
    assert world.got(bob) == []


def test_17_what_was_announced_too_soon_is_not_announced_after_the_end() -> None:
    limits = Limits(announcements_per_s=0.05, announcements_burst=1, grant_grace_s=0.0)
    world = World(limits)
    bob = world.join("bob")
    connection = world.join("ann", grant=ends_in(world, 15.0))
    world.say(connection, presence("ann", "h"), presence("ann", "k"))
    world.hush()
    world.say(bob, text("heartbeat"))
    world.at += 20.0  # a paused process: both deadlines have passed
    world.mesh.heard(bob, world.now)
    world.mesh.expire(world.now)
    world._carry_out()
    assert [m["data"]["status"] for m in world.got(bob)] == ["offline"]


@pytest.mark.parametrize(("left_ms", "codes"), [(1, []), (0, ["expired"]), (-9e6, ["expired"])])
def test_17_a_clock_that_stood_still_does_not_prolong_a_grant(
    left_ms: float, codes: list[str]
) -> None:
    """The monotonic clock of a suspended machine stops. The other one tells how late it is."""
    world = World()
    bob = world.join("bob")
    connection = world.join("ann", grant=ends_in(world, 60.0))
    world.hush()
    late = Instant(world.at + 1.0, world.now.wall_ms + 65_000 - round(left_ms))
    world.mesh.received(connection, [text("stream", sender="ann")], late)
    world._carry_out()
    assert world.errors(connection) == codes
    assert [m["type"] for m in world.got(bob)] == (["presence"] if codes else ["stream"])


def test_17_a_clock_that_is_set_back_does_not_prolong_a_grant() -> None:
    world = World()
    connection = world.join("ann", grant=ends_in(world, 6.0))
    world.mesh.heard(connection, world.now)
    earlier = Instant(world.at + 11.0, world.now.wall_ms - 3_600_000)
    world.mesh.expire(earlier)
    world._carry_out()
    assert not world.is_open(connection)


# What it is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        (Grant(), None),
        (Grant(peer="ann"), {"peer": "ann"}),
        (Grant(ends_at_ms=WALL_MS + 1_090_999), {"expiresInSeconds": 90}),
        (Grant(peer="ann", ends_at_ms=0), {"peer": "ann", "expiresInSeconds": 0}),
    ],
)
def test_17_capabilities_tell_the_grant(grant: Grant, told: Message | None) -> None:
    world = World()
    connection = world.open(grant=grant) if told is not None else world.open()
    world.mesh.gate.connections[connection].ends_at = math.inf  # it may ask, however late
    world.mesh.gate.connections[connection].ends_at_ms = math.inf
    world.say(connection, text("capabilities"))
    (answer,) = world.got(connection)
    assert answer["data"]["claim"] is True
    assert answer["data"].get("grant") == told


# Any grant, any message ---------------------------------------------------------------------------


@given(
    st.builds(
        Grant,
        peer=st.sampled_from([None, "ann"]),
        agents=st.sampled_from([None, (), ("coder",)]),
        may_send=st.booleans(),
        may_watch=st.booleans(),
    ),
    st.lists(
        st.builds(
            lambda kind, sender, instance, to, agents: text(
                kind,
                **{"from": sender, "instanceId": instance, "to": to, "data": {"agents": agents}},
            ),
            st.sampled_from(["presence", "heartbeat", "broadcast", "direct", "odd"]),
            st.sampled_from([None, "ann", "ann/x", "bob", "coder", "planner"]),
            st.sampled_from([None, "ann", "ann/x", "bob"]),
            st.sampled_from([None, "bob", "ann"]),
            st.lists(st.sampled_from(["coder", "planner", {"color": "red"}]), max_size=2),
        ),
        max_size=12,
    ),
)
@settings(deadline=None, max_examples=150)
def test_17_nothing_that_others_get_is_beyond_the_grant(grant: Grant, said: list[bytes]) -> None:
    world = World()
    bob = world.join("bob")
    connection = world.open(grant=grant)
    world.hush()
    world.say(connection, *said)
    for message in world.got(bob):
        origin = message.get("instanceId") or message["from"]
        assert grant.covers_peer(origin)
        if message["type"] == "presence":
            agents = message["data"]["agents"]
            assert all(isinstance(a, str) and grant.covers_agent(a) for a in agents) or (
                grant.agents is None
            )
        else:
            assert grant.may_send
            assert message["from"] == origin or grant.covers_agent(message["from"])
    assert world.is_open(connection)
    joined = [note.peer for note in world.notes if isinstance(note, PeerJoined)]
    assert all(grant.covers_peer(peer) for peer in joined if peer != "bob")
    if not grant.may_watch and world.mesh.peer_of(connection) != "bob":
        world.hush()
        world.say(bob, text("broadcast", sender="bob"), presence("bob", "h"))
        assert world.got(connection) == []
