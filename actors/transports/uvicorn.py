"""The fast transport: uvicorn's WebSocket protocol without the ASGI queue in the middle.

`MeshProtocol` is uvicorn's sans-IO WebSocket protocol (`uvicorn.Config(ws=MeshProtocol)`) and keeps
its handshake, its parser, its pings and its closing handshake. Once a connection is attached to a
port (a peer actor), it replaces three things:

1. Reading. uvicorn puts each message into a queue, pauses the socket, and wakes a task that takes
   it out again. Here all complete messages of one read go to `port.received` in one call. An
   ordinary frame (final, text, masked, within bounds) is unmasked on the spot; everything else
   (control frames, fragments, violations) goes to uvicorn's parser, one whole frame at a time, so
   that the parser is never left in the middle of one.
2. Writing. `UvicornTransport.send` hands the frames of a whole round to the socket in one call.
   They are made once for all receivers, instead of one encoding and one call per message and
   receiver.
3. Size. The payload of a frame beyond the bound is dropped as it comes in. A `too_large` stands in
   the place of the message, and the connection lives on.

What is used of uvicorn and websockets is listed in actors/transports/borrowed.py, which compares it
with what is installed. Import this module only if `borrowed.changes()` is empty.
"""

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import Protocol

try:
    from websockets.speedups import apply_mask  # C, where there is a wheel for this machine
except ImportError:  # pragma: no cover
    from websockets.utils import apply_mask

from actors.frames import CHUNK_BYTES, Batch, Buffer
from actors.link import ABNORMAL
from actors.transports.asgi import EXTENSION
from actors.transports.transport import Port, binary_frame
from protocol.envelope import ErrorCode, Inbound, Unreadable

LITTLE_BYTES: Final = 32 * 1024
"""The send buffer that we ask the kernel for, for a connection that is to hold little. (Linux
doubles the figure and counts its own records in.)"""

_FIN: Final = 0x80
_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_CONTROL: Final = 0x08
_NO_MASK: Final = bytes(4)


class _Nowhere(asyncio.Queue[Any]):
    """A queue that forgets: for ASGI events after the application has returned. All connections
    share one."""

    def put_nowait(self, item: object) -> None:
        pass


_NOWHERE: Final = _Nowhere()


class _Nevermind(asyncio.Event):
    """An event that nobody waits for. All connections share one."""

    def set(self) -> None:
        pass

    def clear(self) -> None:
        pass


_NEVERMIND: Final = _Nevermind()


class _NoTimer:
    """Looks like a timer that is set. A real timer would keep the context of the opening alive."""

    def cancel(self) -> None:
        pass


_NO_TIMER: Final = _NoTimer()


class MeshProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, attachable to a port."""

    is_writable = True
    """The socket's buffer is below its high-water mark."""

    _chunks: Iterator[list[Buffer]] | None = None
    """What is left of a long batch: the socket is given the next chunk when it takes more."""
    _close_after: tuple[int, str] | None = None

    _port: Port | None = None
    _message_bytes_max = 0
    _close_within_s = 0.0
    _rest = b""  # the beginning of a frame whose end has not come yet
    _skip = 0  # bytes still to drop of a frame that is too large
    _is_too_large = False  # the message being read is
    _in_fragments = False

    # Attaching ------------------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        """Offer the application a transport of ours, in the ASGI scope."""
        super().handle_connect(event)
        if not self.handshake_complete:
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[EXTENSION] = partial(UvicornTransport, self)

    def attach(self, port: Port, message_bytes_max: int, close_within_s: float) -> None:
        """From now on `port` gets what the ASGI application would have received."""
        self._port = port
        self._message_bytes_max = message_bytes_max
        self._close_within_s = close_within_s
        # The application returns at once, because a task per connection costs 15 KB. uvicorn then
        # closes the socket, unless it sees by this timer that a close is under way already.
        self.close_timer = cast("asyncio.TimerHandle", _NO_TIMER)
        if self.disconnected:
            self._closed(ABNORMAL)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The application has returned: drop what only it needed."""
        super().on_task_complete(task)
        if self._port is None:
            return
        for name in ("scope", "request", "response", "app", "app_state", "asgi_version"):
            self.__dict__.pop(name, None)
        self.queue = _NOWHERE
        self.writable = _NEVERMIND
        self.__dict__ = dict(self.__dict__)  # a dict does not shrink, but its copy is small
        if not self.conn.reader.buffer:
            # The parser that read the opening request keeps it; one that begins here has none.
            self.conn.parser = Protocol.parse(self.conn)
            next(self.conn.parser)

    def hold_little(self) -> None:
        """Keep nothing unsent here and little in the kernel, so that the rest waits in the port."""
        if self.transport.is_closing():  # its socket may be gone
            return
        self.transport.set_write_buffer_limits(high=0)
        holder = self.transport.get_extra_info("socket")
        if holder is not None:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE_BYTES)

    # Reading --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        port = self._port
        if port is None:
            super().data_received(data)
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            data = self._rest + data
            self._rest = b""
        messages: list[Inbound] = []
        at, end = 0, len(data)
        bound = self._message_bytes_max
        while end - at >= 6:
            first = data[at]
            length = data[at + 1] - _MASKED  # negative: not masked
            start = at + 6
            if length == 126:
                start = at + 8
                length = data[at + 2] << 8 | data[at + 3]
            elif length == 127:
                start = at + 14
                length = int.from_bytes(data[at + 2 : at + 10])
            if end < start:
                break
            stop = start + length
            if first == _FINAL_TEXT and 0 <= length <= bound and not self._in_fragments:
                if stop > end:
                    break
                text = apply_mask(data[start:stop], data[start - 4 : start])
                if not text.isascii() and not _is_utf8(text):
                    self._flush(messages)
                    self._fail_utf8()
                    return
                messages.append(text)
                at = stop
                continue
            if length > bound and not first & _CONTROL:
                # Its place is kept by an empty frame of the same kind.
                self._skip = max(0, stop - end)
                self._is_too_large = True
                self._parse(bytes((first, _MASKED)) + _NO_MASK, messages)
            elif 0 <= length <= bound and stop > end:
                break
            else:
                # A control frame, a fragment, or a violation (its first bytes are enough).
                self._parse(data[at : max(stop, at + 2)], messages)
            at = min(stop, end)
            if self.transport.is_closing():
                self._flush(messages)
                return
        if at < end:
            self._rest = data[at:]
        if messages:
            port.received(messages)

    def _parse(self, frame: bytes, messages: list[Inbound]) -> None:
        """Give one whole frame to uvicorn's parser. Deliver first what was read before it."""
        self._flush(messages)
        if not frame[0] & _CONTROL:
            self._in_fragments = not frame[0] & _FIN
        super().data_received(frame)

    def _flush(self, messages: list[Inbound]) -> None:
        if messages and self._port is not None:
            self._port.received(messages.copy())
            messages.clear()

    def handle_cont(self, event: Frame) -> None:
        """A fragment. Fragments gather in one buffer. If they are too large together, they are
        dropped."""
        if self._port is None:
            super().handle_cont(event)
            return
        if not self._is_too_large:
            first = self.frames[0]
            buffer = first if isinstance(first, bytearray) else bytearray(first)
            buffer += event.data
            self.frames = cast("list[bytes]", [buffer])
            self._is_too_large = len(buffer) > self._message_bytes_max
        if self._is_too_large:
            self.frames = [b""]
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Hand a message that came out of the parser to the port, if there is one."""
        port = self._port
        if port is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        if self._is_too_large:
            self._is_too_large = False
            sentence = f"a message has at most {self._message_bytes_max} bytes"
            port.received([Unreadable(ErrorCode.TOO_LARGE, sentence)])
        elif self.curr_msg_data_type == "bytes":
            port.received([binary_frame()])
        elif _is_utf8(data):
            port.received([data])
        else:
            self._fail_utf8()

    def handle_pong(self, event: Frame) -> None:
        """A pong that answers our ping is a sign of life."""
        asked = self.pending_ping_payload
        super().handle_pong(event)
        if self._port is not None and asked is not None and self.pending_ping_payload is None:
            self._port.ponged()

    def _fail_utf8(self) -> None:
        """RFC 6455, section 8.1."""
        self.conn.fail(1007, "invalid UTF-8")
        self.handle_parser_exception()

    # Writing and the end --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_writable = True
        if self._write_chunks() and self._port is not None and not self.close_sent:
            self._port.writable()

    def write(self, batch: Batch) -> bool:
        """Send a batch, or its first part and then the rest. False: nothing more for now."""
        if self.close_sent or self.transport.is_closing():
            return self.is_writable
        if batch.size <= CHUNK_BYTES:
            self._write_buffers(batch.buffers)
            return self.is_writable
        self._chunks = batch.chunks()
        return self._write_chunks()

    def _write_buffers(self, buffers: list[Buffer]) -> None:
        if len(buffers) == 1:
            self.transport.write(buffers[0])
        else:
            self.transport.writelines(buffers)

    def _write_chunks(self) -> bool:
        """Go on with a long batch while the socket takes it. True: it takes more than that."""
        while self.is_writable and self._chunks is not None:
            chunk = next(self._chunks, None)
            if chunk is not None:
                self._write_buffers(chunk)
                continue
            self._chunks = None
            if self._close_after is not None:
                self._send_close(*self._close_after)
        return self.is_writable

    def hang_up(self, code: int, reason: str) -> None:
        """Send a close frame. Cut the connection if it is not over within `close_within_s`."""
        self.close_timer = self.loop.call_later(self._close_within_s, self.transport.abort)
        if self._chunks is not None:  # a frame may be half written
            self._close_after = (code, reason)
        else:
            self._send_close(code, reason)

    def _send_close(self, code: int, reason: str) -> None:
        if self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            return  # the other side is closing it already
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.set_reading(True)

    def set_reading(self, wanted: bool) -> None:
        """Read from the socket, or let the kernel and then the peer wait."""
        if self.transport.is_closing() or self.read_paused is not wanted:
            return
        self.read_paused = not wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._chunks = None
        super().connection_lost(exc)
        received = self.conn.close_rcvd
        sent = self.conn.close_sent
        self._closed(received.code if received else sent.code if sent else ABNORMAL)

    def _closed(self, code: int) -> None:
        if self._port is not None:
            port, self._port = self._port, None
            port.closed(code)


class UvicornTransport:
    """One accepted connection of a `MeshProtocol`: its `Transport`."""

    writes_frames = True

    __slots__ = ("_bounds", "_protocol")

    def __init__(
        self, protocol: MeshProtocol, message_bytes_max: int, close_within_s: float
    ) -> None:
        self._protocol = protocol
        self._bounds = (message_bytes_max, close_within_s)

    def hold_little(self) -> None:
        self._protocol.hold_little()

    async def run(self, port: Port) -> None:
        self._protocol.attach(port, *self._bounds)

    def send(self, batch: Batch) -> bool:
        return self._protocol.write(batch)

    def close(self, code: int, reason: str) -> None:
        self._protocol.hang_up(code, reason)

    def abort(self) -> None:
        self._protocol.transport.abort()

    def pause_reading(self) -> None:
        self._protocol.set_reading(False)

    def resume_reading(self) -> None:
        self._protocol.set_reading(True)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
