"""The two interfaces between a peer actor and what carries its messages: `Transport` and `Port`.

A `Transport` is one connection. It calls its `Port` (the peer actor) when something arrives and
when it can take more. The port tells it what to send. Neither side waits for the other. So the same
peer actor works over a raw asyncio protocol, over any ASGI server, and in memory.

    MemoryTransport    both ends in this process                  (actors/transports/memory.py)
    AsgiTransport      any ASGI server, one send per message      (actors/transports/asgi.py)
    UvicornTransport   one write per round, one call per read     (actors/transports/uvicorn.py)
    PacedTransport     one of these, at the pace an edge allows   (actors/transports/paced.py)

A `Link` (actors/link.py) is the other end of the connection, in the hands of a peer in Python.

**What is guaranteed, in both directions:**

- Order. Messages arrive in the order in which they were sent. None is repeated.
- Loss. While the connection lives, nothing is lost. When it ends, messages on their way may be
  lost, but only the *last* ones: there are no gaps before them. So `send` is no receipt: it only
  promises to try.
- Size. A message beyond `message_bytes_max` does not stop the messages behind it. Either an
  `Unreadable` is in its place, or the message itself arrives and is refused later. (Another server
  may have a bound of its own. Uvicorn's own protocol closes with 1009 beyond 16 MiB.)
- The end. `Port.closed` is called exactly once, after everything that was received, whatever ended
  the connection: a close of either side, a lost socket, `abort`, a failure in `run`.
"""

from typing import Protocol

from actors.frames import Batch
from protocol.envelope import ErrorCode, Inbound, Unreadable


class Port(Protocol):
    """What a transport calls. No call waits, and none raises.

    All calls come from the event loop that runs the transport, one at a time.
    """

    def received(self, messages: list[Inbound]) -> None:
        """Messages arrived, in this order, after those of earlier calls.

        The list is not empty, and it belongs to the port from now on. An `Unreadable` is in the
        place of a frame that is binary or too large. The port counts messages and bytes itself
        (their `len`), so transports need not count.
        """
        ...

    def partial(self, bytes: int) -> None:
        """So many bytes wait here that are no complete messages yet.

        A transport that keeps such bytes itself calls this when their number has changed.
        """
        ...

    def turn_s(self, bytes: float, at: float) -> float:
        """The connection was read beyond its burst by so many bytes at monotonic time `at`.

        Returns for how many seconds it must not be read, because others are in debt, too.
        """
        ...

    def ponged(self) -> None:
        """The peer answered a WebSocket ping of ours. This is a sign of life.

        Not every transport can know it. AsgiTransport and MemoryTransport never call this.
        """
        ...

    def writable(self) -> None:
        """The transport can take more.

        This follows each `send` that returned False, unless the connection ends before that. The
        port may call `send` inside this call.
        """
        ...

    def closed(self, code: int) -> None:
        """The connection is over. This is called exactly once, and no other call follows it.

        `code` is a WebSocket close code. It is 1005 if the peer gave none, and 1006 if the
        connection was lost. Everything that was received has been handed over before.
        """
        ...

    def crashed(self, error: BaseException) -> None:
        """An exception occurred in the transport, outside any call of the port (in a timer, say).

        The connection is still open. The port must close it.
        """
        ...


class Transport(Protocol):
    """What a peer actor calls. Only `run` waits.

    Every call is allowed at any time, also before `run` has begun. When the connection is over, it
    does nothing.
    """

    @property
    def writes_frames(self) -> bool:
        """True: `send` writes the `buffers` of a batch as they are. False: it sends its `texts`."""
        ...

    def hold_little(self) -> None:
        """Keep the buffers between here and the peer small, as far as this transport can.

        Messages that the peer does not read then wait in the port's outbox, where they are counted.
        Called at most once, before `run`.
        """
        ...

    async def run(self, port: Port) -> None:
        """Carry messages between the peer and `port`.

        It may return while the connection still lives. (UvicornTransport does, so that a connection
        costs no task.) If it returns because the connection is over, it has called `port.closed`.
        An exception from here ends the connection; the caller then tells the port.
        """
        ...

    def send(self, batch: Batch) -> bool:
        """Take a batch. It is sent after all earlier batches.

        Returns True if the transport takes more. False: it has taken this batch, but the next one
        must wait until `port.writable`. If the connection is over, the batch is dropped silently.
        The port sends nothing after `close`.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the connection with a WebSocket close code, after everything that was sent.

        If the peer does not take what is left, or does not answer, it is cut off after
        `close_within_s`. `port.closed` follows in every case. Called at most once.
        """
        ...

    def abort(self) -> None:
        """Cut the connection now. What still waits here is lost. `port.closed` follows."""
        ...

    def charge(self, bytes: int) -> None:
        """Count so many bytes as read, as far as this transport bounds how fast it reads."""
        ...

    def pause_reading(self) -> None:
        """Stop reading. What the transport has read already may still come.

        Further messages wait on the way, and in the end the peer cannot send.
        """
        ...

    def resume_reading(self) -> None:
        """Read again, beginning with what waits."""
        ...


def binary_frame() -> Unreadable:
    """What is put in the place of a binary frame."""
    return Unreadable(ErrorCode.BINARY, "binary frames are not allowed: a message is JSON text")
