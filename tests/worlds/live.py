"""A relay under test, and peers that talk to it, over any transport."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as connect_sync

from actors.clock import Clock, SystemClock
from actors.host.app import RelayApp
from actors.host.server import Server, bind, server_config
from actors.host.settings import Settings
from actors.link import LinkClosed
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.instant import Instant
from protocol.limits import Limits

PATIENCE_S = 300.0
"""How long a test waits for something that must come. It never waits this long when it passes.

Of one test, CI with coverage and six workers made 60 s out of 2.4.
"""


def open_socket(url: str, **options: Any) -> connect:
    """`websockets.connect` that waits for as long as a test does."""
    return connect(url, **({"proxy": None, "open_timeout": PATIENCE_S} | options))


def open_sync(url: str, **options: Any) -> SyncConnection:
    """The same for a thread."""
    return connect_sync(url, **({"proxy": None, "open_timeout": PATIENCE_S} | options))


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class ShiftedClock(SystemClock):
    """The real clock, and a way to let hours pass at once. Works across threads."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now(self) -> Instant:
        now = super().now()
        return Instant(now.at + self.shift_s, now.wall_ms + round(self.shift_s * 1000))


class StillClock(ShiftedClock):
    """A clock that a test moves by `shift_s`, and nothing else does. Sleeps take real time.

    However long the machine takes for a test, nobody falls silent meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._began = SystemClock.now(self)

    def now(self) -> Instant:
        began = self._began
        return Instant(began.at + self.shift_s, began.wall_ms + round(self.shift_s * 1000))


class Closed(Exception):
    """The relay closed the connection with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Peer:
    """A peer's end of a connection. Subclasses know the transport."""

    def __init__(self, siblings: list["Peer"]) -> None:
        self.id = ""
        self._siblings = siblings
        self._texts: list[str] = []
        self._is_open = True
        siblings.append(self)

    async def send_text(self, text: str) -> None:
        raise NotImplementedError

    async def _receive_text(self) -> str:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Close this end."""
        self._is_open = False
        await self._close()

    async def send(self, type: str, **fields: Any) -> str:
        """Send a message and return its text. `sender=` stands for `from=`."""
        if "sender" in fields:
            fields = {"from": fields.pop("sender"), **fields}
        text = json.dumps({"type": type, **fields})
        await self.send_text(text)
        return text

    async def announce(self, id: str, *agents: Any, **data: Any) -> Self:
        """Send a presence, and wait for the acknowledgement and the roster."""
        self.id = id
        await self.send("presence", sender=id, data={"agents": agents, **data})
        await self.everything()
        return self

    async def receive_text(self) -> str:
        """The next message. Raises Closed."""
        if self._texts:
            return self._texts.pop(0)
        with anyio.fail_after(PATIENCE_S):
            try:
                return await self._receive_text()
            except Closed:
                self._is_open = False
                raise

    async def receive(self) -> dict[str, Any]:
        """The next message, read."""
        message = json.loads(await self.receive_text())
        assert isinstance(message, dict)
        return message

    async def until(self, type: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type with these fields; what comes before is dropped."""
        while True:
            message = await self.receive()
            if message["type"] == type and all(message.get(k) == v for k, v in fields.items()):
                return message

    async def everything(self) -> list[str]:
        """What this peer was sent because of all that any peer of the relay has sent so far."""
        for peer in (*self._siblings, self):
            if peer._is_open:
                await peer._settle()
        texts, self._texts = self._texts, []
        return texts

    async def messages(self) -> list[dict[str, Any]]:
        """The same, read."""
        return [json.loads(text) for text in await self.everything()]

    async def _settle(self) -> None:
        """Wait until the relay has decided what was sent here: by an answer that comes after it."""
        await self.send("capabilities", turnId="settle")
        with anyio.fail_after(PATIENCE_S):
            try:
                while True:
                    text = await self._receive_text()
                    if '"capabilities_response"' in text and '"settle"' in text:
                        return
                    self._texts.append(text)
            except Closed:
                self._is_open = False

    async def closed(self) -> int:
        """Wait for the relay to close, dropping what comes before. The close code."""
        while True:
            try:
                await self.receive_text()
            except Closed as closed:
                return closed.code


class MemoryPeer(Peer):
    def __init__(self, link: MemoryLink, siblings: list[Peer]) -> None:
        super().__init__(siblings)
        self.link = link

    async def send_text(self, text: str) -> None:
        await self.link.send(text)

    async def _receive_text(self) -> str:
        try:
            return await self.link.receive()
        except LinkClosed as closed:
            raise Closed(closed.code) from None

    async def _close(self) -> None:
        self.link.close()


class WebSocketPeer(Peer):
    def __init__(self, socket: ClientConnection, siblings: list[Peer]) -> None:
        super().__init__(siblings)
        self.socket = socket

    async def send_text(self, text: str) -> None:
        await self.socket.send(text)

    async def _receive_text(self) -> str:
        try:
            text = await self.socket.recv()
        except websockets.ConnectionClosed as closed:
            raise Closed(closed.rcvd.code if closed.rcvd else 1006) from None
        assert isinstance(text, str)
        return text

    async def _close(self) -> None:
        await self.socket.close()


class Relay(Protocol):
    """What a test needs of a relay."""

    clock: ShiftedClock

    @property
    def runtime(self) -> Runtime: ...

    async def connect(self, mesh: str = "") -> Peer: ...


class MemoryRelay:
    """A runtime in this process, without sockets."""

    def __init__(self, limits: Limits, clock: ShiftedClock) -> None:
        self.clock = clock
        self._runtime = Runtime(limits, clock)
        self._peers: list[Peer] = []

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    async def connect(self, mesh: str = "") -> Peer:
        return MemoryPeer(await self._runtime.connect(mesh or "default"), self._peers)

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runtime.__aexit__(kind, error, trace)


class HeldPort:
    """A free port that stays ours while nobody listens there, for a relay that comes back.

    Its socket is bound and never listens: whoever connects is refused, the kernel gives the port to
    nobody else, and a server of ours may still listen there (SO_REUSEADDR).
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> int:
        return self.port

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class LiveRelay:
    """The relay on a loopback port, in a thread. `fast=False`: under uvicorn's own protocol."""

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Clock | None = None,
        *,
        fast: bool = True,
        port: int = 0,
        **settings: Any,
    ) -> None:
        self.clock = clock if isinstance(clock, ShiftedClock) else ShiftedClock()
        hosts = ("127.0.0.1",)
        self.settings = Settings(hosts=hosts, port=port, limits=limits or Limits(), **settings)
        self.listeners = bind(self.settings.hosts, self.settings.port)
        self.port = self.listeners[0].getsockname()[1]
        self.app = RelayApp(self.settings, self.clock)
        config = server_config(self.app, self.settings)
        if not fast:
            config.ws = "websockets-sansio"
        self.server = Server(config, self.app)
        self._thread = threading.Thread(target=self.server.run, args=(self.listeners,))
        self._peers: list[Peer] = []

    @property
    def runtime(self) -> Runtime:
        return self.app.runtime

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def connect(self, mesh: str = "", **kwargs: Any) -> WebSocketPeer:
        url = self.url + (f"?mesh={mesh}" if mesh else "")
        connection = await open_socket(url, compression=None, max_size=None, **kwargs)
        return WebSocketPeer(connection, self._peers)

    def __enter__(self) -> Self:
        started = threading.Event()
        startup = self.server.startup

        async def startup_and_tell(sockets: Any = None) -> None:
            await startup(sockets)
            started.set()

        self.server.startup = startup_and_tell  # type: ignore[method-assign]
        self._thread.start()
        assert started.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self._peers:
            with contextlib.suppress(Exception):
                await peer.close()
