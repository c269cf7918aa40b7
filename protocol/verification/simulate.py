"""A long random life of a mesh in virtual time, from a seed.

    python -m protocol.verification simulate --seed 1 --peers 10 --hours 24
    python -m protocol.verification simulate --subject tests.worlds.actor_subject:ActorSubject

`plan` makes a history out of a seed: peers that come and go, heartbeats every ten seconds, commands
and streams, and all that goes wrong: connections cut at any byte, readers that stall, floods, ids
used twice, forged and broken messages, crashes, a relay that stops and starts again. `play` lets a
subject live it, judged by the model after every event. A history does not depend on the subject, so
a failing one is made small by leaving out events for as long as it still fails, and the same seed
gives the same history and the same answers to the last byte: `digest` is over both.
"""

# ruff: noqa: T201
import argparse
import hashlib
import heapq
import importlib
import json
import logging
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from protocol.limits import Limits
from protocol.verification.model import BINARY, Message
from protocol.verification.subjects import CoreSubject, Judge, Subject

LIMITS: Final = Limits(
    messages_per_s=8.0,
    messages_burst=100,
    message_bytes_max=4096,
    presence_bytes_max=2048,
    agents_max=8,
    mailbox_messages_max=40,
    quantum_messages=16,
    round_messages_max=256,
    inbox_messages_max=64,
)
"""Every duration as in production; the bounds small, so that histories reach them."""

GRAIN_S: Final = 0.25
"""Things happen at multiples of this: exact as floats, and the rate limit stands at whole
messages."""

_HEARTBEAT_S: Final = 10.0
_AGENTS: Final = ("planner", "coder", "critic", "scout")


class Event(NamedTuple):
    """One thing that happens, at virtual time `at` (seconds), to connection `c`."""

    at: float
    what: str
    c: int = 0
    messages: tuple[Message, ...] = ()
    number: int = 0

    def __str__(self) -> str:
        shown = " ".join(
            "<binary>" if m is BINARY else m.decode("utf-8", "replace") for m in self.messages
        )
        return f"{self.at:10.2f} s  {self.what:12}{self.c:5}  {shown or self.number or ''}".rstrip()


SubjectFactory = Callable[..., Subject]
"""Called with `limits`, and `now=` seconds."""

# The plan -----------------------------------------------------------------------------------------


class _Peer:
    """What one peer is going to do. It does not listen, so that its history needs no relay."""

    def __init__(self, id: str, dice: random.Random) -> None:
        self.id = id
        self.agents = dice.sample(_AGENTS, dice.randint(0, 2))
        self.tabs: list[int] = []
        self.beat = _text("heartbeat", id, data={"agents": self.agents})

    def presence(self, dice: random.Random) -> bytes:
        data: dict[str, Any] = {"agents": self.agents, "hostname": "laptop"}
        if dice.random() < 0.1:
            data["keepalive"] = "pong"
        return _text("presence", self.id, data=data)


def _text(type: str, sender: str | None = None, **fields: Any) -> bytes:
    origin = {} if sender is None else {"from": sender}
    return json.dumps({"type": type, **origin, **fields}).encode()


_WRONG: Final[tuple[Message, ...]] = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"type":"stream","data":NaN}',
    b'{"type":1}',
    b'{"type":"stream","from":"relay"}',
    b'{"type":"stream","from":"peer-0","instanceId":"peer-1"}',
    b'{"type":"broadcast","from":"peer-0"}',
    b'{"type":"presence","from":"peer-1"}',
    b'{"type":"direct","to":"nobody","turnId":7}',
    b'{"type":"stream","data":"' + b"x" * 5000 + b'"}',
    b'{"type":"stream","data":"\xff"}',
    BINARY,
)


def plan(seed: int, peers: int, hours: float) -> Iterator[Event]:
    """The history of a seed, event by event, in order of time."""
    dice = random.Random(seed)
    here = [_Peer(f"peer-{n}", dice) for n in range(peers)]
    connections = 0
    queue: list[tuple[float, int, int, str]] = []  # (when, order, peer, what)
    order = 0

    def later(at: float, seconds: float, peer: int, what: str) -> None:
        nonlocal order
        order += 1
        grains = max(1, round(seconds / GRAIN_S))
        heapq.heappush(queue, (at + grains * GRAIN_S, order, peer, what))

    def exponential(mean_s: float) -> float:
        return dice.expovariate(1 / mean_s)

    for n in range(peers):
        later(0.0, dice.uniform(0, 60), n, "arrive")
        later(0.0, exponential(120), n, "speak")
        later(0.0, exponential(400), n, "trouble")
    if hours >= 0.5:
        later(0.0, dice.uniform(0.3, 0.7) * hours * 3600, 0, "stop the relay")
    end = hours * 3600
    while queue:
        at, _, number, what = heapq.heappop(queue)
        if at >= end:
            break
        peer = here[number]
        match what:
            case "arrive":
                connections += 1
                peer.tabs.append(connections)
                yield Event(at, "open", connections)
                yield Event(at, "send", connections, (peer.presence(dice),))
                later(at, _HEARTBEAT_S, number, f"beat {connections}")
            case "speak":
                later(at, exponential(120), number, "speak")
                if peer.tabs:
                    c = dice.choice(peer.tabs)
                    yield Event(at, "send", c, tuple(_conversation(peer, here, dice)))
            case "trouble":
                later(at, exponential(400), number, "trouble")
                for event, after in _trouble(at, peer, here, dice):
                    if isinstance(event, str):
                        later(at, after, number, event)
                    else:
                        yield event
            case "stop the relay":
                yield Event(at, "shut_down")
                for n, other in enumerate(here):
                    if other.tabs:
                        other.tabs.clear()
                        later(at, dice.uniform(0.5, 20), n, "arrive")
            case _:
                verb, _, c_text = what.partition(" ")
                c = int(c_text)
                if verb == "hidden" and dice.random() < 0.9:
                    yield Event(at, "pong", c)
                    later(at, _HEARTBEAT_S, number, what)
                if c not in peer.tabs:
                    continue
                if verb == "beat":
                    yield Event(at, "send", c, (peer.beat,))
                    later(at, _HEARTBEAT_S, number, what)
                elif verb == "read":
                    yield Event(at, "read_again", c)
                elif verb == "close":
                    peer.tabs.remove(c)
                    yield Event(at, "close", c)
                elif verb == "forget":
                    peer.tabs.remove(c)
                elif verb == "return":
                    peer.tabs.remove(c)
                    later(at, dice.uniform(1, 60), number, "arrive")
        if (
            dice.random() < 0.3
        ):  # what is on its way arrives now, in some order; else at its leisure
            yield Event(at, "settle")
        else:
            for _ in range(dice.randint(0, 4)):
                yield Event(at, "hand_over", number=dice.randint(0, 999))


def _conversation(peer: _Peer, here: Sequence[_Peer], dice: random.Random) -> Iterator[bytes]:
    """A command to somebody and its answers, as pages send them."""
    turn = f"turn-{dice.randint(0, 10**9)}"
    to = dice.choice(here).id
    kind = dice.randint(0, 5)
    if kind == 0:
        for n in range(dice.randint(1, 4)):  # a direct keeps its place among what goes to all
            type = dice.choice(("direct", "broadcast"))
            yield _text(type, peer.id, to=to, turnId=turn, data={"command": "go", "n": n})
    elif kind == 1:
        yield _text("direct", to=dice.choice(_AGENTS), targetInstanceId=to, turnId=turn)
    elif kind == 2:
        yield _text("direct", peer.id, to=dice.choice(_AGENTS), turnId=turn)
    elif kind == 3:
        yield _text("broadcast", "some-agent", turnId=turn, data={"command": "everybody"})
    elif kind == 4:
        yield _text("topic/news", data="a string")
        yield _text("capabilities", turnId=turn)
    else:
        agent = peer.agents[0] if peer.agents else peer.id
        yield _text("ack", agent, instanceId=peer.id, turnId=turn)
        for n in range(dice.randint(1, 12)):
            yield _text("stream", agent, turnId=turn, data={"chunk": "word \ud83d", "chunkNum": n})
        yield _text("turn_end", agent, turnId=turn, data={"result": "done"})


def _trouble(
    at: float, peer: _Peer, here: Sequence[_Peer], dice: random.Random
) -> Iterator[tuple[Event | str, float]]:
    """Something goes wrong with a peer: events now, and what it does later (seconds)."""
    if not peer.tabs:
        yield "arrive", 1.0
        return
    c = dice.choice(peer.tabs)
    what = dice.randint(0, 11)
    if what == 0:  # leaves, and comes back
        yield Event(at, "close", c), 0
        yield f"return {c}", GRAIN_S
    elif what == 1:  # the network fails in the middle of something
        yield Event(at, "send", c, tuple(_conversation(peer, here, dice))), 0
        yield Event(at, "drop", c, number=dice.randint(0, 9)), 0
        yield f"return {c}", GRAIN_S
    elif what == 2:  # the same, and it is back before the relay knows
        yield Event(at, "drop", c, number=dice.randint(0, 9)), 0
        yield "arrive", GRAIN_S
        yield f"forget {c}", 2 * GRAIN_S
    elif what == 3:  # another tab, for a while
        yield "arrive", 1.0
        yield f"close {c}", exponential_of(dice, 200.0)
    elif what == 4:  # does not read for a while; if it is evicted meanwhile, so be it
        yield Event(at, "stop_reading", c), 0
        yield f"read {c}", exponential_of(dice, 60.0)
    elif what == 5:  # is hidden: answers pings for a while, and sends nothing
        peer.tabs.remove(c)
        yield f"hidden {c}", _HEARTBEAT_S
        yield "arrive", dice.uniform(31, 300)
    elif what == 6:  # floods
        flood = _text("ring-update", peer.id, data={"n": 1})
        yield Event(at, "send", c, (flood,) * (LIMITS.messages_burst + dice.randint(1, 50))), 0
    elif what == 7:  # talks nonsense
        yield Event(at, "send", c, tuple(dice.choices(_WRONG, k=dice.randint(1, 3)))), 0
    elif what == 8:  # is somebody else in this tab from now on, or tries to be
        yield Event(at, "send", c, (dice.choice(here).presence(dice),)), 0
    elif what == 9:  # changes its agents
        peer.agents = dice.sample(_AGENTS, dice.randint(0, 3))
        peer.beat = _text("heartbeat", peer.id, data={"agents": peer.agents})
        yield Event(at, "send", c, (peer.presence(dice) if dice.random() < 0.5 else peer.beat,)), 0
    elif what == 10:  # what serves it crashes
        yield Event(at, "crash", c, number=dice.randint(0, 9)), 0
        yield f"return {c}", GRAIN_S
    else:
        yield Event(at, "pong", c), 0


def exponential_of(dice: random.Random, mean_s: float) -> float:
    """A random time (seconds) with this mean."""
    return dice.expovariate(1 / mean_s)


# Living it ----------------------------------------------------------------------------------------


@dataclass
class Life:
    """What came of a history."""

    events: int
    deliveries: int
    digest: str
    failure: str | None = None


def play(history: Iterator[Event] | Sequence[Event], subject: SubjectFactory) -> Life:
    """Let a subject live a history, and judge it after every event."""
    digest = hashlib.sha256()
    it = subject(LIMITS, now=0.0)
    judge = Judge(it)
    known: set[int] = set()
    last_look = 0.0
    life = Life(0, 0, "")
    try:
        for event in history:
            digest.update(repr(tuple(event)).encode())
            life.events += 1
            if event.at > it.now:
                it.pass_time(event.at - it.now)
                judge.check()
            if event.what == "shut_down":
                judge.settle()
                it.shut_down()
                for c in known:
                    it.read_again(c)
                judge.settle()
                _note(judge, life, digest)
                it.done()
                it = subject(LIMITS, now=event.at)
                judge = Judge(it)
                known.clear()
                continue
            _let(event, it, judge, known)
            if event.what == "settle":
                judge.settle()
                if event.at - last_look >= 60.0:
                    last_look = event.at
                    _look(judge)
            elif event.what != "hand_over" or not it.is_immediate:
                judge.check()
            _note(judge, life, digest)
        judge.settle()
        _note(judge, life, digest)
    except Exception as error:
        life.failure = f"{type(error).__name__}: {error}"
    life.digest = digest.hexdigest()
    return life


def _let(event: Event, it: Subject, judge: Judge, known: set[int]) -> None:
    """Let an event happen. What is about a connection that is not open any more does not."""
    _, what, c, messages, number = event
    if what == "open":
        known.add(c)
        judge.open(c)
    elif what == "hand_over":
        it.hand_over(number)
    elif c in known:
        match what:
            case "close":
                judge.close(c)
            case "drop":
                judge.drop(c, number)
            case "read_again":
                it.read_again(c)
            case _ if not judge.is_open(c):
                pass
            case "send":
                judge.send(c, *messages)
            case "pong":
                it.pong(c)
            case "stop_reading":
                it.stop_reading(c)
            case "crash":
                it.crash(c, number)


def _note(judge: Judge, life: Life, digest: "hashlib._Hash") -> None:
    for c, text in judge.transcript:
        digest.update(b"%d %d " % (c, len(text)))
        digest.update(text)
    life.deliveries += len(judge.transcript)
    judge.transcript.clear()


def _look(judge: Judge) -> None:
    """What takes longer: the subject's own promises, and invariants of the model itself."""
    judge.look()
    model = judge.model
    for c, connection in model.connections.items():
        if connection.peer is not None and connection.peer not in model.peers:
            raise AssertionError(f"connection {c} belongs to nobody")
    for id in model.peers:
        if not model.of(id):
            raise AssertionError(f"peer {id} has no connection")


# Making it small ----------------------------------------------------------------------------------


def shrink(
    history: Sequence[Event], fails: Callable[[Sequence[Event]], bool], budget_s: float
) -> list[Event]:
    """A part of a failing history that still fails, as short as `budget_s` of time allows.

    First whole kinds of events are left out, then whole connections, then chunks, down to single
    events (as ddmin does), with their time or without.
    """
    events, deadline = list(history), time.monotonic() + budget_s

    def attempt(rest: list[Event]) -> bool:
        nonlocal events
        if len(rest) < len(events) and time.monotonic() < deadline and fails(rest):
            events = rest
            return True
        return False

    for what in ("hand_over", "settle"):
        attempt([event for event in events if event.what != what])
    connections = sorted({event.c for event in events} - {0}, reverse=True)
    size = len(connections)
    while size:
        size //= 2
        for start in range(0, len(connections), max(1, size)):
            without = set(connections[start : start + max(1, size)])
            attempt([event for event in events if event.c not in without])
    size = len(events)
    while size:
        size = max(1, size // 2)
        start, shorter = 0, False
        while start < len(events) and time.monotonic() < deadline:
            rest = events[start + size :]
            if attempt(events[:start] + rest) or (
                rest and attempt(events[:start] + _earlier(rest, rest[0].at - events[start].at))
            ):
                shorter = True
            else:
                start += size
        if size == 1 and not (shorter and time.monotonic() < deadline):
            break
    return events


def _earlier(events: list[Event], seconds: float) -> list[Event]:
    return [event._replace(at=event.at - seconds) for event in events]


@dataclass
class Outcome:
    """A simulation: the life, and the minimal history if it failed."""

    seed: int
    life: Life
    minimal: list[Event]
    minimal_failure: str | None = None


def simulate(
    seed: int,
    peers: int = 10,
    hours: float = 24.0,
    subject: SubjectFactory = CoreSubject,
    *,
    shrink_s: float = 30.0,
) -> Outcome:
    """Let a mesh live. A failure is in the outcome, with the smallest history found for it."""
    life = play(plan(seed, peers, hours), subject)
    if life.failure is None:
        return Outcome(seed, life, [])
    history = [
        event for event, _ in zip(plan(seed, peers, hours), range(life.events), strict=False)
    ]
    kind = life.failure.partition(":")[0]

    def fails(events: Sequence[Event]) -> bool:
        failure = play(events, subject).failure
        return failure is not None and failure.startswith(kind)

    minimal = shrink(history, fails, shrink_s)
    return Outcome(seed, life, minimal, play(minimal, subject).failure)


# The command --------------------------------------------------------------------------------------


def _find(name: str) -> SubjectFactory:
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert callable(found)
    return found  # type: ignore[no-any-return]


def main(arguments: Sequence[str]) -> int:
    """The `simulate` command. 0: right all along; 1: a failure, with its seed and history."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__} simulate", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seed", type=int, help="default: a fresh one, printed")
    parser.add_argument("--peers", type=int, default=10)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument(
        "--subject",
        default=f"{__package__}.subjects:CoreSubject",
        help="module:callable, called with limits and now=seconds (default: the protocol core)",
    )
    parser.add_argument("--shrink-s", type=float, default=60.0, help="time to make a failure small")
    chosen = parser.parse_args(arguments)
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(2**32)
    logging.disable(logging.CRITICAL)  # crashes are made here by the hundred
    sys.path.insert(0, "")
    print(f"seed {seed}, {chosen.peers} peers, {chosen.hours:g} hours", flush=True)
    started = time.process_time()
    outcome = simulate(
        seed, chosen.peers, chosen.hours, _find(chosen.subject), shrink_s=chosen.shrink_s
    )
    spent = time.process_time() - started
    life = outcome.life
    print(f"{life.events} events, {life.deliveries} deliveries, sha256 {life.digest}")
    if life.failure is None:
        peer_hours = chosen.peers * chosen.hours
        rate = peer_hours / spent * 60
        print(f"right all along; {peer_hours:g} peer-hours in {spent:.1f} s of CPU", end="")
        print(f": {rate:.0f} in a minute")
        return 0
    print(f"WRONG: {life.failure}\n")
    print(f"{len(outcome.minimal)} events are enough ({outcome.minimal_failure}):")
    for event in outcome.minimal:
        print(event)
    asked = f"--peers {chosen.peers} --hours {chosen.hours:g} --subject {chosen.subject}"
    print(f"\nto see it again: --seed {seed} {asked}")
    return 1
