"""The connections of a peer, joined to the relay's own mesh: staying, and one replacing another."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import Limits, MembershipLimits
from protocol.member.effects import Arrived, AttemptFailed, Missed, Transmit
from protocol.member.errors import AnnouncementRefused, Gap
from protocol.member.lifecycle import MemberState
from tests.worlds.member import BOB, MemberWorld, beat, joined, renewing
from tests.worlds.mesh import presence, text

WAITING, JOINING, PRESENT, RENEWING, SWITCHING, SUSPENDED, ENDED = MemberState


# Staying ------------------------------------------------------------------------------------------


def test_a_quiet_peer_stays_present_for_hours() -> None:
    world = joined(MembershipLimits(renew_after_s=10**9))
    for _ in range(360):
        beat(world)
        world.wait(10.0)
        world.settle()
    assert world.member.state is PRESENT
    assert len(world.pipes) == 1


def test_a_half_open_connection_is_noticed_although_nothing_ever_arrives() -> None:
    world = joined()
    world.wait(30.0)  # what is sent is never answered
    assert world.member.state in (WAITING, JOINING)
    assert world.live() in ([], [2])


def test_after_an_hour_asleep_a_dead_connection_is_given_up_after_one_question() -> None:
    world = joined()
    world.world.wait(3600.0)  # the relay has reaped it; nobody was there to hear
    world.member.expire(world.now)
    world.obey()
    world.wait(world.limits.probe_within_s)
    world.settle()
    world.wait(1.0)
    world.settle()
    assert world.member.state is PRESENT
    assert world.live() == [2]
    assert "ann" in world.world.peers()


def test_after_a_nap_a_live_connection_is_kept() -> None:
    world = joined(stale_after_s=100, reap_after_s=200)
    world.world.wait(60.0)
    world.member.expire(world.now)
    world.obey()
    world.settle()
    world.wait(9.0)
    assert world.member.state is PRESENT
    assert world.live() == [1]


def test_a_sleep_that_only_the_wall_clock_has_seen_raises_doubt() -> None:
    world = joined()
    world.wait(9.5)
    world.settle()
    world.world.at += 0.5
    later = world.now
    asleep = type(later)(later.at, later.wall_ms + 3_600_000)
    world.member.expire(asleep)
    world.obey()
    assert b"capabilities" in world.pipes[1].up[-1]
    world.wait(world.limits.probe_within_s)
    assert world.pipes[1].is_closed


def test_a_nudge_ends_the_waiting() -> None:
    world = joined()
    world.chance = 0.99
    world.lose(1)
    assert world.member.state is WAITING
    world.member.nudge(world.now)
    world.obey()
    assert world.member.state is JOINING


def test_a_lost_connection_is_replaced_and_who_left_meanwhile_is_gone() -> None:
    world = joined()
    carol = world.world.join("carol")
    world.settle()
    assert set(world.member.roster) == {"bob", "carol"}
    world.lose(1)
    world.world.end(carol)
    world.world.join("dave")
    world.wait(1)
    assert set(world.member.roster) == {"bob", "carol"}  # as far as it knows
    world.settle()
    assert set(world.member.roster) == {"bob", "dave"}
    assert [m.origin for m in world.arrived] == ["bob", "carol", "dave"]  # bob is no news


def test_what_is_sent_meanwhile_waits_in_order() -> None:
    world = joined()
    world.lose(1)
    for number in range(3):
        world.send("broadcast", data=number)
    world.wait(1)
    world.settle()
    assert [m["data"] for m in world.world.got(BOB) if m["type"] == "broadcast"] == [0, 1, 2]


def gaps(world: MemberWorld, fail: Callable[[], None], count: int = 12) -> list[float]:
    """The times between attempts that all fail like this, the dice at their worst."""
    world.chance = 0.999
    times = []
    for _ in range(count):
        times.append(world.world.at)
        fail()
        while not world.opening:
            due = world.member.deadline()
            assert due is not None
            world.wait(due - world.world.at)
    return [round(later - sooner, 6) for sooner, later in itertools.pairwise(times)]


def begun() -> MemberWorld:
    world = MemberWorld()
    world.begin()
    return world


def reasons(world: MemberWorld) -> list[str]:
    """Why attempts have failed."""
    return [str(effect.error) for effect in world.seen if isinstance(effect, AttemptFailed)]


def test_while_nobody_answers_attempts_go_on_every_few_seconds_for_ever() -> None:
    world = begun()
    waited = gaps(world, world.refuse, 200)
    assert waited[0] == pytest.approx(0.5, rel=0.01)
    assert waited[-1] == pytest.approx(2.0, rel=0.01)
    assert waited == sorted(waited)


def test_a_server_that_refuses_is_asked_ever_less_often() -> None:
    def refuse() -> None:
        world.pipes[world.opening[0]].is_closed = True
        refused = AnnouncementRefused("no_room", "full")
        world.member.failed(world.opening.popleft(), refused, world.now)
        world.obey()

    def close() -> None:
        world.member.closed(world.opening.popleft(), world.now, 1013, "come back later")
        world.obey()

    for fail in (refuse, close):
        world = begun()
        waited = gaps(world, fail)
        assert waited == sorted(waited)
        assert waited[0] == pytest.approx(0.5, rel=0.01)
        assert waited[-1] == pytest.approx(30.0, rel=0.01)


def test_an_attempt_that_hangs_is_given_up_and_says_so() -> None:
    world = begun()
    world.wait(world.limits.join_within_s)
    assert world.member.state in (WAITING, JOINING)
    assert world.pipes[1].is_closed
    assert reasons(world) == ["the relay has not answered within 20 s"]


def test_a_replacement_that_hangs_is_given_up_and_says_so() -> None:
    world = renewing(joined())
    for _ in range(2):
        beat(world)
        while world.fall(1):
            pass
    assert reasons(world) == ["the relay has not answered within 20 s"]
    assert world.member.is_in_use
    assert 1 in world.live()


def test_a_connection_that_is_closed_before_the_presence_says_how() -> None:
    world = begun()
    world.open()
    world.member.closed(1, world.now, 1013, "full")
    world.obey()
    assert reasons(world) == ["the connection was closed before the relay answered (1013): full"]


# Asleep -------------------------------------------------------------------------------------------


def test_a_peer_that_falls_asleep_says_goodbye_at_once() -> None:
    world = joined()
    world.member.suspend(world.now)
    world.obey()
    assert world.member.state is SUSPENDED
    assert world.live() == []
    assert "ann" not in world.world.peers()
    [offline] = [m for m in world.world.got(BOB) if m.get("data", {}).get("status") == "offline"]
    assert offline["data"]["reason"] == "left"


def test_asleep_it_does_nothing_and_wakes_up_at_once() -> None:
    world = joined()
    world.member.suspend(world.now)
    world.obey()
    world.world.wait(20.0)
    assert world.member.deadline() is None
    world.send("broadcast", data="waits")
    assert not world.opening
    world.member.nudge(world.now)
    world.obey()
    world.settle()
    assert world.member.state is PRESENT
    assert "waits" in [m.get("data") for m in world.world.got(BOB)]


@pytest.mark.parametrize("state", [WAITING, JOINING, RENEWING, SWITCHING])
def test_it_may_fall_asleep_at_any_time(state: MemberState) -> None:
    world = renewing(joined()) if state in (RENEWING, SWITCHING) else joined()
    if state is SWITCHING:
        world.open()
        world.settle_until(lambda: world.member.state is SWITCHING)
    elif state is WAITING:
        world.chance = 0.5
        world.lose(1)
    elif state is JOINING:
        world.lose(1)
        world.wait(1.0)
    assert world.member.state is state
    world.member.suspend(world.now)
    world.obey()
    assert world.member.state is SUSPENDED
    assert world.live() == []
    world.opening.clear()
    world.member.nudge(world.now)
    world.obey()
    world.settle()
    assert world.member.state is PRESENT


def test_many_nudges_ask_once() -> None:
    world = joined()
    for _ in range(1000):
        world.member.nudge(world.now)
    asked = [e for e in world.member.take_effects() if isinstance(e, Transmit)]
    assert len(asked) == 1


def test_a_refused_or_absurd_replacement_leaves_the_old_one_in_use() -> None:
    world = renewing(joined())
    world.open()
    world.member.received(2, "<html>", world.now)
    world.obey()
    assert world.member.state is PRESENT
    assert world.live() == [1]
    assert not world.finished


# One connection replaces another ------------------------------------------------------------------


def test_a_connection_is_replaced_before_its_time_without_anybody_noticing() -> None:
    world = renewing(joined())
    world.world.texts(BOB)
    before = len(world.arrived)
    world.settle()
    assert world.member.state is PRESENT
    assert world.live() == [2]
    assert len(world.arrived) == before
    seen = world.world.got(BOB)
    assert not [m for m in seen if m.get("data", {}).get("status") == "offline"]


def test_a_replacement_that_cannot_be_made_is_tried_again_while_the_old_one_serves() -> None:
    world = renewing(joined())
    world.refuse()
    assert world.member.state is PRESENT
    world.send("broadcast", data="still here")
    world.settle()
    assert "still here" in [m.get("data") for m in world.world.got(BOB)]
    world.wait(1)
    world.settle()
    assert world.live() == [3]


def test_if_the_old_one_dies_while_it_is_fenced_the_new_one_announces_at_once() -> None:
    world = renewing(joined())
    world.open()
    world.lose(1)
    assert world.member.state is JOINING
    world.settle()
    assert world.member.state is PRESENT
    assert world.live() == [2]


def test_if_the_new_one_dies_in_the_switch_the_old_one_goes_on() -> None:
    world = renewing(joined())
    world.open()
    world.settle_until(lambda: world.member.state is SWITCHING)
    world.lose(2)
    assert world.member.state is PRESENT
    world.send("broadcast", data="still here")
    world.settle()
    assert "still here" in [m.get("data") for m in world.world.got(BOB)]


def test_an_old_one_that_never_delivers_its_mark_is_dropped_in_time() -> None:
    world = renewing(joined())
    world.open()
    world.settle_until(lambda: world.member.state is SWITCHING)
    world.pipes[1].down.clear()
    world.wait(world.limits.switch_within_s)
    assert world.member.state is PRESENT
    assert world.live() == [2]


def test_what_waits_behind_the_mark_is_bounded() -> None:
    world = renewing(joined(MembershipLimits(unread_messages_max=5)))
    world.open()
    world.settle_until(lambda: world.member.state is SWITCHING)
    for number in range(10):
        world.world.say(BOB, text("broadcast", data=number))
    while world.fall(2):
        pass
    assert world.member.state is PRESENT
    assert world.data("broadcast") == list(range(10))


STEPS = ("open", "up old", "up new", "down old", "down new", "pump", "bob", "bob direct", "ann")


def any_steps(seed: int, kinds: tuple[str, ...], count: int) -> list[str]:
    """Long and even, which lists drawn by Hypothesis are not: most of those end too early."""
    return random.Random(seed).choices(kinds, k=count)


@pytest.mark.no_cover
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**64))
def test_under_every_interleaving_nothing_is_lost_doubled_or_out_of_order(seed: int) -> None:
    steps = any_steps(seed, STEPS, 100)
    world = renewing(joined(messages_per_s=1e6, messages_burst=10**6))
    world.world.texts(BOB)
    said, asked = [], []
    actions: dict[str, Callable[[], object]] = {
        "open": world.open,
        "up old": lambda: world.rise(1),
        "up new": lambda: world.rise(2),
        "down old": lambda: world.fall(1),
        "down new": lambda: world.fall(2),
        "pump": world.pump,
    }
    for number, step in enumerate(steps):
        if step == "ann":
            world.send("broadcast", data=number)
            said.append(number)
        elif step == "bob":
            world.world.say(BOB, text("broadcast", data=number))
            asked.append(number)
        elif step == "bob direct":
            world.world.say(BOB, text("direct", to="coder", data=number))
            asked.append(number)
        else:
            actions[step]()
    world.settle()
    assert world.live() == [2]
    assert [m.data for m in world.arrived if m.type in ("broadcast", "direct")] == asked
    assert [m["data"] for m in world.world.got(BOB) if m["type"] == "broadcast"] == said


TROUBLE = ("lose", "refuse", "wait", "nudge", "carol", "carol goes")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64))
def test_whatever_happens_there_are_at_most_two_connections_and_it_comes_back(seed: int) -> None:
    steps = any_steps(seed, (*STEPS, *TROUBLE), 150)
    world = MemberWorld(relay_limits=Limits(messages_per_s=1e6, messages_burst=10**6))
    world.chance = 0.5
    world.world.join("bob")
    world.begin()
    carols: list[int] = []
    for number, step in enumerate(steps):
        live = world.live()
        match step:
            case "open":
                world.open()
            case "up old" | "down old" if live:
                (world.rise if step[0] == "u" else world.fall)(live[0])
            case "up new" | "down new" if live:
                (world.rise if step[0] == "u" else world.fall)(live[-1])
            case "pump":
                world.pump()
            case "bob" | "bob direct":
                world.world.say(BOB, text("broadcast", data=number))
            case "lose" if live and live[0] not in world.opening:
                world.lose(live[0])
            case "refuse" if world.opening:
                world.refuse()
            case "wait":
                world.world.say(BOB, text("heartbeat"))
                world.wait(7.0)
            case "nudge":
                world.member.nudge(world.now)
                world.obey()
            case "carol":
                carols.append(world.world.join("carol"))
            case "carol goes" if carols:
                world.world.end(carols.pop())
        assert len(world.live()) <= 2
        assert (world.member.deadline() is None) == (world.member.state is ENDED)
    for _ in range(30):
        world.world.say(BOB, presence("bob"))
        world.wait(5.0)
        world.settle()
    assert world.member.state is PRESENT
    assert not world.finished
    present = set(world.world.peers()) - {"ann"}
    assert set(world.member.roster) == present


# What may be missing ------------------------------------------------------------------------------


def missed(world: MemberWorld) -> list[float]:
    """The seconds of every gap that the program was told of."""
    told = [effect.error for effect in world.seen if isinstance(effect, Missed)]
    return [gap.seconds for gap in told if isinstance(gap, Gap)]


def test_after_a_lost_connection_the_program_is_told_before_what_comes_next() -> None:
    world = joined()
    world.world.say(BOB, text("broadcast", data=1))
    world.settle()
    world.wait(7.0)
    world.lose(1)
    world.world.say(BOB, text("broadcast", data="lost"))
    world.wait(0.0)
    world.settle()
    world.world.say(BOB, text("broadcast", data=2))
    world.settle()
    assert world.data("broadcast") == [1, 2]
    assert missed(world) == [7.0]
    shown = [e for e in world.seen if isinstance(e, Missed) or getattr(e, "message", None)]
    places = [isinstance(effect, Missed) for effect in shown if not _is_presence(effect)]
    assert places == [False, True, False]


def _is_presence(effect: object) -> bool:
    return isinstance(effect, Arrived) and effect.message.type == "presence"


def test_joining_and_renewing_lose_nothing_and_say_nothing() -> None:
    world = joined(MembershipLimits(renew_after_s=60.0))
    renewing(world)
    world.settle()
    assert world.member.state is PRESENT
    assert world.live() == [2]
    assert missed(world) == []
    world.lose(2)
    world.wait(1.0)
    world.settle()
    assert len(missed(world)) == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_a_connection_that_is_lost_while_it_is_replaced_leaves_a_gap(ahead: bool) -> None:
    world = joined(MembershipLimits(renew_after_s=60.0))
    renewing(world)
    if ahead:
        world.settle_until(lambda: world.member.state is SWITCHING)
    world.lose(1)
    world.settle()
    assert world.member.state is PRESENT
    assert len(missed(world)) == 1


def test_a_replaced_connection_that_delivers_too_slowly_leaves_a_gap() -> None:
    world = joined(MembershipLimits(renew_after_s=60.0, switch_within_s=5.0))
    renewing(world)
    world.settle_until(lambda: world.member.state is SWITCHING)
    world.wait(5.0)
    assert world.member.state is PRESENT
    assert len(missed(world)) == 1
