"""WebSockets to the relay under test. The one module of the kit that opens sockets."""

import asyncio
import socket as sockets
from collections.abc import Iterable, Mapping
from typing import Final, Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

CLOSE_TIMEOUT_S: Final = 1.0
"""How long to wait for the relay's part of a closing handshake."""

SMALL_BYTES: Final = 4096
"""What the kernel keeps for a reader that is to stall soon."""


class Refused(Exception):
    """The relay does not accept a connection. The text says why, as far as that is known."""


class Closed(Exception):
    """The connection is closed, with this code; 1006 if there was none."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Socket:
    """One WebSocket. Whoever opens it closes or cuts it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def opened(
        cls, url: str, headers: Mapping[str, str], *, within_s: float, is_slow: bool = False
    ) -> Self:
        """Connect to `url`.

        `is_slow`: with small buffers, so that it stalls soon when nobody reads. Raises Refused if
        that fails or takes longer than `within_s` (seconds).
        """
        small: sockets.socket | None = None
        try:
            if is_slow and urlsplit(url).scheme == "ws":
                small = await _small_socket(url)
            connection = await connect(
                url,
                additional_headers=dict(headers),
                compression=None,
                max_queue=1 if is_slow else None,  # None: it reads whatever comes
                max_size=None,
                proxy=None,
                ping_interval=None,
                open_timeout=within_s,
                close_timeout=CLOSE_TIMEOUT_S,
                sock=small,
            )
        except BaseException as error:
            if small is not None:
                small.close()
            if isinstance(error, (OSError, InvalidHandshake, TimeoutError)):
                raise Refused(str(error) or repr(error)) from error
            raise
        return cls(connection)

    async def send(self, text: str | bytes, *, as_text: bool = False) -> None:
        """Send a text frame; bytes go as a binary frame, or `as_text`. Raises Closed."""
        try:
            await self._connection.send(text, text=True if as_text else None)
        except ConnectionClosed as closed:
            raise Closed(_code(closed)) from None

    async def send_fragments(self, fragments: Iterable[bytes]) -> None:
        """Send one text message in these fragments. Raises Closed."""
        try:
            await self._connection.send(fragments, text=True)
        except ConnectionClosed as closed:
            raise Closed(_code(closed)) from None

    async def receive(self) -> str | bytes:
        """The next message. Raises Closed."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise Closed(_code(closed)) from None

    async def answers_a_ping(self) -> None:
        """Ping, and wait for the pong. Raises Closed."""
        try:
            await (await self._connection.ping())
        except ConnectionClosed as closed:
            raise Closed(_code(closed)) from None

    async def close(self) -> None:
        """Close it with a closing handshake, or without the relay's part if that does not come."""
        await self._connection.close()

    def cut(self) -> None:
        """Lose the connection without a word."""
        self._connection.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is over, whoever ended it."""
        await self._connection.wait_closed()


def _code(closed: ConnectionClosed) -> int:
    return closed.rcvd.code if closed.rcvd is not None else 1006


async def _small_socket(url: str) -> sockets.socket:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    [(family, kind, number, _, address), *_] = await loop.getaddrinfo(
        parts.hostname, parts.port or 80, type=sockets.SOCK_STREAM
    )
    small = sockets.socket(family, kind, number)
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, SMALL_BYTES)
    small.setblocking(False)
    try:
        await loop.sock_connect(small, address)
    except BaseException:
        small.close()
        raise
    return small
