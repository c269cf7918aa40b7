"""What a connection wants of what others say to everyone (rule 22), read plainly."""

from dataclasses import dataclass
from typing import Any, Final

from protocol.limits import Limits
from protocol.verification.model.entry import NONCHARACTER
from protocol.verification.model.reading import LONE_SURROGATE


@dataclass(frozen=True)
class Wish:
    """What stands in `data.subscribe`. Equal ones are the same wish.

    `others`: also what is for somebody else. `topics`, `types`: these only; None: all.
    """

    others: bool = True
    topics: frozenset[str] | None = None
    types: frozenset[str] | None = None

    def has(self, value: dict[str, Any], named: set[str], peer: str) -> bool:
        """A connection of `peer` with this wish gets what somebody else has said.

        `named`: the peers, of those that are here, that the message names.
        """
        if not self.others and named and peer not in named:
            return False
        if self.types is not None and value["type"] not in self.types:
            return False
        topic = value.get("topic")
        if self.topics is None or not isinstance(topic, str):
            return True
        return any(
            topic.find(pattern[:-1]) == 0 if pattern[-1] == "*" else topic == pattern
            for pattern in self.topics
        )


EVERYTHING: Final = Wish()


def subscription_of(data: Any, limits: Limits) -> tuple[Wish, set[str]]:
    """The wish in the `data` of a presence, and its faults."""
    said = data.get("subscribe") if isinstance(data, dict) else None
    if said is None:
        return EVERYTHING, set()
    if not isinstance(said, dict) or said.get("others") not in (None, True, False):
        return EVERYTHING, {"bad_field"}
    topics, faults = _names(said.get("topics"), limits)
    types, more = _names(said.get("types"), limits)
    if any("*" in pattern[:-1] for pattern in topics or ()):
        faults.add("bad_field")
    return Wish(said.get("others") is not False, topics, types), faults | more


def _names(said: Any, limits: Limits) -> tuple[frozenset[str] | None, set[str]]:
    if said is None:
        return None, set()
    if not isinstance(said, list) or not all(isinstance(name, str) and name for name in said):
        return None, {"bad_field"}
    faults = {"bad_field"} if len(said) > limits.wish_names_max else set()
    for name in said:
        if len(name) > limits.id_chars_max:
            faults.add("too_long")
        if LONE_SURROGATE.search(name) or NONCHARACTER in name:
            faults.add("bad_field")
    return frozenset(said), faults
