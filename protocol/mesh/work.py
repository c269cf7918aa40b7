"""What deciding costs beside one for each message, so that a round can be bounded by its work."""

from typing import Final

ERROR_WORK: Final = 8
"""To refuse a message and say why costs as much as to pass on so many more."""
RETURN_WORK: Final = 128
"""A connection that comes back costs as much: it may have missed a lot, which is sent at once."""


class Work:
    """Counts what some messages cost more than others, in messages.

    An error counts several times; so does a message from or to a peer with many connections; the
    roster that a newcomer gets counts as the messages that it has; so does a connection that comes
    back, as a fixed number.
    """

    __slots__ = ("extra",)

    def __init__(self) -> None:
        self.extra = 0

    def take(self) -> int:
        """What was counted since the last call."""
        extra, self.extra = self.extra, 0
        return extra
