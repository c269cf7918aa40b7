"""A peer's end of a WebSocket, on asyncio and on trio.

`websocket(url)` gives a connector: what `join` calls for every connection it makes.
The protocol itself is that of the `websockets` library, without its I/O; here are only the bytes.
"""

import base64
import inspect
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, NoReturn

import anyio
import attrs
from anyio.abc import ByteStream
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from actors.client.hedging import Hedge
from actors.clock import Clock, SystemClock
from actors.link import ABNORMAL, Link, LinkClosed
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    BadAddress,
    NoCredentials,
    NotARelay,
)
from protocol.member.reasons import Seen, Trouble, reason
from protocol.session import OAUTH_SUBPROTOCOL

CLOSE_WITHIN_S: Final = 1.0
"""How long (seconds) closing waits for the other side to take the close frame."""
FRAME_BYTES_MAX: Final = 32_000
"""Longer messages go as several frames: AgentCore's edge bounds frames, not messages."""
MESSAGE_BYTES_MAX: Final = 2**24
"""No relay of ours sends more in one message."""
IDLE_FRAMES_MAX: Final = 10_000
"""Beyond so many frames between two messages that complete none (pings, pongs, fragments), the
connection is closed (1008): the other side sends nothing, as fast as it can."""
_LIMITS: Final = MembershipLimits()
PONGS_MAX: Final = 100
"""Beyond so many answers to pings that the other side does not take, nothing more is read."""

Connector = Callable[[], Awaitable[Link]]
"""Makes one connection. Raises RelayError; another exception counts as passing trouble."""

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or better a function, async or not, that is asked for one for every connection."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""A bearer token, as RFC 6750 has it. Nothing else goes into a header."""

# The library's debug lines hold the URL, and that holds a signature.
_silent = logging.getLogger(f"{__name__}.silent")
_silent.setLevel(logging.CRITICAL)


@attrs.frozen
class Address:
    """Where to connect, and what to say there. Never shown: any of it may hold a credential."""

    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    subprotocols: Sequence[str] = attrs.field(factory=tuple, repr=False)


def websocket(
    where: str | Address | Callable[[], str | Address | Awaitable[str | Address]],
    *,
    token: Token | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Connector:
    """A connector to a `ws://` or `wss://` URL.

    `where` may be a function, async or not, called anew for every connection: presigned URLs
    expire. `token`: goes along as `Authorization: Bearer`. Connecting raises NoCredentials for one
    that is none.
    """

    async def connect() -> Link:
        address = where() if callable(where) else where
        if inspect.isawaitable(address):
            address = await address
        if isinstance(address, str):
            address = Address(address)
        if not isinstance(address, Address):
            raise BadAddress(f"the URL must be a str or an Address, not {type(address).__name__}")
        if token is not None:
            bearer = f"Bearer {await fresh_token(token)}"
            address = attrs.evolve(address, headers={**address.headers, "Authorization": bearer})
        return await open_websocket(address, ssl_context)

    return connect


async def fresh_token(token: Token) -> str:
    """The token for one connection. Raises NoCredentials."""
    given = token() if callable(token) else token
    if inspect.isawaitable(given):
        given = await given
    if not given:
        raise NoCredentials("there is no token; log in")
    if not isinstance(given, str) or _TOKEN.fullmatch(given) is None:
        raise NoCredentials("what should be a token is none; log in")
    return given


def bearer_subprotocols(token: str) -> tuple[str, str]:
    """The subprotocols by which AgentCore takes an OAuth token at the opening of a WebSocket."""
    coded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return (f"{OAUTH_SUBPROTOCOL}.{coded}", OAUTH_SUBPROTOCOL)


async def open_websocket(
    address: Address, ssl_context: ssl.SSLContext | None = None, clock: Clock | None = None
) -> "WebSocketLink":
    """Connect. Raises BadAddress, Unreachable, Rejected, NotARelay; waits as long as it takes. If
    nobody answers, further openings are tried beside it (actors/client/hedging.py)."""
    hedge = Hedge(
        partial(_open, address, ssl_context),
        WebSocketLink._cut,
        after_s=_LIMITS.hedge_after_s,
        most_s=_LIMITS.hedge_max_s,
        clock=clock or SystemClock(),
    )
    return await hedge.first()


async def _open(address: Address, ssl_context: ssl.SSLContext | None) -> "WebSocketLink":
    try:
        uri = parse_uri(address.url)
    except (InvalidURI, ValueError):
        raise BadAddress("the URL must be ws://HOST[:PORT]/ws or wss://...") from None
    seen = Seen(host=uri.host, port=uri.port, path=uri.path, is_secure=uri.secure)
    shown = f"{uri.host}:{uri.port}"
    protocol = ClientProtocol(
        uri,
        subprotocols=[Subprotocol(name) for name in address.subprotocols] or None,
        max_size=MESSAGE_BYTES_MAX,
        logger=_silent,
    )
    request = protocol.connect()
    for name, value in address.headers.items():
        if name in request.headers:  # assigning would add a second one
            del request.headers[name]
        request.headers[name] = value
    stream = await _connect_tcp(seen, ssl_context)
    link = WebSocketLink(stream, protocol)
    try:
        protocol.send_request(request)
        await link._handshake()
    except LinkClosed:
        await link._cut()
        raise reason(attrs.evolve(seen, trouble="closed")) from None
    except InvalidStatus as refusal:
        await link._cut()
        raise reason(attrs.evolve(seen, status=refusal.response.status_code)) from None
    except InvalidHandshake as error:
        await link._cut()
        if isinstance(error.__cause__, EOFError):
            raise reason(attrs.evolve(seen, trouble="closed")) from None
        kind = type(error).__name__
        raise NotARelay(f"{shown} does not answer as a WebSocket server ({kind})") from None
    except BaseException:
        await link._cut()
        raise
    return link


async def _connect_tcp(seen: Seen, ssl_context: ssl.SSLContext | None) -> ByteStream:
    try:
        if not seen.is_secure:
            return await anyio.connect_tcp(seen.host, seen.port)
        return await anyio.connect_tcp(
            seen.host,
            seen.port,
            tls=True,
            ssl_context=ssl_context or ssl.create_default_context(),
            tls_standard_compatible=False,
        )
    except ssl.SSLCertVerificationError as error:
        raise BadAddress(f"the certificate of {seen.host} is not valid: {error.reason}") from None
    except (OSError, ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise reason(attrs.evolve(seen, trouble=_trouble(error))) from None


def _trouble(error: BaseException | None) -> Trouble:
    """What an error of the socket means. anyio puts those of several addresses into a group."""
    match error:
        case socket.gaierror():
            return "unknown_host"
        case ConnectionRefusedError():
            return "refused"
        case TimeoutError():
            return "timeout"
        case ssl.SSLEOFError() | ConnectionError() | anyio.BrokenResourceError():
            return "closed"
        case anyio.EndOfStream():
            return "closed"
        case ssl.SSLError():
            return "not_tls"
        case BaseExceptionGroup():
            return _trouble(error.exceptions[0])
        case _ if error is not None and error.__cause__ is not None:
            return _trouble(error.__cause__)
        case _:
            return "no_route"


class WebSocketLink:
    """An open WebSocket."""

    def __init__(self, stream: ByteStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._frames: deque[Frame] = deque()
        self._parts = bytearray()
        self._is_text = True
        self._idle_frames = 0
        self._pongs = 0
        self._writing = anyio.Lock(fast_acquire=True)
        self._is_cut_short = False  # in the middle of a frame, perhaps

    @property
    def is_open(self) -> bool:
        """Neither end has begun to close it."""
        return self._protocol.state is State.OPEN

    async def send(self, text: str) -> None:
        """Send one message; waits while the other side takes none. Raises LinkClosed."""
        if self._protocol.state is not State.OPEN:
            raise self._closed()
        data = text.encode()
        pieces = [data[at : at + FRAME_BYTES_MAX] for at in range(0, len(data), FRAME_BYTES_MAX)]
        last = len(pieces) - 1
        self._protocol.send_text(pieces[0] if pieces else b"", fin=last <= 0)
        for number, piece in enumerate(pieces[1:], start=1):
            self._protocol.send_continuation(piece, fin=number == last)
        await self._flush()

    async def receive(self) -> str | bytes:
        """The next message: text, or bytes if it was binary. Raises LinkClosed."""
        while True:
            while self._frames:
                message = await self._take(self._frames.popleft())
                if message is not None:
                    return message
            if self._protocol.state is not State.OPEN:
                raise self._closed()  # whatever may still come after a close frame is no message
            await self._read()

    async def aclose(self, code: int = 1000) -> None:
        """Send a close frame, for which the other side has little time, and close."""
        with anyio.CancelScope(shield=True):
            if not self._is_cut_short:
                with anyio.move_on_after(CLOSE_WITHIN_S):
                    await self._say_goodbye(code)
            await self._cut()

    async def _say_goodbye(self, code: int) -> None:
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code)
                await self._flush()
            while self._protocol.state is not State.CLOSED:
                self._frames.clear()  # nobody reads them any more
                await self._read()
        except LinkClosed:
            pass

    async def _handshake(self) -> None:
        await self._flush()
        while self._protocol.state is State.CONNECTING:
            await self._read()
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc

    async def _take(self, frame: Frame) -> str | bytes | None:
        is_data = frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
        if not is_data or not frame.fin:
            self._idle_frames += 1
            if self._idle_frames > IDLE_FRAMES_MAX:
                await self._fail(CloseCode.POLICY_VIOLATION, "too many frames without a message")
        if not is_data:
            return None
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        data = bytes(frame.data)
        if not frame.fin or self._parts:
            self._parts += data
            if not frame.fin:
                return None
            data = bytes(self._parts)
            self._parts.clear()
        self._idle_frames = 0
        if not self._is_text:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            await self._fail(CloseCode.INVALID_DATA, "not UTF-8")

    async def _fail(self, code: CloseCode, reason: str) -> NoReturn:
        """The other side broke a rule. Says so if it still listens; raises LinkClosed."""
        self._frames.clear()
        self._protocol.fail(code, reason)
        if not self._writing.locked():
            with anyio.move_on_after(CLOSE_WITHIN_S):
                await self._flush()
        raise LinkClosed(code, reason)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive()
        except anyio.EndOfStream:
            self._protocol.receive_eof()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise self._closed() from None
        else:
            self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Response):
                assert isinstance(event, Frame)
                self._frames.append(event)
                self._pongs += event.opcode is Opcode.PING
        is_asked = self._pongs > 0 or self._protocol.state is not State.OPEN
        # Pongs, and the answer to a close. Whoever is writing sends them, too, unless it is stuck.
        if is_asked and (not self._writing.locked() or self._pongs > PONGS_MAX):
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            self._pongs = 0
            while data := b"".join(self._protocol.data_to_send()):
                self._is_cut_short = True
                try:
                    await self._stream.send(data)
                except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    raise self._closed() from None
                self._is_cut_short = False

    async def _cut(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    def _closed(self) -> LinkClosed:
        received = self._protocol.close_rcvd
        if received is not None:
            return LinkClosed(received.code, received.reason)
        return LinkClosed(ABNORMAL, "the connection was lost")
