"""Who is here, and how two views of that differ."""

from typing import Any

from protocol.limits import MembershipLimits
from protocol.member.messages import Message, RemotePeer
from protocol.member.roster import Noted, Roster, compare

NEWS, CHANGE, OLD = Noted(True, False), Noted(True, True), Noted(False, False)


def presence(peer: str, *agents: str, **data: Any) -> Message:
    return Message({"type": "presence", "from": peer, "data": {"agents": list(agents), **data}})


def roster_of(*presences: Message) -> Roster:
    roster = Roster("ann", MembershipLimits())
    for said in presences:
        roster.note(said, 0)
    return roster


def test_peers_come_change_and_go() -> None:
    roster = Roster("ann", MembershipLimits())
    assert roster.note(presence("bob", "a"), 0) == CHANGE
    assert roster.note(presence("bob", "a"), 0) == NEWS
    assert roster.note(presence("bob", "b"), 0) == CHANGE
    assert roster.peers["bob"].agents == ("b",)
    assert roster.note(presence("bob", status="offline"), 0) == CHANGE
    assert roster.note(presence("bob", status="offline"), 0) == NEWS
    assert roster.peers == {}


def test_the_peer_itself_is_not_among_the_others() -> None:
    roster = Roster("ann", MembershipLimits())
    assert roster.note(presence("ann", "a"), 0) == NEWS
    assert roster.peers == {}
    roster.note_own(presence("ann", "a", "b"), is_anothers=False)
    assert roster.shared_agent_ids == {"a", "b"}
    assert not roster.is_shared


def test_a_peer_that_is_seen_with_a_connection_of_another_program_shares_its_id() -> None:
    roster = Roster("ann", MembershipLimits())
    roster.note_own(presence("ann", "a"), is_anothers=True)
    roster.note_own(presence("ann", "b"), is_anothers=False)
    assert roster.is_shared


def test_a_roster_that_comes_again_is_no_news_but_what_changed_is() -> None:
    roster = roster_of(presence("bob", "a"), presence("eve"))
    roster.begin()
    assert roster.note(presence("bob", "a"), 0) == OLD
    assert roster.note(presence("eve", "x"), 0) == CHANGE
    assert roster.note(presence("dave"), 0) == CHANGE
    roster.complete()
    assert roster.note(presence("bob", "a"), 0) == NEWS  # a repeat by its peer
    assert set(roster.peers) == {"bob", "eve", "dave"}


def test_whoever_is_not_in_it_has_gone() -> None:
    roster = roster_of(presence("bob"), presence("eve"))
    roster.begin()
    roster.note(presence("eve"), 0)
    assert set(roster.peers) == {"bob", "eve"}
    roster.complete()
    assert set(roster.peers) == {"eve"}
    assert roster.note(presence("bob"), 0) == CHANGE


def test_a_connection_that_comes_to_nothing_removes_nobody() -> None:
    roster = roster_of(presence("bob"))
    roster.begin()
    roster.cancel()
    assert roster.note(presence("bob"), 0) == NEWS
    roster.complete()
    assert set(roster.peers) == {"bob"}


def test_a_peer_named_like_an_agent_comes_before_all_that_have_it() -> None:
    roster = roster_of(presence("bob", "x", "y"), presence("eve", "x"), presence("y"))
    assert roster.hosts("x") == ["bob", "eve"]
    assert roster.hosts("y") == ["y"]
    assert roster.hosts("z") == []


def test_a_comparison_says_who_came_changed_and_went() -> None:
    bob, eve, other = RemotePeer("bob"), RemotePeer("eve"), RemotePeer("bob", ("a",))
    change = compare({"bob": bob, "eve": eve}, {"bob": other, "dave": RemotePeer("dave")})
    assert [peer.id for peer in change.joined] == ["dave"]
    assert change.updated == (other,)
    assert change.left == (eve,)
    assert not change.is_empty
    assert compare({"bob": bob}, {"bob": bob}).is_empty
    for seen, here in (({}, {"bob": bob}), ({"bob": bob}, {}), ({"bob": bob}, {"bob": other})):
        assert not compare(seen, here).is_empty
