"""A whole peer, joined to the relay's own mesh, both without I/O: every interleaving can be had."""

import itertools
import json

import pytest

from protocol.limits import Limits, MembershipLimits
from protocol.member.effects import Chunk, Handle, TurnEnded
from protocol.member.errors import (
    AnnouncementRefused,
    Left,
    NoCredentials,
    NotARelay,
    QueueFull,
    RelayError,
    TooLarge,
    TurnTimeout,
    Unreachable,
)
from protocol.member.lifecycle import MemberState
from tests.worlds.member import BOB, MemberWorld, joined, renewing
from tests.worlds.mesh import text

WAITING, JOINING, PRESENT, RENEWING, SWITCHING, SUSPENDED, ENDED = MemberState


# Joining ------------------------------------------------------------------------------------------


def test_a_peer_joins_and_sees_who_is_here() -> None:
    world = MemberWorld(mood="sunny")
    world.world.join("bob", {"agentId": "helper", "color": "blue"})
    world.begin()
    assert world.member.state is JOINING
    world.settle()
    assert world.member.state is PRESENT
    assert world.member.is_ready
    (bob,) = world.member.roster.values()
    assert bob.id == "bob"
    assert bob.agents == ("helper",)
    (seen,) = [m for m in world.world.got(BOB) if m["from"] == "ann"]
    own = {"agents": ["coder"], "keepalive": "pong", "accept": ["batch"]}
    assert seen["data"] == {"mood": "sunny", **own}
    assert isinstance(seen["timestamp"], int)


def test_its_own_presence_and_the_answers_to_its_own_questions_are_not_for_the_user() -> None:
    world = joined()
    assert [(m.type, m.origin) for m in world.arrived] == [("presence", "bob")]


def test_a_refused_announcement_ends_it_with_the_relays_words() -> None:
    world = MemberWorld(None, Limits(agents_max=1))
    world.member.announce(["a", "b"], {}, world.now)
    world.begin()
    world.settle()
    (finished,) = world.finished
    assert isinstance(finished.error, AnnouncementRefused)
    assert finished.error.code == "too_many_agents"
    assert world.member.state is ENDED
    assert world.live() == []


@pytest.mark.parametrize("nonsense", ["", "hello", "[1]", "{}", '{"type":3}', "[" * 100_000])
def test_an_answer_that_is_no_message_ends_the_joining(nonsense: str) -> None:
    world = MemberWorld()
    world.begin()
    world.open()
    world.member.received(1, nonsense, world.now)
    world.obey()
    (finished,) = world.finished
    assert isinstance(finished.error, NotARelay)


def test_nonsense_later_costs_the_connection_only() -> None:
    world = joined()
    world.member.received(1, "<html>", world.now)
    world.obey()
    assert world.member.state is WAITING
    world.wait(1)
    world.settle()
    assert world.member.state is PRESENT


def test_rate_limited_while_announcing_is_tried_again() -> None:
    world = MemberWorld()
    world.begin()
    world.open()
    refusal = {"type": "error", "from": "relay", "turnId": "t:1", "data": {"code": "rate_limited"}}
    world.member.received(1, json.dumps(refusal), world.now)
    world.obey()
    assert world.member.state is WAITING


def test_an_array_is_many_messages() -> None:
    world = joined()
    frame = '[{"type":"a","from":"bob","data":1},{"type":"a","from":"bob","data":2}]'
    world.member.received(1, frame, world.now)
    world.obey()
    assert world.data("a") == [1, 2]


def test_lone_surrogates_arrive() -> None:
    world = joined()
    world.world.say(BOB, b'{"type":"stream","data":{"chunk":"\\ud83d"}}')
    world.settle()
    assert world.data("stream") == [{"chunk": "\ud83d"}]


def test_the_relay_was_told_that_pongs_count() -> None:
    """A member that answers pings only is present, and for longer than one that is silent."""
    world = joined()
    for _ in range(7):
        world.world.wait(10)
        world.world.say(BOB, text("heartbeat"))
        relay_side = world.pipes[1].relay_side
        assert relay_side is not None
        world.world.pong(relay_side)
    assert "ann" in world.world.peers()


# Sending ------------------------------------------------------------------------------------------


def test_the_queue_is_bounded_in_messages_and_in_bytes() -> None:
    world = MemberWorld(MembershipLimits(queue_messages_max=2))
    world.send("a")
    world.send("a")
    with pytest.raises(QueueFull, match="at most 2"):
        world.send("a")
    world = MemberWorld(MembershipLimits(queue_bytes_max=2000))
    world.send("a", data="x" * 2500)  # one message over the edge is taken
    with pytest.raises(QueueFull):
        world.send("a")


def test_what_the_relay_would_drop_is_refused_here() -> None:
    world = joined(message_bytes_max=2048, presence_bytes_max=1024)
    world.send("broadcast", data="x" * 1900)
    with pytest.raises(TooLarge, match="2048"):
        world.send("broadcast", data="x" * 2048)
    with pytest.raises(TooLarge):
        world.send("broadcast", data="\u00e9" * 1200)


def test_the_pace_is_the_relays_so_that_nothing_is_dropped() -> None:
    world = joined(MembershipLimits(queue_messages_max=5000), messages_per_s=50, messages_burst=100)
    for number in range(1000):
        world.send("broadcast", data=number)
    for _ in range(100):
        world.wait(0.25)
        world.settle()
    got = world.world.got(BOB)
    assert [m["data"] for m in got if m["type"] == "broadcast"] == list(range(1000))
    assert not [m for m in world.arrived if m.type == "error"]


def test_a_withdrawn_message_is_not_sent() -> None:
    world = joined()
    world.lose(1)
    first = world.send("a")
    world.send("b")
    world.member.withdraw(first)
    world.member.withdraw(99)
    assert world.member.queued == 1
    world.wait(1)
    world.settle()
    assert world.member.queued == 0
    heard = [m["type"] for m in world.world.got(BOB)]
    assert "b" in heard
    assert "a" not in heard


def test_behind_an_edge_the_queue_goes_in_few_frames_of_bounded_size() -> None:
    world = MemberWorld(MembershipLimits(queue_messages_max=5000), behind_edge=True)
    world.world.join("bob")
    world.begin()
    world.settle()
    (ann,) = world.live()
    world.world.texts(BOB)
    for number in range(500):
        world.send("broadcast", data="x" * 200, n=number)
    frames = 0
    for _ in range(1000):
        before = world.now.at
        while world.pump():
            frames += 1
            assert len(world.pipes[ann].up[-1]) <= 2**15
        while world.rise(ann):
            pass
        world.world.at = before + 0.001
    assert frames <= 10
    assert [m["n"] for m in world.world.got(BOB) if m["type"] == "broadcast"] == list(range(500))


def test_behind_an_edge_long_messages_count_as_the_frames_that_they_take() -> None:
    world = MemberWorld(behind_edge=True)
    world.begin()
    world.settle()
    for _ in range(4):
        world.send("broadcast", data="x" * 90_000)
    sent = []
    for _ in range(100):
        if world.pump():
            sent.append(world.world.at)
        world.world.at += 0.001
    gaps = [later - sooner for sooner, later in itertools.pairwise(sent)]
    assert len(sent) == 4
    assert min(gaps) >= 3 / 180 - 0.001


# Announcing ---------------------------------------------------------------------------------------


def test_a_changed_announcement_is_made_at_once_and_after_every_reconnection() -> None:
    world = joined()
    world.member.announce(["coder", "tester"], {"mood": "new"}, world.now)
    world.obey()
    world.settle()
    assert world.world.peers()["ann"].agents == ("coder", "tester")
    world.lose(1)
    world.wait(1)
    world.settle()
    assert world.world.peers()["ann"].agents == ("coder", "tester")


def test_a_change_that_the_relay_refuses_is_undone_and_its_error_arrives() -> None:
    world = joined(agents_max=2)
    world.member.announce(["a", "b"], {}, world.now)
    world.obey()
    world.settle()
    world.member.announce(["a", "b", "c"], {}, world.now)
    world.obey()
    world.settle()
    assert [m.word("code") for m in world.arrived if m.type == "error"] == ["too_many_agents"]
    world.lose(1)
    world.wait(1)
    world.settle()
    assert world.member.state is PRESENT
    assert world.world.peers()["ann"].agents == ("a", "b")


def test_a_refused_change_goes_back_to_the_last_one_that_was_accepted() -> None:
    world = joined(agents_max=2)
    world.lose(1)
    world.member.announce(["b"], {}, world.now)  # while there is no connection
    world.wait(1)
    world.settle()
    assert world.world.peers()["ann"].agents == ("b",)
    world.member.announce(["c"], {}, world.now)
    world.member.announce(["x", "y", "z"], {}, world.now)  # before the first is answered
    world.obey()
    world.settle()
    assert world.world.peers()["ann"].agents == ("c",)
    assert world.member.agent_ids == ("c",)


def test_a_bad_change_without_a_connection_does_not_end_it() -> None:
    world = joined(agents_max=2)
    world.lose(1)
    world.member.announce(["x", "y", "z"], {}, world.now)
    for _ in range(5):
        world.wait(1)
        world.settle()
    assert world.member.state is PRESENT
    assert world.world.peers()["ann"].agents == ("coder",)
    assert [m.word("code") for m in world.arrived if m.type == "error"] == ["too_many_agents"]


def test_a_change_while_a_replacement_fails_is_made_on_the_one_in_use() -> None:
    world = renewing(joined())
    world.open()
    world.member.announce(["other"], {}, world.now)
    world.obey()
    world.lose(2)
    assert world.member.state is PRESENT
    for connection in world.live():
        while world.rise(connection):
            pass
    assert world.world.peers()["ann"].agents == ("other",)


def test_what_is_no_json_is_refused_before_it_is_announced() -> None:
    world = joined()
    with pytest.raises(TypeError):
        world.member.announce([object()], {}, world.now)
    world.lose(1)
    world.wait(1)
    world.settle()
    assert world.world.peers()["ann"].agents == ("coder",)


def test_what_no_relay_takes_is_not_announced() -> None:
    """It could not be answered, and every attempt to join again would fail."""
    with pytest.raises(TooLarge, match="presence"):
        MemberWorld(long="x" * 2**20)
    world = joined()
    for agents, metadata, error in (
        ([], {"long": "x" * 2**20}, TooLarge),
        ([object()], {}, TypeError),
        ([], {"n": object()}, TypeError),
    ):
        with pytest.raises(error):
            world.member.announce(agents, metadata, world.now)
    world.lose(1)
    world.wait(1)
    world.settle()
    assert world.world.peers()["ann"].agents == ("coder",)


def test_what_is_not_announced_anew_is_as_before() -> None:
    world = joined()
    for agents, metadata in ((None, {"mood": "sunny"}), (["poet"], None)):
        world.member.announce(agents, metadata, world.now)
        world.obey()
        world.settle()
    said = [m["data"] for m in world.world.got(BOB) if m["type"] == "presence"]
    assert [data["agents"] for data in said] == [["coder"], ["poet"]]
    assert [data["mood"] for data in said] == ["sunny", "sunny"]


def test_a_presence_that_only_this_relay_finds_too_large_is_refused() -> None:
    limits = Limits(message_bytes_max=2000, presence_bytes_max=1024)
    world = MemberWorld(relay_limits=limits, long="x" * 3000)
    world.begin()
    world.settle()
    (finished,) = world.finished
    assert isinstance(finished.error, AnnouncementRefused)
    assert finished.error.code == "too_large"


def test_a_change_that_comes_between_two_connections_is_not_forgotten() -> None:
    world = renewing(joined())
    world.open()
    while world.rise(1) or world.fall(1):
        pass  # fenced: the next connection has said who it is
    assert world.pipes[2].up
    world.member.announce(["other"], {}, world.now)
    world.obey()
    world.settle()
    assert world.member.state is PRESENT
    assert world.world.peers()["ann"].agents == ("other",)


# The end ------------------------------------------------------------------------------------------


def test_errors_that_should_be_final_end_a_peer_that_was_present_only_after_a_while() -> None:
    world = joined()
    final, passing = NotARelay("x"), Unreachable("y")
    world.lose(1)

    def fail(error: RelayError | None) -> None:
        """The latest attempt, or it is closed before it is one; those before took too long."""
        world.wait(0)
        latest = world.opening[-1]
        world.opening.clear()
        if error is None:
            world.member.closed(latest, world.now)
        else:
            world.member.failed(latest, error, world.now)
        world.obey()

    for _ in range(3):
        fail(final)
    for error in (passing, None):
        world.wait(world.limits.give_up_after_s)
        fail(error)
        fail(final)
    assert not world.finished
    world.wait(world.limits.give_up_after_s)
    fail(final)
    assert [finished.error for finished in world.finished] == [final]


def test_leaving_closes_everything_and_is_final() -> None:
    world = renewing(joined())
    world.open()
    world.member.end(world.now)
    world.obey()
    assert world.live() == []
    assert [finished.error for finished in world.finished] == [None]
    world.member.end(world.now, Left())
    world.member.nudge(world.now)
    world.obey()
    assert len(world.finished) == 1
    assert world.member.deadline() is None
    assert "ann" not in world.world.peers()


def test_a_peer_present_on_a_relay_that_ignores_capabilities_has_its_time_too() -> None:
    """One 403 after a minute does not end it: it was present, though never told the roster."""
    world = MemberWorld()
    world.begin()
    world.open()
    world.pipes[1].up.pop()  # the question
    world.rise(1)
    world.fall(1)
    for _ in range(6):
        world.world.say(world.world.join("bob"), text("broadcast", data=1))
        world.fall(1)
        world.wait(10.0)
    assert world.member.state is PRESENT
    final = NoCredentials("log in")
    world.lose(1)
    world.wait(0.0)
    world.member.failed(world.opening.popleft(), final, world.now)
    world.obey()
    assert not world.finished
    world.wait(world.limits.give_up_after_s)
    world.member.failed(world.opening.pop(), final, world.now)
    world.obey()
    assert [finished.error for finished in world.finished] == [final]


def test_a_peer_that_is_leaving_takes_nothing_more_and_sends_what_it_has() -> None:
    world = joined()
    world.send("broadcast", data="last words")
    world.member.leave(world.now)
    with pytest.raises(Left):
        world.send("broadcast", data="too late")
    with pytest.raises(Left):
        world.member.ask("helper", "x", world.now)
    with pytest.raises(Left):
        world.member.announce([], {}, world.now)
    with pytest.raises(Left):
        world.member.serve(None, world.now)
    world.settle()
    world.member.end(world.now)
    world.obey()
    assert [m["data"] for m in world.world.got(BOB) if m["type"] == "broadcast"] == ["last words"]
    assert [finished.error for finished in world.finished] == [None]


def test_what_ended_a_peer_is_raised_by_everything() -> None:
    world = joined()
    final = NoCredentials("log in")
    world.member.end(world.now, final)
    for _ in range(3):
        with pytest.raises(NoCredentials) as caught:
            world.send("broadcast")
        assert caught.value is final
        assert len(caught.traceback) < 10  # one error shown often does not grow


def test_joining_that_takes_too_long_ends_it_with_what_was_wrong() -> None:
    world = MemberWorld()
    world.member.begin(world.now, 10.0)
    world.obey()
    world.member.failed(world.opening.popleft(), Unreachable("nobody there"), world.now)
    world.obey()
    world.wait(10.0)
    assert [str(finished.error) for finished in world.finished] == ["nobody there"]


# Asking and serving -------------------------------------------------------------------------------


def test_a_command_and_its_answers_cross_the_mesh() -> None:
    world = joined()
    turn = world.member.ask("helper", "what?", world.now)
    world.settle()
    (command,) = [m for m in world.world.got(BOB) if m["type"] == "direct"]
    assert (command["turnId"], command["instanceId"]) == (turn, "ann")
    answer = {"sender": "helper", "instanceId": "bob", "to": "ann", "turnId": turn}
    world.world.say(BOB, text("stream", **answer, data={"chunk": "a"}))
    world.world.say(BOB, text("turn_end", **answer, data={"result": 7}))
    world.settle()
    assert [e.text for e in world.seen if isinstance(e, Chunk)] == ["a"]
    (ended,) = [e for e in world.seen if isinstance(e, TurnEnded)]
    assert (ended.turn, ended.error, ended.result) == (turn, None, 7)


def test_a_command_is_handled_and_its_result_goes_back() -> None:
    world = joined()
    service = world.member.serve(None, world.now)
    world.world.say(BOB, text("direct", to="coder", turnId="c", data={"command": "do"}))
    world.settle()
    (handle,) = [e for e in world.seen if isinstance(e, Handle)]
    assert (handle.service, handle.agent, handle.message.word("command")) == (
        *(service, "coder", "do"),
    )
    world.member.stream(handle.command, "some", world.now)
    world.member.finish(handle.command, "all", world.now)
    world.obey()
    world.settle()
    answers = [m for m in world.world.got(BOB) if m.get("turnId") == "c"]
    assert [m["type"] for m in answers] == ["ack", "stream", "turn_end"]
    assert {(m["from"], m["instanceId"]) for m in answers} == {("coder", "ann")}


def test_its_deadline_is_the_first_of_all_its_rooms() -> None:
    world = joined()
    beat_due = world.member.deadline()
    assert beat_due == world.now.at + world.limits.heartbeat_every_s
    world.member.ask("helper", "x", world.now, timeout_s=3.0)
    assert world.member.deadline() == world.now.at + 3.0
    world.wait(3.0)
    (ended,) = [e for e in world.seen if isinstance(e, TurnEnded)]
    assert isinstance(ended.error, TurnTimeout)
