"""What stands in the log: records, and the items in them.

A record is from one node: `node` is its number, `life` the how manyth time it takes part, `n` the
place of the record among those of this life. `body` says what it is about:

    Hello       the node wants to take part. It has no place (n is 0), and may be said again
    Found       nobody seems to be there: the node begins the federation anew
    Tick        a sign of life, with a digest of what the node has decided
    Round       items of one mesh
    Evict       another node was silent for too long
    Bye         the node leaves
    State       the answer to a Hello: everything that the node has decided until then
    Fragment    a part of a body that is too long for one record of the log

They are arrays in MessagePack, because they are read at every node. Headers are in them, so that no
other node reads the JSON again.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import attrs
import msgspec

from protocol.agents import Agent
from protocol.claims import Claim
from protocol.envelope import NO_TURN, Announcement, Header, Text
from protocol.limits import Limits
from protocol.mesh.items import Entrance
from protocol.mesh.lifecycle import Cause
from protocol.wish import EVERYTHING, Wish

DECIDES: Final = 1
"""Raised whenever a mesh decides something else than before, or a record is written otherwise."""

LOCAL: Final = frozenset(
    {
        "announce_within_s", "announcement_bytes", "announcements_burst", "announcements_per_s",
        "body_bytes_max", "bytes_in_burst", "bytes_in_per_s", "close_within_s", "connections_max",
        "crowd_bytes_per_s", "drain_s", "flush_gap_s", "frame_bytes_max", "frames_in_burst",
        "frames_in_per_s", "frames_per_s", "grant_connections_max", "grant_grace_s",
        "head_bytes_max", "headers_max", "held_bytes_max", "history_bytes_max", "inbox_bytes_max",
        "inbox_messages_max", "mailbox_bytes_max", "mailbox_messages_max", "mesh_name_chars_max",
        "meshes_max", "messages_burst", "messages_per_s", "opening_within_s", "pong_keepalive_s",
        "quantum_bytes", "quantum_messages", "rate_error_every_s", "reap_after_s", "resume_s",
        "round_bytes_max", "round_messages_max", "stale_after_s", "unannounced_max",
        "visitors_max",
    }
)  # fmt: skip
"""Bounds of `Limits` that a gate or a process keeps, and no mesh. Nodes may differ in them."""


def fingerprint(limits: Limits) -> str:
    """What must be the same at all nodes of a federation, because it makes them decide the same."""
    decisive = {n: v for n, v in attrs.asdict(limits).items() if n not in LOCAL}
    said = repr((DECIDES, sorted((name, float(value)) for name, value in decisive.items())))
    return blake2b(said.encode(), digest_size=8).hexdigest()


class Wire(msgspec.Struct, array_like=True, gc=False):
    """How everything here is written."""


# Items --------------------------------------------------------------------------------------------


class Said(Wire, tag=1):
    """`Items.said`. `is_direct`: its route is TARGET. `kind`: the type of the message.
    `turn_id`: as it stands in the text."""

    connection: int
    is_direct: bool
    text: Text
    kind: str
    sender: str | None
    to: str | None
    instance_id: str | None
    target_instance_id: str | None
    turn_id: bytes | None

    @classmethod
    def of(cls, connection: int, header: Header, text: Text, *, is_direct: bool) -> "Said":
        """The item of a message."""
        turn = header.turn_id
        return cls(
            connection,
            is_direct,
            text,
            header.type,
            header.sender,
            header.to,
            header.instance_id,
            header.target_instance_id,
            None if turn is NO_TURN else bytes(turn),
        )

    @property
    def header(self) -> Header:
        """The header of the message."""
        return Header(
            self.kind,
            self.sender,
            self.to,
            self.instance_id,
            self.target_instance_id,
            NO_TURN if self.turn_id is None else msgspec.Raw(self.turn_id),
        )


class Visited(Wire, tag=2):
    """`Items.visited`. `said` has no connection (0)."""

    peer: str
    is_proven: bool
    said: Said


class Spoken(Wire):
    """An `Announcement`, and the header fields that count with it."""

    sender: str | None
    instance_id: str | None
    agents: list[tuple[str | None, bytes]] | None
    keepalive_pong: bool
    has_data: bool
    accepts_batches: bool
    is_page: bool
    others: bool
    topics: list[str] | None
    types: list[str] | None

    @classmethod
    def of(cls, header: Header, said: Announcement) -> "Spoken":
        """What a presence or a heartbeat says."""
        wish = said.wish
        return cls(
            header.sender,
            header.instance_id,
            None if said.agents is None else [(agent.id, agent.text) for agent in said.agents],
            said.keepalive_pong,
            said.has_data,
            said.accepts_batches,
            said.is_page,
            wish.others,
            None if wish.topics is None else sorted(wish.topics),
            None if wish.types is None else sorted(wish.types),
        )

    def header(self, type: str) -> Header:
        """The header fields that count."""
        return Header(type, self.sender, instance_id=self.instance_id)

    @property
    def announcement(self) -> Announcement:
        """What it says in `data`."""
        agents = self.agents
        return Announcement(
            None if agents is None else tuple(Agent(id, text) for id, text in agents),
            self.keepalive_pong,
            self.has_data,
            self.accepts_batches,
            self.is_page,
            self.wish,
        )

    @property
    def wish(self) -> Wish:
        """What its connection wants."""
        if self.others and self.topics is None and self.types is None:
            return EVERYTHING
        topics = None if self.topics is None else frozenset(self.topics)
        return Wish(self.others, topics, None if self.types is None else frozenset(self.types))


class Present(Wire, tag=3):
    """`Items.present`. The `digest` and `takes_over` of a claim, if there is one."""

    connection: int
    text: Text
    spoken: Spoken
    digest: bytes | None
    takes_over: bool
    watches: bool
    is_paced: bool
    recalls: int | None

    @classmethod
    def of(
        cls, connection: int, header: Header, text: Text, said: Announcement, entrance: Entrance
    ) -> "Present":
        """The item of a presence."""
        claim = entrance.claim
        return cls(
            connection,
            text,
            Spoken.of(header, said),
            None if claim is None else claim.digest,
            claim is not None and claim.takes_over,
            entrance.watches,
            entrance.is_paced,
            entrance.recalls,
        )

    @property
    def entrance(self) -> Entrance:
        """What counts if it is the first presence of its connection."""
        claim = None if self.digest is None else Claim(self.digest, self.takes_over)
        return Entrance(claim, self.watches, self.is_paced, self.recalls)


class Beat(Wire, tag=4):
    """`Items.beat`. `turn_id`: as it stands in the text, for the answer if it is refused."""

    connection: int
    spoken: Spoken
    turn_id: bytes | None

    @classmethod
    def of(cls, connection: int, header: Header, said: Announcement) -> "Beat":
        """The item of a heartbeat."""
        turn = header.turn_id
        return cls(connection, Spoken.of(header, said), None if turn is NO_TURN else bytes(turn))

    @property
    def text(self) -> Text:
        """What counts of it for an answer."""
        return b"{}" if self.turn_id is None else b'{"turnId":%b}' % self.turn_id


class Lags(Wire, tag=5):
    """`Items.lagging`."""

    connection: int
    is_lagging: bool


class Gone(Wire, tag=6):
    """`Items.gone`. `cause`: the value of a `Cause`."""

    connection: int
    cause: str

    @property
    def why(self) -> Cause:
        """The cause."""
        return Cause(self.cause)


Item = Said | Visited | Present | Beat | Lags | Gone


# Records ------------------------------------------------------------------------------------------


class Hello(Wire, tag=1):
    """`fingerprint`: of the node that wants to take part. `attempt`: the how manyth time it says
    so; who answers depends on it."""

    fingerprint: str
    attempt: int


class Found(Wire, tag=2):
    """Valid if no node that takes part has said anything since position `since` of the log."""

    fingerprint: str
    since: int


class Tick(Wire, tag=3):
    """`digest`: what the node had decided when it had applied its Tick at position `at` (0: none
    yet)."""

    fingerprint: str
    at: int
    digest: int


class Round(Wire, tag=4):
    """Items of one mesh, in order."""

    mesh: str
    items: list[Item]


class Evict(Wire, tag=5):
    """Valid if the next record of this life of the node would still be number `n`."""

    node: int
    life: int
    n: int


class Bye(Wire, tag=6):
    """Its peers have a moment to come back elsewhere."""


class State(Wire, tag=7):
    """For life `life` of the node for which its fragments are: everything until `position`."""

    life: int
    position: int
    data: bytes


class Fragment(Wire, tag=8):
    """Part `index` of a longer body. `to`: only for this node; 0: for all."""

    to: int
    index: int
    is_last: bool
    data: bytes


Whole = Hello | Found | Tick | Round | Evict | Bye | State
Body = Whole | Fragment


class Record(Wire):
    """One record."""

    node: int
    life: int
    n: int
    body: Body


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
_decode_body = msgspec.msgpack.Decoder(Whole).decode


def read(data: bytes) -> Record | None:
    """The record in an entry of the log. None: it is none of ours."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None


def written(record: Record) -> bytes:
    """The record as it is appended.

    >>> read(written(Record(1, 1, 1, Bye())))
    Record(node=1, life=1, n=1, body=Bye())
    """
    return _encode(record)


def whole(parts: bytes) -> Whole | None:
    """The body of which these are the fragments. None: they are those of no body."""
    try:
        body: Whole = _decode_body(parts)
    except msgspec.DecodeError:
        return None
    return body


def fragments(body: Whole, bytes_max: int, to: int = 0) -> Iterator[Body]:
    """The body, in parts of which none has (many) more bytes than these. For one node alone it
    always is in fragments."""
    data = _encode(body)
    if len(data) <= bytes_max and not to:
        yield body
        return
    starts = range(0, len(data), bytes_max)
    for index, start in enumerate(starts):
        part = data[start : start + bytes_max]
        yield Fragment(to, index, start + bytes_max >= len(data), part)


@attrs.frozen
class Entry:
    """An entry of the log: its position (from 1 on, each one more than the one before), when the
    log took it (seconds since the epoch, by the clock of the log), and what was appended. `behind`:
    so many more the log had when this one was read, as far as the log says so."""

    position: int
    at: float
    data: bytes
    behind: int = attrs.field(default=0, eq=False)
