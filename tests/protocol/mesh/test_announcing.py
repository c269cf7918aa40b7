"""Announcements: nobody who makes few notices a bound, and who makes many ends up the same."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits
from tests.worlds.mesh import World, presence, text, world_of

A, B = 1, 2
FEW = Limits(announcements_per_s=0.5, announcements_burst=2)


def beat(*agents: Any, **fields: Any) -> bytes:
    return text("heartbeat", data={"agents": agents}, **fields)


def news(world: World, connection: int) -> list[list[Any]]:
    """The agents in the presences that the connection got."""
    return [message["data"]["agents"] for message in world.got(connection)]


def exhausted() -> World:
    """Peers a and b; a has just made as many announcements as it may at once."""
    world = world_of("a", "b", limits=FEW)
    world.say(A, presence("a", "one"), beat("two"))
    world.hush()
    return world


def test_ten_announcements_at_once_and_one_a_second_are_applied_at_once() -> None:
    world = world_of("a", "b")
    for n in range(10):
        world.say(A, presence("a", f"agent {n}"))
        assert news(world, B) == [[f"agent {n}"]]
    for n in range(5):
        world.wait(1.0)
        world.say(A, beat(f"later {n}"))
        assert news(world, B) == [[f"later {n}"]]


def test_a_long_announcement_counts_as_several() -> None:
    world = world_of("a", "b", limits=Limits(announcements_burst=4, announcement_bytes=1024))
    world.say(A, presence("a", "x", note="x" * 5000))  # as five, where four may be at once
    world.say(A, presence("a", "y"))
    assert news(world, B) == [["x"]]
    world.wait(1.75)
    assert news(world, B) == []
    world.wait(0.25)
    assert news(world, B) == [["y"]]
    world.say(A, presence("a", "z"))
    assert news(world, B) == []
    world.wait(1.0)
    assert news(world, B) == [["z"]]


def test_the_first_presence_of_a_connection_does_not_count() -> None:
    world = World(Limits(announcements_burst=1))
    a, b = world.join("a"), world.join("b")
    world.hush()
    world.say(a, presence("a", "x"))
    assert news(world, b) == [["x"]]


def test_a_heartbeat_that_says_what_was_accepted_does_not_count() -> None:
    world = world_of("a", "b", limits=FEW)
    for said in (presence("a", "x"), beat("y")):
        world.say(A, said, *[beat(*json.loads(said)["data"]["agents"])] * 20)
    world.wait(2.0)
    world.hush()
    world.say(A, beat("z"))
    assert news(world, B) == [["z"]]


def test_what_is_announced_after_a_held_one_does_not_overtake_it() -> None:
    world = exhausted()
    world.say(A, presence("a", "held", mood="new"))
    world.at += 2.5  # nobody has looked at the time
    world.say(A, beat("later"))
    assert world.got(B) == []
    world.wait(2.0)
    assert [message["data"] for message in world.got(B)] == [
        {"agents": ["held"], "mood": "new"},
        {"agents": ["later"], "mood": "new"},
    ]


def test_beyond_the_rate_the_last_one_is_announced_when_its_time_has_come() -> None:
    world = exhausted()
    world.say(A, presence("a", "three"), presence("a", "four", mood="new"), presence("a", "five"))
    assert world.got(A) == world.got(B) == []
    assert world.peers()["a"].agents == ("two",)
    world.wait(1.75)
    assert world.got(B) == []
    world.wait(0.25)
    assert world.texts(A) == world.texts(B) == [presence("a", "five")]
    world.say(A, beat("six"), beat("seven"))
    world.wait(10.0)
    assert news(world, B) == [["seven"]]
    world.say(A, beat("eight"))  # by now there is room again
    assert news(world, B) == [["eight"]]


def test_a_flood_of_announcements_is_a_trickle_for_everybody_else() -> None:
    world = world_of("a", "b")
    for n in range(1000):
        world.say(A, presence("a", f"agent {n}") if n % 3 else beat(f"other {n}"))
        world.wait(0.02)
    world.wait(10.0)
    assert 28 <= len(world.texts(B)) <= 32
    assert world.peers()["a"].agents == ("other 999",)


def test_after_a_held_presence_a_heartbeat_with_other_agents_comes_too() -> None:
    world = exhausted()
    world.say(A, beat("lost"), presence("a", "x", mood="new"), beat("y"), beat("z"))
    world.wait(2.0)
    assert world.texts(B) == [presence("a", "x", mood="new")]
    world.wait(2.0)
    (last,) = world.got(B)
    assert last["data"] == {"agents": ["z"], "mood": "new"}


def test_a_heartbeat_without_news_acts_at_once_and_brings_nothing_forward() -> None:
    world = exhausted()
    world.wait(1.0)
    world.say(A, beat("pending"))
    for _ in range(50):
        world.say(A, beat("pending"), text("heartbeat"))
    assert world.got(B) == []
    assert world.peers()["a"].agents == ("two",)
    world.wait(1.0)
    assert news(world, B) == [["pending"]]
    world.say(A, beat("pending"), presence("a", "x"))
    world.wait(25.0)
    world.hush()
    world.say(A, *[beat("x")] * 5)  # what the presence has said
    assert news(world, B) == [["x"]]  # the others are reminded of it


def test_a_heartbeat_that_says_what_is_held_takes_no_turn_of_its_own() -> None:
    world = exhausted()
    world.say(A, presence("a", "x"), beat("x"))
    world.wait(4.0)
    world.hush()
    world.say(A, beat("z"))
    assert news(world, B) == [["z"]]


def test_going_back_to_what_is_announced_now_is_news_too() -> None:
    world = exhausted()
    world.say(A, beat("x"), beat("two"))
    world.wait(5.0)
    assert world.got(B) == []
    assert world.peers()["a"].agents == ("two",)


def test_a_sign_of_life_counts_when_it_came_and_not_when_it_is_applied() -> None:
    slow = Limits(announcements_per_s=0.05, announcements_burst=1)
    world = world_of("a", "b", limits=slow)
    world.say(A, beat("x"), presence("a", "y"))
    for _ in range(29):
        world.wait(1.0)
        world.say(B, text("heartbeat"))
    assert world.peers()["a"].agents == ("y",)
    assert world.is_open(A)
    world.wait(1.0)
    assert not world.is_open(A)


def test_what_is_held_is_dropped_with_its_connection() -> None:
    world = exhausted()
    world.say(A, presence("a", "held"))
    world.end(A)
    world.hush()
    world.wait(5.0)
    assert world.got(B) == []
    assert set(world.peers()) == {"b"}


def test_what_is_held_counts_among_what_the_mesh_keeps() -> None:
    world = exhausted()
    before = world.mesh.kept_bytes
    held, beaten = presence("a", "held", mood="x" * 1000), beat("y" * 200)
    world.say(A, presence("a", "lost"), held, beaten)
    assert world.mesh.kept_bytes == before + len(held) + len(beaten)
    world.wait(10.0)
    kept = world.texts(B)[-1]
    assert world.mesh.kept_bytes == len(kept) + len(presence("b"))
    world.say(A, *[beat(f"agent {n}") for n in range(5)])
    world.end(A)
    assert world.mesh.kept_bytes == len(presence("b"))


def test_where_there_is_no_room_nothing_is_held() -> None:
    room = 10_000

    def admit(presence_bytes: int) -> Refusal | None:
        return None if presence_bytes <= room else Refusal(ErrorCode.NO_ROOM, "full")

    world = World(FEW, admit=admit)
    world.join("a")
    world.say(A, beat("one"), beat("two"))
    world.hush()
    room = 10
    world.say(A, beat("three"))
    assert world.errors(A) == ["no_room"]
    world.wait(10.0)
    assert world.peers()["a"].agents == ("two",)


def test_what_is_wrong_in_itself_is_refused_at_once_and_replaces_nothing() -> None:
    world = exhausted()
    world.say(A, presence("a", "held"))
    for wrong in (
        presence("b"),
        presence("a", "relay"),
        presence("a", 7),
        presence("a", "x" * 300),
        beat("relay"),
        presence("a", *map(str, range(300))),
        text("presence", sender="a", instanceId="b"),
        text("presence"),
    ):
        world.say(A, wrong)
    assert world.errors(A) == [
        *("identity_fixed", "spoofed", "bad_field", "too_long", "spoofed"),
        *("too_many_agents", "spoofed", "bad_field"),
    ]
    world.wait(2.0)
    assert news(world, B) == [["held"]]


def test_what_the_mesh_refuses_then_is_told_to_its_sender() -> None:
    world = world_of("a", "b", limits=Limits(announcements_burst=1, agents_max=2))
    tab = world.join("a", "x")
    world.say(A, beat("y"))
    world.hush()
    world.say(A, beat("y", "z", turnId="t"))
    assert world.got(A) == []
    world.wait(1.0)
    (error,) = world.got(A)
    assert (error["data"]["code"], error["turnId"]) == ("too_many_agents", "t")
    assert world.got(tab) == world.got(B) == []
    world.wait(1.0)
    world.say(A, beat("y"))  # as it is: no news
    assert world.got(A) == world.got(B) == []
    world.say(A, beat("z"))
    assert news(world, B) == [["z", "x"]]


some_agents = st.lists(st.sampled_from(["x", "y", {"id": "z", "n": 1}]), max_size=2)
announcements = st.one_of(
    st.builds(lambda agents, n: presence("a", *agents, n=n), some_agents, st.integers(0, 2)),
    st.builds(lambda agents: beat(*agents), some_agents),
    st.just(text("heartbeat")),
    st.just(text("presence", sender="a")),
)


@given(
    st.lists(
        st.tuples(announcements, st.sampled_from([A, 3]), st.sampled_from([0.0, 0.0, 0.5, 3.0])),
        max_size=20,
    )
)
@settings(deadline=None)
def test_in_the_end_a_mesh_is_what_it_would_be_without_the_bound(
    history: list[tuple[bytes, int, float]],
) -> None:
    def lived(limits: Limits) -> tuple[list[bytes], tuple[str, ...]]:
        world = world_of("a", "b", "a", limits=limits)
        for said, connection, seconds in history:
            world.say(connection, said)
            world.wait(seconds)
        world.wait(10.0)
        world.hush()
        stranger = world.join("s")
        return world.texts(stranger), world.peers()["a"].agents

    texts, agents = lived(FEW)
    bound_texts, bound_agents = lived(Limits(announcements_burst=1000))
    assert agents == bound_agents
    if len({connection for _, connection, _ in history}) > 1:
        return  # the latest presence of a peer is that of the tab which announced last
    assert {json.dumps(json.loads(t)) for t in texts} == {
        json.dumps(json.loads(t)) for t in bound_texts
    }
