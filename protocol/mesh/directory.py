"""The agents of a mesh, as existing pages read them in the answer to `capabilities`.

Those pages show a card for each of `agentCards`: they read its `name`, `description`, `skills` and
`provider.organization`. `activeAgents` has the ids of the same agents. Both lists are made of what
peers announce: of an object all fields, with `name` added if it has none; of a string the name.

The pages write these words into their HTML, whoever announced them. So a card that could be more
than words is left out, and so are fields of a kind that breaks the pages.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs
import msgspec

from protocol.agents import Agent
from protocol.codec import decode_object, without_lone_surrogates

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(float_hook=lambda _: 0.0).decode  # `1e999` is JSON too
_KINDS: Final = {"description": str, "provider": dict}
_IN_NO_NAME: Final = frozenset("<>&\"'`")


@attrs.frozen
class Directory:
    """Two lists as JSON texts."""

    cards: bytes = b"[]"
    active: bytes = b"[]"

    @property
    def bytes(self) -> int:
        """How long both are."""
        return len(self.cards) + len(self.active)


EMPTY: Final = Directory()


def directory(agents: Iterable[Agent], bytes_max: int) -> Directory:
    """The directory of these agents, each id once. It has the first of them, so many bytes at most.

    >>> directory([Agent("coder", b'"coder"'), Agent(None, b"{}")], 100).cards
    b'[{"name":"coder"}]'
    """
    cards: dict[str, bytes] = {}
    left = bytes_max - EMPTY.bytes
    for agent in agents:
        if agent.id is None or agent.id in cards or (card := _card(agent)) is None:
            continue
        left -= len(card) + len(_encode(agent.id)) + 2  # with a comma each
        if left < 0:
            break
        cards[agent.id] = card
    return Directory(b"[" + b",".join(cards.values()) + b"]", _encode([*cards]))


def _card(agent: Agent) -> bytes | None:
    text = without_lone_surrogates(agent.text)
    announced = _decode(text)
    fields: dict[str, Any] = {}
    if isinstance(announced, dict):
        fields = {key: raw for key, raw in decode_object(text).items() if _is_read(key, announced)}
    else:
        announced = {}
    name = announced.get("name")
    if not isinstance(name, str) or not name:
        name = fields["name"] = agent.id
    if not _IN_NO_NAME.isdisjoint(f"{name}{agent.id}") or b"<" in _encode(announced):
        return None
    return _encode(fields)


def _is_read(key: str, announced: dict[str, Any]) -> bool:
    """The field is of the kind that pages expect, or they do not expect it."""
    value = announced[key]
    if key == "skills":
        return isinstance(value, list) and all(isinstance(skill, str | dict) for skill in value)
    return key not in _KINDS or isinstance(value, _KINDS[key])
