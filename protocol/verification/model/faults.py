"""What is wrong with a message by itself, whoever is here: sets of error codes.

A message may be wrong in several ways, and the rules do not say which of its faults the error
names. So these functions give all of them.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from protocol.limits import Limits
from protocol.verification.model.reading import LONE_SURROGATE, agent_id, depth, digits

RELAY: Final = "relay"

WITHHELD: Final = (
    "configure",
    "relay-log",
    "relay-auth-required",
    "relay-of-a-new-kind",
    "credentials_updated",
    "list_github",
    "trigger_github",
    "poll_github_logs",
)
"""Types that nobody receives; of those that begin with `relay-` some."""
RELAYS_OWN: Final = ("capabilities_response",)
FANNED_OUT: Final = ("broadcast", "stream", "ack", "turn_end", "error")
_KEPT: Final = (*WITHHELD, *RELAYS_OWN)
TO_ONE: Final = ("direct", "cancel")
KNOWN: Final = ("presence", "heartbeat", "capabilities", *TO_ONE, *FANNED_OUT, *_KEPT)


def is_withheld(type: str) -> bool:
    """Nobody receives messages of this type."""
    return type in WITHHELD or type.find("relay-") == 0


@dataclass(frozen=True)
class Faults:
    """The faults of messages under these limits. `strict`: unknown types are a fault."""

    limits: Limits
    strict: bool

    def of_size(self, message: bytes, added: dict[str, str] | None = None) -> set[str]:
        """A text with more bytes than allowed, counted with the fields that the relay adds."""
        return {"too_large"} if self.size(message, added) > self.limits.message_bytes_max else set()

    def size(self, message: bytes, added: dict[str, str] | None = None) -> int:
        """The bytes of a text with the fields that the relay adds."""
        if not added:
            return len(message)
        # `,"from":"a"` before the closing brace
        return (
            len(message)
            + len(json.dumps(added, ensure_ascii=False, separators=(",", ":")).encode())
            - 1
        )

    def of_value(self, value: Any) -> set[str]:
        """JSON that is nested too deep, has a number that is too long, or is no object."""
        limits = self.limits
        faults: set[str] = set()
        if depth(value) > limits.nesting_max or digits(value) > limits.number_digits_max:
            faults.add("malformed")
        if not isinstance(value, dict):
            faults.add("not_an_object")
        return faults

    def of_header(self, value: dict[str, Any]) -> set[str]:
        """A field that routes the message and is missing or of a wrong kind."""
        faults: set[str] = set()
        type = value.get("type")
        if not isinstance(type, str):
            faults.add("bad_field")
        elif type not in KNOWN and not is_withheld(type):
            faults |= self.of_name(type)
            if self.strict:
                faults.add("unknown_type")
        if type in RELAYS_OWN or value.get("from") == RELAY:
            faults.add("spoofed")
        for name in ("type", "from", "to", "instanceId", "targetInstanceId"):
            given = value.get(name)
            if given is not None and (not isinstance(given, str) or LONE_SURROGATE.search(given)):
                faults.add("bad_field")
        return faults

    def of_name(self, name: str) -> set[str]:
        """An id or a type that is empty or too long."""
        if not name:
            return {"bad_field"}
        return {"too_long"} if len(name) > self.limits.id_chars_max else set()

    def of_agents(self, message: bytes, value: dict[str, Any]) -> tuple[list[Any] | None, set[str]]:
        """The agents that a presence or heartbeat names (None: it names none), and its faults."""
        faults: set[str] = set()
        if len(message) > self.limits.presence_bytes_max:
            faults.add("too_large")
        data = value.get("data")
        if data is None:
            return None, faults
        if not isinstance(data, dict):
            return None, faults | {"bad_field"}
        if "agents" not in data:
            return None, faults
        agents = data["agents"]
        if not isinstance(agents, list):
            return None, faults | {"bad_field"}
        for agent in agents:
            if not isinstance(agent, (str, dict)) or not agent:
                faults |= {"bad_field"} if agent != {} else set()
                continue
            id = agent_id(agent)
            if id is not None:
                faults |= self.of_name(id)
                faults |= {"spoofed"} if id == RELAY else set()
                faults |= {"bad_field"} if LONE_SURROGATE.search(id) else set()
        return agents, faults | self.of_union(agents)

    def of_union(self, agents: list[Any]) -> set[str]:
        """More agents than one peer may have."""
        return {"too_many_agents"} if len(agents) > self.limits.agents_max else set()
