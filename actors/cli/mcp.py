"""`agi-mesh mcp`: a mesh for programs that speak MCP, the Model Context Protocol.

An editor or an agent starts this command and talks to it over stdin and stdout. It is then a peer
of the mesh: it can list and ask agents, and say things to everyone; others can address it by its
peer id or agent. What comes for it waits in its inbox, which is bounded. A command in there waits
for `reply`; its asker hears signs of life until then, as from any agent.

    tools      list_agents, ask_agent, broadcast, inbox, reply
    resources  mesh://agents
"""

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

import anyio
import click

from actors.cli import shown
from actors.cli.hearing import heard
from actors.cli.place import Place, options
from actors.cli.running import run
from actors.client.command import Command
from actors.client.peer import Peer
from actors.signal import Signal
from protocol.about import __version__, missing_extra
from protocol.member.errors import RelayError

INBOX_MAX: Final = 200
"""So many messages wait; the oldest go first."""
COMMANDS_MAX: Final = 50
"""So many commands wait for a reply; further ones are told that nobody has time."""
IN_INBOX: Final = frozenset({"broadcast", "direct"})


class Waiting:
    """A reply that is waited for."""

    def __init__(self) -> None:
        self._answer: str | None = None
        self._is_there = anyio.Event()

    def answer(self, text: str) -> None:
        """This is the result."""
        self._answer = text
        self._is_there.set()

    async def result(self) -> str:
        """The result, when it is there."""
        await self._is_there.wait()
        return self._answer or ""


class Inbox:
    """What has come for this peer, and the commands that wait for a reply, by turn id."""

    def __init__(self) -> None:
        self._items: deque[dict[str, Any]] = deque(maxlen=INBOX_MAX)
        self._commands: dict[str, Waiting] = {}
        self._changed = Signal()

    def put(self, item: dict[str, Any]) -> None:
        """Something has come."""
        self._items.append(item)
        self._changed.set()

    async def take(self, count: int, wait_s: float) -> list[dict[str, Any]]:
        """The oldest ones, and no longer there. Waits for one, if there is none."""
        with anyio.move_on_after(wait_s):
            while not self._items:
                await self._changed.wait()
        return [self._items.popleft() for _ in range(min(count, len(self._items)))]

    async def handle(self, command: Command) -> str:
        """The reply to a command. Raises RuntimeError if too many wait."""
        turn = command.message.turn_id or ""
        if len(self._commands) >= COMMANDS_MAX:
            raise RuntimeError("nobody has time: too many commands wait for a reply")
        waiting = self._commands[turn] = Waiting()
        self.put({"from": command.asker, "command": command.text, "reply_with": turn})
        try:
            return await waiting.result()
        finally:
            self._commands.pop(turn, None)

    def reply(self, turn: str, text: str) -> bool:
        """Answer a command. False: no such command waits (any more)."""
        waiting = self._commands.pop(turn, None)
        if waiting is not None:
            waiting.answer(text)
        return waiting is not None


@click.command()
@options
@click.option("--agent", help="An agent that others can ask; you answer from the inbox.")
def mcp(*, place: Place, agent: str | None) -> None:
    """The mesh as an MCP server on stdin and stdout, for editors and agents.

    Claude Code, for example: claude mcp add mesh -- agi-mesh mcp --url wss://relay.example/ws
    """
    try:
        import_module("mcp.server")
    except ModuleNotFoundError as error:  # which is said before anybody is looked for
        raise missing_extra(error, "mcp", "agi-mesh mcp") from None
    run(partial(_serve, place, agent))


async def _serve(place: Place, agent: str | None) -> None:
    agents = [] if agent is None else [agent]
    async with place.join(agents=agents, program="agi-mesh mcp") as peer, served(peer) as server:
        shown.note(f"{peer.id} is at {place.shown}")
        await server.run_stdio_async()


@asynccontextmanager
async def served(peer: Peer) -> AsyncIterator[Any]:
    """The MCP server of this peer, to which what others say comes meanwhile."""
    inbox = Inbox()
    server = made(peer, inbox)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.serve, inbox.handle)
        tasks.start_soon(_listen, peer, inbox)
        yield server
        tasks.cancel_scope.cancel()


async def _listen(peer: Peer, inbox: Inbox) -> None:
    async for message in heard(peer):
        if isinstance(message, RelayError):
            inbox.put({"note": f"some messages are missing here: {message}"})
        elif message.type in IN_INBOX and message.word("command") is None:
            inbox.put({"from": message.sender, "type": message.type, "data": message.data})


def made(peer: Peer, inbox: Inbox) -> Any:
    """The MCP server of this peer."""
    from mcp.server import MCPServer  # noqa: PLC0415 (an extra brings it)
    from mcp.server.mcpserver import Context  # noqa: PLC0415
    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415

    server = MCPServer(
        "agi-mesh",
        version=__version__,
        instructions=f"A mesh of agents, in which you are the peer {peer.id}. List the agents "
        "before you ask one. Look into the inbox for what others say to you.",
    )

    def agents() -> list[dict[str, Any]]:
        return [
            {"agent": agent, "peer": other.id}
            for other in peer.roster.values()
            for agent in other.agents
        ]

    @server.tool()
    async def list_agents() -> list[dict[str, Any]]:
        """The agents in the mesh, and the peer that each of them belongs to."""
        return agents()

    @server.tool()
    async def ask_agent(
        ctx: Context, agent: str, command: str, peer_id: str | None = None, timeout_s: float = 300
    ) -> str:
        """Give an agent a command, and return its answer. `peer_id`: where several peers have the
        agent, the one that is meant. `timeout_s`: its longest silence in seconds."""
        chunks: list[str] = []
        try:
            async with peer.ask(agent, command, peer=peer_id, timeout_s=timeout_s) as turn:
                async for chunk in turn:
                    chunks.append(chunk)
                    await ctx.report_progress(len(chunks), message=chunk)
                result = await turn
        except (RelayError, ValueError) as error:
            raise ToolError(str(error)) from None
        if result is None:
            return "".join(chunks)
        return result if isinstance(result, str) else json.dumps(result)

    @server.tool()
    async def broadcast(text: str) -> str:
        """Say something to everyone in the mesh."""
        try:
            await peer.broadcast(text)
        except RelayError as error:
            raise ToolError(str(error)) from None
        return "said"

    @server.tool(name="inbox")
    async def read_inbox(count: int = 20, wait_s: float = 0) -> list[dict[str, Any]]:
        """What others have said to you or to everyone, oldest first; each is told once. `wait_s`:
        wait so many seconds for something, up to 60. What has `reply_with` is a command for you:
        answer it with `reply`."""
        return await inbox.take(max(1, min(count, INBOX_MAX)), max(0.0, min(wait_s, 60.0)))

    @server.tool()
    async def reply(reply_with: str, text: str) -> str:
        """Answer a command from the inbox."""
        if not inbox.reply(reply_with, text):
            raise ToolError("no such command waits for a reply (any more)")
        return "answered"

    @server.resource("mesh://agents", mime_type="application/json")
    def roster() -> str:
        """The agents in the mesh, and their peers."""
        return json.dumps(agents())

    return server
