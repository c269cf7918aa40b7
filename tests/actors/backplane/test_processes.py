"""Real relays, a real nats-server, and what can happen to them. Peers say numbers all the time."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from actors.client.peer import Peer, join
from actors.client.websocket import Connector, websocket
from actors.link import Link
from protocol.member.errors import Gap
from tests.worlds.live import PATIENCE_S
from tests.worlds.nats import NatsServer
from tests.worlds.nodes import Nodes, hearer, judge
from tests.worlds.peers import until
from tests.worlds.ports import free_port
from tests.worlds.proxy import Proxy

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.environ.get("CI"), reason="takes minutes: only in CI"),
]

CLOSED_BY_NODE = 1012

Heard = dict[str, list[object]]


async def meet(peers: dict[str, Peer], heard: Heard, number: int) -> None:
    """All of them hear one another. What is said while somebody comes back is said again."""
    with anyio.fail_after(PATIENCE_S):
        while not all((o, number) in heard[id] for id in peers for o in peers if o != id):
            for peer in peers.values():
                await peer.broadcast(number)
            await anyio.sleep(0.2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path / "relays") as nodes:
        yield nodes


async def test_a_killed_node_takes_only_its_peers_with_it(server: NatsServer, nodes: Nodes) -> None:
    first, second, third = await nodes.started(3, server.url)
    async with anyio.create_task_group() as tasks:
        ann = await hearer(first, "ann", tasks)
        bob = await hearer(second, "bob", tasks)
        cid = await hearer(third, "cid", tasks)
        await ann.until_more("cid")
        third.kill()
        with anyio.fail_after(20):  # docs/federation.md: 12 s, and a Tick
            await ann.until("cid", "offline")
            await bob.until("cid", "offline")
        await ann.until_more("bob")
        await bob.until_more("ann")
        assert (await first.joined(2)).port
        dan = await hearer(second, "dan", tasks)
        await ann.until_more("dan")
        judge([ann, bob, dan, cid])
        assert sum(heard == ("cid", "offline") for heard in ann.heard) == 1
        tasks.cancel_scope.cancel()


async def test_a_node_that_slept_past_its_lease_comes_back_as_a_new_one(
    server: NatsServer, nodes: Nodes
) -> None:
    first, second, third = await nodes.started(3, server.url)
    async with anyio.create_task_group() as tasks:
        ann = await hearer(first, "ann", tasks)
        bob = await hearer(second, "bob", tasks)
        cid = await hearer(third, "cid", tasks)
        await ann.until_more("cid")
        third.send(signal.SIGSTOP)
        await ann.until("cid", "offline")
        third.send(signal.SIGCONT)
        assert await cid.until_closed() == CLOSED_BY_NODE
        await third.joined(3)
        again = await hearer(third, "cid", tasks)
        await ann.until_more("cid")
        await again.until_more("bob")
        judge([ann, bob, again, cid])
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", ["stalled", "cut"])
async def test_a_node_that_the_log_cannot_reach_is_an_island_until_it_is_healed(
    server: NatsServer, nodes: Nodes, trouble: str
) -> None:
    async with Proxy(server.port) as proxy:
        first = nodes.start(server.url)
        await first.joined()
        third = nodes.start(f"nats://127.0.0.1:{proxy.port}")
        await third.joined(2)
        async with anyio.create_task_group() as tasks:
            ann = await hearer(first, "ann", tasks)
            cid = await hearer(third, "cid", tasks)
            dan = await hearer(third, "dan", tasks)
            await ann.until_more("cid")
            await cid.until_more("ann")
            if trouble == "cut":
                proxy.is_hanging = True
                await proxy.cut()
            else:
                proxy.stall()
            await ann.until("cid", "offline")
            await cid.until("ann", "offline")
            assert (await third.stands())["standing"] == "isolated"
            await cid.until_more("dan")  # an island goes on
            proxy.is_hanging = False
            proxy.flow()
            await proxy.cut()
            assert await cid.until_closed() == CLOSED_BY_NODE
            await third.joined(2)
            again = await hearer(third, "cid", tasks)
            await again.until_more("ann")
            await ann.until_more("cid")
            judge([ann, again])
            judge([cid, dan])
            tasks.cancel_scope.cancel()


async def test_a_server_that_has_forgotten_everything_is_another_log(
    server: NatsServer, nodes: Nodes
) -> None:
    first, second = await nodes.started(2, server.url)
    async with anyio.create_task_group() as tasks:
        ann = await hearer(first, "ann", tasks)
        bob = await hearer(second, "bob", tasks)
        await ann.until_more("bob")
        server.kill()
        server.start()
        assert await ann.until_closed() == CLOSED_BY_NODE
        assert await bob.until_closed() == CLOSED_BY_NODE
        await first.joined(2)
        await second.joined(2)
        again = await hearer(first, "ann", tasks)
        more = await hearer(second, "bob", tasks)
        await again.until_more("bob")
        judge([ann, bob])
        judge([again, more])
        tasks.cancel_scope.cancel()


async def test_a_cluster_goes_on_without_the_server_that_led_its_stream(
    nodes: Nodes, tmp_path: Path
) -> None:
    routes = [free_port() for _ in range(3)]
    servers = [NatsServer(tmp_path, routes=routes, number=n) for n in range(3)]
    try:
        for server in servers:
            server.start()
        urls = ",".join(server.url for server in servers)
        first, second = await nodes.started(2, urls, "--backplane-replicas", "3")
        async with anyio.create_task_group() as tasks:
            ann = await hearer(first, "ann", tasks)
            bob = await hearer(second, "bob", tasks)
            await ann.until_more("bob")
            for server in servers:  # one of them leads; each is killed once, and comes back
                server.kill()
                await anyio.sleep(1)
                await ann.until_more("bob")
                await bob.until_more("ann")
                server.start()
                await anyio.sleep(3)
            assert ann.closed is None
            assert bob.closed is None
            judge([ann, bob])
            tasks.cancel_scope.cancel()
    finally:
        for server in servers:
            server.kill()


async def test_a_node_joins_in_the_middle(server: NatsServer, nodes: Nodes) -> None:
    (first,) = await nodes.started(1, server.url)
    async with anyio.create_task_group() as tasks:
        ann = await hearer(first, "ann", tasks, 0.002)
        bob = await hearer(first, "bob", tasks, 0.002)
        await ann.until_more("bob", 100)
        second = nodes.start(server.url)
        await second.joined(2)
        cid = await hearer(second, "cid", tasks)
        assert cid.has("ann", "here")
        assert cid.has("bob", "here")
        await cid.until_more("ann", 100)
        await ann.until_more("cid")
        judge([ann, bob, cid])
        tasks.cancel_scope.cancel()


async def test_a_cut_connection_goes_on_at_its_node_and_misses_nothing(
    server: NatsServer, nodes: Nodes
) -> None:
    first, second = await nodes.started(2, server.url)
    async with (
        Proxy(first.port) as proxy,
        join(websocket(proxy.url), "ann") as ann,
        join(websocket(second.url), "bob") as bob,
    ):
        await until(lambda: "bob" in ann.roster and "ann" in bob.roster)
        heard: list[object] = []

        async def listen() -> None:
            async for message in ann:  # (a Gap would be raised)
                if message.type == "broadcast":
                    heard.append(message.data)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for number in range(200):
                await bob.broadcast(number)
                if number in (50, 120):
                    await proxy.cut()
                await anyio.sleep(0.01)
            await until(lambda: len(heard) >= 200)
            tasks.cancel_scope.cancel()
        assert heard == list(range(200))
        assert ann.resumed == 2


async def test_a_rolling_restart_lets_nobody_of_ours_leave(
    server: NatsServer, nodes: Nodes
) -> None:
    relays = list(await nodes.started(3, server.url))
    ports = [relay.port for relay in relays]
    turns = {"ann": 0, "bob": 1, "cid": 2}

    def at(id: str) -> Connector:
        async def connect() -> Link:
            turns[id] += 1  # another relay each time
            return await websocket(f"ws://127.0.0.1:{ports[turns[id] % 3]}/ws")()

        return connect

    async with anyio.create_task_group() as tasks:
        async with (
            join(at("ann"), "ann") as ann,
            join(at("bob"), "bob") as bob,
            join(at("cid"), "cid") as cid,
        ):
            peers = {"ann": ann, "bob": bob, "cid": cid}
            watcher = await hearer(relays[0], "watcher-0", tasks, 1.0)
            await until(lambda: all(len(peer.roster) >= 3 for peer in peers.values()))
            heard: Heard = {id: [] for id in peers}

            async def listen(id: str) -> None:
                while True:
                    try:
                        async for message in peers[id]:
                            if message.type == "broadcast":
                                heard[id].append((message.origin, message.data))
                        return  # it has left
                    except Gap:
                        heard[id].append("gap")

            for id in peers:
                tasks.start_soon(listen, id)
            watchers = [watcher]
            for number, relay in enumerate(relays):
                await relay.end()
                relays[number] = nodes.start(server.url, port=ports[number])
                await relays[number].joined(3)
                if number == 0:
                    watchers.append(await hearer(relays[0], "watcher-1", tasks, 1.0))
                await meet(peers, heard, number)
            for one in watchers:
                assert not [who for who, what in one.heard if what == "offline" and who in peers]
        tasks.cancel_scope.cancel()
