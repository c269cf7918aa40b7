"""What carries messages between a peer actor and the peer, and the in-memory one.

A `Transport` is one connection. It calls its `Port` (the peer actor) when something arrives or when
it can take more, and is told what to send; neither side ever waits for the other, so the same peer
actor runs over a raw asyncio protocol, over any ASGI server, in memory, and under a test's thumb.

    MemoryTransport     both ends in this process                      (here)
    AsgiTransport       any ASGI server, one send per message    (actors/transports/asgi.py)
    UvicornTransport    one write per turn, one callback per read   (actors/transports/uvicorn.py)

A `Link` is the other end of the same thing, as a peer in Python holds it: `MemoryLink` here,
`WebSocketLink` in actors/client/websocket.py.
"""

from typing import Protocol

from actors.frames import Batch
from protocol.envelope import ErrorCode, Inbound, Unreadable


class Port(Protocol):
    """What a transport calls. No call waits, and none raises."""

    def received(self, messages: list[Inbound], size: int) -> None:
        """Messages arrived, in this order, `size` bytes in all; `Unreadable` stands in the place
        of one that is no text. The list is the port's from now on."""
        ...

    def ponged(self) -> None:
        """A WebSocket pong arrived."""
        ...

    def writable(self) -> None:
        """The transport can take more, after a `send` that returned False."""
        ...

    def closed(self, code: int) -> None:
        """The connection is over. Nothing comes after this, and it comes exactly once."""
        ...

    def crashed(self, error: BaseException) -> None:
        """The transport met an exception where nobody had called it."""
        ...


class Transport(Protocol):
    """What a peer actor calls. No call waits."""

    @property
    def writes_frames(self) -> bool:
        """It writes the `buffers` of a batch as they are, not its `texts`."""
        ...

    def hold_little(self) -> None:
        """Leave what the peer does not read with whoever sends it, not in buffers on the way, as
        far as that can be had. Called at most once, before `run`."""
        ...

    async def run(self, port: Port) -> None:
        """Carry messages until the connection is over. `port.closed` is called before it
        returns."""
        ...

    def send(self, batch: Batch) -> bool:
        """Take a batch. False: it is taken, but no more until `port.writable`."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close after what was sent, within `close_within_s`. Further `send`s are dropped."""
        ...

    def abort(self) -> None:
        """Cut the connection now."""
        ...

    def pause_reading(self) -> None:
        """Deliver nothing more for now. What was read already may still come."""
        ...

    def resume_reading(self) -> None:
        """Deliver again."""
        ...


def binary_frame() -> Unreadable:
    """Stands for a binary frame."""
    return Unreadable(ErrorCode.BINARY, "a binary frame: the protocol is JSON text")
