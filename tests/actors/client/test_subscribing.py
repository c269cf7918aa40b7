"""Peers that want only some of what others say, over memory and over WebSockets (rule 22)."""

import json
from functools import partial
from typing import Any

import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector
from actors.link import Link
from actors.relay.runtime import Runtime
from protocol.limits import Limits
from protocol.member.errors import AnnouncementRefused
from tests.worlds.peers import QUICK, Serving, Switch, message_of, until

pytestmark = pytest.mark.anyio

PRICES = {"types": ["price"]}


class Overheard:
    """A connector whose links note what the relay sends there, but presences and its own words."""

    def __init__(self, where: Connector) -> None:
        self._where = where
        self.types: list[str] = []

    async def __call__(self) -> Link:
        return _Noted(await self._where(), self.types)


class _Noted:
    def __init__(self, link: Link, types: list[str]) -> None:
        self._link = link
        self._types = types

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    async def send(self, text: str) -> None:
        await self._link.send(text)

    async def aclose(self, code: int = 1000) -> None:
        await self._link.aclose(code)

    async def receive(self) -> str | bytes:
        frame = await self._link.receive()
        read = json.loads(frame)
        for message in read if isinstance(read, list) else [read]:
            if message["type"] != "presence" and message["from"] != "relay":
                self._types.append(message["type"])
        return frame


async def said_all(peer: Peer, to: Peer) -> list[tuple[str, Any]]:
    """Everything that the other has got until now, once the relay has decided all of the peer's."""
    await peer.direct(to.id, "the end")
    found = []
    while (message := await anext(to)).data != "the end":
        if message.type != "presence":
            found.append((message.type, message.data))
    return found


async def say_everything(bob: Peer) -> None:
    await bob.broadcast("to all")
    await bob.broadcast("to ann", to="ann")
    await bob.broadcast("to carol", to="carol")
    await bob.send("price", 1)
    await bob.send("price", 2, topic="fruit/apples")
    await bob.send("price", 3, topic="wine")


@pytest.mark.parametrize(
    ("subscribe", "wanted"),
    [
        (None, ["to all", "to ann", "to carol", 1, 2, 3]),
        (True, ["to all", "to ann", "to carol", 1, 2, 3]),
        (False, []),
        ({"others": False}, ["to all", "to ann", 1, 2, 3]),
        ({"topics": ["fruit/*"]}, ["to all", "to ann", "to carol", 1, 2]),
        (PRICES, [1, 2, 3]),
        ({"others": False, "topics": {"wine"}, "types": ("broadcast", "price")}, None),
    ],
)
async def test_a_program_gets_what_it_says_it_wants(
    where: Connector, subscribe: Any, wanted: list[Any] | None
) -> None:
    overheard = Overheard(where)
    async with (
        join(where, "bob") as bob,
        join(where, "carol"),
        join(overheard, "ann", subscribe=subscribe) as ann,
    ):
        await until(lambda: {"ann", "carol"} <= set(bob.roster))
        await say_everything(bob)
        found = [data for _, data in await said_all(bob, ann)]
        assert found == (["to all", "to ann", 1, 3] if wanted is None else wanted)
        assert len(overheard.types) == len(found) + 1  # nothing else was on its way


@pytest.mark.limits(wishes_max=1)
async def test_a_relay_with_no_room_for_a_wish_changes_nothing_for_the_program(
    where: Connector, caplog: pytest.LogCaptureFixture
) -> None:
    overheard = Overheard(where)
    async with (
        join(where, "bob", subscribe={"types": ["x"]}) as bob,
        join(where, "carol"),
        join(overheard, "ann", limits=QUICK, subscribe=PRICES) as ann,
    ):
        await until(lambda: {"ann", "carol"} <= set(bob.roster))
        await say_everything(bob)
        assert await said_all(bob, ann) == [("price", 1), ("price", 2), ("price", 3)]
        assert overheard.types.count("broadcast") == 3  # all of it came
        await ann.announce(metadata={"host": "here"})
        assert caplog.text.count("this peer leaves out the rest") == 1

        await ann.subscribe({"topics": ["wine"]})  # there is no room yet
        await say_everything(bob)
        assert [data for _, data in await said_all(bob, ann)] == [
            *("to all", "to ann", "to carol", 1, 3)
        ]
        await bob.subscribe(True)
        overheard.types.clear()
        await ann.subscribe(PRICES)
        await say_everything(bob)
        assert await said_all(bob, ann) == [("price", 1), ("price", 2), ("price", 3)]
        assert overheard.types.count("broadcast") == 0
    assert caplog.text.count("this peer leaves out the rest") == 2


async def test_what_is_wanted_changes(where: Connector) -> None:
    async with join(where, "bob") as bob, join(where, "ann", subscribe=False) as ann:
        await bob.broadcast(1)
        await bob.direct("ann", 2)
        assert await said_all(bob, ann) == [("direct", 2)]
        await ann.subscribe(True)
        await bob.broadcast(3)
        assert await said_all(bob, ann) == [("broadcast", 3)]
        await ann.subscribe(PRICES)
        await bob.broadcast(4)
        await bob.send("price", 5)
        assert await said_all(bob, ann) == [("price", 5)]
        await ann.announce(metadata={"host": "here"})
        await bob.broadcast(6)
        await bob.send("price", 7)
        assert await said_all(bob, ann) == [("price", 7)]


async def test_it_holds_on_the_next_connection() -> None:
    async with Runtime(Limits(resume_s=0.0)) as runtime:
        where = partial(runtime.connect, "mesh")
        switch = Switch(where)
        overheard = Overheard(switch)
        async with (
            join(where, "bob") as bob,
            join(overheard, "ann", limits=QUICK, subscribe=PRICES) as ann,
        ):
            await until(lambda: "ann" in bob.roster)
            switch.off()
            await until(lambda: "ann" not in bob.roster)
            switch.is_on = True
            await until(lambda: "ann" in bob.roster)
            await bob.broadcast(1)
            await bob.send("price", 2)
            assert (await message_of(ann, "price")).data == 2
            assert overheard.types == ["price"]


async def answer_as_pages_do(page: Peer) -> None:
    """One command is answered to everyone, and to nobody by name."""
    command = await message_of(page, "direct")
    assert command.turn_id is not None
    await page.ack(command.turn_id)
    await page.stream(command.turn_id, "one ", 1)
    await page.stream(command.turn_id, "two", 2)
    await page.turn_end(command.turn_id, "one two")


async def test_who_wants_nothing_asks_a_page_all_the_same(where: Connector) -> None:
    async with join(where, "page") as page, join(where, "ann", subscribe=False) as ann:
        await until(lambda: "ann" in page.roster)
        turn = ann.ask("page", "count")
        await answer_as_pages_do(page)
        assert [chunk async for chunk in turn] == ["one ", "two"]
        assert await turn == "one two"
        assert await said_all(page, ann) == []  # the program wants none of these


async def test_who_only_asks_and_serves_gets_no_answers_to_others(where: Connector) -> None:
    async def handle(command: Command) -> str:
        await command.stream("a chunk")
        return command.agent

    overheard = Overheard(where)
    async with (
        join(where, "bob", agents=["writer"]) as bob,
        join(where, "carol") as carol,
        join(overheard, "ann", agents=["coder"], subscribe=False) as ann,
        Serving(bob, handle),
        Serving(ann, handle),
    ):
        await until(lambda: {"bob", "ann"} <= set(carol.roster))
        assert await ann.ask("writer", "go") == "writer"
        overheard.types.clear()
        for answers in ("direct", "all"):
            assert await carol.ask("writer", "go", answers=answers) == "writer"
        assert await carol.ask("coder", "go") == "coder"
        await carol.broadcast({"command": "go"}, turn_id="t")  # to all agents, also to ann's
        ends = []
        while ("coder", "t") not in ends:
            end = await message_of(carol, "turn_end")
            ends.append((end.sender, end.turn_id))
        assert overheard.types == ["direct", "broadcast"]  # both commands, and nothing else


@pytest.mark.parametrize(
    "subscribe", [{"topics": ["a*b"]}, {"types": [""]}, {"types": ["x"] * 65}, {"topic": ["a"]}]
)
async def test_what_is_out_of_bounds_is_refused_at_once(here: Connector, subscribe: Any) -> None:
    with pytest.raises(ValueError, match="subscribe"):
        join(here, "ann", subscribe=subscribe)
    async with join(here, "ann") as ann:
        with pytest.raises(ValueError, match="subscribe"):
            await ann.subscribe(subscribe)


@pytest.mark.parametrize("subscribe", ["all", 1, ["a"], {"others": 1}, {"types": "a"}])
def test_what_is_no_wish_is_refused_at_once(subscribe: Any) -> None:
    with pytest.raises(TypeError, match="subscribe"):
        join("ws://localhost:1/ws", "ann", subscribe=subscribe)


@pytest.mark.limits(wish_names_max=1)
async def test_a_relay_with_smaller_bounds_says_so(where: Connector) -> None:
    async with join(where, "ann") as ann:
        with pytest.raises(AnnouncementRefused, match="topics"):
            await ann.subscribe({"topics": ["a", "b"]})
