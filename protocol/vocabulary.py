"""Messages as programs see them, and the words in which peers give and answer commands.

A command is a `direct` or `broadcast` with a `turnId` and `data.command`. Its answers have the same
`turnId`: an `ack`, any number of `stream`s (`data.chunk`, `data.chunkNum` from 0), and at the end a
`turn_end` (`data.result`) or an `error` (`data.error`). These are the words of the existing pages.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from protocol.envelope import RELAY
from protocol.errors import AmbiguousTarget, TurnError, TurnFailed, TurnRefused, UnknownTarget


@attrs.frozen
class Message:
    """One message as it arrived; `fields` is all of it."""

    fields: Mapping[str, Any]

    @property
    def type(self) -> str:
        """`broadcast`, `direct`, `stream`, ... or any word of the peers' own."""
        return str(self.fields["type"])

    @property
    def sender(self) -> str | None:
        """`from`: the peer, or one of its agents, that sent it."""
        return _text(self.fields.get("from"))

    @property
    def origin(self) -> str | None:
        """The peer that it came from; the relay guarantees it."""
        return _text(self.fields.get("instanceId")) or self.sender

    @property
    def to(self) -> str | None:
        """The peer or agent that it was addressed to."""
        return _text(self.fields.get("to"))

    @property
    def turn_id(self) -> str | None:
        """What ties a command and its answers together."""
        return _text(self.fields.get("turnId"))

    @property
    def data(self) -> Any:
        """What it says."""
        return self.fields.get("data")

    def word(self, name: str) -> Any:
        """`data.name`, None where `data` is no object or has no such member."""
        return self.data.get(name) if isinstance(self.data, dict) else None


@attrs.frozen
class RemotePeer:
    """Another peer of the mesh: `agents` by their ids, `data` as it announced it."""

    id: str
    agents: tuple[str, ...] = ()
    data: Mapping[str, Any] = attrs.Factory(dict)

    @classmethod
    def of(cls, presence: Message) -> "RemotePeer":
        """The peer that this presence announces."""
        listed = presence.word("agents")
        ids = [agent_id(agent) for agent in listed] if isinstance(listed, list) else []
        data = presence.data if isinstance(presence.data, dict) else {}
        return cls(presence.sender or "", tuple(id for id in ids if id), data)


def is_offline(presence: Message) -> bool:
    """This presence says that its peer has gone."""
    return bool(presence.word("status") == "offline")


def is_command(message: Message) -> bool:
    """It asks for an answer."""
    is_sent_so = message.type in ("direct", "broadcast") and message.turn_id is not None
    return is_sent_so and message.word("command") is not None


def turn_error(message: Message) -> TurnError:
    """What an `error` that answers a command means. The relay's own have a code."""
    sentence = str(message.word("error") or "the agent reported an error without words")
    if message.sender != RELAY:
        return TurnFailed(sentence)
    match message.word("code"):
        case "unknown_target":
            return UnknownTarget(sentence)
        case "ambiguous_target":
            return AmbiguousTarget(sentence, tuple(message.word("peers") or ()))
        case code:
            return TurnRefused(str(code), sentence)


def agent_id(agent: Any) -> str | None:
    """The id of an agent as it is announced: a string, or an object; None if it has none."""
    if isinstance(agent, dict):
        agent = agent.get("agentId") or agent.get("id") or agent.get("name")
    return _text(agent)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
