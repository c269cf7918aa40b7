"""Who wants to go on with what is not theirs, or counts wrongly, or comes at the wrong moment."""

import json
from typing import Any
from zlib import crc32

import anyio
import anyio.lowlevel
import pytest

from actors.link import ABNORMAL
from actors.relay.ledger import CONNECTION_BYTES, Ledger
from protocol.grants import Grant
from protocol.mesh.local import LocalMesh
from tests.actors.relay.test_comebacks import Client, World, numbers, text
from tests.actors.relay.test_peer import HandTransport
from tests.worlds.live import PATIENCE_S


def ask(world: World, *messages: bytes) -> tuple[HandTransport, list[dict[str, Any]]]:
    """A new connection says this. The connection's transport, and what came back."""
    transport = HandTransport()
    world.supervisor.open(transport).received(list(messages))
    world.settle()
    return transport, [json.loads(message)["data"] for message in transport.sent]


def question(client: Client, **other: Any) -> bytes:
    """The question with which this client would come back."""
    assert client.resume is not None
    resume = {"token": client.resume["token"], "epoch": client.resume["epoch"]}
    resume |= {"received": client.received}
    if client.received:
        resume["crc"] = crc32(client.last)
    return text("capabilities", data={"resume": resume | other})


# Tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"epoch": "another"}, {"received": 99}, {"crc": 1}])
def test_a_token_is_good_once_whatever_came_of_it(other: dict[str, Any]) -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    a.say("stream")
    world.settle()
    b.cut(9, is_noticed=True)
    assert b.come_back(**other)["resumed"] is False
    assert b.come_back()["reason"] == "unknown"


def test_a_token_that_is_shown_too_late_is_used_up() -> None:
    world = World()
    Client(world, "a")
    b, late = Client(world, "b"), Client(world, "late", asks=False)
    b.cut(9, is_noticed=True)
    late.transport.sent.clear()
    late.actor.received([question(b)])
    world.settle()
    assert json.loads(late.transport.sent[0])["data"]["resume"]["reason"] == "late"
    assert b.come_back()["reason"] == "unknown"


@pytest.mark.parametrize(
    "wrong",
    [
        {"received": -1},
        {"received": 1.5},
        {"received": "1"},
        {"received": True},
        {"received": None},
        {"received": 2**53 + 1},
        {"crc": -1},
        {"crc": 2**32},
        {"crc": "1"},
        {"token": 1},
        {"token": ""},
        {"token": "t" * 101},
        {"epoch": "t" * 101},
        {"epoch": ""},
        {"token": ["token 1"]},
        {"epoch": None},
    ],
)
def test_a_question_that_cannot_be_read_uses_nothing_up(wrong: dict[str, Any]) -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    a.say("stream", n=1)
    world.settle()
    b.cut(9, is_noticed=True)
    _, (error,) = ask(world, question(b, **wrong))
    assert error["code"] == "bad_field"
    a.say("stream", n=2)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [1, 2]


@pytest.mark.parametrize("token", ["t", "t" * 100])
def test_a_token_of_any_other_length_can_be_read(token: str) -> None:
    world = World()
    Client(world, "a")
    b = Client(world, "b")
    b.cut(9, is_noticed=True)
    _, (answer,) = ask(world, question(b, token=token, epoch=token))
    assert answer["resume"]["reason"] == "epoch"


def test_a_token_that_two_show_at_once_is_good_for_the_first() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(9, is_noticed=True)
    a.say("stream", n=1)
    shown = question(b)
    first, second = HandTransport(), HandTransport()
    for transport in (first, second):
        world.supervisor.open(transport).received([shown])
    world.settle()
    answers = [json.loads(t.sent[0])["data"]["resume"] for t in (first, second)]
    assert [answer["resumed"] for answer in answers] == [True, False]
    assert answers[1]["reason"] == "unknown"
    assert [json.loads(m).get("n") for m in first.sent[1:]] == [1]
    assert len(second.sent) == 1
    assert world.peers == {"a", "b"}


def test_a_replayed_token_opens_nothing() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(9, is_noticed=True)
    shown = question(b)
    assert b.come_back()["resumed"] is True
    a.say("stream", n=1)
    _, (answer,) = ask(world, shown)
    assert answer["resume"] == {"resumed": False, "reason": "unknown", "seconds": 20.0}
    b.read()
    assert numbers(b) == [1]
    assert b.transport.closed_with is None


def test_guesses_find_nothing_and_hurt_nobody() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(9, is_noticed=True)
    for n in range(50):
        _, (answer,) = ask(world, question(b, token=f"guess {n}"))
        assert answer["resume"]["reason"] == "unknown"
    a.say("stream", n=1)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [1]


def test_whoever_stole_a_token_is_seen_by_its_owner_whose_socket_is_closed() -> None:
    world = World()
    Client(world, "a")
    b = Client(world, "b")
    b.read()
    thief, (answer,) = ask(world, question(b))
    assert answer["resume"]["resumed"] is True
    assert b.transport.closed_with == 1008
    b.actor.closed(1008)
    assert b.come_back()["reason"] == "unknown"
    assert thief.closed_with is None


def test_another_mesh_does_not_know_the_token_and_it_is_not_used_up_there() -> None:
    world, other = World(), World()
    Client(other, "b")
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(9, is_noticed=True)
    other.supervisor.mesh.gate.returns._resumptions.epoch = "of another mesh"  # type: ignore[union-attr]
    _, (answer,) = ask(other, question(b))
    assert answer["resume"]["reason"] == "epoch"
    a.say("stream", n=1)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [1]


@pytest.mark.parametrize(
    "grant", [Grant(peer="a"), Grant(may_send=False), Grant(may_watch=False), Grant(agents=("x",))]
)
def test_who_may_do_something_else_may_not_go_on(grant: Grant) -> None:
    world = World()
    Client(world, "a")
    b = Client(world, "b")
    b.read()
    before = len(b.got)
    transport = HandTransport()
    world.supervisor.open(transport, grant=grant).received([question(b)])
    world.settle()
    assert json.loads(transport.sent[0])["data"]["resume"]["reason"] == "grant"
    b.say("stream", n=1)  # and the other one goes on as if nothing had been
    world.settle()
    b.read()
    assert len(b.got) == before
    assert b.transport.closed_with is None


# The wrong moment ---------------------------------------------------------------------------------


def test_a_question_with_a_wrong_claim_opens_nothing() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b", asks=False)
    b.asks = True
    b.transport.sent.clear()
    resume = {"seconds": 20}
    b.actor.received([text("capabilities", data={"claim": "short", "resume": resume})])
    world.settle()
    assert json.loads(b.transport.sent.pop())["data"]["code"] == "bad_field"
    b.actor.received([text("capabilities", data={"resume": resume})])
    world.settle()
    b.read()
    b.cut(0, is_noticed=True)
    a.say("stream", n=1)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [1]


def test_who_asks_again_gets_the_same_token_and_the_counts_go_on() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    assert b.resume is not None
    token, received = b.resume["token"], b.received
    b.say("capabilities", data={"resume": {"seconds": 1}})
    world.settle()
    again = b.transport.sent.pop()
    assert json.loads(again)["data"]["resume"] == {**b.resume, "token": token}
    b.received, b.last = received + 1, again
    b.cut(0, is_noticed=True)
    a.say("stream", n=1)
    answer = b.come_back()
    assert answer["resumed"] is True
    assert answer["taken"] == 2
    assert numbers(b) == [1]


def test_resume_before_any_message() -> None:
    world = World()
    a = Client(world, "a")
    b = Client(world, "b", asks=False)
    b.asks = True
    b.transport.sent.clear()
    b.actor.received([text("capabilities", data={"resume": {"seconds": 20}})])
    world.settle()
    b.read()
    assert b.received == 0
    b.sent.clear()
    b.cut(0, is_noticed=False)
    a.say("stream", n=1)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [1]


@pytest.mark.parametrize("is_noticed", [True, False])
def test_who_had_not_announced_itself_has_nothing_to_come_back_to(is_noticed: bool) -> None:
    world = World()
    transport = HandTransport()
    actor = world.supervisor.open(transport)
    actor.received([text("capabilities", data={"resume": {"seconds": 20}})])
    world.settle()
    opened = json.loads(transport.sent[0])["data"]["resume"]
    if is_noticed:
        actor.closed(ABNORMAL)
        world.settle()
    resume = {"token": opened["token"], "epoch": opened["epoch"], "received": 0}
    _, (answer,) = ask(world, text("capabilities", data={"resume": resume}))
    assert answer["resume"]["reason"] == "unknown"
    assert transport.closed_with is None


def test_what_was_said_to_have_arrived_counts_although_it_is_decided_with_the_return() -> None:
    world = World(quantum_messages=1, round_messages_max=1)
    a, b = Client(world, "a"), Client(world, "b")
    for n in range(3):
        a.say("stream", n=n)
    world.settle()
    b.read()
    report = text("capabilities", data={"received": b.received})
    old = b.actor
    b.connect()
    b.actor.received([question(b, received=1, crc=crc32(b.got[1]))])
    old.received([report])  # it has its turn in the next round only
    world.settle()
    assert json.loads(b.transport.sent[0])["data"]["resume"]["reason"] == "count"


def test_frames_beyond_the_rate_count_as_taken_also_behind_the_question() -> None:
    world = World(messages_burst=10, messages_per_s=1.0)
    a = Client(world, "a")
    b = Client(world, "b", asks=False)
    b.asks = True
    world.clock.at += 20.0
    b.sent.clear()
    b.transport.sent.clear()
    for n in range(15):
        b.say("stream", n=n, lost=True)
    b.actor.received([text("capabilities", data={"resume": {"seconds": 20}}), *b.sent])
    world.settle()
    b.read()
    world.clock.at += 20.0
    for n in (15, 16):
        b.say("stream", n=n)
    world.settle()
    b.cut(99, is_noticed=True)
    answer = b.come_back()
    assert answer["taken"] == 17
    a.read()
    assert numbers(a) == [*range(9), 15, 16]


@pytest.mark.parametrize("is_noticed", [True, False])
def test_an_array_of_which_half_is_decided_is_decided_to_its_end(is_noticed: bool) -> None:
    world = World(quantum_messages=2)
    a, b = Client(world, "a"), Client(world, "b")
    array = b"[" + b",".join(text("stream", n=n) for n in range(9)) + b"]"
    b.sent.append(array)
    b.actor.received([array])
    world.supervisor.round()
    if is_noticed:
        b.actor.closed(ABNORMAL)
    b.connect()
    b.actor.received([question(b), text("stream", n=9)])
    world.settle()
    a.read()
    assert numbers(a) == [*range(10)]
    answer = json.loads(b.transport.sent[0])["data"]["resume"]
    assert answer["taken"] == len(b.sent)
    b.say("capabilities", data={"received": 0})
    world.settle()
    taken = json.loads(b.transport.sent[-1])["data"]["taken"]
    assert taken == len(b.sent) + 1  # with the one behind the question


def test_a_crash_over_what_the_old_socket_has_delivered_ends_that_connection_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(quantum_messages=1, round_messages_max=1)
    a, b = Client(world, "a"), Client(world, "b")
    received = LocalMesh.received

    def fail(mesh: LocalMesh, id: int, messages: list[bytes], now: Any) -> int:
        if any(b"crash" in message for message in messages):
            raise RuntimeError("made to crash")
        return received(mesh, id, messages, now)

    monkeypatch.setattr(LocalMesh, "received", fail)
    # The one that comes back is first, and alone in its round.
    transport = HandTransport()
    back = world.supervisor.open(transport)
    back.received([question(b)])
    b.say("crash")
    world.settle()
    assert json.loads(transport.sent[0])["data"]["resume"]["reason"] == "unknown"
    a.read()
    assert json.loads(a.got[-1])["data"]["reason"] == "crashed"
    assert world.peers == {"a"}
    a.say("direct", to="a", n=1)
    world.settle()
    a.read()
    assert numbers(a) == [1]


def test_who_is_evicted_in_the_round_in_which_it_comes_back_is_closed_once() -> None:
    world = World(mailbox_messages_max=2)
    a, b = Client(world, "a"), Client(world, "b")
    closes: list[int] = []
    b.transport.close = lambda code, reason: closes.append(code)  # type: ignore[method-assign]
    b.transport.takes_more = False
    for n in range(3):
        a.say("stream", n=n)
        world.settle()
    a.say("stream", n=3)
    b.cut(1, is_noticed=False)
    assert b.come_back()["resumed"] is True
    assert numbers(b) == [0, 1, 2, 3]
    assert closes == [1013]
    b.say("stream", n=4)
    world.settle()
    a.read()
    assert numbers(a) == [4]


# Too many, too much -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_noticed", [True, False])
def test_all_come_back_at_once_with_all_that_they_have_missed(is_noticed: bool) -> None:
    world = World()
    a = Client(world, "a")
    others = [Client(world, f"peer {n}") for n in range(60)]
    for other in others:
        other.cut(999, is_noticed=is_noticed)
    for n in range(20):
        a.say("stream", n=n)
        world.settle()
    asked = [question(other) for other in others]
    for other, message in zip(others, asked, strict=True):
        other.connect()
        other.actor.received([message])
    world.supervisor.round()
    for other in others:
        assert json.loads(other.transport.sent.pop(0))["data"]["resume"]["resumed"] is True
        other.read()
        assert numbers(other) == [*range(20)]
    assert len(world.peers) == 61
    world.settle()
    a.read()
    assert not any(b'"offline"' in message for message in a.got)


def test_who_comes_back_for_ever_holds_no_more_than_before() -> None:
    ledger = Ledger(2**20)
    world = World(ledger=ledger)
    a, b = Client(world, "a"), Client(world, "b")
    for n in range(20):
        a.say("stream", n=n, data="x" * 2000)
    world.settle()
    held = 0
    for times in range(50):
        old = b.actor
        b.cut(0, is_noticed=False)
        assert b.come_back()["resumed"] is True  # it never says that anything has arrived
        b.transport.sent.clear()
        old.closed(1008)
        world.settle()
        held = held or ledger.held
        assert ledger.held == held, times
    assert world.supervisor.connections == 2
    assert len(world.supervisor.mesh.gate.connections) == 2


def test_who_never_says_that_anything_has_arrived_gets_no_more_kept_and_others_go_on() -> None:
    world = World(history_bytes_max=20_000)
    a = Client(world, "a")
    silent, diligent = Client(world, "silent"), Client(world, "diligent")
    silent.cut(0, is_noticed=True)
    for n in range(100):
        a.say("stream", n=n, data="x" * 500)
        world.settle()
        assert world.supervisor._comebacks.history.bytes <= 20_000
        if n == 97:
            diligent.cut(999, is_noticed=True)
    assert silent.come_back()["reason"] == "history"
    assert diligent.come_back()["resumed"] is True
    assert numbers(diligent) == [*range(100)]


def test_who_is_away_costs_what_a_connection_costs() -> None:
    ledger = Ledger(2**24)
    world = World(ledger=ledger)
    Client(world, "a")
    standing = ledger.standing
    clients = [Client(world, f"peer {n}") for n in range(10)]
    with_all = ledger.standing
    assert with_all >= standing + 10 * CONNECTION_BYTES
    for client in clients:
        client.cut(999, is_noticed=True)
    assert ledger.standing == with_all
    for client in clients[:5]:
        assert client.come_back()["resumed"] is True
    assert ledger.standing == with_all
    clients[5].come_back(crc=1)
    world.pass_time(19.0)
    for client in clients[:5]:
        client.say("heartbeat")
    world.settle()
    world.pass_time(12.0)
    assert len(world.peers) == 5  # without "a", which was silent
    world.pass_time(40.0)
    assert world.supervisor._comebacks._away == set()


def test_nothing_is_left_of_who_was_away_at_the_end() -> None:
    ledger = Ledger(2**24)
    world = World(ledger=ledger)
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(999, is_noticed=True)
    world.supervisor.drain()
    a.actor.closed(1001)
    world.settle()
    assert ledger.standing == ledger.held == 0


@pytest.mark.anyio
async def test_a_relay_stops_at_once_although_somebody_is_away() -> None:
    world = World()
    b = Client(world, "b")
    b.cut(999, is_noticed=True)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.supervisor.run)
            while world.supervisor._work is None:
                await anyio.lowlevel.checkpoint()
            world.supervisor.drain()
    assert world.supervisor.connections == 0
