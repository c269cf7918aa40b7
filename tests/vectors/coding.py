"""Decisions as plain JSON, and errors back from it."""

import json
from typing import Any

import attrs

from protocol.member import errors
from protocol.member.effects import Arrived, Effect, Transmit
from protocol.member.errors import Gap, RelayError
from protocol.member.member import Member
from protocol.member.messages import Message, RemotePeer
from protocol.member.outgoing import Frame

PROPERTIES = (
    "state",
    "deadline",
    "is_ready",
    "is_in_use",
    "has_room",
    "queued",
    "agent_ids",
    "roster",
    "over",
)
"""What a step tells of a member."""


def plain(value: Any) -> Any:
    """A value of protocol/member as JSON."""
    match value:
        case Message(fields):
            return dict(fields)
        case RemotePeer():
            return {"id": value.id, "agents": list(value.agents), "data": dict(value.data)}
        case Frame(text, tickets):
            frame = json.loads(text)
            is_array = isinstance(frame, list)
            messages = frame if is_array else [frame]
            return {"messages": messages, "is_array": is_array, "tickets": list(tickets)}
        case Exception():
            return plain_error(value)
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


def plain_error(error: Exception) -> dict[str, Any]:
    """An error: its class, its sentence, and what else it says, where there is something. The
    sentences of TypeError and ValueError are each language's own."""
    if not isinstance(error, RelayError):
        return {"error": type(error).__name__}
    shown: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    for name in ("code", "peers"):
        if hasattr(error, name):
            shown[name] = plain(getattr(error, name))
    if isinstance(error, Gap) and error.reason is not None:
        shown |= {"reason": error.reason, "in_doubt": plain(error.in_doubt)}
    return shown


def error_of(shown: dict[str, Any]) -> RelayError:
    """An error that a connection may fail with."""
    kind: type[RelayError] = getattr(errors, shown["error"])
    return kind(shown["message"])


def plain_effect(effect: Effect) -> dict[str, Any]:
    """An effect: its name, and its fields."""
    shown: dict[str, Any] = {"effect": type(effect).__name__}
    for field in attrs.fields(type(effect)):
        value = getattr(effect, field.name)
        if isinstance(effect, Arrived) and effect.message.is_old:
            shown["is_old"] = True
        if isinstance(effect, Transmit) and field.name == "text":
            shown["message"] = json.loads(value)
        else:
            shown[field.name] = plain(value)
    return shown


def seen(member: Member) -> dict[str, Any]:
    """The member's properties."""
    shown = {}
    for name in PROPERTIES:
        value = getattr(member, name)
        shown[name] = plain(value() if callable(value) else value)
    shown["state"] = member.state.value
    return shown
