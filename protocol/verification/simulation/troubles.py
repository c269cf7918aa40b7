"""The trouble that befalls a peer: how it begins, and what the peer does because of it."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from protocol.verification.simulation.events import (
    Break,
    Close,
    Crash,
    Drop,
    Event,
    Pong,
    Report,
    Send,
    StopReading,
)
from protocol.verification.simulation.peers import (
    BURST,
    GRAIN_S,
    HEARTBEAT_S,
    WRONG,
    AnswerPings,
    Arrive,
    Forget,
    GoOn,
    Intent,
    Leave,
    Peer,
    Resume,
    Return,
    conversation,
    text,
)
from protocol.verification.subjects.counting import HOW


@attrs.frozen
class Scene:
    """Where trouble happens: the peer and one of its connections, everybody, the time, the dice."""

    at: float
    peer: Peer
    c: int
    here: Sequence[Peer]
    dice: random.Random

    def exponential(self, mean_s: float) -> float:
        """A random time (seconds) with this mean."""
        return self.dice.expovariate(1 / mean_s)


Later = tuple[Intent, float]
"""What the peer is going to do because of the trouble, and in how many seconds."""

Course = Iterator[Event | Later]
"""How a trouble goes: events that happen at once, and what the peer does later."""


def leaves_and_comes_back(scene: Scene) -> Course:
    """It closes cleanly, and connects again later."""
    yield Close(scene.at, scene.c)
    yield Return(scene.c), GRAIN_S


def is_cut_off_in_the_middle(scene: Scene) -> Course:
    """The network fails while it says something; it comes back later."""
    yield Send(scene.at, scene.c, tuple(conversation(scene.peer, scene.here, scene.dice)))
    yield Drop(scene.at, scene.c, scene.dice.randint(0, 9))
    yield Return(scene.c), GRAIN_S


def reconnects_at_once(scene: Scene) -> Course:
    """The network fails, and it is back before the relay knows."""
    yield Drop(scene.at, scene.c, scene.dice.randint(0, 9))
    yield Arrive(), GRAIN_S
    yield Forget(scene.c), 2 * GRAIN_S


def is_cut_and_comes_back(scene: Scene) -> Course:
    """The network fails while it says something, and it goes on as if nothing had happened; or it
    comes too late."""
    yield Send(scene.at, scene.c, tuple(conversation(scene.peer, scene.here, scene.dice)))
    yield Drop(scene.at, scene.c, scene.dice.randint(0, 9))
    yield GoOn(scene.c), scene.exponential(8.0)


def is_cut_unnoticed_and_comes_back(scene: Scene) -> Course:
    """The same, and the relay believes that the old connection is there."""
    yield Send(scene.at, scene.c, tuple(conversation(scene.peer, scene.here, scene.dice)))
    yield Break(scene.at, scene.c, scene.dice.randint(0, 9))
    yield GoOn(scene.c), scene.exponential(8.0)


def is_cut_and_comes_back_wrongly(scene: Scene) -> Course:
    """It comes back with a wrong count or token, or twice at once."""
    yield Report(scene.at, scene.c)
    cut = scene.dice.choice((Drop, Break))
    yield cut(scene.at, scene.c, scene.dice.randint(0, 9))
    yield GoOn(scene.c, scene.dice.choice(HOW), scene.dice.randint(1, 2)), scene.exponential(8.0)


def is_robbed(scene: Scene) -> Course:
    """Somebody else has its token, and goes on with its connection while it is there."""
    yield GoOn(scene.c), GRAIN_S


def opens_another_tab(scene: Scene) -> Course:
    """It has one more connection for a while."""
    yield Arrive(), 1.0
    yield Leave(scene.c), scene.exponential(200.0)


def steals_an_id(scene: Scene) -> Course:
    """It opens a connection as somebody else, or tries to."""
    yield Arrive(as_another=True), GRAIN_S


def stops_reading(scene: Scene) -> Course:
    """It does not read for a while; if it is evicted meanwhile, so be it."""
    yield StopReading(scene.at, scene.c)
    yield Resume(scene.c), scene.exponential(60.0)


def is_hidden(scene: Scene) -> Course:
    """A page in the background: answers pings for a while, and sends nothing."""
    scene.peer.tabs.remove(scene.c)
    yield AnswerPings(scene.c), HEARTBEAT_S
    yield Arrive(), scene.dice.uniform(31, 300)


def floods(scene: Scene) -> Course:
    """It sends more at once than it may."""
    message = text("ring-update", scene.peer.id, data={"n": 1})
    yield Send(scene.at, scene.c, (message,) * (BURST + scene.dice.randint(1, 50)))


def talks_nonsense(scene: Scene) -> Course:
    """What it sends is wrong, in one way or several."""
    wrong = scene.dice.choices(WRONG, k=scene.dice.randint(1, 3))
    yield Send(scene.at, scene.c, tuple(wrong))


def claims_another_name(scene: Scene) -> Course:
    """It is somebody else on this connection from now on, or tries to be."""
    yield Send(scene.at, scene.c, (scene.dice.choice(scene.here).presence(scene.dice),))


def changes_its_agents(scene: Scene) -> Course:
    """It hosts other agents, and says so in a presence or in a heartbeat."""
    peer, dice = scene.peer, scene.dice
    peer.change_agents(dice)
    said = peer.presence(dice) if dice.random() < 0.5 else peer.heartbeat
    yield Send(scene.at, scene.c, (said,))


def cannot_decide_on_its_agents(scene: Scene) -> Course:
    """It announces other agents again and again, more often than it may."""
    said = []
    for _ in range(scene.dice.randint(2, 6)):
        scene.peer.change_agents(scene.dice)
        is_presence = scene.dice.random() < 0.4
        said.append(scene.peer.presence(scene.dice) if is_presence else scene.peer.heartbeat)
    yield Send(scene.at, scene.c, tuple(said))


def is_crashed(scene: Scene) -> Course:
    """What serves it crashes; it comes back later."""
    yield Crash(scene.at, scene.c, scene.dice.randint(0, 9))
    yield Return(scene.c), GRAIN_S


def answers_a_ping(scene: Scene) -> Course:
    """No trouble: a pong that says nothing new."""
    yield Pong(scene.at, scene.c)


@attrs.frozen
class Trouble:
    """A kind of trouble. The larger its `weight` among all weights, the more often it happens."""

    happen: Callable[[Scene], Course]
    weight: int = 1


TROUBLES: Final = (
    Trouble(leaves_and_comes_back),
    Trouble(is_cut_off_in_the_middle),
    Trouble(reconnects_at_once),
    Trouble(is_cut_and_comes_back, 4),
    Trouble(is_cut_unnoticed_and_comes_back, 4),
    Trouble(is_cut_and_comes_back_wrongly, 2),
    Trouble(is_robbed),
    Trouble(opens_another_tab),
    Trouble(stops_reading),
    Trouble(is_hidden),
    Trouble(floods),
    Trouble(talks_nonsense),
    Trouble(claims_another_name),
    Trouble(steals_an_id),
    Trouble(changes_its_agents),
    Trouble(cannot_decide_on_its_agents),
    Trouble(is_crashed),
    Trouble(answers_a_ping),
)


def choose(dice: random.Random) -> Trouble:
    """One of the troubles, by their weights."""
    (chosen,) = dice.choices(TROUBLES, [trouble.weight for trouble in TROUBLES])
    return chosen
