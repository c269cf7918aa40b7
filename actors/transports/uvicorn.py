"""The fast transport: uvicorn's WebSocket protocol without the ASGI queue in the middle.

`MeshProtocol` is uvicorn's sans-IO WebSocket protocol (`uvicorn.Config(ws=MeshProtocol)`) and keeps
its handshake, its parser, its pings and its closing handshake. Once a connection is attached to a
port (a peer actor), it replaces three things:

1. Reading. uvicorn puts each message into a queue, pauses the socket, and wakes a task that takes
   it out again. Here all complete messages of one read go to `port.received` in one call. A
   `FrameReader` reads everything but closes and violations, which go to uvicorn's parser.
2. Writing. `UvicornTransport.send` hands the frames of a whole round to the socket in one call.
   They are made once for all receivers, instead of one encoding and one call per message and
   receiver. A long batch goes in chunks, each when the socket takes it.
3. Bounds. Every frame and every byte that is read counts. Beyond `frames_in_per_s` and
   `bytes_in_per_s` the socket is read no faster, so that the peer waits and nothing is dropped. A
   message that is too large is dropped as it comes in, and the connection lives on.

What is used of uvicorn and websockets is listed in actors/transports/borrowed.py, which compares it
with what is installed. Import this module only if `borrowed.changes()` is empty.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol

from actors.frames import CHUNK_BYTES, Batch, Buffer
from actors.link import ABNORMAL
from actors.transports.asgi import EXTENSION
from actors.transports.intake import Intake
from actors.transports.kernel import LITTLE_BYTES, SEND_BUFFER_BYTES, bound_send_buffer
from actors.transports.nothing import NEVERMIND, NO_TIMER, NOWHERE
from actors.transports.reader import FrameReader
from actors.transports.transport import Port
from protocol.envelope import Inbound
from protocol.limits import Limits

FRAMES_AT_ONCE: Final = 2048
"""So many frames are read from one connection before others are read."""


class MeshProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, attachable to a port."""

    is_writable = True
    """The socket's buffer is below its high-water mark."""

    _chunks: Iterator[list[Buffer]] | None = None
    """What is left of a long batch: the socket is given the next chunk when it takes more."""
    _close_after: tuple[int, str] | None = None
    _is_ping_due = False  # when this batch is written

    _port: Port | None = None
    _limits: Limits
    _reader: FrameReader
    _is_failed = False
    """The peer has broken RFC 6455: what it still sends is discarded."""
    _holds_little = False
    _is_wanted = True  # the port wants to read on
    _is_resting = False  # this connection has read enough for now
    _intake: Intake
    _heard_at = 0.0
    _partial_bytes = 0  # what the port knows of

    # Attaching ------------------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        """Offer the application a transport of ours, in the ASGI scope."""
        super().handle_connect(event)
        if not self.handshake_complete:
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[EXTENSION] = partial(UvicornTransport, self)

    def attach(self, port: Port, limits: Limits) -> None:
        """From now on `port` gets what the ASGI application would have received."""
        self._port = port
        self._limits = limits
        self._reader = FrameReader(limits.message_bytes_max)
        self._heard_at = self.loop.time()
        self._intake = Intake(limits, self._heard_at)
        # The application returns at once, because a task per connection costs 15 KB. uvicorn then
        # closes the socket, unless it sees by this timer that a close is under way already.
        self.close_timer = cast("asyncio.TimerHandle", NO_TIMER)
        if self.disconnected:
            self._closed()
            return
        if not self._holds_little:
            bound_send_buffer(self.transport, SEND_BUFFER_BYTES)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The application has returned: drop what only it needed."""
        super().on_task_complete(task)
        if self._port is None:
            return
        for name in ("scope", "request", "response", "app", "app_state", "asgi_version"):
            self.__dict__.pop(name, None)
        self.queue = NOWHERE
        self.writable = NEVERMIND
        self.__dict__ = dict(self.__dict__)  # a dict does not shrink, but its copy is small
        if not self.conn.reader.buffer:
            # The parser that read the opening request keeps it; one that begins here has none.
            self.conn.parser = Protocol.parse(self.conn)
            next(self.conn.parser)

    def hold_little(self) -> None:
        """Keep nothing unsent here and little in the kernel, so that the rest waits in the port."""
        if self.transport.is_closing():  # its socket may be gone
            return
        self._holds_little = True
        self.transport.set_write_buffer_limits(high=0)
        bound_send_buffer(self.transport, LITTLE_BYTES)

    # Reading --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        port = self._port
        if port is None:
            if self._is_failed:
                self._discard(data)
            else:
                super().data_received(data)
            return
        reader, intake = self._reader, self._intake
        messages = reader.read(data, FRAMES_AT_ONCE)
        intake.bytes_left -= len(data)
        if reader.is_special:
            self._look_at(reader, messages, port)
        elif messages:  # nothing else, as nearly always
            port.received(messages)
        else:
            self._hear_part(port)
        if intake.bytes_left < 0 or reader.frames > intake.frames_until:
            self._rest(intake.rest_s(reader.frames, self.loop.time(), port))
        elif reader.has_more:
            self._rest(0.0)

    def _hear_part(self, port: Port) -> None:
        """Bytes of an unfinished message are a sign of life."""
        now = self.loop.time()
        if self._heard_at + 1.0 <= now:
            self._heard_at = now
            port.received([])

    def _read_on(self) -> None:
        """Go on with what was read from the socket already, or with the socket."""
        self._is_resting = False
        port, reader = self._port, self._reader
        if port is None or self.transport.is_closing() or self.close_sent:
            return
        if reader.has_more:
            reader.has_more = False
            self.data_received(b"")
        if not self._is_resting:
            self._apply_reading()

    def _look_at(self, reader: FrameReader, messages: list[Inbound], port: Port) -> None:
        """What a read had beside messages, and these."""
        reader.is_special = False
        is_part = not (reader.pings or reader.pongs or reader.failed or reader.foreign)
        if reader.pings:
            self._answer_pings()
        if messages:
            port.received(messages)
        elif is_part:
            self._hear_part(port)
        if reader.held != self._partial_bytes:
            self._partial_bytes = reader.held
            port.partial(reader.held)
        for payload in reader.pongs:
            if payload == self.pending_ping_payload:
                self.handle_pong(Frame(Opcode.PONG, payload))
        reader.pongs.clear()
        if reader.failed is None and reader.foreign is None:
            return
        if self._chunks is not None:  # a frame is half written, and a close frame is no part of it
            self._chunks = None
            self.transport.close()
        if reader.failed is not None:
            self.conn.fail(reader.failed, "invalid UTF-8" if reader.failed == 1007 else "")
            self.handle_parser_exception()
        elif reader.foreign is not None:
            foreign, reader.foreign = reader.foreign, None
            super().data_received(foreign)
        if self.transport.is_closing():
            self._finish()

    def _discard(self, data: bytes) -> None:
        """Take what a peer still sends behind its violation, as far as its burst allows."""
        self._intake.bytes_left -= len(data)
        if self._intake.bytes_left < 0:
            self.transport.abort()

    def _answer_pings(self) -> None:
        """Answer the latest pings, as soon as the socket takes it. Only a few pongs ever wait."""
        pings = self._reader.pings
        if not pings or not self.is_writable or self._chunks is not None:
            return
        pongs = b"".join(bytes((0x8A, len(payload))) + payload for payload in pings)
        pings.clear()
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(pongs)

    def charge(self, bytes: int) -> None:
        """Count so many bytes as read. The next read pays for them, if this goes beyond the
        burst."""
        if self._port is not None:
            self._intake.bytes_left -= bytes

    def _rest(self, seconds: float) -> None:
        """Read nothing for so long; with 0, until the others have been read."""
        self._is_resting = True
        self._apply_reading()
        if seconds:
            self.loop.call_later(seconds, self._read_on)
        else:
            self.loop.call_soon(self._read_on)

    def send_keepalive_ping(self) -> None:
        """Ask for a sign of life, but not in the middle of a frame that is half written."""
        self._is_ping_due = self._chunks is not None
        if not self._is_ping_due:
            super().send_keepalive_ping()

    def handle_pong(self, event: Frame) -> None:
        """A pong that answers our ping is a sign of life."""
        asked = self.pending_ping_payload
        super().handle_pong(event)
        if self._port is not None and asked is not None and self.pending_ping_payload is None:
            self._port.ponged()

    # Writing and the end --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_writable = False

    def resume_writing(self) -> None:
        super().resume_writing()
        self.is_writable = True
        if self._write_chunks() and self._port is not None and not self.close_sent:
            self._answer_pings()
            self._port.writable()

    def write_long(self, batch: Batch) -> bool:
        """Send a batch in parts, each when the socket takes it. False: nothing more for now."""
        self._chunks = batch.chunks()
        return self._write_chunks()

    def _write_chunks(self) -> bool:
        """Go on with a long batch while the socket takes it. True: it takes more than that."""
        while self.is_writable and self._chunks is not None:
            chunk = next(self._chunks, None)
            if chunk is not None:
                self.transport.writelines(chunk)
                continue
            self._chunks = None
            if self._is_ping_due:
                self.send_keepalive_ping()
            if self._close_after is not None:
                self._send_close(*self._close_after)
        return self.is_writable

    def hang_up(self, code: int, reason: str) -> None:
        """Send a close frame. Cut the connection if it is not over within `close_within_s`."""
        self.close_timer = self.loop.call_later(self._limits.close_within_s, self.transport.abort)
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
        self._is_wanted = wanted
        self._apply_reading()

    def _apply_reading(self) -> None:
        wanted = self._is_wanted and (not self._is_resting or self.close_sent)
        if self.transport.is_closing() or self.read_paused is not wanted:
            return
        self.read_paused = not wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The peer has closed its half: it sends nothing more."""
        super().eof_received()
        if self._port is not None:
            self._finish()

    def handle_parser_exception(self) -> None:
        """The peer breaks RFC 6455: say so in a close frame, and read no more messages.

        The socket stays open for reading until the peer closes it too. To close a socket to which
        bytes still come is to reset it, and a reset can overtake the close frame.
        """
        if self._port is None or self.transport.is_closing() or not self.transport.can_write_eof():
            super().handle_parser_exception()
            return
        self._is_failed = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.set_reading(True)
        self.transport.write_eof()
        self._end_in_time()

    def _finish(self) -> None:
        """Nothing more comes in. What is written already may still go out, within a time."""
        self.transport.close()
        self._end_in_time()

    def _end_in_time(self) -> None:
        """The connection is over for its port. Its socket is cut if it does not end by itself."""
        self._chunks = None
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self._limits.close_within_s, self.transport.abort)
        self._closed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._chunks = None
        super().connection_lost(exc)
        self._closed()

    def _closed(self) -> None:
        if self._port is not None:
            port, self._port = self._port, None
            received, sent = self.conn.close_rcvd, self.conn.close_sent
            port.closed(received.code if received else sent.code if sent else ABNORMAL)


class UvicornTransport:
    """One accepted connection of a `MeshProtocol`: its `Transport`."""

    writes_frames = True

    __slots__ = ("_limits", "_protocol")

    def __init__(self, protocol: MeshProtocol, limits: Limits) -> None:
        self._protocol = protocol
        self._limits = limits

    def hold_little(self) -> None:
        self._protocol.hold_little()

    async def run(self, port: Port) -> None:
        self._protocol.attach(port, self._limits)

    def send(self, batch: Batch) -> bool:
        protocol = self._protocol
        transport = protocol.transport
        if protocol.close_sent or transport.is_closing():
            return protocol.is_writable
        wire = batch.wire
        if wire is not None:  # what many receivers share, and one private message
            transport.write(wire)
            return protocol.is_writable
        if batch.size > CHUNK_BYTES:
            return protocol.write_long(batch)
        buffers = batch.buffers
        if len(buffers) == 1:
            transport.write(buffers[0])
        else:
            transport.writelines(buffers)
        return protocol.is_writable

    def close(self, code: int, reason: str) -> None:
        self._protocol.hang_up(code, reason)

    def abort(self) -> None:
        self._protocol.transport.abort()

    def charge(self, bytes: int) -> None:
        self._protocol.charge(bytes)

    def pause_reading(self) -> None:
        self._protocol.set_reading(False)

    def resume_reading(self) -> None:
        self._protocol.set_reading(True)
