"""Tests that the mutation check (tests/mutation.py) found missing: each notices one change."""

import pytest

from protocol.limits import Limits
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
