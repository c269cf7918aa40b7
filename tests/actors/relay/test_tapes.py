"""The tapes: every receiver gets exactly what a list per receiver would hold, whatever it wants."""

from collections import defaultdict

from hypothesis import example, given
from hypothesis import strategies as st

from actors.frames import Batch, frames_length, text_frame
from actors.relay.tapes import FRAMED_BYTES_MAX, Tapes
from protocol.mesh.effects import Block, Chosen

CONNECTIONS = range(1, 6)
connections = st.sampled_from(CONNECTIONS)
several = st.sampled_from([(1,), (2,), (3, 4)]) | st.lists(connections, unique=True).map(tuple)
wishes = st.integers(0, 2)
operations = st.one_of(
    st.tuples(st.just("admit"), connections),
    st.tuples(st.just("want"), connections, wishes),
    st.tuples(st.just("dismiss"), connections),
    st.tuples(st.just("everyone")),
    st.tuples(st.just("others"), several),
    st.tuples(st.just("chosen"), st.sets(wishes), several, several),
    st.tuples(st.just("only"), several),
    st.tuples(st.just("snapshot"), connections, st.lists(st.sampled_from(range(4)), max_size=4)),
    st.tuples(st.just("finish")),
)


A = (1,)  # one object, as of one peer
BLOCKS = (
    Block((b"one",)),
    Block((b"two", b"three" * 100, b"")),
    Block((b"short", b"l" * (2 * FRAMED_BYTES_MAX))),
    Block((b"l" * (FRAMED_BYTES_MAX + 1),)),
)


def assert_whole(batch: Batch) -> None:
    """Its frames are those of its texts, and it knows what they are."""
    texts = batch.texts
    assert b"".join(batch.buffers) == b"".join(map(text_frame, texts))
    assert b"".join(part for chunk in batch.chunks() for part in chunk) == b"".join(batch.buffers)
    assert (batch.count, batch.size) == (len(texts), frames_length(texts))
    assert (batch.first, batch.last) == (texts[0], texts[-1])


@example([("admit", 1), ("others", A), ("chosen", {0}, (), ())])
@example([("admit", 1), ("finish",), ("others", A), ("want", 1, 1), ("everyone",)])
@example([("admit", 1), ("snapshot", 1, [0, 1, 3, 2]), ("everyone",), ("snapshot", 2, [1])])
@example([("snapshot", 1, [0]), ("only", A)])
@example([("admit", 1), ("snapshot", 1, [0, 1]), ("everyone",), ("want", 1, 1), ("everyone",)])
@given(st.lists(operations, max_size=40))
def test_the_tapes_are_a_list_per_receiver(ops: list[tuple]) -> None:  # type: ignore[type-arg]
    tapes = Tapes()
    expected: dict[int, list[bytes]] = defaultdict(list)
    wish_of: dict[int, int] = {}  # of those that are present
    for number, (name, *arguments) in enumerate([*ops, ("finish",)]):
        text = b"%d" % number
        receivers: set[int] = set()
        tape = tapes if tapes.differ else tapes.plain
        match name, *arguments:
            case "admit", connection if connection not in wish_of:
                tapes.plain.admit(connection)
                wish_of[connection] = 0
            case "want", connection, wish if wish_of.get(connection, wish) != wish:
                tapes.want(connection, wish)
                wish_of[connection] = wish
            case "dismiss", connection if connection in wish_of:
                tapes.dismiss(connection)
                del wish_of[connection]
            case ["everyone"]:
                tape.everyone((text,))
                receivers = set(wish_of)
            case "others", excluded:
                tape.others(excluded, (text,))
                receivers = set(wish_of) - set(excluded)
            case "chosen", chosen, excluded, also:
                here = set(wish_of.values()) | {0}
                have = {one for one, wish in wish_of.items() if wish in chosen}
                also = tuple(set(also) - have)
                tapes.chosen(Chosen(tuple(chosen & here), excluded, also), (text,))
                receivers = have - set(excluded) | set(also)
            case "only", named:
                tape.only(named, (text,))
                receivers = set(named)
            case "snapshot", connection, which:
                tapes.snapshot(connection, [BLOCKS[number] for number in which])
                expected[connection] += [text for number in which for text in BLOCKS[number].texts]
            case ["finish"]:
                got: dict[int, list[bytes]] = defaultdict(list)
                for spool in tapes.finish():
                    for connection in CONNECTIONS:
                        batch = spool.own.get(
                            connection, spool.shared if connection in spool.present else None
                        )
                        if batch is not None:
                            assert_whole(batch)
                            got[connection] += batch.texts
                assert all(got[one] == expected[one] for one in CONNECTIONS)
                assert tapes.differ == any(wish_of.values())
                expected.clear()
        for connection in receivers:
            expected[connection].append(text)


def test_receivers_that_want_the_same_share_one_buffer() -> None:
    tapes = Tapes()
    for connection in range(30):
        tapes.plain.admit(connection)
        if connection % 3:
            tapes.want(connection, connection % 3)
    tapes.finish()
    tapes.chosen(Chosen((1, 2), (7,)), (b"x",))
    spools = tapes.finish()
    assert [(spool.shared is not None, len(spool.own)) for spool in spools] == [
        (False, 0),
        (True, 1),
        (True, 0),
    ]


def test_newcomers_share_the_frames_of_short_presences_for_as_long_as_these_are_the_same() -> None:
    tapes = Tapes()
    block, long = Block((b"short", b"too")), Block((b"l" * (FRAMED_BYTES_MAX + 1),))
    for connection in (1, 2):
        tapes.plain.admit(connection)
        tapes.snapshot(connection, (block, long))
        tapes.plain.everyone((b"presence",))
    (spool,) = tapes.finish()
    batches = [batch for batch in spool.own.values() if batch is not None]
    assert [list(batch.own_texts) for batch in batches] == [list(long.texts)] * 2
    (framed,) = {shared for batch in batches for shared in batch.shared if shared.count == 2} - {
        spool.shared
    }
    assert framed.texts is block.texts
    assert framed.held_bytes == framed.size == len(text_frame(b"short") + text_frame(b"too"))
    texts = block.texts
    del block
    assert not tapes._framed
    assert [*framed.texts] == [*texts]


def test_nothing_is_left_of_a_wish_that_nobody_has() -> None:
    tapes = Tapes()
    tapes.plain.admit(1)
    tapes.want(1, 5)
    tapes.finish()
    assert len(tapes._tapes) == 2
    tapes.dismiss(1)
    tapes.finish()
    assert len(tapes._tapes) == 1
    assert not tapes._of
    assert not tapes.differ


def test_while_somebody_watches_each_receiver_is_counted_what_it_is_sent() -> None:
    class Receiver:
        def tell(self, batch: object) -> None: ...

    tapes, receivers = Tapes(), {connection: Receiver() for connection in (1, 2)}
    for connection in receivers:
        tapes.plain.admit(connection)
    tapes.finish()
    tapes.watch()
    tapes.others((1,), (b"{}",))
    tapes.tell_all(receivers, ())  # type: ignore[arg-type]
    assert [tapes.sent_to(connection) for connection in (1, 2)] == [0, 1]
