"""What the interface promises, kept by every transport: order, the end, and one way to count."""

import asyncio
import json
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from actors.frames import Batch
from actors.relay.control import Control
from actors.relay.crowd import Crowd
from actors.relay.ledger import Ledger
from actors.relay.mailboxes import Inbox
from actors.relay.peer import PeerActor
from actors.transports.asgi import AsgiTransport
from actors.transports.memory import memory_pair
from actors.transports.transport import Transport
from actors.transports.uvicorn import MeshProtocol, UvicornTransport
from protocol.envelope import Inbound
from protocol.limits import Limits
from tests.worlds.live import PATIENCE_S

LIMITS: Final = Limits(
    inbox_messages_max=8, inbox_bytes_max=2048, message_bytes_max=1024, presence_bytes_max=1024
)

REFUSED: Final = b""
"""Stands for a message that is no text within bounds."""


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until something is so."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.lowlevel.checkpoint()


class World:
    """A peer, and a connection from it to a transport."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.expected: list[bytes] = []

    @abstractmethod
    async def open(self) -> Transport:
        """Make the connection."""

    async def begin(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let the transport carry messages. `run` attaches the port."""
        self.tasks.start_soon(run)

    @abstractmethod
    async def say(self, text: str, way: str) -> None:
        """The peer sends a text, put on the wire in this way."""

    async def read(self, size: int) -> None:
        """Some of it reaches the transport; so many bytes, where bytes are what it reads."""
        for _ in range(1 + size % 10):
            await anyio.lowlevel.checkpoint()

    @abstractmethod
    async def leave(self) -> None:
        """The peer closes its end."""

    def forget(self) -> None:
        """Close what the world itself has opened."""


class InMemory(World):
    async def open(self) -> Transport:
        self.link, transport = memory_pair()
        self._texts: deque[str] = deque()
        self._is_sending = False
        return transport

    async def say(self, text: str, way: str) -> None:
        self.expected.append(text.encode())
        self._texts.append(text)
        if not self._is_sending:
            self._is_sending = True
            self.tasks.start_soon(self._send)

    async def _send(self) -> None:
        while self._texts:
            await self.link.send(self._texts.popleft())
        self._is_sending = False

    async def leave(self) -> None:
        self.link.close()


class Asgi(World):
    async def open(self) -> Transport:
        self._send, self._events = anyio.create_memory_object_stream[dict[str, Any]](1000)
        websocket = WebSocket({"type": "websocket"}, self._events.receive, self._sent)
        await self._send.send({"type": "websocket.connect"})
        await websocket.accept()
        return AsgiTransport(websocket, LIMITS.close_within_s)

    async def _sent(self, event: Any) -> None:
        pass

    async def say(self, text: str, way: str) -> None:
        content: dict[str, Any] = {"bytes": b"\0"} if way == "binary" else {"text": text}
        self.expected.append(REFUSED if way == "binary" else text.encode())
        await self._send.send({"type": "websocket.receive", **content})

    async def leave(self) -> None:
        await self._send.send({"type": "websocket.disconnect", "code": 1000})

    def forget(self) -> None:
        self._send.close()
        self._events.close()


class Socket(asyncio.Transport):
    """Below a protocol: takes what is written, and can be paused."""

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = False
        self._is_closing = False

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Uvicorn(World):
    async def open(self) -> Transport:
        accepted = anyio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await WebSocket(scope, receive, send).accept()
            accepted.set()
            await self._attached.wait()

        self._attached = anyio.Event()
        config = uvicorn.Config(app, ws_per_message_deflate=False, log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        self._server = ServerState()
        self.protocol = MeshProtocol(config, self._server, {}, loop)
        self.socket = Socket()
        self.protocol.connection_made(self.socket)
        self.protocol.data_received(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await accepted.wait()
        self._stream = b""
        return UvicornTransport(self.protocol, LIMITS)

    async def say(self, text: str, way: str) -> None:
        payload = text.encode()
        match way:
            case "binary":
                self.put(b"\0", Opcode.BINARY)
            case "too large":
                self.put(b"x" * (LIMITS.message_bytes_max + 1 + len(payload)))
            case "fragments":
                at = len(payload) // 2
                self.put(payload[:at], fin=False)
                self.put(b"ping", Opcode.PING)
                self.put(payload[at:], Opcode.CONT)
            case _:
                self.put(payload)
        self.expected.append(REFUSED if way in ("binary", "too large") else payload)

    def put(self, payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> None:
        self._stream += Frame(opcode, payload, fin).serialize(mask=True)

    async def begin(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await run()  # it returns as soon as the port is attached
        self._attached.set()
        await until(lambda: not self._server.tasks)  # and then the application does

    async def read(self, size: int) -> None:
        if not self.socket.is_paused and self._stream:
            now, self._stream = self._stream[:size], self._stream[size:]
            self.protocol.data_received(now)

    async def leave(self) -> None:
        self.protocol.connection_lost(None)


WORLDS: Final = [InMemory, Asgi, Uvicorn]

texts = st.one_of(
    st.integers(0, 1000).map(lambda size: "x" * size),
    st.integers(0, 300).map(lambda size: "é" * size),  # a character is not a byte
    st.lists(st.integers(0, 9), max_size=30).map(  # an array frame
        lambda numbers: json.dumps([{"type": "stream", "n": number} for number in numbers])
    ),
)
ways = st.sampled_from(["plain", "fragments", "too large", "binary"])
stories = st.lists(
    st.one_of(
        st.tuples(st.just("say"), texts, ways),
        st.tuples(st.just("read"), st.integers(1, 5000)),
        st.tuples(st.just("give")),
    ),
    max_size=60,
)


@pytest.mark.parametrize("world", WORLDS)
@settings(max_examples=100, deadline=None)
@given(story=stories)
def test_whatever_is_read_and_given_the_inbox_knows_exactly_how_much_it_holds(
    world: type[World], story: list[tuple[Any, ...]]
) -> None:
    anyio.run(counted, world, story)


async def counted(make: type[World], story: list[tuple[Any, ...]]) -> None:
    seen: list[Inbound] = []

    def exact() -> None:
        assert actor.inbound_bytes == sum(map(len, actor._inbound))

    async with anyio.create_task_group() as tasks:
        world = make(tasks)
        inbox: Inbox[PeerActor, Control[PeerActor]] = Inbox(lambda: None)
        actor = PeerActor(1, await world.open(), inbox, LIMITS, Ledger(2**30), crowd=Crowd(LIMITS))
        await world.begin(actor.run)
        for what, *details in story:
            if what == "say":
                await world.say(*details)
            elif what == "read":
                await world.read(*details)
            else:
                seen += actor.give()
            exact()
        while len(seen) < len(world.expected):
            await world.read(10_000)
            seen += actor.give()
            exact()
        await world.leave()
        await until(lambda: actor.close_code is not None)
        world.forget()
    assert actor.inbound_bytes == 0
    assert [m if isinstance(m, bytes) else REFUSED for m in seen] == world.expected


class Notes:
    """A port that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def received(self, messages: list[Inbound]) -> None:
        self.told += ["received"] * len(messages)

    def turn_s(self, bytes: float, at: float) -> float:
        return 0.0

    def partial(self, bytes: int) -> None: ...

    def ponged(self) -> None:
        self.told.append("ponged")

    def writable(self) -> None:
        self.told.append("writable")

    def closed(self, code: int) -> None:
        self.told.append(f"closed {code}")

    def crashed(self, error: BaseException) -> None:
        self.told.append("crashed")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("end", ["the peer leaves", "abort", "close"])
def test_closed_comes_once_and_last_whatever_ends_the_connection(
    world: type[World], end: str
) -> None:
    async def main() -> list[str]:
        async with anyio.create_task_group() as tasks:
            one, port = world(tasks), Notes()
            transport = await one.open()
            await one.begin(partial(transport.run, port))
            for n in range(3):
                await one.say(f"{n}", "plain")
            await one.read(10_000)
            await until(lambda: port.told == ["received"] * 3)
            if end == "abort":
                transport.abort()
            elif end == "close":
                transport.close(1001, "bye")
            await one.leave()
            await until(lambda: len(port.told) > 3)
            transport.send(Batch([b"{}"]))
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            await anyio.wait_all_tasks_blocked()
            one.forget()
        return port.told

    told = anyio.run(main)
    assert told[:3] == ["received"] * 3
    assert [what.split()[0] for what in told[3:]] == ["closed"]


def test_a_memory_link_that_reads_on_after_the_end_wakes_nobody() -> None:
    async def main() -> list[str]:
        link, transport = memory_pair(window=2)
        port = Notes()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.run, port)
            await link.send("attached")
            assert transport.send(Batch([b"1", b"2"])) is False
            transport.close(1001, "")
            assert [text async for text in link] == ["1", "2"]
        return port.told

    assert anyio.run(main) == ["received", "closed 1001"]


@pytest.mark.parametrize("fragment", [b"", b"x"])
def test_fragments_gather_in_one_buffer_so_that_many_cost_little_each(fragment: bytes) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            world = Uvicorn(tasks)
            transport = await world.open()
            await world.begin(partial(transport.run, Notes()))
            world.put(b"", fin=False)
            world.put(fragment, Opcode.CONT, fin=False)
            await world.read(1000)
            buffer = world.protocol._reader._fragments
            for _ in range(500):
                world.put(fragment, Opcode.CONT, fin=False)
            await world.read(100_000)
            still = world.protocol._reader._fragments
            assert still is buffer
            assert still is not None
            assert len(still) == 501 * len(fragment)
            await world.leave()

    anyio.run(main)
