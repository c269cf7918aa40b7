"""Logs: who logs never waits for who reads, and what clients cause is told briefly."""

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from actors.clock import VirtualClock
from actors.host import logs
from actors.host.logs import LINES_BURST, LINES_PER_S, RETOLD, QueuedHandler, _Foreign
from actors.host.throttle import KINDS_MAX, RefusalLog, Throttle
from tests.worlds.live import PATIENCE_S


class Pipe:
    """Takes what is written while it is open; who writes meanwhile waits."""

    def __init__(self) -> None:
        self.text = ""
        self.is_open = threading.Event()
        self.is_waited_for = threading.Event()

    def write(self, line: bytes) -> None:
        self.is_waited_for.set()
        assert self.is_open.wait(PATIENCE_S)
        self.text += line.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.is_open.set()


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("relay", logging.INFO, "", 0, text, None, None)


def handler_of(pipe: Pipe, lines_max: int = 100, bytes_max: int = 10**6) -> QueuedHandler:
    """A handler whose thread waits with one line already."""
    handler = QueuedHandler(pipe.write, lines_max, bytes_max)
    handler.emit(record("first"))
    assert pipe.is_waited_for.wait(PATIENCE_S)
    return handler


def test_who_logs_does_not_wait_and_the_lines_come_in_their_order(pipe: Pipe) -> None:
    handler = handler_of(pipe)
    for n in range(50):
        handler.emit(record(str(n)))
    assert pipe.text == ""
    pipe.is_open.set()
    handler.flush()
    assert pipe.text.split() == ["first", *map(str, range(50))]


@pytest.mark.parametrize(("lines_max", "bytes_max"), [(5, 10**6), (10**6, 5 * len("nnnnn\n"))])
def test_what_does_not_fit_is_dropped_and_counted_in_a_line_when_there_is_room(
    pipe: Pipe, lines_max: int, bytes_max: int
) -> None:
    handler = handler_of(pipe, lines_max, bytes_max)
    for _ in range(20):
        handler.emit(record("nnnnn"))
    assert len(handler._lines) <= lines_max
    assert handler._bytes <= bytes_max
    handler._bytes_max = 10**6  # room for the line that tells
    pipe.is_open.set()
    handler.flush()
    told = [line for line in pipe.text.splitlines() if "dropped" in line]
    assert len(told) == 1
    assert pipe.text.count("nnnnn") == 4  # and the first line
    assert (len(handler._lines), handler._bytes, handler._dropped) == (0, 0, 0)


def test_how_many_were_dropped_is_in_the_line(pipe: Pipe) -> None:
    handler = handler_of(pipe, lines_max=1)
    handler.setFormatter(logging.Formatter("%(message)s %(lines)s", defaults={"lines": ""}))
    for _ in range(7):
        handler.emit(record("dropped"))
    pipe.is_open.set()
    handler.flush()
    assert pipe.text.splitlines()[-1].endswith(" 7")


def test_too_many_lines_are_dropped_and_counted_but_no_error() -> None:
    lines: list[bytes] = []
    at = 1000.0
    handler = QueuedHandler(lines.append, now=lambda: at)
    for _ in range(LINES_BURST + 50):
        handler.emit(record("often"))
        handler.flush()
    assert lines.count(b"often\n") == LINES_BURST
    handler.emit(logging.LogRecord("relay", logging.ERROR, "", 0, "error", None, None))
    handler.flush()
    assert b"error\n" in lines[-2:]
    at += 2 / LINES_PER_S  # (the error took one of them)
    for _ in range(3):
        handler.emit(record("later"))
        handler.flush()
    assert lines.count(b"later\n") == 1
    assert sum(b"dropped" in line for line in lines) == 1  # the three later ones are not told yet


def test_the_end_waits_for_a_reader_only_for_a_while(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FLUSH_WITHIN_S", 0.01)
    handler_of(pipe).flush()
    assert pipe.text == ""


def test_a_reader_that_is_gone_ends_nothing() -> None:
    done = threading.Event()

    def write(line: bytes) -> None:
        if line == b"last\n":
            done.set()
        raise BrokenPipeError

    handler = QueuedHandler(write)
    for text in ("first", "last"):
        handler.emit(record(text))
    assert done.wait(PATIENCE_S)


# Lines that others cause --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_one_event_of_a_kind_is_admitted_a_second_and_the_others_are_counted() -> None:
    clock = VirtualClock()
    throttle = Throttle(clock)
    assert [throttle.admit("a") for _ in range(4)] == [0, None, None, None]
    assert throttle.admit("b") == 0
    await clock.advance(0.9)
    assert throttle.admit("a") is None
    await clock.advance(0.1)
    assert throttle.admit("a") == 4
    await clock.advance(1)
    assert throttle.admit("a") == 0


def test_kinds_without_end_take_no_room_without_end() -> None:
    throttle = Throttle(VirtualClock())
    for n in range(10 * KINDS_MAX):
        throttle.admit(str(n))
    assert len(throttle._kinds) <= KINDS_MAX


def test_a_refusal_is_told_in_less_than_400_bytes_whatever_the_client_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for origin in ("\x00é😀" * 3000, '"' * 9000):
        caplog.clear()
        RefusalLog(VirtualClock()).tell("origin refused", "n" * 140, origin=origin)
        (line,) = caplog.records
        facts = {key: vars(line)[key] for key in ("origin", "reason", "msg")}
        assert len(json.dumps(facts)) < 400


def test_what_uvicorn_and_the_sdk_say_of_clients_is_rare_and_short() -> None:
    keep = _Foreign().filter
    for text in RETOLD:
        assert not keep(error(text))
    first = error("raw baggage: %r", "x" * 9000)
    assert keep(first)
    assert len(first.getMessage()) < 300
    assert not keep(error("raw baggage: %r", "y"))
    assert keep(error("something else"))
    assert keep(record("not a warning"))


def error(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, text, args, None)
