"""What the relay writes: the fields that it adds to a message, and its own messages."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from protocol.agents import Agent
from protocol.codec import decode_object, without_lone_surrogates
from protocol.envelope import RELAY, Refusal, Text
from protocol.limits import Limits

_encode = msgspec.json.Encoder().encode


def with_fields(text: Text, **fields: str) -> Text:
    """`text` with string fields added at its end, everything before untouched.

    Added at the end because there the last one of a name counts: `"from":null` is overruled too.

    >>> with_fields(b'{"type":"ack"}', instanceId="me")
    b'{"type":"ack","instanceId":"me"}'
    """
    end = text.rindex(b"}")
    comma = b"," if text[:end].strip(b" \t\r\n") != b"{" else b""
    return text[:end] + comma + _encode(fields)[1:-1] + text[end:]


def presence_with(text: Text, agents: Iterable[Agent] | None) -> Text:
    """A presence whose `data` is an object and, unless None, whose `data.agents` are these.

    Other fields keep their order and the letter of their values (except lone surrogates).
    """
    fields = decode_object(without_lone_surrogates(text))
    data = fields.get("data")
    members: dict[str, Any] = {} if data is None or bytes(data) == b"null" else decode_object(data)
    if agents is not None:
        members["agents"] = [msgspec.Raw(agent.text) for agent in agents]
    return _encode({**fields, "data": members})


def bare_agent(id: str) -> Agent:
    """An agent that is announced by nothing but its id."""
    return Agent(id, _encode(id))


# The relay's own messages -------------------------------------------------------------------------

_SHORT_CHARS: Final = 100
"""What remains of the sentence of an error that would be too long."""


def error(
    refusal: Refusal, to: str | None, turn_id: msgspec.Raw | None, wall_ms: int, limits: Limits
) -> Text:
    """What the relay answers to the sender of a refused message.

    The bound of a message holds for it too: if need be it does without the echo of a long `turnId`,
    and without details.
    """
    data = {"code": refusal.code.code, "error": refusal.sentence, **refusal.details}
    text = _from_relay("error", to, data, wall_ms, turn_id)
    if len(text) > limits.message_bytes_max:
        bare = {"code": refusal.code.code, "error": refusal.sentence[:_SHORT_CHARS]}
        text = _from_relay("error", None, bare, wall_ms, None)
    return text


def offline(peer: str, reason: str, wall_ms: int) -> Text:
    """The presence by which the others learn that `peer` has gone. It carries no agents, because
    clients file every presence alike."""
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
) -> Text:
    """The answer to `capabilities`: `capabilities_response`, the name existing pages listen for.

    `agentCards` and `activeAgents` are what those pages read; this relay runs no agents itself.
    `is_paced`: the edge in front limits frames, in both directions. Like `error`, it does without
    the echo of a long `turnId`.
    """
    bounds: dict[str, float] = {
        "messageBytes": limits.message_bytes_max,
        "messagesPerSecond": limits.messages_per_s,
        "messagesBurst": limits.messages_burst,
        "reapAfterSeconds": limits.reap_after_s,
    }
    if is_paced:
        bounds |= {"framesPerSecond": limits.frames_per_s, "frameBytes": limits.frame_bytes_max}
    data = {
        "agentCards": (),
        "activeAgents": (),
        "types": types,
        "keepalive": ("pong",),
        "accept": ("batch",),
        "limits": bounds,
    }
    text = _from_relay("capabilities_response", to, data, wall_ms, turn_id)
    if len(text) > limits.message_bytes_max:
        text = _from_relay("capabilities_response", None, data, wall_ms, None)
    return text


def _from_relay(
    type: str, to: str | None, data: object, wall_ms: int, turn_id: msgspec.Raw | None
) -> Text:
    message: dict[str, object] = {"type": type, "from": RELAY, "to": to}
    if turn_id is not None:
        message["turnId"] = turn_id
    return _encode({**message, "data": data, "timestamp": wall_ms})
