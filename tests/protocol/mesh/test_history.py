"""What was missed is exactly what was sent, or it is said that it is gone."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from unittest import mock
from zlib import crc32

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.envelope import TEXT_BYTES, Text
from protocol.mesh import rounds as rounds_module
from protocol.mesh.history import History, Missing
from protocol.mesh.rounds import ROUND_BYTES, Joins, LeftOut, Missed


class Texts:
    """What all of these say of their texts."""

    texts: Sequence[Text]

    @property
    def count(self) -> int:
        return len(self.texts)

    @property
    def last(self) -> Text:
        return self.texts[-1]


@attrs.frozen
class Given(Texts):
    """A delivery of plain texts."""

    texts: Sequence[Text]
    own_texts: Iterable[Text]
    left_out: Sequence[LeftOut] | None = None
    shared: "Sequence[Given]" = ()

    def to_keep(self) -> "Piled":
        return Piled([*self.texts])

    @property
    def first(self) -> Text:
        return self.texts[0]

    def behind(self, count: int) -> "Given":
        return Given(self.texts[count:], ())

    def ranges(self, ranges: Sequence[tuple[int, int]]) -> "Given":
        return Given([text for start, end in ranges for text in self.texts[start:end]], ())

    @property
    def size(self) -> int:
        return sum(map(len, self.texts))

    @property
    def held_bytes(self) -> int:
        return 2 * self.size + TEXT_BYTES * self.count


@attrs.define
class Piled(Texts):
    """The texts of several of these."""

    texts: list[Text]

    def put(self, shared: Given) -> None:
        self.texts += shared.texts


def each(*left_out: Collection[int]) -> list[LeftOut]:
    """Whom the messages leave out, one by one."""
    return [(one, len(list(run))) for one, run in groupby(left_out)]


def to_all(*texts: Text) -> Given:
    return Given(texts, ())


def to_one(*texts: Text) -> Given:
    return Given(texts, texts)


A, B = 1, 2


@pytest.fixture(autouse=True)
def groups() -> Iterator[None]:
    """They are small here, so that there are many."""
    with (
        mock.patch.object(rounds_module, "GROUP_ROUNDS", 3),
        mock.patch.object(rounds_module, "GROUP_BYTES", 2000),
    ):
        yield


def join(rounds: Sequence[Given]) -> Given:
    return Given([text for round in rounds for text in round.texts], ())


JOINS = Joins(join, join)


def kept_for(seconds: float) -> History:
    return History(10**9, seconds, JOINS)


def texts_of(parts: Sequence[Missed]) -> list[Text]:
    assert all(part.count for part in parts), "a part without a message"
    return [text for part in parts for text in part.texts]


def history() -> History:
    return kept_for(1000.0)


def test_nothing_is_kept_for_nobody() -> None:
    it = history()
    assert not it
    it.add(to_all(b"1"), {}, 0.0)
    it.open(A, 0, follows=True)
    assert it
    it.add(to_all(b"2"), {}, 1.0)
    assert it.bytes > ROUND_BYTES
    it.close(A)
    assert not it
    assert it.bytes == 0
    it.close(A)
    assert it.bytes == 0


def test_what_others_may_miss_is_kept_when_one_is_over() -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.open(B, 0, follows=True)
    it.add(to_all(b"1"), {}, 0.0)
    kept = it.bytes
    it.close(A)
    it.close(3)
    assert it.bytes == kept
    assert texts_of(it.missed(B, 0, None)) == [b"1"]


LAST: dict[str, list[tuple[Given | None, dict[int, Given | None]]]] = {
    "to everyone": [(to_all(b"last"), {})],
    "in another order": [(to_all(b"other"), {1: to_one(b"other", b"last")})],
    "to it alone": [(None, {1: to_one(b"last")})],
    "before one that it said": [(Given((b"last", b"own"), (), each((), (1,))), {})],
    "behind one that it said": [(Given((b"own", b"last"), (), each((1,), ())), {})],
    "before a round that it said": [
        (to_all(b"last"), {}),
        (Given((b"own", b"own"), (), each((1,), (1,))), {}),
    ],
    "before a round without it": [(to_all(b"last"), {}), (to_all(b"own"), {1: None})],
}


@pytest.mark.parametrize("is_gathered", [False, True])
@pytest.mark.parametrize("where", LAST)
def test_the_last_message_that_is_not_kept_is_known_by_its_crc(
    where: str, is_gathered: bool
) -> None:
    it = kept_for(10.0)
    it.open(A, 0, follows=True)
    it.open(B, 0, follows=False)  # it gets nothing of this
    it.add(None, {A: to_one(b"first")}, 0.0)
    for shared, own in LAST[where]:
        it.add(shared, own, 0.0)
    if is_gathered:
        it.missed(A, 1, crc32(b"first"))
    it.add(None, {A: to_one(b"new"), B: to_one(b"new")}, 100.0)
    received = it.count(A) - 1
    assert texts_of(it.missed(A, received, crc32(b"last"))) == [b"new"]
    with pytest.raises(Missing, match="count"):
        it.missed(A, received, crc32(b"own"))
    assert texts_of(it.missed(B, 0, None)) == [b"new"]


def plain(text: bytes, *left_out: int) -> Given:
    return Given((text,), (), each(left_out))


def test_what_was_received_last_is_known_though_everyone_has_got_something_since() -> None:
    it = kept_for(10.0)
    for connection in (A, B):
        it.open(connection, 0, follows=True)
    it.add(None, {A: to_one(b"first"), B: to_one(b"first")}, 0.0)
    it.add(plain(b"of A", A), {}, 0.0)
    it.add(plain(b"of B", B), {}, 1.0)
    it.add(plain(b"of nobody"), {}, 100.0)  # the others are no longer kept
    for connection, last in ((A, b"of B"), (B, b"of A")):
        assert texts_of(it.missed(connection, 2, crc32(last))) == [b"of nobody"]
        with pytest.raises(Missing, match="count"):
            it.missed(connection, 2, crc32(b"of nobody"))
        with pytest.raises(Missing, match="history"):
            it.missed(connection, 1, crc32(b"first"))


def test_few_rounds_are_looked_at_for_what_was_received_last() -> None:
    it = kept_for(10.0)
    for connection in (A, B):
        it.open(connection, 0, follows=True)
    for n in range(100):
        speaker = A if n % 3 else B
        it.add(plain(b"%d" % n, speaker), {}, 20.0 * n)
        assert len(it._aside) <= 2
        assert it.bytes < 3 * 600
    it.add(plain(b"of nobody"), {}, 3000.0)
    it.add(plain(b"of A", A), {}, 4000.0)
    assert [round.number for round in it._aside] == [100]
    assert texts_of(it.missed(A, it.count(A), crc32(b"of nobody"))) == []
    for connection in (A, B):
        it.close(connection)
    assert not it.bytes
    assert not it._aside


def test_just_as_many_bytes_as_may_be_are_kept() -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.add(to_all(b"1"), {}, 0.0)
    exact = History(it.bytes, 1000.0, JOINS)
    exact.open(A, 0, follows=True)
    exact.add(to_all(b"1"), {}, 0.0)
    assert exact.bytes == it.bytes


def test_a_stream_begins_in_the_middle_of_a_round() -> None:
    it = history()
    it.open(A, 2, follows=False)
    it.add(to_all(b"x"), {A: to_one(b"before", b"too", b"after")}, 0.0)
    it.add(to_all(b"not for A yet"), {}, 0.0)
    it.follow(A)
    it.add(to_all(b"x", b"y"), {A: to_one(b"joined", b"y")}, 0.0)
    it.add(to_all(b"z"), {B: to_one(b"other")}, 0.0)
    it.add(to_all(b"from A"), {A: None}, 0.0)
    assert it.count(A) == 4
    assert texts_of(it.missed(A, 0, None)) == [b"after", b"joined", b"y", b"z"]
    assert texts_of(it.missed(A, 1, crc32(b"after"))) == [b"joined", b"y", b"z"]
    assert texts_of(it.missed(A, 4, crc32(b"z"))) == []
    it.open(B, 0, follows=True)
    it.add(to_all(b"!"), {B: to_one(b"answer", b"!")}, 0.0)
    it.add(to_all(b"?"), {}, 0.0)
    assert texts_of(it.missed(B, 0, None)) == [b"answer", b"!", b"?"]


def test_a_stream_follows_right_behind_the_round_in_which_it_began_to() -> None:
    it = kept_for(10.0)
    it.open(A, 0, follows=False)
    it.add(None, {A: to_one(b"first")}, 0.0)
    it.follow(A)
    it.add(to_all(b"x"), {A: to_one(b"joined")}, 0.0)
    assert it.count(A) == 2
    it.add(plain(b"plain"), {}, 0.0)
    assert texts_of(it.missed(A, 1, crc32(b"first"))) == [b"joined", b"plain"]
    it.add(None, {B: to_one(b"to nobody who counts")}, 100.0)
    assert texts_of(it.missed(A, 3, crc32(b"plain"))) == []
    it.open(B, 0, follows=False)
    it.add(None, {B: to_one(b"first")}, 100.0)
    it.follow(B)
    it.add(None, {B: to_one(b"joined")}, 100.0)
    it.follow(B)  # it does so already
    it.follow(3)  # is not counted
    it.add(to_all(b"y"), {B: to_one(b"private", b"y")}, 100.0)
    assert it.count(B) == 4
    it.add(to_all(b"z"), {A: to_one(b"z", b"private")}, 100.0)
    assert texts_of(it.missed(B, 3, crc32(b"private"))) == [b"y", b"z"]
    assert texts_of(it.missed(A, 3, crc32(b"plain"))) == [b"y", b"z", b"private"]


def counts(parts: Sequence[Missed]) -> list[int]:
    return [part.count for part in parts]


def test_what_whole_groups_have_is_told_as_one_part_and_shared() -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.open(B, 0, follows=True)
    for number in range(6):
        it.add(to_all(b"%d" % number), {}, 0.0)
    both = it.missed(A, 0, None)
    assert counts(both) == [3, 3]
    assert all(one is other for one, other in zip(both, it.missed(B, 0, None), strict=True))
    (newer,) = it.missed(B, 3, crc32(b"2"))
    assert newer is both[1]
    assert counts(it.missed(A, 2, crc32(b"1"))) == [1, 3]
    assert counts(it.missed(A, 4, crc32(b"3"))) == [1, 1]


def test_nothing_is_gathered_that_nobody_has_missed() -> None:
    def old() -> int:
        return len(it._shelf.new) + len(it._shelf._old)

    with mock.patch.object(rounds_module, "AT_ONCE", 3):
        it = history()
        it.open(A, 0, follows=True)
        for number in range(12):
            if number == 9:
                it.open(B, 0, follows=True)
            it.add(to_all(b"%d" % number), {}, 0.0)
        it.open(3, 0, follows=True)
        assert it.missed(3, 0, None) == []
        assert old() == 12
        assert counts(it.missed(B, 0, None)) == [3]
        assert old() == 9
        assert counts(it.missed(A, 8, crc32(b"7"))) == [1, 3]
        assert old() == 6
        assert counts(it.missed(A, 6, crc32(b"5"))) == [3, 3]
        assert old() == 3  # for the CRC of the last message before


@pytest.mark.parametrize("received", [-1, 3, 10**30])
def test_a_number_that_was_never_sent_is_a_miscount(received: int) -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.add(to_all(b"1", b"2"), {}, 0.0)
    with pytest.raises(Missing, match="count"):
        it.missed(A, received, 0)


def test_so_is_another_last_message() -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.add(to_all(b"1", b"2"), {}, 0.0)
    for received, crc in ((1, crc32(b"2")), (2, crc32(b"1")), (1, None), (0, 0)):
        with pytest.raises(Missing, match="count"):
            it.missed(A, received, crc)


def test_what_is_no_longer_kept_is_said_to_be_gone_and_no_part_of_it_is_told() -> None:
    it = kept_for(10.0)
    it.open(A, 0, follows=True)
    for number in range(20):
        it.add(to_all(b"%d" % number), {}, float(number))
    assert texts_of(it.missed(A, 11, crc32(b"10"))) == [b"%d" % number for number in range(11, 20)]
    assert texts_of(it.missed(A, 10, crc32(b"9")))[0] == b"10"
    assert (
        texts_of(it.missed(A, 9, crc32(b"8")))[0] == b"9"
    )  # the last one before is known by its CRC
    with pytest.raises(Missing, match="count"):
        it.missed(A, 9, crc32(b"9"))
    for received in (0, 1, 8):
        crc = crc32(b"%d" % (received - 1)) if received else None
        with pytest.raises(Missing, match="history"):
            it.missed(A, received, crc)


def test_who_only_talks_has_missed_nothing_however_long_ago_the_last_message_was() -> None:
    it = kept_for(10.0)
    it.open(A, 1, follows=False)
    it.add(None, {A: to_one(b"answer")}, 0.0)
    it.follow(A)
    it.add(to_all(b"joined"), {A: to_one(b"joined", b"roster")}, 0.0)
    it.open(B, 0, follows=True)
    it.add(to_all(b"for A, too"), {B: to_one(b"answer", b"for A, too")}, 1.0)
    for number in range(100):
        it.add(to_all(b"from A"), {A: None}, float(number))
    assert texts_of(it.missed(A, 3, crc32(b"for A, too"))) == []
    assert texts_of(it.missed(B, 102, crc32(b"from A"))) == []
    it.add(None, {A: to_one(b"to A")}, 200.0)
    it.add(to_all(b"from A"), {A: None}, 300.0)
    assert texts_of(it.missed(A, 4, crc32(b"to A"))) == []
    with pytest.raises(Missing, match="history"):
        it.missed(A, 3, crc32(b"for A, too"))
    assert texts_of(it.missed(B, 102, crc32(b"from A"))) == [b"from A"]
    it.open(3, 1, follows=False)
    it.add(None, {3: to_one(b"answer")}, 400.0)
    it.add(to_all(b"nothing for this one"), {B: None, A: None}, 500.0)
    assert texts_of(it.missed(3, 0, None)) == []


def test_what_is_kept_is_bounded_in_bytes() -> None:
    it = History(10_000, 1000.0, JOINS)
    it.open(A, 0, follows=True)
    it.open(B, 0, follows=False)
    for _ in range(100):
        it.add(to_all(b"x" * 500), {B: to_one(b"y" * 300), A: to_one(b"z")}, 0.0)
        assert it.bytes <= 10_000
    it.add(to_all(b"x" * 20_000), {}, 0.0)
    assert it.bytes == 0
    it.drop_oldest()
    assert it.count(A) == 101
    assert it.count(B) == 100


def test_so_are_plain_rounds_of_which_one_goes_on_with_the_other() -> None:
    it = History(100_000, 1000.0, JOINS)
    it.open(A, 0, follows=True)
    for number in range(3000):
        it.add(plain(b"%d" % number, B), {}, 0.0)
        assert it.bytes <= 100_000
    assert texts_of(it.missed(A, 2999, crc32(b"2998"))) == [b"2999"]
    assert it.count(A) == 3000


streams = st.sampled_from([A, B])
texts = st.integers(0, 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "follow", "private", "without", "nothing", "look"]),
            streams,
            texts,
            st.sampled_from([0.0, 0.0, 3.0]),
        ),
        max_size=40,
    ),
    st.data(),
)
@settings(deadline=None)
def test_what_was_missed_is_what_was_sent(
    story: list[tuple[str, int, int, float]], data: st.DataObject
) -> None:
    it, at, numbers = kept_for(20.0), 0.0, iter(range(10**6))
    sent: dict[int, list[tuple[float, Text]]] = {}
    following: set[int] = set()

    def look(c: int) -> None:
        """What is found once is gathered, and what comes after that is found with it."""
        messages = sent[c]
        assert it.count(c) == len(messages)
        received = data.draw(st.integers(0, len(messages)))
        crc = crc32(messages[received - 1][1]) if received else None
        try:
            missed = texts_of(it.missed(c, received, crc))
        except Missing as missing:
            assert missing.reason == "history"
            assert any(when < at - 20.0 for when, _ in messages[received:])
        else:
            assert missed == [text for _, text in messages[received:]]

    for what, who, size, seconds in story:
        at += seconds
        shared = [b"all %d" % next(numbers) for _ in range(size)]
        own: dict[int, Given | None] = {}
        told: dict[int, list[Text]] = {c: shared if c in following else [] for c in (A, B)}
        if what == "look" and who in sent:
            look(who)
        elif what == "open" and who not in sent:
            skipped = data.draw(st.integers(0, 2))
            it.open(who, skipped, follows=who in following)
            before, answer = [b"before"] * skipped, [b"answer %d" % next(numbers)]
            rest = shared if who in following else []
            own[who] = to_one(*before, *answer, *rest)
            sent[who] = []
            told[who] = answer + rest
        elif what == "follow" and who not in following:
            it.follow(who)
            following.add(who)
            told[who] = [b"joined %d" % next(numbers), *shared[1:]]
            own[who] = to_one(*told[who])
        elif what == "private":
            told[who] = [*told[who], b"private %d" % next(numbers)]
            own[who] = to_one(*told[who])
        elif what == "without":
            told[who] = told[who][1:]
            own[who] = to_one(*told[who]) if told[who] else None
        if it:
            it.add(to_all(*shared) if shared else None, own, at)
        for c, got in told.items():
            if c in sent:
                sent[c] += [(at, text) for text in got]
    for c in sent:
        look(c)


def test_who_only_talks_to_all_has_missed_nothing_either_when_its_rounds_were_plain() -> None:
    it = kept_for(10.0)
    it.open(A, 0, follows=True)
    it.add(to_all(b"last one for A"), {}, 0.0)
    for number in range(50):
        it.add(Given((b"%d" % number,), (), each((A,))), {}, 1.0 + number)
    assert texts_of(it.missed(A, 1, crc32(b"last one for A"))) == []
    with pytest.raises(Missing, match="count"):
        it.missed(A, 1, crc32(b"another"))


def test_plain_rounds_behind_one_another_are_one_as_long_as_they_are_few() -> None:
    it = History(64 * 2000, 1000.0, JOINS)
    it.open(A, 0, follows=True)
    it.add(to_all(b"not plain"), {}, 0.0)
    texts = [b"%d" % number * 300 for number in range(10)]
    for number, text in enumerate(texts):
        it.add(plain(text, B), {}, 0.01 * number)
    it.add(to_all(b"not plain"), {}, 0.1)
    it.add(plain(b"another", B), {}, 0.1)
    it.add(plain(b"much later", B), {}, 10.0)
    it.add(plain(b"one more", B), {}, 10.1)
    numbers = [(round.first, round.number) for round in it._shelf.new]
    assert numbers == [(0, 0), (1, 4), (5, 8), (9, 10), (11, 11), (12, 12), (13, 14)]
    assert texts_of(it.missed(A, 1, crc32(b"not plain")))[:10] == texts
    it.add(plain(b"behind what was looked at", B), {}, 10.1)
    assert texts_of(it.missed(A, 14, crc32(b"much later"))) == [
        b"one more",
        b"behind what was looked at",
    ]


def test_what_is_dropped_while_it_grows_is_gone() -> None:
    it = history()
    it.open(A, 0, follows=True)
    it.add(to_all(b"not plain"), {}, 0.0)
    it.add(plain(b"x", B), {}, 0.0)
    while it.drop_oldest():
        pass
    it.add(plain(b"y", B), {}, 0.0)
    assert it.count(A) == 3
    assert texts_of(it.missed(A, 2, crc32(b"x"))) == [b"y"]
    with pytest.raises(Missing, match="history"):
        it.missed(A, 1, crc32(b"not plain"))


def test_who_does_not_follow_got_nothing_of_what_was_laid_aside() -> None:
    it = kept_for(10.0)
    it.open(A, 0, follows=True)
    it.open(B, 0, follows=False)
    it.add(None, {B: to_one(b"first")}, 0.0)
    it.add(plain(b"to those who follow"), {}, 1.0)
    it.add(plain(b"the same"), {}, 100.0)
    assert texts_of(it.missed(B, 1, crc32(b"first"))) == []
    with pytest.raises(Missing, match="count"):
        it.missed(B, 1, crc32(b"to those who follow"))


PLAIN = st.lists(
    st.tuples(st.sampled_from(((), (1,), (2,), (2, 3), (9,))), st.booleans()), min_size=1
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PLAIN, max_size=30),
    st.integers(0, 40),
    st.booleans(),
    st.sets(st.integers(0, 30)),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_plain_rounds_tell_the_same_as_if_they_were_not(
    rounds: list[list[tuple[tuple[int, ...], bool]]],
    kept: int,
    has_private: bool,
    gathered: set[int],
    seconds: float,
) -> None:
    plain, general = kept_for(float(kept)), kept_for(float(kept))
    got: dict[int, list[Text]] = {connection: [] for connection in (1, 2, 3)}
    for it in (plain, general):
        it.add(Given((b"before",), (), each((1,))), {}, 0.0)  # nobody counts yet
        for connection in got:
            it.open(connection, 0, follows=True)
    for number, messages in enumerate(rounds):
        at = seconds * number
        texts = [b"%d %d" % (number, n) for n in range(len(messages))]
        left_out = [out for out, _ in messages]
        own: dict[int, Given | None] = {}
        for connection in got:
            mine = [t for t, out in zip(texts, left_out, strict=True) if connection not in out]
            got[connection] += mine
            if len(mine) < len(texts):
                own[connection] = Given(mine, ()) if mine else None
        private = has_private and number % 5 == 4
        if private:
            mine = [t for t, out in zip(texts, left_out, strict=True) if 1 not in out]
            own[1] = Given([*mine, b"private"], (b"private",))
            got[1] += [b"private"]
        plain.add(Given(texts, (), None if private else each(*left_out)), own, at)
        general.add(Given(texts, ()), own, at)
        if number in gathered:
            missed(plain, 1, len(got[1]), 0)
    for connection, all_texts in got.items():
        assert plain.count(connection) == general.count(connection) == len(all_texts)
        for received in range(len(all_texts) + 1):
            crc = crc32(all_texts[received - 1]) if received else None
            expected = missed(general, connection, received, crc)
            found = missed(plain, connection, received, crc)
            if isinstance(expected, str):
                # Rounds that became one are kept until the last of them is too old.
                became_one = gathered or seconds < 1.0
                assert isinstance(found, str) or (became_one and found == all_texts[received:])
                continue
            assert expected == all_texts[received:]
            # Only right behind what is no longer kept, and only if much has come since.
            assert found == expected or (found == "history" and expected)


def missed(it: History, connection: int, received: int, crc: int | None) -> list[Text] | str:
    try:
        return texts_of(it.missed(connection, received, crc))
    except Missing as missing:
        return missing.reason
