"""Every way in which a peer's membership or one of its turns can fail, and what its user can do.

All are `RelayError`s, so that one `except` is enough. Their sentences never hold tokens,
signatures, query strings or message contents.
"""

import math
from typing import Any


class RelayError(Exception):
    """What can go wrong between a peer and the mesh.

    `is_transient` is about errors in connecting: true if another attempt may help, which the peer
    then makes by itself. The others are permanent: they end the peer.
    """

    is_transient = False


# Coming in ----------------------------------------------------------------------------------------


class Unreachable(RelayError):
    """There is no connection: nobody answers, or the connection was lost before the relay did."""

    is_transient = True


class Rejected(RelayError):
    """Somebody answers the opening, and not with a WebSocket. `status`: the HTTP status, None where
    a browser hides it. The sentence says what it means (protocol/member/reasons.py).

    `is_transient`: by default true for what passes: 409 (the session is being started or stopped),
    too many requests, and errors of the server, which AgentCore shows as 424; also for a status
    that is hidden.
    """

    def __init__(
        self, sentence: str, status: int | None = None, *, is_transient: bool | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        if is_transient is None:
            is_transient = status is None or status in _PASSING or status >= 500
        self.is_transient = is_transient


_PASSING = (408, 409, 424, 425, 426, 429)


class NotARelay(RelayError):
    """What answered does not speak the protocol of agent meshes."""


class AnnouncementRefused(RelayError):
    """The relay did not accept the presence. `code` as in docs/protocol.md.

    It is transient if the presence itself is not to blame.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"the relay refused the announcement ({code}): {sentence}")
        self.code = code

    @property
    def is_transient(self) -> bool:  # type: ignore[override]
        """True if the same presence may be accepted later: others may go meanwhile."""
        return self.code in ("rate_limited", "no_room", "too_many_connections")


class IdTaken(RelayError):
    """Another program has this id in the mesh, and another `owner`.

    The peer has tried again for `taken_for_s`: it was not its own last connection.
    """

    def __init__(self) -> None:
        super().__init__(
            "another program has this id in the mesh; join under another id, or give both the same "
            "`owner`"
        )


class Replaced(RelayError):
    """Another program with the same `owner` has taken over this id (`takeover`)."""

    def __init__(self) -> None:
        super().__init__("another program with the same `owner` has taken over this id")


class BadAddress(RelayError):
    """The URL, ARN, region or mesh name cannot be right."""


class NoCredentials(RelayError):
    """There are no AWS credentials or tokens to sign with, or they have expired for good."""


# Sending and receiving ----------------------------------------------------------------------------


class NotConnected(RelayError):
    """There is no connection now, and the peer was told not to wait for one."""


class QueueFull(RelayError):
    """More waits to be sent than the peer may hold while there is no connection."""


class TooLarge(RelayError):
    """The relay would drop a message of this size."""


class Lagged(RelayError):
    """Messages were dropped because they were not read in time: the `count` oldest ones.

    What came after them is still there; iterate again.
    """

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} messages were dropped unread; read faster, or all the time")
        self.count = count


class Gap(RelayError):
    """Messages may be missing here, because a connection was lost and could not come back: the peer
    heard nothing for the `seconds` until the next one had joined.

    `in_doubt`: what the program has sent of which nobody knows whether it has arrived, in order
    (each a `Message`). It is not sent again.
    `reason`: why the connection has not come back. The relay's word, as in rule 19 of
    docs/protocol.md: `epoch`, `unknown`, `history`, `count`, `grant`. Or this client's: `window`
    (it took too long), `unsupported` (the relay cannot do that, so it does not say what has
    arrived, and `in_doubt` is empty), `unanswered` (it was lost before the relay had agreed),
    `uncounted` or `broken` (what the relay sent cannot be right). None if it was not asked for.

    What came after it is still there; iterate again.
    """

    def __init__(
        self, seconds: float, reason: str | None = None, in_doubt: tuple[Any, ...] = ()
    ) -> None:
        sentence = (
            f"the connection was lost; what was said in the {math.ceil(seconds)} s until this peer "
            "was back may be missing"
        )
        if in_doubt:
            sentence += f", and {len(in_doubt)} messages that it had sent may not have arrived"
        super().__init__(sentence)
        self.seconds = seconds
        self.reason = reason
        self.in_doubt = in_doubt


class Left(RelayError):
    """The peer has left the mesh."""

    def __init__(self) -> None:
        super().__init__("this peer has left the mesh; join again")


# Turns --------------------------------------------------------------------------------------------


class TurnError(RelayError):
    """A command got no result.

    `chunks`: what had come of the answer and was not iterated over. Who iterates gets these chunks
    all the same, before the error.
    """

    chunks: tuple[str, ...] = ()


class TurnTimeout(TurnError):
    """The agent gave no sign of life in time. It is told to stop."""


class TurnFailed(TurnError):
    """The agent answered with an error, whose sentence this is."""


class AnswerGap(TurnError):
    """Chunks of the answer were lost, came twice, or out of order, or its end came while this peer
    was away.

    `result`: what the agent gave at the end, if only that showed that something is missing.
    """

    def __init__(self, sentence: str, result: object = None) -> None:
        super().__init__(sentence)
        self.result = result


class NotServed(TurnError):
    """The peer has this agent, but its program does not serve it."""


class UnknownTarget(TurnError):
    """No peer of the mesh has this agent, or the peer that was asked does not."""


class AmbiguousTarget(TurnError):
    """Several peers have this agent; say which one is meant (`peer=`), or `any=True`."""

    def __init__(self, sentence: str, peers: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.peers = peers


class TargetLeft(TurnError):
    """The peer that was asked left before it answered."""


class TurnRefused(TurnError):
    """The relay did not pass the command on. `code` as in docs/protocol.md."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{sentence} ({code})")
        self.code = code
