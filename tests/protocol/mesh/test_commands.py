"""The commands that whoever watches sees: what opens one, what belongs to it, and how it ends."""

from typing import Any

import pytest

from protocol.limits import Limits
from protocol.mesh.commands import COMMAND_BYTES, ENDED_MAX, ID_BYTES_MAX, Command, Outcome
from tests.worlds.mesh import World, text


class Mesh(World):
    """`ann` asks, `bob` answers."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.ann, self.bob = self.join("ann"), self.join("bob", "coder")

    def ask(self, turn: Any, to: str = "bob", **fields: Any) -> None:
        self.say(self.ann, text("direct", sender="ann", to=to, turnId=turn, **fields))

    def answer(self, type: str, turn: Any) -> None:
        self.say(self.bob, text(type, sender="coder", turnId=turn))

    @property
    def commands(self) -> dict[str, Command]:
        return {command.id: command for command in self.mesh.mesh.commands.all()}


def test_a_command_is_open_until_it_is_answered() -> None:
    world = Mesh()
    world.ask("t", to="coder")
    begun = world.commands["t"]
    assert (begun.asker, begun.to, begun.by, begun.type) == ("ann", "coder", None, "direct")
    assert (begun.chunks, begun.outcome) == (0, None)
    world.wait(2)
    world.answer("ack", "t")
    world.answer("stream", "t")
    world.answer("stream", "t")
    going = world.commands["t"]
    assert (going.by, going.chunks, going.outcome) == ("bob", 2, None)
    assert going.last_ms - going.began_ms == 2000
    world.answer("turn_end", "t")
    assert world.commands["t"].outcome is Outcome.ENDED
    world.answer("stream", "t")
    assert world.commands["t"].chunks == 2, "it has ended"


@pytest.mark.parametrize(
    ("type", "outcome"), [("turn_end", Outcome.ENDED), ("error", Outcome.FAILED)]
)
def test_how_an_answer_ends_a_command(type: str, outcome: Outcome) -> None:
    world = Mesh()
    world.ask("t")
    world.answer(type, "t")
    assert world.commands["t"].outcome is outcome


def test_only_its_asker_cancels_a_command() -> None:
    world = Mesh()
    world.ask("t")
    world.say(world.bob, text("cancel", sender="bob", to="ann", turnId="t"))
    assert world.commands["t"].outcome is None
    world.say(world.ann, text("cancel", sender="ann", to="bob", turnId="t"))
    assert world.commands["t"].outcome is Outcome.CANCELLED


def test_whoever_leaves_waits_for_nothing_and_others_wait_on() -> None:
    world = Mesh()
    world.ask("of ann")
    world.say(world.bob, text("direct", sender="bob", to="ann", turnId="of bob"))
    world.end(world.ann)
    assert world.commands["of ann"].outcome is Outcome.LEFT
    assert world.commands["of bob"].outcome is None


def test_a_name_that_no_peer_can_have_is_not_kept() -> None:
    world = Mesh()
    for length, kept in ((256, "x" * 256), (257, None), (100_000, None)):
        turn = f"t{length}"
        world.say(world.ann, text("broadcast", sender="ann", to="x" * length, turnId=turn))
        assert world.commands[turn].to == kept


def test_a_command_to_everyone_names_nobody() -> None:
    world = Mesh()
    world.say(world.ann, text("broadcast", sender="ann", turnId="t"))
    assert world.commands["t"].to is None


@pytest.mark.parametrize(
    ("asked", "answered", "id"),
    [
        ('"é"', r'"\u00e9"', "é"),
        ("17", "17", "17"),
        (r'"a\"b"', r'"a\u0022b"', 'a"b'),
    ],
)
def test_an_id_is_the_same_however_it_is_spelled(asked: str, answered: str, id: str) -> None:
    world = Mesh()
    world.say(world.ann, f'{{"type":"direct","from":"ann","to":"bob","turnId":{asked}}}'.encode())
    world.say(world.bob, f'{{"type":"turn_end","from":"bob","turnId":{answered}}}'.encode())
    assert world.commands[id].outcome is Outcome.ENDED


def test_what_has_the_id_of_an_open_command_belongs_to_it() -> None:
    world = Mesh()
    world.ask("t")
    world.wait(1)
    world.say(world.bob, text("direct", sender="bob", to="ann", turnId="t"))
    command = world.commands["t"]
    assert (command.asker, command.last_ms - command.began_ms) == ("ann", 1000)


def test_the_longest_id_is_followed() -> None:
    world = Mesh()
    world.ask("x" * (ID_BYTES_MAX - 2))  # and its quotes
    assert len(world.commands) == 1


@pytest.mark.parametrize("id", [None, True, [], {}, "x" * (ID_BYTES_MAX - 1)])
def test_what_is_no_id_or_too_long_is_not_followed(id: Any) -> None:
    world = Mesh()
    world.ask(id)
    assert not world.commands


def test_half_an_emoji_in_an_id_hurts_nobody() -> None:
    world = Mesh()
    world.say(world.ann, rb'{"type":"direct","from":"ann","to":"bob","turnId":"\ud83d"}')
    assert world.texts(world.bob)[-1].endswith(rb'"turnId":"\ud83d"}')


def test_beyond_the_bound_the_oldest_is_forgotten_and_the_bytes_are_counted() -> None:
    world = Mesh(Limits(open_commands_max=2))
    before = world.mesh.kept_bytes
    for turn in ("1", "2", "3"):
        world.ask(turn)
    assert set(world.commands) == {"2", "3"}
    assert world.mesh.kept_bytes == before + 2 * COMMAND_BYTES
    world.end(world.ann)  # the one that was forgotten is not missed
    assert {its.outcome for its in world.commands.values()} == {Outcome.LEFT}


def test_of_those_that_have_ended_only_the_latest_are_remembered() -> None:
    world = Mesh()
    for turn in range(ENDED_MAX + 2):
        world.ask(turn)
        world.answer("turn_end", turn)
    assert list(world.commands) == [str(turn) for turn in range(2, ENDED_MAX + 2)]


def test_an_id_that_is_used_again_is_a_new_command() -> None:
    world = Mesh()
    world.ask("t")
    world.answer("turn_end", "t")
    world.ask("t")
    assert [its.outcome for its in world.mesh.mesh.commands.all()] == [None]


def test_what_is_refused_opens_nothing() -> None:
    world = Mesh()
    world.ask("t", to="nobody here")
    assert not world.commands


def test_with_a_bound_of_nothing_nothing_is_followed() -> None:
    world = Mesh(Limits(open_commands_max=0))
    world.ask("t")
    world.answer("turn_end", "t")
    assert not world.commands
