"""The ways to join of docs/join.md, as they stand there: a shell, MCP, any WebSocket, HTTP."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from tests import ROOT
from tests.actors.cli.program import environment, put_in
from tests.worlds.live import PATIENCE_S, LiveRelay
from tests.worlds.peers import Serving, message_of, until

pytestmark = pytest.mark.anyio

WEBSOCAT: Final = """#!{python}
import sys, threading
from websockets.sync.client import connect

def show():
    for text in socket:
        print(text, flush=True)

with connect(sys.argv[1], proxy=None) as socket:
    threading.Thread(target=show, daemon=True).start()
    for line in sys.stdin:
        socket.send(line)
"""
"""What stands in for websocat where there is none: each line is a message."""


@pytest.fixture
def anyio_backend() -> str:
    """It is about the programs."""
    return "asyncio"


def blocks(heading: str, language: str = "sh") -> list[str]:
    """What a section of docs/join.md shows in this language."""
    page = (ROOT / "docs" / "join.md").read_text()
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


class Shell:
    """A shell in which the programs of the page are installed, and the relay is this one."""

    def __init__(self, relay: LiveRelay, folder: Path) -> None:
        self._relay = relay
        path = put_in(folder)
        if shutil.which("websocat") is None:
            (folder / "websocat").write_text(WEBSOCAT.format(python=sys.executable))
            (folder / "websocat").chmod(0o700)
        self.environment = environment(PATH=path, AGI_MESH_URL=relay.url, NO_PROXY="127.0.0.1")

    @contextmanager
    def running(self, script: str) -> "Iterator[subprocess.Popen[str]]":
        """A script that goes on. At the end it is ended, with all that it has started."""
        program = subprocess.Popen(
            ["sh", "-ec", self.here(script)],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        with program:
            try:
                yield program
            finally:
                with suppress(ProcessLookupError):  # it has ended, with all of them
                    os.killpg(program.pid, signal.SIGKILL)

    async def run(self, script: str) -> str:
        """What a script writes that ends by itself."""

        def run() -> str:
            with self.running(script) as program:
                said, _ = program.communicate(timeout=PATIENCE_S)
                assert program.returncode == 0, said
                return said

        return await anyio.to_thread.run_sync(run)

    def here(self, script: str) -> str:
        """The script, for this relay."""
        return script.replace("//localhost:8080", f"//127.0.0.1:{self._relay.port}")


@pytest.fixture
def shell(live: LiveRelay, tmp_path: Path) -> Shell:
    return Shell(live, tmp_path)


@asynccontextmanager
async def greeter(relay: LiveRelay) -> AsyncIterator[Peer]:
    async def greet(command: Command) -> str:
        return f"good morning, {command.asker}"

    async with join(relay.url, "my program", agents=["greeter"]) as peer, Serving(peer, greet):
        yield peer


def agents(peer: Peer) -> set[str]:
    """Those that this peer sees."""
    return {agent for other in peer.roster.values() for agent in other.agents}


async def test_a_shell_asks_and_speaks(shell: Shell, live: LiveRelay) -> None:
    asking, _ = blocks("A shell")
    async with greeter(live) as peer:
        said = await shell.run(asking)
        assert "greeter" in said
        assert said.splitlines()[-1] == "good morning, ann"
        assert (await message_of(peer, "broadcast")).data == "dinner is ready"


async def test_any_program_is_an_agent(shell: Shell, live: LiveRelay) -> None:
    _, serving = blocks("A shell")
    async with join(live.url, "ann") as ann:
        with shell.running(serving):
            await until(lambda: "upper" in agents(ann))
            with anyio.fail_after(PATIENCE_S):
                assert await ann.ask("upper", "hello") == "HELLO"


async def test_lines_of_a_shell_are_messages(shell: Shell, live: LiveRelay) -> None:
    once, staying = blocks("Any WebSocket")
    async with join(live.url, "ann") as ann:
        said = await shell.run(once)
        assert json.loads(said.splitlines()[0])["from"] == "bob"  # the relay's confirmation
        message = await message_of(ann, "broadcast")
        assert (message.origin, message.data) == ("bob", "hello")
        await until(lambda: "bob" not in ann.roster)
        with shell.running(staying):
            await until(lambda: "bob" in ann.roster)


async def test_curl_sees_who_is_here(shell: Shell, live: LiveRelay) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    asking, saying = blocks("HTTP")
    async with join(live.url, "ann") as ann:
        assert json.loads(await shell.run(asking))["peers"] == ["ann"]
        assert json.loads(await shell.run(saying)) == {"received": 1}
        assert (await message_of(ann, "broadcast")).origin == "cron"


async def test_the_entry_for_editors_starts_a_server_of_mcp(shell: Shell, live: LiveRelay) -> None:
    mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    (entry,) = blocks("An editor or an agent (MCP)", "json")
    (server,) = json.loads(entry)["mcpServers"].values()
    started = mcp.StdioServerParameters(**server, env=shell.environment, cwd=ROOT)
    async with greeter(live) as peer, mcp.Client(started) as client:
        listed = (await client.call_tool("list_agents", {})).structured_content["result"]
        assert listed == [{"agent": "greeter", "peer": "my program"}]
        assert "desk" in agents(peer)
        (command,) = blocks("An editor or an agent (MCP)")
        assert command.split(" -- ")[1].split() == [server["command"], *server["args"]]
