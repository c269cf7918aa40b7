"""Tests that the mutation check (mutation.py) found missing: each notices one change."""

from collections.abc import Callable

import msgspec
import pytest

from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits
from protocol.mesh import texts
from protocol.mesh.effects import Refused
from tests.worlds.mesh import World, text, world_of

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
