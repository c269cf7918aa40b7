"""Peer actor and supervisor, round by round: no event loop, no waiting, any interleaving."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.clock import SystemClock
from actors.frames import Batch
from actors.relay.peer import PeerActor
from actors.relay.supervisor import Supervisor
from actors.transports.transport import Port
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh


class HandClock(SystemClock):
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> Instant:
        return Instant(self.at, round(self.at * 1000))


class HandTransport:
    """A transport under the test's thumb."""

    writes_frames = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.writes = 0
        self.takes_more = True
        self.is_reading = True
        self.closed_with: int | None = None
        self.fails = False
        self.aborted = False
        self.charged = 0

    async def run(self, port: Port) -> None:
        raise NotImplementedError

    def hold_little(self) -> None: ...

    def send(self, batch: Batch) -> bool:
        if self.fails:
            raise RuntimeError("the transport broke")
        self.writes += 1
        self.sent += batch.texts
        return self.takes_more

    def close(self, code: int, reason: str) -> None:
        self.closed_with = code

    def abort(self) -> None:
        self.aborted = True

    def charge(self, bytes: int) -> None:
        self.charged += bytes

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class World:
    """A supervisor and its peers, moved by hand."""

    def __init__(self, new_token: Callable[[], str] | None = None, **limits: Any) -> None:
        self.clock = HandClock()
        mesh = LocalMesh(Limits(**limits), new_token=new_token)
        self.supervisor = Supervisor("m", Limits(**limits), self.clock, mesh=mesh)

    def join(self, id: str) -> tuple[PeerActor, HandTransport]:
        transport = HandTransport()
        actor = self.supervisor.open(transport)
        say(actor, "presence", sender=id)
        self.settle()
        transport.sent.clear()
        transport.writes = 0
        return actor, transport

    def settle(self) -> None:
        while self.supervisor.has_work:
            self.supervisor.round()


def say(
    actor: PeerActor, type: str, times: int = 1, sender: str | None = None, **fields: Any
) -> None:
    origin = {} if sender is None else {"from": sender}
    text = json.dumps({"type": type, **origin, **fields}).encode()
    actor.received([text] * times)


def types(transport: HandTransport) -> list[str]:
    return [json.loads(text)["type"] for text in transport.sent]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO):
        yield caplog


def test_a_round_costs_one_write_per_peer_however_many_messages_it_holds() -> None:
    world = World()
    senders = [world.join(f"s{n}") for n in range(3)]
    listeners = [world.join(f"l{n}")[1] for n in range(5)]
    for _, transport in senders:
        transport.writes, transport.sent = 0, []
    for transport in listeners:
        transport.writes, transport.sent = 0, []
    for actor, _ in senders:
        say(actor, "stream", 20)
    world.supervisor.round()
    assert [t.writes for t in listeners] == [1] * 5
    assert [len(t.sent) for t in listeners] == [60] * 5
    assert [t.writes for _, t in senders] == [1] * 3
    assert [len(t.sent) for _, t in senders] == [40] * 3


def test_whose_presence_has_come_in_is_not_displaced_however_many_come_at_once() -> None:
    world = World(unannounced_max=3)
    transports = [HandTransport() for _ in range(10)]
    for n, transport in enumerate(transports):
        actor = world.supervisor.open(transport)
        if n != 2:
            say(actor, "presence", sender=f"p{n}")
    world.supervisor.round()
    closed = [transport.closed_with for transport in transports]
    assert closed == [None, None, 1013, *[None] * 7]
    assert len(world.supervisor.status().peers) == 9


def test_a_flood_from_one_leaves_the_others_their_share_and_stops_being_read() -> None:
    world = World(
        quantum_messages=10, inbox_messages_max=100, messages_burst=10_000, round_messages_max=64
    )
    flooder, flooder_transport = world.join("flooder")
    quiet, _ = world.join("quiet")
    _, listener = world.join("listener")
    say(flooder, "stream", 1000)
    say(quiet, "ack")
    assert not flooder_transport.is_reading
    world.supervisor.round()
    assert types(listener) == ["stream"] * 10 + ["ack"]
    world.settle()
    assert len(listener.sent) == 1001
    assert flooder_transport.is_reading


def test_a_round_is_bounded_and_nobody_loses_its_place() -> None:
    world = World(quantum_messages=4, round_messages_max=8)
    actors = [world.join(f"p{n}")[0] for n in range(5)]
    _, listener = world.join("listener")
    for number, actor in enumerate(actors):
        say(actor, "stream", 4, n=number)
    world.supervisor.round()
    assert [json.loads(text)["n"] for text in listener.sent] == [0] * 4 + [1] * 4
    world.settle()
    assert [json.loads(text)["n"] for text in listener.sent] == [
        n for n in range(5) for _ in "four"
    ]


def test_the_elements_of_arrays_count_in_the_bound_of_a_round() -> None:
    world = World(quantum_messages=4, round_messages_max=8, messages_burst=1000)
    actors = [world.join(f"p{n}")[0] for n in range(3)]
    _, listener = world.join("listener")
    for actor in actors:
        actor.received([array(3), array(3)])
    world.supervisor.round()  # two connections: two arrays each, and four of their elements
    assert len(listener.sent) == 8
    world.settle()
    assert len(listener.sent) == 18


def array(count: int) -> bytes:
    return json.dumps([{"type": "stream", "n": n} for n in range(count)]).encode()


def test_a_long_array_waits_for_the_others_between_its_parts_and_nothing_overtakes_it() -> None:
    world = World(quantum_messages=4, messages_burst=1000)
    flooder, transport = world.join("flooder")
    quiet, _ = world.join("quiet")
    _, listener = world.join("listener")
    say(flooder, "ack")
    flooder.received([array(10)])
    say(flooder, "broadcast")
    for expected in (["ack"] + 4 * ["stream"], 4 * ["stream"], 2 * ["stream"] + ["broadcast"]):
        say(quiet, "turn_end")
        listener.sent.clear()
        world.supervisor.round()
        assert sorted(types(listener)) == sorted([*expected, "turn_end"])
        assert [type for type in types(listener) if type != "turn_end"] == expected
    assert not world.supervisor.has_work
    assert transport.closed_with is None


@pytest.mark.parametrize("agents", [["x" * 200] * 20, ["x" * 200] * 20 + [0]])
def test_announcements_that_cost_much_wait_for_the_others_between_them(agents: list[Any]) -> None:
    world = World(quantum_messages=30, messages_burst=1000)
    flooder, transport = world.join("flooder")
    quiet, _ = world.join("quiet")
    _, listener = world.join("listener")
    for _ in range(5):
        say(flooder, "heartbeat", data={"agents": agents})
    say(flooder, "broadcast")
    for rounds in range(1, 6):
        assert "broadcast" not in types(listener)
        say(quiet, "turn_end")
        world.supervisor.round()
        assert types(listener).count("turn_end") == rounds
        assert types(transport).count("error") == rounds * (0 in agents)
    world.settle()
    assert types(listener)[-1] == "broadcast"


def test_what_waits_of_an_array_is_decided_before_its_connection_is_over() -> None:
    world = World(quantum_messages=4, messages_burst=1000)
    leaving, _ = world.join("leaving")
    _, listener = world.join("listener")
    leaving.received([array(10)])
    say(leaving, "ack")
    leaving.closed(1000)
    world.settle()
    assert types(listener) == 10 * ["stream"] + ["ack", "presence"]
    assert world.supervisor.connections == 1


def test_what_waits_of_arrays_is_decided_before_an_orderly_end() -> None:
    world = World(quantum_messages=4, messages_burst=1000)
    flooder, _ = world.join("flooder")
    _, listener = world.join("listener")
    flooder.received([array(10)])
    world.supervisor.round()
    world.supervisor.drain()
    assert types(listener) == 10 * ["stream"]
    assert listener.closed_with == 1001


def test_what_waits_of_an_array_goes_with_a_connection_that_is_evicted() -> None:
    world = World(quantum_messages=4, messages_burst=1000)
    flooder, _ = world.join("flooder")
    _, listener = world.join("listener")
    flooder.received([array(10)])
    world.supervisor.round()
    flooder.evict("for a test")
    world.settle()
    assert types(listener) == 4 * ["stream"] + ["presence"]
    assert not world.supervisor.mesh.unfinished
    assert flooder.waiting_bytes == 0


def test_an_array_of_which_the_rate_lets_little_through_takes_its_turn_all_the_same() -> None:
    world = World(quantum_messages=4, messages_burst=10)
    flooder, _ = world.join("flooder")
    _, listener = world.join("listener")
    say(flooder, "ack", 7)
    world.settle()
    flooder.received([array(10), array(10)])
    listener.sent.clear()
    world.supervisor.round()
    assert types(listener) == ["stream"]
    assert world.supervisor.has_work
    world.settle()
    assert not world.supervisor.has_work
    assert not world.supervisor.mesh.unfinished


def test_a_round_is_bounded_in_bytes_and_every_connection_gives_at_least_one_message() -> None:
    world = World(round_bytes_max=300_000, quantum_bytes=100_000, messages_burst=1000)
    actors = [world.join(f"p{n}")[0] for n in range(4)]
    _, listener = world.join("listener")
    for number, actor in enumerate(actors):
        say(actor, "stream", 5, n=number, data="x" * 40_000)  # two of them are a quantum
    say(actors[3], "stream", 1, n=3, data="x" * 200_000)
    world.supervisor.round()
    assert [json.loads(text)["n"] for text in listener.sent] == [0, 0, 1, 1, 2, 2, 3, 3]
    listener.sent.clear()
    world.supervisor.round()
    assert [json.loads(text)["n"] for text in listener.sent] == [0, 0, 1, 1, 2, 2, 3, 3]
    world.settle()
    assert sum(len(text) > 200_000 for text in listener.sent) == 1
    assert [actor.inbound_bytes for actor in actors] == [0] * 4
    for actor in actors:  # each is more than a quantum, two are more than a round
        say(actor, "stream", data="x" * 200_000)
    listener.sent.clear()
    world.supervisor.round()
    assert len(listener.sent) == 2
    world.settle()
    assert len(listener.sent) == 4


def test_who_has_little_to_say_does_not_wait_behind_many_long_messages() -> None:
    world = World(round_bytes_max=100_000, quantum_bytes=20_000, messages_burst=1000)
    actors = [world.join(f"p{n}")[0] for n in range(5)]
    quiet = [world.join(f"q{n}")[0] for n in range(3)]
    _, listener = world.join("listener")
    for actor in actors:
        say(actor, "stream", data="x" * 150_000)
    for actor in quiet:
        say(actor, "ack", data="x" * 9_000)
    for expected in (["stream", "ack", "ack"], ["stream", "ack"], ["stream"]):
        listener.sent.clear()
        world.supervisor.round()  # beyond its bytes it takes one quantum of short messages
        assert types(listener) == expected


def test_parts_of_a_message_are_signs_of_life() -> None:
    world = World()
    actor, slow = world.join("uploads slowly")
    _, silent = world.join("silent")
    for _ in range(6):
        world.clock.at += 10.0
        actor.received([])  # bytes came in, and no message is complete
        world.supervisor.round()
    assert silent.closed_with == 1008
    assert slow.closed_with is None


def test_a_peer_that_does_not_take_gets_everything_in_order_when_it_takes_again() -> None:
    world = World()
    sender, _ = world.join("sender")
    actor, slow = world.join("slow")
    slow.takes_more = False
    for n in range(10):
        say(sender, "stream", n=n)
        world.settle()
    assert len(slow.sent) == 1
    assert actor.queued[0] == 9
    slow.takes_more = True
    actor.writable()
    assert [json.loads(text)["n"] for text in slow.sent] == list(range(10))
    assert actor.queued == (0, 0)


def test_a_full_mailbox_evicts_its_peer_with_1013_and_delays_nobody(
    log: pytest.LogCaptureFixture,
) -> None:
    world = World(mailbox_messages_max=5)
    sender, _ = world.join("sender")
    actor, stuck = world.join("stuck")
    _, healthy = world.join("healthy")
    stuck.takes_more = False
    for _ in range(10):
        say(sender, "stream")
        world.settle()
    assert stuck.closed_with == 1013
    assert actor.queued == (0, 0)
    assert types(healthy).count("stream") == 10
    gone = [json.loads(text) for text in healthy.sent if b'"presence"' in text]
    assert [m["data"]["reason"] for m in gone] == ["evicted"]
    assert [r.msg for r in log.records].count("evicted") == 1


def test_an_eviction_overtakes_the_backlog() -> None:
    world = World(mailbox_messages_max=1, quantum_messages=1)
    sender, _ = world.join("sender")
    stuck_actor, stuck = world.join("stuck")
    stuck.takes_more = False
    say(sender, "stream", 4)
    say(stuck_actor, "stream", 1000)
    for _ in range(4):
        world.supervisor.round()
    assert stuck.closed_with == 1013
    world.settle()
    assert world.supervisor.status().totals.relayed < 100


def test_a_crash_while_deciding_ends_that_connection_with_1011_and_no_other(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    world = World()
    victim, broken = world.join("victim")
    other, healthy = world.join("other")
    mesh = world.supervisor.mesh
    received = mesh.received

    def crash_on_victim(id: int, messages: Any, now: Instant) -> int:
        if id == victim.id:
            raise RuntimeError("a bug")
        return received(id, messages, now)

    monkeypatch.setattr(mesh, "received", crash_on_victim)
    say(victim, "stream")
    say(other, "stream")
    world.settle()
    assert broken.closed_with == 1011
    assert healthy.closed_with is None
    assert [json.loads(t)["data"]["reason"] for t in healthy.sent if b"offline" in t] == ["crashed"]
    record = next(r for r in log.records if r.msg == "crashed")
    assert record.exc_info is not None
    assert (record.peer, record.connection) == ("victim", victim.id)  # type: ignore[attr-defined]


def test_a_crash_in_a_transport_ends_that_connection_and_no_other() -> None:
    world = World()
    sender, _ = world.join("sender")
    _, broken = world.join("broken")
    _, healthy = world.join("healthy")
    broken.fails = True
    say(sender, "stream")
    world.settle()
    assert broken.closed_with == 1011
    assert types(healthy) == ["stream", "presence"]


def test_what_was_said_before_a_close_is_still_heard() -> None:
    world = World()
    leaver, _ = world.join("leaver")
    _, other = world.join("other")
    say(leaver, "stream", 200)
    leaver.closed(1000)
    world.settle()
    assert types(other) == ["stream"] * 200 + ["presence"]
    assert world.supervisor.connections == 1


def test_frames_after_a_stop_are_ignored_and_closing_twice_is_closing_once() -> None:
    world = World()
    actor, transport = world.join("a")
    _, other = world.join("b")
    actor.closed(1000)
    actor.closed(1006)
    world.settle()
    say(actor, "stream")
    world.settle()
    assert actor.close_code == 1000
    assert types(other) == ["presence"]
    assert transport.closed_with is None


def test_draining_decides_what_waits_flushes_and_closes_with_1001() -> None:
    world = World()
    sender, sender_transport = world.join("sender")
    actor, slow = world.join("slow")
    slow.takes_more = False
    say(sender, "stream", 3, n=1)
    world.supervisor.round()
    say(sender, "stream", 2, n=2)
    world.supervisor.drain()
    assert sender_transport.closed_with == 1001
    assert slow.closed_with is None
    assert not any(b"offline" in text for text in slow.sent)
    slow.takes_more = True
    actor.writable()
    assert types(slow) == ["stream"] * 5
    assert slow.closed_with == 1001


def test_pongs_keep_those_present_who_asked_for_it() -> None:
    world = World()
    asked, asked_transport = world.join("asked")
    say(asked, "presence", sender="asked", data={"keepalive": "pong"})
    silent, silent_transport = world.join("silent")
    for _ in range(4):
        world.clock.at += 10.0
        asked.ponged()
        silent.ponged()
        world.supervisor.round()
    assert asked_transport.closed_with is None
    assert silent_transport.closed_with == 1008


def test_status_is_a_snapshot_that_does_not_change() -> None:
    world = World()
    actor, _ = world.join("a")
    before = world.supervisor.status()
    say(actor, "stream")
    world.join("b")
    assert [peer.peer for peer in before.peers] == ["a"]
    assert before.totals.relayed == 1
    assert before.connections == 1


def test_a_peer_whose_messages_wait_when_a_round_is_full_is_not_reaped_for_silence() -> None:
    world = World(round_messages_max=64, quantum_messages=64)
    peers = [world.join(name) for name in "abc"]
    world.clock.at = 20.0
    for actor, _ in peers:
        say(actor, "ack", 64)
    world.clock.at = 31.0  # the process was held up
    world.settle()
    assert [transport.closed_with for _, transport in peers] == [None, None, None]


def test_a_reaped_peer_is_told_so_even_if_its_mailbox_is_full() -> None:
    world = World(mailbox_messages_max=1, messages_burst=10_000)
    _, silent = world.join("silent")
    other, _ = world.join("other")
    silent.takes_more = False
    for at in (10.0, 20.0, 29.9):
        world.clock.at = at
        say(other, "stream" if at < 29.9 else "capabilities")
        world.settle()
    world.clock.at = 30.0
    say(other, "stream")
    world.supervisor.round()
    assert silent.closed_with == 1008


def test_a_round_takes_fewer_messages_the_more_each_of_them_costs() -> None:
    world = World(round_messages_max=100, quantum_messages=10, messages_burst=10**6)
    tabs = [world.join("tabs")[0] for _ in range(64)]
    senders = [world.join(f"s{n}")[0] for n in range(64)]
    _, listener = world.join("listener")

    def decided(type: str, actors: list[PeerActor], **fields: Any) -> int:
        world.settle()
        before = world.supervisor.totals
        for actor in actors:
            say(actor, type, 10, **fields)
        world.supervisor.round()
        after = world.supervisor.totals
        return after.relayed - before.relayed + after.refused - before.refused

    assert decided("stream", senders) == 100
    assert decided("stream", tabs) <= 20  # each is left out for 64 connections
    assert decided("direct", senders, to="tabs") <= 20
    assert decided("direct", senders, to="listener") == 100
    assert decided("direct", senders, to="nobody") <= 20
    world.settle()
    assert types(listener).count("direct") == 640


def test_a_round_sends_few_newcomers_a_large_roster() -> None:
    world = World(round_messages_max=8, quantum_messages=8)
    for number in range(50):
        world.join(f"p{number}")
    newcomers = [HandTransport() for _ in range(10)]
    for number, transport in enumerate(newcomers):
        say(world.supervisor.open(transport), "presence", sender=f"n{number}")
    world.supervisor.round()
    assert sum(len(transport.sent) > 50 for transport in newcomers) == 2
    world.settle()
    assert all(len(transport.sent) > 50 for transport in newcomers)


@pytest.mark.anyio
async def test_after_much_for_everyone_sockets_take_more_than_once_before_the_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[int] = []

    async def checkpoint() -> None:
        passes[-1] += 1

    monkeypatch.setattr("anyio.lowlevel.checkpoint", checkpoint)
    world = World()
    speaker, _ = world.join("speaker")
    world.join("listener")
    for size in (100_000, 600_000):
        say(speaker, "broadcast", data="x" * size)
        world.supervisor.round()
        say(speaker, "heartbeat")  # the next round has something to do
        passes.append(0)
        await world.supervisor._rests.rest(1)
        world.settle()
    assert passes == [1, 5]


@pytest.mark.parametrize(
    ("data", "least"),
    [
        (b"[" * 100 + b"]" * 100, 0),  # short
        ((b"[" * 100 + b"]" * 100 + b",") * 500 + b"0", 8 * 50_000),
        (b"[]," * 50_000 + b"0", 8 * 50_000),
        (b'"' + b"\\ud800" * 20_000 + b'"', 2 * 120_000),
    ],
)
def test_a_text_that_costs_more_than_others_is_charged_to_its_connection(
    data: bytes, least: int
) -> None:
    world = World()
    actor, transport = world.join("a")
    actor.received([b'{"type":"broadcast","data":[' + data + b"]}"])
    world.settle()
    assert least <= transport.charged <= 1.1 * least + 20


def test_plain_text_is_charged_with_nothing_but_its_bytes() -> None:
    world = World()
    actor, transport = world.join("a")
    actor.received([b'{"type":"broadcast","data":"' + b"x" * 500_000 + b'"}'])
    world.settle()
    assert transport.charged == 0
