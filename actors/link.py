"""The peer's end of a connection: over a WebSocket or in memory."""

from typing import Protocol

NO_STATUS = 1005
"""RFC 6455: the peer closed without a code."""


ABNORMAL = 1006
"""RFC 6455: the connection was lost without a close."""


class LinkClosed(Exception):
    """The link is over. `code` and `reason` are those of a WebSocket close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Link(Protocol):
    """The peer's end of a connection. One task may send, and one may receive."""

    @property
    def is_open(self) -> bool:
        """False once this end knows that the connection is over."""
        ...

    async def send(self, text: str) -> None:
        """Send one message. Waits while the other side takes none. Raises LinkClosed."""
        ...

    async def receive(self) -> str | bytes:
        """The next frame. Raises LinkClosed."""
        ...

    async def aclose(self, code: int = 1000) -> None:
        """Close this end."""
        ...
