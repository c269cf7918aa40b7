"""Logs: one line per event, readable on a terminal and JSON elsewhere. Nobody waits for them.

Standard error may be a pipe that nobody reads, or a terminal that was stopped with Ctrl-S. So a
thread of its own writes the lines, and who logs only puts them into a bounded queue.
"""

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from actors.clock import SystemClock
from actors.host.throttle import Throttle, short
from protocol.rate import Rate

LINES_MAX: Final = 10_000
LINES_BYTES_MAX: Final = 2**20
"""Lines and bytes that wait to be written. What exceeds them is dropped, and a line says how many
were."""

LINES_PER_S: Final = 100
LINES_BURST: Final = 1000
"""Lines a second, and so many more at once: whoever comes and goes all the time fills no disk. What
exceeds them is dropped in the same way. Errors always become lines."""

FLUSH_WITHIN_S: Final = 1.0
"""How long the end of the program waits for what is queued to be written."""

MESSAGE_CHARS_MAX: Final = 200
"""Characters of a message of uvicorn or the SDK: some hold what a client sent."""

RETOLD: Final = frozenset(
    (
        "ASGI callable returned without completing handshake.",
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
    )
)
"""Messages of uvicorn about what the relay has answered, and logs better itself."""


def configure_logging(level: str) -> None:
    """Write all log records to stderr from now on, also those of uvicorn and of the SDK.

    One line per record: readable on a terminal, JSON elsewhere. `level` is a name such as `info`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    is_terminal = sys.stderr.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = QueuedHandler(_write_all)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    # Its lines below this level hold query strings, and those hold credentials.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    foreign = _Foreign()
    for name in ("uvicorn.error", "bedrock_agentcore.app"):
        logging.getLogger(name).addFilter(foreign)


class QueuedHandler(logging.Handler):
    """Writes records in a thread of its own, by `write`, which may block for ever.

    `lines_max` and `bytes_max` bound what waits, and `LINES_PER_S` how many lines there are. The
    thread is a daemon: it holds up no exit.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        lines_max: int = LINES_MAX,
        bytes_max: int = LINES_BYTES_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._write = write
        self._now = now
        self._rate = Rate(LINES_PER_S, LINES_BURST)
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or count it if there is no room or if there were too many."""
        at = self._now()
        if record.levelno < logging.ERROR and self._rate.opens_at() > at:
            with self._changed:
                self._dropped += 1
            return
        self._rate.take(at)
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if not self._has_room(line):
                self._dropped += 1
                return
            self._put(line)

    def flush(self) -> None:
        """Wait until everything is written, but not longer than `FLUSH_WITHIN_S`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, FLUSH_WITHIN_S)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _has_room(self, line: bytes) -> bool:
        return len(self._lines) < self._lines_max and self._bytes + len(line) <= self._bytes_max

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]  # it counts until it is written
            with contextlib.suppress(OSError):  # the reader is gone; there is nobody to tell
                self._write(line)
            with self._changed:
                self._lines.popleft()
                self._bytes -= len(line)
                self._tell_dropped()
                self._changed.notify_all()

    def _tell_dropped(self) -> None:
        if not self._dropped:
            return
        line = self._line(
            logging.makeLogRecord(
                {
                    "name": "relay",
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    "msg": "log lines were dropped: too many, or standard error was not read",
                    "lines": self._dropped,
                }
            )
        )
        if self._has_room(line):
            self._dropped = 0
            self._put(line)


def _write_all(line: bytes) -> None:
    """Write to stderr by its number: a lock of the stream would be held while the pipe is full."""
    number = sys.stderr.fileno()
    left = memoryview(line)
    while left:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:  # another program of this terminal has made it so
            select.select([], [number], [])


class _Foreign(logging.Filter):
    """What uvicorn and the SDK say of clients: once a second for each kind, and never long."""

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle(SystemClock())

    def filter(self, record: logging.LogRecord) -> bool:
        """Does this record become a line?"""
        if record.levelno < logging.WARNING:
            return True
        kind = str(record.msg)
        if kind in RETOLD:
            return False
        suppressed = self._throttle.admit(kind)
        if suppressed is None:
            return False
        if suppressed:
            record.suppressed = suppressed
        record.msg, record.args = short(record.getMessage().strip(), MESSAGE_CHARS_MAX), ()
        return True
