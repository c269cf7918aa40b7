"""Which connections of a mesh want what (rule 22 in docs/protocol.md).

Connections with equal wishes are one audience, named by a number. So what a message costs grows
with the number of different wishes, not with the connections. Number 0 is the wish for everything,
which most connections have: while all have it, no message comes here.
"""

from collections.abc import Collection
from typing import Final

import attrs
import msgspec

from protocol import refusals
from protocol.codec import without_lone_surrogates
from protocol.envelope import Text
from protocol.limits import Limits
from protocol.mesh.work import Work
from protocol.wish import ANY_REST, EVERYTHING, Wish

ALL: Final = 0
"""The number of the wish for everything."""

_WISH_BYTES: Final = 4096
"""What a wish costs beside its texts, about, with its part of what is remembered."""
_CHAR_BYTES: Final = 8
_REMEMBERED_MAX: Final = 256
"""So many answers of `selected` are remembered."""
_STEPS: Final = 8
"""To look at so many wishes costs about as much as to decide a message."""
_COPIES: Final = 32
"""To put a message on so many tapes does, too."""


class _WithTopic(msgspec.Struct):
    topic: msgspec.Raw = msgspec.Raw()


_decode_topic = msgspec.json.Decoder(_WithTopic).decode
_decode_string = msgspec.json.Decoder(str).decode


def topic_of(text: Text) -> str | None:
    """The `topic` of a message whose header has been read. None: it has none, or it is no string.

    >>> topic_of(b'{"type":"broadcast","topic":"orders"}')
    'orders'
    """
    topic = bytes(_decode_topic(without_lone_surrogates(text)).topic)
    return _decode_string(topic) if topic.startswith(b'"') else None


@attrs.frozen(eq=False)
class _Held:
    """A wish that connections have, its number, and these connections."""

    wish: Wish
    number: int
    connections: set[int] = attrs.Factory(set)


class Wishes:
    """The wishes of the connections of one mesh.

    `bytes`: what they cost in memory, about. `topics`: how many wishes name topics; while there is
    none, the topic of a message makes no difference. What is looked up counts as `work`.
    """

    def __init__(self, limits: Limits, work: Work) -> None:
        self._most = limits.wishes_max
        self._longest = limits.id_chars_max
        self._work = work
        self._next = ALL + 1
        self.clear()

    def clear(self) -> None:
        """Everybody has gone."""
        self.bytes = 0
        self.topics = 0
        self._held: dict[Wish, _Held] = {EVERYTHING: _Held(EVERYTHING, ALL)}
        self._of: dict[int, _Held] = {}  # by connection, if it does not want everything
        self._by_topic: dict[str, set[_Held]] = {}
        self._by_beginning: dict[str, set[_Held]] = {}
        self._remembered: dict[tuple[str, str | None, bool], tuple[int, ...]] = {}

    def __bool__(self) -> bool:
        """Somebody does not want everything."""
        return bool(self._of)

    def of(self, connection: int) -> Wish:
        """What a connection wants."""
        held = self._of.get(connection)
        return EVERYTHING if held is None else held.wish

    def check(self, wish: Wish, leaving: Collection[int]) -> None:
        """Raise Refusal (`too_many_wishes`) if there is no room for this wish.

        `leaving`: connections that will not have any more what they have now.
        """
        if wish in self._held or len(self._held) <= self._most:
            return
        left = {held for connection in leaving if (held := self._of.get(connection))}
        if all(held.connections - {*leaving} for held in left):
            raise refusals.too_many_wishes(self._most)

    def want(self, connection: int, wish: Wish) -> int | None:
        """From now on the connection wants this. Returns the number of the wish if it is new for
        this connection, else None. The wish must have passed `check`."""
        if wish == self.of(connection):
            if wish == EVERYTHING:
                self._join(self._held[wish], connection)
            return None
        self.forget(connection)
        held = self._held.get(wish)
        if held is None:
            held = self._held[wish] = _Held(wish, self._next)
            self._next += 1
            self._add(held)
        self._join(held, connection)
        if wish != EVERYTHING:
            self._of[connection] = held
        return held.number

    def _join(self, held: _Held, connection: int) -> None:
        if not held.connections:
            self._remembered.clear()
        held.connections.add(connection)

    def forget(self, connection: int) -> None:
        """The connection is over."""
        held = self._of.pop(connection, None) or self._held[EVERYTHING]
        held.connections.discard(connection)
        if not held.connections:
            self._remembered.clear()
            if held.number != ALL:
                del self._held[held.wish]
                self._remove(held)

    def _add(self, held: _Held) -> None:
        self.bytes += _bytes_of(held.wish)
        for pattern in held.wish.topics or ():
            index, key = self._place_of(pattern)
            index.setdefault(key, set()).add(held)
        self.topics += held.wish.topics is not None

    def _remove(self, held: _Held) -> None:
        self.bytes -= _bytes_of(held.wish)
        for pattern in held.wish.topics or ():
            index, key = self._place_of(pattern)
            index[key].discard(held)
            if not index[key]:
                del index[key]
        self.topics -= held.wish.topics is not None

    def _place_of(self, pattern: str) -> tuple[dict[str, set[_Held]], str]:
        if pattern.endswith(ANY_REST):
            return self._by_beginning, pattern.removesuffix(ANY_REST)
        return self._by_topic, pattern

    def selected(self, type: str, topic: str | None, *, is_for_some: bool) -> tuple[int, ...]:
        """The numbers of the wishes for a message of this type with this topic.

        `is_for_some`: it names peers, and wishes without `others` are not among the answers.
        """
        key = (type, topic, is_for_some)
        found = self._remembered.get(key)
        if found is None:
            with_topic = None if topic is None else self._with_topic(topic)
            found = tuple(
                held.number
                for wish, held in self._held.items()
                if held.connections
                and (with_topic is None or wish.topics is None or held in with_topic)
                and wish.has_type(type)
                and (wish.others or not is_for_some)
            )
            self._work.extra += len(self._held) // _STEPS
            if topic is None or len(topic) <= self._longest:  # who names longer ones pays for it
                if len(self._remembered) >= _REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[key] = found
        self._work.extra += len(found) // _COPIES
        return found

    def reached(self, numbers: Collection[int], excluded: Collection[int]) -> int:
        """How many connections have one of these wishes, and are not excluded."""
        chosen = frozenset(numbers)
        held = [one for one in self._held.values() if one.number in chosen]
        self._work.extra += (len(self._held) + len(excluded)) // _STEPS
        everything = self._held[EVERYTHING]
        wishes = ((connection, self._of.get(connection, everything)) for connection in excluded)
        left_out = sum(w.number in chosen and c in w.connections for c, w in wishes)
        return sum(len(one.connections) for one in held) - left_out

    def _with_topic(self, topic: str) -> set[_Held]:
        """The wishes of which a pattern matches. This takes as long as the topic, at most."""
        found = set(self._by_topic.get(topic, ()))
        if self._by_beginning:
            for end in range(min(len(topic), self._longest) + 1):
                found.update(self._by_beginning.get(topic[:end], ()))
        return found


def _bytes_of(wish: Wish) -> int:
    return _WISH_BYTES + _CHAR_BYTES * wish.chars
