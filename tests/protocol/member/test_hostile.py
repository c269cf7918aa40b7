"""A relay that says anything: the peer lives on, keeps its bounds, and works with the next one."""

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.instant import Instant
from protocol.limits import MembershipLimits
from protocol.member.effects import Arrived, Close, Handle, Open, Transmit
from protocol.member.errors import RelayError
from protocol.member.lifecycle import MemberState
from protocol.member.member import Member
from protocol.member.outgoing import Frame

LIMITS = MembershipLimits(
    peers_max=3,
    roster_bytes_max=4096,
    read_bytes_max=8192,
    nesting_max=8,
    turns_max=2,
    queue_messages_max=4,
    give_up_after_s=10_000.0,
)
DEEP = "[" * 20 + "]" * 20

NUMBERS = st.one_of(
    st.sampled_from([0.5, -1, 0, True, 1e308, 5e-324, 10**400, float("inf"), float("nan")]),
    st.integers(),
    st.floats(),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda some: (
        st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=8), some, max_size=4)
    ),
    max_leaves=12,
)
BOUNDS = ("messageBytes", "messagesPerSecond", "messagesBurst", "framesPerSecond", "frameBytes")
LIMITS_TOLD = st.fixed_dictionaries({}, optional=dict.fromkeys(BOUNDS, NUMBERS | ANYTHING))
WORDS: dict[str, st.SearchStrategy[Any]] = {
    "agents": ANYTHING | st.lists(st.sampled_from(["coder", "helper"])),
    "status": st.just("offline") | ANYTHING,
    "command": ANYTHING,
    "chunk": ANYTHING,
    "result": ANYTHING,
    "error": ANYTHING,
    "code": st.sampled_from(["ambiguous_target", "rate_limited", "too_many_agents"]) | ANYTHING,
    "peers": ANYTHING,
    "accept": st.just(["batch"]) | ANYTHING,
    "limits": LIMITS_TOLD,
}
MESSAGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                *("presence", "error", "capabilities_response", "ack", "stream", "turn_end"),
                *("direct", "broadcast", "heartbeat", "capabilities", "relay-config-updated", ""),
            ]
        )
    },
    optional={
        "from": st.sampled_from(["relay", "ann", "bob", "eve", "coder", "x1", "x2"]) | ANYTHING,
        "to": st.sampled_from(["ann", "coder"]) | ANYTHING,
        "instanceId": st.sampled_from(["relay", "ann", "bob"]) | ANYTHING,
        "turnId": st.sampled_from([*(f"t:{n}" for n in range(1, 12)), "turn-1", "c"]) | ANYTHING,
        "data": st.fixed_dictionaries({}, optional=WORDS) | ANYTHING,
    },
)
FRAMES = st.one_of(
    MESSAGES.map(json.dumps),
    st.lists(MESSAGES, max_size=4).map(json.dumps),
    ANYTHING.map(json.dumps),
    st.text(),
    st.binary(),
    st.sampled_from([f'{{"type":"a","data":{DEEP}}}', f'[{{"type":"a","data":{DEEP}}}]']),
    st.just("[" * 300),
)
DOINGS = ("ask", "serve", "announce", "nudge", "send", "answer", "wait", "late")
USUAL = {"limits": {"messageBytes": 9999, "messagesPerSecond": 10, "messagesBurst": 1}}
SANE = {"type": "capabilities_response", "from": "relay", "data": USUAL}


class Victim:
    """Ann, with connections to relays that a test plays."""

    def __init__(self) -> None:
        self.at = 1000.0
        nonces, turns = itertools.count(1), itertools.count(1)
        self.member = Member(
            "ann",
            ["coder"],
            {},
            LIMITS,
            token="t",
            nonce=lambda: str(next(nonces)),
            roll=lambda: 0.5,
            turn_id=lambda: f"turn-{next(turns)}",
        )
        self.connection = 0
        self.commands: list[int] = []
        self.said: list[dict[str, Any]] = []
        self.arrived: list[Arrived] = []
        self.member.begin(self.now)
        self.obey()

    @property
    def now(self) -> Instant:
        return Instant(self.at, int(self.at * 1000))

    def obey(self) -> None:
        while effects := self.member.take_effects():
            for effect in effects:
                match effect:
                    case Open(number):
                        self.connection = number
                        self.said = []
                        self.member.opened(number, self.now)
                    case Transmit(_, text):
                        self.said.append(json.loads(text))
                    case Close(number) if number == self.connection:
                        self.connection = 0
                    case Handle(command=command):
                        self.commands.append(command)
                    case Arrived():
                        self.arrived.append(effect)

    def hear(self, frame: str | bytes) -> None:
        """A frame arrives, if need be on the next connection."""
        if not self.connection:
            self.join()
        self.read(frame)

    def read(self, frame: str | bytes) -> None:
        self.member.received(self.connection, frame, self.now)
        self.obey()

    def tell(self, limits: dict[str, Any]) -> None:
        """The relay tells its bounds, which it is asked for."""
        self.do("nudge")
        asked = [said["turnId"] for said in self.said if said["type"] == "capabilities"]
        told = {**SANE, "turnId": asked[-1] if asked else None, "data": {"limits": limits}}
        self.hear(json.dumps(told))

    def wait(self, seconds: float) -> None:
        until = self.at + seconds
        while (due := self.member.deadline()) is not None and due <= until:
            self.at = max(self.at, due)
            self.member.expire(self.now)
            self.obey()
        self.at = until

    def join(self) -> None:
        """A relay that knows its trade takes the next connection, as soon as it is made."""
        for _ in range(60):
            if self.member.is_in_use or self.member.state is MemberState.ENDED:
                return
            if self.connection:
                self.answer()
            else:
                self.wait(1.0)

    def answer(self) -> None:
        """The relay says what it has to say to what it has heard on this connection."""
        for said in self.said:
            if said["type"] == "presence":
                self.read(json.dumps(said))
            elif said["type"] == "capabilities":
                self.read(json.dumps({**SANE, "turnId": said["turnId"]}))

    def do(self, doing: str) -> None:
        member, now = self.member, self.now
        try:
            match doing:
                case "ask":
                    member.ask("helper", "x", now, timeout_s=20.0)
                case "serve":
                    member.serve(None, now)
                case "announce":
                    member.announce(["coder", "x"], None, now)
                case "nudge":
                    member.nudge(now)
                case "send":
                    member.send({"type": "a"}, now)
                case "answer":
                    for command in self.commands:
                        member.stream(command, "x", now)
                        member.finish(command, 1, now)
                case "wait":
                    self.wait(11.0)
                case "late":
                    self.at += 100.0
                    member.expire(now)
        except RelayError:
            pass
        member.next_frame(self.connection, self.now)
        self.obey()

    def check(self) -> None:
        member = self.member
        assert len(member.roster) <= LIMITS.peers_max
        assert member.queued <= LIMITS.queue_messages_max + LIMITS.turns_max
        assert all(effect.size <= LIMITS.read_bytes_max for effect in self.arrived)
        assert (member.deadline() is None) == (member.state is MemberState.ENDED)


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(), st.lists(FRAMES | FRAMES | LIMITS_TOLD | st.sampled_from(DOINGS), max_size=25)
)
def test_whatever_a_relay_says_the_peer_lives_on(
    joins: bool, steps: list[str | bytes | dict[str, Any]]
) -> None:
    victim = Victim()
    if joins:
        victim.join()
    for step in steps:
        if isinstance(step, dict):
            victim.tell(step)
        elif step in DOINGS:
            victim.do(str(step))
        else:
            victim.hear(step)
        victim.check()
    if victim.member.state is MemberState.ENDED:
        assert not joins  # whoever was never present may be told for good that this is no relay
        return
    victim.member.closed(victim.connection, victim.now)
    victim.obey()
    victim.join()
    victim.answer()
    assert victim.member.state is MemberState.PRESENT
    assert victim.member.roster == {}
    works(victim)


def works(victim: Victim) -> None:
    """What is sent, goes; what arrives, arrives."""
    member = victim.member
    for _ in range(100):
        if isinstance(member.next_frame(victim.connection, victim.now), Frame):
            continue
        if member.queued == 0:
            break
        victim.wait(1.0)
        victim.answer()  # a sane relay gives the signs of life that it is asked for
    assert member.queued == 0
    for _ in range(3):
        member.send({"type": "a", "data": "x" * 1000}, victim.now)
        victim.wait(1.0)
        assert isinstance(member.next_frame(victim.connection, victim.now), Frame)
    victim.hear('{"type":"hello","from":"bob"}')
    assert victim.arrived[-1].message.type == "hello"
