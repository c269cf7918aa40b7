"""What one peer says, and what it is going to do.

A peer of a history does not listen: what it does depends on the seed alone, so that its history
needs no relay.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from protocol.verification.model import BINARY, Message
from protocol.verification.subjects.counting import How, open_question

GRAIN_S: Final = 0.25
"""Things happen at multiples of this (seconds): exact as floats, and the rate limit stands at whole
messages."""

BURST: Final = 100
"""More messages at once than this are a flood."""

HEARTBEAT_S: Final = 10.0

_AGENTS: Final = ("planner", "coder", "critic", "scout")

_TOPICS: Final = ("orders", "orders/1", "robots/7", 7)

_WISHES: Final[tuple[Any, ...]] = (
    {"others": False},
    {"others": False, "topics": []},
    {"topics": ["orders"]},
    {"topics": ["orders*", "robots/*"]},
    {"types": ["broadcast", "stream", "turn_end"]},
    {"types": ["topic/news"], "others": True},
    {},
)
"""What a peer may want of what others say."""

WRONG: Final[tuple[Message, ...]] = (
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
    b'{"type":"presence","from":"peer-0","data":{"subscribe":{"topics":"orders"}}}',
    b'{"type":"direct","to":"nobody","turnId":7}',
    b'{"type":"stream","data":"' + b"x" * 5000 + b'"}',
    b'{"type":"stream","data":"\xff"}',
    BINARY,
)
"""What no peer should say."""


class Peer:
    """One peer: its agents now, and the numbers of its open connections. Every other one claims its
    id, with a secret. Some are pages that send again what they receive. Most come back after a
    cut. Some send heartbeats so seldom that they are stale before each. Some want only a part of
    what others say, and each time they announce themselves another one."""

    def __init__(self, id: str, dice: random.Random) -> None:
        self.id = id
        self.secret = f"the secret of {id}" if dice.random() < 0.5 else None
        self.agents = dice.sample(_AGENTS, dice.randint(0, 2))
        self.is_page = dice.random() < 0.3
        self.has_wishes = dice.random() < 0.4
        self.comes_back = dice.random() < 0.7
        self.beats_every_s = dice.choice((HEARTBEAT_S, 20.0, 25.0))
        self.tabs: list[int] = []
        self.heartbeat = text("heartbeat", id, data={"agents": self.agents})

    def presence(self, dice: random.Random) -> bytes:
        """How it announces itself: one time in ten as a page that only answers pings."""
        data: dict[str, Any] = {"agents": self.agents, "hostname": "laptop"}
        if dice.random() < 0.1:
            data["keepalive"] = "pong"
        if self.is_page:
            data["pageId"] = "unified"
        if self.has_wishes:
            data["subscribe"] = dice.choice(_WISHES)
        return text("presence", self.id, data=data)

    def arrival(self, dice: random.Random) -> tuple[bytes, ...]:
        """What it says on a new connection. One time in ten it takes over from its older ones."""
        asks: tuple[bytes, ...] = (open_question(20),) if self.comes_back else ()
        if dice.random() < 0.2:
            asks += (text("capabilities", data={"history": {"messages": dice.randint(0, 120)}}),)
        if self.secret is None:
            return (*asks, self.presence(dice))
        claim = {"claim": self.secret, "takeover": dice.random() < 0.1}
        return (*asks, text("capabilities", data=claim), self.presence(dice))

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


def _with_topics(peer: Peer, to: str, turn: str, dice: random.Random) -> Iterator[bytes]:
    for n in range(dice.randint(1, 4)):
        type = dice.choice(("broadcast", "stream", "topic/news"))
        whom = {"to": dice.choice((to, *_AGENTS))} if dice.random() < 0.3 else {}
        yield text(type, peer.id, topic=dice.choice(_TOPICS), turnId=turn, data={"n": n}, **whom)


def _another_presence(peer: Peer, _to: str, _turn: str, dice: random.Random) -> Iterator[bytes]:
    yield peer.presence(dice)


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
    _with_topics,
    _another_presence,
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
class GoOn(OnTab):
    """Go on with a connection that is lost, on so many new ones at once, in this way."""

    how: How = "right"
    times: int = 1


@attrs.frozen
class Return(OnTab):
    """Give up a connection that is lost already, and come back some time later."""
