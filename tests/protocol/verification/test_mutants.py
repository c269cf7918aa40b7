"""Tests that the mutation check (mutation.py) found missing: each notices one change."""

import json
from collections.abc import Callable

import msgspec
import pytest

from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits
from protocol.mesh import texts
from protocol.mesh.effects import Refused
from tests.worlds.mesh import World, presence, text, world_of

SCARCE = Limits(
    messages_per_s=2.0, messages_burst=2, rate_error_every_s=1.0, refusal_log_every_s=10.0
)


def flood(world: World) -> list[str]:
    """Connection 1 sends more than it may. The errors that it got."""
    world.say(1, *[text("stream", sender="a")] * 10)
    return world.errors(1)


@pytest.mark.parametrize(("after_s", "errors"), [(0.96875, []), (1.0, ["rate_limited"])])
def test_the_next_rate_limited_is_said_exactly_when_its_time_has_come(
    after_s: float, errors: list[str]
) -> None:
    world = world_of("a", limits=SCARCE)
    assert flood(world) == ["rate_limited"]
    world.wait(after_s)
    assert flood(world) == errors


@pytest.mark.parametrize(("after_s", "notes"), [(9.96875, []), (10.0, [2])])
def test_the_next_refusal_is_noted_exactly_when_its_time_has_come(
    after_s: float, notes: list[int]
) -> None:
    world = world_of("a", limits=SCARCE)
    world.say(1, b"{")
    world.wait(1.0)
    world.say(1, b"{")
    world.wait(after_s - 1.0)
    world.notes.clear()
    world.say(1, b"{")
    assert [note.count for note in world.notes if isinstance(note, Refused)] == notes


SMALL = Limits(message_bytes_max=2048, presence_bytes_max=1024)


def an_error(turn_id: bytes) -> bytes:
    refusal = Refusal(ErrorCode.MALFORMED, "No.")
    return texts.error(refusal, "me", msgspec.Raw(turn_id), 1234, SMALL)


def the_capabilities(turn_id: bytes) -> bytes:
    return texts.capabilities("me", msgspec.Raw(turn_id), ("ack",), SMALL, 1234)


@pytest.mark.parametrize("answer", [an_error, the_capabilities])
def test_a_turn_is_echoed_up_to_the_last_byte_that_a_message_may_have(
    answer: Callable[[bytes], bytes],
) -> None:
    room = SMALL.message_bytes_max - len(answer(b'""'))
    longest = b'"' + b"x" * room + b'"'
    assert len(answer(longest)) == SMALL.message_bytes_max
    assert longest in answer(longest)
    assert b"turnId" not in answer(b'"x' + longest[1:])


def test_a_connection_that_was_heard_is_alive_and_an_unknown_one_is_ignored() -> None:
    world = world_of("a", "b", limits=Limits(reap_after_s=30.0))
    world.wait(20.0)
    world.mesh.heard(1, world.now)
    world.mesh.heard(99, world.now)
    world.wait(20.0)
    assert world.is_open(1)
    assert not world.is_open(2)
    world.wait(10.0)
    assert not world.is_open(1)


@pytest.mark.parametrize(
    ("given", "added"),
    [({}, len(',"from":"a"')), ({"sender": "x"}, len(',"instanceId":"a"'))],
)
def test_a_message_with_its_origin_may_have_the_last_byte_too(
    given: dict[str, str], added: int
) -> None:
    world = world_of("a", "b", limits=SMALL)
    room = SMALL.message_bytes_max - added - len(text("ack", **given, data=""))
    world.say(1, text("ack", **given, data="x" * room))
    assert [len(got) for got in world.texts(2)] == [SMALL.message_bytes_max]
    world.say(1, text("ack", **given, data="x" * (room + 1)))
    assert world.errors(1) == ["too_large"]
    assert world.texts(2) == []


COLOR = "c" * 400


def what_is_left(hostname: str) -> list[object]:
    """The agents of a peer after one of its two tabs closed: the one that announced last.

    So the presence has the `hostname` of that tab, and the longer description of the other.
    """
    world = World(SMALL)
    first, watcher = world.join("a", "x"), world.join("b")
    world.join("a", {"id": "x", "color": COLOR})
    world.say(first, presence("a", "x", hostname=hostname))
    world.hush()
    world.end(first)
    (left,) = world.got(watcher)
    agents: list[object] = left["data"]["agents"]
    return agents


def test_what_is_left_of_a_peer_is_described_up_to_the_last_byte_of_a_presence() -> None:
    described = {"id": "x", "color": COLOR}
    agent = json.dumps(described)  # an agent stays as it was announced
    left = f'{{"type":"presence","from":"a","data":{{"agents":[{agent}],"hostname":""}}}}'
    longest = "h" * (SMALL.presence_bytes_max - len(left))
    assert what_is_left(longest) == [described]
    assert what_is_left(longest + "h") == ["x"]
