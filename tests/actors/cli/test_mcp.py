"""`agi-mesh mcp` with the official client, over stdin and stdout of a real process."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from mcp import Client, StdioServerParameters

from actors.cli.mcp import served
from actors.client.command import Command
from actors.client.peer import join
from protocol.member.errors import TurnFailed
from tests import ROOT
from tests.actors.cli.program import CODE, environment
from tests.worlds.live import PATIENCE_S, LiveRelay
from tests.worlds.peers import Serving, Thinking, message_of, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """It is about the programs."""
    return "asyncio"


@asynccontextmanager
async def started(relay: LiveRelay) -> AsyncIterator[Client]:
    """An MCP client that has started the command, as the peer `editor`."""
    arguments = ["-c", CODE, "mcp", "--url", relay.url, "--id", "editor"]
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env=environment(), cwd=ROOT
    )
    async with Client(server) as client:
        yield client


@asynccontextmanager
async def client(relay: LiveRelay, *agents: str) -> AsyncIterator[Client]:
    """The same in this process."""
    async with join(relay.url, "editor", agents=agents) as peer, served(peer) as server:
        async with Client(server) as client:
            yield client


def said(result: Any) -> Any:
    """What a tool has returned."""
    assert not result.is_error, result
    return result.structured_content["result"]


@pytest.mark.parametrize("way", [started, client])
async def test_agents_are_listed_and_asked_with_their_chunks_as_progress(
    way: Callable[[LiveRelay], Any], live: LiveRelay
) -> None:
    async def shout(command: Command) -> str:
        for word in str(command.text).split():
            await command.stream(word.upper())
        return "done"

    told: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None = None, message: str | None = None) -> None:
        told.append((progress, message))

    async with join(live.url, "bob", agents=["coder"]) as bob, Serving(bob, shout):
        async with way(live) as editor:
            names = {tool.name for tool in (await editor.list_tools()).tools}
            assert names == {"list_agents", "ask_agent", "broadcast", "inbox", "reply"}
            listed = said(await editor.call_tool("list_agents", {}))
            assert listed == [{"agent": "coder", "peer": "bob"}]
            read = await editor.read_resource("mesh://agents")
            assert json.loads(read.contents[0].text) == listed
            asked = {"agent": "coder", "command": "to be"}
            answer = await editor.call_tool("ask_agent", asked, progress_callback=note)
            assert said(answer) == "done"
            assert told == [(1.0, "TO"), (2.0, "BE")]
            nobody = await editor.call_tool("ask_agent", {"agent": "nobody", "command": "x"})
            assert nobody.is_error
            assert "nobody" in str(nobody.content)


async def test_who_cancels_the_call_cancels_the_command(live: LiveRelay) -> None:
    think = Thinking()
    async with join(live.url, "bob", agents=["coder"]) as bob, Serving(bob, think):
        async with client(live) as editor:
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as calls:
                    asked = {"agent": "coder", "command": "think"}
                    calls.start_soon(editor.call_tool, "ask_agent", asked)
                    await think.begun.wait()
                    calls.cancel_scope.cancel()
                await think.stopped.wait()
            assert said(await editor.call_tool("list_agents", {}))  # the session goes on


async def test_others_can_talk_to_an_mcp_client(live: LiveRelay) -> None:
    async with join(live.url, "bob") as bob, client(live, "desk") as editor:
        await until(lambda: "editor" in bob.roster)
        assert bob.roster["editor"].agents == ("desk",)
        await bob.broadcast("hello all")
        await bob.direct("editor", {"n": 1})
        wait = {"wait_s": 30, "count": 1}
        assert said(await editor.call_tool("inbox", wait)) == [
            {"from": "bob", "type": "broadcast", "data": "hello all"}
        ]
        assert said(await editor.call_tool("inbox", wait)) == [
            {"from": "bob", "type": "direct", "data": {"n": 1}}
        ]
        assert said(await editor.call_tool("inbox", {})) == []
        turn = bob.ask("desk", "is it done?")
        (item,) = said(await editor.call_tool("inbox", wait))
        assert (item["from"], item["command"]) == ("bob", "is it done?")
        answer = {"reply_with": item["reply_with"], "text": "yes"}
        assert said(await editor.call_tool("reply", answer)) == "answered"
        assert await turn == "yes"
        again = await editor.call_tool("reply", answer)
        assert again.is_error
        await editor.call_tool("broadcast", {"text": "from the editor"})
        assert (await message_of(bob, "broadcast")).data == "from the editor"


async def test_commands_that_nobody_answers_are_bounded(live: LiveRelay) -> None:
    async with join(live.url, "bob") as bob, client(live, "desk") as editor:
        await until(lambda: "editor" in bob.roster)
        turns = [bob.ask("desk", number) for number in range(50)]
        for _ in turns:
            assert said(await editor.call_tool("inbox", {"wait_s": 30, "count": 1}))
        with pytest.raises(TurnFailed, match="nobody has time"):
            await bob.ask("desk", "one more")
        for turn in turns:
            turn.cancel()
        assert await editor.call_tool("list_agents", {})
