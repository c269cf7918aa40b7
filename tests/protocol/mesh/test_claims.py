"""One id, one owner (rule 16): who knows the secret of an id may announce it, and nobody else."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.claims import Claim, same_owner
from protocol.limits import Limits
from protocol.mesh.effects import CLOSE_CODES, PeerJoined, PeerLeft
from protocol.mesh.lifecycle import Cause
from tests.worlds.mesh import World, presence, text

SECRET = "a secret of ann's"
OTHER = "a secret of bob's"


def claim(secret: Any = SECRET, **more: Any) -> bytes:
    return text("capabilities", turnId=1, data={"claim": secret, **more})


def guest(world: World, peer: str, *before: bytes) -> int:
    """A new connection that says `before` and then announces `peer`, accepted or not."""
    connection = world.open()
    world.say(connection, *before, presence(peer))
    return connection


def is_in(world: World, connection: int) -> bool:
    return connection in world.admitted


def test_16_while_the_owner_is_here_nobody_else_can_have_its_id() -> None:
    world = World()
    world.join("ann", claim={"claim": SECRET})
    watcher = world.join("bob")
    world.hush()
    for before in ((), (claim(OTHER),), (claim(OTHER, takeover=True),)):
        stranger = guest(world, "ann", *before)
        assert not is_in(world, stranger)
        assert [m["data"]["code"] for m in world.got(stranger) if m["type"] == "error"] == [
            "id_taken"
        ]
        assert world.is_open(stranger)
        world.say(watcher, text("direct", sender="bob", to="ann"))
        assert world.got(stranger) == []
    assert world.got(watcher) == []  # nobody heard of it


def test_16_tabs_that_know_the_secret_share_the_id() -> None:
    world = World()
    one = world.join("ann", "h", claim={"claim": SECRET})
    two = world.join("ann", "k", claim={"claim": SECRET})
    world.end(one)
    assert not is_in(world, guest(world, "ann"))  # the claim is the id's, not the connection's
    world.end(two)
    assert is_in(world, guest(world, "ann"))


def test_16_an_id_without_an_owner_is_for_all_without_claims_as_ever_and_for_no_claim() -> None:
    world = World()
    world.join("ann")
    assert is_in(world, guest(world, "ann"))
    late = guest(world, "ann", claim())
    assert [m["type"] for m in world.got(late)] == ["capabilities_response", "error"]
    world.end(1)
    world.end(2)
    world.say(late, presence("ann"))  # the same connection may try again
    assert is_in(world, late)
    assert not is_in(world, guest(world, "ann"))


@pytest.mark.parametrize("cause", [Cause.LEFT, Cause.CRASHED, Cause.EVICTED])
def test_16_the_claim_lapses_with_the_last_connection(cause: Cause) -> None:
    world = World()
    world.end(world.join("ann", claim={"claim": SECRET}), cause)
    new = world.join("ann", claim={"claim": OTHER})
    assert not is_in(world, guest(world, "ann", claim()))
    world.end(new)
    assert is_in(world, guest(world, "ann"))


def test_16_a_stale_owner_is_an_owner_and_a_reaped_one_is_none() -> None:
    limits = Limits()
    world = World(limits)
    world.join("ann", claim={"claim": SECRET})
    world.wait(limits.stale_after_s)
    stranger = guest(world, "ann")
    assert world.errors(stranger) == ["id_taken"]
    world.wait(limits.reap_after_s - limits.stale_after_s)
    world.say(stranger, presence("ann"))
    assert is_in(world, stranger)


# Taking over --------------------------------------------------------------------------------------


def test_16_a_takeover_ends_the_older_connections_and_the_peer_is_here_all_the_time() -> None:
    world = World()
    old = [world.join("ann", agent, claim={"claim": SECRET}) for agent in "hk"]
    watcher = world.join("bob")
    world.hush()
    new = world.join("ann", "l", claim={"claim": SECRET, "takeover": True})
    for connection in old:
        own, error = world.got(connection)
        assert own["type"] == "presence"
        assert error["data"]["code"] == "replaced"
        assert world.dismissed[connection].code == CLOSE_CODES[Cause.REPLACED] == 1008
    (told,) = world.got(watcher)
    assert (told["from"], told["data"]["agents"]) == ("ann", ["l"])
    assert world.peers()["ann"].agents == ("l",)
    assert [type(note) for note in world.notes if isinstance(note, PeerLeft)] == []
    world.hush()
    world.say(watcher, *(text("direct", sender="bob", to=to) for to in ("ann", "l", "h")))
    assert [m["to"] for m in world.got(new)] == ["ann", "l"]
    (lost,) = world.got(watcher)
    assert lost["data"]["code"] == "unknown_target"


def test_16_what_a_replaced_connection_still_says_is_not_heard() -> None:
    world = World()
    old = world.join("ann", claim={"claim": SECRET})
    watcher = world.join("bob")
    world.join("ann", claim={"claim": SECRET, "takeover": True})
    world.hush()
    world.mesh.received(old, [text("broadcast", sender="ann"), presence("ann", "h")], world.now)
    world.mesh.ended(old, Cause.LEFT, world.now)
    world._carry_out()
    assert world.got(watcher) == []
    assert "ann" in world.peers()


def test_16_a_takeover_of_a_stale_connection_needs_no_wait() -> None:
    world = World()
    old = world.join("ann", claim={"claim": SECRET})
    world.wait(world.limits.stale_after_s)
    new = world.join("ann", claim={"claim": SECRET, "takeover": True})
    assert (world.is_open(old), world.is_open(new)) == (False, True)
    world.wait(world.limits.reap_after_s - 1)
    assert "ann" in world.peers()


def test_16_a_takeover_counts_once_later_presences_and_other_tabs_end_nobody() -> None:
    world = World()
    one = world.join("ann", claim={"claim": SECRET, "takeover": True})
    two = world.join("ann", claim={"claim": SECRET})
    world.say(one, presence("ann", "h"))
    assert (world.is_open(one), world.is_open(two)) == (True, True)


def test_16_a_takeover_whose_presence_is_refused_ends_nobody_yet() -> None:
    world = World(Limits(agents_max=1))
    old = world.join("ann", claim={"claim": SECRET})
    new = world.open()
    world.say(new, claim(takeover=True), presence("ann", "h", "k"))
    assert world.is_open(old)
    world.say(new, presence("ann", "h"))
    assert not world.is_open(old)


def test_16_a_takeover_makes_room_for_itself() -> None:
    world = World(Limits(peer_connections_max=2, agents_max=1))
    for _ in range(2):
        world.join("ann", "h", claim={"claim": SECRET})
    new = world.join("ann", "k", claim={"claim": SECRET, "takeover": True})
    assert world.peers()["ann"].agents == ("k",)
    assert [c.connection for c in world.peers()["ann"].connections] == [new]


def test_16_a_storm_of_takeovers_between_two_leaves_one_and_hides_nobody() -> None:
    world = World()
    watcher = world.join("bob")
    world.hush()
    for _ in range(50):
        last = world.join("ann", claim={"claim": SECRET, "takeover": True})
    assert [m["data"].get("status") for m in world.got(watcher)] == [None] * 50
    assert [c.connection for c in world.peers()["ann"].connections] == [last]
    assert sum(isinstance(note, PeerJoined) for note in world.notes) == 2


# Bad claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"claim": "fifteen letters"},
        {"claim": "x" * 257},
        {"claim": ""},
        {"claim": 1e300},
        {"claim": [SECRET]},
        {"claim": SECRET + "\ud83d"},
        {"takeover": True},
        {"claim": SECRET, "takeover": 1},
        {"claim": SECRET, "takeover": "true"},
    ],
    ids=repr,
)
def test_16_a_bad_claim_is_refused_and_not_repeated(data: dict[str, Any]) -> None:
    world = World()
    connection = world.open()
    world.say(connection, text("capabilities", turnId=1, data=data))
    (error,) = world.got(connection)
    assert (error["data"]["code"], error["turnId"]) == ("bad_field", 1)
    assert SECRET not in str(error)
    world.say(connection, presence("ann"))
    assert is_in(world, guest(world, "ann"))  # it has claimed nothing


@pytest.mark.parametrize("length", [16, 256])
def test_16_a_secret_may_be_as_short_or_long_as_this(length: int) -> None:
    world = World()
    assert is_in(world, guest(world, "ann", claim("x" * length)))
    assert not is_in(world, guest(world, "ann"))


@pytest.mark.parametrize("data", [None, "claim", [], {}, {"claim": None}, {"takeover": False}])
def test_16_other_data_of_capabilities_is_no_claim(data: Any) -> None:
    world = World()
    connection = guest(world, "ann", text("capabilities", data=data))
    assert [m["type"] for m in world.got(connection)] == ["capabilities_response", "presence"]
    assert is_in(world, guest(world, "ann"))


def test_16_a_claim_after_the_presence_is_refused_and_changes_nothing() -> None:
    world = World()
    connection = world.join("ann")
    world.hush()
    world.say(connection, claim())
    assert world.errors(connection) == ["bad_field"]
    assert is_in(world, guest(world, "ann"))


def test_16_a_connection_claims_once_so_each_guess_costs_one() -> None:
    world = World()
    world.join("ann", claim={"claim": SECRET})
    thief = guest(world, "ann", claim(OTHER))
    world.hush()
    world.say(thief, claim(), presence("ann"))
    assert world.errors(thief) == ["bad_field", "id_taken"]
    world.say(thief, claim(OTHER), text("capabilities"))  # the same again is no other claim
    assert [m["type"] for m in world.got(thief)] == ["capabilities_response"] * 2


def test_16_the_same_secret_in_other_escapes_is_the_same() -> None:
    world = World()
    world.join("ann", claim={"claim": "größe 0123456789"})
    spelled = '{"type":"capabilities","data":{"cl\\u0061im":"größe 0123456789"}}'.encode()
    assert is_in(world, guest(world, "ann", spelled))


def test_16_a_claim_in_an_array_counts_like_any_other() -> None:
    world = World()
    world.join("ann", claim={"claim": SECRET})
    connection = world.open()
    world.say(connection, b"[" + claim() + b"," + presence("ann") + b"]")
    assert is_in(world, connection)


def test_16_nobody_sees_a_secret() -> None:
    world = World()
    connection = world.join("ann", claim={"claim": SECRET})
    watcher = world.join("bob")
    guest(world, "ann", claim(SECRET), claim(OTHER))
    seen = [*world.texts(connection), *world.texts(watcher), world.notes, world.peers()]
    roster, gate = world.mesh.mesh.roster, world.mesh.gate
    held = [*roster.peers.values(), *roster.connections.values(), *gate.connections.values()]
    digest = Claim.of(SECRET, takes_over=False).digest
    for shown in map(repr, [*seen, *held]):
        assert SECRET not in shown
        assert repr(digest) not in shown


def test_two_are_the_same_owner_if_they_know_the_same_or_claim_nothing() -> None:
    ann, bob = (Claim.of(secret, takes_over=False) for secret in (SECRET, OTHER))
    assert same_owner(ann, Claim.of(SECRET, takes_over=True))
    assert same_owner(None, None)
    assert not same_owner(ann, bob)
    assert not same_owner(ann, None)
    assert not same_owner(None, ann)


# In every order -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_16_in_a_random_life_an_id_has_one_owner_at_every_moment(seed: int) -> None:
    chance = random.Random(seed)
    world = World()
    secrets: dict[int, str | None] = {}  # of every connection, as its peer knows it
    for _ in range(120):
        if chance.random() < 0.5 or not secrets:
            secret = chance.choice([None, SECRET, OTHER])
            connection = world.open()
            secrets[connection] = secret
            if secret is not None:
                world.say(connection, claim(secret, takeover=chance.random() < 0.3))
        connection = chance.choice([*secrets])
        match chance.randrange(6):
            case 0:
                world.end(connection)
            case 1:
                world.wait(chance.choice([1.0, 16.0]))
            case _:
                world.say(connection, presence(chance.choice(["ann", "bob"])))
        secrets = {c: its for c, its in secrets.items() if world.is_open(c)}
        for peer in world.peers().values():
            assert len({secrets[c.connection] for c in peer.connections}) == 1
