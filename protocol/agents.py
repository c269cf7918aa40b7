"""An agent as its peer announces it: how its id is read, in one place."""

from typing import Any

import attrs


@attrs.frozen
class Agent:
    """One agent of a peer: its id, and the JSON text by which its peer announced it."""

    id: str | None
    text: bytes


def agent_id(agent: Any) -> str | None:
    """The id of an agent as it is announced: a string, or the first of `agentId`, `id` and `name`
    that is one. None if there is none; an empty string is none.

    >>> agent_id({"agentId": 5, "id": "x"})
    'x'
    """
    if isinstance(agent, dict):
        names = (agent.get("agentId"), agent.get("id"), agent.get("name"))
        return next((name for name in names if isinstance(name, str) and name), None)
    return agent if isinstance(agent, str) and agent else None
