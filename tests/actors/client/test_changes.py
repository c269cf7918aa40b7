"""The roster as it changes."""

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.client.peer import join
from actors.client.websocket import Connector
from tests.worlds.live import PATIENCE_S
from tests.worlds.peers import until

pytestmark = pytest.mark.anyio


async def test_the_first_change_comes_at_once_even_if_nobody_is_here(where: Connector) -> None:
    async with join(where, "ann") as ann:
        with anyio.fail_after(PATIENCE_S):
            assert (await anext(ann.changes())).here == {}


async def test_changes_are_the_snapshot_first_and_then_joins_and_leaves(where: Connector) -> None:
    async with join(where, "ann") as ann, join(where, "bob", agents=["x"]) as bob:
        await until(lambda: "bob" in ann.roster)
        changes = ann.changes()
        first = await anext(changes)
        assert [peer.id for peer in first.joined] == ["bob"]
        await bob.announce(["y"])
        second = await anext(changes)
        assert [peer.agents for peer in second.updated] == [("y",)]
        async with join(where, "carol"):
            third = await anext(changes)
            assert [peer.id for peer in third.joined] == ["carol"]
            assert set(third.here) == {"bob", "carol"}
        fourth = await anext(changes)
        assert [peer.id for peer in fourth.left] == ["carol"]
        await ann.leave()
        assert [change async for change in changes] == []
