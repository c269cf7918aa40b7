"""The roster: who is here, by connection; and who is meant, by address."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.agents import Agent
from protocol.envelope import ErrorCode, Header, Refusal
from protocol.limits import Limits
from protocol.mesh.effects import Only, Others, Snapshot
from protocol.mesh.roster import Peer, Roster
from tests.actors.relay.test_cost import calls_of


def agents(*ids: str) -> tuple[Agent, ...]:
    return tuple(Agent(id, f'"{id}"'.encode()) for id in ids)


def roster_of(**hosts: tuple[Agent, ...]) -> Roster:
    """A roster with a connection for each of these peers."""
    roster = Roster()
    for number, (id, its_agents) in enumerate(hosts.items(), start=1):
        roster.set_agents(roster.attach(number, id), its_agents)
    return roster


def direct(
    to: str | None = None,
    target: str | None = None,
    *,
    sender: str | None = None,
    instance: str | None = None,
) -> Header:
    return Header("direct", sender, to, instance, target)


# Coming and going ---------------------------------------------------------------------------------


def test_a_peer_is_here_while_one_of_its_connections_is() -> None:
    roster, old, new = Roster(), 1, 2
    peer = roster.attach(old, "me")
    assert roster.attach(new, "me") is peer
    assert roster.detach(old) is peer
    assert roster.peers == {"me": peer}
    assert roster.detach(new) is peer
    assert roster.peers == {}


def test_a_connection_that_never_joined_takes_nobody_along() -> None:
    roster = roster_of(me=agents("a"))
    assert roster.detach(9) is None
    assert set(roster.peers) == {"me"}


def test_attaching_twice_is_attaching_once() -> None:
    roster, only = Roster(), 1
    peer = roster.attach(only, "me")
    assert roster.attach(only, "me") is peer
    assert roster.detach(only) is peer
    assert roster.peers == {}


def test_detaching_twice_is_detaching_once() -> None:
    roster, old, new = Roster(), 1, 2
    roster.attach(old, "me")
    roster.detach(old)
    roster.attach(new, "me")  # reconnected before the end of the old one was noticed again
    assert roster.detach(old) is None
    assert set(roster.peers) == {"me"}


def test_a_peers_audiences_follow_its_connections() -> None:
    roster, first, second = Roster(), 1, 2
    peer = roster.attach(first, "me")
    roster.attach(second, "me")
    assert (peer.others, peer.only) == (Others((1, 2)), Only((1, 2)))
    roster.detach(first)
    assert (peer.others, peer.only) == (Others((2,)), Only((2,)))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.sampled_from("ab")), max_size=20))
@settings(deadline=None)
def test_no_order_of_coming_and_going_hides_a_live_connection(
    history: list[tuple[bool, int, str]],
) -> None:
    roster, live = Roster(), dict[int, str]()
    for comes, number, id in history:
        if comes and number not in live:
            live[number] = id
            assert roster.attach(number, id).id == id
        elif not comes and number in live:
            gone = roster.detach(number)
            assert gone is not None
            assert gone.id == live.pop(number)
        by_peer: dict[str, set[int]] = {}
        for connection, peer_id in live.items():
            by_peer.setdefault(peer_id, set()).add(connection)
        assert {id: set(peer.connections) for id, peer in roster.peers.items()} == by_peer
        assert set(roster.connections) == set(live)


# Agents -------------------------------------------------------------------------------------------


def union_of(*announced: tuple[Agent, ...]) -> tuple[Agent, ...]:
    """The agents of a peer with a connection for each of these announcements."""
    roster = Roster()
    for number, its_agents in enumerate(announced):
        peer = roster.attach(number, "me", its_agents)
    return peer.union()


def test_agents_over_several_connections_are_a_union_in_the_order_of_announcement() -> None:
    assert union_of(agents("b", "a"), agents("a", "c")) == agents("b", "a", "c")


def test_of_two_cards_of_one_agent_the_first_stays_and_nameless_ones_differ_by_their_text() -> None:
    card, other = Agent("a", b'{"id":"a"}'), Agent(None, b'{"x":1}')
    assert union_of((card,), agents("a"), (other,), (other,)) == (card, other)


def test_a_single_announcement_stays_as_it_is() -> None:
    assert union_of(agents("a", "a")) == agents("a", "a")


def test_what_one_connection_announces_replaces_only_what_it_announced_before() -> None:
    roster, first, second = Roster(), 1, 2
    peer = roster.attach(first, "me", agents("a", "b"))
    roster.attach(second, "me", agents("c"))
    assert peer.union_with(first, agents("d")) == agents("d", "c")
    assert peer.union_with(3, agents("d")) == agents("a", "b", "c", "d")


def merged(announced: list[tuple[Agent, ...]]) -> tuple[Agent, ...]:
    """The same from the words: each agent once, as it was announced first."""
    if len(announced) == 1:
        return announced[0]
    first: dict[str | bytes, Agent] = {}
    for agent in (agent for its in announced for agent in its):
        first.setdefault(agent.id or agent.text, agent)
    return tuple(first.values())


some_agents = st.lists(
    st.sampled_from(
        [*agents("a", "b", "c"), Agent("a", b'{"id":"a"}'), Agent(None, b"{}"), Agent(None, b"[]")]
    ),
    max_size=5,
).map(tuple)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4), some_agents), max_size=25))
@settings(deadline=None)
def test_a_union_is_what_merging_all_announcements_gives_whatever_happened_before(
    history: list[tuple[bool, int, tuple[Agent, ...]]],
) -> None:
    roster, live = Roster(), dict[int, tuple[Agent, ...]]()
    for is_there, number, its_agents in history:
        if is_there:
            supposed = merged(list((live | {number: its_agents}).values()))
            peer = roster.peers.get("me")
            assert peer is None or peer.union_with(number, its_agents) == supposed
            live[number] = its_agents
            assert roster.attach(number, "me", its_agents).union() == supposed
        else:
            live.pop(number, None)
            peer = roster.detach(number)
            if live and peer is not None:
                assert peer.union() == merged(list(live.values()))
    for number in live:
        peer = roster.detach(number)
    assert not live or (peer is not None and not peer._held)


def test_an_announcement_costs_the_same_however_many_connections_a_peer_has() -> None:
    def calls(connections: int) -> int:
        roster = Roster()
        its_agents = agents(*map(str, range(200)))
        for number in range(connections):
            peer = roster.attach(number, "me", its_agents)

        def announce_and_leave() -> None:
            peer.union_with(0, agents("new"))
            roster.attach(0, "me", agents("new"))
            roster.detach(1)
            peer.union()

        return calls_of(announce_and_leave)

    assert calls(60) <= calls(3) * 1.05


def test_setting_the_same_agents_again_is_no_change() -> None:
    roster = Roster()
    peer = roster.attach(1, "me")
    assert roster.set_agents(peer, agents("a")) is True
    assert roster.set_agents(peer, agents("a")) is False
    assert roster.set_agents(peer, agents("b")) is True
    assert peer.agents == agents("b")


# Addresses (rule 5) -------------------------------------------------------------------------------


def resolve(roster: Roster, header: Header, sender: str = "me") -> Peer | None:
    return roster.resolve(roster.peers[sender], header, Limits())


def refused(roster: Roster, header: Header) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        resolve(roster, header)
    return refusal.value


def test_the_target_instance_comes_before_everything_else() -> None:
    roster = roster_of(me=agents("a"), you=agents("a"), she=())
    for to in ("a", "she", "nobody", None):
        assert resolve(roster, direct(to, target="you")) is roster.peers["you"]
    assert resolve(roster, direct("you", target="me")) is roster.peers["me"]


def test_a_target_instance_that_is_not_here_is_unknown_whatever_else_is_said() -> None:
    roster = roster_of(me=(), you=agents("a"))
    for target in ("nobody", "a"):
        refusal = refused(roster, direct("you", target=target))
        assert refusal.code is ErrorCode.UNKNOWN_TARGET
        assert refusal.details == {"target": target}


def test_a_peer_id_comes_before_an_agent_of_the_same_name() -> None:
    roster = roster_of(me=agents("you"), you=(), she=agents("you"))
    assert resolve(roster, direct("you")) is roster.peers["you"]


def test_a_peer_may_write_to_itself() -> None:
    roster = roster_of(me=())
    assert resolve(roster, direct("me")) is roster.peers["me"]


def test_the_senders_own_agent_comes_before_others_of_the_same_name_and_is_not_relayed() -> None:
    roster = roster_of(me=agents("a"), you=agents("a"), she=agents("a"))
    assert resolve(roster, direct("a")) is None


def test_an_agent_of_one_other_peer_is_found() -> None:
    roster = roster_of(me=(), you=agents("a", "b"), she=agents("c"))
    assert resolve(roster, direct("b")) is roster.peers["you"]


def test_an_agent_of_several_peers_is_ambiguous_and_the_refusal_names_them() -> None:
    refusal = refused(roster_of(me=(), you=agents("a"), she=agents("a")), direct("a"))
    assert refusal.code is ErrorCode.AMBIGUOUS_TARGET
    assert refusal.details == {"peers": ["she", "you"]}


def test_of_very_many_only_some_are_named() -> None:
    hosts = {f"p{number:03}": agents("a") for number in range(100)}
    refusal = refused(roster_of(me=(), **hosts), direct("a"))
    assert refusal.details == {"peers": [f"p{number:03}" for number in range(20)]}
    assert "100 peers" in refusal.sentence


def test_an_ambiguous_target_costs_the_same_however_many_have_the_agent() -> None:
    def calls(hosts: int) -> int:
        names = (f"p{number:05}" for number in range(hosts))
        roster = roster_of(me=(), **dict.fromkeys(names, agents("a")))
        compared = 0

        class Counted(str):
            def __lt__(self, other: str) -> bool:
                nonlocal compared
                compared += 1
                return str.__lt__(self, other)

        roster._hosts["a"] = {Counted(id): peer for id, peer in roster._hosts["a"].items()}
        refused(roster, direct("a"))
        return compared

    assert calls(2000) == calls(30) > 0


def test_what_a_local_agent_says_to_an_agents_name_stays_at_home() -> None:
    roster = roster_of(me=agents("mine"), you=agents("a", "b"), she=agents("b", "hers"))
    for sender in ("local", "hers", "a"):  # one that nobody has announced, or only others
        for to in ("a", "b"):
            refusal = refused(roster, direct(to, sender=sender))
            assert refusal.code is ErrorCode.UNKNOWN_TARGET
            assert refusal.details == {"target": to}
            assert "targetInstanceId" in refusal.sentence
        assert resolve(roster, direct("mine", sender=sender)) is None


def test_who_says_whose_agent_it_is_finds_the_agents_of_others_by_name() -> None:
    roster = roster_of(me=agents("mine", "other"), you=agents("a"))
    for header in (
        direct("a"),  # the relay adds `from`
        direct("a", sender="me"),
        direct("a", sender="mine"),
        direct("a", sender="local", instance="me"),
        direct("a", sender="local", target="you"),
        direct("you", sender="local"),
    ):
        assert resolve(roster, header) is roster.peers["you"]
    roster.set_agents(roster.peers["me"], agents("other"))
    assert refused(roster, direct("a", sender="mine")).code is ErrorCode.UNKNOWN_TARGET


def test_nobodys_agent_is_unknown() -> None:
    refusal = refused(roster_of(me=(), you=agents("a")), direct("b"))
    assert refusal.code is ErrorCode.UNKNOWN_TARGET
    assert refusal.details == {"target": "b"}


def test_a_direct_without_any_address_is_refused() -> None:
    assert refused(roster_of(me=()), direct()).code is ErrorCode.BAD_FIELD


def test_the_agents_of_those_who_left_are_gone() -> None:
    roster = roster_of(me=(), you=agents("a"), she=agents("a"))
    (hers,) = roster.peers["she"].connections
    roster.detach(hers)
    assert resolve(roster, direct("a")) is roster.peers["you"]
    roster.set_agents(roster.peers["you"], ())
    assert refused(roster, direct("a")).code is ErrorCode.UNKNOWN_TARGET


def test_the_presences_are_everyones_but_one() -> None:
    roster = roster_of(me=(), you=(), she=())
    for peer in roster.peers.values():
        roster.set_presence(peer, peer.id.encode(), 0.0)
    blocks = roster.presences.without(roster.peers["you"])
    assert Snapshot(1, blocks).presences == [b"me", b"she"]
    assert roster.presences.bytes == len(b"meyoushe")
