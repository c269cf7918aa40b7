"""The transport for connections behind AgentCore's edge: it limits the number and size of frames.

The edge closes a connection that carries more than 250 frames in a second, or a frame that is too
large. So such a connection gets a `PacedTransport`. It sends a frame at once if the connection was
quiet, and then one frame per tick of its mesh's `Pace`. Messages that wait meanwhile share the next
frame, as a JSON array, if the peer has said that it accepts arrays. Otherwise each has a frame of
its own. What does not fit into the next frame waits in the peer actor's outbox, within its bounds.
A message that is longer than a frame is sent as several fragments. (Another server makes its own
frames; under it a message stays whole.)

Without arrays more may be said to a peer than it ever gets. `behind_s` says how far behind it is;
the mesh then spares it what it can (rule 20 in docs/protocol.md).

If a peer does not read, messages pile up on the way. When it reads again, they reach it all at
once, and the edge counts them then. So the transport below is told to hold little. And when it
takes frames again after it took none for a while, nothing is sent for a second: the edge then
counts what piled up apart from what follows.

One task per mesh keeps the pace, and only while something waits.
"""

from collections import deque
from typing import Final

from actors.clock import Clock
from actors.frames import Batch, Fragment
from actors.signal import Signal
from actors.transports.transport import Port, Transport
from protocol.envelope import Inbound, Text
from protocol.limits import Limits

_COMMA: Final = b","
_SLACK: Final = 1e-3
"""A tick may be early by this part of an interval, because clocks round."""
STALLED_S: Final = 0.5
"""If a socket takes nothing for so long, it is not just busy: its peer does not read."""
EDGES_SECOND_S: Final = 1.0
"""The edge counts the frames of each second."""


class Pace:
    """The ticks of one mesh, and the transports that wait for the next one."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self.interval_s = 1 / limits.frames_per_s
        self._clock = clock
        self._waiting: set[PacedTransport] = set()
        self._something = Signal()

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.now().at

    def wait(self, transport: "PacedTransport") -> None:
        """`transport` gets the next tick."""
        self._waiting.add(transport)
        self._something.set()

    async def keep(self) -> None:
        """Tick for ever, while something waits."""
        while True:
            if not self._waiting:
                await self._something.wait()
            await self._clock.sleep(self.interval_s)
            waiting, self._waiting = self._waiting, set()
            for transport in waiting:
                try:
                    transport.tick()
                except Exception as error:  # only this connection ends, not the mesh
                    transport.crashed(error)


class PacedTransport:
    """Another transport, at a pace. For the peer actor it is a transport, for that one its port."""

    def __init__(self, transport: Transport, pace: Pace, limits: Limits) -> None:
        self.accepts_batches = False
        self.frames_per_s = limits.frames_per_s
        self._transport = transport
        self._pace = pace
        self._limits = limits
        self._texts: deque[Text] = deque()
        self._held = 0  # bytes of them
        self._is_full = False  # and has said so
        self._rest: memoryview | None = None  # of a message that goes in fragments
        self._is_writable = True
        self._texts_max = max(1, int(limits.frames_per_s * limits.lag_s / 4))  # without arrays
        self._due = float("-inf")  # when the next frame may go
        self._sent_at = 0.0  # when the last one went
        self._closing: tuple[int, str] | None = None
        self._close_by = 0.0
        self._is_over = False
        self._port: Port
        self.writes_frames = transport.writes_frames
        transport.hold_little()

    # A transport ----------------------------------------------------------------------------------

    def hold_little(self) -> None:
        self._transport.hold_little()

    async def run(self, port: Port) -> None:
        self._port = port
        await self._transport.run(self)

    def send(self, batch: Batch) -> bool:
        if self._is_over:
            return True
        texts = batch.texts
        self._texts.extend(texts)
        self._held += sum(map(len, texts))
        self._send_frame()
        if not self._is_idle():
            self._pace.wait(self)
        # As much as one frame may wait here. The rest waits in the outbox, where it is counted.
        self._is_full = not self._has_room()
        return not self._is_full

    def close(self, code: int, reason: str) -> None:
        if self._is_idle():
            self._is_over = True
            self._transport.close(code, reason)
        else:
            self._closing = (code, reason)
            self._close_by = self._pace.now() + self._limits.close_within_s
            self._pace.wait(self)

    def hurry(self) -> None:
        """If the close still waits for frames, close now and drop them."""
        if self._closing is not None and not self._is_over:
            self._clear()
            self._transport.close(*self._closing)

    def abort(self) -> None:
        self._clear()
        self._transport.abort()

    def charge(self, bytes: int) -> None:
        self._transport.charge(bytes)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def behind_s(self, messages: int, bytes: int) -> float:
        """How long it takes to send what waits here, and so much more that waits above. Without
        arrays each message is a frame, or several; with arrays nobody is behind."""
        if self.accepts_batches:
            return 0.0
        frames = messages + len(self._texts)
        if self.writes_frames:
            frames += (bytes + self._held) // self._limits.frame_bytes_max
        return frames / self.frames_per_s

    # A port ---------------------------------------------------------------------------------------

    def received(self, messages: list[Inbound]) -> None:
        self._port.received(messages)

    def partial(self, bytes: int) -> None:
        self._port.partial(bytes)

    def turn_s(self, bytes: float, at: float) -> float:
        return self._port.turn_s(bytes, at)

    def ponged(self) -> None:
        self._port.ponged()

    def writable(self) -> None:
        now = self._pace.now()
        if not self._is_writable and now - self._sent_at >= STALLED_S:
            self._due = now + EDGES_SECOND_S
        self._is_writable = True  # the next tick goes on
        self._pace.wait(self)

    def closed(self, code: int) -> None:
        self._clear()
        self._port.closed(code)

    def crashed(self, error: BaseException) -> None:
        self._clear()
        self._port.crashed(error)
        if self._closing is not None:  # nobody will say it again
            self._transport.abort()

    # Frames ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Send the next frame, if there is one and if its time has come."""
        if self._is_over:
            return
        self._send_frame()
        if self._closing is not None:
            if self._is_idle() or self._pace.now() >= self._close_by:
                self._is_over = True
                self._transport.close(*self._closing)
            else:
                self._pace.wait(self)
            return
        if self._is_full and self._has_room():
            self._is_full = False
            self._port.writable()
        if not self._is_idle() and self._is_writable:
            self._pace.wait(self)

    def _is_idle(self) -> bool:
        return not self._texts and self._rest is None

    def _has_room(self) -> bool:
        if not self._is_writable or self._held >= self._limits.frame_bytes_max:
            return False
        # Without arrays few wait here, so that whoever is behind hears of it when it has caught up.
        return self.accepts_batches or len(self._texts) < self._texts_max

    def _clear(self) -> None:
        self._is_over = True
        self._texts.clear()
        self._rest = None
        self._held = 0

    def _send_frame(self) -> None:
        now, interval_s = self._pace.now(), self._pace.interval_s
        if not self._is_writable or self._is_idle() or now < self._due - _SLACK * interval_s:
            return
        # After a late frame the next one may be earlier, by half an interval at most.
        self._due = max(self._due, now - interval_s / 2) + interval_s
        self._sent_at = now
        try:
            self._is_writable = self._transport.send(self._next_frame())
        except Exception:
            self._clear()  # so that the close that follows waits for nothing
            raise

    def _next_frame(self) -> Batch:
        size = self._limits.frame_bytes_max
        if self._rest is not None:
            piece, rest = self._rest[:size], self._rest[size:]
            self._rest = rest if rest else None
            self._held -= len(piece)
            return Fragment(bytes(piece), is_first=False, is_last=not rest)
        text = self._texts.popleft()
        self._held -= len(text)
        if len(text) > size and self.writes_frames:
            self._rest = memoryview(text)[size:]
            self._held += len(self._rest)
            return Fragment(text[:size], is_first=True, is_last=False)
        if not self.accepts_batches or not self._texts:
            return Batch([text])
        texts, total = [text], len(text) + 2
        while self._texts and total + 1 + len(self._texts[0]) <= size:
            texts.append(self._texts.popleft())
            total += 1 + len(texts[-1])
            self._held -= len(texts[-1])
        return Batch([b"[" + _COMMA.join(texts) + b"]" if len(texts) > 1 else text])
