"""Messages as they arrived at a peer of the kit."""

import json
from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Message:
    """A message as it arrived. `fields` is empty if it was no JSON object."""

    text: str
    fields: Mapping[str, Any]

    @property
    def type(self) -> object:
        """The field `type`."""
        return self.fields.get("type")

    @property
    def sender(self) -> object:
        """The field `from`."""
        return self.fields.get("from")

    @property
    def origin(self) -> object:
        """The id of the peer that it says it came from."""
        return self.fields.get("instanceId", self.sender)

    @property
    def data(self) -> Mapping[str, Any]:
        """`data`, where it is an object."""
        data = self.fields.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def is_offline(self) -> bool:
        """Does it say that a peer went?"""
        return self.type == "presence" and self.data.get("status") == "offline"

    @property
    def agents(self) -> list[object]:
        """The ids of `data.agents`."""
        agents = self.data.get("agents")
        return [_agent_id(a) for a in agents] if isinstance(agents, list) else []

    def carries(self, text: str) -> bool:
        """All fields of `text` are in it with their values; the relay may have added some."""
        sent: dict[str, Any] = json.loads(text)
        return all(name in self.fields and self.fields[name] == sent[name] for name in sent)


def _agent_id(agent: object) -> object:
    if isinstance(agent, dict):
        ids = (agent.get(key) for key in ("agentId", "id", "name"))
        return next((id for id in ids if isinstance(id, str) and id), None)
    return agent


def read(text: str | bytes) -> Message:
    """What arrived, as a message. Never raises: what is no JSON object has no fields."""
    if isinstance(text, bytes):
        return Message(f"a binary frame of {len(text)} bytes", {})
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    return Message(text, fields if isinstance(fields, dict) else {})
