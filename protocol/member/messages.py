"""Messages as programs see them, and the words in which peers give and answer commands.

A command is a `direct` or `broadcast` with a `turnId` and `data.command`. Its answers have the same
`turnId`: an `ack`, any number of `stream`s (`data.chunk`, `data.chunkNum` from 0), and at the end a
`turn_end` (`data.result`, and in `data.chunks` how many chunks there were) or an `error`
(`data.error`). These are the words of the existing pages, and everyone receives these answers.

A command that says `answers: "direct"` is answered to its asker alone: each answer is a `direct`
that has the type of the answer in `answer`, and the same `turnId` and `data`. A `cancel` with the
`turnId` says that the asker waits no more.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from protocol.agents import agent_id
from protocol.envelope import RELAY
from protocol.instant import Instant
from protocol.member.errors import (
    AmbiguousTarget,
    AnswerGap,
    NotServed,
    TargetLeft,
    TurnError,
    TurnFailed,
    TurnRefused,
    UnknownTarget,
)

OWN_TYPES: Final = frozenset({"presence", "heartbeat", "capabilities"})
"""What a peer sends by itself, and no program by hand."""

ANSWERS: Final = frozenset({"ack", "stream", "turn_end", "error"})
"""The types that answer a command."""

NOT_FOR_ALL: Final = frozenset({"presence", "direct", "cancel"})
"""Types that are not among what others say to everyone: no rule about that holds for them."""

SENTENCE_CHARS_MAX: Final = 1000
"""An error says no more than that: one that is too large to be sent would say nothing."""

_encode = msgspec.json.Encoder().encode


@attrs.frozen
class Message:
    """One message as it arrived; `fields` is all of it.

    `is_old`: it was said before this peer came, which has asked for it (`history` of `join`).
    """

    fields: Mapping[str, Any]
    is_old: bool = False

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
    def is_relays(self) -> bool:
        """The relay itself says it, and no peer, nor an agent that is called like the relay."""
        return self.sender == RELAY and self.origin == RELAY

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


def opened(message: Message) -> Message:
    """The message as its reader sees it: an answer that came to the asker alone has the type of
    that answer. All other messages are as they came.

    >>> opened(Message({"type": "direct", "answer": "ack"})).type
    'ack'
    """
    answer = message.fields.get("answer")
    if message.type == "direct" and isinstance(answer, str) and answer in ANSWERS:
        return Message({**message.fields, "type": answer})
    return message


def is_private(answer: Message) -> bool:
    """This answer, as `opened` shows it, came to the asker alone."""
    return bool(answer.fields.get("answer") == answer.type)


def reply_to(command: Message, agent: str, type: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an answer to this command: to its asker alone if it says so, else to everyone
    in the words of existing pages."""
    if command.fields.get("answers") == "direct" and command.origin is not None:
        # Both fields: somebody else may have an agent that is called like the asker.
        named = {"to": command.origin, "targetInstanceId": command.origin}
        reply = {"type": "direct", "from": agent, **named, "answer": type}
    else:
        reply = {"type": type, "from": agent}
        if command.sender is not None:
            reply["to"] = command.sender
    return {**reply, "turnId": command.turn_id, "data": data}


def turn_error(message: Message) -> TurnError:
    """What an `error` that answers a command means. The relay's own have a code, and some of those
    that peers of this project give."""
    sentence = sentence_of(message.word("error"), "the agent reported an error without words")
    code = message.word("code")
    if code == "unknown_target":
        return UnknownTarget(sentence)
    if not message.is_relays:
        if code == "missed":
            return AnswerGap(sentence)
        if code == "left":
            return TargetLeft(sentence)
        return NotServed(sentence) if code == "not_served" else TurnFailed(sentence)
    match code:
        case "ambiguous_target":
            listed = message.word("peers")
            peers = listed if isinstance(listed, list) else []
            return AmbiguousTarget(sentence, tuple(id for id in peers if isinstance(id, str)))
        case code:
            return TurnRefused(sentence_of(code), sentence)


def text_of(value: Any, otherwise: str = "") -> str:
    """What should be text, but came from somebody else and may be any JSON.

    >>> text_of("hello"), text_of(None, "nothing"), text_of({"a": [1]})
    ('hello', 'nothing', '{"a":[1]}')
    """
    if value is None:
        return otherwise
    try:
        return value if isinstance(value, str) else write_message(value)
    except TypeError:  # nested too deep for the stack that is left
        return otherwise


def sentence_of(value: Any, otherwise: str = "") -> str:
    """The same for words of an error: no more than SENTENCE_CHARS_MAX characters of them."""
    return text_of(value, otherwise)[:SENTENCE_CHARS_MAX]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def compose(id: str, fields: Mapping[str, Any], now: Instant) -> str:
    """The text of what the program of peer `id` sends; `fields` has at least `type`.

    `from` is the peer unless it is given; where that is one of its agents, `instanceId` says which
    peer has it. Raises ValueError (a type that the peer sends by itself), TypeError (no JSON).

    >>> compose("ann", {"type": "ack", "from": "coder"}, Instant(0.0, 5))
    '{"type":"ack","from":"coder","instanceId":"ann","timestamp":5}'
    """
    if fields["type"] in OWN_TYPES:
        raise ValueError(f"{fields['type']} is sent by the peer itself; use `announce` or `nudge`")
    message = {"type": fields["type"], "from": id, **fields}
    if message["from"] != id:
        message.setdefault("instanceId", id)
    message.setdefault("timestamp", now.wall_ms)
    return write_message(message)


def write_message(fields: Any) -> str:
    """One message as text. Raises TypeError if something in it is no JSON, or has no end.

    >>> write_message({"type": "ack", "to": None})
    '{"type":"ack","to":null}'
    """
    try:
        return _encode(fields).decode()
    except RecursionError:
        raise TypeError("nested too deep to be JSON") from None
    except (UnicodeEncodeError, OverflowError):
        pass
    try:  # lone surrogates, and integers of more than 64 bits
        return json.dumps(_finite(fields), separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise TypeError(f"no JSON: {error}") from None


def _finite(value: Any) -> Any:
    """The same with `null` for NaN and the infinities, as browsers write them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def copy_of(value: Any) -> Any:
    """The value as it arrives elsewhere. Raises TypeError if it is no JSON."""
    return json.loads(write_message(value))
