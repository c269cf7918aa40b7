"""A LangGraph graph in a mesh: it is served as an agent, and one of its nodes asks another agent.

pip install 'agi-diy-relay' langgraph
"""

from typing import TypedDict

from langgraph.graph import END, START, StateGraph

from agi_diy_relay import Command, Connector, join


class State(TypedDict):
    """What the nodes of the graph share."""

    topic: str
    draft: str


async def serve(where: str | Connector, name: str, writer: str) -> None:
    """Be the agent `name`, which has `writer` write about what it is asked for."""
    async with join(where, name, agents=[name], subscribe=False) as peer:

        async def write(state: State) -> dict[str, str]:
            return {"draft": await peer.ask(writer, f"write about {state['topic']}")}

        def sign(state: State) -> dict[str, str]:
            return {"draft": f"{state['draft']} ({name})"}

        graph = StateGraph(State).add_sequence([write, sign]).add_edge(START, "write")
        compiled = graph.add_edge("sign", END).compile()

        async def answer(command: Command) -> str:
            state = await compiled.ainvoke({"topic": command.text, "draft": ""})
            return str(state["draft"])

        await peer.serve(answer)
