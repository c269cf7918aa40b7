"""What askers have missed of the end of a turn while they were away, and hear when they are back.

An answer to the asker alone is lost if the asker is not there when it comes. The end of a turn must
not be, or the asker would wait for nothing: then it is told, as soon as it is back, that there was
an end. Only the names of a command are kept for that, and of the latest commands only.
"""

from collections import OrderedDict
from collections.abc import Container, Iterator
from typing import Any, Final

import attrs

from protocol.member.messages import Message

NAME_CHARS_MAX: Final = 256
"""Of a command with a longer turn id nothing is kept."""

_NAMES: Final = ("type", "from", "instanceId", "turnId", "answers")

Key = tuple[str | None, str | None]
"""An asker, and a turn id."""


@attrs.frozen
class Owed:
    """What an asker is to be told: `data` of an error of `agent`, in answer to `command`."""

    command: Message
    agent: str
    data: dict[str, Any]


class Debts:
    """What is owed to askers, for so many commands at most; the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._given: OrderedDict[Key, Owed] = OrderedDict()  # ends that may not have arrived
        self._owed: OrderedDict[Key, Owed] = OrderedDict()

    def given(self, command: Message, agent: str, data: dict[str, Any]) -> None:
        """The end of a turn was sent. If it does not arrive, the asker is to be told `data`."""
        self._keep(self._given, command, agent, data)

    def owe(self, command: Message, agent: str, data: dict[str, Any]) -> None:
        """The asker is not there: it is to be told `data` when it is back."""
        self._keep(self._owed, command, agent, data)

    def undelivered(self, error: Message) -> None:
        """The relay says that the receiver of something is not there. If that was an end, its asker
        has missed it."""
        asker = error.word("target")
        key = (asker if isinstance(asker, str) else None, error.turn_id)
        if key in self._given:
            self._owed[key] = self._given.pop(key)
            self._bound(self._owed)

    def due(self, here: Container[str | None]) -> Iterator[Owed]:
        """What may be told now, to askers that are here. Each is given out once."""
        for key in tuple(self._owed):
            if key[0] in here:
                yield self._owed.pop(key)

    def clear(self) -> None:
        """The peer is over."""
        self._given.clear()
        self._owed.clear()

    def _keep(
        self, kept: OrderedDict[Key, Owed], command: Message, agent: str, data: dict[str, Any]
    ) -> None:
        if len(command.turn_id or "") <= NAME_CHARS_MAX:
            names = {name: command.fields[name] for name in _NAMES if name in command.fields}
            kept[command.origin, command.turn_id] = Owed(Message(names), agent, data)
            self._bound(kept)

    def _bound(self, kept: OrderedDict[Key, Owed]) -> None:
        while len(kept) > self._most:
            kept.popitem(last=False)
