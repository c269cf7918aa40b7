"""Peers that come late and ask for what was said before, over memory and over WebSockets."""

from functools import partial
from typing import Any

import anyio
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector, websocket
from actors.link import Link
from actors.relay.runtime import Runtime
from protocol.limits import Limits
from protocol.member.errors import Gap
from tests.worlds.live import HeldPort, LiveRelay
from tests.worlds.peers import QUICK, Serving, Switch, message_of, until
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio


def said(messages: list[Any]) -> list[Any]:
    return [message.data for message in messages if message.type == "broadcast"]


async def sent(peer: Peer) -> None:
    """What the peer has said is on its way."""
    await until(lambda: not peer._is_sending)


def unread(peer: Peer) -> list[Any]:
    """What has arrived, and was not read."""
    return list(peer._unread.rest())


async def test_who_joins_late_gets_what_was_said_before_anything_new(where: Connector) -> None:
    async with join(where, "bob") as bob:
        for n in range(5):
            await bob.broadcast(n)
            await bob.direct("bob", "private")
        await sent(bob)
        async with join(where, "ann", history=3) as ann:
            await until(lambda: "ann" in bob.roster)
            assert said(unread(ann)) == [2, 3, 4]  # all there once inside
            await bob.broadcast(5)
            found = [await message_of(ann, "broadcast") for _ in range(4)]
        assert [(message.data, message.is_old) for message in found] == [
            *((2, True), (3, True), (4, True), (5, False))
        ]
        assert found[0].fields.keys() == found[3].fields.keys()  # to the byte as it was


async def test_who_does_not_ask_gets_nothing_old(where: Connector) -> None:
    async with join(where, "bob") as bob:
        await bob.broadcast(1)
        await sent(bob)
        async with join(where, "carol", history=1), join(where, "ann") as ann:
            await until(lambda: "ann" in bob.roster)
            await bob.broadcast(2)
            assert (await message_of(ann, "broadcast")).data == 2


@pytest.mark.limits(recall_messages_max=0)
async def test_a_relay_that_remembers_nothing_is_joined_all_the_same(where: Connector) -> None:
    async with join(where, "bob") as bob:
        await bob.broadcast(1)
        await sent(bob)
        async with join(where, "ann", history=50) as ann:
            await until(lambda: "ann" in bob.roster)
            await bob.broadcast(2)
            message = await message_of(ann, "broadcast")
            assert (message.data, message.is_old) == (2, False)


async def test_an_old_command_is_read_and_not_served(where: Connector) -> None:
    served: list[Any] = []

    def handle(command: Command) -> None:
        served.append(command.text)

    async with join(where, "bob") as bob:
        await bob.broadcast({"command": "old"}, turnId="c-1")
        await sent(bob)
        async with join(where, "ann", agents=["coder"], history=9) as ann, Serving(ann, handle):
            await until(lambda: "ann" in bob.roster)
            await bob.broadcast({"command": "new"}, turnId="c-2")
            assert (await message_of(ann, "broadcast")).is_old
            answer = await message_of(bob, "turn_end")
    assert answer.turn_id == "c-2"
    assert served == ["new"]


@pytest.mark.parametrize("after_bytes", range(2000, 18_000, 3001))
async def test_a_cut_while_they_come_loses_and_doubles_none(after_bytes: int) -> None:
    """It ends in the middle of a frame: 100 old messages are some 20 000 bytes."""
    with LiveRelay() as live:
        async with join(live.url, "bob", limits=QUICK) as bob, Proxy(live.port) as proxy:
            for n in range(100):
                await bob.broadcast([n, "x" * 100])
            await sent(bob)
            opened: list[Link] = []

            async def where() -> Link:
                opened.append(await websocket(proxy.url)())
                if len(opened) == 1:
                    proxy.lose(after_bytes)
                return opened[-1]

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cut_when_spent, proxy)
                async with join(where, "ann", limits=QUICK, history=100) as ann:
                    found = [await message_of(ann, "broadcast") for _ in range(100)]
                    assert [message.data[0] for message in found] == [*range(100)]
                    assert all(message.is_old for message in found)
                    assert ann.resumed == 1
                    await bob.broadcast("new")
                    message = await message_of(ann, "broadcast")
                    assert (message.data, message.is_old) == ("new", False)


async def _cut_when_spent(proxy: Proxy) -> None:
    """All bytes have passed that may."""
    await until(lambda: any(0 in (way.left or {}).values() for way in proxy._ways))
    await proxy.cut()


async def test_after_a_gap_nothing_old_comes_again() -> None:
    async with Runtime(Limits(resume_s=0.0)) as runtime:
        where = partial(runtime.connect, "mesh")
        switch = Switch(where)
        async with join(where, "bob") as bob, join(where, "carol"):
            await bob.broadcast(1)
            await sent(bob)
            async with join(switch, "ann", limits=QUICK, history=9) as ann:
                assert (await message_of(ann, "broadcast")).is_old
                await until(lambda: "ann" in bob.roster)
                switch.off()
                await until(lambda: "ann" not in bob.roster)
                await bob.broadcast(2)
                switch.is_on = True
                await until(lambda: "ann" in bob.roster)
                await bob.broadcast(3)
                with pytest.raises(Gap):
                    while (await anext(ann)).type == "presence":
                        pass
                message = await message_of(ann, "broadcast")
                assert (message.data, message.is_old) == (3, False)


async def test_a_relay_that_has_begun_anew_remembers_nothing() -> None:
    with HeldPort() as port:
        live = LiveRelay(port=port)
        with live:
            async with join(live.url, "bob", limits=QUICK) as bob:
                await bob.broadcast(1)
                await sent(bob)
        with LiveRelay(port=port) as again:
            async with join(again.url, "ann", history=9) as ann:
                assert said(unread(ann)) == []


@pytest.mark.parametrize("history", [-1, 10_001])
def test_a_number_out_of_bounds_is_refused_before_anything_is_tried(history: int) -> None:
    with pytest.raises(ValueError, match="history"):
        join("ws://localhost:1/ws", "ann", history=history)


def test_what_is_no_number_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(TypeError, match="history"):
        join("ws://localhost:1/ws", "ann", history="all")  # type: ignore[arg-type]
