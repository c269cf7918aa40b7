"""The runtime on both backends: meshes come and go, everything is bounded, crashes are
contained."""

import json
import logging
import threading
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

from actors.clock import VirtualClock
from actors.link import LinkClosed
from actors.relay.journal import Journal
from actors.relay.rests import FEW
from actors.relay.runtime import Full, Runtime
from actors.transports.memory import MemoryLink, memory_pair
from actors.transports.transport import Port
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.status import Totals

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Tests that wait until all tasks are blocked use a virtual clock. A busy mesh rests for a moment
# after a small flush, and a task that sleeps is blocked, too. On a clock that stands still no flush
# takes time.


async def joined(runtime: Runtime, id: str, mesh: str = "m", window: int = 256) -> MemoryLink:
    link = await runtime.connect(mesh, window)
    await link.send(json.dumps({"type": "presence", "from": id, "data": {"agents": []}}))
    while json.loads(await link.receive())["from"] != id:
        pass
    return link


async def test_two_peers_in_memory_exchange_messages() -> None:
    async with Runtime() as runtime:
        a, b = await joined(runtime, "a"), await joined(runtime, "b")
        assert json.loads(await a.receive())["from"] == "b"
        assert json.loads(await b.receive())["from"] == "a"
        text = json.dumps({"type": "stream", "from": "a", "data": "\ud83d"})
        await a.send(text)
        assert await b.receive() == text
        assert runtime.connections == 2


async def test_connections_of_all_meshes_take_turns_in_one_crowd() -> None:
    async with Runtime(Limits(crowd_bytes_per_s=1024.0)) as runtime:
        actors = [runtime.open(memory_pair(1)[1], mesh) for mesh in ("one", "two")]
        assert [actor.turn_s(2048.0, at=0.0) for actor in actors] == [0.0, pytest.approx(2.0)]
        for actor in actors:
            actor.abort()
            actor.closed(1006)


async def test_a_mesh_begins_with_its_first_connection_and_ends_with_its_last() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        assert runtime.status() == ()
        a = await joined(runtime, "a", "one")
        b = await joined(runtime, "b", "two")
        assert sorted(mesh.name for mesh in runtime.status()) == ["one", "two"]
        a.close()
        b.close()
        await anyio.wait_all_tasks_blocked()
        assert runtime.status() == ()
        assert runtime.totals().joined == 2
        assert (await joined(runtime, "c", "one")) is not None


async def test_time_is_injected_a_silent_peer_is_reaped_after_30_seconds_of_the_clock() -> None:
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        a, b = await joined(runtime, "a"), await joined(runtime, "b")
        await a.receive()
        await b.receive()
        await clock.advance(20.0)
        await a.send('{"type":"heartbeat"}')
        assert json.loads(await b.receive())["from"] == "a"
        await clock.advance(9.9)
        assert runtime.connections == 2
        await clock.advance(0.6)
        with pytest.raises(LinkClosed) as closed:
            await b.receive()
        assert closed.value.code == 1008
        gone = json.loads(await a.receive())
        assert gone["data"]["reason"] == "silent"
        assert gone["timestamp"] == 1_030_000


async def test_ten_minutes_pass_in_no_time_with_heartbeats() -> None:
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        a = await joined(runtime, "a")
        for _ in range(60):
            await clock.advance(10.0)
            await a.send('{"type":"heartbeat"}')
        assert runtime.connections == 1


async def test_leaving_the_runtime_flushes_and_closes_with_1001() -> None:
    async with Runtime() as runtime:
        a, b = await joined(runtime, "a"), await joined(runtime, "b")
        await b.receive()
        for n in range(100):
            await a.send(json.dumps({"type": "stream", "n": n}))
    received = []
    with pytest.raises(LinkClosed) as closed:
        while True:
            received.append(json.loads(await b.receive()))
    assert closed.value.code == 1001
    assert [m["n"] for m in received] == list(range(100))


async def test_a_draining_runtime_takes_nobody() -> None:
    async with Runtime() as runtime:
        await runtime.drain()
        with pytest.raises(Full):
            await runtime.connect("m")


async def test_draining_is_bounded_and_who_does_not_take_what_is_queued_hears_why_it_ends() -> None:
    limits = Limits(drain_s=0.05)
    async with Runtime(limits, VirtualClock()) as runtime:
        a, b = await joined(runtime, "a"), await joined(runtime, "b", window=1)
        for _ in range(10):
            await a.send('{"type":"stream"}')
        await anyio.wait_all_tasks_blocked()
    received = []
    with pytest.raises(LinkClosed) as closed:
        while True:
            received.append(await b.receive())
    assert closed.value.code == 1001
    assert len(received) < 10


async def test_a_mesh_does_not_run_in_the_context_of_its_first_connection() -> None:
    trace = ContextVar("trace", default="none")
    seen = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), trace.get()))

    log, handler = logging.getLogger(Journal.__module__), Handler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with Runtime(clock=VirtualClock()) as runtime:
            trace.set("that of the first connection")
            a = await joined(runtime, "a")
            a.close()
            await anyio.wait_all_tasks_blocked()
    finally:
        log.setLevel(logging.NOTSET)
        log.removeHandler(handler)
    assert seen == [("joined", "none"), ("left", "none")]


async def test_totals_never_go_back_for_who_reads_them_from_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add, seen = Totals.__add__, []

    def add_and_let_others_look(one: Totals, other: Totals) -> Totals:
        if threading.current_thread() is threading.main_thread() and not threads:
            threads.append(threading.Thread(target=look))
            threads[0].start()
            threads[0].join(0.2)
        return add(one, other)

    def look() -> None:
        seen.append(runtime.totals().joined)

    threads: list[threading.Thread] = []
    async with Runtime(clock=VirtualClock()) as runtime:
        a = await joined(runtime, "a")
        monkeypatch.setattr(Totals, "__add__", add_and_let_others_look)
        a.close()
        await anyio.wait_all_tasks_blocked()
        threads[0].join()
    assert seen == [1]


@pytest.mark.parametrize("passes", [1, 2, 3])
async def test_after_a_pause_of_the_process_nobody_is_reaped_whose_heartbeat_had_come(
    passes: int,
) -> None:
    """The clock jumps, as over a suspended process. What had arrived before is delivered by the
    event loop a few passes later, as sockets do it."""
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        beating, silent = await joined(runtime, "beating"), await joined(runtime, "silent")

        async def deliver_late() -> None:
            await clock.sleep(40.0)
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            await beating.send(json.dumps({"type": "heartbeat"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver_late)
            await anyio.wait_all_tasks_blocked()
            await clock.jump(40.0)
        ((status,),) = (mesh.peers for mesh in runtime.status())
        assert status.peer == "beating"
        assert beating.is_open
        assert not silent.is_open


async def test_meshes_and_connections_are_bounded() -> None:
    async with Runtime(Limits(meshes_max=2, connections_max=2)) as runtime:
        await runtime.connect("one")
        await runtime.connect("one")
        with pytest.raises(Full, match="connections_max"):
            await runtime.connect("one")
        await joined(runtime, "a", "two")
        await joined(runtime, "b", "three")
        with pytest.raises(Full, match="meshes_max"):
            await runtime.connect("four")


async def test_meshes_in_which_nobody_is_present_keep_nobody_out() -> None:
    async with Runtime(Limits(meshes_max=2)) as runtime:
        for n in range(10):
            await runtime.connect(f"empty {n}")
        await joined(runtime, "a", "one")
        await joined(runtime, "b", "two")
        assert await joined(runtime, "c", "one")  # where somebody is already


async def test_a_presence_in_one_mesh_too_many_is_refused_until_there_is_room() -> None:
    async with Runtime(Limits(meshes_max=2), VirtualClock()) as runtime:
        third, stranger = await runtime.connect("three"), await runtime.connect("one")
        a = await joined(runtime, "a", "one")
        await joined(runtime, "b", "two")
        presence = json.dumps({"type": "presence", "from": "c", "data": {"agents": []}})
        await third.send(presence)
        refused = json.loads(await third.receive())
        assert refused["data"]["code"] == "no_room"
        a.close()
        await anyio.wait_all_tasks_blocked()
        assert stranger.is_open  # its mesh goes on, and nobody is present there
        await third.send(presence)
        assert json.loads(await third.receive())["from"] == "c"


async def test_of_too_many_unannounced_connections_the_oldest_has_to_go() -> None:
    async with Runtime(Limits(unannounced_max=3), VirtualClock()) as runtime:
        present = await joined(runtime, "a", "one")
        strangers = [await runtime.connect(f"mesh {n}") for n in range(3)]
        await anyio.wait_all_tasks_blocked()
        assert all(stranger.is_open for stranger in strangers)
        strangers[1].close()
        await anyio.wait_all_tasks_blocked()
        strangers += [await runtime.connect("one") for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        assert [stranger.is_open for stranger in strangers] == [False] * 3 + [True] * 3
        with pytest.raises(LinkClosed) as closed:
            await strangers[0].receive()
        assert closed.value.code == 1013
        assert present.is_open
        assert await joined(runtime, "b", "one")


async def test_displaced_connections_are_logged_once_in_a_while_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = VirtualClock()
    async with Runtime(Limits(unannounced_max=1), clock) as runtime:
        with caplog.at_level(logging.WARNING):
            for seconds in (0.0, 0.0, 0.0, 10.0, 0.0):
                await clock.advance(seconds)
                await runtime.connect("m")
        lines = [r for r in caplog.records if r.message == "too many unannounced connections"]
        assert [vars(line)["displaced"] for line in lines] == [1, 2]


async def test_a_link_that_does_not_receive_waits_in_its_mailbox_and_is_evicted_when_full() -> None:
    async with Runtime(Limits(mailbox_messages_max=50), VirtualClock()) as runtime:
        a = await joined(runtime, "a")
        stuck = await joined(runtime, "stuck", window=10)
        for n in range(100):
            await a.send(json.dumps({"type": "stream", "n": n}))
            await anyio.wait_all_tasks_blocked()
        await a.send('{"type":"capabilities"}')  # answered after all that (the mesh may rest)
        while json.loads(await a.receive())["type"] != "capabilities_response":
            pass
        with pytest.raises(LinkClosed) as closed:
            while True:
                await stuck.receive()
        assert closed.value.code == 1013


class CrashingTransport:
    """Carries nothing and raises at once."""

    writes_frames = False

    def __init__(self) -> None:
        self.closed = False

    async def run(self, port: Port) -> None:
        raise RuntimeError("a bug in a transport")

    def hold_little(self) -> None: ...

    def send(self, batch: object) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def charge(self, bytes: int) -> None:
        pass

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def test_a_transport_that_raises_ends_its_own_connection_only() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        a = await joined(runtime, "a")
        await runtime.serve(CrashingTransport(), "m")
        await anyio.wait_all_tasks_blocked()
        assert runtime.connections == 1
        await a.send('{"type":"capabilities"}')
        assert json.loads(await a.receive())["type"] == "capabilities_response"


async def test_a_supervisor_that_crashes_takes_its_mesh_with_it_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Runtime() as runtime:
        doomed, other = await joined(runtime, "a", "doomed"), await joined(runtime, "b", "other")
        supervisor = runtime._meshes["doomed"]
        monkeypatch.setattr(supervisor, "round", lambda: 1 / 0)
        await doomed.send('{"type":"stream"}')
        with pytest.raises(LinkClosed):
            await doomed.receive()
        await other.send('{"type":"capabilities"}')
        assert json.loads(await other.receive())["type"] == "capabilities_response"
        assert (await joined(runtime, "again", "doomed")) is not None


async def test_a_cancelled_serve_cuts_its_connection() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        link, transport = memory_pair()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.serve, transport, "m")
            await anyio.wait_all_tasks_blocked()
            assert runtime.connections == 1
            tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert runtime.connections == 0
        with pytest.raises(LinkClosed):
            await link.receive()


class SlowClock(VirtualClock):
    """Every look at this clock takes 2 ms, so that a round takes time."""

    def now(self) -> Instant:
        self._at += 0.002
        return super().now()


async def test_the_first_message_after_a_pause_never_waits_and_a_busy_mesh_rests() -> None:
    clock = SlowClock()
    async with Runtime(clock=clock) as runtime:
        links = [await runtime.connect("m") for _ in range(FEW + 1)]
        for number, link in enumerate(links):
            await link.send(json.dumps({"type": "presence", "from": f"peer {number}"}))
        await clock.advance(1.0)
        sender, listener = links[:2]
        for _ in links:
            await listener.receive()
        await sender.send('{"type":"stream","n":1}')
        assert json.loads(await listener.receive())["n"] == 1
        await sender.send('{"type":"stream","n":2}')
        await sender.send('{"type":"stream","n":3}')
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert runtime.totals().relayed == FEW + 2  # the presences and one message: the mesh rests
        await clock.advance(0.01)
        assert [json.loads(await listener.receive())["n"] for _ in range(2)] == [2, 3]
        await clock.advance(0.01)  # so that it does not end in the middle of a rest


async def test_a_round_of_many_messages_has_no_rest_after_it() -> None:
    clock = SlowClock()
    async with Runtime(clock=clock) as runtime:
        a, b = await runtime.connect("m"), await runtime.connect("m")
        await a.send('{"type":"presence","from":"a"}')
        await b.send('{"type":"presence","from":"b"}')
        await clock.advance(0.1)
        for round in range(3):
            actor = runtime._meshes["m"]._actors[1]
            actor.received([b'{"type":"stream"}'] * 20)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert runtime.totals().relayed == 2 + 20 * (round + 1)
