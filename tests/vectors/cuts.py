"""Vectors of a peer whose sockets are cut: hand-written ones, and seeded walks with a relay to
which it comes back (tests/worlds/cuts.py)."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from protocol.member.errors import RelayError, Unreachable
from tests.vectors.recording import Case, Recorded
from tests.vectors.stories import Story, answer, command, presence, relays
from tests.worlds.cuts import CutMember, CutRelay

ASKS: dict[str, Any] = {"resume_s": 20.0}
OFFER = {"token": "k-1", "epoch": "e-1", "seconds": 20}
EDGE_TOLD = {"framesPerSecond": 10, "frameBytes": 300, "messagesPerSecond": 1000}
LIARS = ({"from": "eve"}, {"from": "relay", "instanceId": "eve"})
SEEDS = range(6)
STEPS_OF_EACH = 70


def _said(n: int, **fields: Any) -> dict[str, Any]:
    return {"type": "stream", "from": "bob", "data": n, **fields}


def joined(name: str, told: dict[str, Any] | None = None, **setup: Any) -> Story:
    """Ann has joined over connection 1, and may come back."""
    s = begun(name, **setup)
    anew(s, told)
    return s


def begun(name: str, **setup: Any) -> Story:
    """The first connection is open, and the relay has answered nothing."""
    s = Story(name, limits={**ASKS, **setup.pop("limits", {})}, **setup)
    s.do("begin", within_s=30.0)
    open_latest(s)
    return s


def anew(s: Story, told: dict[str, Any] | None = None) -> None:
    """It joins over the latest connection, which is open, as ever."""
    s.hear(answer_to(s, "seconds", resume=OFFER))
    _be_present(s, told)


def _be_present(s: Story, told: dict[str, Any] | None = None) -> None:
    announced = turn_of(s, "presence")
    s.hear(presence("ann", "coder", turn=announced, keepalive="pong", accept=["batch"]))
    s.hear(presence("bob", "helper"))
    told = {"limits": told or {}, "accept": ["batch"]}
    s.hear(relays("capabilities_response", turn_of(s, "capabilities"), **told))


def back(s: Story, taken: int, *missed: dict[str, Any]) -> None:
    """The next connection opens, and the relay agrees. Its answer is in one frame with what was
    missed."""
    open_latest(s)
    token = f"k-{s.use}"
    s.hear(answer_to(s, "token", resume={"resumed": True, "taken": taken, **OFFER, "token": token}))
    if missed:
        s.hear(*missed)


def send(s: Story, *numbers: int, **fields: Any) -> None:
    """The program says these, and as much of it goes as may."""
    for number in numbers:
        s.do("send", {"type": "a", "n": number, **fields})
    s.pump()


def cut(s: Story, wait_s: float = 0.5) -> None:
    """The latest connection is cut."""
    s.do("closed", s.use)
    s.wait(wait_s)


def open_latest(s: Story) -> None:
    """The latest connection that is wanted opens."""
    effects = [effect for step in s.case["steps"] for effect in step["effects"]]
    s.use = [effect["connection"] for effect in effects if effect["effect"] == "Open"][-1]
    s.open(s.use)


def sent(s: Story) -> list[dict[str, Any]]:
    """What the peer has said by itself on the latest connection."""
    effects = [effect for step in s.case["steps"] for effect in step["effects"]]
    sent = [e for e in effects if e["effect"] == "Transmit" and e["connection"] == s.use]
    return [effect["message"] for effect in sent]


def turn_of(s: Story, type: str) -> str:
    """The turn id of the latest of this type."""
    turn: str = [message["turnId"] for message in sent(s) if message["type"] == type][-1]
    return turn


def answer_to(s: Story, word: str, **data: Any) -> dict[str, Any]:
    """The relay's answer to the latest `data.resume` with this word in it."""
    asked = [m["turnId"] for m in sent(s) if word in m.get("data", {}).get("resume", {})]
    return relays("capabilities_response", asked[-1], **data)


def taken_told(s: Story, taken: int, report: int = -1) -> dict[str, Any]:
    """The relay's answer to a report."""
    reports = [m["turnId"] for m in sent(s) if "received" in m.get("data", {})]
    return relays("capabilities_response", reports[report], taken=taken)


def _stories() -> Iterator[Story]:
    s = joined("after a cut it goes on: what was missed comes, what was not taken goes again")
    send(s, 1, 2, 3)
    s.hear(_said(10), _said(11))
    s.do("ask", "helper", "under way")
    s.pump()
    s.do("closed", 1)
    send(s, 4)
    s.do("send", {"type": "direct", "to": "bob", "n": 5})
    s.do("announce", ["coder", "tester"], None)
    s.wait(0.5)
    back(s, 3, _said(12), answer("turn_end", "turn-1", result=1))
    s.pump()
    s.hear(_said(13), presence("ann", "coder", "tester", turn=turn_of(s, "presence")))
    send(s, 6)
    yield s

    s = joined("also again and again, and without anything new")
    for _ in range(3):
        cut(s)
        back(s, 2)
        s.pump()
    yield s

    s = joined("the answer and what was missed may be one frame")
    cut(s)
    open_latest(s)
    s.hear(answer_to(s, "token", resume={"resumed": True, "taken": 2, **OFFER}), _said(1), _said(2))
    cut(s)
    open_latest(s)
    yield s

    s = begun("a cut before the roster is whole does not begin it anew")
    s.hear(answer_to(s, "seconds", resume=OFFER))
    s.hear(presence("ann", "coder", turn="t:2", keepalive="pong", accept=["batch"]))
    s.hear(presence("bob", "helper"))
    s.do("closed", 1)
    s.wait(0.5)
    s.do("closed", 2)
    s.wait(1.0)
    back(s, 1, presence("carol"))
    s.pump()
    s.hear(relays("capabilities_response", "t:3", limits={}))
    yield s

    for reason in ("epoch", "unknown", "history", "count", "grant", "late"):
        s = joined(f"refused ({reason}): it joins as ever, and what is in doubt is told")
        send(s, 1)
        s.do("ask", "helper", "x")
        s.pump()
        s.do("serve", None)
        s.hear(command("coder", "c-1"))
        s.do("closed", 1)
        send(s, 2)
        s.wait(0.5)
        open_latest(s)
        no = {"resumed": False, "reason": reason, "seconds": 20}
        s.hear(answer_to(s, "token", resume=no))
        anew(s)
        s.pump()
        yield s

    s = joined("refused, and the relay tells what it has taken: only the rest is in doubt")
    send(s, 1, 2, 3)
    cut(s)
    open_latest(s)
    no = {"resumed": False, "reason": "history", "taken": 4, "seconds": 20}
    s.hear(answer_to(s, "token", resume=no))
    anew(s)
    s.pump()
    yield s

    for what, type, data in (
        ("a relay without the rule", "capabilities_response", {"limits": {}}),
        ("a relay that calls it wrong", "error", {"code": "bad_field", "error": "what?"}),
    ):
        s = joined(f"{what} refuses, too")
        send(s, 1)
        cut(s)
        open_latest(s)
        told = {**answer_to(s, "token", **data), "type": type}
        for liar in LIARS:
            s.hear({**told, **liar})
        s.hear({**told, "turnId": "t:3"})
        s.hear(told)
        anew(s)
        yield s

    s = joined("an answer that cannot be right costs the socket, and then it joins as ever")
    send(s, 1)
    cut(s)
    back(s, 77)
    s.wait(0.5)
    open_latest(s)
    anew(s)
    yield s

    s = joined("when its time is over it is lost")
    send(s, 1)
    s.do("closed", 1)
    s.do("failed", 2, Unreachable("nobody there"))
    s.wait(19.0)
    s.do("send", {"type": "direct", "to": "bob", "n": 2})
    s.wait(2.0)
    open_latest(s)
    anew(s)
    s.pump()
    s.wait(9.0)
    s.pump()
    yield s

    s = joined("while the relay is asked, its time is not over", limits={"resume_s": 5.0})
    cut(s, 0.0)
    s.wait(4.5)
    open_latest(s)
    s.wait(2.0)
    s.hear(answer_to(s, "token", resume={"resumed": True, "taken": 2, **OFFER}))
    yield s

    s = joined("a socket that is cut before the relay has answered is followed by another one")
    send(s, 1)
    cut(s)
    open_latest(s)
    cut(s)
    back(s, 2)
    s.pump()
    yield s

    s = joined("an attempt that takes too long is no goodbye", limits={"join_within_s": 5.0})
    cut(s)
    open_latest(s)
    s.wait(6.0)
    back(s, 2)
    yield s

    s = begun("lost before the relay has agreed")
    _be_present(s)
    send(s, 1)
    cut(s)
    open_latest(s)
    anew(s)
    yield s

    s = joined("it reports with every heartbeat")
    for taken in (4, 6, 8):
        s.wait(10.0)
        s.hear(_said(taken), taken_told(s, taken))
    yield s

    s = joined("and after so many frames, once for each", limits={"unreported_frames_max": 3})
    for n in range(9):
        s.wait(0.125)
        send(s, n)
    s.hear(taken_told(s, 4, 0))
    for liar in LIARS:
        s.hear({**taken_told(s, 7, 1), **liar})
    s.hear(taken_told(s, 7, 1))
    s.do("closed", 1)
    s.wait(0.5)
    back(s, 8)
    s.pump()
    yield s

    quick = {"unreported_frames_max": 3, "report_every_s": 0.25}
    s = joined("but not at once again: the rest waits, also if nothing more is sent", limits=quick)
    send(s, *range(20))
    s.wait(0.125)
    send(s, 20)
    s.wait(0.25)
    send(s, 21, 22)
    s.wait(5.0)
    yield s

    s = joined("a flood is reported ten times a second", limits={"unreported_frames_max": 3})
    for n in range(32):
        send(s, *range(n, n + 4))
        s.wait(1 / 64)
    yield s

    s = joined("nothing is said while there is no connection", limits=quick)
    send(s, *range(8))
    cut(s)
    back(s, 2)
    s.pump(times=3)
    s.wait(0.125)
    s.pump()
    s.wait(1.0)
    yield s

    few = {"unconfirmed_frames_max": 6, "unreported_frames_max": 3}
    s = joined("what is not taken is bounded: what else is to be sent waits", limits=few)
    send(s, *range(8))
    s.hear(taken_told(s, 4, 0))
    s.pump()
    yield s

    s = joined("a relay that never answers a report is not waited for", limits=few)
    send(s, *range(9))
    for _ in range(4):
        s.wait(10.0)
        s.hear(_said(1))
        s.pump()
    cut(s)
    open_latest(s)
    yield s

    s = joined("after two silent heartbeats there is doubt, early enough to come back")
    s.wait(30.0)
    back(s, 1)
    s.pump()
    yield s

    s = begun("where it cannot come back, silence lasts longer")
    s.hear(answer_to(s, "seconds", limits={}))
    _be_present(s)
    s.wait(60.0)
    yield s

    s = joined("the pace holds for what goes again", told={"messagesPerSecond": 1})
    send(s, 1)
    s.wait(2.0)
    send(s, 2)
    cut(s, 0.25)
    back(s, 2)
    for _ in range(4):
        s.pump()
        s.wait(0.75)
    yield s

    s = joined("frames of several messages, behind an edge", told=EDGE_TOLD)
    send(s, 1)
    send(s, *range(2, 8))
    s.wait(0.25)
    s.pump()
    s.wait(0.25)
    s.pump()
    cut(s)
    back(s, 3)
    for _ in range(6):
        s.pump()
        s.wait(0.25)
    yield s

    s = joined("an array, and what is not all ASCII, are compared to the letter")
    s.do("received", 1, f'[{json.dumps(_said(1))}, {{"type":"caf\u00e9","from":"bob"}} ]')
    cut(s)
    open_latest(s)
    yield s

    s = joined(
        "frames of which nobody knows how many messages they have", limits={"read_bytes_max": 4096}
    )
    send(s, 1)
    s.do("received", 1, '{"type":"a","from":"bob","data":[%s[]]}' % ("[]," * 80))
    cut(s)
    back(s, 2)
    s.pump()
    s.do("received", 2, '[{"type":"a","from":"bob","data":[%s[]]}]' % ("[]," * 80))
    send(s, 2)
    cut(s)
    open_latest(s)
    anew(s)
    yield s

    s = joined("nonsense is nothing to come back to")
    send(s, 1)
    s.do("received", 1, "<html>")
    s.wait(0.5)
    open_latest(s)
    anew(s)
    yield s

    s = joined("who leaves meanwhile is told what is in doubt")
    send(s, 1)
    cut(s)
    open_latest(s)
    s.do("leave")
    s.do("end")
    yield s

    s = joined("who sleeps meanwhile says goodbye")
    send(s, 1)
    cut(s)
    open_latest(s)
    s.do("suspend")
    s.wait(1.0)
    s.do("nudge")
    open_latest(s)
    anew(s)
    yield s

    s = joined("what must not wait for a connection waits for one that may return", waits=False)
    s.do("closed", 1)
    send(s, 1)
    s.wait(0.5)
    back(s, 1)
    s.pump()
    s.do("closed", 2)
    send(s, 2)
    s.wait(30.0)
    send(s, 3)
    yield s

    queue = {"queue_messages_max": 2}
    s = joined("what is above the bounds is refused when it is lost", overfill=2, limits=queue)
    s.do("closed", 1)
    send(s, 1, 2, 3, 4, 5)
    s.wait(30.0)
    yield s


def _renewals() -> Iterator[Story]:
    def renewing(name: str) -> Story:
        s = joined(name, limits={"renew_after_s": 25.0})
        for taken in (4, 6):
            s.wait(10.0)
            s.hear(_said(taken), taken_told(s, taken))
        s.wait(5.0)
        return s

    def fenced(name: str) -> Story:
        s = renewing(name)
        s.open(2)
        send(s, 1)
        return s

    def announced(name: str) -> Story:
        s = fenced(name)
        s.hear(relays("capabilities_response", turn_of(s, "capabilities"), limits={}))
        s.use = 2
        s.hear(answer_to(s, "seconds", resume=OFFER))
        s.use = 1
        return s

    def switching(name: str) -> Story:
        s = announced(name)
        s.use = 2
        mark = presence("ann", "coder", turn=turn_of(s, "presence"), keepalive="pong")
        s.hear(mark, _said(1))
        s.use = 1
        return s

    s = renewing("cut while the next one is being made: that goes on with it")
    s.do("closed", 1)
    back(s, 6, _said(2))
    s.pump()
    yield s

    s = fenced("cut while it is fenced: the next one goes on with it")
    s.do("closed", 1)
    s.use = 2
    s.hear(answer_to(s, "token", resume={"resumed": True, "taken": 6, **OFFER}))
    s.pump()
    yield s

    s = announced("cut when the next one has announced: that one is given up")
    s.do("closed", 1)
    s.wait(0.5)
    back(s, 7, _said(2))
    s.pump()
    yield s

    s = switching("also when that one has joined")
    s.do("closed", 1)
    s.wait(0.5)
    back(s, 7, _said(1), _said(2))
    s.pump()
    yield s

    s = switching("or when the one in use is silent")
    s.do("expire")
    s.wait(9.0)
    s.sleep(25.0)
    s.wait(20.0)
    yield s

    s = switching("the next one is cut while it has joined, and nothing is in doubt")
    send(s, 2)
    s.do("closed", 2)
    s.pump()
    yield s

    s = switching("the next one is in use, and may come back itself")
    s.use = 2
    s.hear(presence("ann", "coder", turn=turn_of(s, "presence")), connection=1)
    s.pump()
    s.hear(_said(3))
    cut(s)
    back(s, 3, _said(4))
    s.pump()
    yield s


class _Walk:
    """One walk of ann, with bob, who is never cut."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        limits: dict[str, Any] = {**ASKS, "unreported_frames_max": 5, "renew_after_s": 60.0}
        setup: dict[str, Any] = {"limits": limits}
        if seed % 2:
            setup["owner"] = "a secret of the walk"
        self.recorded = Recorded(f"a random walk with cuts, seed {seed}", {"id": "ann", **setup})
        self.recorded.skips_idle = True
        self.relay = CutRelay(history_bytes_max=20_000)
        self.bob = CutMember(self.relay, "bob", agents=["helper"]).begin()
        self.ann = CutMember(self.relay, "ann", member=self.recorded).begin()
        self.count = 0

    def case(self) -> Case:
        for _ in range(STEPS_OF_EACH):
            self.recorded.roll = self.dice.choice([0.125, 0.25, 0.5])
            self._step(self.dice.choices(list(KINDS), weights=list(KINDS.values()))[0])
        self.ann.come_back()
        return self.recorded.case

    def _step(self, kind: str) -> None:
        ann, bob, dice = self.ann, self.bob, self.dice
        self.count += 1
        match kind:
            case "say":
                with suppress(RelayError):  # it stands in the step
                    ann.say("stream", self.count)
            case "bob":
                bob.say("direct" if dice.random() < 0.3 else "stream", self.count, to="ann")
                bob.settle()
            case "long":
                bob.say("stream", "x" * 3000)
                bob.settle()
            case "some":
                ann.open()
                ann.pump(dice.randrange(1, 4))
                ann.rise(dice.randrange(1, 6))
                self.relay.settle()
                ann.fall(dice.randrange(1, 6), as_array=dice.random() < 0.3)
            case "settle":
                ann.settle()
            case "cut":
                ann.cut(
                    up=dice.randrange(4), down=dice.randrange(4), is_noticed=dice.random() < 0.7
                )
            case "network":
                ann.is_network_there = dice.random() < 0.7
            case "wait":
                bob.wait(0.0)
                ann.wait(dice.choice([0.5, 3.0, 9.0]))
                bob.wait(0.0)
                bob.settle()
            case "restart" if dice.random() < 0.3:
                self.relay.starts()
                for member in (ann, bob):
                    member.cut(is_noticed=False)
                bob.come_back()


KINDS = {
    **{"say": 12, "bob": 10, "long": 2, "some": 20, "settle": 6},
    **{"cut": 6, "network": 3, "wait": 8, "restart": 2},
}
"""What may happen next in a walk, and how often."""


def cases() -> Iterator[Case]:
    """All of them."""
    for story in (*_stories(), *_renewals()):
        yield story.case
    for seed in SEEDS:
        yield _Walk(seed).case()
