"""Grants and claims through the runtime: from the opening to the wire and the logs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from actors.clock import VirtualClock
from actors.link import LinkClosed
from actors.relay.runtime import Full, Runtime
from actors.transports.memory import MemoryLink
from protocol.claims import Claim
from protocol.grants import Grant
from protocol.limits import Limits

pytestmark = pytest.mark.anyio

SECRET = "a secret of ann's"


async def say(link: MemoryLink, type: str, **fields: Any) -> None:
    await link.send(json.dumps({"type": type, **fields}))


async def present(runtime: Runtime, id: str, *agents: str, **options: Any) -> MemoryLink:
    """A connection that has said this, whatever came of it."""
    claim = options.pop("claim", None)
    link = await runtime.connect("m", **options)
    if claim is not None:
        await say(link, "capabilities", data=claim)
    await say(link, "presence", **{"from": id, "data": {"agents": agents}})
    await anyio.wait_all_tasks_blocked()
    return link


async def taken(link: MemoryLink) -> list[dict[str, Any]]:
    """What has arrived. The last element is the close, if it was closed."""
    await anyio.wait_all_tasks_blocked()
    got: list[dict[str, Any]] = []
    with anyio.move_on_after(0), contained(got):
        while True:
            got.append(json.loads(await link.receive()))
    return got


@contextmanager
def contained(got: list[dict[str, Any]]) -> Iterator[None]:
    try:
        yield
    except LinkClosed as closed:
        got.append({"closed": closed.code, "reason": closed.reason})


def summary(got: list[dict[str, Any]]) -> list[object]:
    return [
        m["closed"]
        if "closed" in m
        else m["data"].get("code", m["type"])
        if m["type"] == "error"
        else m["type"]
        for m in got
    ]


async def test_an_embedder_binds_a_peer_id_to_its_user() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        bob = await present(runtime, "bob")
        ann = await present(runtime, "bob", grant=Grant(peer="ann", agents=("coder",)))
        await say(ann, "presence", **{"from": "ann", "data": {"agents": ["coder"]}})
        await say(ann, "broadcast", **{"from": "planner"})
        await say(ann, "broadcast", **{"from": "coder"})
        got = await taken(ann)
        assert summary(got) == ["not_granted", "presence", "presence", "not_granted"]
        heard = [(m["type"], m["from"]) for m in await taken(bob)]
        assert heard == [("presence", "bob"), ("presence", "ann"), ("broadcast", "coder")]


async def test_a_grant_for_other_meshes_opens_nothing() -> None:
    async with Runtime() as runtime:
        for name in ("n", "m2"):
            with pytest.raises(PermissionError):
                await runtime.connect(name, grant=Grant(meshes=("m", "lab-*")))
        assert runtime.connections == 0
        for name in ("m", "lab-7"):
            await runtime.connect(name, grant=Grant(meshes=("m", "lab-*")))


async def test_who_may_not_watch_receives_no_batch_of_the_round() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        bob = await present(runtime, "bob")
        blind = await present(runtime, "ann", grant=Grant(may_watch=False))
        assert summary(await taken(blind)) == ["presence"]
        late = await present(runtime, "cid")
        await say(bob, "broadcast", **{"from": "bob"})
        await say(bob, "direct", **{"from": "bob", "to": "ann", "n": 1})
        await say(blind, "broadcast", **{"from": "ann"})
        late.close()
        assert summary(await taken(blind)) == ["direct"]
        told = [m["from"] for m in await taken(bob)]
        assert told == ["bob", "ann", "cid", "ann", "cid"]
        blind.close()


async def test_a_bearer_has_so_many_connections_whatever_its_peers_are_called() -> None:
    limits = Limits(grant_connections_max=3)
    async with Runtime(limits, VirtualClock()) as runtime:
        grant = Grant(peer="ann")
        links = [await present(runtime, f"ann/{n}", grant=grant) for n in range(3)]
        with pytest.raises(Full, match="grant_connections_max"):
            runtime.check_room("m", grant)
        with pytest.raises(Full, match="grant_connections_max"):
            await runtime.connect("another mesh", grant=grant)
        for other in (Grant(peer="bob"), Grant(), Grant(peer="ann/0")):
            await runtime.connect("m", grant=other)
        links[0].close()
        await anyio.wait_all_tasks_blocked()
        await present(runtime, "ann/0", grant=grant)
        with pytest.raises(Full):
            runtime.check_room("m", grant)


@pytest.mark.parametrize("end", ["left", "refused", "expired", "crashed"])
async def test_every_end_of_a_connection_makes_room_for_its_bearer(end: str) -> None:
    clock = VirtualClock()
    async with Runtime(Limits(grant_connections_max=1), clock) as runtime:
        ends_at_ms = clock.now().wall_ms + 1000 if end == "expired" else None
        for _ in range(3):
            grant = Grant(peer="ann", ends_at_ms=ends_at_ms)
            link = await present(runtime, "ann" if end != "refused" else "bob", grant=grant)
            assert runtime.ledger.connections_of("ann") == 1
            match end:
                case "expired":
                    await clock.advance(7.0)
                    assert summary(await taken(link))[-2:] == ["expired", 1008]
                    break
                case "crashed":
                    runtime._meshes["m"].abort()
                case _:
                    link.close()
            await anyio.wait_all_tasks_blocked()
            assert runtime.ledger.connections_of("ann") == 0
        assert runtime.ledger.connections_of("ann") == 0
        assert runtime.ledger._bearers == {}


async def test_the_end_of_a_grant_is_a_close_of_its_own_with_words() -> None:
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        bob = await present(runtime, "bob")
        ann = await present(runtime, "ann", grant=Grant(ends_at_ms=clock.now().wall_ms + 10_000))
        await clock.advance(14.9)
        assert summary(await taken(ann)) == ["presence", "presence"]
        await say(bob, "heartbeat")
        await clock.advance(0.6)
        error, close = await taken(ann)
        assert error["data"]["code"] == "expired"
        assert (close["closed"], "run out" in close["reason"]) == (1008, True)
        assert (await taken(bob))[-1]["data"]["reason"] == "expired"


async def test_a_process_that_was_paused_past_the_end_hears_nothing_more_of_it() -> None:
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        bob = await present(runtime, "bob")
        ann = await present(runtime, "ann", grant=Grant(ends_at_ms=clock.now().wall_ms + 10_000))
        await taken(bob)
        clock._at += 20.0  # nothing has run since
        runtime._meshes["m"]._actors[2].received([b'{"type":"stream","from":"ann"}'])
        runtime._meshes["m"]._actors[1].received([b'{"type":"heartbeat"}'])
        assert summary(await taken(ann))[-2:] == ["expired", 1008]
        assert [m["type"] for m in await taken(bob)] == ["presence"]


async def test_a_takeover_closes_the_older_connection_with_words() -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        bob = await present(runtime, "bob")
        old = await present(runtime, "ann", "h", claim={"claim": SECRET})
        stranger = await present(runtime, "ann")
        assert summary(await taken(stranger)) == ["id_taken"]
        await taken(old)
        await taken(bob)
        # In one round: what the replaced connection still says, and the takeover.
        new = await runtime.connect("m")
        supervisor = runtime._meshes["m"]
        supervisor._actors[4].received(
            [
                json.dumps(
                    {"type": "capabilities", "data": {"claim": SECRET, "takeover": True}}
                ).encode(),
                b'{"type":"presence","from":"ann","data":{"agents":["k"]}}',
            ]
        )
        supervisor._actors[2].received([b'{"type":"broadcast","from":"ann"}'] * 3)
        assert summary(await taken(old)) == ["presence", "replaced", 1008]
        got = await taken(new)
        assert summary(got) == ["capabilities_response", "presence", "presence"]
        assert [m["data"]["agents"] for m in await taken(bob)] == [["k"]]


async def test_a_claim_is_in_no_log_and_no_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Runtime(clock=VirtualClock()) as runtime:
        await present(runtime, "ann", claim={"claim": SECRET})
        await present(runtime, "ann", claim={"claim": SECRET + "!"})
        await present(runtime, "ann", claim={"claim": SECRET * 100})
        await present(runtime, "ann", claim={"claim": SECRET, "takeover": True})
        shown = repr(runtime.status()) + repr(runtime.totals())
    shown += " ".join(repr(vars(record)) for record in caplog.records)
    assert "id_taken" in shown
    assert SECRET not in shown
    digest = Claim.of(SECRET, takes_over=False).digest
    assert repr(digest)[2:-1] not in shown
    assert digest.hex() not in shown
