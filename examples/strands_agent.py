"""A Strands agent in a mesh: its answer is streamed as it is written.

pip install 'agi-diy-relay' strands-agents
"""

from strands import Agent

from agi_diy_relay import Command, Connector, join


async def serve(where: str | Connector, name: str, agent: Agent) -> None:
    """Answer commands with this agent, until this is cancelled."""

    async def answer(command: Command) -> str:
        text = ""
        async for event in agent.stream_async(command.text):
            if "data" in event:
                text += event["data"]
                await command.stream(event["data"])
        return text

    async with join(where, name, agents=[name], subscribe=False) as peer:
        await peer.serve(answer, at_a_time=1)  # Strands refuses a second call meanwhile
