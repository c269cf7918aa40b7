"""Several runtimes in one process are one federation, with all that a runtime can do."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from actors.backplane.log import LogUnreachable, Opened
from actors.backplane.memory import MemoryLog
from actors.client.peer import join
from actors.link import LinkClosed
from actors.relay.rests import Rests
from actors.relay.runtime import Runtime
from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.federation.standing import Standing
from protocol.mesh.federation.timing import Timing
from tests.worlds.live import PATIENCE_S
from tests.worlds.peers import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Relays:
    """Two runtimes over one log."""

    def __init__(self, one: Runtime, other: Runtime) -> None:
        self.one = one
        self.other = other


@pytest.fixture
async def relays() -> AsyncIterator[Relays]:
    log = MemoryLog()
    async with Runtime(backplane=log) as one, Runtime(backplane=log) as other:
        yield Relays(one, other)


async def said(link: Any, type: str, **data: Any) -> dict[str, Any]:
    """The next message of this type."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            message = json.loads(await link.receive())
            if message["type"] == type:
                return dict(message)


async def test_commands_cross_relays(relays: Relays) -> None:
    async with (
        join(lambda: relays.one.connect("m"), "ann", agents=["coder"]) as ann,
        join(lambda: relays.other.connect("m"), "bob") as bob,
    ):
        async with anyio.create_task_group() as tasks:

            async def work(command: Any) -> str:
                return f"done: {command.text}"

            tasks.start_soon(ann.serve, work)
            await until(lambda: "ann" in bob.roster and "bob" in ann.roster)
            assert await bob.ask("coder", "build").result() == "done: build"
            tasks.cancel_scope.cancel()


def rest_until_the_end(monkeypatch: pytest.MonkeyPatch, relay: Runtime) -> anyio.Event:
    """The next rest of this relay lasts until the event is set."""
    rest, resting, ended = Rests.rest, relay._meshes["m"]._rests, anyio.Event()

    async def longer(
        rests: Rests, waiting: int, meanwhile: Callable[[], None] | None = None
    ) -> None:
        if rests is not resting:
            await rest(rests, waiting, meanwhile)
            return
        assert meanwhile is not None
        while not ended.is_set():
            await anyio.sleep(0.001)
            meanwhile()

    monkeypatch.setattr(Rests, "rest", longer)
    return ended


async def test_what_a_peer_says_is_on_its_way_while_its_relay_rests(
    relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await relays.one.connect("m")
    await link.send('{"type":"presence","from":"ann","data":{}}')
    other = await relays.other.connect("m")
    await other.send('{"type":"presence","from":"bob","data":{}}')
    for _ in range(2):
        await said(other, "presence")
    ended = rest_until_the_end(monkeypatch, relays.one)
    for number in range(3):  # the first one ends a rest that has begun before
        await link.send(json.dumps({"type": "broadcast", "data": {"n": number}}))
        message = await said(other, "broadcast")
        assert message["data"]["n"] == number
    ended.set()


async def test_a_connection_that_must_make_room_while_its_relay_rests_ends_behind_that(
    relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await relays.one.connect("m")
    await link.send('{"type":"presence","from":"ann","data":{}}')
    await said(link, "presence")
    unannounced = await relays.one.connect("m")
    ended = rest_until_the_end(monkeypatch, relays.one)
    supervisor = relays.one._meshes["m"]
    for _ in range(2):  # the first one ends a rest that has begun before
        await link.send('{"type":"heartbeat"}')  # nothing follows from it
        await until(lambda: not supervisor._inbox)
    [*_, actor] = supervisor._actors.values()
    actor.displaced()
    await until(lambda: bool(supervisor._displaced))
    ended.set()
    with anyio.fail_after(PATIENCE_S), pytest.raises(LinkClosed):
        await unannounced.receive()


async def test_who_is_where_and_what_a_node_reports(relays: Relays) -> None:
    link = await relays.one.connect("m")
    await link.send('{"type":"presence","from":"ann","data":{"agents":["coder"]}}')
    await said(link, "presence")
    other = await relays.other.connect("m")
    await other.send('{"type":"presence","from":"bob","data":{}}')
    await said(other, "presence")
    await said(other, "presence")
    [mesh] = relays.other.status()
    peers = {peer.peer: peer for peer in mesh.peers}
    assert peers.keys() == {"ann", "bob"}
    assert not peers["ann"].connections
    assert mesh.mailbox_of(peers["ann"]).messages == 0
    assert relays.other.gauges().states == {"present": 1}
    federation = relays.one.federation
    assert federation is not None
    assert federation.is_ready
    said_of_it = federation.report()
    assert (said_of_it["standing"], said_of_it["nodes"]) == ("joined", 2)
    assert relays.one.totals().joined == 1
    assert relays.other.totals().joined == 1


async def test_visits_are_answered_with_all_receivers(relays: Relays) -> None:
    links = [await relay.connect("m") for relay in (relays.one, relays.other)]
    for id, link in zip("ab", links, strict=True):
        await link.send(json.dumps({"type": "presence", "from": id, "data": {}}))
        await said(link, "presence")
    text = json.dumps([{"type": "broadcast", "from": "cron"}, {"type": "direct", "from": "cron"}])
    received, refused = await relays.other.send("m", text)
    assert received.received == 2
    assert refused.code == "bad_field"
    [nobody] = await relays.one.send("elsewhere", '{"type":"broadcast","from":"cron"}')
    assert nobody.received == 0


async def test_answers_come_in_the_order_of_what_was_said(relays: Relays) -> None:
    link = await relays.one.connect("m")
    await link.send('{"type":"presence","from":"ann","data":{}}')
    await link.send('{"type":"direct","to":"nobody"}')
    await link.send("nonsense")
    await link.send('{"type":"direct","to":"nobody else"}')
    await link.send('{"type":"capabilities"}')
    codes = [(await said(link, "error"))["data"]["code"] for _ in range(3)]
    assert codes == ["unknown_target", "malformed", "unknown_target"]
    answer = await said(link, "capabilities_response")
    assert answer["to"] == "ann"


async def test_what_is_refused_of_an_array_is_answered_before_what_comes_behind_it(
    relays: Relays,
) -> None:
    link = await relays.one.connect("m")
    presence = '{"type":"presence","from":"ann","data":{}}'
    await link.send(f'[{presence},{{"type":"direct","to":"nobody"}},{presence}]')
    types = [json.loads(await link.receive())["type"] for _ in range(3)]
    assert types == ["presence", "error", "presence"]
    await link.send(f'[{{"type":"direct","to":"nobody"}},{presence}]')
    types = [json.loads(await link.receive())["type"] for _ in range(2)]
    assert types == ["error", "presence"]


async def test_a_presence_that_is_refused_counts_nowhere(relays: Relays) -> None:
    first, second = await relays.one.connect("m"), await relays.other.connect("m")
    secret = '{"type":"capabilities","data":{"claim":"a secret of ann alone"}}'
    await first.send(secret)
    await first.send('{"type":"presence","from":"ann","data":{}}')
    await said(first, "presence")
    await second.send('{"type":"presence","from":"ann","data":{}}')
    await second.send('{"type":"broadcast","from":"ann"}')
    codes = [(await said(second, "error"))["data"]["code"] for _ in range(2)]
    assert codes == ["id_taken", "not_present"]
    await second.send('{"type":"presence","from":"bob","data":{}}')
    assert (await said(second, "presence"))["from"] == "bob"
    await second.send('{"type":"presence","from":"cid","data":{}}')
    assert (await said(second, "error"))["data"]["code"] == "identity_fixed"


async def test_whoever_takes_over_ends_the_connection_at_another_relay(relays: Relays) -> None:
    first, second = await relays.one.connect("m"), await relays.other.connect("m")
    claim = {"type": "capabilities", "data": {"claim": "a secret of ann alone"}}
    await first.send(json.dumps(claim))
    await first.send('{"type":"presence","from":"ann","data":{}}')
    await said(first, "presence")
    claim["data"] = {"claim": "a secret of ann alone", "takeover": True}
    await second.send(json.dumps(claim))
    await second.send('{"type":"presence","from":"ann","data":{}}')
    await said(second, "presence")
    assert (await said(first, "error"))["data"]["code"] == "replaced"


async def test_a_grant_holds_also_while_a_presence_is_on_its_way(relays: Relays) -> None:
    grant = Grant(peer="ann", agents=("coder",))
    link = await relays.one.connect("m", grant=grant)
    await link.send('{"type":"presence","from":"ann","data":{"agents":["coder"]}}')
    await link.send('{"type":"broadcast","from":"planner"}')
    error = await said(link, "error")
    assert error["data"]["code"] == "not_granted"
    assert error["to"] == "ann"  # by then it is decided whose the connection is


async def test_whoever_leaves_at_once_leaves_nothing_behind(relays: Relays) -> None:
    watcher = await relays.other.connect("m")
    await watcher.send('{"type":"presence","from":"watcher","data":{}}')
    await said(watcher, "presence")
    link = await relays.one.connect("m")
    await link.send('{"type":"presence","from":"ann","data":{}}')
    link.close()
    here = await said(watcher, "presence")
    gone = await said(watcher, "presence")
    assert (here["from"], gone["from"], gone["data"]["status"]) == ("ann", "ann", "offline")


class Unreachable(MemoryLog):
    """A log that answers when the test lets it."""

    is_there = False

    async def open(self) -> Opened:
        if not self.is_there:
            raise LogUnreachable("the test wants it so")
        return await super().open()


async def test_a_relay_that_waits_for_its_log_keeps_what_is_said() -> None:
    log = Unreachable()
    async with Runtime(backplane=log) as relay:
        federation = relay.federation
        assert federation is not None
        link = await relay.connect("m")
        await link.send('{"type":"presence","from":"ann","data":{}}')
        await anyio.sleep(0.1)
        assert not federation.is_ready
        assert federation.node.standing is Standing.JOINING
        log.is_there = True
        assert (await said(link, "presence"))["from"] == "ann"
        assert federation.is_ready


def test_a_relay_whose_peers_are_reaped_too_early_does_not_start() -> None:
    with pytest.raises(ValueError, match="reap_after_s"):
        Timing().check(Limits(stale_after_s=5, reap_after_s=10))
