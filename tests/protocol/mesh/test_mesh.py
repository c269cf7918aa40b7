"""The mesh, rule by rule (docs/protocol.md has the rules): without sockets, without waiting."""

import itertools
import math
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.envelope import ErrorCode, Inbound, Refusal, Text, Unreadable
from protocol.limits import Limits
from protocol.mesh.effects import CLOSE_CODES, Admitted, PeerJoined, PeerLeft, Refused
from protocol.mesh.lifecycle import Cause, PeerState
from protocol.mesh.status import Totals
from tests.actors.relay.test_cost import calls_of
from tests.worlds import json_texts
from tests.worlds.json_texts import loads
from tests.worlds.mesh import WALL_MS, Message, World, presence, text, world_of

anything = settings(deadline=None, max_examples=60)

A, B, C = 1, 2, 3  # the connections of `world_of("a", "b", "c")`
FANNED_OUT = ("broadcast", "stream", "ack", "turn_end", "error", "ring-update", "invoke")
WITHHELD = (
    "configure",
    "relay-log",
    "relay-connected",
    "relay-disconnected",
    "relay-config-updated",
    "relay-auth-required",
    "relay-" + "x" * 300,
    "relay-",
    "credentials_updated",
    "list_github",
    "trigger_github",
    "poll_github_logs",
)


def agents_of(message: Message) -> list[Any]:
    assert message["type"] == "presence"
    agents = message["data"]["agents"]
    assert isinstance(agents, list)
    return agents


# 1. Text passes untouched -------------------------------------------------------------------------


@given(json_texts.values, st.sampled_from(FANNED_OUT))
@example('{"b":1E+5,"a":[-0,"\\u0041\\ud83d"],"b":null}', "stream")
@anything
def test_1_a_message_arrives_byte_for_byte(value: str, type: str) -> None:
    world = world_of("a", "b", "c")
    sent = (
        f'{{ "turnId":{value},"type" :"{type}", "from":"a","instanceId":"a",'
        f'"to":"\\u0062","timestamp":1.0,"later":{value},"data":{value} }}\n'
    ).encode()
    world.say(A, sent)
    assert world.texts(B) == world.texts(C) == [sent]
    assert world.texts(A) == []


def test_1_a_presence_arrives_byte_for_byte_too_where_it_says_all() -> None:
    world = world_of("a", "b")
    sent = b'{"from":"a", "x":1E+5,"type":"presence","data":{"agents":[ "h"],"host":"\\ud83d"}}'
    world.say(A, sent)
    assert world.texts(A) == world.texts(B) == [sent]


# 2. A peer may hold several connections -----------------------------------------------------------


def world_with_tabs() -> World:
    """`a` has connections 1 and 3, with an agent each; `b` has connection 2."""
    world = World()
    world.join("a", "h")
    world.join("b")
    world.join("a", "k")
    world.hush()
    return world


def test_2_closing_one_tab_hides_nobody_and_the_last_one_says_offline_once() -> None:
    world = world_with_tabs()
    world.end(1)
    assert [message["data"].get("status") for message in world.got(2)] == [None]
    assert set(world.peers()) == {"a", "b"}
    world.end(3)
    assert [message["data"].get("status") for message in world.got(2)] == ["offline"]
    assert set(world.peers()) == {"b"}


def test_2_the_death_of_an_old_socket_after_a_reconnect_hides_nobody() -> None:
    world = world_of("a", "b")
    new = world.join("a")
    world.hush()
    world.end(A, Cause.CRASHED)
    assert world.got(B) == world.got(new) == []
    world.say(B, text("direct", sender="b", to="a"))
    assert len(world.got(new)) == 1


def test_2_the_agents_of_a_peer_are_the_union_over_its_tabs() -> None:
    world = world_with_tabs()
    newcomer = world.join("c")
    assert [agents_of(message) for message in world.got(newcomer)] == [[], ["h", "k"], []]
    world.hush()
    world.end(1)  # the others hear at once which agents went with the tab
    assert [agents_of(message) for message in world.got(2)] == [["k"]]


def test_2_a_tabs_presence_carries_the_agents_of_all_tabs() -> None:
    world = world_with_tabs()
    world.say(1, presence("a", "l"))
    assert [agents_of(message) for message in world.got(2)] == [["l", "k"]]


def test_2_a_tab_that_takes_no_agent_along_leaves_without_a_word() -> None:
    world = World()
    world.join("a", "h")
    world.join("b")
    world.join("a", "h")
    world.hush()
    world.end(1)
    assert world.got(2) == []
    world.say(2, text("direct", sender="b", to="h"))
    assert len(world.got(3)) == 1


@pytest.mark.parametrize("type", FANNED_OUT)
def test_2_except_the_sender_excludes_all_its_tabs(type: str) -> None:
    world = world_with_tabs()
    world.say(3, text(type, sender="a"))
    assert world.got(1) == world.got(3) == []
    assert len(world.got(2)) == 1


@pytest.mark.parametrize("address", [{"to": "a"}, {"to": "k"}, {"targetInstanceId": "a"}], ids=str)
def test_2_a_direct_reaches_all_tabs_of_its_target(address: dict[str, str]) -> None:
    world = world_with_tabs()
    world.say(2, text("direct", sender="b", **address))
    assert len(world.got(1)) == len(world.got(3)) == 1


def test_2_a_connection_cannot_change_its_peer_id() -> None:
    world = world_of("a", "b")
    world.say(A, presence("other"))
    assert world.errors(A) == ["identity_fixed"]
    assert world.got(B) == []
    assert set(world.peers()) == {"a", "b"}  # and no ghost


def test_2_announcing_again_changes_nothing_but_the_agents() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", "h"), presence("a", "h"))
    assert [agents_of(message) for message in world.got(B)] == [["h"], ["h"]]
    assert world.peers()["a"].agents == ("h",)
    world.end(A)
    assert len(world.got(B)) == 1


# 3. Joining ---------------------------------------------------------------------------------------


def test_3_a_newcomer_gets_its_own_presence_then_everyones_latest_then_the_rest() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", "h"))
    newcomer = world.open()
    world.say(A, text("broadcast", sender="a", n=1))  # before it joined
    world.say(newcomer, presence("c"), text("capabilities"))
    world.say(A, text("broadcast", sender="a", n=2))
    got = world.got(newcomer)
    assert [(message["type"], message["from"]) for message in got] == [
        ("presence", "c"),
        ("presence", "a"),
        ("presence", "b"),
        ("capabilities_response", "relay"),
        ("broadcast", "a"),
    ]
    assert agents_of(got[1]) == ["h"]
    assert got[-1]["n"] == 2


def test_3_everybody_here_hears_of_a_newcomer() -> None:
    world = world_of("a", "b")
    world.join("c", "h")
    assert [agents_of(message) for message in world.got(A)] == [["h"]]
    assert [agents_of(message) for message in world.got(B)] == [["h"]]


def test_3_a_repeated_presence_is_fanned_out_without_the_roster() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", load=0.5))
    assert [message["from"] for message in world.got(A)] == ["a"]
    assert [message["data"]["load"] for message in world.got(B)] == [0.5]


def test_3_a_second_tab_gets_the_roster_too() -> None:
    world = world_of("a", "b")
    tab = world.join("a")
    assert [message["from"] for message in world.got(tab)] == ["a", "b"]


def test_3_joins_and_leaves_are_told_to_those_who_watch() -> None:
    world = World()
    world.join("a", "h")
    tab = world.join("a")
    world.end(1)
    world.end(tab, Cause.EVICTED)
    assert world.notes == [PeerJoined("a", 1, 1), PeerLeft("a", Cause.EVICTED)]
    assert (world.mesh.totals.joined, world.mesh.totals.left) == (1, 1)


# 4. Origin is guaranteed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "arrives_with"),
    [
        ({"from": "a"}, {"from": "a"}),
        ({"from": "a", "instanceId": "a"}, {"from": "a", "instanceId": "a"}),
        ({"from": "h"}, {"from": "h", "instanceId": "a"}),
        ({"from": "h", "instanceId": "a"}, {"from": "h", "instanceId": "a"}),
        ({"from": "h", "instanceId": None}, {"from": "h", "instanceId": "a"}),
        ({}, {"from": "a"}),
        ({"from": None}, {"from": "a"}),
        ({"instanceId": "a"}, {"from": "a", "instanceId": "a"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("type", ["broadcast", "direct"])
def test_4_every_message_says_which_peer_it_is_from(
    type: str, origin: dict[str, Any], arrives_with: dict[str, Any]
) -> None:
    world = world_of("a", "b")
    world.say(A, text(type, to="b", **origin))
    assert world.got(B) == [{"type": type, "to": "b", **arrives_with}]


@pytest.mark.parametrize("type", ["capabilities", "relay-log", "stream", "presence", "heartbeat"])
def test_4_nobody_says_anything_as_the_relay(type: str) -> None:
    world = world_of("a", "b")
    stranger = world.open()
    for connection in (A, stranger):
        world.say(connection, text(type, sender="relay", data={}))
        world.say(connection, b"[%s]" % text(type, sender="relay"))
        assert world.errors(connection) == ["spoofed", "spoofed"]
    assert world.got(B) == []
    assert world.mesh.totals.withheld == 0


def test_4_what_only_the_relay_sends_is_refused_from_a_peer_and_is_not_offered() -> None:
    world = world_of("a", "b")
    sent = text("capabilities_response", sender="a", to="b", turnId="t", data={"limits": {}})
    world.say(A, sent, sent.replace(b"_resp", b"\\u005fresp"), b"[" + sent + b"]")
    assert world.errors(A) == ["spoofed"] * 3
    stranger = world.open()
    world.say(stranger, sent)
    assert world.errors(stranger) == ["not_present"]
    assert world.got(B) == []
    world.say(A, text("capabilities"))
    (answer,) = world.got(A)
    assert "capabilities_response" not in answer["data"]["types"]


def test_4_an_error_of_a_peer_is_passed_on_as_the_peers() -> None:
    world = world_of("a", "b")
    world.say(A, text("error", sender="a", turnId="t", data={"error": "no"}))
    assert [(m["type"], m["from"]) for m in world.got(B)] == [("error", "a")]


FORGED = [{"from": "b"}, {"from": "relay"}] + [
    {"from": sender, "instanceId": instance}
    for sender, instance in itertools.product(("a", "h"), ("b", "relay", "nobody"))
]


@pytest.mark.parametrize("origin", FORGED, ids=str)
@pytest.mark.parametrize("type", ["broadcast", "direct", "turn_end", "ring-update", "heartbeat"])
def test_4_a_forged_origin_is_refused_and_reaches_nobody(type: str, origin: dict[str, str]) -> None:
    world = world_of("a", "b", "c")
    world.say(A, text(type, to="c", data={}, **origin))
    assert world.errors(A) == ["spoofed"]
    assert world.got(B) == world.got(C) == []


@pytest.mark.parametrize(
    "origin", [{"from": "relay"}, {"from": "c", "instanceId": "b"}, {"from": "c", "instanceId": ""}]
)
def test_4_nobody_joins_as_somebody_else(origin: dict[str, str]) -> None:
    world = world_of("a", "b")
    newcomer = world.open()
    world.say(newcomer, text("presence", data={}, **origin))
    assert world.errors(newcomer) == ["spoofed"]
    assert world.got(B) == []


def test_4_no_agent_is_called_relay() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", {"id": "relay"}))
    assert world.errors(A) == ["spoofed"]
    assert world.peers()["a"].agents == ()


def test_4_a_name_is_free_again_when_its_peer_has_gone() -> None:
    world = world_of("a", "b", "c")
    world.end(B)
    world.hush()
    world.say(A, text("stream", sender="b"))
    assert world.got(C) == [{"type": "stream", "from": "b", "instanceId": "a"}]


# 5. Addressing a direct (every case is in test_roster) --------------------------------------------


def world_with_agents() -> World:
    """`a` has the agent h, `b` h and k, `c` h and l."""
    world = World()
    for peer, its in (("a", ["h"]), ("b", ["h", "k"]), ("c", ["h", "l"])):
        world.join(peer, *its)
    world.hush()
    return world


@pytest.mark.parametrize(
    ("address", "receivers"),
    [
        ({"to": "b"}, {B}),
        ({"to": "k"}, {B}),
        ({"to": "l", "targetInstanceId": "b"}, {B}),
        ({"to": "h", "targetInstanceId": "c"}, {C}),
        ({"targetInstanceId": "c"}, {C}),
        ({"to": "a"}, {A}),
        ({"to": "h"}, set()),  # the sender's own
    ],
    ids=str,
)
def test_5_a_direct_reaches_its_target_and_nobody_else(
    address: dict[str, str], receivers: set[int]
) -> None:
    world = world_with_agents()
    world.say(A, text("direct", sender="a", turnId="t", **address))
    assert {connection for connection in (A, B, C) if world.texts(connection)} == receivers


@pytest.mark.parametrize(
    ("address", "details"),
    [
        ({"to": "x"}, {"code": "unknown_target", "target": "x"}),
        ({"to": "b", "targetInstanceId": "x"}, {"code": "unknown_target", "target": "x"}),
        ({"to": "h"}, {"code": "ambiguous_target", "peers": ["a", "b", "c"]}),
        ({}, {"code": "bad_field"}),
    ],
    ids=str,
)
def test_5_a_direct_that_finds_nobody_is_an_error_that_echoes_the_turn(
    address: dict[str, str], details: dict[str, Any]
) -> None:
    world = world_with_agents()
    stranger = world.join("d")
    world.hush()
    world.say(stranger, text("direct", sender="d", turnId={"n": 7}, **address))
    (error,) = world.got(stranger)
    assert error["turnId"] == {"n": 7}
    assert {name: value for name, value in error["data"].items() if name != "error"} == details
    assert world.got(A) == world.got(B) == world.got(C) == []


def test_5_an_agent_that_a_heartbeat_announced_is_found() -> None:
    world = world_of("a", "b")
    world.say(B, text("heartbeat", sender="b", data={"agents": [{"name": "h"}]}))
    world.hush()
    world.say(A, text("direct", sender="a", to="h"))
    assert len(world.got(B)) == 1


# 6. Before presence -------------------------------------------------------------------------------


@pytest.mark.parametrize("type", [*FANNED_OUT, *WITHHELD, "direct", "heartbeat"])
def test_6_before_presence_nothing_is_routed(type: str) -> None:
    world = world_of("a")
    stranger = world.open()
    world.say(stranger, text(type, sender="x", to="a", turnId="t"))
    (error,) = world.got(stranger)
    assert (error["data"]["code"], error["to"], error["turnId"]) == ("not_present", None, "t")
    assert world.got(A) == []
    assert world.is_open(stranger)
    world.say(stranger, presence("x"))
    assert len(world.got(A)) == 1


def test_6_capabilities_are_answered_even_before_presence_and_to_the_asker_only() -> None:
    world = world_of("a")
    stranger = world.open()
    world.say(stranger, text("capabilities", turnId=7))
    world.say(A, text("capabilities"))
    (early,), (late,) = world.got(stranger), world.got(A)
    assert early["type"] == late["type"] == "capabilities_response"
    assert (early["to"], late["to"]) == (None, "a")
    assert early["turnId"] == 7
    assert "broadcast" in early["data"]["types"]
    assert not set(WITHHELD) & set(early["data"]["types"])


def test_6_who_is_not_present_receives_nothing() -> None:
    world = world_of("a", "b")
    stranger = world.open()
    world.say(A, text("broadcast", sender="a"), presence("a", "h"))
    world.end(B)
    assert world.got(stranger) == []


# 7. Errors go to the offender only ----------------------------------------------------------------

MANY = [f"agent-{n}" for n in range(257)]
BAD: list[tuple[Inbound, ErrorCode]] = [
    (b"", ErrorCode.MALFORMED),
    (b'{"type":"stream","data":NaN}', ErrorCode.MALFORMED),
    (b'{"type":"stream","data":' + b"9" * 5000 + b"}", ErrorCode.MALFORMED),
    (b'{"type":"stream","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", ErrorCode.MALFORMED),
    (b'{"type":"stream","data":"\xff"}', ErrorCode.MALFORMED),
    (b"[1]", ErrorCode.NOT_AN_OBJECT),
    (b"null", ErrorCode.NOT_AN_OBJECT),
    (b"{}", ErrorCode.BAD_FIELD),
    (text(""), ErrorCode.BAD_FIELD),
    (text("stream", sender=""), ErrorCode.BAD_FIELD),
    (text("stream", sender=3), ErrorCode.BAD_FIELD),
    (text("stream", to=[]), ErrorCode.BAD_FIELD),
    (text("direct"), ErrorCode.BAD_FIELD),
    (text("presence", data={}), ErrorCode.BAD_FIELD),
    (text("presence", sender="", data={}), ErrorCode.BAD_FIELD),
    (text("presence", sender="a", data="hello"), ErrorCode.BAD_FIELD),
    (text("presence", sender="a", data={"agents": [3]}), ErrorCode.BAD_FIELD),
    (text("heartbeat", data=[]), ErrorCode.BAD_FIELD),
    (Unreadable(ErrorCode.BINARY, "The protocol is text."), ErrorCode.BINARY),
    (Unreadable(ErrorCode.TOO_LARGE, "Too large."), ErrorCode.TOO_LARGE),
    (text("stream", data="x" * 2**20), ErrorCode.TOO_LARGE),
    (presence("a", host="x" * 2**16), ErrorCode.TOO_LARGE),
    (text("heartbeat", data={"agents": [{"id": "h", "x": "x" * 2**16}]}), ErrorCode.TOO_LARGE),
    (text("x" * 257), ErrorCode.TOO_LONG),
    (text("stream", sender="x" * 257), ErrorCode.TOO_LONG),
    (text("stream", instanceId="x" * 257), ErrorCode.TOO_LONG),
    (text("direct", to="x" * 257), ErrorCode.TOO_LONG),
    (text("direct", targetInstanceId="x" * 257), ErrorCode.TOO_LONG),
    (presence("x" * 257), ErrorCode.TOO_LONG),
    (presence("a", "x" * 257), ErrorCode.TOO_LONG),
    (presence("a", *MANY), ErrorCode.TOO_MANY_AGENTS),
    (text("heartbeat", data={"agents": MANY}), ErrorCode.TOO_MANY_AGENTS),
    (text("heartbeat", data={"agents": ["x" * 257]}), ErrorCode.TOO_LONG),
    (text("heartbeat", data={"agents": ["relay"]}), ErrorCode.SPOOFED),
    (presence("c"), ErrorCode.IDENTITY_FIXED),
    (text("stream", sender="b"), ErrorCode.SPOOFED),
    (text("direct", to="nobody"), ErrorCode.UNKNOWN_TARGET),
]


def test_7_an_error_says_whether_an_address_is_missing_empty_or_too_long() -> None:
    world = world_of("a", "b")
    for address, word in ({}, "needs"), ({"to": ""}, "empty"), ({"to": "x" * 257}, "characters"):
        world.say(A, text("direct", **address))
        assert word in world.got(A)[0]["data"]["error"]


@pytest.mark.parametrize(
    ("message", "code"), [pytest.param(m, c, id=f"{str(m)[:40]} {c.code}") for m, c in BAD]
)
def test_7_bad_input_is_answered_reaches_nobody_and_closes_nothing(
    message: Inbound, code: ErrorCode
) -> None:
    world = world_of("a", "b")
    before = world.peers()
    world.say(A, message)
    (error,) = world.got(A)
    assert error["data"]["code"] == code.code
    assert (error["type"], error["from"], error["to"]) == ("error", "relay", "a")
    assert world.got(B) == []
    assert world.is_open(A)
    (was,), (now,) = before["a"].connections, world.peers()["a"].connections
    assert now == attrs.evolve(was, received=was.received + 1)
    assert attrs.evolve(world.peers()["a"], connections=(was,)) == before["a"]
    assert world.peers()["b"] == before["b"]
    world.say(A, text("stream", sender="a"))
    assert len(world.got(B)) == 1


def test_7_every_error_code_is_provoked_somewhere_here() -> None:
    elsewhere = {
        ErrorCode.NOT_PRESENT,  # rule 6
        ErrorCode.AMBIGUOUS_TARGET,  # rule 5
        ErrorCode.RATE_LIMITED,  # the rate limit
        ErrorCode.UNKNOWN_TYPE,  # the strict setting
        ErrorCode.TOO_MANY_CONNECTIONS,  # rule 2
        ErrorCode.NO_ROOM,  # admission
        ErrorCode.ID_TAKEN,  # test_claims.py
        ErrorCode.REPLACED,
        ErrorCode.NOT_GRANTED,  # test_granting.py
        ErrorCode.EXPIRED,
        ErrorCode.ECHOED,  # test_echoes.py
        ErrorCode.LAGGING,  # test_lagging.py
        ErrorCode.TOO_MANY_WISHES,  # test_wishes.py
        ErrorCode.UNDECIDED,  # federation/test_federated.py
    }
    assert {code for _, code in BAD} | elsewhere == set(ErrorCode)


def test_7_the_error_stays_small_whatever_the_message_names() -> None:
    world = world_of("a", "b")
    for field in ("type", "from", "to", "instanceId", "targetInstanceId"):
        world.say(A, text(**{"type": "direct", field: "\U000e0001" * 60_000}))
    assert [len(error) < 1000 for error in world.texts(A)] == [True] * 5


def test_7_names_may_be_as_long_as_the_limit() -> None:
    world = world_of("a", "b")
    long = "x" * 256
    newcomer = world.join(long, "y" * 256)
    world.hush()
    world.say(newcomer, text("z" * 256, sender="y" * 256), text("direct", to="b"))
    assert len(world.got(B)) == 2


def test_7_the_bounds_on_bytes_are_exact() -> None:
    world = world_of("a", "b", limits=Limits(message_bytes_max=2000, presence_bytes_max=1500))
    for length, shortest in (
        (2000, text("stream", sender="a", data="")),
        (1500, presence("a", host="")),
    ):
        fits = shortest.replace(b'""', b'"' + b"x" * (length - len(shortest)) + b'"')
        world.say(A, fits)
        assert world.texts(B) == [fits]
        world.hush()
        world.say(A, fits.replace(b"xx", b"xxx", 1))
        assert world.errors(A) == ["too_large"]


def test_7_a_presence_may_not_outgrow_its_bound_by_heartbeats_or_by_tabs() -> None:
    world = world_of("b", limits=Limits(presence_bytes_max=1500))
    page = world.join("a", {"id": "h", "card": "x" * 700}, host="x" * 200)
    tab = world.open()
    world.hush()
    world.say(page, text("heartbeat", data={"agents": [{"id": "k", "card": "x" * 1250}]}))
    assert world.errors(page) == ["too_large"]
    world.say(tab, presence("a", {"id": "l", "card": "x" * 800}))
    assert world.errors(tab) == ["too_large"]
    assert world.got(1) == []
    assert world.peers()["a"].agents == ("h",)


def test_7_data_of_a_relayed_presence_is_always_an_object() -> None:
    world = world_of("b")
    for peer, fields in (("x", {}), ("y", {"data": None}), ("z", {"data": {}})):
        world.say(world.open(), text("presence", sender=peer, **fields))
    assert world.got(1) == [
        {"type": "presence", "from": peer, "data": {}} for peer in ("x", "y", "z")
    ]


def test_7_lone_surrogate_escapes_pass() -> None:
    world = world_of("a", "b")
    chunk = b'{"type":"stream","from":"a","data":{"chunk":"\\ud83d"}}'
    world.say(A, chunk)
    assert world.texts(B) == [chunk]


def test_7_agents_of_two_tabs_count_once() -> None:
    world = world_of("a", limits=Limits(agents_max=3))
    world.say(A, presence("a", "h", "k"))
    tab = world.join("a", "k", "h", "l")
    world.hush()
    world.say(tab, presence("a", "m", "n"), text("heartbeat", data={"agents": ["m", "n"]}))
    assert world.errors(tab) == ["too_many_agents", "too_many_agents"]
    assert world.peers()["a"].agents == ("h", "k", "l")


def test_7_with_the_strict_setting_unknown_types_are_refused() -> None:
    world = world_of("a", "b", strict=True)
    world.say(A, text("ring-update", sender="a"), text("stream", sender="a"))
    assert world.errors(A) == ["unknown_type"]
    assert [message["type"] for message in world.got(B)] == ["stream"]


def test_7_refusals_are_told_to_those_who_watch_but_not_one_by_one() -> None:
    world = world_of("a")
    world.notes.clear()
    for _ in range(4):
        world.say(A, b"[]", b"{}")
        world.wait(5)
    assert world.notes == [
        Refused(A, "a", ErrorCode.NOT_AN_OBJECT, 1),
        Refused(A, "a", ErrorCode.NOT_AN_OBJECT, 4),  # 10 s later
    ]
    assert world.mesh.totals.refused == 8


wild_values = st.one_of(
    st.none(),
    st.sampled_from(["a", "b", "c", "h", "relay", "", "villain"]),
    st.integers(),
    st.text(max_size=3),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["agents", "id"]), st.lists(st.text(max_size=2), max_size=2)),
)
wild_types = st.sampled_from(
    [*FANNED_OUT, *WITHHELD, "presence", "heartbeat", "direct", "capabilities", "", "x" * 300]
)
wild_messages = st.fixed_dictionaries(
    {"type": wild_types | wild_values},
    optional=dict.fromkeys(["sender", "to", "instanceId", "targetInstanceId", "data"], wild_values),
).map(lambda fields: text(**fields))
wild = st.one_of(
    wild_messages,
    json_texts.messages.map(str.encode),
    json_texts.presences().map(str.encode),
    json_texts.damaged(st.one_of(json_texts.messages, json_texts.presences())),
    st.binary(max_size=20),
    st.just(Unreadable(ErrorCode.BINARY, "The protocol is text.")),
)


@given(st.booleans(), st.lists(wild, max_size=8))
@example(True, [b'{"type":"presence","from":"villain","data":{"agents":["\xff"]}}'])
@example(False, [b'{"type":"presence","from":"a"}', b'{"type":"stream"}'])
@example(True, [b'[{"type":" "}]'])
@settings(deadline=None, max_examples=150)
def test_7_whatever_a_villain_sends_only_valid_messages_of_its_own_reach_others(
    announced: bool, messages: list[Inbound]
) -> None:
    world = world_of("a", "b")
    villain = world.join("villain") if announced else world.open()
    world.hush()
    for message in messages:
        world.say(villain, message)
        reached = [*world.texts(A), *world.texts(B)]  # the world checks that they are JSON objects
        own = {c.connection: peer for peer, s in world.peers().items() for c in s.connections}
        for found in map(loads, reached):
            assert isinstance(message, bytes)
            assert (found.get("instanceId") or found["from"]) == own[villain]
            assert found["from"] not in {"a", "b", "relay"} - {own[villain]}  # (a tab of "a"?)
            assert found["type"] not in (*WITHHELD, "heartbeat", "capabilities")
            said = loads(message)
            if found["type"] == "presence":
                assert isinstance(found["data"], dict)
            else:  # (damage may make an array of it)
                assert any(
                    {**found, **{k: v for k, v in sent.items() if v is not None}} == found
                    for sent in (said if isinstance(said, list) else [said])
                    if isinstance(sent, dict)
                )
    assert world.is_open(villain)
    assert {"a", "b"} <= set(world.peers())
    world.say(A, text("stream", sender="a"))
    assert len(world.got(B)) == 1


# The rate limit -----------------------------------------------------------------------------------


def flood(count: int, sender: str = "a") -> list[Text]:
    return [text("ring-update", sender=sender, n=n) for n in range(count)]


def test_a_burst_of_600_messages_at_once_passes() -> None:
    world = world_of("a", "b")
    world.say(A, *flood(600))
    assert [message["n"] for message in world.got(B)] == list(range(600))
    assert world.got(A) == []


def test_600_messages_a_second_pass_for_ever() -> None:
    world = world_of("a", "b")
    for _ in range(60):
        world.say(B, text("heartbeat"))
        world.say(A, *flood(600))
        world.wait(1)
    assert sum(message["type"] == "ring-update" for message in world.got(B)) == 36_000
    assert world.got(A) == [] or all(m["type"] == "presence" for m in world.got(A))


def test_a_flood_is_damped_to_the_sustained_rate() -> None:
    world = world_of("a", "b", limits=Limits(messages_per_s=100, messages_burst=200))
    passed = []
    for _ in range(50):  # 5 seconds, 1000 messages a second
        world.say(A, *flood(100))
        passed.append(len(world.got(B)))
        world.wait(0.1)
    assert sum(passed[:2]) <= 210
    assert passed[3:] == [10] * 47
    assert world.is_open(A)


def test_a_flooder_hears_at_most_one_rate_limited_a_second() -> None:
    world = world_of("a", "b", limits=Limits(messages_per_s=1, messages_burst=1))
    for _ in range(72):  # 9 seconds
        world.say(A, *flood(10))
        world.wait(0.125)
    assert world.errors(A) == ["rate_limited"] * 9
    passed = len(world.got(B))
    assert passed in (8, 9)
    assert world.mesh.totals.refused == 720 - passed


def test_no_rate_limited_is_said_where_nothing_was_dropped() -> None:
    world = World(Limits(messages_per_s=10, messages_burst=20))
    world.at = 83550.05231406682  # where the bound, half an interval on, is rounded down
    world.join("b")
    connection = world.join("a")
    world.hush()
    world.say(connection, *flood(4))
    world.wait(0.05)
    world.say(connection, *flood(16))
    assert len(world.got(1)) == 20
    assert world.errors(connection) == []


def test_a_flooder_is_heard_again_after_a_while_and_others_are_not_limited() -> None:
    world = world_of("a", "b", "c", limits=Limits(messages_per_s=10, messages_burst=20))
    world.say(A, *flood(1000))
    world.hush()
    world.say(B, *flood(19, "b"))  # its presence was one, too
    assert len(world.got(C)) == 19
    world.wait(2)
    world.say(A, *flood(20))
    assert len(world.got(C)) == 20


def test_what_passes_of_a_flood_is_its_beginning_in_order() -> None:
    world = world_of("a", "b", limits=Limits(messages_burst=51))  # the presence took one
    world.say(A, *flood(500))
    assert [message["n"] for message in world.got(B)] == list(range(50))


def test_newcomers_still_get_in_during_an_echo_storm() -> None:
    world = world_of("a", "b")
    for _ in range(5):
        world.say(A, *flood(5000))
        world.say(B, *flood(5000, "b"))
        world.wait(0.1)
    newcomer = world.open()
    world.say(newcomer, presence("c"))
    assert [message["from"] for message in world.got(newcomer)] == ["c", "a", "b"]


def test_even_refused_messages_are_signs_of_life() -> None:
    world = world_of("a", limits=Limits(messages_per_s=0.1, messages_burst=1))
    for _ in range(10):
        world.wait(29)
        world.say(A, b"", b"", b"")
    assert world.peers()["a"].state is PeerState.PRESENT


# 8. Liveness --------------------------------------------------------------------------------------


def test_8_who_is_silent_for_15_s_is_stale_and_still_routed_to() -> None:
    world = world_of("a", "b")
    world.wait(14.999)
    assert world.peers()["a"].state is PeerState.PRESENT
    world.wait(0.001)
    assert world.peers()["a"].state is PeerState.STALE
    world.say(B, text("direct", sender="b", to="a"))
    assert len(world.got(A)) == 1


def test_8_who_is_silent_for_30_s_is_reaped_not_earlier_and_the_others_hear_it_once() -> None:
    world = world_of("a", "b")
    world.wait(10)
    world.say(A, text("stream", sender="a"))
    world.say(B, text("stream", sender="b"))
    world.wait(20)
    world.say(B, text("stream", sender="b"))
    world.wait(9.999)
    assert world.is_open(A)
    world.hush()
    world.wait(0.001)
    assert (world.dismissed[A].cause, world.dismissed[A].code) == (Cause.SILENT, 1008)
    assert [message["data"]["reason"] for message in world.got(B)] == ["silent"]
    world.wait(19)
    assert world.got(B) == []


def test_8_a_stale_peer_that_speaks_is_present_again() -> None:
    world = world_of("a")
    world.wait(29.999)
    world.say(A, b"not even JSON")
    assert world.peers()["a"].state is PeerState.PRESENT
    world.wait(29.999)
    assert world.is_open(A)
    world.wait(0.001)
    assert not world.is_open(A)


@pytest.mark.parametrize(
    "message",
    [
        text("heartbeat"),
        text("stream"),
        text("configure"),
        text("direct", to="nobody"),
        b"",
        Unreadable(ErrorCode.BINARY, "The protocol is text."),
    ],
    ids=str,
)
def test_8_any_frame_is_a_sign_of_life(message: Inbound) -> None:
    world = world_of("a")
    for _ in range(10):
        world.wait(29)
        world.say(A, message)
    assert world.is_open(A)


def test_8_pongs_count_for_those_who_asked_for_it() -> None:
    world = World()
    asked, silent = world.join("a", keepalive="pong"), world.join("b")
    for _ in range(3):
        world.wait(10)
        world.pong(asked)
        world.pong(silent)
    assert world.is_open(asked)
    assert not world.is_open(silent)
    assert world.peers()["a"].state is PeerState.PRESENT


def test_8_pongs_of_who_says_nothing_count_for_a_while_only() -> None:
    """A browser answers pings for a page that is frozen."""
    world = World()
    frozen, hidden = world.join("a", keepalive="pong"), world.join("b", keepalive="pong")
    for second in range(5, 110, 5):
        world.wait(5)
        world.pong(frozen)
        world.pong(hidden)
        if second % 60 == 0:  # as often as browsers run the timers of a hidden page
            world.say(hidden, text("heartbeat"))
        assert world.is_open(hidden)
        if second == 75:
            assert world.peers()["a"].state is PeerState.PRESENT
        if second == 90:
            assert world.peers()["a"].state is PeerState.STALE
        assert world.is_open(frozen) == (second < 105)
    world.wait(100)
    assert not world.is_open(hidden)


def test_8_who_speaks_again_is_heard_again_by_its_pongs() -> None:
    world = World()
    page = world.join("a", keepalive="pong")
    for _ in range(18):
        world.wait(5)
        world.pong(page)
    assert world.peers()["a"].state is PeerState.STALE
    world.say(page, text("heartbeat"))
    for _ in range(15):
        world.wait(5)
        world.pong(page)
    assert world.peers()["a"].state is PeerState.PRESENT


def test_8_the_wish_for_pongs_can_be_taken_back_and_is_each_tabs_own() -> None:
    world = World()
    first, second = world.join("a", keepalive="pong"), world.join("a")
    world.say(first, presence("a"))
    for _ in range(3):
        world.wait(10)
        world.pong(first)
        world.pong(second)
    assert not world.is_open(first)
    assert not world.is_open(second)


def test_8_a_pong_before_presence_or_after_the_end_means_nothing() -> None:
    world = World()
    stranger = world.open()
    world.wait(29)
    world.pong(stranger)
    world.wait(1)
    assert world.dismissed[stranger].cause is Cause.UNANNOUNCED
    world.pong(stranger)
    world.say(stranger, presence("x"))
    world.end(stranger)
    assert world.got(stranger) == []


def test_8_who_does_not_announce_within_30_s_is_closed_however_much_it_talks() -> None:
    world = world_of("a")
    stranger = world.open()
    for _ in range(29):
        world.wait(1)
        world.say(A, text("heartbeat"))
        world.say(stranger, text("stream"))
    world.hush()
    world.wait(0.999)
    assert world.is_open(stranger)
    world.wait(0.001)
    assert (world.dismissed[stranger].cause, world.dismissed[stranger].code) == (
        Cause.UNANNOUNCED,
        1008,
    )
    assert world.got(A) == []  # nobody knew it


def test_8_a_mesh_that_slept_for_an_hour_reaps_everybody_once() -> None:
    world = world_of("a", "b")
    world.open()
    world.at += 3600  # nobody looked at the deadlines
    world.wait(0)
    assert set(world.dismissed) == {1, 2, 3}
    assert [note for note in world.notes if isinstance(note, PeerLeft)] == [
        PeerLeft("a", Cause.SILENT),
        PeerLeft("b", Cause.SILENT),
    ]
    assert world.mesh.deadline() is None


def test_8_a_frame_that_came_before_the_deadline_was_looked_at_counts() -> None:
    world = world_of("a")
    world.at += 31
    world.say(A, text("heartbeat"))
    world.wait(0)
    assert world.is_open(A)


def test_8_a_status_says_who_is_here_since_when_and_how_lively() -> None:
    world = World()
    world.join("a", "h", {"id": "k"}, {"color": "red"})
    world.wait(16)
    tab = world.join("a")
    world.open()
    world.wait(2)
    (status,) = world.mesh.status(world.now)
    assert (status.peer, status.agents) == ("a", ("h", "k"))
    assert status.state is PeerState.PRESENT  # its liveliest connection
    assert [(c.connection, c.state, c.silent_s) for c in status.connections] == [
        (1, PeerState.STALE, 18.0),
        (tab, PeerState.PRESENT, 2.0),
    ]


# 9. Heartbeats ------------------------------------------------------------------------------------


def test_9_a_heartbeat_is_not_forwarded_nor_answered() -> None:
    world = world_of("a", "b")
    world.say(A, text("heartbeat", sender="a", data={"agents": []}), text("heartbeat"))
    assert world.got(A) == world.got(B) == []


def test_9_a_heartbeat_that_changes_the_agents_repeats_the_presence_at_once() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", "h", host="x"))
    world.hush()
    world.say(A, text("heartbeat", sender="a", data={"agents": ["h", "k"]}))
    assert world.got(B) == [
        {"type": "presence", "from": "a", "data": {"agents": ["h", "k"], "host": "x"}}
    ]
    assert world.got(A) == []
    world.say(A, text("heartbeat", sender="a", data={"agents": ["h", "k"]}))
    assert world.got(B) == []
    newcomer = world.join("c")
    assert agents_of(world.got(newcomer)[1]) == ["h", "k"]


def test_9_a_heartbeat_without_agents_changes_none() -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", "h"))
    world.hush()
    world.say(A, text("heartbeat"), text("heartbeat", data=None), text("heartbeat", data={}))
    assert world.got(B) == []
    assert world.peers()["a"].agents == ("h",)


def test_9_a_tabs_heartbeat_speaks_for_that_tab_only() -> None:
    world = world_with_tabs()
    world.say(3, text("heartbeat", data={"agents": []}))
    assert [agents_of(message) for message in world.got(2)] == [["h"]]


def test_9_while_heartbeats_come_the_presence_is_repeated_every_20_s() -> None:
    world = world_of("a", "b")
    repeated = []
    for second in range(1, 101):
        world.wait(1)
        if second % 5 == 0:
            world.say(A, text("heartbeat"))
        world.say(B, text("stream"))
        if any(message["type"] == "presence" for message in world.got(B)):
            repeated.append(second)
    assert repeated == [20, 40, 60, 80, 100]


def test_9_a_presence_that_is_repeated_for_another_reason_counts() -> None:
    world = world_with_tabs()
    world.wait(10)
    world.end(1)  # its agent goes, and the others hear the presence
    world.wait(10)
    world.say(3, text("heartbeat"))
    world.say(2, text("heartbeat"))
    assert len(world.got(2)) == 1
    world.wait(10)
    world.say(3, text("heartbeat"))
    assert len(world.got(2)) == 1


def test_9_without_heartbeats_nothing_is_repeated() -> None:
    world = world_of("a", "b")
    for _ in range(10):
        world.wait(10)
        world.say(A, text("stream"))
        world.say(B, text("ack"))
    assert [message["type"] for message in world.got(B)] == ["stream"] * 10


# 10. Offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "reason", "close_code"),
    [
        (Cause.LEFT, "left", 1000),
        (Cause.EVICTED, "evicted", 1013),
        (Cause.CRASHED, "crashed", 1011),
    ],
)
def test_10_the_others_hear_offline_with_the_reason_and_without_agents(
    cause: Cause, reason: str, close_code: int
) -> None:
    world = world_of("a", "b")
    world.say(A, presence("a", "h"))
    world.hush()
    world.end(A, cause)
    world.end(A, Cause.LEFT)  # twice is once
    assert world.got(B) == [
        {
            "type": "presence",
            "from": "a",
            "data": {"status": "offline", "reason": reason, "agents": []},
            "timestamp": WALL_MS + 1_000_000,
        }
    ]
    assert world.got(A) == []
    assert world.dismissed[A].code == close_code


def test_10_every_cause_has_a_close_code() -> None:
    assert set(CLOSE_CODES) == set(Cause)
    assert CLOSE_CODES[Cause.SHUTDOWN] == 1001


def test_10_at_shutdown_everybody_is_dismissed_and_nobody_is_told_who_goes() -> None:
    world = world_of("a", "b")
    world.open()
    world.shut_down()
    assert {end.code for end in world.dismissed.values()} == {1001}
    assert set(world.dismissed) == {1, 2, 3}
    assert world.got(A) == world.got(B) == []
    assert world.peers() == {}
    world.wait(100)


# 11. Order ----------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["stream", "direct", "presence", "invoke"])),
        max_size=20,
    )
)
@settings(deadline=None)
def test_11_all_receivers_see_one_same_interleaving(said: list[tuple[int, str]]) -> None:
    world = world_of("a", "b", "c")
    names = {A: "a", B: "b", C: "c"}
    expected: dict[int, list[int]] = {A: [], B: [], C: []}
    for n, (sender, type) in enumerate(said):
        receivers = {
            "presence": {A, B, C},
            "direct": {sender % 3 + 1},
        }.get(type, {A, B, C} - {sender})
        for receiver in receivers:
            expected[receiver].append(n)
        to = names[sender % 3 + 1]
        world.say(sender, text(type, sender=names[sender], to=to, n=n, data={}))
    for connection, order in expected.items():
        assert [message["n"] for message in world.got(connection)] == order


# 12. Meshes ---------------------------------------------------------------------------------------


def test_12_meshes_never_see_one_another() -> None:
    one, other = world_of("a", "b"), world_of("a", "c")
    one.say(A, presence("a", "h"), text("broadcast", sender="a"))
    one.say(A, text("direct", sender="a", to="c"))
    one.end(A)
    assert other.got(A) == other.got(B) == []
    assert set(other.peers()) == {"a", "c"}


# 13. Withheld types -------------------------------------------------------------------------------


@pytest.mark.parametrize("type", WITHHELD)
def test_13_types_that_carry_credentials_are_taken_and_never_passed_on(type: str) -> None:
    world = world_of("a", "b")
    world.say(A, text(type, sender="a", to="b", data={"token": "x"}))
    assert world.got(A) == world.got(B) == []
    assert world.mesh.totals.withheld == 1


def test_13_a_token_reaches_nobody_wherever_it_stands() -> None:
    world = world_of("a", "b")
    trigger = text("trigger_github", repo="r", workflow="w", prompt="p", token="ghp_x")
    world.say(A, b"[" + trigger + b"," + text("list_github", token="ghp_x", repos=[]) + b"]")
    world.say(A, trigger.replace(b"trigger_", b"trigger\\u005f"))
    assert world.texts(A) == world.texts(B) == []
    assert world.mesh.totals.withheld == 3


@pytest.mark.parametrize("type", ["relay", "relayed", "Relay-log", "x-relay-log", "github"])
def test_13_types_that_only_look_alike_are_passed_on(type: str) -> None:
    world = world_of("a", "b")
    world.say(A, text(type, sender="a"))
    assert len(world.got(B)) == 1


def test_13_with_the_strict_setting_withheld_types_are_taken_all_the_same() -> None:
    world = world_of("a", "b", strict=True)
    world.say(A, *(text(type, sender="a") for type in WITHHELD))
    assert world.got(A) == world.got(B) == []
    assert world.mesh.totals.withheld == len(WITHHELD)


# 14. Timestamps -----------------------------------------------------------------------------------


def test_14_the_relays_timestamps_are_whole_milliseconds_and_a_senders_own_is_kept() -> None:
    world = world_of("a", "b")
    world.at += 0.0625
    world.say(A, text("capabilities"), b"[]")
    expected = WALL_MS + 1_000_062
    assert [message["timestamp"] for message in world.got(A)] == [expected, expected]
    world.say(A, b'{"type":"ack","from":"a","timestamp":"yesterday"}', b'{"type":"ack","from":"a"}')
    assert world.texts(B) == [
        b'{"type":"ack","from":"a","timestamp":"yesterday"}',
        b'{"type":"ack","from":"a"}',
    ]


# 15. Arrays ---------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(json_texts.values, json_texts.spaces, json_texts.spaces), min_size=1),
    json_texts.spaces,
)
@anything
def test_15_an_array_is_its_messages_one_after_the_other_byte_for_byte(
    parts: list[tuple[str, str, str]], before: str
) -> None:
    world = world_of("a", "b")
    texts = [f'{{"type":"stream","from":"a","data":{value}}}' for value, _, _ in parts]
    spaced = [f"{left}{text}{right}" for text, (_, left, right) in zip(texts, parts, strict=True)]
    world.say(A, f"{before}[{','.join(spaced)}]{before}".encode())
    assert world.texts(B) == [text.encode() for text in texts]
    assert world.texts(A) == []


def test_15_each_element_has_its_own_answer_and_the_order_holds() -> None:
    world = world_of("a", "b")
    world.say(
        A,
        text("broadcast", data=1),
        b'[{"type":"broadcast","data":2}, 3, {"type":"direct","to":"nobody","turnId":"t"},'
        b'[{"type":"broadcast"}], {"type":"broadcast","data":4}]',
        text("broadcast", data=5),
    )
    assert [message["data"] for message in world.got(B)] == [1, 2, 4, 5]
    codes = world.errors(A)
    assert codes == ["not_an_object", "unknown_target", "not_an_object"]


def test_15_a_peer_may_announce_and_speak_in_one_frame() -> None:
    world = world_of("a")
    newcomer = world.open()
    world.say(newcomer, b"[" + presence("b") + b"," + text("broadcast", data="hi") + b"]")
    assert [message["type"] for message in world.got(A)] == ["presence", "broadcast"]


@pytest.mark.parametrize("array", [b"[]", b"[ ]", b"[1", b"[1,]", b'[{"type":"broadcast"}}'])
def test_15_an_array_without_messages_is_none(array: bytes) -> None:
    world = world_of("a", "b")
    world.say(A, array)
    assert world.errors(A) in (["not_an_object"], ["malformed"])
    assert world.got(B) == []


def test_15_the_rate_counts_messages_and_not_frames() -> None:
    world = world_of("a", "b", limits=Limits(messages_per_s=1, messages_burst=50))
    world.wait(12)
    received = world.mesh.totals.received
    world.say(A, b"[" + b",".join(text("broadcast", data=n) for n in range(50)) + b"]")
    assert len(world.got(B)) == 50
    assert world.errors(A) == []
    assert world.mesh.totals.received - received == 50
    world.say(A, text("broadcast"))
    assert world.got(B) == []
    assert world.errors(A) == ["rate_limited"]


def test_15_of_an_array_as_many_messages_pass_as_would_one_by_one() -> None:
    broadcasts = [text("broadcast", data=n) for n in range(30)]
    for one_by_one in ([*broadcasts, *broadcasts], [b"[" + b",".join(broadcasts) + b"]"] * 2):
        world = world_of("a", "b", limits=Limits(messages_per_s=1, messages_burst=50))
        world.wait(12)
        for frame in one_by_one:
            world.say(A, frame)
        assert [message["data"] for message in world.got(B)] == [*range(30), *range(20)]
        assert world.errors(A) == ["rate_limited"]
        assert world.mesh.totals.refused == 10


def test_15_an_array_of_one_costs_no_more_than_its_message() -> None:
    world = world_of("a", "b", limits=Limits(messages_per_s=10, messages_burst=20))
    for n in range(200):  # at the sustained rate
        world.wait(0.1)
        world.say(A, b"[" + text("broadcast", data=n) + b"]")
    assert [message["data"] for message in world.got(B)] == list(range(200))
    assert world.errors(A) == []
    assert world.mesh.totals.received == 202


def test_15_an_array_that_is_refused_counts_as_one_message() -> None:
    world = world_of("a", "b", limits=Limits(messages_per_s=1, messages_burst=50))
    world.wait(12)
    received = world.mesh.totals.received
    world.say(A, *[b"[]"] * 49, text("broadcast", data=1), text("broadcast", data=2))
    assert [message["data"] for message in world.got(B)] == [1]
    assert sorted(world.errors(A)) == [*["not_an_object"] * 49, "rate_limited"]
    assert world.mesh.totals.received - received == 51


def test_15_more_messages_than_may_come_at_once_are_too_large() -> None:
    world = world_of("a", "b", limits=Limits(messages_burst=10))
    world.say(A, b"[" + b",".join(text("broadcast", data=n) for n in range(11)) + b"]")
    assert world.errors(A) == ["too_large"]
    assert world.got(B) == []


def test_15_a_large_array_is_too_large() -> None:
    limits = Limits(message_bytes_max=2000, presence_bytes_max=2000)
    world = world_of("a", "b", limits=limits)
    world.say(A, b"[" + b",".join([text("broadcast", data="x" * 50)] * 40) + b"]")
    assert world.errors(A) == ["too_large"]
    assert world.got(B) == []


@pytest.mark.parametrize(
    ("accept", "batches"),
    [
        (["batch"], True),
        (["other", "batch"], True),
        (["other"], False),
        ([], False),
        ("batch", False),
        ({"batch": 1}, False),
        (None, False),
        ([["batch"]], False),
    ],
)
def test_15_a_presence_says_whether_its_peer_accepts_arrays(accept: Any, batches: bool) -> None:
    world = World()
    connection = world.open()
    world.mesh.received(connection, [presence("a", accept=accept)], world.now)
    (admitted,) = [e for e in world.mesh.take_effects() if isinstance(e, Admitted)]
    assert admitted.accepts_batches is batches


def test_15_behind_an_edge_the_capabilities_say_what_it_allows() -> None:
    world = World()
    for is_paced in (False, True):
        connection = world.open(is_paced=is_paced)
        world.say(connection, text("capabilities"))
        (answer,) = world.got(connection)
        assert answer["data"]["accept"] == ["batch"]
        assert (answer["data"]["limits"].get("framesPerSecond") == 200) is is_paced
        assert (answer["data"]["limits"].get("frameBytes") == 32_000) is is_paced


# Totals -------------------------------------------------------------------------------------------


def test_totals_count_messages_not_deliveries() -> None:
    world = world_of("a", "b", "c")
    world.say(A, text("stream"), text("direct", to="b"), text("heartbeat"), text("configure"), b"")
    kinds = {"presence": 3, "stream": 1, "direct": 1, "heartbeat": 1, "configure": 1}
    totals = world.mesh.totals
    assert totals.types == Counter(kinds)
    counted = Totals(received=3 + 5, relayed=3 + 2, refused=1, withheld=1, joined=3)
    counted.codes["malformed"] += 1
    assert attrs.evolve(totals, types=counted.types) == counted
    world.say(A, text("invented"), text("other"))
    assert world.mesh.totals.types["other"] == 2
    world.end(C)
    assert world.mesh.totals.left == 1
    assert world.mesh.totals.causes == world.mesh.totals.closed == Counter({"left": 1})


def test_the_last_sign_of_life_is_that_of_any_peer_and_stays_when_the_last_one_left() -> None:
    world = World()
    assert world.mesh.alive_at == -math.inf
    a, b = world.join("a"), world.join("b")
    world.open()  # no peer
    world.wait(1.0)
    world.say(b, text("heartbeat"))
    heard = world.at
    world.wait(1.0)
    assert world.mesh.alive_at == heard
    world.end(b)
    assert world.mesh.alive_at == heard - 1.0
    world.wait(1.0)
    world.end(a)
    left = world.at
    world.wait(1.0)
    assert world.mesh.alive_at == left


# What existing clients do (the numbers are those of the traps in docs) ----------------------------


def test_trap_1_an_agent_acts_before_any_heartbeat_announces_it() -> None:
    world = world_of("page-1", "page-2")
    world.say(A, text("stream", sender="new-agent", to="x", instanceId="page-1", turnId="t"))
    assert [message["from"] for message in world.got(B)] == ["new-agent"]


def test_trap_2_a_local_direct_does_not_run_at_a_namesake_elsewhere() -> None:
    world = world_with_agents()
    world.say(A, text("direct", sender="h", to="h", instanceId="a", data={"command": "go"}))
    assert world.got(A) == world.got(B) == world.got(C) == []


def test_trap_2_a_command_between_local_agents_does_not_run_at_a_strangers_namesake() -> None:
    world = World()
    page, stranger = world.join("page"), world.join("stranger", "coder")  # a page announces none
    world.hush()
    command = text("direct", sender="planner", to="coder", turnId="t", data={"command": "go"})
    world.say(page, command)
    assert world.got(stranger) == []
    assert world.errors(page) == ["unknown_target"]
    for aimed in ({"targetInstanceId": "stranger"}, {"instanceId": "page"}):
        world.say(page, text("direct", sender="planner", to="coder", **aimed))
        assert [m["from"] for m in world.got(stranger)] == ["planner"]


def test_trap_3_a_custom_type_without_from_and_with_a_string_as_data_passes() -> None:
    world = world_of("a", "b")
    world.say(A, text("topic", data="hello"))
    assert world.got(B) == [{"type": "topic", "data": "hello", "from": "a"}]


def test_trap_4_agents_are_passed_on_as_they_are() -> None:
    world = world_of("b")
    card = {"agentId": "h", "name": "Helper", "tools": ["x"]}
    page = world.join("a", "k", card, {"name": "n"})
    assert [agents_of(message) for message in world.got(1)] == [["k", card, {"name": "n"}]]
    tab = world.join("a", {"id": "m"})
    assert agents_of(world.got(tab)[0]) == ["k", card, {"name": "n"}, {"id": "m"}]
    for name in ("k", "h", "n", "m"):
        world.hush()
        world.say(1, text("direct", sender="b", to=name))
        assert len(world.got(page)) == 1


def test_trap_6_echoing_pages_do_not_multiply_without_end() -> None:
    world = world_of("a", "b", "c", limits=Limits(messages_per_s=100, messages_burst=100))
    world.say(A, text("ring-update", n=0))
    sent = 0
    for _ in range(100):  # one second
        world.wait(0.01)
        for page in (A, B, C):
            echoes = [text("ring-update", n=m["n"]) for m in world.got(page) if "n" in m]
            sent += len(echoes)
            world.say(page, *echoes)
    assert sent < 3 * 2 * 250  # three pages hear two others at 100 a second and the first burst
    assert {"a", "b", "c"} == set(world.peers())


def test_trap_8_halves_of_an_emoji_arrive_as_they_were_sent() -> None:
    world = world_of("a", "b")
    halves = [
        f'{{"type":"stream","from":"a","data":"{half}"}}'.encode()
        for half in (r"\ud83d", r"\ude00")
    ]
    world.say(A, *halves)
    assert world.texts(B) == halves


def test_trap_9_a_join_in_the_middle_of_a_burst_disconnects_nobody() -> None:
    world = world_of("a", "b")
    for n in range(50):
        world.say(A, text("broadcast", sender="a", n=n))
        world.join(f"new-{n}")
    assert world.dismissed == {}
    assert [m["n"] for m in world.got(B) if m["type"] == "broadcast"] == list(range(50))


# All together -------------------------------------------------------------------------------------

actions = st.one_of(
    st.tuples(st.just("join"), st.sampled_from("abc"), st.sets(st.sampled_from("hkl"))),
    st.tuples(st.just("announce"), st.integers(0, 5), st.sets(st.sampled_from("hkl"))),
    st.tuples(st.just("heartbeat"), st.integers(0, 5), st.sets(st.sampled_from("hkl"))),
    st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from(list(Cause))),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 15, 29, 31]), st.none()),
)


@given(st.lists(actions, max_size=25))
@settings(deadline=None, max_examples=150)
def test_what_every_client_believes_is_always_the_truth(
    history: list[tuple[str, Any, Any]],
) -> None:
    world = World()
    live: dict[int, tuple[str, list[str]]] = {}  # connection: peer, agents
    beliefs: dict[int, dict[str, set[str]]] = {}  # connection: peer: agents
    for action, which, detail in history:
        chosen = sorted(live)[which % len(live)] if live and isinstance(which, int) else None
        if action == "join":
            connection = world.join(which, *sorted(detail))
            live[connection], beliefs[connection] = (which, sorted(detail)), {}
        elif action == "wait":
            world.wait(which)
        elif chosen is not None and action == "end":
            world.end(chosen, detail)
        elif chosen is not None:
            peer = live[chosen][0]
            live[chosen] = (peer, sorted(detail))
            said = {"announce": "presence", "heartbeat": "heartbeat"}[action]
            world.say(chosen, text(said, sender=peer, data={"agents": sorted(detail)}))
        for connection in world.dismissed:
            live.pop(connection, None)
        truth: dict[str, set[str]] = {}
        for peer, its in live.values():
            truth.setdefault(peer, set()).update(its)
        for connection, (own, _) in live.items():
            belief = beliefs[connection]
            for message in world.got(connection):
                if message["data"].get("status") == "offline":
                    del belief[message["from"]]  # never offline twice
                else:
                    belief[message["from"]] = set(message["data"]["agents"])
            assert {p: x for p, x in belief.items() if p != own} == {
                p: x for p, x in truth.items() if p != own
            }
        assert {peer: set(status.agents) for peer, status in world.peers().items()} == truth
    for note in world.notes:
        assert isinstance(note, PeerJoined | PeerLeft)


def test_the_peer_of_a_connection_is_known_while_it_is_here() -> None:
    world = world_of("a")
    stranger = world.open()
    assert [world.mesh.peer_of(connection) for connection in (A, stranger, 9)] == ["a", None, None]
    world.end(A)
    assert world.mesh.peer_of(A) is None


def test_a_connection_number_is_used_once() -> None:
    world = world_of("a")
    with pytest.raises(ValueError, match="already open"):
        world.mesh.opened(A, world.now)


def test_the_deadline_of_an_empty_mesh_is_never() -> None:
    world = World()
    assert world.mesh.deadline() is None
    world.open()
    assert world.mesh.deadline() == 1030.0
    assert math.isfinite(world.at)


# The bound of what is delivered -------------------------------------------------------------------

SMALL = Limits(message_bytes_max=1024, presence_bytes_max=1024)


def of_size(size: int, type: str, **fields: Any) -> bytes:
    """A message of exactly so many bytes."""
    empty = text(type, **fields, data="")
    return text(type, **fields, data="x" * (size - len(empty)))


@pytest.mark.parametrize("fields", [{}, {"sender": "an agent"}, {"instanceId": "a"}])
@pytest.mark.parametrize("type", ["stream", "direct", "something"])
def test_a_message_that_the_relay_would_make_too_long_is_refused(
    fields: dict[str, str], type: str
) -> None:
    world = world_of("a", "b", limits=SMALL)
    fields = {**fields, "to": "b"}
    world.say(1, of_size(1024, type, **fields))
    assert world.errors(1) == ["too_large"]
    assert world.got(2) == []
    world.say(1, of_size(900, type, **fields))
    (got,) = world.texts(2)
    assert 900 < len(got) <= 1024


def test_a_message_of_the_longest_size_passes_if_nothing_is_added() -> None:
    world = world_of("a", "b", limits=SMALL)
    longest = of_size(1024, "stream", sender="a")
    world.say(1, longest)
    assert world.texts(2) == [longest]


@pytest.mark.parametrize("type", ["direct", "capabilities"])
@pytest.mark.parametrize("size", [900, 1024])
def test_an_answer_does_without_the_echo_of_a_turn_id_that_would_make_it_too_long(
    type: str, size: int
) -> None:
    world = world_of("a" * 256, limits=SMALL)
    empty = text(type, to="nobody", turnId="")
    world.say(1, text(type, to="nobody", turnId="t" * (size - len(empty))))
    (answer,) = world.texts(1)
    assert len(answer) <= 1024
    assert "turnId" not in loads(answer)
    assert loads(answer)["from"] == "relay"


def test_an_error_with_many_details_stays_within_the_bound() -> None:
    world = world_of("a", limits=SMALL)
    for number in range(20):
        world.join(f"{number:03}" + "\U0001f600" * 60, "an agent")
    world.hush()
    world.say(1, text("direct", to="an agent", turnId="t"))
    (answer,) = world.texts(1)
    assert len(answer) <= 1024
    assert loads(answer)["data"]["code"] == "ambiguous_target"


def test_a_presence_stays_within_its_bound_when_a_connection_with_shorter_cards_goes() -> None:
    """The cards of two tabs differ: what is left of both would be longer than either was."""
    world = World(SMALL)
    world.join("watcher")
    first = world.join("a", "x", "y")
    for agent in ("x", "y"):
        world.join("a", {"id": agent, "card": "long" * 100})
    world.say(first, presence("a", "x", "y", note="n" * 700))
    world.hush()
    world.end(first)
    (told,) = world.texts(1)
    assert len(told) <= SMALL.presence_bytes_max
    assert loads(told)["data"]["agents"] == ["x", "y"]
    world.hush()
    world.say(1, text("direct", to="y"))
    assert [len(world.got(tab)) for tab in (3, 4)] == [1, 1]


# How many may come --------------------------------------------------------------------------------


def test_a_peer_has_at_most_so_many_connections_and_one_more_may_come_when_one_has_gone() -> None:
    world = world_of("a", "b", limits=Limits(peer_connections_max=2))
    tab = world.join("a", "x")
    world.hush()
    one_more = world.open()
    world.say(one_more, presence("a", "y"))
    assert world.errors(one_more) == ["too_many_connections"]
    assert world.got(A) == world.got(B) == []
    assert world.is_open(one_more)
    world.say(tab, presence("a", "z"))  # those that are there may announce themselves again
    assert [m["data"]["agents"] for m in world.got(B)] == [["z"]]
    world.say(one_more, presence("b"))
    world.end(tab)
    world.hush()
    world.say(world.open(), presence("a", "y"))
    assert [m["data"]["agents"] for m in world.got(B)] == [["y"]]


def test_a_heartbeat_and_an_end_cost_the_same_however_many_connections_a_peer_has() -> None:
    def costs(connections: int) -> tuple[int, int]:
        many = [f"agent-{n}" for n in range(250)]
        world = world_of("b")
        tabs = [world.join("a", *many) for _ in range(connections)]
        beat = text("heartbeat", data={"agents": ["other"]})
        changed = calls_of(lambda: world.mesh.received(tabs[0], [beat], world.now))
        ended = calls_of(lambda: world.mesh.ended(tabs[-1], Cause.LEFT, world.now))
        return changed, ended

    for few, many in zip(costs(3), costs(60), strict=True):
        assert many <= few * 1.05


def test_before_somebody_joins_the_admission_is_asked_and_its_refusal_is_told() -> None:
    asked: list[int] = []
    full = True

    def admit(presence_bytes: int) -> Refusal | None:
        asked.append(presence_bytes)
        return Refusal(ErrorCode.NO_ROOM, "full") if full else None

    world = World(admit=admit)
    newcomer = world.open()
    sent = presence("a", "x")
    world.say(newcomer, text("capabilities"), presence("a", 7), sent)
    assert [m["data"].get("code") for m in world.got(newcomer)] == [None, "bad_field", "no_room"]
    assert asked == [len(sent)]
    assert world.is_open(newcomer)
    assert world.peers() == {}
    full = False
    world.say(newcomer, sent)
    full = True
    world.say(newcomer, presence("a", "y"), text("stream"))  # who is here stays and may go on
    assert world.peers()["a"].agents == ("y",)
    assert len(asked) == 2
