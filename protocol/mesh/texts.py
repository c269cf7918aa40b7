"""The texts that the relay writes: fields that it adds to a message, and its own messages."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from protocol.agents import Agent
from protocol.codec import decode_object, without_lone_surrogates
from protocol.envelope import RELAY, Refusal, Text
from protocol.grants import OPEN, Grant
from protocol.limits import Limits
from protocol.mesh.directory import EMPTY, Directory

_encode = msgspec.json.Encoder().encode


def with_fields(text: Text, **fields: str) -> Text:
    """`text` with string fields added at its end. Everything before them stays as it is.

    They are at the end because the last field of a name counts. So they also replace `"from":null`.

    >>> with_fields(b'{"type":"ack"}', instanceId="me")
    b'{"type":"ack","instanceId":"me"}'
    """
    end = text.rindex(b"}")
    comma = b"," if text[:end].strip(b" \t\r\n") != b"{" else b""
    return text[:end] + comma + _encode(fields)[1:-1] + text[end:]


def presence_with(text: Text, agents: Iterable[Agent] | None) -> Text:
    """The presence with an object as `data`, and with these agents in it (None: as they are).

    All other fields keep their order and the text of their values (except lone surrogates).
    """
    fields = decode_object(without_lone_surrogates(text))
    data = fields.get("data")
    members: dict[str, Any] = {} if data is None or bytes(data) == b"null" else decode_object(data)
    if agents is not None:
        members["agents"] = [msgspec.Raw(agent.text) for agent in agents]
    return _encode({**fields, "data": members})


def bare_agent(id: str) -> Agent:
    """An agent that is announced only by its id."""
    return Agent(id, _encode(id))


# The relay's own messages -------------------------------------------------------------------------

_SHORT_CHARS: Final = 100
"""So many characters of the sentence stay if an error would be too long."""


def error(
    refusal: Refusal, to: str | None, turn_id: msgspec.Raw | None, wall_ms: int, limits: Limits
) -> Text:
    """The answer of the relay to the sender of a refused message.

    The bound of a message holds for it, too. If it is too long, it has no `turnId` and no details.
    """
    data = {"code": refusal.code.code, "error": refusal.sentence, **refusal.details}
    text = _from_relay("error", to, data, wall_ms, turn_id)
    if len(text) > limits.message_bytes_max:
        bare = {"code": refusal.code.code, "error": refusal.sentence[:_SHORT_CHARS]}
        text = _from_relay("error", None, bare, wall_ms, None)
    return text


def offline(peer: str, reason: str, wall_ms: int) -> Text:
    """The presence that tells the others that `peer` has left.

    Its agents are empty, because clients store every presence in the same way.
    """
    data = {"status": "offline", "reason": reason, "agents": ()}
    return _encode({"type": "presence", "from": peer, "data": data, "timestamp": wall_ms})


def capabilities(
    to: str | None,
    turn_id: msgspec.Raw | None,
    types: Sequence[str],
    limits: Limits,
    wall_ms: int,
    *,
    is_paced: bool = False,
    grant: Grant = OPEN,
    agents: Directory = EMPTY,
    resume: dict[str, object] | None = None,
) -> Text:
    """The answer to `capabilities`, a `capabilities_response`, as existing pages expect it.

    `is_paced`: an edge in front of the relay limits frames, in both directions. `grant`: what the
    connection may do. `agents`: what those pages read in `agentCards` and `activeAgents`. `resume`:
    how the connection may come back. If the answer is too long, it has no `turnId` and no agents.
    """
    bounds: dict[str, float] = {
        "messageBytes": limits.message_bytes_max,
        "messagesPerSecond": limits.messages_per_s,
        "messagesBurst": limits.messages_burst,
        "reapAfterSeconds": limits.reap_after_s,
    }
    if is_paced:
        bounds |= {"framesPerSecond": limits.frames_per_s, "frameBytes": limits.frame_bytes_max}
    data: dict[str, object] = {
        "agentCards": msgspec.Raw(agents.cards),
        "activeAgents": msgspec.Raw(agents.active),
        "types": types,
        "keepalive": ("pong",),
        "accept": ("batch",),
        "claim": True,
        "subscribe": {"topics": limits.wish_names_max, "types": limits.wish_names_max},
        "limits": bounds,
    }
    if limits.recall_messages_max:
        data["history"] = {"messages": limits.recall_messages_max}
    if resume is not None:
        data["resume"] = resume
    if grant is not OPEN:
        data["grant"] = _granted(grant, wall_ms)
    text = _from_relay("capabilities_response", to, data, wall_ms, turn_id)
    if len(text) > limits.message_bytes_max:
        data |= {"agentCards": (), "activeAgents": ()}
        text = _from_relay("capabilities_response", None, data, wall_ms, None)
    return text


def recalled(to: str, count: int, wall_ms: int) -> Text:
    """What stands before so many messages that were said before somebody joined."""
    data = {"history": {"messages": count}}
    return _from_relay("capabilities_response", to, data, wall_ms, None)


def about_coming_back(
    to: str | None, turn_id: msgspec.Raw | None, data: dict[str, object], wall_ms: int
) -> Text:
    """The answer to a `capabilities` that reports, or wants to go on with a lost connection."""
    return _from_relay("capabilities_response", to, data, wall_ms, turn_id)


def _granted(grant: Grant, wall_ms: int) -> dict[str, object]:
    granted: dict[str, object] = {}
    if grant.peer is not None:
        granted["peer"] = grant.peer
    if grant.ends_at_ms is not None:
        granted["expiresInSeconds"] = max(0, (grant.ends_at_ms - wall_ms) // 1000)
    return granted


def _from_relay(
    type: str, to: str | None, data: object, wall_ms: int, turn_id: msgspec.Raw | None
) -> Text:
    message: dict[str, object] = {"type": type, "from": RELAY, "to": to}
    if turn_id is not None:
        message["turnId"] = turn_id
    return _encode({**message, "data": data, "timestamp": wall_ms})
