"""A peer's end of a connection, whatever carries it."""

from typing import Protocol

NO_STATUS = 1005
"""RFC 6455: the peer closed without a code."""


ABNORMAL = 1006
"""RFC 6455: the connection was lost without a close."""


class LinkClosed(Exception):
    """The link is over: `code` and `reason` as in a WebSocket close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Link(Protocol):
    """A peer's end of a connection. One task sends, one receives."""

    @property
    def is_open(self) -> bool:
        """It has not been closed, as far as it knows."""
        ...

    async def send(self, text: str) -> None:
        """Send one message; waits while the other side takes none. Raises LinkClosed."""
        ...

    async def receive(self) -> str | bytes:
        """The next frame. Raises LinkClosed."""
        ...

    async def aclose(self) -> None:
        """Close this end (1000)."""
        ...
