"""What was missed is the same bytes, however it is put together, and is there once for all."""

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.frames import Batch, SharedBatch, frame_length, text_frame
from actors.relay.rounds import JOINS, Rounds, Several

TEXTS = st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536]), min_size=1, max_size=4)


def texts_of(lengths: list[int], letter: int = 65) -> list[bytes]:
    return [bytes([letter + number]) * length for number, length in enumerate(lengths)]


def check(batch: Batch, texts: list[bytes]) -> None:
    """It has these messages, in every form."""
    wire = b"".join(map(text_frame, texts))
    assert batch.texts == texts
    assert batch.count == len(texts)
    assert batch.size == len(wire) == sum(map(frame_length, texts))
    assert b"".join(batch.buffers) == wire
    assert b"".join(part for chunk in batch.chunks() for part in chunk) == wire
    if texts:
        assert batch.first == texts[0]


@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
@settings(deadline=None, max_examples=60)
def test_rounds_that_become_one_are_the_same_messages(
    lengths: list[list[int]], data: st.DataObject
) -> None:
    kept = [
        SharedBatch([*map(text_frame, texts_of(each, 65 + 4 * n))])
        for n, each in enumerate(lengths)
    ]
    rounds = Rounds.of([batch.to_keep() for batch in kept])
    texts = [text for batch in kept for text in batch.texts]
    check(rounds, texts)
    assert rounds.last == texts[-1]
    assert Rounds.of([rounds]) is rounds
    check(Rounds.of([rounds, kept[0].to_keep()]), [*texts, *kept[0].texts])
    wanted = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    ranges = [(number, number + 1) for number, is_wanted in enumerate(wanted) if is_wanted]
    some = [text for text, is_wanted in zip(texts, wanted, strict=True) if is_wanted]
    if some:
        check(rounds.ranges(ranges), some)
        skipped = data.draw(st.integers(0, len(some)))
        check(rounds.ranges(ranges).behind(skipped), some[skipped:])
    skipped = data.draw(st.integers(0, len(texts) - 1))
    check(rounds.behind(skipped), texts[skipped:])
    private = Batch([b"private"])
    check(
        Several([private, rounds, rounds.behind(skipped)]), [b"private", *texts, *texts[skipped:]]
    )
    row = JOINS.in_a_row([rounds, kept[0]])
    assert isinstance(row, Several)
    check(Several([private, row]), [b"private", *texts, *kept[0].texts])
    check(Several([row]).behind(1), [*texts, *kept[0].texts][1:])


def test_who_waits_for_the_same_texts_holds_the_same_ones() -> None:
    rounds = Rounds.of([SharedBatch([text_frame(b"a" * 100), text_frame(b"b" * 100)]).to_keep()])
    some, all, rest = (
        Several([part]) for part in (rounds.ranges([(1, 2)]), rounds, rounds.behind(1))
    )
    assert some.texts[0] is all.texts[1] is rest.texts[0]
    assert [*some.shared, *all.shared, *rest.shared] == [rounds] * 3
    assert [*some.own_texts, *all.own_texts, *rest.own_texts] == []
    assert rounds._read is not None
    del some, all, rest
    assert rounds._read() is None
