"""Answers that cost the relay something: made once for all who ask at the same time."""

import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.clock import Clock

EVERY_S: Final = 0.1
"""Time between two reports of a kind: a report reads every peer of every mesh."""

REPORTS_MAX: Final = 4
"""So many reports are held at a time, for clients that are still reading them."""

CHUNK_BYTES: Final = 2**16
"""A report is sent in parts of this size, so that a client that does not read holds only one."""


class Kind(NamedTuple):
    """A kind of report: how it is made, and its media type."""

    make: Callable[[], bytes]
    media_type: str


class Reports:
    """Makes the answers. All that are asked for within `EVERY_S` are one, made and held once.

    `answer` may be called from any thread but the event loop's.
    """

    def __init__(self, kinds: Mapping[str, Kind], clock: Clock) -> None:
        self._kinds = kinds
        self._clock = clock
        self._lock = threading.Lock()
        self._made: dict[str, tuple[float, _Report]] = {}  # the latest, by kind
        self._readers_lock = (
            threading.Lock()
        )  # (the other one is held while the loop is waited for)
        self._readers: dict[_Report, int] = {}  # how many clients are reading each one

    def answer(self, kind: str) -> Response:
        """A report of the last `EVERY_S` seconds. Where too many older ones are still being read:
        503."""
        with self._lock:
            at, made = self._made.get(kind, (0.0, None))
            if made is None or self._clock.now().at - at >= EVERY_S:
                if len(self._readers) >= REPORTS_MAX:
                    return _busy()
                make, media_type = self._kinds[kind]
                made = _Report(make(), media_type, self._read)
                self._made[kind] = self._clock.now().at, made
            with self._readers_lock:
                self._readers[made] = self._readers.get(made, 0) + 1
            return made

    def _read(self, report: "_Report") -> None:
        with self._readers_lock:
            self._readers[report] -= 1
            if not self._readers[report]:
                del self._readers[report]


class _Report(Response):
    """One report, sent to any number of clients, to each in parts. `over` is told of each."""

    def __init__(self, body: bytes, media_type: str, over: Callable[["_Report"], None]) -> None:
        super().__init__(body, media_type=media_type)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            for at in range(0, len(self.body), CHUNK_BYTES):
                part = bytes(self.body[at : at + CHUNK_BYTES])
                more = at + CHUNK_BYTES < len(self.body)
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            self._over(self)


def _busy() -> Response:
    error = {"status": "busy", "error": "too many reports are being read; try again"}
    return JSONResponse(error, 503, {"retry-after": "1"})
