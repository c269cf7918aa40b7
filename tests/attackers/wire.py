"""Raw sockets and bytes: what no decent client sends, and how to send it as fast as it goes."""

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, Final, Self

from tests.worlds.frames import frame

PATIENCE_S: Final = 60.0
"""How long to wait for an answer that must come."""

Running = Callable[[], bool]
"""Is the attack still to go on?"""


def said(type: str, origin: str | None = None, **fields: Any) -> bytes:
    """A message in a text frame, from `origin`."""
    head = {"type": type} if origin is None else {"type": type, "from": origin}
    return frame(json.dumps({**head, **fields}, separators=(",", ":")).encode())


def presence(peer: str, agents: Sequence[str] = (), **data: Any) -> bytes:
    return said("presence", peer, data={"agents": list(agents), **data})


def opening(path: str = "/ws", headers: Sequence[str] = (), key: str = "A" * 22 + "==") -> bytes:
    """The request of a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Raw:
    """A TCP connection to the relay, and perhaps a WebSocket over it."""

    def __init__(self, port: int, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left: memoryview = memoryview(b"")
        self._read = b""

    def open(self, *sends: bytes, path: str = "/ws") -> Self:
        """Open the WebSocket, and send these frames."""
        self.socket.sendall(opening(path))
        answer = self.head()
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        if sends:
            self.socket.sendall(b"".join(sends))
        return self

    def head(self) -> bytes:
        """The head of an HTTP answer."""
        while b"\r\n\r\n" not in self._read:
            more = self.socket.recv(65536)
            if not more:
                break
            self._read += more
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return head

    def until(self, text: bytes) -> None:
        """Read until this comes. Raises AssertionError if the connection ends before."""
        read = self._read
        while text not in read:
            more = self.socket.recv(262144)
            assert more, f"closed before {text!r}, after {read[-300:]!r}"
            read = read[-len(text) :] + more
        self._read = b""

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        read = self._read
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return read
            if not more:
                return read
            read += more

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pour(
    connections: Sequence[Raw],
    payloads: Sequence[bytes],
    running: Running,
    *,
    reads: bool = True,
    segment_bytes: int = 2**20,
    pause_s: float = 0.0,
    again: Callable[[], Raw] | None = None,
    listening: Sequence[Raw] = (),
) -> None:
    """Send the payloads over all of the connections, for ever, as fast as the relay takes them.

    `listening`: others, which only read. `reads`: what comes back is read and forgotten.
    `segment_bytes`: so much in one write; `pause_s` after each turn. A connection that ends is
    replaced by what `again` makes, or else is gone.
    """
    chosen = selectors.DefaultSelector()
    sources: dict[Raw, Iterator[bytes]] = {}

    def add(raw: Raw) -> None:
        raw.socket.setblocking(False)
        events = selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0)
        chosen.register(raw.socket, events, raw)
        sources[raw] = cycle(payloads)

    def drop(raw: Raw) -> None:
        chosen.unregister(raw.socket)
        raw.close()
        del sources[raw]
        if again is not None and running():
            add(again())

    for raw in connections:
        add(raw)
    for raw in listening:
        raw.socket.setblocking(False)
        chosen.register(raw.socket, selectors.EVENT_READ, raw)
        sources[raw] = cycle(())
    while sources and running():
        for key, events in chosen.select(0.05):
            raw = key.data
            try:
                if events & selectors.EVENT_READ and not raw.socket.recv(262144):
                    drop(raw)
                elif events & selectors.EVENT_WRITE:
                    if not raw.left:
                        raw.left = memoryview(next(sources[raw]))
                    raw.left = raw.left[raw.socket.send(raw.left[:segment_bytes]) :]
            except BlockingIOError:
                pass
            except OSError:
                drop(raw)
        if pause_s:
            time.sleep(pause_s)
    for raw in tuple(sources):
        raw.close()
    chosen.close()
