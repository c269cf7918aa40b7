"""Frames and batches: the same bytes, whether a socket takes them at once or in chunks."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.frames import CHUNK_BYTES, Batch, SharedBatch, frame_length, frame_parts, text_frame
from actors.relay.tape import Tape

sizes = st.one_of(st.integers(0, 300), st.integers(8190, 8200), st.integers(0, 3 * CHUNK_BYTES))


def wire_of(batch: Batch) -> bytes:
    return b"".join(batch.buffers)


@given(st.lists(sizes, min_size=1, max_size=6), st.booleans())
@settings(deadline=None, max_examples=60)
def test_chunks_are_the_same_bytes_as_buffers_and_none_is_too_long(
    lengths: list[int], is_shared: bool
) -> None:
    texts = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    batch = SharedBatch([*map(text_frame, texts)]) if is_shared else Batch(texts)
    chunks = list(batch.chunks())
    assert b"".join(b"".join(chunk) for chunk in chunks) == wire_of(batch)
    assert wire_of(batch) == b"".join(map(text_frame, texts))
    assert all(sum(map(len, chunk)) <= CHUNK_BYTES for chunk in chunks)
    assert batch.size == len(wire_of(batch)) == sum(map(frame_length, texts))


@pytest.mark.parametrize("length", [0, 125, 126, 8192, 8193, 65535, 65536])
def test_the_parts_of_a_frame_are_the_frame(length: int) -> None:
    text = b"x" * length
    assert b"".join(frame_parts(text)) == text_frame(text)


def held(make: object) -> int:
    """Bytes that are allocated by what `make()` returns, while it lives."""
    assert callable(make)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = make()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept is not None
    return after - before


def test_senders_of_long_messages_with_many_private_errors_hold_no_copies() -> None:
    """Each of 50 senders has a long message on the tape and 70 private ones in between."""
    texts = [bytes(2**20) for _ in range(50)]

    def round() -> object:
        tape = Tape()
        for connection in range(50):
            tape.admit(connection)
        for connection, text in enumerate(texts):
            tape.others((connection,), (text,))
            for _ in range(70):
                tape.only((connection,), (b"{}",))
        shared, own = tape.finish()
        return shared, [batch.chunks() for batch in own.values() if batch is not None]

    assert held(round) < 1.2 * 50 * 2**20  # the tape itself, once


def test_a_long_private_message_to_many_connections_is_not_copied_for_each() -> None:
    text = bytes(2**20)

    def round() -> object:
        tape = Tape()
        tape.only(range(2000), (text, text))
        return tape.finish()

    assert held(round) < 2**21


def test_a_roster_that_waits_is_references_only() -> None:
    presences = [bytes(2**16) for _ in range(200)]

    def rosters() -> object:
        tape = Tape()
        for connection in range(200):
            tape.only((connection,), presences)
        return tape.finish()

    assert held(rosters) < 2**21
