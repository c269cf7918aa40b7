"""Which commands are open, and how the latest ended: for whoever watches the mesh.

A command is a message with a `turnId` that is no answer. What has the same `turnId` belongs to it
(protocol.mesh.turns says which ids are the same). Nothing is decided by what stands here, and
nothing but headers is kept. The relay takes no part in turns, so this is what it has seen of them:
a command to several peers ends with the first answer that ends it.
"""

import enum
from typing import Final

import attrs
import msgspec

from protocol.envelope import Header
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.turns import ANSWERS

ID_BYTES_MAX: Final = 256
"""A longer `turnId` is not followed."""

ENDED_MAX: Final = 50
"""So many commands that have ended are remembered."""

COMMAND_BYTES: Final = 2500
"""What it costs to remember one command at most, about: a peer, and two names that are long."""

_NUMBER: Final = b"-0123456789"
_decode_string = msgspec.json.Decoder(str).decode


class Outcome(enum.Enum):
    """How a command ended, as far as the relay has seen."""

    ENDED = "ended"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LEFT = "left"


_OUTCOMES: Final = {"turn_end": Outcome.ENDED, "error": Outcome.FAILED}


@attrs.define(eq=False)
class Command:
    """One command. `asker` and `by` are peers, `to` is what the command names. `by` answered last.
    Times are Unix milliseconds. `chunks`: how many `stream` messages came. `outcome`: None while it
    is open."""

    id: str
    asker: str
    to: str | None
    type: str
    began_ms: int
    last_ms: int
    by: str | None = None
    chunks: int = 0
    outcome: Outcome | None = None


class Commands:
    """The commands of one mesh, by the text of their `turnId`. Beyond the bound the oldest is
    forgotten. `bytes`: what that costs in memory, about."""

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._most = limits.open_commands_max
        self._name_chars_max = limits.id_chars_max
        self._open: dict[str, Command] = {}
        self._ended: dict[str, Command] = {}
        self._asked: dict[str, int] = {}  # how many are open, by asker

    def said(self, peer: str, header: Header, turn_id: bytes, now: Instant, count: int = 1) -> None:
        """A peer has said something with this `turnId`, as it stands in the text, so many times."""
        id = _id(turn_id)
        if id is not None:
            self._said(peer, header, id, now, count)
            self._weigh()

    def _said(self, peer: str, header: Header, id: str, now: Instant, count: int) -> None:
        command, type = self._open.get(id), header.type
        if command is not None:
            command.last_ms = now.wall_ms
        if type in ANSWERS:
            if command is not None:
                command.by = peer
                command.chunks += count * (type == "stream")
                if type in _OUTCOMES:
                    self._end(command, _OUTCOMES[type])
        elif type == "cancel":
            if command is not None and command.asker == peer:
                self._end(command, Outcome.CANCELLED)
        elif command is None and self._most:
            to = header.target_instance_id or header.to
            if to is not None and len(to) > self._name_chars_max:  # (a direct would be refused)
                to = None
            self._open[id] = Command(id, peer, to, type, now.wall_ms, now.wall_ms)
            self._asked[peer] = self._asked.get(peer, 0) + 1
            self._ended.pop(id, None)
            if len(self._open) > self._most:
                self._close(next(iter(self._open.values())))

    def left(self, peer: str, now: Instant) -> None:
        """A peer has left. Nobody waits for the answers to its commands."""
        if peer in self._asked:
            for command in [its for its in self._open.values() if its.asker == peer]:
                command.last_ms = now.wall_ms
                self._end(command, Outcome.LEFT)
            self._weigh()

    def _weigh(self) -> None:
        self.bytes = COMMAND_BYTES * (len(self._open) + len(self._ended))

    def _close(self, command: Command) -> None:
        del self._open[command.id]
        count = self._asked.pop(command.asker) - 1
        if count:
            self._asked[command.asker] = count

    def _end(self, command: Command, outcome: Outcome) -> None:
        self._close(command)
        command.outcome = outcome
        self._ended[command.id] = command
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def clear(self) -> None:
        """Forget everything."""
        for known in (self._open, self._ended, self._asked):
            known.clear()
        self.bytes = 0

    def all(self) -> tuple[Command, ...]:
        """Copies of the open ones, and of those that have ended, each the oldest first."""
        return tuple(map(attrs.evolve, (*self._open.values(), *self._ended.values())))


def _id(raw: bytes) -> str | None:
    """The text of a `turnId` as it stands in a message. None: it names no turn, or is too long."""
    if len(raw) > ID_BYTES_MAX or not raw:
        return None
    if raw.startswith(b'"'):
        return _decode_string(raw) if b"\\" in raw else raw[1:-1].decode()
    return raw.decode() if raw[0] in _NUMBER else None
