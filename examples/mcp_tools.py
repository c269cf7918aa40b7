"""The tools of an MCP server as an agent of a mesh: a command names a tool and its arguments.

pip install 'agi-diy-relay' mcp

await peer.ask("tools", {"tool": "add", "arguments": {"a": 1, "b": 2}})
"""

from typing import Any

from mcp import Client

from agi_diy_relay import Command, Connector, join


async def serve(where: str | Connector, name: str, server: Any) -> None:
    """Be the agent `name`, with the tools of this MCP server: whatever `mcp.Client` takes."""
    async with Client(server) as client:
        tools = (await client.list_tools()).tools

        async def call(command: Command) -> Any:
            asked = command.text
            if not isinstance(asked, dict) or "tool" not in asked:
                return {tool.name: tool.description for tool in tools}
            result = await client.call_tool(asked["tool"], asked.get("arguments", {}))
            text = "".join(getattr(block, "text", "") for block in result.content)
            if result.is_error:
                raise RuntimeError(text)
            return result.structured_content or text

        async with join(where, name, agents=[name], subscribe=False) as peer:
            await peer.serve(call)
