"""How the id of an agent is read from what its peer announces."""

from typing import Any

import msgspec


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One agent of a peer: its id, and the JSON text by which its peer announced it.

    A struct, because a peer has hundreds, and announces them anew.
    """

    id: str | None
    text: bytes


def agent_id(agent: Any) -> str | None:
    """The id of an announced agent, or None if it has none.

    An agent is a string, or an object: then its id is the first of `agentId`, `id` and `name` that
    is a string. An empty string is no id.

    >>> agent_id({"agentId": 5, "id": "x"})
    'x'
    """
    if isinstance(agent, dict):
        names = (agent.get("agentId"), agent.get("id"), agent.get("name"))
        return next((name for name in names if isinstance(name, str) and name), None)
    return agent if isinstance(agent, str) and agent else None
