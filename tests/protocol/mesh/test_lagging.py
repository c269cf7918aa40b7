"""Who is behind is spared the answers to others, and nothing else (rule 20)."""

import gc
import tracemalloc
from typing import Any

import pytest

from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.effects import Spared
from protocol.mesh.lagging import Backlog
from protocol.mesh.lifecycle import Cause
from protocol.mesh.turns import ANSWERS, TURN_BYTES, Turns, turn_of
from tests.worlds.mesh import World, text


def reader_of(world: World, *agents: str, peer: str = "reader") -> int:
    """A connection without arrays behind an edge."""
    return world.join(peer, *agents, is_paced=True)


def three(limits: Limits | None = None) -> tuple[World, int, int, int]:
    """A reader that is behind, an agent, and somebody who asks it."""
    world = World(limits)
    reader, agent, asker = reader_of(world, "r"), world.join("agent", "coder"), world.join("asker")
    world.fall_behind(reader)
    world.hush()
    return world, reader, agent, asker


def asks(turn: Any, to: str = "coder", **fields: Any) -> bytes:
    return text("direct", to=to, turnId=turn, data={"command": "go"}, **fields)


def heard(world: World, connection: int) -> list[Any]:
    """What it got: types with their turns, or codes of the relay's errors."""
    return [
        got["data"]["code"] if got["from"] == "relay" else (got["type"], got.get("turnId"))
        for got in world.got(connection)
    ]


# What is left out, and what is not ----------------------------------------------------------------


@pytest.mark.parametrize("type", sorted(ANSWERS))
def test_who_is_behind_is_not_sent_an_answer_to_another_and_is_told_once(type: str) -> None:
    world, reader, agent, asker = three()
    world.say(asker, asks("t"))
    world.say(agent, *[text(type, sender="coder", turnId="t")] * 3)
    assert heard(world, reader) == ["lagging"]
    assert heard(world, asker) == [(type, "t")] * 3
    assert world.mesh.totals.spared == 3


def test_the_notice_says_why_and_what_helps_and_ends_no_turn() -> None:
    world, reader, agent, _ = three(Limits(frames_per_s=120.0))
    world.say(agent, text("stream", turnId="t"))
    (notice,) = world.got(reader)
    assert notice["type"] == "error"
    assert notice["to"] == "reader"
    assert "turnId" not in notice
    assert "120 frames" in notice["data"]["error"]
    assert '["batch"]' in notice["data"]["error"]


def test_it_gets_the_answers_to_turns_that_its_own_peer_has_begun() -> None:
    world, reader, agent, _ = three()
    other_tab = world.join("reader")
    world.hush()
    world.say(reader, asks("mine"), text("broadcast", turnId=7, data={"command": "go"}))
    world.say(other_tab, text("invoke", turnId="other tab"))
    turns = ["mine", 7, "other tab"]
    world.say(agent, *(text("stream", turnId=turn) for turn in turns))
    assert heard(world, reader) == [("stream", turn) for turn in turns]


def test_a_turn_begun_before_it_fell_behind_is_its_own_too() -> None:
    world = World()
    reader, agent = reader_of(world), world.join("agent", "coder")
    world.say(reader, asks("mine"))
    world.fall_behind(reader)
    world.hush()
    world.say(agent, text("turn_end", turnId="mine"))
    assert heard(world, reader) == [("turn_end", "mine")]


def test_an_answer_that_it_gives_itself_does_not_make_the_turn_its_own() -> None:
    world, reader, agent, asker = three()
    world.say(asker, text("broadcast", turnId="all", data={"command": "go"}))
    assert heard(world, reader) == [("broadcast", "all")]
    world.say(reader, text("ack", sender="r", turnId="all"))
    world.say(agent, text("stream", turnId="all"))
    assert heard(world, reader) == ["lagging"]


def test_what_was_refused_has_begun_nothing() -> None:
    world, reader, agent, _ = three()
    world.say(reader, asks("t", to="nobody"), text("broadcast", sender="agent", turnId="t"))
    assert heard(world, reader) == ["unknown_target", "spoofed"]
    world.say(agent, text("stream", turnId="t"))
    assert heard(world, reader) == ["lagging"]


@pytest.mark.parametrize(
    "address",
    [
        {"to": "reader"},
        {"to": "r"},
        {"targetInstanceId": "reader"},
        {"to": "x", "targetInstanceId": "reader"},
    ],
)
def test_an_answer_that_names_it_or_its_agent_comes(address: dict[str, str]) -> None:
    world, reader, agent, _ = three()
    world.say(agent, text("stream", turnId="t", **address))
    assert heard(world, reader) == [("stream", "t")]


@pytest.mark.parametrize("address", [{"to": "asker"}, {"to": "coder"}, {"to": "*"}, {"to": ""}])
def test_an_answer_that_names_anybody_else_does_not(address: dict[str, str]) -> None:
    world, reader, agent, _ = three()
    world.say(agent, text("stream", turnId="t", **address))
    assert heard(world, reader) == ["lagging"]


def test_everything_else_comes_in_its_order() -> None:
    world, reader, agent, asker = three()
    world.say(asker, text("presence", sender="asker"))
    world.say(
        agent,
        text("stream", turnId="t"),
        text("broadcast", turnId="t"),
        text("direct", to="reader", turnId="t"),
        text("ring-update", turnId="t"),
        text("stream"),
        text("error", turnId=None),
        text("stream", turnId={"no": "turn"}),
        text("stream", turnId=True),
        text("stream", turnId="t"),
    )
    world.end(asker)
    assert heard(world, reader) == [
        ("presence", None),
        "lagging",
        ("broadcast", "t"),
        ("direct", "t"),
        ("ring-update", "t"),
        ("stream", None),
        ("error", None),
        ("stream", {"no": "turn"}),
        ("stream", True),
        ("presence", None),
    ]


def test_the_reader_itself_may_answer_and_the_others_get_it() -> None:
    world, reader, agent, _ = three()
    world.say(reader, text("stream", turnId="t"))
    assert heard(world, agent) == [("stream", "t")]
    assert heard(world, reader) == []
    assert world.mesh.totals.spared == 0


# Who is spared ------------------------------------------------------------------------------------


def test_whoever_is_not_behind_gets_everything() -> None:
    world, _, agent, asker = three()
    other = reader_of(world, peer="other")
    world.hush()
    world.say(agent, text("stream", turnId="t"))
    assert heard(world, other) == heard(world, asker) == [("stream", "t")]


def test_a_tab_is_behind_for_itself_alone() -> None:
    world, reader, agent, _ = three()
    tab = reader_of(world)
    world.hush()
    world.say(agent, text("stream", turnId="t"))
    assert heard(world, tab) == [("stream", "t")]
    assert heard(world, reader) == ["lagging"]


def test_who_takes_arrays_or_is_not_paced_is_never_spared() -> None:
    world = World()
    agent = world.join("agent")
    arrays, plain = world.join("a", is_paced=True, accept=["batch"]), world.join("b")
    world.fall_behind(arrays, plain, 99)
    world.hush()
    world.say(agent, text("stream", turnId="t"))
    assert heard(world, arrays) == heard(world, plain) == [("stream", "t")]
    assert world.mesh.mesh.audiences.laggards.turns.bytes == 0


def test_who_may_not_watch_misses_nothing() -> None:
    world = World()
    agent = world.join("agent")
    blind = world.join("blind", is_paced=True, grant=Grant(may_watch=False))
    world.fall_behind(blind)
    world.hush()
    world.say(agent, text("stream", turnId="t"))
    assert heard(world, blind) == []
    assert world.mesh.totals.spared == 0


def test_who_has_caught_up_gets_everything() -> None:
    world, reader, agent, _ = three(Limits(lag_told_every_s=0.0))
    said = text("stream", turnId="t")
    world.say(agent, said)
    world.catch_up(reader)
    world.say(agent, said)
    world.catch_up(reader)
    world.fall_behind(reader)
    world.fall_behind(reader)
    world.say(agent, said)
    assert heard(world, reader) == ["lagging", ("stream", "t"), "lagging"]


def test_it_is_told_now_and_then_however_often_it_falls_behind() -> None:
    world, reader, agent, _ = three(Limits(lag_told_every_s=60.0))
    told = []
    for second in range(125):
        world.fall_behind(reader)
        world.say(agent, text("stream", turnId="t"))
        told += [second for got in heard(world, reader) if got == "lagging"]
        world.catch_up(reader)
        world.say(agent, text("heartbeat"))
        world.say(reader, text("heartbeat"))
        world.wait(1.0)
    assert told == [0, 60, 120]


# What it costs, and what is logged ----------------------------------------------------------------


def test_only_the_latest_turns_are_remembered_and_they_count_until_the_peer_leaves() -> None:
    world, reader, agent, _ = three(Limits(begun_turns_max=2, open_commands_max=0))
    standing = world.mesh.kept_bytes
    world.say(reader, *(asks(turn) for turn in (1, 2, 1, 3)))
    assert world.mesh.kept_bytes == standing + 2 * TURN_BYTES
    world.say(agent, *(text("stream", turnId=turn) for turn in (1, 2, 3)))
    assert heard(world, reader) == [("stream", 1), "lagging", ("stream", 3)]
    tab = world.join("reader")
    world.end(reader)
    assert world.mesh.mesh.audiences.laggards.turns.bytes == 2 * TURN_BYTES
    world.end(tab)
    assert world.mesh.mesh.audiences.laggards.turns.bytes == 0


def test_turns_of_peers_that_cannot_be_spared_are_not_remembered() -> None:
    world, _, _, asker = three()
    world.say(asker, asks("t"), text("broadcast", turnId="u"))
    assert world.mesh.mesh.audiences.laggards.turns.bytes == 0


def test_a_turn_costs_what_it_counts_for() -> None:
    turns = Turns(Limits(begun_turns_max=1000))
    turns.follow("reader")
    keys = [turn_of(text("direct", turnId=f"turn {n}")) for n in range(1000)]
    gc.collect()
    tracemalloc.start()
    for key in keys:
        assert key is not None
        turns.begin("reader", key)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    keys_bytes = 1000 * (16 + 33)  # made before that
    assert 0.3 * turns.bytes <= grown + keys_bytes <= turns.bytes


def counts(world: World) -> list[int]:
    return [note.count for note in world.notes if isinstance(note, Spared)]


def test_what_was_spared_is_noted_now_and_then_and_at_the_end() -> None:
    world, reader, agent, _ = three(Limits(refusal_log_every_s=10.0, reap_after_s=100.0))
    said = text("stream", turnId="t")
    world.say(agent, said, said)
    world.wait(9.75)
    world.say(agent, said)
    assert counts(world) == [1]
    world.wait(0.25)
    world.say(agent, said)
    assert counts(world) == [1, 3]
    world.say(agent, said)
    world.catch_up(reader)
    world.fall_behind(reader)
    world.say(agent, said)
    assert counts(world) == [1, 3]
    world.wait(10.0)
    world.catch_up(reader)
    assert counts(world) == [1, 3, 2]
    world.fall_behind(reader)
    world.say(agent, said)
    world.end(reader, Cause.EVICTED)
    assert counts(world) == [1, 3, 2, 1]
    assert world.mesh.totals.spared == 7


def test_whoever_was_spared_nothing_is_not_noted() -> None:
    world, reader, agent, _ = three()
    world.catch_up(reader)
    world.say(agent, text("stream", turnId="t"))
    world.end(reader)
    assert counts(world) == []


def test_many_that_are_behind_count_as_work() -> None:
    def work(readers: int) -> int:
        world = World()
        agent = world.join("agent")
        world.fall_behind(*(reader_of(world, peer=f"r{n}") for n in range(readers)))
        world.say(agent, text("stream", turnId="told"))
        world.mesh.work.take()
        world.say(agent, text("stream", turnId="t"))
        return world.mesh.work.take()

    assert work(1) == 0
    assert 10 <= work(80) <= 20


def test_after_the_end_of_all_nothing_is_kept() -> None:
    world, reader, _, _ = three()
    world.say(reader, asks("t"))
    world.shut_down()
    laggards = world.mesh.mesh.audiences.laggards
    assert not laggards.paced
    assert not laggards.turns.bytes


def test_with_a_claim_taken_over_the_old_connection_is_forgotten() -> None:
    world = World()
    claim = {"claim": "0123456789abcdef", "takeover": True}
    agent = world.join("agent")
    old = world.join("reader", is_paced=True, claim=claim)
    world.fall_behind(old)
    world.join("reader", is_paced=True, claim=claim)
    world.hush()
    world.say(agent, text("stream", turnId="t"))
    assert world.mesh.totals.spared == 0
    assert len(world.mesh.mesh.audiences.laggards.paced) == 1


# Turns, and who is behind -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (b'"a"', b'"\\u0061"', True),
        ('"größer 😀"'.encode(), b'"gr\\u00f6\\u00dfer \\ud83d\\ude00"', True),
        (b'"a"', b'"b"', False),
        (b"7", b"7", True),
        (b"7", b'"7"', False),
        (b"7", b"7.0", False),
        (b'"half \\ud83d"', b'"half \\ud83d"', True),
    ],
)
def test_when_two_turns_are_the_same(one: bytes, other: bytes, is_same: bool) -> None:
    first, second = (turn_of(b'{"type":"ack","turnId":' + id + b"}") for id in (one, other))
    assert first is not None
    assert second is not None
    assert (first == second) is is_same


@pytest.mark.parametrize("id", [b"null", b"true", b"false", b"[1]", b'{"a":1}'])
def test_what_is_neither_text_nor_number_names_no_turn(id: bytes) -> None:
    assert turn_of(b'{"type":"ack","turnId":' + id + b"}") is None
    assert turn_of(b'{"type":"ack"}') is None


def test_a_backlog_is_too_long_from_one_bound_on_and_until_half_of_it() -> None:
    backlog = Backlog(Limits(lag_s=2.0))
    seen = [(s, backlog.changes(s), backlog.is_lagging) for s in (1.75, 2.0, 9.0, 1.0, 0.75, 1.5)]
    assert seen == [
        (1.75, False, False),
        (2.0, True, True),
        (9.0, False, True),
        (1.0, False, True),
        (0.75, True, False),
        (1.5, False, False),
    ]
