"""Connections whose sockets are cut: they come back and have missed nothing, or are told so."""

import itertools
import json
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.link import ABNORMAL
from actors.relay.ledger import Ledger
from actors.relay.process import Process
from actors.relay.supervisor import Supervisor
from protocol.grants import OPEN, Grant
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh
from tests.actors.relay.test_peer import HandClock, HandTransport


def text(type: str, **fields: Any) -> bytes:
    return json.dumps({"type": type, **fields}).encode()


class World:
    """A supervisor whose connections may come back, with tokens that can be told apart."""

    def __init__(
        self, *, resumes: bool = True, ledger: Ledger | None = None, **limits: Any
    ) -> None:
        self.clock = HandClock()
        numbers = itertools.count(1)
        new_token = (lambda: f"token {next(numbers)}") if resumes else None
        self.supervisor = Supervisor(
            "m",
            Limits(**limits),
            self.clock,
            process=Process(Limits(**limits), self.clock, ledger=ledger),
            mesh=LocalMesh(Limits(**limits), new_token=new_token),
        )

    def settle(self) -> None:
        while self.supervisor.has_work:
            self.supervisor.round()

    def pass_time(self, seconds: float) -> None:
        self.clock.at += seconds
        self.supervisor.round()

    @property
    def peers(self) -> set[str]:
        return {peer.peer for peer in self.supervisor.status().peers}


class Client:
    """A peer that counts, as rule 19 has it. `got`: everything that it was told."""

    def __init__(
        self,
        world: World,
        id: str,
        *,
        asks: bool = True,
        grant: Grant = OPEN,
        is_paced: bool = False,
    ) -> None:
        self.world, self.id = world, id
        self.got: list[bytes] = []
        self.received, self.last = 0, b""
        self.sent: list[bytes] = []
        self.resume: dict[str, Any] | None = None
        self.asks = asks
        self.grant = grant
        self.is_paced = is_paced
        self.connect()
        if asks:
            self.actor.received([text("capabilities", data={"resume": {"seconds": 20}})])
        self.say("presence", origin=id, data={"agents": []})
        world.settle()
        self.read()

    def connect(self) -> None:
        self.transport = HandTransport()
        self.actor = self.world.supervisor.open(
            self.transport, is_paced=self.is_paced, grant=self.grant
        )

    def say(
        self, type: str, *, lost: bool = False, origin: str | None = None, **fields: Any
    ) -> None:
        fields |= {} if origin is None else {"from": origin}
        self.sent.append(text(type, **fields))
        if not lost:
            self.actor.received([self.sent[-1]])

    def read(self, most: int | None = None) -> None:
        """Take what is in the socket, or only so many messages of it."""
        for message in self.transport.sent[:most]:
            value = json.loads(message)
            is_answer = self.asks and value["type"] == "capabilities_response"
            answer = value["data"].get("resume") if is_answer else None
            if answer and "token" in answer:
                if "resumed" not in answer:  # the one that opens
                    self.received = 0
                self.resume = answer
            else:
                self.received += 1
                self.last = message
            self.got.append(message)
        del self.transport.sent[:most]

    def cut(self, arrived: int, *, is_noticed: bool) -> None:
        """The socket is cut after so many of the messages that are in it have arrived."""
        self.read(arrived)
        if is_noticed:
            self.actor.closed(ABNORMAL)
            self.world.settle()

    def come_back(self, **other: Any) -> dict[str, Any]:
        """Go on with a new socket. Returns what the relay says of it."""
        assert self.resume is not None
        self.connect()
        ask = {"token": self.resume["token"], "epoch": self.resume["epoch"]}
        ask |= {"received": self.received}
        if self.received:
            ask["crc"] = crc32(self.last)
        self.actor.received([text("capabilities", data={"resume": ask | other})])
        self.world.settle()
        answer: dict[str, Any] = json.loads(self.transport.sent[0])["data"]["resume"]
        if answer["resumed"]:
            for frame in self.sent[answer["taken"] :]:
                self.actor.received([frame])
            self.world.settle()
            self.read()
        return answer

    @property
    def messages(self) -> list[bytes]:
        """What others would have noticed, too."""
        return [m for m in self.got if json.loads(m)["type"] != "capabilities_response"]


def numbers(client: Client) -> list[int]:
    return [m["n"] for m in map(json.loads, client.got) if "n" in m]


@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("arrived", [0, 1, 3])
def test_what_was_missed_arrives_once_and_in_order(arrived: int, is_noticed: bool) -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    b.read()
    for n in range(3):
        a.say("stream", n=n)
    world.settle()
    b.cut(arrived, is_noticed=is_noticed)
    for n in range(3, 6):
        a.say("direct" if n == 4 else "stream", to="b", n=n)
    a.say("direct", to="nobody", n=100)
    world.settle()
    assert world.peers == {"a", "b"}
    assert b.come_back()["resumed"] is True
    a.say("stream", n=6)
    world.settle()
    b.read()
    assert numbers(b) == list(range(7))
    a.read()
    assert not [m for m in map(json.loads, a.got) if m.get("data", {}).get("status") == "offline"]


def test_what_the_relay_never_took_is_sent_again_once() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    a.say("stream", n=0)
    world.settle()
    a.say("stream", n=1)  # it is in the relay, and not decided when the other socket comes
    a.say("stream", n=2, lost=True)
    a.cut(0, is_noticed=False)
    a.come_back()
    a.say("stream", n=3)
    world.settle()
    b.read()
    assert numbers(b) == [0, 1, 2, 3]


def test_it_can_come_back_again_and_again_also_without_anything_new() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    tokens = set()
    for n in range(5):
        old = b.actor
        b.cut(0, is_noticed=bool(n % 2))
        if n != 2:
            a.say("stream", n=n)
        world.settle()
        answer = b.come_back()
        tokens.add(answer["token"])
        assert answer["resumed"]
        old.closed(1008)
    world.settle()
    assert len(tokens) == 5
    assert numbers(b) == [0, 1, 3, 4]
    assert world.supervisor.connections == 2


def test_the_old_socket_is_closed_and_its_end_changes_nothing() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    old, transport = b.actor, b.transport
    b.cut(0, is_noticed=False)
    b.come_back()
    assert transport.closed_with == 1008
    old.received([text("stream", n=1)])  # too late
    old.closed(1008)
    world.settle()
    a.read()
    assert numbers(a) == []
    assert world.peers == {"a", "b"}
    a.say("stream", n=2)
    world.settle()
    b.read()
    assert numbers(b) == [2]


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_a_clean_close_leaves_at_once(code: int) -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    b.actor.closed(code)
    world.settle()
    a.read()
    assert json.loads(a.got[-1])["data"]["reason"] == "left"
    assert b.come_back() == {"resumed": False, "reason": "unknown", "seconds": 20.0}


def test_behind_an_edge_the_end_of_a_connections_time_is_no_goodbye() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b", is_paced=True)

    def tick() -> None:
        for _ in range(10):
            world.clock.at += 0.01
            for paced in world.supervisor._paced.values():
                paced.tick()
        b.read()

    tick()
    b.actor.closed(1001)
    world.settle()
    a.say("stream", n=1)
    world.settle()
    assert b.come_back()["resumed"] is True
    tick()
    assert numbers(b) == [1]
    b.actor.closed(1000)
    world.settle()
    assert world.peers == {"a"}


def test_a_client_that_never_asked_leaves_as_ever() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b", asks=False)
    b.actor.closed(ABNORMAL)
    world.settle()
    assert world.peers == {"a"}
    assert b.resume is None
    a.read()
    assert json.loads(a.got[-1])["data"]["reason"] == "left"


def test_a_peer_is_away_for_its_time_and_then_offline_once() -> None:
    world = World(resume_s=10.0)
    a, b = Client(world, "a"), Client(world, "b")
    assert b.resume is not None
    assert b.resume["seconds"] == 10.0
    b.cut(0, is_noticed=True)
    world.pass_time(9.0)
    a.say("heartbeat")
    world.settle()
    status = {peer.peer: peer.state.value for peer in world.supervisor.status().peers}
    assert status == {"a": "present", "b": "stale"}
    world.pass_time(2.0)
    a.read()
    ends = [m for m in map(json.loads, a.got) if m.get("data", {}).get("status") == "offline"]
    assert [end["from"] for end in ends] == ["b"]
    assert world.supervisor.connections == 1
    assert b.come_back()["reason"] == "unknown"


def test_its_time_counts_from_the_cut_and_its_last_word_not_from_what_was_known_before() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    for _ in range(2):
        world.pass_time(7.0)
        a.say("heartbeat")
        b.say("heartbeat")
        world.settle()
    b.cut(99, is_noticed=True)
    for _ in range(2):
        world.pass_time(9.0)
        a.say("heartbeat")
        world.settle()
    world.pass_time(0.0)
    assert world.peers == {"a", "b"}  # it was heard 18 s ago, and has joined 32 s ago
    assert b.come_back()["resumed"] is True


def test_a_wrong_question_does_not_give_it_more_time() -> None:
    world = World(resume_s=10.0)
    Client(world, "a")
    b = Client(world, "b")
    b.cut(99, is_noticed=True)
    world.pass_time(8.0)
    assert b.come_back(crc=1)["reason"] == "count"
    world.pass_time(3.0)
    assert world.peers == {"a"}


def test_who_asks_nothing_of_this_gets_the_answer_that_others_get() -> None:
    world = World()
    a = Client(world, "a", asks=False)
    for data in (None, {}, {"x": 1}, 1, "resume", [], ["resume"]):
        a.transport.sent.clear()
        a.say("capabilities", data=data)
        world.settle()
        (answer,) = map(json.loads, a.transport.sent)
        assert answer["type"] == "capabilities_response"
        assert answer["data"]["resume"] == {"seconds": 20.0}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "another epoch": ({"epoch": "another"}, "epoch"),
    "a guessed token": ({"token": "token 99"}, "unknown"),
    "more than was sent": ({"received": 50}, "count"),
    "a number beyond all": ({"received": 2**53}, "count"),
    "another last message": ({"crc": 7}, "count"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_cannot_be_told_exactly_is_refused_and_the_peer_may_join_anew(refusal: str) -> None:
    other, reason = REFUSALS[refusal]
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    a.say("stream", n=0)
    world.settle()
    b.read()
    b.cut(0, is_noticed=True)
    a.say("stream", n=1)
    world.settle()
    answer = b.come_back(**other)
    assert answer.pop("taken", 1) == 1
    assert answer == {"resumed": False, "reason": reason, "seconds": 20.0}
    b.transport.sent.clear()
    b.actor.received([text("presence", **{"from": "b"})])
    world.settle()
    assert [json.loads(m)["from"] for m in b.transport.sent] == ["b", "a"]
    assert world.peers == {"a", "b"}
    world.pass_time(25.0)


@pytest.mark.parametrize(
    "data",
    [
        {"resume": 1},
        {"resume": {"seconds": "20"}},
        {"resume": {"seconds": -1}},
        {"resume": {"seconds": True}},
        {"resume": {"token": "t", "epoch": "e", "received": -1}},
        {"resume": {"token": "t", "epoch": "e", "received": 1.5}},
        {"resume": {"token": "t" * 101, "epoch": "e", "received": 0}},
        {"resume": {"token": "t", "epoch": "e", "received": 1, "crc": 2**32}},
        {"received": 1},
        {"received": "1"},
    ],
)
def test_what_is_asked_wrongly_is_a_bad_field(data: dict[str, Any]) -> None:
    world = World()
    a = Client(world, "a", asks=False)
    a.actor.received([text("capabilities", data=data)])
    world.settle()
    (error,) = map(json.loads, a.transport.sent)
    assert error["data"]["code"] == "bad_field"


def test_a_token_is_good_once_and_only_for_who_has_the_same_grant() -> None:
    world = World()
    a = Client(world, "a", grant=Grant(peer="a"))
    a.cut(0, is_noticed=True)
    a.grant = Grant(peer="b")
    assert a.come_back()["reason"] == "grant"
    a.grant = Grant(peer="a")
    assert a.come_back()["reason"] == "unknown"


def test_what_is_no_longer_kept_is_refused() -> None:
    world = World(history_bytes_max=5000)
    a, b = Client(world, "a"), Client(world, "b")
    b.cut(0, is_noticed=True)
    for n in range(50):
        a.say("stream", n=n, data="x" * 1000)
        world.settle()
    assert world.supervisor._comebacks.history.bytes <= 5000
    assert b.come_back()["reason"] == "history"
    assert numbers(b) == []  # and no part of it was told


def test_what_is_kept_gives_way_to_what_else_is_held() -> None:
    ledger = Ledger(200_000)
    world = World(ledger=ledger, recall_messages_max=0)
    a, b = Client(world, "a"), Client(world, "b")
    before = ledger.held - world.supervisor._comebacks.history.bytes
    for n in range(200):
        a.say("stream", n=n, data="x" * 1000)
        world.settle()
        b.read()
        assert ledger.held - before == world.supervisor._comebacks.history.bytes <= 100_000
    for client in (a, b):
        client.actor.closed(1000)
    world.settle()
    assert ledger.held == 0


@pytest.mark.parametrize("is_noticed", [True, False])
def test_who_may_not_come_back_hears_what_was_taken_where_that_is_known(is_noticed: bool) -> None:
    world = World(history_bytes_max=2000)
    a, b = Client(world, "a"), Client(world, "b")
    b.say("stream", n=1)
    b.say("stream", n=2, lost=True)
    b.cut(0, is_noticed=is_noticed)
    for _ in range(9):
        a.say("stream", data="x" * 1000)
        world.settle()
    answer = b.come_back()
    assert answer == {"resumed": False, "reason": "history", "taken": 2, "seconds": 20.0}
    assert "taken" not in b.come_back()  # its token is used up
    c = Client(world, "c")
    c.cut(99, is_noticed=is_noticed)
    answer = c.come_back(crc=1)
    assert answer == {"resumed": False, "reason": "count", "taken": 1, "seconds": 20.0}


def test_a_report_tells_what_was_taken() -> None:
    world = World()
    a = Client(world, "a")
    a.say("heartbeat")
    a.say("heartbeat")
    a.say("capabilities", data={"received": 1})
    world.settle()
    answer = json.loads(a.transport.sent[-1])
    assert answer["data"] == {"taken": len(a.sent)}


def test_what_has_arrived_once_is_not_asked_for_again() -> None:
    world = World()
    a, b = Client(world, "a"), Client(world, "b")
    for n in range(3):
        a.say("stream", n=n)
    world.settle()
    b.read()
    b.say("capabilities", data={"received": b.received})
    world.settle()
    b.cut(0, is_noticed=True)
    answer = b.come_back(received=1, crc=crc32(b.got[1]))
    assert answer["reason"] == "count"


def test_frames_that_came_at_once_with_the_question_count() -> None:
    world = World()
    transport = HandTransport()
    actor = world.supervisor.open(transport)
    actor.received(
        [
            text("heartbeat"),
            text("capabilities", data={"resume": {"seconds": 5}}),
            text("presence", **{"from": "a"}),
            text("heartbeat"),
            text("capabilities", data={"received": 0}),
            text("heartbeat"),
        ]
    )
    world.settle()
    assert json.loads(transport.sent[-1])["data"] == {"taken": 3}


def test_in_an_array_it_is_refused() -> None:
    world = World()
    a = Client(world, "a", asks=False)
    a.actor.received([b"[" + text("capabilities", data={"resume": {"seconds": 5}}) + b"]"])
    world.settle()
    assert json.loads(a.transport.sent[0])["data"]["code"] == "bad_field"


def test_where_nobody_may_come_back_nothing_is_said_of_it() -> None:
    for world in (World(resumes=False), World(resume_s=0.0)):
        a = Client(world, "a")
        assert a.resume is None
        (answer,) = [m for m in map(json.loads, a.got) if m["type"] == "capabilities_response"]
        assert "resume" not in answer["data"]


def test_whoever_comes_back_gets_what_it_wants_of_what_it_missed_and_not_more() -> None:
    world = World(announcements_burst=100)
    a, b, c = (Client(world, name) for name in "abc")
    c.say("presence", origin="c", data={"agents": [], "subscribe": {"others": False}})
    for wish, wanted in (
        ({"topics": ["t"]}, [0, 4]),
        ({"topics": ["u"]}, [1, 3]),
        (None, [0, 1, 2, 3, 4, 5]),
    ):
        b.say("presence", origin="b", data={"agents": [], "subscribe": wish})
        world.settle()
        for client in (b, c):
            client.read()
            client.got.clear()
        for n, topic in enumerate("tuv"):
            a.say("stream", n=n, topic=topic, to="b" if topic == "v" else None)
            world.settle()
        for client in (b, c):
            client.cut(0, is_noticed=True)
        for n, topic in enumerate("utv", 3):
            a.say("stream", n=n, topic=topic, to="c" if topic == "v" else None)
            world.settle()
        for client in (b, c):
            assert client.come_back()["resumed"]
        assert numbers(b) == wanted
        assert numbers(c) == [0, 1, 3, 4, 5]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2), st.sampled_from(["stream", "direct"])),
        st.tuples(st.just("say"), st.integers(0, 2), st.just("heartbeat")),
        st.tuples(st.just("lose"), st.integers(0, 2), st.just("stream")),
        st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 4)),
        st.tuples(st.just("break"), st.integers(0, 2), st.integers(0, 4)),
        st.tuples(st.just("return"), st.integers(0, 2), st.none()),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(0, 4)),
        st.tuples(st.just("round"), st.just(0), st.none()),
        st.tuples(
            st.just("want"),
            st.integers(0, 2),
            st.sampled_from([None, {"others": False}, {"topics": ["t"]}, {"types": ["x"]}]),
        ),
    ),
    max_size=40,
)


@given(steps)
@settings(deadline=None)
def test_whoever_was_cut_has_what_it_would_have_without(
    story: list[tuple[str, int, Any]],
) -> None:
    cut_world, whole_world = (World(announcements_burst=10**6) for _ in range(2))
    cut, whole = ([Client(world, name) for name in "abc"] for world in (cut_world, whole_world))
    for world, clients in ((cut_world, cut), (whole_world, whole)):
        world.settle()
        for client in clients:
            client.read()
    n = itertools.count()
    away: dict[int, list[dict[str, Any]]] = {}

    def both(who: int, **fields: Any) -> None:
        for client in (cut[who], whole[who]):
            client.say(**fields)

    for what, who, how in story:
        match what:
            case "say" | "lose" if who not in away:
                number = next(n)
                to, topic = "abc"[(who + 1) % 3], "tu"[number % 2]
                fields = {"type": how, "to": to, "topic": topic, "n": number}
                if what == "say":
                    both(who, **fields)
                else:  # it goes into a socket that is cut before it arrives
                    cut[who].say(**fields, lost=True)
                    away[who] = [fields]
                    cut_world.settle()  # what was sent before that has arrived
                    whole_world.settle()
            case "want" if who not in away:
                data = {"agents": [], "subscribe": how}
                both(who, type="presence", origin="abc"[who], data=data)
            case "cut" | "break" if who not in away:
                away[who] = []
                cut_world.settle()
                whole_world.settle()
                cut[who].cut(how, is_noticed=what == "cut")
            case "return" if who in away:
                cut_world.settle()
                whole_world.settle()
                assert cut[who].come_back()["resumed"]
                for fields in away.pop(who):
                    whole[who].say(**fields)
                    whole_world.settle()
            case "read" if who not in away:
                cut[who].read(how)
            case "round":
                cut_world.supervisor.round()
                whole_world.supervisor.round()
            case _:
                pass
    for who, unsaid in away.items():
        cut_world.settle()
        whole_world.settle()
        assert cut[who].come_back()["resumed"]
        for fields in unsaid:
            whole[who].say(**fields)
            whole_world.settle()
    cut_world.settle()
    whole_world.settle()
    for one, other in zip(cut, whole, strict=True):
        one.read()
        other.read()
        assert one.messages == other.messages
