"""What carries messages between a peer actor and its peer: the two interfaces.

A `Transport` is one connection. It calls its `Port` (the peer actor) when something arrives and
when it can take more; the port tells it what to send. Neither side ever waits for the other, so the
same peer actor runs over a raw asyncio protocol, over any ASGI server, and in memory.

    MemoryTransport    both ends in this process                  (actors/transports/memory.py)
    AsgiTransport      any ASGI server, one send per message      (actors/transports/asgi.py)
    UvicornTransport   one write per round, one call per read     (actors/transports/uvicorn.py)
    PacedTransport     one of these, at the pace an edge allows   (actors/transports/paced.py)

A `Link` (actors/link.py) is the other end of the connection, as a peer in Python holds it.

**What is guaranteed, in both directions:**

- Order. Messages arrive in the order in which they were sent. None is repeated.
- Loss. While the connection lives, nothing is lost. When it ends, what was on its way may be lost,
  and always the *last* messages: what arrived is a beginning of what was sent, without gaps.
  `send` is therefore no receipt. A transport that takes a batch promises to try, no more.
- Size. A message beyond `message_bytes_max` does not stop the ones behind it: an `Unreadable`
  stands in its place, or the message itself arrives and is refused later. (A foreign server may
  have a bound of its own. Uvicorn's own protocol closes with 1009 beyond 16 MiB.)
- The end. `Port.closed` is called exactly once, whatever ended the connection (either side's close,
  a lost socket, `abort`, a failure in `run`), and after everything that was received.
"""

from typing import Protocol

from actors.frames import Batch
from protocol.envelope import ErrorCode, Inbound, Unreadable


class Port(Protocol):
    """What a transport calls. No call waits, and none raises.

    All calls come from the event loop that runs the transport, one at a time.
    """

    def received(self, messages: list[Inbound]) -> None:
        """Messages arrived, in this order, behind those of the calls before.

        The list is not empty and belongs to the port from now on. An `Unreadable` stands in the
        place of a frame that is no text within bounds. The port counts messages and bytes itself
        (`size_of`), so transports have no count of their own to keep.
        """
        ...

    def ponged(self) -> None:
        """The peer answered a WebSocket ping of ours: a sign of life.

        Not every transport can tell. AsgiTransport and MemoryTransport never call this.
        """
        ...

    def writable(self) -> None:
        """The transport can take more. It comes after each `send` that returned False, unless the
        connection ends before. The port may call `send` from within."""
        ...

    def closed(self, code: int) -> None:
        """The connection is over, and `code` is why: a WebSocket close code, 1005 if the peer gave
        none, 1006 if the connection was lost.

        Exactly once, and last: neither `received` nor any other call follows, and everything that
        was received has been handed over before.
        """
        ...

    def crashed(self, error: BaseException) -> None:
        """The transport met an exception in a call that no port had made (a timer, for example).

        The connection still stands. The port is expected to close it.
        """
        ...


class Transport(Protocol):
    """What a peer actor calls. No call but `run` waits.

    Every call is allowed at any time, also before `run` has begun and when the connection is over
    already. In the second case it does nothing.
    """

    @property
    def writes_frames(self) -> bool:
        """True: `send` writes the `buffers` of a batch as they are. False: it sends its `texts`."""
        ...

    def hold_little(self) -> None:
        """Keep the buffers on the way to the peer small, as far as this transport can.

        What the peer does not read then waits in the port's outbox, where it is counted. Called at
        most once, before `run`.
        """
        ...

    async def run(self, port: Port) -> None:
        """Carry messages between the peer and `port`.

        It may return while the connection still lives (UvicornTransport does, so that a connection
        costs no task). Where it returns because the connection is over, `port.closed` has been
        called. An exception from here ends the connection; the caller then tells the port.
        """
        ...

    def send(self, batch: Batch) -> bool:
        """Take a batch; it goes out behind all batches before.

        True: the transport takes more. False: this batch is taken, but the next must wait until
        `port.writable`. Batches for a connection that is over are dropped silently. The port sends
        nothing after `close`.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the connection with a WebSocket close code, after what was sent before.

        A peer that does not take what is left, or does not answer, is cut off after
        `close_within_s`. `port.closed` follows in every case. Called at most once.
        """
        ...

    def abort(self) -> None:
        """Cut the connection now. What was sent and has not left is lost; `port.closed` follows."""
        ...

    def pause_reading(self) -> None:
        """Stop delivering. What the transport has read already may still come; the rest waits on
        the way, and in the end the peer's own sends wait."""
        ...

    def resume_reading(self) -> None:
        """Deliver again, beginning with what waits."""
        ...


def binary_frame() -> Unreadable:
    """What stands in the place of a binary frame."""
    return Unreadable(ErrorCode.BINARY, "binary frames are not allowed: a message is JSON text")
