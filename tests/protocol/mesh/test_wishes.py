"""Only what is wanted (rule 22): who gets what, what is refused, and what it costs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.wishes import Wishes, topic_of
from protocol.mesh.work import Work
from protocol.wish import EVERYTHING, Wish
from tests.worlds.mesh import World, presence, text, world_of


def heard(world: World, *connections: int) -> list[list[int]]:
    """The numbers `n` of the messages that these connections got since the last call."""
    return [
        [message["n"] for message in world.got(connection) if "n" in message]
        for connection in connections
    ]


def wishing(wish: Any, *agents: Any, limits: Limits | None = None) -> World:
    """A world of `a` (connection 1), who wants everything, and `b` (2), who wants this."""
    world = world_of("a", limits=limits)
    world.join("b", *agents, subscribe=wish)
    world.hush()
    return world


NAMES_ANOTHER = [
    {"to": "a"},
    {"to": "c"},
    {"targetInstanceId": "c"},
    {"to": "b", "targetInstanceId": "c"},
    {"to": "agent of c"},
    {"to": "own agent"},
]
NAMES_B = [
    {"to": "b"},
    {"targetInstanceId": "b"},
    {"to": "agent of b"},
    {"to": "of both"},
    {"to": "c", "targetInstanceId": "b"},
]
NAMES_NOBODY = [
    {},
    {"to": None},
    {"to": "nobody"},
    {"targetInstanceId": "nobody"},
    {"to": "b", "targetInstanceId": "nobody"},
]


@pytest.mark.parametrize("fields", NAMES_ANOTHER + NAMES_B + NAMES_NOBODY, ids=str)
def test_without_others_only_what_is_for_somebody_else_is_left_out(fields: dict[str, Any]) -> None:
    world = World()
    world.join("a", "own agent")
    world.join("b", "agent of b", "of both", subscribe={"others": False})
    world.join("c", "agent of c", "of both")
    world.join("b", subscribe={"others": False})
    world.join("a")
    world.hush()
    for n, type in enumerate(["broadcast", "stream", "mine"]):
        world.say(1, text(type, sender="a", n=n, **fields))
    all_of_it = [0, 1, 2]
    b = [] if fields in NAMES_ANOTHER else all_of_it
    assert heard(world, 1, 2, 3, 4, 5) == [[], b, all_of_it, b, []]


def test_what_names_several_peers_comes_once_to_each_connection_that_wants_it() -> None:
    for_itself = {"others": False}
    world = world_of("a")
    world.join("b", "of b and c", subscribe=for_itself)
    world.join("b", "of b and c")
    world.join("c", "of b and c", "of c and d", subscribe=for_itself)
    world.join("d", "of c and d", subscribe=for_itself)
    world.hush()
    for n, name in enumerate(["b", "of b and c", "c", "of c and d"]):
        world.say(1, text("broadcast", sender="a", to=name, n=n))
    assert heard(world, 2, 3, 4, 5) == [[0, 1], [0, 1, 2, 3], [1, 2, 3], [3]]


@pytest.mark.parametrize(
    ("topics", "topic", "arrives"),
    [
        (["orders"], "orders", True),
        (["orders"], "orders/1", False),
        (["orders"], "order", False),
        (["x", "robots/*"], "robots/7", True),
        (["x", "robots/*"], "robots/", True),
        (["x", "robots/*"], "robots", False),
        (["*"], "anything", True),
        (["*"], "", True),
        (["a*", "ab*"], "abc", True),
        ([], "orders", False),
        ([], None, True),
        (["orders"], None, True),
        (["orders"], 7, True),
        (["orders"], ["orders"], True),
        (["\u00e9"], "\u00e9", True),
        (["orders"], "x" * 5000, False),
        (["x*"], "x" * 5000, True),
        (["x" * 255 + "*"], "x" * 5000, True),
        (["x" * 255 + "*"], "x" * 254, False),
    ],
)
def test_a_topic_must_match_a_pattern(topics: list[str], topic: Any, arrives: bool) -> None:
    world = wishing({"topics": topics})
    for n in range(2):  # the second time it is remembered
        world.say(1, text("broadcast", sender="a", n=n, topic=topic))
    assert heard(world, 2) == [[0, 1] if arrives else []]


def test_a_topic_is_compared_as_it_reads_not_as_it_is_spelled() -> None:
    world = wishing({"topics": ["orders"]})
    world.say(1, b'{"type":"broadcast","from":"a","n":0,"t\\u006fpic":"\\u006frders"}')
    world.say(1, b'{"type":"broadcast","from":"a","n":1,"topic":"orders","topic":"others"}')
    world.say(1, b'{"type":"broadcast","from":"a","n":2,"topic":"\\ud83d"}')
    assert heard(world, 2) == [[0]]


def test_only_the_types_that_are_wanted_arrive_of_what_goes_to_all_others() -> None:
    world = wishing({"types": ["broadcast", "price"]})
    for n, type in enumerate(["broadcast", "stream", "price", "turn_end", "direct", "cancel"]):
        world.say(1, text(type, sender="a", n=n, to="b"))
    assert heard(world, 2) == [[0, 2, 4, 5]]


def test_what_one_part_of_a_wish_leaves_out_is_left_out() -> None:
    world = wishing({"others": False, "topics": ["t"], "types": ["stream"]})
    world.join("c")
    world.hush()
    wanted = {"type": "stream", "to": "b", "topic": "t"}
    messages = [wanted, {**wanted, "type": "ack"}, {**wanted, "to": "c"}, {**wanted, "topic": "x"}]
    for n, fields in enumerate(messages):
        world.say(1, text(sender="a", n=n, **fields))
    assert heard(world, 2) == [[0]]


def test_directs_presences_and_what_the_relay_says_always_arrive() -> None:
    world = wishing({"others": False, "topics": [], "types": []})
    world.say(1, text("direct", sender="a", to="b", topic="x", n=0))
    third = world.join("c")
    world.end(third)
    world.say(2, text("direct", sender="b", to="nobody"))
    assert [message["type"] for message in world.got(2)] == [
        "direct",
        "presence",
        "presence",
        "error",
    ]


def test_each_presence_says_it_anew_for_its_own_connection() -> None:
    world = wishing({"types": []})
    world.join("b", subscribe={"types": ["x"]})
    world.hush()

    def all_hear(n: int) -> list[list[int]]:
        world.say(1, text("x", sender="a", n=n), text("y", sender="a", n=n + 1))
        return heard(world, 2, 3)

    assert all_hear(0) == [[], [0]]
    world.say(2, presence("b", subscribe={"types": ["y"]}))
    assert all_hear(2) == [[3], [2]]
    world.say(2, presence("b", subscribe={"types": ["x"]}))
    world.say(3, presence("b", subscribe=None))
    assert all_hear(4) == [[4], [4, 5]]
    world.say(2, presence("b"))
    assert all_hear(6) == [[6, 7], [6, 7]]
    assert not world.mesh.mesh.audiences.differ
    assert world.mesh.mesh.audiences.wishes.bytes == 0


def test_a_presence_that_is_held_changes_the_wish_when_its_time_has_come() -> None:
    world = wishing({"types": []}, limits=Limits(announcements_burst=1))
    world.say(2, presence("b", subscribe={"types": ["x"]}), presence("b"))
    world.say(1, text("x", sender="a", n=0), text("y", sender="a", n=1))
    assert heard(world, 2) == [[0]]
    world.wait(1.5)
    world.say(1, text("y", sender="a", n=2))
    assert heard(world, 2) == [[2]]


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ("everything", "bad_field"),
        ([], "bad_field"),
        (False, "bad_field"),
        ({"others": 0}, "bad_field"),
        ({"others": "false"}, "bad_field"),
        ({"topics": "orders"}, "bad_field"),
        ({"topics": {"orders": True}}, "bad_field"),
        ({"topics": [7]}, "bad_field"),
        ({"topics": ["x", ""]}, "bad_field"),
        ({"topics": ["a*b"]}, "bad_field"),
        ({"topics": ["**"]}, "bad_field"),
        ({"topics": ["\ud83d"]}, "bad_field"),
        ({"topics": ["x" * 257]}, "too_long"),
        ({"topics": [f"{n}" for n in range(65)]}, "bad_field"),
        ({"types": "broadcast"}, "bad_field"),
        ({"types": [None]}, "bad_field"),
        ({"types": ["x" * 257]}, "too_long"),
        ({"types": ["x"] * 65}, "bad_field"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_with_the_whole_presence(wish: Any, code: str) -> None:
    world = wishing({"types": ["x"]})
    for connection, peer in ((2, "b"), (world.open(), "c")):
        world.say(connection, presence(peer, subscribe=wish))
        assert world.errors(connection) == [code]
    assert "c" not in world.peers()
    world.say(1, text("x", sender="a", n=0), text("y", sender="a", n=1))
    assert heard(world, 2) == [[0]]  # as before


@pytest.mark.parametrize(
    "wish", [None, {}, {"others": None}, {"others": True}, {"new": 1}], ids=str
)
def test_whoever_wants_everything_costs_nothing(wish: Any) -> None:
    world = wishing(wish)
    assert not world.mesh.mesh.audiences.differ
    world.say(1, text("x", sender="a", n=0, to="c", topic="t"))
    assert heard(world, 2) == [[0]]


def test_a_mesh_has_only_so_many_different_wishes() -> None:
    world = World(Limits(wishes_max=2))
    world.join("a")
    for peer, types in (("b", ["x"]), ("c", ["y"]), ("d", ["x"])):
        world.join(peer, subscribe={"types": types})
    late = world.open()
    world.say(late, presence("e", subscribe={"types": ["z"]}))
    assert world.errors(late) == ["too_many_wishes"]
    world.say(4, presence("d", subscribe={"types": ["z"]}))
    assert [message["data"]["code"] for message in world.got(4)[-1:]] == ["too_many_wishes"]
    world.say(late, presence("e"))
    world.end(3)
    world.say(late, presence("e", subscribe={"types": ["z"]}))
    world.hush()
    world.say(1, text("z", sender="a", n=0))
    assert heard(world, 2, 4, late) == [[], [], [0]]
    before = world.mesh.kept_bytes
    world.end(late)
    assert world.mesh.kept_bytes < before - 4000


def test_whoever_wants_something_else_makes_room_for_it() -> None:
    world = World(Limits(wishes_max=2))
    world.join("a", subscribe={"types": ["x"]})
    world.join("b", subscribe={"types": ["y"]})
    world.hush()
    world.say(2, presence("b", subscribe={"types": ["z"]}))
    assert [message["type"] for message in world.got(2)] == ["presence"]
    claim = {"claim": "x" * 16, "takeover": True}
    world.end(2)
    world.join("c", claim=claim, subscribe={"types": ["z"]})
    last = world.join("c", claim=claim, subscribe={"types": ["a"]})
    world.hush()
    world.say(1, text("a", sender="a", n=0), text("z", sender="a", n=1))
    assert heard(world, last) == [[0]]
    assert len(world.mesh.mesh.audiences.wishes._held) == 3


def test_whoever_may_not_watch_needs_no_room_for_a_wish() -> None:
    world = World(Limits(wishes_max=1))
    world.join("a", subscribe={"types": ["x"]})
    world.join("b", grant=Grant(may_watch=False), subscribe={"types": ["y"]})
    assert "b" in world.peers()


def test_a_heartbeat_says_nothing_about_what_is_wanted() -> None:
    world = wishing({"types": ["x"]})
    for said in ("no wish", {"types": ["y"]}):
        world.say(2, text("heartbeat", sender="b", data={"agents": [f"{said}"], "subscribe": said}))
    assert world.errors(2) == []
    assert world.got(1)[-1]["data"]["agents"] == ["{'types': ['y']}"]
    world.say(1, text("x", sender="a", n=0), text("y", sender="a", n=1))
    assert heard(world, 2) == [[0]]


def test_whoever_is_behind_is_not_told_that_it_is_spared_what_it_does_not_want() -> None:
    world = world_of("a", "c")
    reader = world.join("b", is_paced=True, subscribe={"others": False, "types": ["ack", "stream"]})
    world.fall_behind(reader)
    world.hush()
    for fields in ({"to": "c", "type": "ack"}, {"type": "turn_end"}):
        world.say(1, text(sender="a", turnId="t", **fields))
    assert world.errors(reader) == []
    assert world.mesh.totals.spared == 0
    world.say(1, text("ack", sender="a", turnId="t"))
    assert world.errors(reader) == ["lagging"]
    assert world.mesh.totals.spared == 1


def test_to_look_at_those_who_are_named_counts_as_work() -> None:
    world = world_of("a")
    for n in range(32):
        world.join(f"p{n}", "agent of all")
    world.join("b", subscribe={"others": False})
    work = world.mesh.mesh._work
    work.take()
    world.mesh.mesh.audiences._work = counted = Work()
    world.say(1, text("x", sender="a", to="agent of all"))
    assert counted.extra == 32 // 8


def test_the_relay_says_that_it_knows_this() -> None:
    world = World(Limits(wish_names_max=5))
    connection = world.open()
    world.say(connection, text("capabilities"))
    (answer,) = world.got(connection)
    assert answer["data"]["subscribe"] == {"topics": 5, "types": 5}


def test_what_was_said_before_comes_as_far_as_it_is_wanted() -> None:
    world = world_of("a", "b", "c")
    for n, fields in enumerate(
        [{"topic": "t"}, {"topic": "u"}, {}, {"to": "b"}, {"to": "c"}, {"topic": "t", "to": "a"}]
    ):
        world.say(1, text("x", sender="a", n=n, **fields))
    world.say(1, text("y", sender="a", n=6))
    wish = {"others": False, "topics": ["t"], "types": ["x"]}
    for count, expected in ((50, [0, 2, 4]), (2, [2, 4]), (0, [])):
        connection = world.join("c", claim={"history": {"messages": count}}, subscribe=wish)
        got = world.got(connection)
        assert [message["n"] for message in got if "n" in message] == expected
        (told,) = [m["data"]["history"] for m in got if m["type"] == "capabilities_response"][1:]
        assert told == {"messages": len(expected)}


def test_whoever_may_not_watch_wants_nothing_that_counts() -> None:
    world = world_of("a")
    blind = world.join("b", grant=Grant(may_watch=False), subscribe={"types": ["x"]})
    world.hush()
    assert not world.mesh.mesh.audiences.differ
    world.say(1, text("x", sender="a", n=0))
    assert heard(world, blind) == [[]]


def test_whoever_was_replaced_wants_nothing_any_more() -> None:
    world = World()
    claim = {"claim": "x" * 16, "takeover": True}
    world.join("b", claim=claim, subscribe={"types": []})
    world.join("b", claim=claim)
    assert not world.mesh.mesh.audiences.differ


NAMES = st.sampled_from(["a", "ab", "abc", "b", "", "a*", "ab*", "*", "b/c"])


@given(
    st.lists(
        st.builds(
            Wish,
            others=st.booleans(),
            topics=st.none() | st.frozensets(NAMES.filter(bool), max_size=3),
            types=st.none() | st.frozensets(st.sampled_from("xyz"), max_size=2),
        ),
        max_size=6,
    ),
    st.lists(st.tuples(st.sampled_from("xyz"), st.none() | NAMES, st.booleans()), max_size=6),
)
def test_what_is_selected_is_what_each_wish_says(
    wanted: list[Wish], messages: list[tuple[str, str | None, bool]]
) -> None:
    wishes = Wishes(Limits(), Work())
    wishes.want(-1, EVERYTHING)
    numbers = {0: EVERYTHING}
    for connection, wish in enumerate(wanted):
        number = wishes.want(connection, wish)
        if number is not None:
            assert numbers.setdefault(number, wish) == wish
        if connection % 3 == 2:
            wishes.forget(connection - 1)
    here = {wishes.of(connection) for connection in range(len(wanted))} | {EVERYTHING}
    for type, topic, is_for_some in messages:
        for _ in range(2):
            selected = wishes.selected(type, topic, is_for_some=is_for_some)
            assert len(selected) == len(set(selected))
            assert {numbers[number] for number in selected} == {
                wish
                for wish in here
                if wish.has_type(type)
                and wish.has_topic(topic)
                and (wish.others or not is_for_some)
            }
    for connection in range(len(wanted)):
        wishes.forget(connection)
    assert not wishes
    assert wishes.bytes == wishes.topics == 0


def test_what_is_looked_up_and_copied_counts_as_work() -> None:
    work = Work()
    wishes = Wishes(Limits(), work)
    for n in range(640):
        wishes.want(n, Wish(topics=frozenset({f"{n}"})))
    wishes.selected("x", "7", is_for_some=False)
    assert 80 <= work.take() < 100
    wishes.selected("x", "7", is_for_some=False)
    assert work.take() == 0
    wishes.selected("x", None, is_for_some=False)
    work.take()
    wishes.selected("x", None, is_for_some=False)
    assert work.take() == 640 // 32


def test_a_wish_that_nobody_has_is_not_selected() -> None:
    wishes = Wishes(Limits(), Work())
    some = Wish(others=False)
    wishes.want(1, some)
    wishes.want(2, EVERYTHING)
    for connection, wish, expected in (
        (0, some, (0, 1)),
        (2, some, (1,)),  # nobody wants everything any more
        (1, EVERYTHING, (0, 1)),
    ):
        wishes.want(connection, wish)
        assert wishes.selected("x", None, is_for_some=False) == expected
    wishes.forget(1)
    assert wishes.selected("x", None, is_for_some=False) == (1,)
    wishes.forget(0)
    wishes.forget(2)
    assert wishes.selected("x", None, is_for_some=False) == ()


def test_what_is_remembered_is_bounded() -> None:
    wishes = Wishes(Limits(), Work())
    wishes.want(1, Wish(topics=frozenset({"x*"})))
    wishes.want(2, EVERYTHING)
    most = 0
    for n in range(2000):
        assert wishes.selected("t", f"x{n}", is_for_some=False) == (0, 1)
        assert wishes.selected("t", f"{n:05000}", is_for_some=False) == (0,)
        most = max(most, len(wishes._remembered))
    assert most == 256
    wishes.selected("t", "x" * 257, is_for_some=False)
    wishes.selected("t", "x" * 256, is_for_some=False)  # as long as a pattern may be
    assert max(len(topic or "") for _, topic, _ in wishes._remembered) == 256


def test_of_those_who_are_left_out_only_those_count_who_would_have_been_reached() -> None:
    wishes = Wishes(Limits(), Work())
    for connection, wish in ((1, EVERYTHING), (2, EVERYTHING), (3, Wish(others=False))):
        wishes.want(connection, wish)
    watches_nothing = 4
    assert wishes.reached((0,), ()) == 2
    assert wishes.reached((0,), (2, 3, watches_nothing)) == 1
    assert wishes.reached((0, 1), (2, 3, watches_nothing)) == 1
    assert wishes.reached((1,), (2, watches_nothing)) == 1
    assert wishes.reached((), (1, 2, 3)) == 0


@pytest.mark.parametrize("topic", ["t", 7, None, True, {}, "\u00e9", "\\"])
def test_only_a_string_is_a_topic(topic: Any) -> None:
    expected = topic if isinstance(topic, str) else None
    assert topic_of(text("x", topic=topic)) == expected
