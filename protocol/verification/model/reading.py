"""What a text says, read plainly: JSON, numbers by their letters, agents and their ids."""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

BINARY: Final = None
"""Stands for a binary frame among messages."""

Message = bytes | None
"""The text of a message, or BINARY."""

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of an emoji: what is left where somebody cut one in two."""


@dataclass(frozen=True)
class Number:
    """A JSON number by its letters: `1.0` is not `1`, because nobody asked the relay to change
    it."""

    literal: str


def _refuse(literal: str) -> None:
    raise ValueError(literal)


@functools.lru_cache(maxsize=4096)
def read(text: bytes) -> Any:
    """The JSON value of a text. Do not change it: others get the same object.

    Raises ValueError if the text is no JSON value.
    """
    try:
        return json.loads(
            text.decode("utf-8"), parse_constant=_refuse, parse_int=Number, parse_float=Number
        )
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def depth(value: Any) -> int:
    """How deep arrays and objects are nested.

    >>> depth([{}])
    2
    """
    inner: Iterable[Any]
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return 0
    return 1 + max(map(depth, inner), default=0)


def digits(value: Any) -> int:
    """The number of digits in the longest row of digits of any number in the value."""
    if isinstance(value, dict):
        return max(map(digits, value.values()), default=0)
    if isinstance(value, list):
        return max(map(digits, value), default=0)
    if isinstance(value, Number):
        return max(map(len, re.findall("[0-9]+", value.literal)))
    return 0


def elements_of(message: bytes) -> list[bytes]:
    """The texts of the elements of an array; an empty list if the message is no readable array.

    >>> elements_of(b'[{"type":"ack"}, 1]')
    [b'{"type":"ack"}', b'1']
    """
    elements: list[bytes] = []
    try:
        if not isinstance(read(message), list):
            return []
        text, decoder = message.decode(), json.JSONDecoder(parse_int=str)
        at = text.index("[") + 1
        while True:
            while text[at] in " \t\r\n,":
                at += 1
            if text[at] == "]":
                return elements
            end = decoder.raw_decode(text, at)[1]
            elements.append(text[at:end].encode())
            at = end
    except (ValueError, RecursionError):
        return []


def agent_id(agent: Any) -> str | None:
    """The id by which a peer's agent can be addressed; None if it has none.

    It is a string, or the first of three fields that is one. An empty string is none.
    """
    if not isinstance(agent, dict):
        agent = {"agentId": agent}
    for name in ("agentId", "id", "name"):
        if isinstance(agent.get(name), str) and agent[name]:
            return str(agent[name])
    return None


def union(announced: Sequence[list[Any]]) -> list[Any]:
    """The agents of several announcements, each agent once, as it was announced first.

    A single announcement stays as it is.
    """
    if len(announced) == 1:
        return announced[0]
    agents: list[Any] = []
    for agent in (agent for one in announced for agent in one):
        id = agent_id(agent)
        known = [agent_id(a) == id if id is not None else a == agent for a in agents]
        if not any(known):
            agents.append(agent)
    return agents
