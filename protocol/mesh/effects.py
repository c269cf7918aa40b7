"""What a mesh decides, as data: who receives what, who has come, who has left.

The order of effects is the order on the wire, for every receiver.

    Deliver, Snapshot   texts and who receives them
    Admitted            from here on this connection receives what goes to everyone, if it watches
    Dismissed           from here on it does not; close its socket with `code`
    Counted             from here on the messages of this connection are counted
    Returning           this connection wants to go on with one that was lost
    PeerJoined, PeerLeft, Refused, Spared    nothing to do; for logs

Connections are named by number, as at the moment of decision.
"""

from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from protocol.envelope import ErrorCode, Text
from protocol.mesh.lifecycle import Cause
from protocol.mesh.resuming import Resume

CLOSE_CODES: Final = {
    Cause.LEFT: 1000,
    Cause.SILENT: 1008,
    Cause.UNANNOUNCED: 1008,
    Cause.DISPLACED: 1013,
    Cause.EVICTED: 1013,
    Cause.REPLACED: 1008,
    Cause.EXPIRED: 1008,
    Cause.UNREACHABLE: 1012,
    Cause.CRASHED: 1011,
    Cause.SHUTDOWN: 1001,
}
"""RFC 6455 close code by cause."""
CLOSE_REASONS: Final = {
    Cause.LEFT: "",
    Cause.SILENT: "you were silent for too long",
    Cause.UNANNOUNCED: "you did not send a presence in time",
    Cause.DISPLACED: "too many connections have sent no presence, and yours was the oldest",
    Cause.EVICTED: "you read too slowly: your mailbox is full",
    Cause.REPLACED: "another connection of this peer has taken over",
    Cause.EXPIRED: "the grant of this connection has run out; get a new token",
    Cause.UNREACHABLE: "this relay has lost touch with the other relays; connect again",
    Cause.CRASHED: "an internal error of the relay",
    Cause.SHUTDOWN: "the relay is shutting down",
}
"""What the close frame says, by cause."""


def paced_eviction(frames_per_s: float, *, accepts_batches: bool) -> str:
    """What the close frame says to who is evicted behind an edge, where the pace is the bound.

    >>> paced_eviction(200, accepts_batches=True)
    'more came than the 200 frames a second that you get here'
    """
    reason = f"more came than the {frames_per_s:g} frames a second that you get here"
    return reason if accepts_batches else f'{reason}; ask for arrays: data.accept ["batch"]'


# Audiences: who receives a text ------------------------------------------------------------------


@attrs.frozen
class Everyone:
    """All connections of present peers that watch."""


class Others(msgspec.Struct, frozen=True, gc=False):
    """All connections of present peers that watch, except these (the sender's)."""

    excluded: tuple[int, ...]


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """All connections of present peers that watch and have one of these wishes, except `excluded`
    (the sender's), and beside them `also`, which have none of these wishes."""

    wishes: tuple[int, ...]
    excluded: tuple[int, ...]
    also: tuple[int, ...] = ()


class Only(msgspec.Struct, frozen=True, gc=False):
    """These connections."""

    connections: tuple[int, ...]


Audience = Everyone | Others | Chosen | Only


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Effect: `texts` go to `audience`, in this order: most often one, and at least one. Made for
    every message, and therefore a cheap Struct."""

    texts: Sequence[Text]
    audience: Audience


@attrs.frozen(cache_hash=True)
class Block:
    """Presences that go to one newcomer after the other. It never changes, so what is made of it
    for one serves all. There is at least one."""

    texts: tuple[Text, ...]


@attrs.frozen
class Snapshot:
    """Effect: the presences in these blocks go to a newcomer, in this order, before anything
    later."""

    connection: int
    blocks: tuple[Block, ...]

    @property
    def presences(self) -> list[Text]:
        """All of them."""
        return [text for block in self.blocks for text in block.texts]


@attrs.frozen
class Admitted:
    """Effect: the connection joined. If it `watches`, it gets what goes to everyone from here on.

    `accepts_batches`: it takes one array of messages instead of several frames.
    """

    connection: int
    accepts_batches: bool = False
    watches: bool = True


@attrs.frozen
class Wants:
    """Effect: the connection, which watches, has the wish of this number from here on. Before that
    it had another one; who was just admitted had 0, which is everything."""

    connection: int
    wish: int


@attrs.frozen
class Dismissed:
    """Effect: the connection is over. Nothing more goes to it; close its socket with `code`."""

    connection: int
    cause: Cause
    code: int


@attrs.frozen
class Counted:
    """Effect: from here on the messages to this connection count, so that it may come back."""

    connection: int


@attrs.frozen
class Returning:
    """Effect: the connection wants to go on with the lost one that `request` names.

    `text`: the message in which it says so. Answer with `LocalMesh.returns`: `come_back` or
    `stay_away`.
    """

    connection: int
    request: Resume
    text: Text


@attrs.frozen
class PeerJoined:
    """Effect: a peer came online with this connection."""

    peer: str
    connection: int
    agents: int


@attrs.frozen
class PeerLeft:
    """Effect: a peer went offline. `cause` is why its last connection ended."""

    peer: str
    cause: Cause


@attrs.frozen
class Refused:
    """Effect: messages of a connection were refused. `count`: since the last such effect."""

    connection: int
    peer: str | None
    code: ErrorCode
    count: int


@attrs.frozen
class Spared:
    """Effect: a connection that is behind was not sent so many answers to others. `count`: since
    the last such effect."""

    connection: int
    peer: str
    count: int


Effect = (
    Deliver
    | Snapshot
    | Admitted
    | Wants
    | Dismissed
    | Counted
    | Returning
    | PeerJoined
    | PeerLeft
    | Refused
    | Spared
)
