"""A member comes back to a relay after cuts: nothing is lost, doubled, or told in another order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.relay.supervisor import Supervisor
from protocol.grants import Grant
from protocol.member.lifecycle import MemberState
from protocol.member.messages import Message
from tests.worlds.cuts import CutMember, CutRelay, numbers

AWAY = pytest.mark.parametrize("is_noticed", [True, False])


def pair(**limits: Any) -> tuple[CutRelay, CutMember, CutMember]:
    relay = CutRelay(**limits)
    ann, bob = (CutMember(relay, name).begin() for name in ("ann", "bob"))
    ann.settle()
    bob.settle()
    ann.story.clear()
    bob.story.clear()
    return relay, ann, bob


def settle(*members: CutMember) -> None:
    for _ in range(3):
        for member in members:
            member.settle()


@AWAY
def test_a_cut_loses_and_doubles_nothing_in_either_direction(is_noticed: bool) -> None:
    relay, ann, bob = pair()
    for n in range(5):
        ann.say("stream", n)
        bob.say("stream", 100 + n)
    ann.pump()
    bob.pump()
    bob.rise()
    relay.settle()
    ann.cut(up=2, down=3, is_noticed=is_noticed)
    assert "bob" in ann.member.roster
    bob.say("direct", 200, to="ann")
    ann.say("stream", 5)
    bob.settle()
    assert relay.peers.keys() == {"ann", "bob"}
    ann.come_back()
    settle(bob, ann)
    assert ann.member.is_in_use
    assert numbers(ann) == [100, 101, 102, 103, 104, 200]
    assert numbers(bob) == [0, 1, 2, 3, 4, 5]
    assert (ann.resumed, ann.gaps) == (1, [])
    assert bob.data("presence") == []  # nobody has come or gone


# What cannot come back ----------------------------------------------------------------------------


def lose_for_good(relay: CutRelay, ann: CutMember, bob: CutMember, why: str) -> None:
    """Ann is cut, with messages under way in both directions, and cannot come back."""
    for n in range(4):
        ann.say("stream", n)
        ann.pump()  # in a frame of its own
        bob.say("stream", 100 + n)
    bob.settle()
    ann.cut(up=2, down=2)
    bob.say("stream", 104)
    bob.settle()
    match why:
        case "epoch":
            relay.starts()
            bob.cut()
            bob.come_back()
        case "window":
            ann.is_network_there = False
            ann.wait(21.0)
        case "history":
            for _ in range(30):
                bob.say("stream", "x" * 1000)
                bob.settle()
        case "grant":
            ann.grant = Grant(peer="ann", agents=("other",))
        case "unsupported":
            relay.starts()
            relay.supervisor = Supervisor("m", relay.limits, relay.clock)
            bob.cut()
            bob.come_back()
    ann.come_back()
    settle(bob, ann)


@pytest.mark.parametrize("why", ["epoch", "window", "history", "grant", "unsupported"])
def test_who_cannot_come_back_joins_anew_and_hears_of_it_in_the_right_place(why: str) -> None:
    relay, ann, bob = pair(history_bytes_max=10_000 if why == "history" else 2**23)
    lose_for_good(relay, ann, bob, why)
    assert ann.member.state is MemberState.PRESENT
    (gap,) = ann.gaps
    assert gap.reason == why
    # No report was answered. Only a relay that knows the connection tells what it has taken.
    in_doubt = [2, 3] if why == "history" else [0, 1, 2, 3]
    assert [message.data for message in gap.in_doubt] == in_doubt
    place = ann.story.index(gap)
    before = [m.data for m in ann.story[:place] if isinstance(m, Message) and m.type == "stream"]
    assert before == [100, 101]
    assert ann.resumed == 0
    bob.say("direct", 300, to="ann")
    ann.say("stream", 4)
    settle(ann, bob)
    assert numbers(ann)[-1] == 300
    said = [n for n in numbers(bob) if n < 100]
    assert said == [0, 1, 4]  # what is in doubt is not sent again
    assert {"ann", "bob"} <= relay.peers.keys()


def test_a_clean_close_by_the_relay_is_no_reason_to_give_up() -> None:
    """A middlebox may close the end of the peer so, and cut the other."""
    _, ann, bob = pair()
    bob.say("stream", 1)
    bob.settle()
    (number,) = ann.sockets
    socket = ann.sockets.pop(number)
    socket.is_cut = True
    socket.actor.closed(1006)
    ann.member.closed(number, ann.now, 1001)
    ann.obey()
    ann.come_back()
    assert numbers(ann) == [1]
    assert ann.resumed == 1


def test_who_leaves_while_it_is_away_tells_what_is_in_doubt() -> None:
    _, ann, bob = pair()
    ann.say("stream", 1)
    ann.pump()
    ann.cut()
    assert ann.member.queued == 1
    ann.member.leave(ann.now)
    ann.member.end(ann.now)
    ann.obey()
    (gap,) = ann.gaps
    assert [message.data for message in gap.in_doubt] == [1]
    assert bob.data("stream") == []


def test_what_is_acknowledged_is_not_in_doubt() -> None:
    relay, ann, _ = pair()
    for n in range(130):  # every 64 frames it asks, but not at once again
        ann.say("stream", n)
        ann.settle()
        if n == 100:
            ann.wait(0.125)
    ann.pump()
    ann.cut()
    relay.starts()
    ann.come_back()
    (gap,) = ann.gaps
    # After 63 streams behind the last report: 130 = 64 + 63 + 3, or so.
    assert 0 < len(gap.in_doubt) < 64
    assert gap.in_doubt[-1].data == 129
    ann.say("stream", 130)
    ann.settle()
    ann.wait(11.0)
    ann.settle()
    ann.cut()
    relay.starts()
    ann.come_back()
    assert ann.gaps[1].in_doubt == ()  # a heartbeat reports, too


# What went wrong elsewhere ------------------------------------------------------------------------


def test_coming_back_twice_without_new_messages_repeats_nothing() -> None:
    _, ann, bob = pair()
    ann.say("stream", 1)
    bob.say("stream", 2)
    settle(ann, bob)
    for _ in range(3):
        ann.cut()
        ann.come_back()
        bob.settle()
    assert (numbers(ann), numbers(bob), ann.resumed) == ([2], [1], 3)


def test_the_counts_go_on_after_coming_back() -> None:
    _, ann, bob = pair()
    for n in range(5):
        ann.say("stream", n)
        bob.say("stream", 100 + n)
        settle(ann, bob)
        ann.say("stream", 10 + n)
        bob.say("stream", 110 + n)
        ann.pump()
        bob.settle()
        ann.cut(up=n % 2, down=0)
        ann.come_back()
    settle(ann, bob)
    assert sorted(numbers(bob)) == sorted([*range(5), *range(10, 15)])
    assert sorted(numbers(ann)) == sorted([*range(100, 105), *range(110, 115)])
    assert (ann.resumed, ann.gaps) == (5, [])


def test_a_cut_before_any_message() -> None:
    relay = CutRelay()
    ann = CutMember(relay, "ann")
    ann.member.begin(ann.now)
    ann.obey()
    ann.open()
    ann.rise()
    relay.settle()
    ann.fall(2)  # the offer, and its own presence
    assert ann.member.state is MemberState.PRESENT
    ann.say("stream", 1)
    ann.cut()
    ann.come_back()
    ann.settle()
    assert ann.member.is_ready
    assert (ann.resumed, ann.gaps) == (1, [])


def test_coming_back_before_the_relay_has_noticed_the_loss() -> None:
    relay, ann, bob = pair()
    bob.say("stream", 1)
    bob.settle()
    ann.cut(is_noticed=False)
    assert relay.peers["ann"] == "present"
    ann.come_back()
    assert numbers(ann) == [1]
    assert bob.data("presence") == []


def test_dropped_while_it_was_away_is_told() -> None:
    relay, ann, _ = pair(resume_s=5.0)
    ann.cut()
    relay.settle()
    ann.is_network_there = False
    relay.clock.at += 6.0  # the relay's own window; the peer has learned it, too
    relay.supervisor.round()
    assert "ann" not in relay.peers
    ann.wait(0.0)
    ann.come_back()
    (gap,) = ann.gaps
    assert gap.reason == "window"


def test_trimmed_history_is_no_success() -> None:
    _, ann, bob = pair(history_bytes_max=5000)
    ann.cut()
    for n in range(20):
        bob.say("stream", n, more="x" * 1000)
        bob.settle()
    ann.come_back()
    (gap,) = ann.gaps
    assert gap.reason == "history"
    assert numbers(ann) == []


# Cuts anywhere ------------------------------------------------------------------------------------

who = st.integers(0, 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), who, st.sampled_from(["stream", "direct"])),
        st.tuples(st.just("pump"), who, st.integers(1, 5)),
        st.tuples(st.just("rise"), who, st.integers(1, 5)),
        st.tuples(st.just("fall"), who, st.integers(1, 5)),
        st.tuples(st.just("array"), who, st.integers(2, 5)),
        st.tuples(st.just("round"), who, st.just(0)),
        st.tuples(st.just("cut"), who, st.integers(0, 3)),
        st.tuples(st.just("break"), who, st.integers(0, 3)),  # and the relay does not notice
        st.tuples(st.just("open"), who, st.just(0)),
        st.tuples(st.just("renew"), who, st.just(0)),
        st.tuples(st.just("announce"), who, st.integers(0, 9)),
        st.tuples(st.just("beat"), who, st.just(0)),
    ),
    max_size=60,
)


@given(steps)
@settings(deadline=None, max_examples=300)
def test_wherever_it_is_cut_everybody_has_what_it_would_have_without(
    story: list[tuple[str, int, Any]],
) -> None:
    relay = CutRelay()
    eve = CutMember(relay, "eve").begin()  # who is never cut
    cut = [CutMember(relay, name).begin() for name in ("ann", "bob")]
    settle(eve, *cut)
    said: dict[str, list[int]] = {"ann": [], "bob": []}
    announced: dict[str, list[str]] = {"ann": [], "bob": []}
    count = 0
    for what, number, how in story:
        member = cut[number]
        match what:
            case "say":
                count += 1
                to = {"to": cut[1 - number].id} if how == "direct" else {}
                member.say(how, count, **to)
                said[member.id].append(count)
            case "pump":
                member.pump(how)
            case "rise" if not member.is_asking:
                member.rise(how)
            case "fall" if not member.is_asking:
                member.fall(how)
            case "array" if not member.is_asking:
                member.fall(how, as_array=True)
            case "round":
                relay.settle()
            case "cut" | "break":
                if not member.is_asking:
                    member.cut(up=how, down=how // 2, is_noticed=what == "cut")
            case "open":
                member.member.nudge(member.now)
                member.obey()
                member.open()
                if member.is_asking:  # an answer that is lost leads to a Gap: another test
                    member.settle()
            case "renew":
                member.renew()
            case "announce":
                member.member.announce([f"agent {how}"], None, member.now)
                member.obey()
                announced[member.id] = [f"agent {how}"]
            case "beat":
                member.beat()
    for _ in range(2):
        for member in cut:
            member.come_back()
        settle(eve, *cut)
    assert [member.gaps for member in cut] == [[], []]
    for member, other in zip(cut, ("bob", "ann"), strict=True):
        assert numbers(member) == said[other]
        assert member.member.queued == 0
        assert eve.member.roster[member.id].agents == tuple(announced[member.id])
        assert [n for n in numbers(eve) if n in said[member.id]] == [
            n for n in said[member.id] if n in numbers(eve)
        ]
    heard = numbers(eve)
    assert len(heard) == len(set(heard))
    ends = [m for m in eve.messages if m.word("status") == "offline"]
    assert ends == []
    assert relay.peers.keys() == {"ann", "bob", "eve"}
    if not any(what == "renew" for what, _, _ in story):  # else one that nobody missed may be left
        assert relay.supervisor.connections == 3
