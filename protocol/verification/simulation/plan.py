"""The plan of a history: from a seed, event by event, in order of time."""

import heapq
import random
from collections.abc import Iterator
from typing import Final

from protocol.verification.simulation.events import (
    Close,
    ComeBack,
    Event,
    HandOver,
    Open,
    Pong,
    ReadAgain,
    Report,
    Send,
    Settle,
    ShutDown,
)
from protocol.verification.simulation.peers import (
    GRAIN_S,
    HEARTBEAT_S,
    AnswerPings,
    Arrive,
    Beat,
    Forget,
    GoOn,
    Intent,
    Leave,
    MeetTrouble,
    OnTab,
    Peer,
    Resume,
    Return,
    Speak,
    StopTheRelay,
    conversation,
)
from protocol.verification.simulation.troubles import Scene, choose

SPEAKS_EVERY_S: Final = 120.0
MEETS_TROUBLE_EVERY_S: Final = 400.0
"""Means over all the time of one peer (seconds)."""

STOPS_FROM_HOURS: Final = 0.5
"""A history of this length or longer has the relay stop once, somewhere in its middle."""


def plan(seed: int, peers: int, hours: float) -> Iterator[Event]:
    """The history of a seed: `peers` of them for `hours` of virtual time.

    The same arguments give the same events. They are made one by one, so a long history needs
    little memory.
    """
    yield from _Plan(seed, peers).events(hours)


class _Plan:
    def __init__(self, seed: int, peers: int) -> None:
        self.dice = random.Random(seed)
        self.here = [Peer(f"peer-{n}", self.dice) for n in range(peers)]
        self._connections = 0
        self._queue: list[tuple[float, int, int, Intent]] = []  # (when, order, peer, what)
        self._order = 0

    def events(self, hours: float) -> Iterator[Event]:
        dice = self.dice
        for n in range(len(self.here)):
            self._later(0.0, dice.uniform(0, 60), n, Arrive())
            self._later(0.0, self._exponential(SPEAKS_EVERY_S), n, Speak())
            self._later(0.0, self._exponential(MEETS_TROUBLE_EVERY_S), n, MeetTrouble())
        end = hours * 3600
        if hours >= STOPS_FROM_HOURS:
            self._later(0.0, dice.uniform(0.3, 0.7) * end, 0, StopTheRelay())
        while self._queue:
            at, _, number, intent = heapq.heappop(self._queue)
            if at >= end:
                break
            is_over = isinstance(intent, OnTab) and intent.c not in self.here[number].tabs
            if is_over and not isinstance(intent, AnswerPings):
                continue
            yield from self._happens(at, number, intent)
            yield from self._delivered(at)

    def _later(self, at: float, seconds: float, peer: int, intent: Intent) -> None:
        self._order += 1
        grains = max(1, round(seconds / GRAIN_S))
        heapq.heappush(self._queue, (at + grains * GRAIN_S, self._order, peer, intent))

    def _exponential(self, mean_s: float) -> float:
        return self.dice.expovariate(1 / mean_s)

    def _happens(self, at: float, number: int, intent: Intent) -> Iterator[Event]:
        peer = self.here[number]
        match intent:
            case Arrive(as_another):
                self._connections += 1
                peer.tabs.append(self._connections)
                yield Open(at, self._connections)
                said = peer.arrival(self.dice)
                if as_another:
                    said = (*said[:-1], self.dice.choice(self.here).presence(self.dice))
                    self._later(at, self._exponential(200.0), number, Leave(self._connections))
                yield Send(at, self._connections, said)
                self._later(at, peer.beats_every_s, number, Beat(self._connections))
            case Speak():
                self._later(at, self._exponential(SPEAKS_EVERY_S), number, intent)
                if peer.tabs:
                    c = self.dice.choice(peer.tabs)
                    yield Send(at, c, tuple(conversation(peer, self.here, self.dice)))
                    if self.dice.random() < 0.3:
                        yield Report(at, c)
            case MeetTrouble():
                self._later(at, self._exponential(MEETS_TROUBLE_EVERY_S), number, intent)
                yield from self._trouble(at, number)
            case StopTheRelay():
                yield ShutDown(at)
                for n, other in enumerate(self.here):
                    if other.tabs:
                        other.tabs.clear()
                        self._later(at, self.dice.uniform(0.5, 20), n, Arrive())
            case AnswerPings(c):
                if self.dice.random() < 0.9:
                    yield Pong(at, c)
                    self._later(at, HEARTBEAT_S, number, intent)
            case Beat(c):
                yield Send(at, c, (peer.heartbeat,))
                self._later(at, peer.beats_every_s, number, intent)
            case Resume(c):
                yield ReadAgain(at, c)
            case Leave(c):
                peer.tabs.remove(c)
                yield Close(at, c)
            case Forget(c):
                peer.tabs.remove(c)
            case GoOn(c, how, times):
                peer.tabs.remove(c)
                for n in range(times):
                    self._connections += 1
                    peer.tabs.append(self._connections)
                    yield Open(at, self._connections)
                    otherwise = peer.arrival(self.dice)
                    yield ComeBack(at, self._connections, c, how, otherwise)
                    if n:  # it does not keep more than it had
                        self._later(at, self._exponential(60.0), number, Leave(self._connections))
                    self._later(at, peer.beats_every_s, number, Beat(self._connections))
            case Return(c):
                peer.tabs.remove(c)
                self._later(at, self.dice.uniform(1, 60), number, Arrive())
            case _:
                raise AssertionError(intent)

    def _trouble(self, at: float, number: int) -> Iterator[Event]:
        peer = self.here[number]
        if not peer.tabs:
            self._later(at, 1.0, number, Arrive())
            return
        scene = Scene(at, peer, self.dice.choice(peer.tabs), self.here, self.dice)
        for step in choose(self.dice).happen(scene):
            if isinstance(step, Event):
                yield step
            else:
                intent, seconds = step
                self._later(at, seconds, number, intent)

    def _delivered(self, at: float) -> Iterator[Event]:
        """What is on its way arrives now, all of it; or some of it, in some order."""
        if self.dice.random() < 0.3:
            yield Settle(at)
        else:
            for _ in range(self.dice.randint(0, 4)):
                yield HandOver(at, self.dice.randint(0, 999))
