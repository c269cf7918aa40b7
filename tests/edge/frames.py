"""One client's connection through the edge, frame by frame.

The limits are on frames, not on messages, so frames are what is passed on: two sans-IO protocols,
one for each leg, and everything that one of them reads is written to the other as it is. A
fragmented message stays fragmented.
"""

import asyncio
import contextlib
import socket
from collections import deque
from typing import Final

import attrs
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, Protocol, State
from websockets.server import ServerProtocol

from actors.clock import Clock
from tests.edge.limits import EdgeLimits

BUFFER_BYTES: Final = 64 * 1024
"""What is read at once, and what may wait to be written before reading pauses: here, and about as
much once more in the kernel."""
CONTROL: Final = (Opcode.PING, Opcode.PONG)


class _Passing(Protocol):
    """Leaves pings to whom they are meant for, instead of answering them."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self.events.append(frame)
        else:
            super().recv_frame(frame)


class PassingServer(_Passing, ServerProtocol):
    """The protocol of the client's leg."""


class PassingClient(_Passing, ClientProtocol):
    """The protocol of the relay's leg."""


class Leg:
    """A protocol on a pair of streams. Buffers are bounded: `drain` waits for the slower side."""

    def __init__(
        self,
        protocol: Protocol,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.protocol = protocol
        self._reader = reader
        self._writer = writer
        self._events: deque[Event] = deque()
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        holder = writer.get_extra_info("socket")
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            holder.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)

    async def next(self) -> Event | None:
        """The next frame (or, at first, request or response). None: there are no more.

        That is so at the end of the stream and after whatever makes the protocol close this leg.
        """
        while not self._events:
            if self.protocol.close_sent is not None or not await self._read():
                return None
            self._events.extend(self.protocol.events_received())
        return self._events.popleft()

    async def finish(self) -> None:
        """Read and drop what still comes, until the other side has closed the socket too."""
        while await self._read():
            self.protocol.events_received()

    async def _read(self) -> bool:
        try:
            data = await self._reader.read(BUFFER_BYTES)
        except OSError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        self.flush()
        return bool(data)

    def send(self, frame: Frame) -> None:
        """Write a frame as it is; nothing, if this leg is being closed."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_frame(frame)
            self.flush()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, or, for a code that is none, cut the socket."""
        if code == CloseCode.ABNORMAL_CLOSURE:
            self.abort()
        elif self.protocol.state is State.OPEN:
            if code == CloseCode.NO_STATUS_RCVD:
                self.protocol.send_close()
            else:
                self.protocol.send_close(code, reason)
            self.flush()

    def flush(self) -> None:
        """Hand over what the protocol wants to be written."""
        for data in self.protocol.data_to_send():
            if self._writer.is_closing():
                return
            if data:
                self._writer.write(data)
            else:
                with contextlib.suppress(OSError):  # the other side was faster
                    self._writer.write_eof()

    async def drain(self) -> None:
        """Wait until there is room to write."""
        with contextlib.suppress(OSError):  # the reader learns of it too
            await self._writer.drain()

    def abort(self) -> None:
        """Cut the socket."""
        self._writer.transport.abort()


@attrs.define
class Gauge:
    """What went one way on one connection. A second is any second."""

    frames: int = 0
    frames_per_s_max: int = 0
    frame_bytes_max: int = 0
    _times: deque[float] = attrs.field(factory=deque, repr=False)

    def count(self, size: int, at: float) -> int:
        """Note a frame. How many have come in the second that ends with it."""
        self._times.append(at)
        while self._times[0] <= at - 1.0:
            self._times.popleft()
        self.frames += 1
        self.frames_per_s_max = max(self.frames_per_s_max, len(self._times))
        self.frame_bytes_max = max(self.frame_bytes_max, size)
        return len(self._times)


@attrs.define
class Traffic:
    """What is known of a connection, during it and afterwards."""

    session_id: str
    up: Gauge = attrs.field(factory=Gauge)
    down: Gauge = attrs.field(factory=Gauge)
    close_code: int | None = None
    """None while it is open; 1006 if it ended without a close frame."""


class Connection:
    """The two legs together. `close` ends both; so does whatever ends one of them."""

    def __init__(
        self, client: Leg, relay: Leg, traffic: Traffic, limits: EdgeLimits, clock: Clock
    ) -> None:
        self.traffic = traffic
        self.opened_at = self.active_at = clock.now().at
        self.code_at_relays_end: int = CloseCode.INTERNAL_ERROR
        """What the client is told if the relay's socket ends without a close frame."""
        self._client = client
        self._relay = relay
        self._limits = limits
        self._clock = clock
        self._closing = asyncio.Event()

    def close(self, code: int, reason: str = "") -> None:
        """Close both legs; 1006 cuts the sockets, as a lost network does."""
        if not self._closing.is_set():
            self._closing.set()
            self.traffic.close_code = code
            self._client.close(code, reason)
            self._relay.close(code, reason)

    async def run(self) -> None:
        """Pass frames until the connection has ended on both legs, or should have."""
        pumps = [
            asyncio.create_task(self._pump(self._client, self._relay, self.traffic.up)),
            asyncio.create_task(self._pump(self._relay, self._client, self.traffic.down)),
        ]
        try:
            await self._closing.wait()
            await asyncio.wait(pumps, timeout=self._limits.close_within_s)
        finally:
            self.close(CloseCode.ABNORMAL_CLOSURE)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            self._client.abort()
            self._relay.abort()
            for pump in pumps:
                if not pump.cancelled():
                    pump.result()

    async def _pump(self, source: Leg, target: Leg, gauge: Gauge) -> None:
        code: int = CloseCode.ABNORMAL_CLOSURE
        reason = ""
        try:
            while (event := await source.next()) is not None:
                assert isinstance(event, Frame)
                if event.opcode is not Opcode.CLOSE and not self._closing.is_set():
                    self._pass(event, target, gauge)
                    await target.drain()
            # What one leg was closed with, by its peer or for a fault, the other is closed with.
            if sent := source.protocol.close_sent:
                code, reason = sent.code, sent.reason
            elif source is self._relay:
                code = self.code_at_relays_end
        finally:
            self.close(code, reason)
        await source.finish()

    def _pass(self, frame: Frame, target: Leg, gauge: Gauge) -> None:
        self.active_at = self._clock.now().at
        if gauge.count(len(frame.data), self.active_at) > self._limits.frames_per_s:
            self.close(CloseCode.POLICY_VIOLATION, "frame rate exceeded")
        elif not (self._limits.answers_pings and frame.opcode in CONTROL):
            target.send(frame)
