"""Who may come in, and as whom: what a host permits a connection, and what a peer claims."""

from dataclasses import dataclass
from typing import Any, Final

from protocol.verification.model.faults import RELAY
from protocol.verification.model.reading import LONE_SURROGATE, Number, agent_id

NONCHARACTER: Final = "\ufffe"
"""What stands for half an emoji inside a relay, so it cannot be in a secret."""


@dataclass(frozen=True)
class Permit:
    """What a connection may do, as its host says (rule 17). By default everything.

    `peer`: its id is this, or this with `/` and more. `agents`: their names, or what a name with a
    `*` at its end begins with. `ends_at`: when it runs out (seconds of the model's time).
    """

    peer: str | None = None
    agents: tuple[str, ...] | None = None
    may_send: bool = True
    may_watch: bool = True
    ends_at: float | None = None

    def allows_peer(self, id: str) -> bool:
        """It may be this peer."""
        return self.peer is None or id.split("/")[: self.peer.count("/") + 1] == self.peer.split(
            "/"
        )

    def allows_agent(self, id: str | None) -> bool:
        """It may have an agent of this name (None: without one), and speak for it."""
        if self.agents is None:
            return True
        names = [name for name in self.agents if name[-1] != "*"]
        beginnings = [name[:-1] for name in self.agents if name[-1] == "*"]
        return id is not None and (id in names or any(id.find(one) == 0 for one in beginnings))

    def allows_agents(self, agents: list[Any] | None) -> bool:
        """It may have all of these."""
        return all(self.allows_agent(agent_id(agent)) for agent in agents or ())


@dataclass(frozen=True)
class Claim:
    """What a connection said before its presence (rule 16)."""

    secret: str
    takes_over: bool


def claim_of(data: Any) -> tuple[Claim | None, set[str]]:
    """The claim in the `data` of a `capabilities`, and its faults."""
    if not isinstance(data, dict):
        return None, set()
    secret, takes_over = data.get("claim"), data.get("takeover")
    if takes_over not in (None, True, False) or (takes_over and secret is None):
        return None, {"bad_field"}
    if secret is None:
        return None, set()
    if not isinstance(secret, str) or LONE_SURROGATE.search(secret) or NONCHARACTER in secret:
        return None, {"bad_field"}
    if not 16 <= len(secret) <= 256:
        return None, {"bad_field"}
    return Claim(secret, takes_over is True), set()


def visitor_of(permit: Permit, value: dict[str, Any]) -> tuple[str | None, set[str]]:
    """As which peer somebody without a connection says this (rule 23; None: nobody knows), and
    what is wrong with that whoever is here."""
    sender, id = value.get("from"), value.get("instanceId")
    is_agent = permit.peer is not None and (sender is None or not permit.allows_peer(sender))
    if id is None:
        id = permit.peer if is_agent else sender
    if id is None:
        return None, {"bad_field"}
    faults: set[str] = set()
    if id == RELAY:
        faults.add("spoofed")
    if not permit.allows_peer(id) or not permit.may_send:
        faults.add("not_granted")
    if sender not in (None, id) and not permit.allows_agent(sender):
        faults.add("not_granted")
    return id, faults


def wish_of(data: Any) -> tuple[int | None, set[str]]:
    """How many earlier messages the `data` of a `capabilities` asks for (rule 21), and its
    faults."""
    if not isinstance(data, dict) or "history" not in data:
        return None, set()
    wish = data["history"]
    count = wish.get("messages") if isinstance(wish, dict) else None
    if not isinstance(count, Number) or not count.literal.isdigit() or int(count.literal) > 2**53:
        return None, {"bad_field"}
    return int(count.literal), set()
