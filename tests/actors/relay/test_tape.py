"""The tape: every receiver gets exactly what a list per receiver would hold."""

import struct
from collections import defaultdict

from hypothesis import example, given
from hypothesis import strategies as st

from actors.frames import Batch, text_frame
from actors.relay.tape import Tape

connections = st.integers(1, 5)
senders = st.sampled_from([(1,), (2,), (3, 4)])  # always the same objects, as of one peer
operations = st.one_of(
    st.tuples(st.just("admit"), connections),
    st.tuples(st.just("dismiss"), connections),
    st.tuples(st.just("everyone")),
    st.tuples(st.just("others"), senders | st.lists(connections, unique=True)),
    st.tuples(st.just("only"), st.lists(connections, unique=True), st.integers(1, 3)),
    st.tuples(st.just("finish")),
)


def parse(wire: bytes) -> list[bytes]:
    texts, at = [], 0
    while at < len(wire):
        assert wire[at] == 0x81
        length, start = wire[at + 1], at + 2
        if length == 126:
            (length,), start = struct.unpack_from("!H", wire, start), start + 2
        elif length == 127:
            (length,), start = struct.unpack_from("!Q", wire, start), start + 8
        texts.append(wire[start : start + length])
        at = start + length
    return texts


A = (1,)  # one object, as of one peer


@example([("others", A), ("admit", 1), ("others", A)])
@given(st.lists(operations, max_size=40))
def test_a_tape_is_a_list_per_receiver(ops: list[tuple]) -> None:  # type: ignore[type-arg]
    tape = Tape()
    expected: dict[int, list[bytes]] = defaultdict(list)
    present: set[int] = set()
    for number, (name, *arguments) in enumerate([*ops, ("finish",)]):
        text = b"%d" % number * (1 + number % 3 * 60)
        match name:
            case "admit":
                if arguments[0] not in present:
                    tape.admit(arguments[0])
                    present.add(arguments[0])
            case "dismiss":
                tape.dismiss(arguments[0])
                present.discard(arguments[0])
            case "everyone":
                tape.everyone((text,))
                for connection in present:
                    expected[connection].append(text)
            case "others":
                tape.others(arguments[0], (text,))
                if number % 2:  # several in a row
                    tape.others(arguments[0], (text,))
                    for connection in present - set(arguments[0]):
                        expected[connection].append(text)
                for connection in present - set(arguments[0]):
                    expected[connection].append(text)
            case "only":
                texts = [text + b"." * n for n in range(arguments[1])]
                tape.only(arguments[0], texts)
                for connection in arguments[0]:
                    expected[connection] += texts
            case "finish":
                shared, own = tape.finish()
                for connection in (1, 2, 3, 4, 5):
                    missing = shared if connection in present else None
                    batch = own.get(connection, missing)
                    got = list(batch.texts) if batch is not None else []
                    assert got == expected[connection]
                    if batch is not None:
                        assert parse(b"".join(batch.buffers)) == got
                        assert batch.count == len(got)
                expected.clear()


def test_receivers_without_cuts_share_one_buffer() -> None:
    tape = Tape()
    for connection in range(100):
        tape.admit(connection)
    tape.finish()
    for _ in range(20):
        tape.others((0,), (b"{}",))
    shared, own = tape.finish()
    assert shared is not None
    assert set(own) == {0}
    assert shared.buffers[0] is shared.buffers[0]
    assert own[0] is None


def test_what_is_counted_and_released_in_the_middle_leaves_out_what_is_left_out() -> None:
    tape = Tape()
    tape.admit(1)
    tape.admit(2)
    tape.others(A, (b"1",))
    tape.others(A, (b"2",))
    assert [tape.count_of(connection) for connection in (1, 2)] == [0, 2]
    tape.others(A, (b"3",))
    tape.everyone((b"4",))
    assert tape.release(1) == [b"4"]
    tape.others(A, (b"5",))
    assert tape.release(2) == [b"1", b"2", b"3", b"4", b"5"]


def test_what_is_released_in_the_middle_of_a_run_leaves_it_out() -> None:
    tape = Tape()
    tape.admit(1)
    tape.finish()
    tape.others(A, (b"1",))
    assert tape.release(1) == []


def test_frames_of_every_length_class() -> None:
    for length in (0, 1, 125, 126, 65535, 65536):
        assert parse(text_frame(b"x" * length)) == [b"x" * length]
    assert parse(b"".join(Batch([b"a", b"b"]).buffers)) == [b"a", b"b"]
