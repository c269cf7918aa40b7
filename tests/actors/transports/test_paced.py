"""Frames at a pace: what a connection behind AgentCore's edge gets, and when."""

import json
import random
import socket
from typing import Any

import anyio
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.clock import VirtualClock
from actors.frames import Batch, Fragment
from actors.relay.supervisor import Supervisor
from actors.transports.paced import STALLED_S, Pace, PacedTransport
from actors.transports.transport import Port
from protocol.envelope import Inbound
from protocol.limits import Limits
from protocol.session import session_id
from tests.edge import Edge, HostedRuntime, Issuer
from tests.worlds.live import PATIENCE_S, LiveRelay, open_socket

LIMITS = Limits(frames_per_s=200, frame_bytes_max=1024, close_within_s=5)
TICK_S = 1 / 200


class Wire:
    """The transport below: notes what it is told, and is full when told to be."""

    def __init__(self) -> None:
        self.writes_frames = True
        self.sent: list[Batch] = []
        self.closed: list[tuple[int, str]] = []
        self.aborted = False
        self.takes = True
        self.reading = True
        self.holds_little = False
        self.charged: list[int] = []

    def hold_little(self) -> None:
        self.holds_little = True

    async def run(self, port: Port) -> None:
        self.port = port

    def send(self, batch: Batch) -> bool:
        self.sent.append(batch)
        return self.takes

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def abort(self) -> None:
        self.aborted = True

    def charge(self, bytes: int) -> None:
        self.charged.append(bytes)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Actor:
    """The port above: notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def received(self, messages: list[Inbound]) -> None:
        self.told.append(messages)

    def turn_s(self, bytes: float, at: float) -> float:
        self.told.append(f"turn {bytes} {at}")
        return 0.5

    def partial(self, bytes: int) -> None:
        self.told.append(f"partial {bytes}")

    def ponged(self) -> None:
        self.told.append("ponged")

    def writable(self) -> None:
        self.told.append("writable")

    def closed(self, code: int) -> None:
        self.told.append(code)

    def crashed(self, error: BaseException) -> None:
        self.told.append(error)


class World:
    """A paced transport between a wire and an actor, and time that passes tick by tick."""

    def __init__(self, *, batches: bool = False) -> None:
        self.clock = VirtualClock()
        self.late: random.Random | None = None  # by up to half a tick
        self.wire, self.actor = Wire(), Actor()
        self.pace = Pace(LIMITS, self.clock)
        self.paced = PacedTransport(self.wire, self.pace, LIMITS)
        self.paced.accepts_batches = batches
        anyio.run(self.paced.run, self.actor)

    def send(self, *texts: bytes) -> bool:
        return self.paced.send(Batch(texts))

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock._at += TICK_S * (1 + self.late.random() / 2 if self.late else 1)
            waiting, self.pace._waiting = self.pace._waiting, set()
            for transport in waiting:
                transport.tick()

    def messages(self) -> list[bytes]:
        """What a client would make of the frames: messages, arrays taken apart."""
        read: list[bytes] = []
        parts = b""
        for batch in self.wire.sent:
            for frame in batch.buffers:
                opcode, payload = frame[0] & 0x0F, _payload(bytes(frame))
                assert len(payload) <= LIMITS.frame_bytes_max
                assert opcode == (0 if parts else 1), "a fragment is followed by its next"
                parts += payload
                if frame[0] & 0x80:
                    whole = json.loads(parts)
                    parts = b""
                    for one in whole if isinstance(whole, list) else [whole]:
                        read.append(json.dumps(one, separators=(",", ":")).encode())
        assert not parts
        return read


def _payload(frame: bytes) -> bytes:
    length = frame[1]
    start = {126: 4, 127: 10}.get(length, 2)
    return frame[start:]


def text(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "x": "x" * size}, separators=(",", ":")).encode()


def test_the_transport_below_is_told_to_hold_little() -> None:
    assert World().wire.holds_little


def test_after_quiet_a_frame_goes_at_once() -> None:
    world = World()
    assert world.send(text(1)) is True
    assert world.messages() == [text(1)]


def test_what_comes_faster_than_the_pace_goes_one_frame_a_tick() -> None:
    world = World()
    assert world.send(text(0), text(1), text(2)) is True
    assert len(world.wire.sent) == 1
    world.tick()
    assert len(world.wire.sent) == 2
    world.tick()
    assert len(world.wire.sent) == 3
    assert world.messages() == [text(0), text(1), text(2)]
    assert world.actor.told == []


def test_about_one_frame_waits_here_and_the_rest_with_the_actor() -> None:
    world = World(batches=True)
    assert world.send(text(0), text(1, 1100)) is False
    world.tick()
    assert world.actor.told == ["writable"]  # a fragment of it is gone
    assert world.send(text(2, 1100)) is False
    assert len(world.wire.sent) == 2
    world.tick(4)
    assert world.actor.told == ["writable"] * 2
    assert world.messages() == [text(0), text(1, 1100), text(2, 1100)]


def test_who_accepts_batches_gets_what_waits_in_one_frame() -> None:
    world = World(batches=True)
    world.send(text(0))
    assert world.send(text(1), text(2)) is True
    assert world.send(text(3)) is True
    world.tick()
    assert len(world.wire.sent) == 2
    assert world.messages() == [text(n) for n in range(4)]


def test_an_only_message_is_no_array() -> None:
    world = World(batches=True)
    world.send(text(0))
    world.send(text(1))
    world.tick()
    assert world.wire.sent[1].texts == [text(1)]


def test_a_batch_is_no_longer_than_a_frame_may_be() -> None:
    world = World(batches=True)
    texts = [text(n, 100) for n in range(40)]
    world.send(*texts)
    world.tick(20)
    assert world.messages() == texts
    assert 4 <= len(world.wire.sent) <= 6


def test_a_long_message_goes_in_fragments_and_nothing_comes_between_them() -> None:
    world = World(batches=True)
    texts = [text(0), text(1, 5000), text(2)]
    world.send(*texts)
    world.send(text(3))
    world.tick(20)
    assert world.messages() == [*texts, text(3)]
    assert sum(isinstance(batch, Fragment) for batch in world.wire.sent) == 5


def test_under_a_server_that_frames_itself_a_long_message_stays_whole() -> None:
    world = World()
    world.paced.writes_frames = False
    world.send(text(1, 5000))
    assert [batch.texts for batch in world.wire.sent] == [[text(1, 5000)]]


def test_a_full_socket_is_waited_for() -> None:
    world = World()
    world.wire.takes = False
    assert world.send(text(0), text(1)) is False
    world.tick(10)
    assert len(world.wire.sent) == 1
    world.wire.takes = True
    world.paced.writable()
    world.tick()
    assert world.messages() == [text(0), text(1)]
    assert world.actor.told == ["writable"]


def test_the_actor_is_not_told_to_go_on_while_the_socket_is_full() -> None:
    world = World()
    world.wire.takes = False
    world.send(text(0))
    world.tick(3)
    assert world.actor.told == []
    world.paced.writable()
    world.tick()
    assert world.actor.told == ["writable"]


def test_what_piled_up_before_a_peer_that_did_not_read_gets_a_second_of_its_own() -> None:
    for full_s, rest_s in ((STALLED_S / 2, TICK_S), (STALLED_S, 1.0)):
        world = World()
        world.wire.takes = False
        world.send(text(0), text(1), text(2))
        world.clock._at += full_s
        world.wire.takes = True
        world.paced.writable()
        before = world.clock.now().at
        while len(world.wire.sent) < 2:
            world.tick()
        assert world.clock.now().at - before == pytest.approx(rest_s)
        world.tick()
        assert len(world.wire.sent) == 3


def test_a_close_comes_after_what_was_sent_and_at_the_latest_in_its_time() -> None:
    world = World()
    world.send(text(0), text(1))
    world.paced.close(1001, "bye")
    assert world.wire.closed == []
    world.tick()
    assert world.wire.closed == [(1001, "bye")]
    assert world.messages() == [text(0), text(1)]

    world = World()
    world.wire.takes = False
    world.send(text(0), text(1))
    world.paced.close(1001, "bye")
    world.tick(round(LIMITS.close_within_s / TICK_S) - 2)
    assert world.wire.closed == []
    world.tick(3)
    assert world.wire.closed == [(1001, "bye")]


def test_a_close_with_nothing_waiting_is_a_close() -> None:
    world = World()
    world.paced.close(1013, "full")
    assert world.wire.closed == [(1013, "full")]


def test_everything_else_passes() -> None:
    world = World()
    world.wire.port.received([b"{}"])
    world.wire.port.partial(7)
    world.wire.port.ponged()
    world.wire.port.closed(1000)
    assert world.actor.told == [[b"{}"], "partial 7", "ponged", 1000]
    world.paced.pause_reading()
    assert not world.wire.reading
    world.paced.resume_reading()
    assert world.wire.reading
    world.paced.abort()
    assert world.wire.aborted


def test_after_the_end_nothing_is_sent() -> None:
    world = World()
    world.send(text(0), text(1))
    world.wire.port.closed(1006)
    world.tick(3)
    assert len(world.wire.sent) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans()), max_size=40),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_whatever_is_sent_arrives_in_order_and_no_second_has_too_many_frames(
    story: list[tuple[int, int, bool]], batches: bool, seed: int
) -> None:
    world = World(batches=batches)
    world.late = random.Random(seed)
    said: list[bytes] = []
    times: list[float] = []
    for count, ticks, long in story:
        texts = [text(len(said) + n, 3000 if long else 50) for n in range(count)]
        said += texts
        if texts:
            world.send(*texts)
        for _ in range(ticks):
            times += [world.clock.now().at] * (len(world.wire.sent) - len(times))
            world.tick()
    while world.pace._waiting:
        times += [world.clock.now().at] * (len(world.wire.sent) - len(times))
        world.tick()
    times += [world.clock.now().at] * (len(world.wire.sent) - len(times))
    assert world.messages() == said
    for start in times:
        assert sum(start <= at < start + 1 for at in times) <= 202


def test_frames_sent_between_late_ticks_do_not_add_to_the_pace() -> None:
    world = World(batches=True)
    sent_at: list[float] = []
    for number in range(5000):
        world.clock._at += 0.0005
        world.send(text(number))
        if number % 11 == 10:  # ticks that are half a millisecond late
            waiting, world.pace._waiting = world.pace._waiting, set()
            for transport in waiting:
                transport.tick()
        sent_at += [world.clock.now().at] * (len(world.wire.sent) - len(sent_at))
    for start in sent_at:
        assert sum(start <= at < start + 1 for at in sent_at) <= 202


@pytest.mark.anyio
async def test_a_transport_that_fails_in_a_tick_ends_nobody_else() -> None:
    class Broken(Wire):
        def send(self, batch: Batch) -> bool:
            raise RuntimeError("broken")

    clock = VirtualClock()
    pace = Pace(LIMITS, clock)
    actors = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pace.keep)
        for wire in (Broken(), Wire()):
            paced, actor = PacedTransport(wire, pace, LIMITS), Actor()
            await paced.run(actor)
            paced._due = clock.now().at + TICK_S / 2  # a frame has just gone
            paced.send(Batch([text(0)]))
            actors.append(actor)
        await clock.advance(3 * TICK_S)
        tasks.cancel_scope.cancel()
    assert [type(told) for told in actors[0].told] == [RuntimeError]
    assert len(wire.sent) == 1


@pytest.mark.anyio
async def test_a_connection_that_fails_is_closed() -> None:
    class Broken(Wire):
        def send(self, batch: Batch) -> bool:
            super().send(batch)
            if self.closed or len(self.sent) > 1:
                raise RuntimeError("broken")
            return True

    clock, wire = VirtualClock(), Broken()
    supervisor = Supervisor("m", LIMITS, clock)
    actor = supervisor.open(wire, is_paced=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor.run)
        await actor.run()
        wire.port.received([b'{"type":"presence","from":"a"}'])
        await clock.advance(1)
        wire.port.received([b'{"type":"capabilities"}'] * 9)
        await clock.advance(1)
        assert [code for code, _ in wire.closed] == [1011]
        tasks.cancel_scope.cancel()
    assert len(wire.sent) == 2


def test_a_connection_that_fails_while_it_is_being_closed_is_cut() -> None:
    world = World()
    world.send(text(0), text(1))
    world.paced.close(1001, "bye")
    error = RuntimeError("broken")
    world.paced.crashed(error)
    world.tick(2)
    assert world.actor.told == [error]
    assert world.wire.aborted
    assert len(world.wire.sent) == 1


def test_a_close_that_waits_can_be_hurried() -> None:
    world = World()
    world.paced.hurry()
    world.send(text(0), text(1))
    world.paced.hurry()
    assert world.wire.closed == []
    world.paced.close(1001, "bye")
    world.paced.hurry()
    world.paced.hurry()
    world.tick(2)
    assert world.wire.closed == [(1001, "bye")]
    assert len(world.wire.sent) == 1


def test_what_concerns_reading_goes_through_in_both_directions() -> None:
    world = World()
    world.paced.charge(7)
    assert world.wire.charged == [7]
    assert world.paced.turn_s(8.0, 9.0) == 0.5
    assert world.actor.told == ["turn 8.0 9.0"]


def test_a_close_happens_once() -> None:
    world = World()
    world.wire.takes = False
    world.send(text(0), text(1))
    world.paced.close(1001, "")
    world.tick(round(LIMITS.close_within_s / TICK_S) + 2)
    world.paced.writable()
    world.tick(2)
    assert world.wire.closed == [(1001, "")]


@pytest.mark.anyio
async def test_the_pace_ticks_only_while_something_waits() -> None:
    clock = VirtualClock()
    pace = Pace(LIMITS, clock)
    wire = Wire()
    paced = PacedTransport(wire, pace, LIMITS)
    await paced.run(Actor())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pace.keep)
        paced.send(Batch([text(0), text(1), text(2)]))
        await clock.advance(3 * TICK_S)
        assert len(wire.sent) == 3
        await clock.advance(10.0)
        assert not clock._sleepers
        tasks.cancel_scope.cancel()


SESSION = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "s" * 33}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pace", "headers", "is_paced"),
    [
        ("auto", SESSION, True),
        ("auto", {"X-Amzn-Bedrock-AgentCore-Runtime-Custom-Note": "x"}, True),
        ("auto", {"X-Amzn-Trace-Id": "x"}, False),
        ("auto", {}, False),
        ("on", {}, True),
        ("off", SESSION, False),
    ],
)
async def test_the_profile_is_on_for_what_comes_through_the_edge(
    pace: str, headers: dict[str, str], is_paced: bool
) -> None:
    with LiveRelay(pace=pace) as live:
        plain = {"compression": None}
        options: dict[str, Any] = {"additional_headers": headers, **plain}
        async with (
            open_socket(live.url, **options) as ann,
            open_socket(live.url, **options) as bob,
        ):
            for socket, id in ((ann, "ann"), (bob, "bob")):
                data = {"agents": [], "accept": ["batch"]}
                await socket.send(json.dumps({"type": "presence", "from": id, "data": data}))
                await socket.recv()
            await ann.send('{"type":"capabilities"}')
            limits: dict[str, Any] = {}
            while not limits:
                frame = json.loads(await ann.recv())
                for message in frame if isinstance(frame, list) else [frame]:
                    if message["type"] == "capabilities_response":
                        limits = message["data"]["limits"]
            assert ("framesPerSecond" in limits) == is_paced
            batch = [{"type": "broadcast", "data": n} for n in range(1000)]
            await ann.send(json.dumps(batch))
            seen: list[int] = []
            frames = 0
            with anyio.fail_after(PATIENCE_S):
                while len(seen) < 1000:
                    frame = json.loads(await bob.recv())
                    frames += 1
                    for message in frame if isinstance(frame, list) else [frame]:
                        if message["type"] == "broadcast":
                            seen.append(message["data"])
            assert seen == list(range(1000))
            assert (frames < 100) == is_paced


@pytest.mark.anyio
async def test_at_shutdown_a_paced_peer_gets_what_was_decided_for_it() -> None:
    with LiveRelay(pace="on") as live:
        async with open_socket(live.url) as ann:
            await ann.send('{"type":"presence","from":"ann"}')
            batch = [{"type": "capabilities", "turnId": n} for n in range(50)]
            await ann.send(json.dumps(batch))
            await ann.recv()
            live.server.should_exit = True
            turns = []
            with pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    turns.append(json.loads(await ann.recv())["turnId"])
            assert turns == list(range(50))
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 10_000])
async def test_at_shutdown_a_paced_peer_is_told_even_if_there_is_no_time_for_all(size: int) -> None:
    # In the actor's outbox, or all of it with the pace.
    limits = Limits(drain_s=1.0, frames_per_s=100, frame_bytes_max=20_000)
    with LiveRelay(limits, pace="on") as live:
        async with (
            open_socket(live.url, max_queue=None) as ann,
            open_socket(live.url) as bob,
        ):
            for peer, id in ((ann, "ann"), (bob, "bob")):
                await peer.send(json.dumps({"type": "presence", "from": id}))
                await peer.recv()
            batch = [{"type": "broadcast", "n": n, "data": "x" * size} for n in range(300)]
            for message in batch:
                await bob.send(json.dumps(message))
            await bob.send('{"type":"capabilities"}')
            while json.loads(await bob.recv())["type"] != "capabilities_response":
                pass
            live.server.should_exit = True
            heard = []
            with anyio.fail_after(PATIENCE_S), pytest.raises(websockets.ConnectionClosed) as closed:
                while True:
                    message = json.loads(await ann.recv())
                    if message["type"] == "broadcast":
                        heard.append(message["n"])
    assert heard == list(range(len(heard)))
    assert 0 < len(heard) < 300
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


@pytest.mark.anyio
async def test_a_peer_that_does_not_read_for_a_while_is_not_flooded_when_it_reads_again() -> None:
    """Through the stand-in, which closes a connection that carries 250 frames in a second."""
    issuer, mesh, count = Issuer(), session_id("m"), 400
    runtime = HostedRuntime(environ={"RELAY_REAP_AFTER_S": "600"})  # on a slow machine, too
    with anyio.fail_after(PATIENCE_S), socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with Edge([runtime], issuer.get) as edge:
            narrow.connect(("127.0.0.1", edge.port))
            narrow.setblocking(False)
            options: dict[str, Any] = {"compression": None, "max_queue": 4, "ping_interval": None}
            url = edge.url_for(issuer.issue(), mesh)
            async with open_socket(url, sock=narrow, **options) as slow:
                await slow.send('{"type":"presence","from":"slow"}')
                await slow.recv()
                # The sender is in the same machine, where nobody counts.
                relay = f"ws://127.0.0.1:{edge.sessions[0].port}/ws?mesh={mesh}"
                async with open_socket(relay) as sender:
                    await sender.send('{"type":"presence","from":"sender"}')
                    for n in range(count):
                        message = {"type": "broadcast", "n": n, "data": "x" * 3000}
                        await sender.send(json.dumps(message))
                    # Meanwhile all of them could have gone. (A slower machine proves less, and
                    # fails no more often.)
                    await anyio.sleep(count / 200)
                    (traffic,) = edge.traffic
                    assert traffic.down.frames < count / 2, "the stall reaches the relay"
                    heard: list[int] = []
                    while len(heard) < count:
                        message = json.loads(await slow.recv())
                        if message["type"] == "broadcast":
                            heard.append(message["n"])
                    assert heard == list(range(count))
                    assert traffic.down.frames_per_s_max < 250


@pytest.mark.parametrize("accepts", [False, True], ids=["no arrays", "arrays"])
def test_who_is_evicted_though_it_reads_is_told_of_the_pace(accepts: bool) -> None:
    limits = Limits(mailbox_messages_max=5, frame_bytes_max=1024)
    supervisor = Supervisor("mesh", limits, VirtualClock())
    wire, sender = Wire(), Wire()
    slow, fast = supervisor.open(wire, is_paced=True), supervisor.open(sender)
    for actor, id in ((slow, "slow"), (fast, "fast")):
        data = {"agents": [], "accept": ["batch"] if accepts else []}
        said = {"type": "presence", "from": id, "data": data}
        actor.received([json.dumps(said).encode()])
        supervisor.round()
    for _ in range(10):
        fast.received([b'{"type":"stream","data":"' + b"x" * 600 + b'"}'])
        supervisor.round()
    assert slow.is_stopped
    wire.takes = True
    slow._transport.hurry()  # type: ignore[attr-defined]
    [(code, reason)] = wire.closed
    assert code == 1013
    assert "200 frames a second" in reason
    assert ("data.accept" in reason) is not accepts
    assert len(reason.encode()) <= 123
