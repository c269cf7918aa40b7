"""What pages send again (rule 18): who said what lately, kept as a plain list."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

SENT_AGAIN: Final = ("ring-update", "invoke", "broadcast")
_SPACE: Final = " \t\r\n"


def is_page(data: Any) -> bool:
    """The `data` of a presence says that its peer is such a page."""
    return isinstance(data, dict) and data.get("pageId") is not None


def data_of(message: bytes) -> str | None:
    """The letters of the `data` of a message, which is an object. None: it has none.

    >>> data_of(b'{"data": 1, "type": "invoke", "data" : {"n":  1} }')
    '{"n":  1}'
    """
    text, decoder, data = message.decode(), json.JSONDecoder(parse_int=str), None
    at = text.index("{") + 1
    while True:
        while text[at] in _SPACE + ",":
            at += 1
        if text[at] == "}":
            return data
        name, at = decoder.raw_decode(text, at)
        while text[at] in _SPACE + ":":
            at += 1
        end = decoder.raw_decode(text, at)[1]
        if name == "data":
            data = text[at:end]
        at = end


@dataclass
class Lately:
    """What was passed on while such a page was here: when, by which peer, type, and data."""

    said: list[tuple[float, str, str, str | None]] = field(default_factory=list)

    def has_from_others(self, peer: str, type: str, data: str | None, since: float) -> bool:
        """Another peer than this one has said it later than at `since` (seconds)."""
        return any(
            at > since and other != peer and (its_type, its_data) == (type, data)
            for at, other, its_type, its_data in self.said
        )
