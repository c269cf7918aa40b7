"""The examples with frameworks, as programs use them: Strands, LangGraph, FastAPI, MCP."""

import importlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Address, websocket
from actors.relay.runtime import Runtime
from protocol.member.errors import AnnouncementRefused, Rejected, TurnFailed
from tests import ROOT
from tests.worlds.live import PATIENCE_S, HeldPort
from tests.worlds.peers import Serving, until

pytestmark = pytest.mark.anyio

LINES_MAX = 40
"""Of an example, without its docstring: nobody reads a longer one."""


@pytest.fixture
def anyio_backend() -> str:
    """The frameworks know only this one."""
    return "asyncio"


def example(name: str, *needs: str) -> Any:
    for module in needs:
        pytest.importorskip(module, reason=f"{module} is not installed")
    return importlib.import_module(f"examples.{name}")


@asynccontextmanager
async def asking(serve: Any, name: str, *more: Any) -> AsyncIterator[tuple[Peer, Any]]:
    """A peer of a mesh in which `serve` serves the agent `name`."""
    async with Runtime() as runtime, anyio.create_task_group() as tasks:
        where = partial(runtime.connect, "m")
        async with join(where, "ann") as ann:
            tasks.start_soon(serve, where, name, *more)
            await until(lambda: name in ann.roster)
            yield ann, where
        tasks.cancel_scope.cancel()


async def test_a_strands_agent_streams_its_answer() -> None:
    strands_agent = example("strands_agent", "strands")
    from strands import Agent  # noqa: PLC0415
    from strands.models import Model  # noqa: PLC0415

    class Parrot(Model):
        """A model that says again what it was asked, word by word."""

        def update_config(self, **_: Any) -> None: ...

        def get_config(self) -> Any:
            return {}

        structured_output: Any = None

        async def stream(self, messages: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
            yield {"messageStart": {"role": "assistant"}}
            yield {"contentBlockStart": {"start": {}}}
            for word in messages[-1]["content"][0]["text"].split():
                yield {"contentBlockDelta": {"delta": {"text": f"{word.upper()} "}}}
            yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "end_turn"}}

    agent = Agent(model=Parrot(), callback_handler=None)
    async with asking(strands_agent.serve, "parrot", agent) as (ann, _):
        turns = [ann.ask("parrot", "to be"), ann.ask("parrot", "or not")]  # one after the other
        with anyio.fail_after(PATIENCE_S):
            assert [chunk async for chunk in turns[0]] == ["TO ", "BE "]
            assert [await turn for turn in turns] == ["TO BE ", "OR NOT "]


async def test_a_langgraph_graph_is_served_and_asks() -> None:
    langgraph_agent = example("langgraph_agent", "langgraph")

    async def write(command: Command) -> str:
        return f"[{command.text}]"

    async with asking(langgraph_agent.serve, "editor", "writer") as (ann, where):
        async with join(where, "bob", agents=["writer"]) as bob, Serving(bob, write):
            with anyio.fail_after(PATIENCE_S):
                assert await ann.ask("editor", "tea") == "[write about tea] (editor)"


async def test_the_tools_of_an_mcp_server_are_an_agent() -> None:
    mcp_tools = example("mcp_tools", "mcp")
    from mcp.server import MCPServer  # noqa: PLC0415

    server = MCPServer("tools")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with asking(mcp_tools.serve, "tools", server) as (ann, _):
        with anyio.fail_after(PATIENCE_S):
            assert await ann.ask("tools", "what can you do?") == {"add": "Add two numbers."}
            asked = {"tool": "add", "arguments": {"a": 1, "b": 2}}
            assert await ann.ask("tools", asked) == {"result": 3}
            with pytest.raises(TurnFailed):
                await ann.ask("tools", {"tool": "add", "arguments": {"a": "x"}})


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_fastapi_application_binds_each_peer_to_its_user(server: str) -> None:
    example("fastapi_users", "fastapi", "hypercorn")
    bind = {"uvicorn": "--host=127.0.0.1", "hypercorn": "--bind=127.0.0.1:{}"}[server]
    with HeldPort() as port:
        more = [f"--port={port}"] if server == "uvicorn" else []
        command = [sys.executable, "-m", server, "examples.fastapi_users:app", bind.format(port)]
        program = subprocess.Popen(  # noqa: ASYNC220
            [*command, *more], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            url = f"ws://127.0.0.1:{port}/ws"
            ann = websocket(Address(url, headers={"Cookie": "session=session of ann"}))
            async with join(ann, "ann/laptop", agents=["coder"], within_s=60) as peer:
                assert peer.id == "ann/laptop"
            with pytest.raises(AnnouncementRefused):
                async with join(ann, "bob"):
                    pass
            with pytest.raises(Rejected, match="403"):  # closed before it was accepted
                async with join(url, "bob"):
                    pass
        finally:
            program.terminate()
            await anyio.to_thread.run_sync(program.wait)


def test_the_examples_are_short() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        if path.name != "embed.py":
            code = path.read_text().split('"""', 2)[2]
            lines = [line for line in code.splitlines() if line.strip()]
            assert len(lines) <= LINES_MAX, path
