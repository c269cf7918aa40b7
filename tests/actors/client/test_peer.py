"""Peers in Python: the same API over memory and over WebSockets, on asyncio and on trio."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.client.peer import join
from actors.client.websocket import Connector
from protocol.member.errors import (
    AnnouncementRefused,
    Left,
    TooLarge,
)
from protocol.member.lifecycle import MemberState
from tests.worlds.live import LiveRelay, WebSocketPeer
from tests.worlds.peers import QUICK, Memory, Serving, Switch, message_of, until, write

pytestmark = pytest.mark.anyio


async def test_who_joins_is_present_and_knows_who_is_here(where: Connector) -> None:
    async with join(where, "ann", agents=["coder"], metadata={"mood": "sunny"}) as ann:
        assert ann.state is MemberState.PRESENT
        assert ann.roster == {}
        async with join(where, "bob") as bob:
            assert set(bob.roster) == {"ann"}
            assert bob.roster["ann"].agents == ("coder",)
            assert bob.roster["ann"].data["mood"] == "sunny"
            await until(lambda: "bob" in ann.roster)
        await until(lambda: "bob" not in ann.roster)


async def test_every_type_of_message_crosses_both_ways(where: Connector) -> None:
    async with join(where, "ann", agents=["a"]) as ann, join(where, "bob", agents=["b"]) as bob:
        await until(lambda: "bob" in ann.roster)
        for one, other in ((ann, bob), (bob, ann)):
            await one.broadcast({"n": 1}, extra=True)
            await one.direct(other.id, [1, 2])
            await one.ack("t", to=other.id)
            await one.stream("t", "chunk", 7)
            await one.turn_end("t", {"answer": 42})
            await one.error("t", "no")
            await one.send("ring-update", "text", agent="a" if one is ann else "b")
            seen = [await message_of(other, "broadcast")]
            seen += [await anext(other) for _ in range(6)]
            assert [message.type for message in seen] == [
                *("broadcast", "direct", "ack", "stream", "turn_end", "error", "ring-update")
            ]
            assert all(message.origin == one.id for message in seen)
            assert seen[0].data == {"n": 1}
            assert seen[0].fields["extra"] is True
            assert seen[1].data == [1, 2]
            assert seen[2].to == other.id
            assert (seen[3].word("chunk"), seen[3].word("chunkNum")) == ("chunk", 7)
            assert seen[4].word("result") == {"answer": 42}
            assert seen[5].word("error") == "no"
            assert seen[6].sender == ("a" if one is ann else "b")
            assert isinstance(seen[6].fields["timestamp"], int)


async def test_leaving_sends_what_is_queued_first(where: Connector) -> None:
    async with join(where, "bob") as bob:
        async with join(where, "ann") as ann:
            for number in range(500):
                await ann.broadcast(number)
        for number in range(500):
            assert (await message_of(bob, "broadcast")).data == number


async def test_who_has_left_can_neither_send_nor_receive(where: Connector) -> None:
    async with join(where, "ann") as ann:
        await ann.leave()
        await ann.leave()
        with pytest.raises(Left):
            await ann.broadcast("x")
        assert [message async for message in ann] == []
        with pytest.raises(Left):
            await ann.ask("bob", "x")
        assert ann.state is MemberState.ENDED


async def test_an_exception_in_the_body_comes_out_as_it_is(where: Connector) -> None:
    with pytest.raises(ZeroDivisionError):
        async with join(where, "ann"):
            raise ZeroDivisionError


async def test_cancelling_the_body_is_no_error(where: Connector) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with join(where, "ann"):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_refused_announcement_says_why(where: Connector) -> None:
    with pytest.raises(AnnouncementRefused, match="256") as caught:
        async with join(where, "x" * 300):
            pass
    assert caught.value.code == "too_long"


async def test_what_is_no_json_is_refused_and_nothing_is_sent(where: Connector) -> None:
    async with join(where, "ann") as ann:
        with pytest.raises(TypeError):
            await ann.broadcast(object())
        with pytest.raises(TooLarge):
            await ann.broadcast("x" * 2**20)
        await ann.broadcast("fine")


@pytest.fixture
async def page_and_url() -> AsyncIterator[tuple[WebSocketPeer, str]]:
    """A page of the first generation, by hand."""
    with LiveRelay() as live:
        async with live:
            yield await live.connect(), live.url


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_python_agent_answers_a_page(page_and_url: tuple[WebSocketPeer, str]) -> None:
    page, url = page_and_url
    async with join(url, "bob", agents=["writer"]) as bob, Announced(page), Serving(bob, write):
        command = {"command": "one two"}
        names = {"sender": "tab-agent", "instanceId": "page", "targetInstanceId": "bob"}
        await page.send("direct", to="writer", turnId="turn-1", data=command, **names)
        seen = [await page.until("ack"), await page.until("stream"), await page.until("stream")]
        seen.append(await page.until("turn_end"))
        for message in seen:
            assert message["turnId"] == "turn-1"
            assert message["from"] == "writer"
            assert message["to"] == "tab-agent"
            assert message["instanceId"] == "bob"
        assert [m["data"] for m in seen[1:3]] == [
            {"chunk": "one", "chunkNum": 0},
            {"chunk": "two", "chunkNum": 1},
        ]
        assert seen[3]["data"]["result"] == {"words": 2, "by": "writer"}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_page_answers_a_python_peer(page_and_url: tuple[WebSocketPeer, str]) -> None:
    page, url = page_and_url
    async with join(url, "ann") as ann, Announced(page):
        await until(lambda: "page" in ann.roster)

        async def answer() -> None:
            command = await page.until("direct")
            assert command["data"] == {"command": "hello"}
            assert command["targetInstanceId"] == "page"
            names = {"sender": "tab-agent", "instanceId": "page", "to": command["from"]}
            turn = {"turnId": command["turnId"], **names}
            await page.send("ack", **turn)
            await page.send("stream", **turn, data={"chunk": "hi", "chunkNum": 0})
            await page.send("turn_end", **turn, data={"result": "hi there", "transcript": []})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            turn = ann.ask("tab-agent", "hello")
            assert [chunk async for chunk in turn] == ["hi"]
            assert await turn == "hi there"


class Announced:
    def __init__(self, page: WebSocketPeer) -> None:
        self._page = page

    async def __aenter__(self) -> None:
        await self._page.announce("page", "tab-agent")

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_what_the_peer_says_by_itself_cannot_be_sent_by_hand(where: Connector) -> None:
    async with join(where, "ann") as ann:
        for type in ("presence", "heartbeat", "capabilities"):
            with pytest.raises(ValueError, match="announce"):
                await ann.send(type)


async def test_bad_arguments_are_refused_before_anything_happens(where: Connector) -> None:
    with pytest.raises(TypeError, match="list"):
        join(where, "ann", agents="writer")
    with pytest.raises(TypeError):
        join(where, "ann", metadata={"x": object()})
    with pytest.raises(ValueError, match="offline"):
        join(where, "ann", offline="queue")  # type: ignore[arg-type]
    async with join(where, "ann") as ann:
        with pytest.raises(TypeError):
            await ann.announce([object()])
        with pytest.raises(TypeError, match="list"):
            await ann.serve(write, "writer")
        assert ann.state is MemberState.PRESENT


async def test_two_readers_of_one_peer_both_end_with_it(where: Connector) -> None:
    async with join(where, "ann") as ann:

        async def read() -> None:
            async for _ in ann:
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
            await anyio.lowlevel.checkpoint()
            await ann.leave()


async def test_what_was_sent_before_an_exception_is_delivered(where: Connector) -> None:
    async with join(where, "bob") as bob:
        with pytest.raises(ZeroDivisionError):
            async with join(where, "ann") as ann:
                for number in range(20):
                    await ann.direct("bob", number)
                raise ZeroDivisionError
        heard = [(await message_of(bob, "direct")).data for _ in range(20)]
        assert heard == list(range(20))


async def test_one_error_shown_often_does_not_grow(where: Connector) -> None:
    async with join(where, "ann") as ann:
        await ann.leave()
        for _ in range(50):
            with pytest.raises(Left) as left:
                await ann.broadcast("x")
        assert len(left.traceback) < 10


@pytest.mark.limits(agents_max=1)
async def test_announcing_is_over_when_the_relay_has_answered(where: Connector) -> None:
    async with join(where, "ann", agents=["a"]) as ann, join(where, "bob") as bob:
        await ann.announce(["b"])
        with pytest.raises(AnnouncementRefused) as refused:
            await ann.announce(["b", "c"])
        assert refused.value.code == "too_many_agents"
        await ann.broadcast("after")
        await message_of(bob, "broadcast")
        assert bob.roster["ann"].agents == ("b",)


async def test_an_announcement_waits_for_a_connection_and_a_later_one_answers_it(
    here: Memory,
) -> None:
    switch = Switch(here)
    async with join(switch, "ann", limits=QUICK) as ann, join(here, "bob") as bob:
        switch.off()
        await until(lambda: ann.state is not MemberState.PRESENT)
        answered = []

        async def announce(agent: str) -> None:
            await ann.announce([agent])
            answered.append(agent)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(announce, "a")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(announce, "b")
            await anyio.wait_all_tasks_blocked()
            assert answered == []
            switch.is_on = True
        assert sorted(answered) == ["a", "b"]
        await until(lambda: "ann" in bob.roster and bob.roster["ann"].agents == ("b",))


async def test_who_waits_for_an_announcement_hears_of_the_end_of_the_peer(here: Memory) -> None:
    switch = Switch(here)
    async with join(switch, "ann", limits=QUICK) as ann:
        switch.off()
        await until(lambda: ann.state is not MemberState.PRESENT)
        async with anyio.create_task_group() as tasks:

            async def announce() -> None:
                with pytest.raises(Left):
                    await ann.announce(["a"])

            tasks.start_soon(announce)
            await anyio.wait_all_tasks_blocked()
            await ann.leave()
