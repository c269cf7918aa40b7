"""A paced connection without arrays says when it is behind, and when it has caught up (rule 20)."""

import json
import logging
from typing import Any

import pytest

from actors.relay.journal import log
from actors.relay.peer import PeerActor
from actors.relay.supervisor import Supervisor
from protocol.limits import Limits
from tests.actors.relay.test_comebacks import Client
from tests.actors.relay.test_comebacks import World as Returning
from tests.actors.relay.test_peer import HandClock, HandTransport

TICK_S = 1 / 200


def text(type: str, **fields: Any) -> bytes:
    return json.dumps({"type": type, **fields}).encode()


class World:
    """A mesh, and time that passes tick by tick. `said`: what each connection got."""

    def __init__(self, **limits: Any) -> None:
        self.clock = HandClock()
        bounds = {"frames_per_s": 200.0, "mailbox_messages_max": 1000, **limits}
        self.supervisor = Supervisor("m", Limits(**bounds), self.clock)

    def join(
        self, id: str, *, is_paced: bool = False, **data: Any
    ) -> tuple[PeerActor, HandTransport]:
        wire = HandTransport()
        actor = self.supervisor.open(wire, is_paced=is_paced)
        if is_paced:
            actor._transport._port = actor  # type: ignore[attr-defined]
        self.say(actor, text("presence", **{"from": id}, data={"agents": [], **data}))
        return actor, wire

    def say(self, actor: PeerActor, *messages: bytes) -> None:
        actor.received(list(messages))
        while self.supervisor.has_work:
            self.supervisor.round()

    def pass_time(self, seconds: float) -> None:
        pace = self.supervisor._pace
        for _ in range(round(seconds / TICK_S)):
            self.clock.at += TICK_S
            waiting, pace._waiting = pace._waiting, set()
            for transport in waiting:
                transport.tick()
            while self.supervisor.has_work:
                self.supervisor.round()


def heard(wire: HandTransport) -> list[Any]:
    """The numbers that it got, and the codes of the relay's errors."""
    got = [json.loads(message) for message in wire.sent]
    wire.sent.clear()
    return [
        value["data"]["code"] if value["from"] == "relay" else value["n"]
        for value in got
        if value["type"] != "presence"
    ]


def test_a_reader_at_a_pace_stays_little_behind_however_much_others_are_answered() -> None:
    world = World(messages_per_s=10_000.0, messages_burst=10_000)
    agent, _ = world.join("agent")
    reader, wire = world.join("reader", is_paced=True)
    world.pass_time(0.1)
    wire.sent.clear()
    for n in range(6000):  # 1000 a second
        world.say(agent, text("stream", turnId="t", n=n))
        if n % 5 == 4:
            world.pass_time(TICK_S)
    assert not reader.is_stopped
    got = heard(wire)
    first = got.index("lagging")
    assert got[:first] == list(range(first))
    assert 200 <= first <= 300
    assert got.count("lagging") == 1  # though it caught up and fell behind again
    numbers = [n for n in got if n != "lagging"]
    waiting = reader._transport._texts  # type: ignore[attr-defined]
    spared = 6000 - len(numbers) - reader.queued[0] - len(waiting)
    assert abs(world.supervisor.totals.spared - spared) <= got.count("lagging")
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 1000  # all that the pace has room for
    world.say(agent, text("broadcast", n="all"))
    world.pass_time(1.3)
    assert heard(wire)[-1] == "all"


def test_what_it_has_asked_comes_whole_while_it_is_behind() -> None:
    world = World()
    agent, _ = world.join("agent")
    reader, wire = world.join("reader", is_paced=True)
    world.say(reader, text("broadcast", turnId="mine"))
    world.say(agent, *[text("stream", turnId="t", n=0)] * 300)
    for n in range(1, 300):
        world.say(agent, text("stream", turnId="mine", n=n), text("stream", turnId="t", n=0))
        world.pass_time(2 * TICK_S)
    world.pass_time(3.0)
    assert [n for n in heard(wire) if n and n != "lagging"] == list(range(1, 300))
    assert not reader.is_stopped


def test_with_arrays_nobody_is_behind() -> None:
    world = World()
    agent, _ = world.join("agent")
    _, wire = world.join("reader", is_paced=True, accept=["batch"])
    world.say(agent, *[text("stream", turnId="t", n=0)] * 900)
    world.pass_time(1.0)
    assert world.supervisor.totals.spared == 0
    assert b"lagging" not in b"".join(wire.sent)


@pytest.mark.parametrize("lag_s", [0.01, 0.05, 1.0, 3.0])
@pytest.mark.parametrize("size", [0, 3000, 40_000])
def test_whoever_was_behind_gets_everything_again_when_nothing_waits_any_more(
    lag_s: float, size: int
) -> None:
    world = World(lag_s=lag_s, mailbox_messages_max=10_000, mailbox_bytes_max=2**27)
    agent, _ = world.join("agent")
    _, wire = world.join("reader", is_paced=True)
    world.pass_time(1.0)
    wire.sent.clear()
    for _ in range(900):
        world.say(agent, text("stream", turnId="t", n=0, data="x" * size))
    assert world.supervisor.totals.spared > 0
    world.pass_time(10.0)
    wire.sent.clear()
    world.say(agent, text("stream", turnId="t", n=1))
    world.pass_time(0.1)
    assert heard(wire) == [1]


@pytest.mark.parametrize("writes_frames", [False, True])
def test_a_message_that_goes_in_many_frames_counts_as_many(
    monkeypatch: pytest.MonkeyPatch, writes_frames: bool
) -> None:
    monkeypatch.setattr(HandTransport, "writes_frames", writes_frames)
    world = World(frame_bytes_max=1024, message_bytes_max=2**20)
    agent, _ = world.join("agent")
    world.join("reader", is_paced=True)
    world.pass_time(1.0)
    world.say(agent, text("broadcast", n=0, data="x" * 2**19))
    world.say(agent, text("broadcast", n=0, data="x" * 2**19))
    world.say(agent, text("stream", turnId="t", n=1))
    assert world.supervisor.totals.spared == writes_frames


def test_it_is_logged_that_answers_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    agent, _ = world.join("agent")
    world.join("reader", is_paced=True)
    with caplog.at_level(logging.WARNING, log.name):
        for _ in range(500):
            world.say(agent, text("stream", turnId="t", n=0))
    (record,) = [record for record in caplog.records if record.message == "spared"]
    assert record.__dict__["peer"] == "reader"
    assert record.__dict__["count"] == 1


def test_whoever_comes_back_with_another_socket_is_behind_no_more() -> None:
    world = Returning()
    agent, reader = Client(world, "agent", asks=False), Client(world, "reader")
    mesh = world.supervisor.mesh
    entry = mesh.mesh.roster.connections[reader.actor.id]
    mesh.mesh.audiences.laggards.follow(entry)
    mesh.mesh.audiences.differ = True
    mesh.fell_behind(reader.actor.id, world.clock.now())
    reader.cut(99, is_noticed=True)
    agent.say("stream", turnId="t", n=1)
    world.settle()
    reader.come_back()
    agent.say("stream", turnId="t", n=2)
    world.settle()
    reader.read()
    assert b'"n": 1' not in b"".join(reader.got)
    assert b'"n": 2' in b"".join(reader.got)
