"""The HTTP side of a connection: uvicorn's h11 protocol, bounded before anything is parsed.

A connection begins here. It asks for pages, or it opens a WebSocket and goes on in
actors/transports/uvicorn.py. Whoever connects may send anything, so everything has a bound:

- **Bytes.** A request's head is collected here, and h11 sees it when it is complete and within
  `head_bytes_max` and `headers_max`. Only `/invocations` takes a body, of `body_bytes_max`, and
  `/send`, of `message_bytes_max`, including the framing of chunks.
- **Requests.** One at a time. What a client sends meanwhile waits in the kernel, but for one read.
- **Time.** A head, a body, and the pause between two requests take `opening_within_s` each. Whoever
  takes nothing of an answer for so long is cut.
- **Processor time.** A body in small chunks is read in small pieces, and the others go between.

What is refused is answered in words and logged at most once a second for each kind.

It extends h11's protocol and not httptools': h11 comes with uvicorn everywhere, so there is one
behaviour; it is strict; and it takes one request at a time. Requests are rare here, so its speed
does not matter. (What is borrowed: actors/transports/borrowed.py.)
"""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import Protocol

from actors.host.requests import (
    Refusal,
    body_bytes_max,
    refusal_of_head,
    refusal_of_request,
    too_long,
)
from actors.host.throttle import RefusalLog
from actors.transports.kernel import SEND_BUFFER_BYTES, bound_send_buffer
from protocol.limits import Limits

PIECE_BYTES: Final = 1024
"""So much of a chunked body is read before others are. A chunk of one byte takes six."""

LINGER_S: Final = 1.0
"""How long a client that was refused may read its answer before the socket is cut. Without it the
kernel drops the answer if the client is still sending."""

LINGER_BYTES: Final = 2**18
"""How much such a client may go on to send."""

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")


class _Judged(h11.Connection):
    """h11's connection, which asks about each request before uvicorn sees it."""

    def __init__(self, judge: Callable[[h11.Request], h11.Request], head_bytes_max: int) -> None:
        super().__init__(h11.SERVER, head_bytes_max)
        self._judge = judge

    def next_event(self) -> Any:
        event = super().next_event()
        return self._judge(event) if isinstance(event, h11.Request) else event


class _Flow(FlowControl):
    """The pauses of uvicorn, and ours. Its requests resume reading whenever they wait."""

    _is_held = False

    def hold(self) -> None:
        """Read nothing until `release`."""
        self._is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read on."""
        self._is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, if it is not held."""
        if not self._is_held:
            super().resume_reading()


# The connection -----------------------------------------------------------------------------------


class HttpProtocol(H11Protocol):
    """uvicorn's h11 protocol with bounds. `hosts`: see `refusal_of_request`."""

    def __init__(
        self, limits: Limits, hosts: frozenset[str] | None, refusals: RefusalLog, **given: Any
    ) -> None:
        super().__init__(**given)
        self.conn = _Judged(self._judge, limits.head_bytes_max)
        # uvicorn has one timer, for a connection that idles. Here it is every deadline's.
        self.timeout_keep_alive = limits.opening_within_s  # type: ignore[assignment]
        self._limits = limits
        self._hosts = hosts
        self._refusals = refusals
        self._refusal: Refusal | None = None
        self._pending = bytearray()  # not parsed yet
        self._searched = 0  # so much of it holds no end of a head
        self._body_max = 0
        self._body_left = 0  # bytes of the body still to come; of a chunked one: still allowed
        self._is_chunked = False
        self._is_resting = False  # others are read before the next piece
        self._is_over = False  # what comes is dropped
        self._dropped_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection begins, and its deadline runs."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        bound_send_buffer(transport, SEND_BUFFER_BYTES)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._pending.clear()
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)

    # Reading --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what came in, and parse as much as may be."""
        if self._is_over:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        if not self._pending and not self._is_in_body:
            data = data.lstrip(b"\r\n")  # an empty line before a request is allowed
            if not data:
                return
            if not self._is_answering:
                self._set_deadline()
        self._pending += data
        self._read_on()

    def _read_on(self) -> None:
        """Parse what came in, as far as its turn has come."""
        while self._pending and not self._is_over and not self.transport.is_closing():
            if self._is_resting or self._is_answering:
                self._flow.hold()
                return
            if not (self._read_body() if self._is_in_body else self._read_head()):
                break
        if not self._is_resting:
            self._flow.release()

    def _read_head(self) -> bool:
        """Parse the next head, if it is complete. False: it is not, or it was refused."""
        found = _END_OF_HEAD.search(self._pending, max(0, self._searched - 2))
        size = found.end() if found else len(self._pending)
        breaks = self._pending.count(b"\n", 0, size)
        refusal = refusal_of_head(size, breaks - (2 if found else 1), self._limits)
        if refusal is not None:
            self._refuse(refusal)
            return False
        if not found:
            self._searched = size
            return False
        self._searched = 0
        self._parse(size)
        return True

    def _read_body(self) -> bool:
        """Parse a part of the body. False: it was refused, or the rest is read later."""
        if not self._is_chunked:
            size = min(len(self._pending), self._body_left)
            self._body_left -= size
            self._parse(size)
            return True
        size = min(len(self._pending), PIECE_BYTES)
        self._body_left -= size
        if self._body_left < 0:
            self._refuse(too_long(self._body_max))
            return False
        self._parse(size)
        if self._is_in_body and self._pending:
            self._is_resting = True
            self.loop.call_soon(self._rested)
            return False
        return True

    def _rested(self) -> None:
        self._is_resting = False
        self._read_on()

    def _parse(self, size: int) -> None:
        """Give so many bytes to h11, and what it makes of them to uvicorn."""
        part = bytes(self._pending[:size])
        del self._pending[:size]
        self.conn.receive_data(part)
        self.handle_events()
        if self._is_over:  # refused, or a WebSocket now
            return
        if self._is_in_body and self.timeout_keep_alive_task is None:
            self._set_deadline()  # (uvicorn ends it with the head)
        elif self._is_answering:
            self._unset_keepalive_if_required()

    @property
    def _is_in_body(self) -> bool:
        """A request's head was read, and its body is not complete."""
        return self.conn.their_state is h11.SEND_BODY

    @property
    def _is_answering(self) -> bool:
        """A request is complete, and its answer is not."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not self._is_in_body

    def _judge(self, request: h11.Request) -> h11.Request:
        """The request as uvicorn is to see it. Raises h11.RemoteProtocolError for a refused one."""
        self._refusal = refusal_of_request(request, self._limits, self._hosts)
        if self._refusal is not None:
            raise h11.RemoteProtocolError(self._refusal.text)
        named = dict(request.headers)
        self._is_chunked = b"transfer-encoding" in named
        if not self._is_chunked:
            self._body_left = int(named.get(b"content-length", b"0"))
            return request
        self._body_left = self._body_max = body_bytes_max(request, self._limits)
        # Where it ends is seen by h11 only, so no other request may follow it.
        return h11.Request(
            method=request.method,
            target=request.target,
            headers=[*request.headers, (b"connection", b"close")],
            http_version=request.http_version,
        )

    # Openings -------------------------------------------------------------------------------------

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Go on as a WebSocket. Its protocol gets the request as it was parsed, because its own
        parser has smaller bounds."""
        if self._pending:
            text = "sent data before the WebSocket was open"
            self._refuse(Refusal(HTTPStatus.BAD_REQUEST, text))
            return
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        websocket: Any = self.ws_protocol_class(  # type: ignore[call-arg, misc]
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        websocket.connection_made(self.transport)
        self.transport.set_protocol(websocket)
        websocket.handle_connect(
            Request(
                path=event.target.decode("ascii"),
                headers=Headers(
                    (name.decode("ascii"), value.decode("ascii", "backslashreplace"))
                    for name, value in event.headers  # in lower case, as ASGI has them
                ),
                method=event.method.decode("ascii"),
                protocol=f"HTTP/{event.http_version.decode('ascii')}",
            )
        )
        if websocket.handshake_complete:  # it has refused
            self._refusals.tell(
                "opening refused", "the handshake is wrong", status=websocket.response.status_code
            )
        else:
            websocket.conn.parser = Protocol.parse(websocket.conn)  # the request is read
            next(websocket.conn.parser)
        self._is_over = True
        del self.conn  # it refers back here; without it both are gone now

    # Answers --------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """An answer is complete: go on with the next request."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._linger()
        else:
            self._read_on()

    def send_400_response(self, msg: str) -> None:
        """Refuse: uvicorn could not go on, or `_judge` refused."""
        self._refuse(self._refusal or Refusal(HTTPStatus.BAD_REQUEST, "not a valid HTTP request"))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, and close once the client has had the time to read it."""
        self._refusals.tell("request refused", refusal.text, status=refusal.status.value)
        self._pending.clear()
        self._is_over = True
        if self._is_begun():
            self.transport.abort()
            return
        body = f"{refusal.text}\n".encode()
        self.transport.write(
            f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\n"
            "content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n".encode()
            + refusal.headers
            + b"\r\n"
            + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.transport.abort)
        self._flow.release()

    def _is_begun(self) -> bool:
        """Has the answer to this request begun? If not, the application may forget the request."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return cycle.response_started

    # Time -----------------------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self._limits.opening_within_s, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """The deadline is over: of a request, or of a connection that asks nothing."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self._pending or self._is_in_body:
            seconds = self._limits.opening_within_s
            text = f"the request was not complete within {seconds:g} s"
            self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, text))
        else:
            self.transport.close()
            self._linger()

    def shutdown(self) -> None:
        """The server ends: finish the answer that is under way, if there is one."""
        if self._is_answering:
            self.cycle.keep_alive = False
        else:
            self.transport.close()
            self._linger()

    def _linger(self) -> None:
        """Cut a closed connection whose client does not take the rest."""
        if self.transport.get_write_buffer_size():
            self._stall()

    def pause_writing(self) -> None:
        """The client does not read: the application waits, and a deadline runs."""
        super().pause_writing()
        self._stall()

    def resume_writing(self) -> None:
        """The client reads on."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _stall(self) -> None:
        if self._stalled is None:
            self._stalled = self.loop.call_later(
                self._limits.opening_within_s, self.transport.abort
            )
