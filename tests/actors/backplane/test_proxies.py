"""Two nodes behind nginx and HAProxy with TLS: the real ones, as docs/proxies/ configures them."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from actors.client.peer import Peer, join
from actors.client.websocket import websocket
from protocol.verification.conformance import Target, all_claims, check
from tests.worlds.live import PATIENCE_S
from tests.worlds.nats import NatsServer
from tests.worlds.nodes import Nodes, hearer
from tests.worlds.peers import until
from tests.worlds.reverse_proxy import FEDERATION, NAME, ReverseProxy

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.environ.get("CI"), reason="takes a minute: only in CI"),
]


COMING_BACK = 19
"""This rule holds at the node that was left."""


@attrs.frozen(kw_only=True)
class AtTwoNodes(Target):
    """A federation: each connection goes to the next node."""

    turns: Iterator[str]

    def url_in(self, mesh: str | None) -> str:
        return attrs.evolve(self, url=next(self.turns))._url_in(mesh)

    def _url_in(self, mesh: str | None) -> str:
        return super().url_in(mesh)


@pytest.mark.parametrize("kind", FEDERATION)
async def test_peers_behind_a_proxy_meet_and_come_back_at_another_node(
    kind: str, tmp_path: Path
) -> None:
    with NatsServer(tmp_path) as server, Nodes(tmp_path / "relays") as nodes:
        first, second = await nodes.started(2, server.url, "--allow-host", NAME)
        with ReverseProxy(kind, (first.port, second.port), tmp_path, several=FEDERATION) as proxy:
            connector = websocket(proxy.url(), ssl_context=proxy.context)
            async with (
                anyio.create_task_group() as tasks,
                join(connector, "ann") as ann,
                join(connector, "bob") as bob,
            ):
                watchers = [await hearer(node, f"w{n}", tasks) for n, node in enumerate(nodes.all)]
                await until(lambda: "ann" in bob.roster and "bob" in ann.roster)
                counts = [(await node.stands())["nodes"] for node in nodes.all]
                assert counts == [2, 2]
                await first.end()
                await meet(ann, bob)
                heard = watchers[1].heard
                assert ("ann", "offline") not in heard
                assert ("bob", "offline") not in heard
                tasks.cancel_scope.cancel()


async def meet(one: Peer, other: Peer) -> None:
    """What one says comes to the other, some time."""
    heard: list[Any] = []

    async def listen() -> None:
        while True:
            try:
                async for message in other:
                    if message.type == "broadcast" and message.data == "now":
                        heard.append(message)
                return
            except Exception:  # a gap
                continue

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        with anyio.fail_after(PATIENCE_S):
            while not heard:
                await one.broadcast("now")
                await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()


async def test_the_kit_passes_with_its_peers_at_two_nodes(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server, Nodes(tmp_path / "relays") as nodes:
        first, second = await nodes.started(2, server.url)
        here = Target(url=first.url, patience_s=PATIENCE_S)
        spread = AtTwoNodes(
            url=first.url, patience_s=PATIENCE_S, turns=itertools.cycle([first.url, second.url])
        )
        claims = [claim for claim in all_claims() if not claim.needs_time]
        for target, chosen in (
            (spread, [claim for claim in claims if claim.rule != COMING_BACK]),
            (here, [claim for claim in claims if claim.rule == COMING_BACK]),
        ):
            report = await check(target, chosen, quick=True)
            assert report.names("fail") == set()
            assert report.is_conforming
