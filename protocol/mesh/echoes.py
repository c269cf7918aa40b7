"""What the mesh has passed on lately that pages send again, so that an echo does not live for ever.

Some existing pages send every `ring-update`, `invoke` and `broadcast` that they receive back to the
relay, under their own `from` and with its `data` unchanged. Two of them would keep one message in
the air until they close. They say in their presence which page they are (`data.pageId`), and so can
be told from programs. Of such a page a message is an *echo* if the mesh has passed on the same
`data` in the same type, byte for byte, from another peer within the last `echo_within_s`.

It is not one if it has a `turnId`, because what is sent again has none. What only its own peer has
said before is no echo either.

Remembered are hashes, and only while such a page is here. Of each the two latest peers are enough:
one of them is always another than the sender.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from protocol.limits import Limits

ECHOED: Final = frozenset({"ring-update", "invoke", "broadcast"})
"""The types that existing pages send again."""

ECHO_STEP_BYTES: Final = 4096
"""To read and hash so many bytes costs about as much as to decide a message."""

ENTRY_BYTES: Final = 400
"""What it costs to remember one message, about, without the names of peers."""


class _Said(msgspec.Struct, gc=False):
    """Who has said something last, and who before that: the latest other peer."""

    peer: str
    at: float
    other: str = ""
    other_at: float = float("-inf")

    @property
    def bytes(self) -> int:
        return ENTRY_BYTES + len(self.peer) + len(self.other)


def key_of(type: str, data: bytes) -> bytes:
    """What stands for messages of this type with this `data`, to the letter."""
    return blake2b(type.encode() + b"\0" + data, digest_size=16).digest()


class Echoes:
    """What one mesh has passed on of the types `ECHOED`, for `echo_within_s`. Never waits.

    `bytes`: what this costs in memory, about; at most `echo_bytes_max`. Times are monotonic
    seconds, and never go back.
    """

    __slots__ = ("_bytes_max", "_said", "_within_s", "bytes")

    def __init__(self, limits: Limits) -> None:
        self.bytes = 0
        self._within_s = limits.echo_within_s
        self._bytes_max = limits.echo_bytes_max
        self._said: dict[bytes, _Said] = {}  # what was said last is at the end

    def is_echo(self, key: bytes, peer: str, at: float) -> bool:
        """Another peer than this one has said it lately."""
        said = self._said.get(key)
        if said is None:
            return False
        other_at = said.at if said.peer != peer else said.other_at
        return at - other_at < self._within_s

    def remember(self, key: bytes, peer: str, at: float) -> None:
        """The mesh passes it on now. Beyond the bound the oldest is forgotten."""
        said = self._said.pop(key, None)
        if said is None:
            said = _Said(peer, at)
        else:
            self.bytes -= said.bytes
            if said.peer != peer:
                said.peer, said.other, said.other_at = peer, said.peer, said.at
            said.at = at
        self._said[key] = said
        self.bytes += said.bytes
        self.forget(at)
        while self.bytes > self._bytes_max:
            self._forget_oldest()

    def forget(self, at: float) -> None:
        """Forget what was said too long ago to matter."""
        said = self._said
        while said and at - next(iter(said.values())).at >= self._within_s:
            self._forget_oldest()

    def state(self) -> list[tuple[bytes, str, float, str, float]]:
        """What is remembered, for `restore`: each key, who said it when, and who before that."""
        return [(k, s.peer, s.at, s.other, s.other_at) for k, s in self._said.items()]

    def restore(self, state: Iterable[tuple[bytes, str, float, str, float]]) -> None:
        """Remember what another one remembers."""
        self._said = {key: _Said(peer, at, other, then) for key, peer, at, other, then in state}
        self.bytes = sum(said.bytes for said in self._said.values())

    def clear(self) -> None:
        """Forget everything: there is no page any more that sends something again."""
        self._said.clear()
        self.bytes = 0

    def _forget_oldest(self) -> None:
        self.bytes -= self._said.pop(next(iter(self._said))).bytes
