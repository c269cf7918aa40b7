"""What pages send again does not live for ever, and nothing else is dropped (rule 18)."""

from typing import Any

import pytest

from protocol.codec import content
from protocol.envelope import ErrorCode
from protocol.limits import Limits
from protocol.mesh.echoes import ENTRY_BYTES, Echoes, key_of
from protocol.mesh.effects import Refused
from tests.worlds.mesh import Message, World, presence, text
from tests.worlds.pages import Browser, Tab, live

OFF = Limits(echo_within_s=0.0)


def heard(world: World, connection: int, *types: str) -> list[Message]:
    """What the connection got of these types since the last call."""
    return [message for message in world.got(connection) if message["type"] in types]


# The storms ---------------------------------------------------------------------------------------


def three_pages(world: World) -> tuple[list[Browser], int]:
    """Three pages in three browsers, and a program that only listens."""
    browsers = [Browser(world, f"agi-{n}") for n in range(3)]
    bystander = world.join("bystander")
    world.hush()
    return browsers, bystander


@pytest.mark.parametrize("in_arrays", [False, True], ids=["one by one", "in arrays"])
def test_of_one_ring_update_among_three_pages_a_bystander_gets_one(in_arrays: bool) -> None:
    world = World()
    browsers, bystander = three_pages(world)
    browsers[0].tabs[0].add_to_ring("coder", "größer 😀")
    live(world, *browsers, seconds=1, in_arrays=in_arrays)
    assert [m["from"] for m in heard(world, bystander, "ring-update")] == ["agi-0"]
    live(world, *browsers, seconds=1, in_arrays=in_arrays)
    assert [world.got(tab.connection) for b in browsers for tab in b.tabs] == [[], [], []]
    assert world.mesh.totals.echoed == 2


def test_with_the_setting_off_the_same_three_pages_talk_until_they_close() -> None:
    world = World(OFF)
    browsers, bystander = three_pages(world)
    browsers[0].tabs[0].add_to_ring("coder", "hello")
    live(world, *browsers, seconds=1)
    assert len(heard(world, bystander, "ring-update")) > 1000
    assert world.mesh.totals.echoed == 0


def two_browsers(world: World, tabs: int) -> tuple[Browser, Browser, int]:
    one, other = Browser(world, "agi-1", tabs), Browser(world, "agi-2", tabs)
    bystander = world.join("bystander")
    world.hush()
    return one, other, bystander


@pytest.mark.parametrize("in_arrays", [False, True], ids=["one by one", "in arrays"])
@pytest.mark.parametrize("tabs", [1, 2, 3])
def test_an_invoke_of_all_with_several_tabs_ends_within_a_second(
    tabs: int, in_arrays: bool
) -> None:
    world = World()
    one, other, bystander = two_browsers(world, tabs)
    one.tabs[0].invoke("all", "think")
    live(world, one, other, seconds=1, in_arrays=in_arrays)
    runs = sum(tab.runs for browser in (one, other) for tab in browser.tabs)
    # The tabs beside the first one, and in the other browser each tells the others.
    assert runs == (tabs - 1) + tabs * (tabs - 1)
    assert len(heard(world, bystander, "invoke", "invoke-response")) == 1 + runs
    live(world, one, other, seconds=1, in_arrays=in_arrays)
    assert runs == sum(tab.runs for browser in (one, other) for tab in browser.tabs)
    assert world.got(bystander) == []


def test_with_the_setting_off_the_same_invoke_runs_agents_without_end() -> None:
    world = World(OFF)
    one, other, _ = two_browsers(world, 2)
    one.tabs[0].invoke("all", "think")
    live(world, one, other, seconds=1)
    assert sum(tab.runs for browser in (one, other) for tab in browser.tabs) > 500


@pytest.mark.parametrize("type", ["ring-update", "invoke", "broadcast"])
def test_what_a_program_spells_otherwise_than_pages_is_passed_on_once_more(type: str) -> None:
    world = World()
    browsers, bystander = three_pages(world)
    program = world.join("program")
    world.hush()
    said = [text(type, sender="program", data={"targetPageId": "x", "n": n}) for n in range(50)]
    world.say(program, b"[" + b",".join(said) + b"]")
    live(world, *browsers, seconds=1)
    got = heard(world, bystander, type)
    assert [m["data"]["n"] for m in got if m["from"] == "program"] == list(range(50))
    assert [m["data"]["n"] for m in got if m["from"] != "program"] == list(range(50))


def test_a_command_with_a_turn_is_not_sent_round_without_it() -> None:
    world = World()
    browsers, bystander = three_pages(world)
    said = b'{"type":"broadcast","from":"x","instanceId":"p","turnId":"t","data":{"command":"go"}}'
    world.say(world.join("p"), said)
    live(world, *browsers, seconds=1)
    assert [m.get("turnId") for m in heard(world, bystander, "broadcast")] == ["t"]


def test_pages_that_come_and_go_do_not_bring_a_storm_back() -> None:
    world = World()
    browsers, bystander = three_pages(world)
    browsers[0].tabs[0].add_to_ring("coder", "hello")
    live(world, *browsers, seconds=0.1)
    world.end(browsers[0].tabs[0].connection)
    browsers[0].tabs[0] = Tab(browsers[0], world)
    browsers.append(Browser(world, "agi-new"))
    live(world, *browsers, seconds=1)
    assert len(heard(world, bystander, "ring-update")) == 1


# What is an echo, message by message --------------------------------------------------------------


class Meeting:
    """A page, a second one, two programs, and one that only listens."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.world = World(limits)
        self.page = self.world.join("page", pageId="single")
        self.other_page = self.world.join("other page", pageId="multi")
        self.program, self.second = self.world.join("program"), self.world.join("second")
        self.watcher = self.world.join("watcher")
        self.world.hush()

    def passes(self, connection: int, type: str = "broadcast", **fields: Any) -> bool:
        """The connection says this; does the watcher get it?"""
        fields = {"data": {"n": 1}, **fields}
        self.world.say(connection, text(type, **fields))
        return bool(heard(self.world, self.watcher, type))


@pytest.mark.parametrize("type", ["ring-update", "invoke", "broadcast"])
def test_what_a_page_says_after_another_peer_is_dropped(type: str) -> None:
    meeting = Meeting()
    for first in (meeting.program, meeting.other_page):
        data = {"said": f"by {first}"}
        assert meeting.passes(first, type, data=data)
        assert not meeting.passes(meeting.page, type, data=data)
        assert not meeting.passes(meeting.page, type, data=data)


def test_what_programs_say_alike_is_passed_on() -> None:
    meeting = Meeting()
    for _ in range(3):
        assert meeting.passes(meeting.program)
        assert meeting.passes(meeting.second)


def test_what_one_peer_repeats_is_passed_on_also_in_another_tab_or_after_a_reconnect() -> None:
    meeting = Meeting()
    world = meeting.world
    for _ in range(3):
        assert meeting.passes(meeting.page)
    tab = world.join("page", pageId="single")
    assert meeting.passes(tab)
    assert meeting.passes(meeting.page)
    world.end(meeting.page)
    world.end(tab)
    assert meeting.passes(world.join("page", pageId="single"))


def test_a_turn_of_its_own_passes_and_a_null_is_none() -> None:
    meeting = Meeting()
    assert meeting.passes(meeting.program)
    assert meeting.passes(meeting.page, turnId="t")
    assert meeting.passes(meeting.page, turnId="")
    assert meeting.passes(meeting.page, turnId=0)
    assert not meeting.passes(meeting.page, turnId=None)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": {"n": 1.0}},
        {"data": {"n": 1, "m": 2}},
        {"data": None},
        {"data": '{"n": 1}'},
        {"type": "invoke"},
        {"type": "ring-update"},
    ],
    ids=str,
)
def test_other_data_or_another_type_passes(changed: dict[str, Any]) -> None:
    meeting = Meeting()
    assert meeting.passes(meeting.program)
    assert meeting.passes(meeting.page, **changed)


def test_the_data_counts_to_the_letter() -> None:
    meeting = Meeting()
    world = meeting.world
    world.say(meeting.program, b'{"type":"invoke","data":{"n":1}}')
    for data in (b'{"n": 1}', b'{"n":1.0}', b'{"n":1,"n":1}', b'{"\\u006e":1}'):
        world.hush()
        world.say(meeting.page, b'{"type":"invoke","data":' + data + b"}")
        assert len(world.got(meeting.watcher)) == 1
    world.hush()
    again = (
        b' {"x":[{"data":0}], "d\\u0061ta" : 3, "data" :  {"n":1} , "from":"page","type":"invoke"}'
    )
    world.say(meeting.page, again)
    assert world.got(meeting.watcher) == []


def test_without_data_a_message_is_an_echo_of_one_without() -> None:
    meeting = Meeting()
    world = meeting.world
    for connection, receives in ((meeting.program, 1), (meeting.page, 0)):
        world.say(connection, text("ring-update"))
        assert len(world.got(meeting.watcher)) == receives


@pytest.mark.parametrize("type", ["chat", "ack", "stream", "turn_end", "error", "ring-clear"])
def test_types_that_pages_do_not_send_again_pass(type: str) -> None:
    meeting = Meeting()
    assert meeting.passes(meeting.program, type)
    assert meeting.passes(meeting.page, type)


def test_a_direct_is_no_echo() -> None:
    meeting = Meeting()
    world = meeting.world
    for connection in (meeting.program, meeting.page):
        world.say(connection, text("direct", to="watcher", data=1))
        assert len(world.got(meeting.watcher)) == 1


@pytest.mark.parametrize(("after_s", "passes"), [(9.75, False), (10.0, True)])
def test_after_ten_seconds_it_counts_as_said_anew(after_s: float, passes: bool) -> None:
    meeting = Meeting()
    assert meeting.passes(meeting.program)
    meeting.world.wait(after_s)
    assert meeting.passes(meeting.page) == passes


def test_the_time_may_be_less_than_a_second_and_with_none_no_page_is_known() -> None:
    short = Meeting(Limits(echo_within_s=0.5))
    assert short.passes(short.program)
    short.world.wait(0.25)
    assert not short.passes(short.page)
    off = Meeting(OFF)
    assert off.passes(off.program)
    assert off.passes(off.page)
    assert off.world.mesh.mesh.roster.pages == set()
    assert off.world.mesh.mesh.echoes.bytes == 0


def test_what_was_said_last_counts_and_of_others_whoever_said_it() -> None:
    meeting = Meeting()
    assert meeting.passes(meeting.program)
    meeting.world.wait(6.0)
    assert meeting.passes(meeting.second)
    meeting.world.wait(6.0)
    assert not meeting.passes(meeting.page)  # the second program said it 6 s ago
    assert meeting.passes(meeting.second)
    meeting.world.wait(9.0)
    assert not meeting.passes(meeting.page)
    # One that has said it itself does not hide the other one.
    both = Meeting()
    assert both.passes(both.page)
    assert both.passes(both.program)
    assert not both.passes(both.page)
    assert not both.passes(both.other_page)


def test_what_was_refused_is_no_origin() -> None:
    meeting = Meeting()
    assert not meeting.passes(meeting.program, instanceId="somebody else")
    assert meeting.passes(meeting.page)


def test_what_was_said_before_any_page_was_here_is_no_origin() -> None:
    world = World()
    program, watcher = world.join("program"), world.join("watcher")
    world.say(program, text("broadcast", data=1))
    page = world.join("page", pageId="single")
    world.hush()
    world.say(page, text("broadcast", data=1))
    assert len(world.got(watcher)) == 1


@pytest.mark.parametrize("page_id", [None, ...])
def test_a_peer_without_a_page_id_is_no_page(page_id: object) -> None:
    meeting = Meeting()
    data: dict[str, Any] = {} if page_id is ... else {"pageId": page_id}
    plain = meeting.world.join("plain", **data)
    meeting.world.hush()
    assert meeting.passes(meeting.program)
    assert meeting.passes(plain)


def test_the_latest_presence_says_whether_a_connection_is_a_page() -> None:
    meeting = Meeting()
    world = meeting.world
    assert meeting.passes(meeting.program)
    world.say(meeting.page, presence("page"))
    assert meeting.passes(meeting.page)
    world.say(meeting.page, presence("page", pageId=7), text("heartbeat", sender="page"))
    assert not meeting.passes(meeting.page)


# What comes of it ---------------------------------------------------------------------------------


def test_an_echo_is_counted_noted_and_its_sender_told_at_most_once_a_second() -> None:
    meeting = Meeting()
    world = meeting.world
    assert meeting.passes(meeting.program)
    world.hush()
    world.say(meeting.page, *[text("broadcast", data={"n": 1})] * 20)
    (error,) = world.got(meeting.page)
    assert error["data"]["code"] == "echoed"
    world.wait(0.75)
    assert not meeting.passes(meeting.page)
    assert world.errors(meeting.page) == []
    world.wait(0.25)
    assert not meeting.passes(meeting.page)
    assert world.errors(meeting.page) == ["echoed"]
    assert (world.mesh.totals.echoed, world.mesh.totals.refused) == (22, 22)
    world.wait(9.0)
    assert meeting.passes(meeting.program)
    assert not meeting.passes(meeting.page)
    notes = [note for note in world.notes if isinstance(note, Refused)]
    assert [(n.peer, n.code, n.count) for n in notes] == [
        ("page", ErrorCode.ECHOED, 1),
        ("page", ErrorCode.ECHOED, 22),
    ]


def test_while_no_page_is_here_nothing_is_remembered() -> None:
    meeting = Meeting()
    world = meeting.world
    assert meeting.passes(meeting.program)
    assert world.mesh.mesh.echoes.bytes > 0
    world.end(meeting.page)
    world.say(meeting.other_page, presence("other page"))
    assert world.mesh.mesh.echoes.bytes == 0
    assert meeting.passes(meeting.program)
    assert world.mesh.mesh.echoes.bytes == 0


def test_what_is_remembered_is_forgotten_in_time_though_nothing_more_is_said() -> None:
    meeting = Meeting()
    world = meeting.world
    assert meeting.passes(meeting.program)
    world.wait(10.0)
    world.say(meeting.watcher, text("heartbeat"))
    assert world.mesh.mesh.echoes.bytes == 0


def test_beyond_its_bytes_the_memory_forgets_the_oldest() -> None:
    limits = Limits(echo_bytes_max=10 * (ENTRY_BYTES + len("program")))
    meeting = Meeting(limits)
    for n in range(11):
        assert meeting.passes(meeting.program, data=n)
        entries = min(n + 1, 10)  # ten are just as much as may be
        assert meeting.world.mesh.mesh.echoes.bytes == limits.echo_bytes_max // 10 * entries
    assert not meeting.passes(meeting.page, data=10)
    assert meeting.passes(meeting.page, data=0)


def test_the_bytes_are_those_of_what_is_remembered_whatever_happens() -> None:
    echoes = Echoes(Limits(echo_bytes_max=8 * ENTRY_BYTES))
    for n in range(500):
        echoes.remember(key_of("invoke", b"%d" % (n * n % 11)), "p" * (n * 7 % 50), n / 10)
        assert echoes.bytes == sum(said.bytes for said in echoes._said.values())
        assert [s.at for s in echoes._said.values()] == sorted(s.at for s in echoes._said.values())
    echoes.forget(1e9)
    assert echoes.bytes == 0 == len(echoes._said)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rb'"\ud83d"', rb'"\ud83e"'),
        (rb'"\ud83d"', rb'"\uD83d"'),
        (rb'"\ud83d"', rb'"\ue83d"'),
        (rb'"\\\ud83d"', rb'"\u0080\ud83d"'),
        (rb'"\ud83d \\"', rb'"\uf83d \\"'),
    ],
)
def test_halves_of_an_emoji_are_told_apart(one: bytes, other: bytes) -> None:
    def read(data: bytes) -> bytes:
        return content(b'{"type":"invoke","half":"\\ud83d","data":' + data + b"}")[0]

    assert read(one) == read(one) != read(other) == read(other)


def test_content_is_the_same_wherever_it_stands() -> None:
    assert content(b'{"data":[1, 2]}') == content(b' {"a":"b","data" : [1, 2] } ')
    assert content(b'{"type":"invoke"}') == (b"", False)
    assert content(b'{"data":1,"turnId":null}') == (b"1", False)
    assert content(b'{"data":1,"data":2,"turnId":""}') == (b"2", True)
