"""The transport for any ASGI server: ordinary receives and sends, one per message.

Two tasks per connection, and nothing of the server but ASGI. WebSocket pongs do not come through
ASGI, so a peer that asked for `keepalive: "pong"` must send heartbeats here like everyone else.
Under this project's own server `UvicornTransport` takes its place.
"""

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from actors.frames import Batch
from actors.link import ABNORMAL, NO_STATUS
from actors.transports.transport import Port, binary_frame


class AsgiTransport:
    """One accepted Starlette WebSocket."""

    writes_frames = False

    def __init__(self, websocket: WebSocket, close_within_s: float) -> None:
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
        pass  # the buffers are the server's

    async def run(self, port: Port) -> None:
        code = ABNORMAL
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._write, port)
                code = await self._read(port)
                tasks.cancel_scope.cancel()
        except* (WebSocketDisconnect, OSError):
            pass  # lost while sending; the server says so in its own way
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
        """A peer that does not read cannot hold up the close for ever."""
        self._sending.deadline = anyio.current_time() + self._close_within_s

    def abort(self) -> None:
        self._scope.cancel()

    def pause_reading(self) -> None:
        self._readable = anyio.Event()

    def resume_reading(self) -> None:
        self._readable.set()
