"""The roster as it changes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from protocol.member.errors import Left
from protocol.member.messages import RemotePeer

if TYPE_CHECKING:
    from actors.client.peer import Peer


@attrs.frozen
class Change:
    """Who has come, who announces something else, who has gone, since the change before this one.

    `here` is everybody after it, by id.
    """

    joined: tuple[RemotePeer, ...]
    updated: tuple[RemotePeer, ...]
    left: tuple[RemotePeer, ...]
    here: Mapping[str, RemotePeer]


class Changes:
    """The roster as it changes. Made by `Peer.changes`."""

    def __init__(self, peer: "Peer") -> None:
        self._peer = peer
        self._seen: Mapping[str, RemotePeer] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """The next change; waits for one, except for the first."""
        peer = self._peer
        while True:
            seen, here = self._seen or {}, peer.roster
            change = Change(
                tuple(other for id, other in here.items() if id not in seen),
                tuple(other for id, other in here.items() if id in seen and seen[id] != other),
                tuple(other for id, other in seen.items() if id not in here),
                here,
            )
            if self._seen is None or change.joined or change.updated or change.left:
                self._seen = here
                return change
            if isinstance(peer._over, Left):
                raise StopAsyncIteration
            peer._check()
            await peer._changed.wait()
