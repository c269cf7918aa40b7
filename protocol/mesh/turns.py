"""Which peer has begun which turn, for peers that may be spared the answers to others.

A *turn* is a command and the answers to it, all with the same `turnId`. Whoever says a `turnId` in
anything but an answer has begun the turn. Two ids are the same if they are the same string, however
it is spelled, or the same number to the letter. Anything else in `turnId` names no turn.

Remembered are hashes, of each peer the latest `begun_turns_max`.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from protocol.codec import without_lone_surrogates
from protocol.envelope import Text
from protocol.limits import Limits

ANSWERS: Final = frozenset({"ack", "stream", "turn_end", "error"})
"""The types of answers to a command that go to everyone."""

TURN_BYTES: Final = 160
"""What it costs to remember one turn, about."""

_NUMBER: Final = b"-0123456789"


class _WithTurn(msgspec.Struct):
    turn_id: msgspec.Raw = msgspec.field(name="turnId", default=msgspec.Raw())


_decode = msgspec.json.Decoder(_WithTurn).decode
_decode_string = msgspec.json.Decoder(str).decode


def turn_of(text: Text) -> bytes | None:
    r"""What stands for the turn of a message, whose header has been read. None: it names none.

    >>> turn_of(b'{"type":"ack","turnId":"a"}') == turn_of(b'{"type":"ack","turnId":"\\u0061"}')
    True
    """
    id = bytes(_decode(without_lone_surrogates(text)).turn_id)
    if id.startswith(b'"'):
        id = b'"' + _decode_string(id).encode()
    elif not id or id[0] not in _NUMBER:
        return None
    return blake2b(id, digest_size=16).digest()


class Turns:
    """The turns that peers of one mesh have begun. `bytes`: what that costs in memory, about."""

    __slots__ = ("_begun", "_most", "bytes")

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._most = limits.begun_turns_max
        self._begun: dict[str, dict[bytes, None]] = {}  # by peer; the latest turn is at the end

    def follow(self, peer: str) -> None:
        """From now on the turns of this peer are remembered."""
        self._begun.setdefault(peer, {})

    def follows(self, peer: str) -> bool:
        """The turns of this peer are remembered."""
        return peer in self._begun

    def begin(self, peer: str, turn: bytes) -> None:
        """A peer that is followed begins this turn, or goes on with it. Beyond the bound its oldest
        is forgotten."""
        begun = self._begun[peer]
        if begun.pop(turn, turn) is turn:
            self.bytes += TURN_BYTES
        begun[turn] = None
        if len(begun) > self._most:
            del begun[next(iter(begun))]
            self.bytes -= TURN_BYTES

    def has_begun(self, peer: str, turn: bytes) -> bool:
        """The peer has begun this turn, as far as is remembered."""
        return turn in self._begun.get(peer, ())

    def state(self) -> dict[str, list[bytes]]:
        """What is remembered, for `restore`: the turns of each peer that is followed."""
        return {peer: list(begun) for peer, begun in self._begun.items()}

    def restore(self, state: Mapping[str, Iterable[bytes]]) -> None:
        """Remember what another one remembers."""
        self._begun = {peer: dict.fromkeys(begun) for peer, begun in state.items()}
        self.bytes = TURN_BYTES * sum(map(len, self._begun.values()))

    def forget(self, peer: str) -> None:
        """The peer has left."""
        self.bytes -= TURN_BYTES * len(self._begun.pop(peer, ()))
