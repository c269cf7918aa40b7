"""Refusals that more than one place makes, each with its one sentence."""

from protocol.envelope import ErrorCode, Refusal
from protocol.limits import Limits


def check_name(name: str, field: str, limits: Limits) -> None:
    """Raise Refusal unless `name` can be that of a peer, an agent or a type."""
    if not name:
        raise Refusal(ErrorCode.BAD_FIELD, f"`{field}` is empty")
    if len(name) > limits.id_chars_max:
        sentence = f"`{field}` has {len(name)} characters, {limits.id_chars_max} at most"
        raise Refusal(ErrorCode.TOO_LONG, sentence)


def not_present() -> Refusal:
    """The refusal of a message from a connection that has not announced a peer."""
    return Refusal(ErrorCode.NOT_PRESENT, "announce yourself first: send a `presence`")


def too_large(limits: Limits, why: str = "") -> Refusal:
    """The refusal of a message beyond its bound. `why`: how it came to be as long."""
    sentence = f"a message has at most {limits.message_bytes_max} bytes{why}"
    return Refusal(ErrorCode.TOO_LARGE, sentence)


def presence_too_large(limits: Limits) -> Refusal:
    """The refusal of a presence, or of a heartbeat that would make one, beyond its bound."""
    sentence = f"a presence has at most {limits.presence_bytes_max} bytes"
    return Refusal(ErrorCode.TOO_LARGE, sentence)


def too_many_agents(count: int, limits: Limits) -> Refusal:
    """The refusal of an announcement of `count` agents."""
    sentence = f"a peer has at most {limits.agents_max} agents, this is {count}"
    return Refusal(ErrorCode.TOO_MANY_AGENTS, sentence)
