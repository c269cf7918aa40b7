"""What one peer says, and the trouble that befalls it.

A peer of a history does not listen: what it does depends on the seed alone, so that its history
needs no relay.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from protocol.verification.model import BINARY, Message
from protocol.verification.simulation.events import (
    Close,
    Crash,
    Drop,
    Event,
    Pong,
    Send,
    StopReading,
)

GRAIN_S: Final = 0.25
"""Things happen at multiples of this (seconds): exact as floats, and the rate limit stands at whole
messages."""

BURST: Final = 100
"""More messages at once than this are a flood."""

HEARTBEAT_S: Final = 10.0

_AGENTS: Final = ("planner", "coder", "critic", "scout")

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


class Peer:
    """One peer: its agents now, and the numbers of its open connections. Every other one claims its
    id, with a secret. Some are pages that send again what they receive."""

    def __init__(self, id: str, dice: random.Random) -> None:
        self.id = id
        self.secret = f"the secret of {id}" if dice.random() < 0.5 else None
        self.agents = dice.sample(_AGENTS, dice.randint(0, 2))
        self.is_page = dice.random() < 0.3
        self.tabs: list[int] = []
        self.heartbeat = text("heartbeat", id, data={"agents": self.agents})

    def presence(self, dice: random.Random) -> bytes:
        """How it announces itself: one time in ten as a page that only answers pings."""
        data: dict[str, Any] = {"agents": self.agents, "hostname": "laptop"}
        if dice.random() < 0.1:
            data["keepalive"] = "pong"
        if self.is_page:
            data["pageId"] = "unified"
        return text("presence", self.id, data=data)

    def arrival(self, dice: random.Random) -> tuple[bytes, ...]:
        """What it says on a new connection. One time in ten it takes over from its older ones."""
        if self.secret is None:
            return (self.presence(dice),)
        claim = {"claim": self.secret, "takeover": dice.random() < 0.1}
        return text("capabilities", data=claim), self.presence(dice)

    def change_agents(self, dice: random.Random) -> None:
        """Host other agents from now on."""
        self.agents = dice.sample(_AGENTS, dice.randint(0, 3))
        self.heartbeat = text("heartbeat", self.id, data={"agents": self.agents})


def text(type: str, sender: str | None = None, **fields: Any) -> bytes:
    """A message on the wire. `sender`: its `from`, if it has one."""
    origin = {} if sender is None else {"from": sender}
    return json.dumps({"type": type, **origin, **fields}).encode()


def conversation(peer: Peer, here: Sequence[Peer], dice: random.Random) -> Iterator[bytes]:
    """A command to somebody and its answers, as pages send them."""
    turn = f"turn-{dice.randint(0, 10**9)}"
    to = dice.choice(here).id
    kind = dice.choice(_CONVERSATIONS)
    yield from kind(peer, to, turn, dice)


def _directs_among_broadcasts(
    peer: Peer, to: str, turn: str, dice: random.Random
) -> Iterator[bytes]:
    for n in range(dice.randint(1, 4)):  # a direct keeps its place among what goes to all
        type = dice.choice(("direct", "broadcast"))
        yield text(type, peer.id, to=to, turnId=turn, data={"command": "go", "n": n})


def _direct_to_an_instance(_: Peer, to: str, turn: str, dice: random.Random) -> Iterator[bytes]:
    yield text("direct", to=dice.choice(_AGENTS), targetInstanceId=to, turnId=turn)


def _direct_to_an_agent(peer: Peer, _: str, turn: str, dice: random.Random) -> Iterator[bytes]:
    yield text("direct", peer.id, to=dice.choice(_AGENTS), turnId=turn)


def _command_between_local_agents(
    peer: Peer, _: str, turn: str, dice: random.Random
) -> Iterator[bytes]:
    local = {} if dice.random() < 0.8 else {"instanceId": peer.id}
    sender, to = dice.choice(("some-agent", *_AGENTS)), dice.choice(_AGENTS)
    yield text("direct", sender, to=to, turnId=turn, **local)


def _broadcast_of_an_agent(_: Peer, _to: str, turn: str, _dice: random.Random) -> Iterator[bytes]:
    yield text("broadcast", "some-agent", turnId=turn, data={"command": "everybody"})


def _sent_again(peer: Peer, _to: str, turn: str, dice: random.Random) -> Iterator[bytes]:
    type = dice.choice(("ring-update", "ring-update", "invoke", "broadcast"))
    own = {"turnId": turn} if dice.random() < 0.1 else {}
    yield text(type, peer.id, data={"text": "what others say, too", "n": dice.randint(1, 2)}, **own)


def _own_type_and_question(_: Peer, _to: str, turn: str, _dice: random.Random) -> Iterator[bytes]:
    yield text("topic/news", data="a string")
    yield text("capabilities", turnId=turn)


def _streamed_answer(peer: Peer, _: str, turn: str, dice: random.Random) -> Iterator[bytes]:
    agent = peer.agents[0] if peer.agents else peer.id
    yield text("ack", agent, instanceId=peer.id, turnId=turn)
    for n in range(dice.randint(1, 12)):
        yield text("stream", agent, turnId=turn, data={"chunk": "word \ud83d", "chunkNum": n})
    yield text("turn_end", agent, turnId=turn, data={"result": "done"})


_CONVERSATIONS: Final[tuple[Callable[[Peer, str, str, random.Random], Iterator[bytes]], ...]] = (
    _directs_among_broadcasts,
    _direct_to_an_instance,
    _direct_to_an_agent,
    _command_between_local_agents,
    _broadcast_of_an_agent,
    _sent_again,
    _own_type_and_question,
    _streamed_answer,
)

# What a peer is going to do -----------------------------------------------------------------------


@attrs.frozen
class Intent:
    """What a peer is going to do when its time comes."""


@attrs.frozen
class Arrive(Intent):
    """Open a connection and announce itself on it.

    `as_another`: announce somebody else, with a claim of its own if it makes one.
    """

    as_another: bool = False


@attrs.frozen
class Speak(Intent):
    """Say something, and go on doing so from time to time."""


@attrs.frozen
class MeetTrouble(Intent):
    """Something goes wrong, now and again from time to time."""


@attrs.frozen
class StopTheRelay(Intent):
    """Nobody's intent, but it has a time too."""


@attrs.frozen
class OnTab(Intent):
    """What a peer is going to do on its connection `c`, if that is its own then."""

    c: int


@attrs.frozen
class Beat(OnTab):
    """Send a heartbeat, and go on doing so."""


@attrs.frozen
class AnswerPings(OnTab):
    """Be a hidden page: answer a ping, and go on doing so, nine times out of ten."""


@attrs.frozen
class Resume(OnTab):
    """Read again."""


@attrs.frozen
class Leave(OnTab):
    """Close the connection for good."""


@attrs.frozen
class Forget(OnTab):
    """Give up a connection that is lost already, and not come back for it."""


@attrs.frozen
class Return(OnTab):
    """Give up a connection that is lost already, and come back some time later."""


# Trouble ------------------------------------------------------------------------------------------


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
    wrong = scene.dice.choices(_WRONG, k=scene.dice.randint(1, 3))
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
