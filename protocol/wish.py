"""What a connection wants of what others say to everyone (rule 22 in docs/protocol.md)."""

from typing import Final

import attrs

ANY_REST: Final = "*"
"""What a pattern ends with, if anything may follow."""


@attrs.frozen
class Wish:
    """A wish. Equal ones are the same wish, however they were written.

    `others`: also what is for somebody else. `topics`: patterns, of which one must match the topic
    of a message that has one; None: any topic. `types`: the types of messages; None: all.

    >>> wish = Wish(topics=frozenset({"orders", "robots/*"}))
    >>> [wish.has_topic(topic) for topic in ("orders", "orders/1", "robots/7", None)]
    [True, False, True, True]
    """

    others: bool = True
    topics: frozenset[str] | None = None
    types: frozenset[str] | None = None

    def has_type(self, type: str) -> bool:
        """It wants messages of this type."""
        return self.types is None or type in self.types

    def has_topic(self, topic: str | None) -> bool:
        """It wants messages with this topic (None: they have none)."""
        if self.topics is None or topic is None:
            return True
        return any(
            topic.startswith(pattern[:-1]) if pattern.endswith(ANY_REST) else topic == pattern
            for pattern in self.topics
        )

    def has(self, type: str, topic: str | None, *, is_for_others: bool) -> bool:
        """It wants such a message. `is_for_others`: that names peers, but not this one."""
        return (self.others or not is_for_others) and self.has_type(type) and self.has_topic(topic)

    @property
    def chars(self) -> int:
        """How long it is."""
        return sum(map(len, (*(self.topics or ()), *(self.types or ()))))


EVERYTHING: Final = Wish()
"""The wish of whoever says nothing about it."""
