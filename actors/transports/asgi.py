"""The transport for any ASGI server: ordinary receives and sends, one per message.

It uses nothing of the server but ASGI, and two tasks per connection. WebSocket pongs do not come
through ASGI, so a peer that asked for `keepalive: "pong"` must send heartbeats here like any other.

A server may offer a better transport of its own in the ASGI scope, as `MeshProtocol` does
(actors/transports/uvicorn.py). `transport_for` takes it.

Starlette is imported when a connection needs it: a plain installation has none, and imports this.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from actors.frames import Batch
from actors.link import ABNORMAL, NO_STATUS
from actors.transports.transport import Port, Transport, binary_frame
from protocol.limits import Limits

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

EXTENSION: Final = "agi-diy-relay.transport"
"""Key in the ASGI scope's `extensions`. Its value makes the server's own transport for the
connection, from `Limits`."""


def transport_for(websocket: "WebSocket", limits: Limits) -> Transport:
    """The transport of an accepted WebSocket: the server's own if it offers one, else the plain
    one."""
    extensions: dict[str, Any] = websocket.scope.get("extensions") or {}
    make: Callable[[Limits], Transport] | None = extensions.get(EXTENSION)
    if make is None:
        return AsgiTransport(websocket, limits.close_within_s)
    return make(limits)


class AsgiTransport:
    """The transport over an accepted Starlette WebSocket, for `Runtime.serve`.

    `close_within_s`: how long (seconds) a close waits for the peer.
    """

    writes_frames = False

    def __init__(
        self, websocket: "WebSocket", close_within_s: float = Limits().close_within_s
    ) -> None:
        self._websocket = websocket
        self._close_within_s = close_within_s
        self._batch: Batch | None = None
        self._closing: tuple[int, str] | None = None
        self._something_to_write = anyio.Event()
        self._readable = anyio.Event()
        self._readable.set()
        self._scope = anyio.CancelScope()
        self._sending = anyio.CancelScope()

    def hold_little(self) -> None:
        pass  # the buffers belong to the server

    async def run(self, port: Port) -> None:
        from starlette.websockets import WebSocketDisconnect  # noqa: PLC0415

        code = ABNORMAL
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._write, port)
                code = await self._read(port)
                tasks.cancel_scope.cancel()
        except* (WebSocketDisconnect, OSError):
            pass  # the connection was lost while we sent
        finally:
            port.closed(code)

    async def _read(self, port: Port) -> int:
        while True:
            await self._readable.wait()
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                return int(event.get("code") or NO_STATUS)
            if event.get("text") is None:
                port.received([binary_frame()])
            else:
                port.received([event["text"].encode()])

    async def _write(self, port: Port) -> None:
        from starlette.websockets import WebSocketState  # noqa: PLC0415

        while True:
            await self._something_to_write.wait()
            self._something_to_write = anyio.Event()
            with anyio.CancelScope() as self._sending:
                if self._closing is not None:
                    self._limit_sending()
                while self._batch is not None:
                    batch, self._batch = self._batch, None
                    for text in batch.texts:
                        event = {"type": "websocket.send", "text": text.decode()}
                        await self._websocket.send(event)
                    port.writable()
            if self._closing is not None:
                code, reason = self._closing
                with anyio.move_on_after(self._close_within_s):
                    if self._websocket.application_state is WebSocketState.CONNECTED:
                        await self._websocket.close(code, reason)
                    await anyio.sleep_forever()  # until the reader hears the end
                self._scope.cancel()

    def send(self, batch: Batch) -> bool:
        self._batch = batch
        self._something_to_write.set()
        return False

    def close(self, code: int, reason: str) -> None:
        self._closing = (code, reason)
        self._limit_sending()
        self._something_to_write.set()
        self._readable.set()

    def _limit_sending(self) -> None:
        """Give up sending after `close_within_s`, so that a peer that does not read cannot hold up
        the close."""
        self._sending.deadline = anyio.current_time() + self._close_within_s

    def abort(self) -> None:
        self._scope.cancel()

    def charge(self, bytes: int) -> None:
        pass  # it does not bound how fast it reads

    def pause_reading(self) -> None:
        self._readable = anyio.Event()

    def resume_reading(self) -> None:
        self._readable.set()
