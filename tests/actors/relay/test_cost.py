"""What a round costs, in counts that do not depend on the machine: calls and writes, never seconds.

The figures are upper bounds with some air; what they guard is the shape. A change that makes the
fan-out cost something per delivery (messages times receivers) exceeds them many times over.
"""

import gc
import itertools
import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from protocol.mesh.presences import LEAF_PEERS
from tests.actors.relay.test_peer import HandTransport, World, say

RECEIVERS = 100


def calls_of(function: Any) -> int:
    """How many calls, of Python and of C functions, are made while this function runs."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.disable()  # a collection may call finalizers of whatever ran before
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def mesh(
    receivers: int, new_token: Callable[[], str] | None = None
) -> tuple[World, Any, list[HandTransport]]:
    world = World(new_token, messages_burst=10**6)
    sender, _ = world.join("sender")
    transports = [world.join(f"r{n}")[1] for n in range(receivers)]
    for transport in transports:
        transport.writes = 0
        transport.sent.clear()
    return world, sender, transports


def cost(messages: int, receivers: int, *, alike: bool = True, **origin: Any) -> int:
    """The calls of a round. `alike`: all messages have the same header. `origin`: what they say of
    it; the relay adds it if they do not."""
    world, sender, transports = mesh(receivers)
    if alike:
        say(sender, "stream", messages, **origin)
    else:
        for number in range(messages):
            say(sender, "ack" if number % 2 else "stream", **origin)
    calls = calls_of(world.supervisor.round)
    assert sum(transport.writes for transport in transports) == receivers
    assert all(len(transport.sent) == messages for transport in transports)
    return calls


@pytest.mark.parametrize(
    ("alike", "origin", "calls"),
    [
        (False, {}, 25),
        (True, {}, 10),
        (False, {"sender": "sender"}, 18),
        (True, {"sender": "sender"}, 5),
    ],
)
def test_a_round_costs_so_much_per_message_and_so_much_per_receiver_and_nothing_per_delivery(
    alike: bool, origin: dict[str, Any], calls: int
) -> None:
    base = cost(1, 1, alike=alike, **origin)
    per_message = (cost(33, 1, alike=alike, **origin) - base) / 32
    per_receiver = (cost(1, 33, alike=alike, **origin) - base) / 32
    assert per_message <= calls, per_message
    assert per_receiver <= 8, per_receiver
    together = cost(33, 33, alike=alike, **origin)
    assert together <= base + 32 * (per_message + per_receiver) * 1.05


def test_who_may_come_back_costs_a_round_little_and_a_message_and_a_receiver_nothing() -> None:
    def round_cost(messages: int, receivers: int, *, may_come_back: bool) -> int:
        numbers = itertools.count()
        world, sender, transports = mesh(receivers, new_token=lambda: f"token {next(numbers)}")
        if may_come_back:
            for actor in tuple(world.supervisor._actors.values()):
                say(actor, "capabilities", data={"resume": {"seconds": 20}})
        for _ in range(3):  # the first one, and what goes on with it
            say(sender, "stream", messages)
            calls = calls_of(world.supervisor.round)
        assert sum(transport.writes for transport in transports) >= receivers
        return calls

    for messages, receivers in ((1, 1), (33, 1), (1, 33), (33, 33)):
        without = round_cost(messages, receivers, may_come_back=False)
        more = round_cost(messages, receivers, may_come_back=True) - without
        assert 0 < more <= 12, (messages, receivers, more)


def test_a_direct_costs_a_bounded_number_of_calls() -> None:
    def directs(count: int) -> int:
        world = World()
        sender, _ = world.join("sender")
        _, transport = world.join("target")
        say(sender, "direct", count, to="target")
        calls = calls_of(world.supervisor.round)
        assert len(transport.sent) == count
        return calls

    per_message = (directs(33) - directs(1)) / 32
    assert per_message <= 28, per_message


def test_a_direct_of_one_peer_to_one_other_costs_a_bounded_number_of_calls() -> None:
    def pairs(count: int) -> int:
        world = World()
        senders = [world.join(f"sender-{n}")[0] for n in range(count)]
        transports = [world.join(f"target-{n}")[1] for n in range(count)]
        for transport in transports:
            transport.sent.clear()
        for number, sender in enumerate(senders):
            say(sender, "direct", to=f"target-{number}")
        calls = calls_of(world.supervisor.round)
        assert all(len(transport.sent) == 1 for transport in transports)
        return calls

    per_message = (pairs(33) - pairs(1)) / 32
    assert per_message <= 42, per_message


def test_the_roster_that_a_newcomer_gets_is_one_write() -> None:
    world, _, _ = mesh(RECEIVERS)
    transport = HandTransport()
    newcomer = world.supervisor.open(transport)
    say(newcomer, "presence", sender="newcomer")
    world.settle()
    assert transport.writes == 1
    assert len(transport.sent) == 1 + 1 + RECEIVERS
    assert json.loads(transport.sent[0])["from"] == "newcomer"


def test_a_newcomer_costs_little_for_each_of_those_who_are_here() -> None:
    def calls(here: int) -> int:
        world, _, _ = mesh(here)
        transport = HandTransport()
        for name in ("first", "second"):  # for the first one everything is framed
            say(world.supervisor.open(transport), "presence", sender=name)
            calls = calls_of(world.supervisor.round)
        return calls

    few, many = 2 * LEAF_PEERS, 10 * LEAF_PEERS
    per_peer = (calls(many) - calls(few)) / (many - few)
    assert per_peer <= 8 + 20 / LEAF_PEERS, per_peer  # 8: it hears of the newcomer, as of anything


def test_newcomers_that_do_not_read_share_what_they_wait_for() -> None:
    world, _, _ = mesh(10 * LEAF_PEERS)
    ledger = world.supervisor._ledger
    held: list[int] = []
    for n in range(20):
        transport = HandTransport()
        transport.takes_more = False
        say(world.supervisor.open(transport), "presence", sender=f"new {n}")
        world.settle()
        held.append(ledger.held - ledger.standing)
    assert held[0] > 10 * LEAF_PEERS * 40  # a presence has more bytes than that
    assert held[-1] < 2 * held[0]


@pytest.mark.parametrize("joiners", [2, 50])
def test_peers_that_join_in_one_round_cost_the_others_one_write_in_all(joiners: int) -> None:
    world, _, transports = mesh(10)
    for n in range(joiners):
        say(world.supervisor.open(HandTransport()), "presence", sender=f"new{n}")
    world.supervisor.round()
    assert {transport.writes for transport in transports} == {1}


def test_what_waits_for_a_later_round_costs_this_round_nothing() -> None:
    def calls(waiting: int) -> int:
        world = World(round_messages_max=64, messages_burst=10**6)
        actors = [world.join(f"p{n}")[0] for n in range(200)]
        for actor in actors[:waiting]:
            say(actor, "capabilities", 64)
        world.supervisor.round()  # the first: from here on no deadline is due
        return calls_of(world.supervisor.round)

    assert calls(200) <= calls(100) * 1.05


@pytest.mark.parametrize("wishes", [2, 5])
def test_a_message_costs_so_much_per_different_wish_and_nothing_per_delivery(wishes: int) -> None:
    def cost(messages: int, receivers: int) -> int:
        world, sender, transports = mesh(0)
        for n in range(receivers):
            transport = HandTransport()
            actor = world.supervisor.open(transport)
            wish = {"topics": [f"{n % wishes}", "t"]}
            say(actor, "presence", sender=f"r{n}", data={"subscribe": wish})
            transports.append(transport)
        world.settle()
        for transport in transports:
            transport.writes = 0
            transport.sent.clear()
        say(sender, "stream", messages, topic="t")
        calls = calls_of(world.supervisor.round)
        assert {transport.writes for transport in transports} == {1}
        assert all(len(transport.sent) == messages for transport in transports)
        return calls

    few, many = wishes, 33 * wishes
    base = cost(1, few)
    per_message = (cost(33, few) - base) / 32
    per_receiver = (cost(1, many) - base) / (many - few)
    assert per_message <= 40 + 5 * wishes, per_message
    assert per_receiver <= 8, per_receiver
    together = cost(33, many)
    assert together <= base + (32 * per_message + (many - few) * per_receiver) * 1.05


def test_a_message_for_one_of_many_costs_as_much_as_a_direct() -> None:
    def cost(messages: int) -> int:
        world, transports = World(messages_burst=10**6), list[HandTransport]()
        for n in range(RECEIVERS):
            transport = HandTransport()
            actor = world.supervisor.open(transport)
            say(actor, "presence", sender=f"r{n}", data={"subscribe": {"others": False}})
            transports.append(transport)
        sender, _ = world.join("sender")
        world.settle()
        for transport in transports:
            transport.sent.clear()
        say(sender, "stream", messages, to="r7")
        calls = calls_of(world.supervisor.round)
        assert [len(transport.sent) for transport in transports] == [
            messages if n == 7 else 0 for n in range(RECEIVERS)
        ]
        return calls

    per_message = (cost(33) - cost(1)) / 32
    assert per_message <= 54, per_message
