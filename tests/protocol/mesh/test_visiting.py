"""Visits (rule 23): what is said without a connection, who may say it, and who receives it."""

from typing import Any

import attrs
import pytest

from protocol.envelope import Refusal, Text
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.routing import ROUTES, Route
from protocol.mesh.visiting import EXPLAINED_MAX, Bearers, Rates, Visit
from tests.worlds.mesh import World, text, world_of

ANN = Grant(peer="ann")


def code(receipts: list[dict[str, Any]]) -> str | None:
    """The code of the only receipt; None: it was not refused."""
    [receipt] = receipts
    if "code" in receipt:
        assert receipt["error"]
        return str(receipt["code"])
    return None


def array(*messages: Text) -> Text:
    return b"[" + b", ".join(messages) + b"]"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"sender": "a"}, "`from` 'a'"), ({"sender": "x", "instanceId": "a"}, "`instanceId` 'a'")],
)
def test_the_refusal_names_the_field_whose_name_is_taken(
    fields: dict[str, str], sentence: str
) -> None:
    [receipt] = world_of("a").visit(text("broadcast", **fields))
    assert receipt["error"].startswith(sentence)


# Who receives it ----------------------------------------------------------------------------------


def test_a_visitors_message_goes_to_everyone_as_it_was_sent() -> None:
    world = world_of("a", "b")
    said = text("broadcast", sender="cron", data={"n": 1})
    assert world.visit(said) == [{"received": 2}]
    assert world.texts(1) == world.texts(2) == [said]


def test_nobody_sees_a_visitor_come_or_go_and_it_leaves_nothing_behind() -> None:
    world = world_of("a")
    before = world.mesh.kept_bytes
    world.visit(text("direct", sender="cron", to="a"))
    assert [message["type"] for message in world.got(1)] == ["direct"]
    world.wait(1)
    assert world.got(1) == []
    assert world.notes[1:] == []
    assert set(world.peers()) == {"a"}
    assert world.mesh.kept_bytes == before
    late = world.join("b")
    assert [message["from"] for message in world.got(late)] == ["b", "a"]


@pytest.mark.parametrize("type", ["direct", "cancel"])
def test_a_direct_goes_to_one_peer_by_its_id_or_by_its_agents_name(type: str) -> None:
    world = world_of("a")
    world.join("b", "coder")
    world.join("b")
    world.hush()
    assert world.visit(text(type, sender="cron", to="coder")) == [{"received": 2}]
    assert world.visit(text(type, sender="cron", to="b")) == [{"received": 2}]
    assert world.visit(text(type, sender="cron", targetInstanceId="b")) == [{"received": 2}]
    assert len(world.got(2)) == len(world.got(3)) == 3
    assert world.got(1) == []
    [receipt] = world.visit(text(type, sender="cron", to="nobody"))
    assert receipt["code"] == "unknown_target"
    assert receipt["target"] == "nobody"


def test_of_two_peers_with_an_agent_the_visitor_must_name_one() -> None:
    world = World()
    world.join("a", "coder")
    world.join("b", "coder")
    [receipt] = world.visit(text("direct", sender="cron", to="coder"))
    assert receipt["code"] == "ambiguous_target"
    assert receipt["peers"] == ["a", "b"]


def test_received_counts_the_connections_that_get_it_and_no_others() -> None:
    world = world_of("a", "a", "ann", "ann")
    world.join("blind", grant=Grant(may_watch=False))
    world.open()  # not announced
    said = text("broadcast", sender="cron")
    assert world.visit(said) == [{"received": 4}]
    world.join("topical", subscribe={"topics": ["orders"]})
    topical = world.join("topical", subscribe={"topics": ["orders"]})
    assert world.visit(said) == [{"received": 6}]
    assert world.visit(text("broadcast", sender="cron", topic="news")) == [{"received": 4}]
    assert world.visit(text("broadcast", sender="cron", topic="orders")) == [{"received": 6}]
    assert world.visit(text("broadcast", sender="cron", to="a")) == [{"received": 6}]
    private = world.join("private", subscribe={"others": False})
    assert world.visit(text("broadcast", sender="cron", to="a")) == [{"received": 6}]
    assert world.visit(text("broadcast", sender="cron", to="private")) == [{"received": 7}]
    world.end(topical)
    world.end(private)
    world.end(1)
    assert world.visit(said) == [{"received": 4}]
    assert world.visit(text("broadcast"), ANN) == [{"received": 2}]
    ann = world.join("ann", subscribe={"types": ["price"]})
    assert world.visit(text("price"), ANN) == [{"received": 2}]
    assert world.visit(text("price", sender="cron")) == [{"received": 5}]
    world.end(ann)


def test_who_came_and_went_is_not_counted_nor_is_who_may_not_watch() -> None:
    world = world_of("a", "ann", "b")
    world.join("ann", grant=Grant(may_watch=False))
    said = text("broadcast")
    assert world.visit(said, ANN) == [{"received": 2}]
    world.end(1)
    assert world.visit(said, ANN) == [{"received": 1}]
    world.end(4)
    world.end(2)
    assert world.visit(said, ANN) == [{"received": 1}]


def test_what_visitors_say_is_counted_as_what_connections_say() -> None:
    world = world_of("a")
    said = [text("direct", sender="x", to=to) for to in ("a", "zoe")]
    world.visit(array(*said, text("my", sender="x"), text("configure", sender="x"), b"3"))
    totals = world.mesh.totals
    assert (totals.received, totals.relayed, totals.refused, totals.withheld) == (6, 3, 2, 1)
    assert totals.codes == {"unknown_target": 1, "not_an_object": 1}
    assert (totals.types["direct"], totals.types["other"], totals.types["configure"]) == (2, 1, 1)


def test_who_is_far_behind_is_spared_a_visitors_answer_and_not_counted() -> None:
    world = world_of("a")
    slow = world.join("slow", is_paced=True)
    world.fall_behind(slow)
    world.hush()
    assert world.visit(text("stream", sender="cron", turnId="t")) == [{"received": 1}]
    assert world.errors(slow) == ["lagging"]
    assert world.visit(text("stream", sender="cron")) == [{"received": 2}]


def test_what_a_visitor_says_is_told_to_who_comes_later_and_asks() -> None:
    world = world_of("a")
    said = text("broadcast", sender="cron", data="earlier")
    world.visit(said)
    late = world.join("b", claim={"history": {"messages": 5}})
    assert said in world.texts(late)


def test_what_pages_send_again_of_a_visitor_is_an_echo() -> None:
    world = World()
    page = world.join("page", pageId="p")
    world.join("a")
    world.hush()
    world.visit(text("broadcast", sender="cron", data={"n": 1}))
    world.hush()
    world.say(page, text("broadcast", sender="page", data={"n": 1}))
    assert world.errors(page) == ["echoed"]
    # A visitor is no page, so what it says twice is said twice.
    assert code(world.visit(text("broadcast", sender="cron", data={"n": 1}))) is None
    assert code(world.visit(text("broadcast", sender="other", data={"n": 1}))) is None


def test_messages_of_a_visit_arrive_in_order_among_what_others_say() -> None:
    world = world_of("a", "b")
    world.say(2, text("stream", sender="b", n=0))
    world.visit(array(*(text("stream", sender="cron", n=n) for n in (1, 2))))
    world.say(2, text("stream", sender="b", n=3))
    assert [message["n"] for message in world.got(1)] == [0, 1, 2, 3]


# Who speaks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "grant", "expected"),
    [
        ({"sender": "cron"}, Grant(), {"from": "cron"}),
        ({"sender": "cron", "instanceId": "cron"}, Grant(), {"from": "cron", "instanceId": "cron"}),
        ({"sender": "job", "instanceId": "cron"}, Grant(), {"from": "job", "instanceId": "cron"}),
        ({"instanceId": "cron"}, Grant(), {"from": "cron", "instanceId": "cron"}),
        ({}, ANN, {"from": "ann"}),
        ({"from": None}, ANN, {"from": "ann"}),
        ({"sender": "ann"}, ANN, {"from": "ann"}),
        ({"sender": "ann/cron"}, ANN, {"from": "ann/cron"}),
        ({"sender": "job"}, ANN, {"from": "job", "instanceId": "ann"}),
        ({"sender": "ann", "instanceId": "ann/x"}, ANN, {"from": "ann", "instanceId": "ann/x"}),
    ],
)
def test_the_receivers_are_told_who_speaks(
    fields: dict[str, Any], grant: Grant, expected: dict[str, str]
) -> None:
    world = world_of("a")
    assert world.visit(text("broadcast", **fields), grant) == [{"received": 1}]
    [got] = world.got(1)
    assert {name: got[name] for name in ("from", "instanceId") if name in got} == expected


@pytest.mark.parametrize(
    ("fields", "grant", "refused"),
    [
        ({}, Grant(), "bad_field"),
        ({"from": None}, Grant(), "bad_field"),
        ({"sender": ""}, Grant(), "bad_field"),
        ({"sender": ""}, ANN, "bad_field"),
        ({"sender": "x" * 257}, Grant(), "too_long"),
        ({"instanceId": "x" * 257}, Grant(), "too_long"),
        ({"sender": "x" * 257, "instanceId": "cron"}, Grant(), "too_long"),
        ({"sender": "x" * 257}, ANN, "too_long"),
        ({}, Grant(peer="x" * 257), "too_long"),
        ({"sender": 7}, Grant(), "bad_field"),
        ({"sender": "\ud83d"}, Grant(), "bad_field"),
        ({"sender": "relay"}, Grant(), "spoofed"),
        ({"sender": "relay"}, ANN, "spoofed"),
        ({"sender": "x", "instanceId": "relay"}, Grant(), "spoofed"),
        ({}, Grant(peer="relay"), "spoofed"),
        ({"sender": "job"}, Grant(peer="relay"), "spoofed"),
        # somebody who is here
        ({"sender": "a"}, Grant(), "spoofed"),
        ({"sender": "coder"}, Grant(), "spoofed"),
        ({"sender": "x", "instanceId": "a"}, Grant(), "spoofed"),
        ({"sender": "x", "instanceId": "coder"}, Grant(), "spoofed"),
        ({"sender": "a", "instanceId": "x"}, Grant(), "spoofed"),
        ({"sender": "coder", "instanceId": "x"}, Grant(), "spoofed"),
        ({"sender": "a"}, ANN, "spoofed"),
        ({"sender": "coder"}, ANN, "spoofed"),
        ({"sender": "ann/here"}, ANN, "spoofed"),
        ({"instanceId": "ann/here"}, ANN, "spoofed"),
        ({"sender": "a", "instanceId": "ann"}, ANN, "spoofed"),
        # beyond the grant
        ({"instanceId": "a"}, ANN, "not_granted"),
        ({"instanceId": "anna"}, ANN, "not_granted"),
        ({"sender": "ann", "instanceId": "bob"}, ANN, "not_granted"),
        ({"sender": "job"}, Grant(peer="ann", agents=("coder",)), "not_granted"),
        ({}, Grant(peer="ann", may_send=False), "not_granted"),
        ({"sender": "x"}, Grant(may_send=False), "not_granted"),
        ({"sender": "x", "instanceId": "y"}, Grant(agents=("coder",)), "not_granted"),
    ],
)
def test_a_visitor_takes_nobodys_name(fields: dict[str, Any], grant: Grant, refused: str) -> None:
    world = World()
    world.join("a", "coder")
    world.join("ann/here")
    world.hush()
    for type in ("broadcast", "direct"):
        assert code(world.visit(text(type, to="a", **fields), grant)) == refused
    assert world.got(1) == world.got(2) == []


def test_a_grant_for_exactly_this_id_speaks_for_the_peer_that_is_here() -> None:
    world = World()
    claim = {"claim": "a secret of ann's"}
    world.join("ann", "coder", claim=claim)
    world.join("ann", claim=claim)
    world.join("b", "coder")
    world.hush()
    assert world.visit(text("broadcast", n=1), ANN) == [{"received": 1}]
    assert world.visit(text("broadcast", sender="coder", n=2), ANN) == [{"received": 1}]
    heard = [(message["from"], message.get("instanceId")) for message in world.got(3)]
    assert heard == [("ann", None), ("coder", "ann")]
    assert world.got(1) == world.got(2) == []  # its own connections, as always
    # An agent of its own: its tabs have the message already.
    assert world.visit(text("direct", to="coder"), ANN) == [{"received": 0}]
    assert world.visit(text("direct", targetInstanceId="ann"), ANN) == [{"received": 2}]


def test_a_grant_for_exactly_this_id_has_it_although_an_agent_is_called_so() -> None:
    world = World()
    world.join("b", "ann")
    world.hush()
    assert world.visit(text("broadcast"), ANN) == [{"received": 1}]
    assert world.got(1)[0]["from"] == "ann"


def test_speaking_for_a_peer_is_no_sign_of_life() -> None:
    world = world_of("ann", "b")
    for _ in range(4):
        world.wait(9)
        world.say(2, text("heartbeat", sender="b"))
        world.visit(text("broadcast"), ANN)
    assert not world.is_open(1)
    assert world.is_open(2)


def test_an_agent_of_a_visitor_commands_no_strangers_agent_by_its_name_alone() -> None:
    world = World()
    world.join("a", "coder")
    world.hush()
    assert code(world.visit(text("direct", sender="job", to="coder"), ANN)) == "unknown_target"
    named = text("direct", sender="job", to="coder", instanceId="ann")
    assert world.visit(named, ANN) == [{"received": 1}]


# What it may say ----------------------------------------------------------------------------------


def test_types_about_a_connection_are_refused_and_change_nothing() -> None:
    world = world_of("a")
    about = [t for t, route in ROUTES.items() if route in (Route.EVERYONE, Route.RELAY)]
    assert set(about) == {"presence", "heartbeat", "capabilities"}
    for type in about:
        for grant in (Grant(), ANN, Grant(peer="a")):
            said = text(type, sender="ann", to="a", data={"agents": ["x"]})
            assert code(world.visit(said, grant)) == "bad_field"
    assert world.got(1) == []
    assert world.peers()["a"].agents == ()


def test_withheld_types_are_taken_and_go_to_nobody() -> None:
    world = world_of("a")
    for type in ("configure", "relay-auth-required", "trigger_github"):
        assert world.visit(text(type, sender="cron")) == [{"received": 0}]
    assert world.got(1) == []
    assert world.mesh.totals.withheld == 3


def test_the_relays_own_type_is_refused_and_others_where_the_relay_is_strict() -> None:
    for strict in (False, True):
        world = world_of("a", strict=strict)
        refused = [code(world.visit(text(t, sender="x"))) for t in ("capabilities_response", "my")]
        assert refused == ["spoofed", "unknown_type" if strict else None]


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", "malformed"),
        (b"nonsense", "malformed"),
        (b'{"type":"broadcast","from":"x"} {}', "malformed"),
        (b'{"type":"broadcast","from":"x","data":NaN}', "malformed"),
        (b'\xef\xbb\xbf{"type":"broadcast","from":"x"}', "malformed"),
        (b'{"type":"broadcast","from":"\xff"}', "malformed"),
        (b'{"type":"broadcast","from":"x","data":' + b"[" * 200 + b"]" * 200 + b"}", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'[{"type":"broadcast","from":"x"}', "malformed"),
        (b'[{"type":"broadcast","from":"x"},]', "malformed"),
        (b"[]", "not_an_object"),
        (b"3", "not_an_object"),
        (b'"broadcast"', "not_an_object"),
        (b"{}", "bad_field"),
        (b'{"type":""}', "bad_field"),
        (array(*[text("broadcast", sender="x")] * 2001), "too_large"),
        (b'{"type":"broadcast","from":"x","data":"' + b"x" * 2**20 + b'"}', "too_large"),
        (b'{"type":"' + b"x" * 300 + b'","from":"x"}', "too_long"),
    ],
    ids=range(18),
)
def test_a_whole_visit_that_is_wrong_is_refused_as_one(body: bytes, refused: str) -> None:
    world = world_of("a")
    assert code(world.visit(body)) == refused
    assert world.got(1) == []
    totals = world.mesh.totals
    assert (totals.received, totals.refused) == (2, 1)  # (with the presence)


def test_a_message_may_not_be_too_long_with_the_origin_that_is_added() -> None:
    world = world_of("a")
    most = world.limits.message_bytes_max
    said = text("broadcast", sender="cron", data="")
    for more, refused in ((0, None), (1, "too_large")):
        longer = said.replace(b'""', b'"' + b"x" * (most - len(said) + more) + b'"')
        assert code(world.visit(longer)) == refused
    room = most - len(text("broadcast", data="")) - len(',"from":"ann"')
    assert world.visit(text("broadcast", data="x" * room), ANN) == [{"received": 1}]
    assert code(world.visit(text("broadcast", data="x" * (room + 1)), ANN)) == "too_large"


def test_of_an_array_each_message_has_its_receipt() -> None:
    world = world_of("a")
    messages = [
        text("broadcast", sender="cron"),
        text("direct", sender="cron", to="nobody"),
        b"3",
        b"[]",
        text("broadcast", sender="a"),
        text("direct", sender="cron", to="a"),
    ]
    receipts = world.visit(b" \n" + array(*messages) + b"\n")
    assert [receipt.get("code", receipt.get("received")) for receipt in receipts] == [
        1,
        "unknown_target",
        "not_an_object",
        "not_an_object",
        "spoofed",
        1,
    ]
    assert [message["type"] for message in world.got(1)] == ["broadcast", "direct"]


def test_an_answer_explains_the_first_refusals_only() -> None:
    world = world_of("a")
    receipts = world.visit(array(*[text("direct", sender="cron", to="x" * 256)] * 100))
    explained = [receipt for receipt in receipts if "error" in receipt]
    assert explained == receipts[:EXPLAINED_MAX]
    assert receipts[EXPLAINED_MAX:] == [{"code": "unknown_target"}] * (100 - EXPLAINED_MAX)


def test_a_grant_that_has_run_out_says_nothing() -> None:
    world = world_of("a")
    ends_at_ms = world.now.wall_ms
    grant = Grant(peer="ann", ends_at_ms=ends_at_ms)
    assert code(world.visit(text("broadcast"), grant)) is None
    world.wait(world.limits.grant_grace_s)
    assert code(world.visit(text("broadcast"), grant)) == "expired"


def test_a_long_visit_is_decided_in_quanta() -> None:
    world = world_of("a", limits=Limits(quantum_messages=10, quantum_bytes=1024))
    visits = world.mesh.visits
    rates = Rates(world.limits)
    visit = Visit(array(*[text("broadcast", sender="x")] * 25), Grant(), rates)
    assert [visits.decide(visit, world.now) for _ in range(3)] == [10, 10, 5]
    assert visit.is_over
    assert len(visit.receipts) == 25
    long = text("broadcast", sender="x", data="x" * 1000)
    visit = Visit(array(*[long] * 3), Grant(), rates)
    assert [visits.decide(visit, world.now) for _ in range(3)] == [1, 1, 1]
    half = text("broadcast", sender="x", data="")
    half = half.replace(b'""', b'"' + b"x" * (512 - len(half)) + b'"')
    visit = Visit(array(*[half] * 3), Grant(), rates)
    assert [visits.decide(visit, world.now) for _ in range(2)] == [2, 1]
    assert visit.is_over


# Rates --------------------------------------------------------------------------------------------

FEW = Limits(messages_per_s=2, messages_burst=4, bytes_in_per_s=1024, bytes_in_burst=2048)


def test_what_is_beyond_the_rate_is_refused_over_all_visits_of_a_bearer() -> None:
    world = world_of("a", limits=FEW)
    rates = Rates(FEW)
    said = text("broadcast", sender="x")
    receipts = world.visit(array(*[said] * 3), rates=rates)
    receipts += world.visit(array(*[said] * 3), rates=rates)
    assert [receipt.get("code") for receipt in receipts] == [None] * 4 + ["rate_limited"] * 2
    assert code(world.visit(said, rates=rates)) == "rate_limited"
    world.wait(0.5)
    assert code(world.visit(said, rates=rates)) is None
    assert code(world.visit(said, rates=rates)) == "rate_limited"
    assert len(world.got(1)) == 5
    assert world.mesh.totals.refused == 4


def test_a_visit_that_is_refused_as_a_whole_counts_for_the_rate_too() -> None:
    world = world_of("a", limits=FEW)
    bearers = Bearers(FEW)
    for _ in range(4):
        assert code(world.visit(b"[[[", rates=bearers.admit("ann", world.now))) == "malformed"
        too_many = array(*[b"{}"] * 5)
        rates = bearers.admit("bob", world.now)
        assert code(world.visit(too_many, rates=rates)) == "too_large"
    with pytest.raises(Refusal, match="2 messages a second"):
        bearers.admit("ann", world.now)
    with pytest.raises(Refusal, match="2 messages a second"):
        bearers.admit("bob", world.now)


def test_bytes_count_for_the_rate_of_a_bearer_and_nobody_elses() -> None:
    now = Instant(100.0, 0)
    bearers = Bearers(FEW)
    bearers.admit("ann", now).bytes.take(now.at, 2047)
    assert bearers.admit("ann", now)  # the burst
    bearers.admit("ann", now).bytes.take(now.at, 1024)
    with pytest.raises(Refusal, match="1024 bytes a second") as caught:
        bearers.admit("ann", now)
    assert caught.value.code.code == "rate_limited"
    bearers.admit("bob", now)
    bearers.admit(None, now)
    bearers.admit("ann", Instant(101.0, 0))


def test_a_bearer_is_forgotten_only_when_it_is_as_good_as_new() -> None:
    limits = attrs.evolve(FEW, visitors_max=2)
    bearers, now = Bearers(limits), Instant(100.0, 0)
    for name in ("ann", "bob"):
        rates = bearers.admit(name, now)
        rates.messages.take(now.at, 3)
        rates.bytes.take(now.at, 100)
    with pytest.raises(Refusal) as caught:
        bearers.admit("cid", now)
    assert caught.value.code.code == "no_room"
    assert bearers.admit("ann", now).messages.room(now.at) == 1
    later = Instant(101.0, 0)
    bearers.admit("bob", later).messages.take(later.at, 1)
    with pytest.raises(Refusal):
        bearers.admit("cid", later)
    later = Instant(101.5, 0)  # now ann's three count no more, and bob's four do
    bearers.admit("cid", later)
    assert len(bearers) == 2
    assert bearers.admit("bob", later).messages.room(later.at) == 3


def test_many_bearers_who_came_and_went_cost_nothing() -> None:
    limits = attrs.evolve(FEW, visitors_max=10)
    bearers = Bearers(limits)
    for n in range(1000):
        bearers.admit(f"ann/{n}", Instant(float(n), 0)).messages.take(float(n), 1)
    assert len(bearers) <= 10


def test_a_visit_costs_work_for_what_it_looks_at() -> None:
    world = world_of("a", *["b"] * 60)
    world.mesh.work.take()
    world.visit(text("direct", sender="x", to="b"))
    assert world.mesh.work.take() > 0
    world.visit(text("broadcast"), Grant(peer="b"))
    assert world.mesh.work.take() > 0
