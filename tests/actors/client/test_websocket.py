"""A peer's end of a WebSocket, against servers that the `websockets` library runs."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trustme
from anyio.abc import ByteStream
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from actors.client.websocket import (
    IDLE_FRAMES_MAX,
    Address,
    WebSocketLink,
    bearer_subprotocols,
    open_websocket,
)
from actors.link import LinkClosed
from protocol.member.errors import BadAddress
from tests.worlds.live import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The servers in this file are those of asyncio."""
    return "asyncio"


Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, **options: Any) -> Any:
    """A WebSocket server: its port."""
    async with serve(handler, "127.0.0.1", 0, **options) as running:
        with anyio.fail_after(PATIENCE_S):
            yield running.sockets[0].getsockname()[1]


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def test_texts_and_bytes_arrive_as_they_are() -> None:
    async def greet(socket: ServerConnection) -> None:
        await socket.send("h\u00e9llo \U0001f916")
        await socket.send(b"\x00\xff")
        await socket.wait_closed()

    async with server(greet) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        assert await link.receive() == "h\u00e9llo \U0001f916"
        assert await link.receive() == b"\x00\xff"
        await link.aclose()


async def test_fragments_are_put_together_with_pings_between_them() -> None:
    async def fragments(socket: ServerConnection) -> None:
        protocol = socket.protocol
        protocol.send_text("\u00e9".encode()[:1], fin=False)
        protocol.send_ping(b"there?")
        protocol.send_continuation("\u00e9".encode()[1:], fin=True)
        for data in protocol.data_to_send():
            socket.transport.write(data)
        await socket.wait_closed()

    async with server(fragments) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        assert await link.receive() == "\u00e9"
        await link.aclose()


async def test_pings_are_answered_while_somebody_receives() -> None:
    async def ping(socket: ServerConnection) -> None:
        await (await socket.ping())
        await socket.send("ponged")
        await socket.wait_closed()

    async with server(ping) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        assert await link.receive() == "ponged"
        await link.aclose()


def raw(*data: bytes) -> Handler:
    """A server that writes these bytes when the WebSocket is open."""

    async def write(socket: ServerConnection) -> None:
        for piece in data:
            socket.transport.write(piece)
        await socket.wait_closed()

    return write


def frame(first: int, payload: bytes = b"") -> bytes:
    """One frame of a server; `first` is its first byte."""
    size = len(payload)
    return bytes([first, size] if size < 126 else [first, 126, size >> 8, size & 255]) + payload


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0x81, b"\xff"), 1007),
        (frame(0x01, b"\xc3") + frame(0x80, b"("), 1007),
        (frame(0xC1, b"compressed, perhaps"), 1006),
        (frame(0x81) + bytes([0x81, 127]) + (2**40).to_bytes(8), 1006),
        (frame(0x00, b"of nothing"), 1006),
        (frame(0x89) * (IDLE_FRAMES_MAX + 1), 1008),
        (frame(0x8A) * (IDLE_FRAMES_MAX + 1), 1008),
        (frame(0x01) + frame(0x00) * IDLE_FRAMES_MAX, 1008),
        (frame(0x01, b"a") + frame(0x00, b"a") * IDLE_FRAMES_MAX, 1008),
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(data: bytes, code: int) -> None:
    async with server(raw(data)) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        with pytest.raises(LinkClosed) as closed:
            while True:
                assert not await link.receive()
        assert closed.value.code == code
        with pytest.raises(LinkClosed):
            await link.receive()
        await link.aclose()


async def test_fragments_are_held_as_their_bytes() -> None:
    many = [frame(0x01), frame(0x00, b"\xf0\x9f"), *[frame(0x00)] * 5000, frame(0x80, b"\xa4\x96")]
    async with server(raw(b"".join(many) * 2)) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        assert [await link.receive(), await link.receive()] == ["\U0001f916"] * 2
        await link.aclose()


async def test_nothing_more_is_read_of_who_takes_no_answers() -> None:
    there = _Flood(frame(0x89, b"x" * 125) * 100 + frame(0x81, b"between"))
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/ws"), state=State.OPEN)
    link = WebSocketLink(there, protocol)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.send, "x")
        await there.is_sending.wait()
        tasks.start_soon(_receive_all, link)
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert there.reads == 2
        tasks.cancel_scope.cancel()


async def _receive_all(link: WebSocketLink) -> None:
    while True:
        await link.receive()


class _Flood(ByteStream):
    """The other side sends the same for ever, and takes nothing."""

    def __init__(self, data: bytes) -> None:
        self.reads = 0
        self.is_sending = anyio.Event()
        self._data = data

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.reads += 1
        await anyio.lowlevel.checkpoint()
        return self._data

    async def send(self, item: bytes) -> None:
        self.is_sending.set()
        await anyio.sleep_forever()

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


async def test_a_long_message_goes_both_ways() -> None:
    async with server(echo, max_size=2**24) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        text = "x" * 5_000_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.send, text)
            assert await link.receive() == text
        await link.aclose()


async def test_the_other_sides_close_is_told_with_its_code_after_what_came_before() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.send("last words")
        await socket.close(1013, "full")

    async with server(leave) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        assert await link.receive() == "last words"
        with pytest.raises(LinkClosed, match="full") as closed:
            await link.receive()
        assert closed.value.code == 1013
        with pytest.raises(LinkClosed):
            await link.send("too late")
        await link.aclose()


async def test_a_connection_that_breaks_is_closed_abnormally() -> None:
    async def cut(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with server(cut) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        with pytest.raises(LinkClosed) as closed:
            await link.receive()
        assert closed.value.code == 1006
        await link.aclose()


async def test_our_close_is_orderly_and_waits_only_briefly_for_the_answer() -> None:
    seen = []

    async def remember(socket: ServerConnection) -> None:
        await socket.wait_closed()
        seen.append(socket.close_code)

    async with server(remember) as port:
        link = await open_websocket(Address(f"ws://127.0.0.1:{port}/ws"))
        await link.aclose()
        await link.aclose()
        while not seen:
            await anyio.sleep(0.001)
    assert seen == [1000]


async def test_headers_and_subprotocols_go_with_the_opening() -> None:
    seen: dict[str, str] = {}

    async def remember(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.update(socket.request.headers.raw_items())
        seen["chosen"] = str(socket.subprotocol)

    token = "ey.to/ken+="
    offered = bearer_subprotocols(token)
    async with server(remember, subprotocols=["base64UrlBearerAuthorization"]) as port:
        headers = {"Host": "relay.example", "X-Extra": "1"}
        address = Address(f"ws://127.0.0.1:{port}/ws", headers, offered)
        assert token not in repr(address)
        link = await open_websocket(address)
        await link.aclose()
    assert seen["Host"] == "relay.example"
    assert seen["X-Extra"] == "1"
    assert seen["Sec-WebSocket-Protocol"] == ", ".join(offered)
    assert offered == ("base64UrlBearerAuthorization.ZXkudG8va2VuKz0", offered[1])
    assert seen["chosen"] == "base64UrlBearerAuthorization"


async def test_over_tls_the_certificate_is_checked() -> None:
    authority = trustme.CA()
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(there)
    async with server(echo, ssl=there) as port:
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        link = await open_websocket(Address(f"wss://127.0.0.1:{port}/ws"), trusting)
        await link.send("secret")
        assert await link.receive() == "secret"
        await link.aclose()
        with pytest.raises(BadAddress, match="certificate"):
            await open_websocket(Address(f"wss://127.0.0.1:{port}/ws?token=x"))
