"""What a peer must do, and tell its program: everything that `Member` can answer an event with.

Every effect is a name and plain fields. The browser module has the same names and fields
(browser/src), and tests/vectors/ shows both for every case.
"""

from typing import Any, Final

import attrs

from protocol.member.errors import RelayError
from protocol.member.messages import Message

DROP_CODE: Final = 4000
"""The close code of a socket whose connection goes on over another one (any but 1000, 1001 and
1005 would do: rule 19)."""

# For the connections ------------------------------------------------------------------------------


@attrs.frozen
class Open:
    """Make a connection with this number; report `opened`, `closed` or `failed`."""

    connection: int


@attrs.frozen
class Transmit:
    """Send this text at once, before anything that waits in the queue."""

    connection: int
    text: str


@attrs.frozen
class Close:
    """Close the connection. Nothing that it still reports matters."""

    connection: int


@attrs.frozen
class Drop:
    """Close the connection, and nothing that it still reports matters. The relay must not take that
    for leaving: the close code is `DROP_CODE`, if one can be sent."""

    connection: int


@attrs.frozen
class Sendable:
    """Something may be sent that could not be sent before: ask `next_frame` again."""


# For the program ----------------------------------------------------------------------------------


@attrs.frozen
class Arrived:
    """A message for the program, which costs about `size` bytes (protocol/member/incoming.py)."""

    message: Message
    size: int = 0


@attrs.frozen
class Missed:
    """Messages may be missing before those that arrive from now on: `error` says why."""

    error: RelayError


@attrs.frozen
class Resumed:
    """The connection was lost, and has come back `seconds` after something was heard there last.
    Nothing is missing: what was missed arrives from now on, and then what is new."""

    seconds: float


@attrs.frozen
class Changed:
    """`state` or `roster` is not what it was."""


@attrs.frozen
class Ready:
    """The peer has joined for the first time, and the roster is as complete as it will be."""


@attrs.frozen
class AttemptFailed:
    """A connection could not be made, because of `error`. Another one will be tried.

    `news`: the program should hear of it, because the same was not told since it was present last.
    """

    error: RelayError
    news: bool


@attrs.frozen
class Announced:
    """The relay has taken the announcement with this number, or refused it with `error`."""

    number: int
    error: RelayError | None = None


@attrs.frozen
class Unsent:
    """A queued message will not be sent, because the connection was lost."""

    ticket: int
    error: RelayError


@attrs.frozen
class Chunk:
    """A piece of the answer to the command `turn`."""

    turn: str
    text: str
    size: int = 0


@attrs.frozen
class TurnEnded:
    """The command `turn` has its `result`, or failed with `error`. Nothing more comes of it."""

    turn: str
    error: RelayError | None
    result: Any = None


@attrs.frozen
class Handle:
    """Give this command to the handler of `service`. Report `finish` or `fail` of `command`.

    `agent`: the one of this peer's agents that is asked, or the peer's own id.
    """

    service: int
    command: int
    agent: str
    message: Message


@attrs.frozen
class Taken:
    """This connection has taken the command `turn` for `agent`: the other connections of the peer
    need not, and are to be told (`taken`)."""

    turn: str
    agent: str


@attrs.frozen
class Cancelled:
    """Nobody waits for this command any more, which the handler of `service` has: it may stop."""

    service: int
    command: int


@attrs.frozen
class PresentTwice:
    """Somebody else is in the mesh with the peer's id, and has announced this. Told once."""

    presence: Message


@attrs.frozen
class Ignored:
    """Something that the relay sent was not taken: `what` it was, and what bounds it. Told once for
    each bound and connection."""

    what: str


@attrs.frozen
class WishRefused:
    """The relay does not take what the program wants (`error`): others want too many different
    things. It sends everything, and the program still gets only what it wants."""

    error: RelayError


@attrs.frozen
class Finished:
    """The peer is over. `error` says why; None: it has left."""

    error: RelayError | None


Effect = (
    Open
    | Transmit
    | Close
    | Drop
    | Sendable
    | Arrived
    | Missed
    | Resumed
    | Changed
    | Ready
    | AttemptFailed
    | Announced
    | Unsent
    | Chunk
    | TurnEnded
    | Handle
    | Taken
    | Cancelled
    | PresentTwice
    | Ignored
    | WishRefused
    | Finished
)
