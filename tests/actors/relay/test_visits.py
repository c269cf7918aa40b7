"""Visits through the runtime: in the order of the mesh, counted, bounded, and always answered."""

import json
from typing import Any

import anyio
import pytest

from actors.clock import VirtualClock
from actors.relay.ledger import CONNECTION_BYTES
from actors.relay.runtime import Full, Runtime
from actors.relay.supervisor import Supervisor
from actors.relay.visits import PART, VisitActor
from actors.transports.memory import MemoryLink
from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh
from protocol.mesh.visiting import Receipt, Visits
from tests.worlds.live import PATIENCE_S

pytestmark = pytest.mark.anyio

SAID = '{"type":"broadcast","from":"cron"}'


def array(count: int, **fields: Any) -> str:
    return json.dumps([{"type": "stream", "from": "cron", "n": n, **fields} for n in range(count)])


async def present(runtime: Runtime, id: str, **options: Any) -> MemoryLink:
    link = await runtime.connect("m", **options)
    await link.send(json.dumps({"type": "presence", "from": id}))
    assert json.loads(await link.receive())["from"] == id
    return link


def waiting(runtime: Runtime, said: str) -> VisitActor:
    """A visit that is decided in the next rounds."""
    visit = runtime.visit("m")
    visit.take(said.encode())
    visit.complete()
    runtime._meshes["m"].visits.put(visit)
    return visit


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_embedder_says_something_without_a_connection() -> None:
    async with Runtime() as runtime:
        link = await present(runtime, "a")
        assert await runtime.send("m", SAID) == [Receipt(1)]
        assert await link.receive() == SAID
        [receipt] = await runtime.send("m", '{"type":"broadcast"}')
        assert receipt.code == "bad_field"
        assert await runtime.send("m", '{"type":"ack"}', grant=Grant(peer="ann")) == [Receipt(1)]
        assert json.loads(await link.receive())["from"] == "ann"
        [receipt] = await runtime.send("m", '{"type":"ack","from":"\ud83d"}')
        assert receipt.code == "malformed"
        with pytest.raises(PermissionError):
            await runtime.send("m", SAID, grant=Grant(meshes=("other",)))
        assert runtime.connections == 1
        assert runtime.totals().received == 5


async def test_a_mesh_without_connections_refuses_what_is_wrong_and_is_none_afterwards() -> None:
    async with Runtime() as runtime:
        assert await runtime.send("m", SAID) == [Receipt(0)]
        assert [its.code for its in await runtime.send("m", '{"type":"direct","from":"x"}')] == [
            "bad_field"
        ]
        assert len(await runtime.send("m", array(500))) == 500
        assert runtime.status() == ()
        totals = runtime.totals()
        assert (totals.received, totals.relayed, totals.refused) == (502, 501, 1)
        assert runtime.held_bytes == 0


async def test_a_long_visit_takes_turns_with_the_connections_and_is_in_their_order() -> None:
    limits = Limits(quantum_messages=4)
    async with Runtime(limits) as runtime:
        a, b = await present(runtime, "a"), await present(runtime, "b")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.send, "m", array(40))
            for n in range(40):
                await b.send(json.dumps({"type": "stream", "from": "b", "n": n}))
        got: list[tuple[str, int]] = []
        with anyio.fail_after(PATIENCE_S):
            while len(got) < 80:
                message = json.loads(await a.receive())
                if message["type"] == "stream":
                    got.append((message["from"], message["n"]))
        for sender in ("cron", "b"):
            assert [n for who, n in got if who == sender] == list(range(40))
        assert got[:40] != [("cron", n) for n in range(40)]


async def test_all_visits_together_have_a_part_of_a_round() -> None:
    limits = Limits(quantum_messages=4, round_messages_max=64)
    async with Runtime(limits) as runtime:
        link = await present(runtime, "a")
        supervisor = runtime._meshes["m"]
        visits = [waiting(runtime, array(8)) for _ in range(20)]
        before = runtime.totals().relayed
        supervisor.round()
        assert runtime.totals().relayed - before == 64 // PART
        while supervisor.has_work:
            supervisor.round()
        assert [len(visit.receipts) for visit in visits] == [8] * 20
        link.close()


async def test_what_visits_use_of_a_round_is_not_there_for_connections() -> None:
    limits = Limits(quantum_messages=4, round_messages_max=64)
    async with Runtime(limits) as runtime:
        links = [await present(runtime, f"p{n}") for n in range(20)]
        supervisor = runtime._meshes["m"]
        while supervisor.has_work:
            supervisor.round()
        waiting(runtime, array(16))
        for actor in supervisor._actors.values():
            actor.received([b'{"type":"heartbeat"}'] * 4)
        supervisor.round()
        types = runtime.totals().types
        assert (types["stream"], types["heartbeat"]) == (4, 60)
        for link in links:
            link.close()


async def test_work_that_a_visit_makes_beside_its_messages_counts() -> None:
    limits = Limits(quantum_messages=8, round_messages_max=64)
    async with Runtime(limits) as runtime:
        links = [await present(runtime, "many") for _ in range(60)]
        supervisor = runtime._meshes["m"]
        while supervisor.has_work:
            supervisor.round()
        said = '{"type":"direct","from":"cron","to":"many"}'
        visits = [waiting(runtime, said) for _ in range(10)]
        supervisor.round()
        assert sum(visit.is_stopped for visit in visits) == 2  # 8 of 16 each
        for link in links:
            link.close()


async def test_long_messages_of_visits_are_decided_a_few_in_a_round() -> None:
    async with Runtime(Limits(bytes_in_burst=2**30)) as runtime:
        link = await present(runtime, "a")
        supervisor = runtime._meshes["m"]
        said = json.dumps({"type": "ack", "from": "x", "data": "x" * 200_000})
        visits = [waiting(runtime, said) for _ in range(20)]
        supervisor.round()
        assert 1 <= sum(visit.is_stopped for visit in visits) <= 3
        while supervisor.has_work:
            supervisor.round()
        assert all(visit.receipts == [Receipt(1)] for visit in visits)
        link.close()


async def test_a_visit_is_counted_from_its_first_byte_to_its_answer() -> None:
    async with Runtime() as runtime:
        with runtime.visit("m", Grant(peer="ann")) as visit:
            assert runtime.held_bytes == CONNECTION_BYTES
            visit.take(b"x" * 1000)
            assert runtime.held_bytes == CONNECTION_BYTES + 1000
            assert runtime.ledger.connections_of("ann") == 1
            [receipt] = await runtime.say(visit)
            assert receipt.code == "malformed"
        assert runtime.held_bytes == 0
        assert runtime.ledger.connections_of("ann") == 0


async def test_visits_that_begin_and_never_end_are_bounded_for_each_bearer_and_for_all() -> None:
    limits = Limits(grant_connections_max=3, held_bytes_max=2**24, mailbox_bytes_max=2**22)
    async with Runtime(limits) as runtime:
        visits = []
        for _ in range(3):
            visits.append(runtime.visit("m", Grant(peer="ann")).__enter__())
        with pytest.raises(Full, match="grant_connections_max"):
            runtime.visit("m", Grant(peer="ann"))
        with pytest.raises(Full, match="held_bytes_max"):
            for _ in range(2**24 // CONNECTION_BYTES):
                visits.append(runtime.visit("m").__enter__())
        for visit in visits:
            visit.__exit__()
        assert runtime.held_bytes == 0


async def test_if_the_process_holds_too_much_the_largest_visit_goes_and_says_why() -> None:
    limits = Limits(held_bytes_max=2**23, mailbox_bytes_max=2**22, bytes_in_burst=2**30)
    async with Runtime(limits) as runtime:
        await present(runtime, "a")
        visits: list[VisitActor] = []
        for _ in range(12):
            visits.append(runtime.visit("m").__enter__())
            visits[-1].take(b" " * (2**20 - len(visits)))
            assert runtime.held_bytes <= 2**23
        evicted = [visit for visit in visits if visit.is_stopped]
        assert 4 <= len(evicted) < 12
        with pytest.raises(Full, match="holds too much"):
            await runtime.say(evicted[0])
        left = next(visit for visit in visits if not visit.is_stopped)
        [receipt] = await runtime.say(left)
        assert receipt.code == "malformed"
        for visit in visits:
            visit.__exit__()
        assert {peer.peer for peer in runtime.status()[0].peers} == {"a"}


async def test_a_visit_that_is_cancelled_while_it_waits_is_not_decided(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime() as runtime:
        await present(runtime, "a")
        before, supervisor = runtime.totals().received, runtime._meshes["m"]
        held_bytes = runtime.held_bytes
        with waiting(runtime, SAID):
            pass
        supervisor.round()
        assert "crashed" not in caplog.messages
        assert not supervisor.has_work
        assert runtime.totals().received == before
        assert runtime.held_bytes == held_bytes


async def test_a_failure_while_a_visit_is_decided_ends_this_visit_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Runtime() as runtime:
        link = await present(runtime, "a")
        with monkeypatch.context() as patch:
            patch.setattr(Visits, "decide", broken)
            with pytest.raises(Full, match="internal error"):
                await runtime.send("m", SAID)
        assert await runtime.send("m", SAID) == [Receipt(1)]
        assert await link.receive() == SAID


def broken(*_: object) -> int:
    raise ZeroDivisionError


async def test_a_visit_is_answered_when_its_mesh_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Runtime() as runtime:
        await present(runtime, "a")
        monkeypatch.setattr(Supervisor, "round", broken)
        with anyio.fail_after(PATIENCE_S), pytest.raises(Full, match="ended"):
            await runtime.send("m", SAID)
        monkeypatch.undo()
        assert await runtime.send("m", SAID) == [Receipt(0)]


async def test_a_visit_that_waits_is_decided_before_the_runtime_drains_and_none_after() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        link = await present(runtime, "a")
        visit = waiting(runtime, array(200))
        runtime._meshes["m"].drain()
        assert visit.receipts == [Receipt(1)] * 200
        assert json.loads(await link.receive())["n"] == 0
        await runtime.drain()
        with pytest.raises(Full, match="shutting down"):
            await runtime.send("m", SAID)


async def test_a_bearer_who_has_said_too_much_is_refused_before_anything_is_read() -> None:
    limits = Limits(messages_per_s=1, messages_burst=3)
    clock = VirtualClock()
    async with Runtime(limits, clock) as runtime:
        for _ in range(3):
            assert await runtime.send("m", SAID) == [Receipt(0)]
        [receipt] = await runtime.send("other mesh", SAID)
        assert receipt.code == "rate_limited"
        assert await runtime.send("m", SAID, grant=Grant(peer="cron")) == [Receipt(0)]


async def test_what_a_text_costs_more_than_plain_text_counts_for_its_bearer() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        heavy = json.dumps({"type": "ack", "from": "x", "data": [[]] * 200_000})
        await runtime.send("m", heavy)
        rates = next(iter(runtime._bearers._rates.values()))
        at = runtime._clock.now().at
        taken = (rates.bytes._due - at) * runtime.limits.bytes_in_per_s
        assert taken > 1.5 * len(heavy)


async def test_a_connection_does_not_pay_for_what_visits_cost() -> None:
    mesh = LocalMesh(Limits())
    assert mesh.codec.take_extra_bytes() == 0
    async with Runtime() as runtime:
        await present(runtime, "a")
        heavy = json.dumps({"type": "ack", "from": "x", "data": [[]] * 200_000})
        await runtime.send("m", heavy)
        assert runtime._meshes["m"].mesh.codec.take_extra_bytes() == 0
