"""The frame reader: the same messages however the stream is cut; every frame counts."""

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.transports.reader import INVALID_TEXT, PINGS_MAX, PROTOCOL_ERROR, FrameReader
from protocol.envelope import ErrorCode, Inbound, Unreadable
from tests.worlds import frames

BOUND: Final = 1000
MASK: Final = b"\x11\x22\x33\x44"


def frame(first: int, payload: bytes = b"") -> bytes:
    """A frame by its whole first byte."""
    fin, reserved, opcode = bool(first & 0x80), first >> 4 & 7, first & 0x0F
    return frames.frame(payload, opcode, fin=fin, reserved=reserved, mask=MASK)


def shown(messages: list[Inbound]) -> list[bytes | ErrorCode]:
    return [m.code if isinstance(m, Unreadable) else m for m in messages]


def read_all(reader: FrameReader, data: bytes, frames_max: int = 10**6) -> list[bytes | ErrorCode]:
    messages = reader.read(data, frames_max)
    while reader.has_more:
        reader.has_more = False
        messages += reader.read(b"", frames_max)
    return shown(messages)


def with_two_bytes_of_length(text: bytes) -> bytes:
    """A frame of a text, with a length as longer texts than it may have."""
    return struct.pack("!BBH", 0x81, 0xFE, len(text)) + frame(0x81, text)[-4 - len(text) :]


# One message in any of the ways in which it may be put on the wire, and what becomes of it.
TEXT: Final = "é{}".encode()
WAYS: Final = {
    "plain": (frame(0x81, TEXT), TEXT),
    "empty": (frame(0x81), b""),
    "short, with two bytes of length": (with_two_bytes_of_length(TEXT), TEXT),
    "medium": (frame(0x81, b"x" * 700), b"x" * 700),
    "medium, not ASCII": (frame(0x81, TEXT * 60), TEXT * 60),
    "fragments": (frame(0x01, TEXT[:1]) + frame(0x00) + frame(0x80, TEXT[1:]), TEXT),
    "ping inside": (frame(0x01, b"a") + frame(0x89, b"?") + frame(0x80, b"b"), b"ab"),
    "binary": (frame(0x82, b"\xff"), ErrorCode.BINARY),
    "binary fragments": (frame(0x02, b"\xff") + frame(0x80, b"\xfe"), ErrorCode.BINARY),
    "too large": (frame(0x81, b"x" * (BOUND + 1)), ErrorCode.TOO_LARGE),
    "far too large": (frame(0x81, b"x" * 70_000), ErrorCode.TOO_LARGE),
    "too large in sum": (
        frame(0x01, b"x" * 600) + frame(0x00, b"x" * 600) + frame(0x80, b"x"),
        ErrorCode.TOO_LARGE,
    ),
    "too large a part": (frame(0x01) + frame(0x80, b"x" * (BOUND + 1)), ErrorCode.TOO_LARGE),
}


@given(st.lists(st.sampled_from(list(WAYS)), max_size=8), st.data())
@settings(deadline=None, max_examples=150)
def test_the_messages_are_the_same_however_the_stream_is_cut_and_however_few_frames_are_read(
    ways: list[str], data: st.DataObject
) -> None:
    stream = b"".join(WAYS[way][0] for way in ways)
    reader, got = FrameReader(BOUND), []
    at = 0
    while at < len(stream):
        size = data.draw(st.sampled_from([1, 2, 3, 7, 500, 10**6]))
        got += read_all(reader, stream[at : at + size], data.draw(st.integers(1, 5)))
        at += size
    assert got == [WAYS[way][1] for way in ways]
    assert (reader.failed, reader.foreign, reader.held) == (None, None, 0)


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_several_times_at_once_is_read_several_times(way: str) -> None:
    wire, message = WAYS[way]
    assert read_all(FrameReader(BOUND), wire * 3) == [message] * 3


@pytest.mark.parametrize("text", [b"x", b"x" * 200])
def test_a_message_inside_another_is_seen_whenever_it_comes(text: bytes) -> None:
    reader = FrameReader(BOUND)
    assert reader.read(frame(0x01, b"y"), 10) == []
    assert reader.read(frame(0x81, text) * 2, 10) == []
    assert reader.failed == PROTOCOL_ERROR


def test_a_long_frame_in_small_segments_is_gathered_in_one_buffer() -> None:
    reader = FrameReader(10**6)
    wire = frame(0x81, b"x" * 500_000)
    assert reader.read(wire[:100], 10) == []
    assert reader.read(wire[100:101], 10) == []
    buffer = reader._data
    for at in range(101, len(wire) - 1, 5000):
        assert reader.read(wire[at : min(at + 5000, len(wire) - 1)], 10) == []
        assert reader._data is buffer  # extended, not made anew with every segment
    assert shown(reader.read(wire[-1:], 10)) == [b"x" * 500_000]


@pytest.mark.parametrize("size", [5, 500])
@pytest.mark.parametrize("make", [partial(frame, 0x81), with_two_bytes_of_length])
def test_no_more_frames_are_read_at_once_than_asked_for(
    make: Callable[[bytes], bytes], size: int
) -> None:
    reader, text = FrameReader(BOUND), b"x" * size
    got = shown(reader.read(make(text) * 7, 3))
    assert (got, reader.frames, reader.has_more) == ([text] * 3, 3, True)
    assert read_all(reader, b"", 3) == [text] * 4
    assert reader.frames == 7


def test_of_many_pings_only_the_latest_few_wait_for_their_answers() -> None:
    reader = FrameReader(BOUND)
    wire = b"".join(frame(0x89, b"%d" % number) for number in range(1000))
    assert read_all(reader, wire) == []
    assert reader.pings == [b"%d" % number for number in range(1000 - PINGS_MAX, 1000)]
    assert reader.frames == 1000
    assert reader.held == 0


def test_every_frame_counts_empty_fragments_and_pongs_too() -> None:
    reader = FrameReader(BOUND)
    wire = frame(0x01) + frame(0x00) * 500 + frame(0x8A, b"!") * 3 + frame(0x80)
    assert read_all(reader, wire, frames_max=7) == [b""]
    assert reader.frames == 505
    assert reader.pongs == [b"!"] * 3


@pytest.mark.parametrize("before", [b"before", b"before" * 40])
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(0x80, b"y"), PROTOCOL_ERROR),  # a continuation of nothing
        (frame(0x01, b"y") + frame(0x81, b"x"), PROTOCOL_ERROR),  # a message inside another
        (frame(0x01, b"y") + frame(0x81, b"x" * 200), PROTOCOL_ERROR),
        (frame(0x81, b"\xff"), INVALID_TEXT),
        (frame(0x81, b"\xff" * 200), INVALID_TEXT),
        (frame(0x01, b"\xc3") + frame(0x80, b"\x28"), INVALID_TEXT),
    ],
)
def test_what_breaks_the_protocol_fails_with_its_code_after_what_came_before(
    wire: bytes, code: int, before: bytes
) -> None:
    reader = FrameReader(BOUND)
    assert read_all(reader, frame(0x81, before) + wire) == [before]
    assert reader.failed == code
    assert reader.is_special


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_close_is_handed_over_whole(cut: int) -> None:
    close = frame(0x88, struct.pack("!H", 1000) + b"bye")
    reader = FrameReader(BOUND)
    assert reader.read(close[:cut], 10) == []
    assert reader.foreign is None or cut >= len(close)
    reader.read(close[cut:], 10)
    assert reader.foreign == close


@pytest.mark.parametrize("wire", [b"\x81\x05hello", b"\xc1\x80aaaa", b"\x83\x80aaaa"])
def test_violations_are_handed_over_for_judgement(wire: bytes) -> None:
    reader = FrameReader(BOUND)
    assert reader.read(wire, 10) == []
    assert reader.foreign is not None
    assert wire.startswith(reader.foreign[:2])
