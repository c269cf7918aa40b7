"""Everybody's network is gone at once, and comes back: nobody misses anything, and it costs the
relay neither a step nor a byte for each message that each of them has missed."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from actors.frames import Batch
from actors.relay.comebacks import Comebacks
from actors.relay.ledger import CONNECTION_BYTES, Ledger
from tests.actors.relay.test_comeback_attacks import question
from tests.actors.relay.test_comebacks import Client, World, numbers, text
from tests.actors.relay.test_cost import calls_of
from tests.actors.relay.test_peer import HandTransport


class FrameTransport(HandTransport):
    """Takes frames, as sockets do, and does not look into them. `takes_more`: or nothing more."""

    writes_frames = True

    def __init__(self, *, takes_more: bool = True) -> None:
        super().__init__()
        self.takes_more = takes_more
        self.bytes = 0

    def send(self, batch: Batch) -> bool:
        self.bytes += sum(len(part) for chunk in batch.chunks() for part in chunk)
        return self.takes_more


def history_of(world: World) -> Comebacks:
    return world.supervisor._comebacks


@pytest.mark.parametrize("is_noticed", [True, False])
def test_all_are_back_with_exactly_their_messages_while_others_talk(is_noticed: bool) -> None:
    world = World(messages_burst=10**6)
    a, b = Client(world, "a"), Client(world, "b")
    others = [Client(world, f"peer {n}") for n in range(300)]
    said = 0
    expected: dict[str, list[int]] = {other.id: [] for other in others}

    def talk(times: int) -> None:
        nonlocal said
        for _ in range(times):
            for talker in (a, b):
                talker.say("stream", n=said)
                for each in expected.values():
                    each.append(said)
                said += 1
            to = others[said % len(others)].id
            a.say("direct", to=to, n=said)
            expected[to].append(said)
            said += 1
            world.supervisor.round()

    talk(3)
    for number, other in enumerate(others):
        other.cut(999 if number % 3 else number % 5, is_noticed=False)
    if is_noticed:
        for other in others:
            other.actor.closed(1006)
    talk(50)
    asked = [question(other) for other in others]
    for other, message in zip(others, asked, strict=True):
        other.connect()
        other.actor.received([message])
    waiting = set(others)
    rounds = 0
    while waiting:
        before = len(waiting)
        talk(1)
        rounds += 1
        waiting = {other for other in waiting if not other.transport.sent}
        # No round is for all of them: sockets are read in between.
        assert before - len(waiting) <= 64
        assert rounds <= 300 // 32
    talk(2)
    for other in others:
        assert json.loads(other.transport.sent.pop(0))["data"]["resume"]["resumed"] is True
        other.read()
        for is_of_b in (True, False):  # each of them is heard in order
            got = [n for n in numbers(other) if (n % 3 == 1) is is_of_b]
            assert got == [n for n in expected[other.id] if (n % 3 == 1) is is_of_b]
    assert len(world.peers) == 302


def storm(peers: int, rounds: int, *, every: int = 0, **limits: Any) -> tuple[World, list[bytes]]:
    """So many peers are away while so many rounds are held. In each of `every` rounds one of them
    gets something of its own. With what each of them shows to come back."""
    world = World(messages_burst=10**6, **limits)
    a = Client(world, "a")
    others = [Client(world, f"peer {n}") for n in range(peers)]
    for other in others:
        other.cut(999, is_noticed=True)
    for n in range(rounds):
        a.say("stream", n=n, data="x" * 200)
        if every and n % every == 0:
            a.say("direct", to=others[n // every % peers].id)
        world.settle()
    return world, [question(other) for other in others]


def come_back(world: World, asked: Sequence[bytes], **how: bool) -> list[FrameTransport]:
    """All of them ask; nothing is decided yet."""
    transports = [FrameTransport(**how) for _ in asked]
    for message, transport in zip(asked, transports, strict=True):
        world.supervisor.open(transport).received([message])
    return transports


@pytest.mark.parametrize(("every", "calls_of_a_round"), [(0, 0.2), (7, 2.5)])
def test_to_come_back_costs_hardly_a_step_for_each_round_that_was_missed(
    every: int, calls_of_a_round: float
) -> None:
    def cost(peers: int, rounds: int) -> int:
        world, asked = storm(peers, rounds, every=every)
        transports = come_back(world, asked)
        calls = calls_of(world.settle)
        assert all(transport.bytes > 200 * rounds for transport in transports)
        return calls

    def for_each(rounds: int) -> float:
        return (cost(33, rounds) - cost(1, rounds)) / 32

    few, many = for_each(220), for_each(620)  # (the first group may have rounds of before the cut)
    # Only where receivers differ there are some, for each round in which one of them does.
    assert many - few < 400 * calls_of_a_round, (few, many)


def test_what_all_have_missed_is_held_once_while_none_of_them_reads() -> None:
    world, asked = storm(200, 300, every=10, history_bytes_max=2**20)
    ledger = world.supervisor._ledger
    held = ledger.held
    history = history_of(world).history
    kept = history.bytes
    transports = come_back(world, asked, takes_more=False)
    world.settle()
    missed = min(transport.bytes for transport in transports)
    assert missed > 300 * 200
    more = ledger.held - held
    assert more <= 2 * kept + 200 * 1000, (more, kept)  # not 200 times what each has missed
    assert history.bytes <= kept <= 2**20
    for actor in list(world.supervisor._actors.values()):
        if isinstance(actor._transport, FrameTransport):
            actor._transport.takes_more = True
            actor.writable()
    assert ledger.held <= held


def test_texts_that_wait_for_all_of_them_are_the_same_ones() -> None:
    world, asked = storm(30, 100)
    transports = []
    for message in asked:
        transport = HandTransport()  # as one behind an edge, which takes texts
        transport.takes_more = False
        world.supervisor.open(transport).received([message])
        transports.append(transport)
    world.settle()
    texts = [message for transport in transports for message in transport.sent[1:]]
    assert len(texts) == 30 * 100
    assert len({id(message) for message in texts}) == 100


def test_who_was_cut_where_others_were_not_has_missed_something_else() -> None:
    world = World(messages_burst=10**6)
    a = Client(world, "a")
    others = [Client(world, f"peer {n}") for n in range(50)]
    for n in range(50):
        others[n].cut(999, is_noticed=bool(n % 2))
        a.say("stream", n=n)
        if n % 10 == 9:
            a.say("direct", to="peer 3", n=100 + n)
        world.settle()
    for n in (*range(0, 50, 2), *range(49, 0, -2)):
        if n % 5 == 0:
            a.say("stream", n=1000 + n)
        assert others[n].come_back()["resumed"] is True
    world.settle()
    for n, other in enumerate(others):
        other.read()
        got = numbers(other)
        assert [m for m in got if m < 100] == [*range(50)]
        assert [m for m in got if 100 <= m < 1000] == ([109, 119, 129, 139, 149] if n == 3 else [])
        assert len([m for m in got if m >= 1000]) == 10


def test_in_a_full_lobby_nobody_is_displaced_who_has_asked_to_come_back() -> None:
    world, asked = storm(100, 3, unannounced_max=4, quantum_messages=1, round_messages_max=300)
    silent = FrameTransport()
    world.supervisor.open(silent)
    transports = come_back(world, asked)
    late = [FrameTransport() for _ in range(4)]
    for transport in late:
        world.supervisor.open(transport)
    world.settle()
    assert silent.closed_with == 1013
    assert [transport.closed_with for transport in (*transports, *late)] == [None] * 104
    assert len(world.peers) == 101


def test_nor_who_has_announced_itself_although_the_round_had_no_room_for_it() -> None:
    world = World(unannounced_max=2, quantum_messages=1, round_messages_max=1)
    transports = [HandTransport() for _ in range(10)]
    for n, transport in enumerate(transports):
        actor = world.supervisor.open(transport)
        if n not in (2, 5):
            actor.received([text("presence", **{"from": f"p{n}"})])
    world.settle()
    closed = [transport.closed_with for transport in transports]
    assert closed == [None, None, 1013, None, None, 1013, None, None, None, None]


def test_all_that_are_away_and_come_back_cost_two_connections_each_at_most() -> None:
    ledger = Ledger(2**23)
    world = World(ledger=ledger, unannounced_max=1, recall_messages_max=0)
    a = Client(world, "a")
    others = [Client(world, f"peer {n}") for n in range(120)]
    standing = ledger.standing
    for other in others:
        other.cut(999, is_noticed=True)
    assert ledger.standing == standing
    a.say("stream", n=1)
    world.settle()
    come_back(world, [question(other) for other in others])
    assert ledger.standing <= standing + 120 * CONNECTION_BYTES <= ledger.bytes_max // 2
    world.settle()
    assert ledger.standing == standing
    assert len(world.peers) == 121
    assert not history_of(world)._away
