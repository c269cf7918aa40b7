"""A peer's own side of the protocol without any I/O: what happened goes in, what to do comes out.

`Member` keeps one membership (protocol/member/lifecycle.py) over as many connections as it takes,
each named by a number. Its owner opens and closes them, reports what comes of them, at what
`Instant`, and does what `take_effects()` says, in order:

    Open(connection)            make a connection; report `opened` or `closed`
    Transmit(connection, text)  send this now, before anything that waits in the queue
    Close(connection)           close it; it need not be reported any more
    Arrived(message)            the next message for the user
    Changed()                   the state or the roster is another now
    Finished(error)             the membership is over; `error` is None if the peer left

What the user sends waits in the queue (`offer`); the owner takes from it (`next_text`) while the
connection takes it. The pace is the relay's own limit, so that it never has to drop anything.

How a connection replaces another, so that nothing is lost, doubled or put out of order:

1. The next one is opened. The queue is held, and a `capabilities` is sent behind everything that
   was sent on the one in use: its answer means that the relay has decided all of it.
2. The next one announces. That presence goes to all connections of the mesh, in one order with
   everything else: it is the mark. The one in use is read up to it, the next one from it on (what
   it delivers earlier waits in `ahead`).
3. The queue goes on over the next one as soon as that has its own presence back.

After every joining a `capabilities` follows the presence: its answer comes after the whole roster,
so whoever has not been in it has gone.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from protocol.agents import agent_id
from protocol.envelope import RELAY
from protocol.instant import Instant
from protocol.limits import Limits, MembershipLimits
from protocol.member import lifecycle as membership
from protocol.member.errors import AnnouncementRefused, NotARelay, QueueFull, RelayError, TooLarge
from protocol.member.lifecycle import (
    Elapsed,
    Ended,
    Event,
    Failed,
    Heard,
    Joined,
    Lost,
    Marked,
    Membership,
    MemberState,
    Nudged,
)
from protocol.member.messages import (
    Message,
    Nonsense,
    RemotePeer,
    is_offline,
    read_frame,
    write_message,
)
from protocol.rate import Rate

PACE: Final = 0.9
"""The part of the relay's rate limit that the queue uses; the rest is for heartbeats."""
BURST: Final = 0.5
"""The part of its burst; the rest is for what the network holds up and then delivers at once."""


@attrs.frozen
class Open:
    """Effect: make a connection with this number."""

    connection: int


@attrs.frozen
class Transmit:
    """Effect: send this text at once."""

    connection: int
    text: str


@attrs.frozen
class Close:
    """Effect: close the connection. Nothing that it still reports matters."""

    connection: int


@attrs.frozen
class Arrived:
    """Effect: a message for the user, which came in about `size` characters of text."""

    message: Message
    size: int = 0


@attrs.frozen
class Changed:
    """Effect: `state` or `roster` is not what it was."""


@attrs.frozen
class Finished:
    """Effect: it is over. `error`: why, None if the peer left."""

    error: RelayError | None


Effect = Open | Transmit | Close | Arrived | Changed | Finished


@attrs.frozen(eq=False)
class _Said:
    """What a peer says about itself."""

    agents: tuple[Any, ...]
    metadata: Mapping[str, Any]


@attrs.define
class _Next:
    """The next connection. `presence`, `fence`: the turn ids of what was sent and is awaited.

    `ahead`: what it delivered before its time, `ahead_size` characters of it.
    """

    connection: int
    is_open: bool = False
    presence: str | None = None
    fence: str | None = None
    said: _Said | None = None
    ahead: list[dict[str, Any]] = attrs.Factory(list)
    ahead_size: int = 0


class Member:
    """One peer of one mesh. `token` makes its turn ids its own; `roll` gives numbers in [0, 1)."""

    def __init__(
        self,
        id: str,
        agents: Iterable[Any],
        metadata: Mapping[str, Any],
        limits: MembershipLimits,
        *,
        token: str,
        roll: Callable[[], float],
    ) -> None:
        self.id = id
        self.roster: dict[str, RemotePeer] = {}
        self.is_settled = False
        """The roster has been received whole at least once."""
        self.shared_agent_ids: frozenset[str] = frozenset()
        """Those of all connections with this id, others' included, as the relay tells them."""
        self._limits = limits
        self._token = token
        self._roll = roll
        relay = Limits()  # until it tells its own
        self._bytes_max = relay.message_bytes_max
        self._wanted = self._checked(agents, metadata)
        self._accepted: _Said | None = None  # by the relay, and not followed by anything better
        self._said: _Said | None = None  # on the connection in use
        self._asked: dict[str, _Said] = {}  # by turn id: announced there, not answered yet
        self._failing_since: float | None = None  # with nothing but final errors
        self._turns = 0
        self._connections = 0
        self._life = Membership(MemberState.WAITING, None)
        self._use: int | None = None
        self._next: _Next | None = None
        self._effects: list[Effect] = []

        self._known: dict[str, Mapping[str, Any]] = {}
        self._sync: str | None = None
        self._unseen: set[str] = set()

        self._beat = Instant(0.0, 0)
        self._quiet = False
        self._share = 0  # of the frame that is being read, in characters per message

        self._queue: deque[str] = deque()
        self._queued_bytes = 0
        self._knows_relay = False
        self._messages = Rate(PACE * relay.messages_per_s, BURST * relay.messages_burst)
        self._frames: Rate | None = None  # only where an edge in front of the relay counts them
        self._frame_bytes = relay.frame_bytes_max
        self._relay_takes_batches = False

    # What happens ---------------------------------------------------------------------------------

    @property
    def state(self) -> MemberState:
        """Where the membership is in its life."""
        return self._life.state

    @property
    def agent_ids(self) -> frozenset[str]:
        """The ids of this peer's own agents."""
        agents = self._wanted.agents
        return frozenset(id for agent in agents if (id := agent_id(agent)) is not None)

    @property
    def is_in_use(self) -> bool:
        """There is a connection over which messages go."""
        return self.state in membership.IN_USE

    def begin(self, now: Instant) -> None:
        """Join."""
        self._life = membership.begun(now.at)
        self.expire(now)

    def opened(self, connection: int, now: Instant) -> None:
        """The connection is open."""
        coming = self._next
        if coming is None or coming.connection != connection:
            return
        coming.is_open = True
        if self._use is None:
            self._announce_on(coming, now)
        else:
            coming.fence = self._turn_id()
            self._ask_capabilities(self._use, coming.fence)

    def received(self, connection: int, frame: str | bytes, now: Instant) -> None:
        """A frame arrived on the connection."""
        if connection == self._use:
            self._quiet = False
            self._apply(Heard(now.at), now)
        elif self._next is None or self._next.connection != connection:
            return
        try:
            arrived = read_frame(frame)
        except Nonsense as nonsense:
            self._nonsense(connection, nonsense, now)
            return
        self._share = len(frame) // (len(arrived) or 1)
        for fields in arrived:
            coming = self._next
            if connection == self._use:
                self._on_use(fields, now)
            elif coming is not None and connection == coming.connection:
                self._on_next(coming, fields, now)

    def closed(self, connection: int, now: Instant) -> None:
        """The connection is over, or could not be opened."""
        if connection == self._use:
            self._apply(Lost(now.at, self._roll()), now)
        elif self._next is not None and connection == self._next.connection:
            self._failing_since = None
            self._apply(Failed(now.at, self._roll()), now)

    def failed(self, connection: int, error: RelayError, now: Instant) -> None:
        """The connection could not be made. An error that no further attempt would mend ends the
        membership, but a peer that has been present tries for a while (`give_up_after_s`): tokens
        get renewed, and what stands in front of a relay answers all kinds of things while it
        restarts."""
        if self._next is None or self._next.connection != connection:
            return
        if error.is_transient:
            self._failing_since = None
        elif self._use is None:
            if self._failing_since is None:
                self._failing_since = now.at
            since = now.at - self._failing_since
            if not self.is_settled or since >= self._limits.give_up_after_s:
                self.end(now, error)
                return
        self._apply(Failed(now.at, self._roll()), now)

    def nudge(self, now: Instant) -> None:
        """There is reason to look now whether the connection is alive, or to try again."""
        self._apply(Nudged(now.at, self._roll()), now)

    def end(self, now: Instant, error: RelayError | None = None) -> None:
        """Leave, or give up because of `error`."""
        if self.state is not MemberState.ENDED:
            self._apply(Ended(now.at), now)
            self._effects.append(Finished(error))

    def announce(
        self, agents: Iterable[Any] | None, metadata: Mapping[str, Any] | None, now: Instant
    ) -> None:
        """Be someone with these agents and metadata from now on; None: as before. Raises TypeError
        (no JSON), TooLarge."""
        before = self._wanted
        self._wanted = self._checked(
            before.agents if agents is None else agents,
            before.metadata if metadata is None else metadata,
        )
        self._say(now)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order; taken once."""
        effects, self._effects = self._effects, []
        return effects

    # Time -----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When (monotonic seconds) `expire` must be called next; None if never."""
        due = membership.deadline(self._life, self._limits)
        if due is not None and self.is_in_use:
            return min(due, self._beat_due)
        return due

    def expire(self, now: Instant) -> None:
        """Do what is due."""
        if self.is_in_use and self._beat_due <= now.at:
            self._heartbeat(now)
        self._step(membership.expire(self._life, now.at, self._roll(), self._limits), now)

    @property
    def _beat_due(self) -> float:
        return self._beat.at + self._limits.heartbeat_every_s

    def _heartbeat(self, now: Instant) -> None:
        assert self._use is not None
        beat = {"type": "heartbeat", "from": self.id, "timestamp": now.wall_ms}
        # The relay does not answer heartbeats, so a quiet mesh sounds like a dead connection.
        connection = self._route() or self._use
        self._effects.append(Transmit(connection, write_message(beat)))
        if self._quiet:
            self._ask_capabilities(self._use, self._turn_id())
        elapsed_s = (now.wall_ms - self._beat.wall_ms) / 1000
        if elapsed_s > self._limits.heartbeat_every_s + self._limits.silent_after_s:
            self.nudge(now)  # asleep, perhaps on a machine whose monotonic clock sleeps too
        self._beat, self._quiet = now, True

    # The life -------------------------------------------------------------------------------------

    def _apply(self, event: Event, now: Instant) -> None:
        self._step(membership.transition(self._life, event, self._limits), now)

    def _step(self, step: membership.Step, now: Instant) -> None:
        before, self._life = self.state, step.membership
        if before is not self.state:
            self._effects.append(Changed())
        for effect in step.effects:
            match effect:
                case membership.Effect.OPEN:
                    self._connections += 1
                    self._next = _Next(self._connections)
                    self._effects.append(Open(self._connections))
                case membership.Effect.ADOPT:
                    self._adopt(now)
                case membership.Effect.DISCARD:
                    if self._next is not None:
                        self._effects.append(Close(self._next.connection))
                    self._next, self._sync = None, None
                    self._unseen.clear()
                case membership.Effect.DROP:
                    if self._use is not None:
                        self._effects.append(Close(self._use))
                    self._use = None
                case membership.Effect.PROBE:
                    assert self._use is not None
                    self._ask_capabilities(self._use, self._turn_id())
        coming = self._next
        if self._use is None and coming is not None and coming.is_open and not coming.presence:
            self._announce_on(coming, now)  # the one in use was lost while it was being fenced
        self._say(now)

    def _adopt(self, now: Instant) -> None:
        coming = self._next
        assert coming is not None
        self._use, self._next = coming.connection, None
        self._beat, self._quiet = now, False
        self._said = self._accepted = coming.said
        self._asked.clear()
        for fields in coming.ahead:
            self._on_use(fields, now)

    def _announce_on(self, coming: _Next, now: Instant) -> None:
        coming.presence, coming.said = self._turn_id(), self._wanted
        text = self._presence(coming.said, coming.presence, now)
        self._effects.append(Transmit(coming.connection, text))
        self._sync = self._turn_id()
        self._unseen = set(self.roster)
        self._ask_capabilities(coming.connection, self._sync)

    def _say(self, now: Instant) -> None:
        """Announce on the connection in use what has changed, if it may be said there."""
        if self._use is not None and self._route() == self._use and self._said is not self._wanted:
            turn_id = self._turn_id()
            self._said = self._asked[turn_id] = self._wanted
            text = self._presence(self._wanted, turn_id, now)
            self._effects.append(Transmit(self._use, text))

    def _checked(self, agents: Iterable[Any], metadata: Mapping[str, Any]) -> _Said:
        """What can be announced. A relay answers too large a text without saying to which."""
        if isinstance(agents, str):
            raise TypeError("agents is a list, of ids or of objects")
        said = _Said(tuple(agents), dict(metadata))
        size = _bytes_of(self._presence(said, self._token + ":" + "9" * 9, Instant(0.0, 10**12)))
        if size > self._bytes_max:
            raise TooLarge(f"the presence has {size} bytes, and the relay takes {self._bytes_max}")
        return said

    def _presence(self, said: _Said, turn_id: str, now: Instant) -> str:
        own = {"agents": said.agents, "keepalive": "pong", "accept": ["batch"]}
        fields = {"type": "presence", "from": self.id, "turnId": turn_id}
        data = {**said.metadata, **own}
        return write_message({**fields, "data": data, "timestamp": now.wall_ms})

    def _ask_capabilities(self, connection: int, turn_id: str) -> None:
        text = write_message({"type": "capabilities", "from": self.id, "turnId": turn_id})
        self._effects.append(Transmit(connection, text))

    def _turn_id(self) -> str:
        self._turns += 1
        return f"{self._token}:{self._turns}"

    # What arrives ---------------------------------------------------------------------------------

    def _on_next(self, coming: _Next, fields: dict[str, Any], now: Instant) -> None:
        if self.state is MemberState.SWITCHING:
            coming.ahead.append(fields)
            coming.ahead_size += self._share
            if (
                len(coming.ahead) > self._limits.unread_messages_max
                or coming.ahead_size > self._limits.unread_bytes_max
            ):
                self._apply(Elapsed(now.at), now)
        elif coming.presence is not None and fields.get("turnId") in (coming.presence, None):
            # An error without a turn id is about the presence too: nothing else was said here.
            if fields["type"] == "presence" and "turnId" in fields:
                self._note_own(fields)
                self._failing_since = None
                self._apply(Joined(now.at), now)
            elif fields["type"] == "error" and fields.get("from") == RELAY:
                self._refused(coming, Message(fields), now)

    def _refused(self, coming: _Next, error: Message, now: Instant) -> None:
        code = str(error.word("code"))
        if coming.said is not self._accepted and self._accepted is not None:
            # Something that was never accepted: be again who the relay did accept.
            self._wanted = self._accepted
            self._effects.append(Arrived(error, self._share))
            self.closed(coming.connection, now)
        elif code == "rate_limited":
            self.closed(coming.connection, now)
        else:
            refused = AnnouncementRefused(code, str(error.word("error")))
            self.failed(coming.connection, refused, now)

    def _on_use(self, fields: dict[str, Any], now: Instant) -> None:
        self._note_own(fields)
        turn_id = fields.get("turnId")
        if isinstance(turn_id, str) and turn_id.startswith(f"{self._token}:"):
            message = Message(fields)
            if message.origin in (self.id, RELAY):
                self._on_own(message, turn_id, now)
                return
        if fields["type"] == "presence":
            self._on_presence(Message(fields))
        else:
            self._effects.append(Arrived(Message(fields), self._share))

    def _note_own(self, fields: dict[str, Any]) -> None:
        if fields["type"] == "presence" and fields.get("from") == self.id:
            self.shared_agent_ids = frozenset(RemotePeer.of(Message(fields)).agents)

    def _on_own(self, message: Message, turn_id: str, now: Instant) -> None:
        """The answer to something that the membership itself has sent; none of the user's."""
        coming = self._next
        if coming is not None and turn_id == coming.presence:
            self._apply(Marked(now.at), now)
        elif coming is not None and turn_id == coming.fence and coming.presence is None:
            self._announce_on(coming, now)
        elif turn_id == self._sync:
            self._settle()
        elif turn_id in self._asked:
            said = self._asked.pop(turn_id)
            if message.type == "presence":
                self._accepted = said
            else:  # be again who the relay did accept, unless that has been taken back already
                if self._wanted is said:
                    self._wanted = self._said = self._accepted or said
                self._effects.append(Arrived(message, self._share))
        elif message.type == "error":
            self._effects.append(Arrived(message, self._share))
        if message.type == "capabilities_response":
            self._learn(message)

    def _on_presence(self, presence: Message) -> None:
        id = presence.sender or ""
        self._unseen.discard(id)
        if id == self.id:
            pass  # from another of our own connections
        elif is_offline(presence):
            self._known.pop(id, None)
            if self.roster.pop(id, None) is not None:
                self._effects.append(Changed())
        elif self._sync is not None and self._known.get(id) == presence.fields:
            return  # the roster again, after a new connection
        else:
            self._known[id] = presence.fields
            peer = RemotePeer.of(presence)
            if self.roster.get(id) != peer:
                self.roster[id] = peer
                self._effects.append(Changed())
        self._effects.append(Arrived(presence, self._share))

    def _settle(self) -> None:
        self._sync, self.is_settled = None, True
        for id in self._unseen:
            self.roster.pop(id, None)
            self._known.pop(id, None)
        self._unseen.clear()
        self._effects.append(Changed())

    def _nonsense(self, connection: int, nonsense: Nonsense, now: Instant) -> None:
        if connection == self._use:
            self.closed(connection, now)
        else:
            sentence = f"what answers at this URL is no relay of agent meshes (it sent {nonsense})"
            self.failed(connection, NotARelay(f"{sentence}; check host, port and path"), now)

    # What is sent ---------------------------------------------------------------------------------

    def offer(self, text: str) -> None:
        """Put a message into the queue. Raises TooLarge, QueueFull."""
        size = _bytes_of(text)
        if size > self._bytes_max:
            raise TooLarge(f"the message has {size} bytes, and the relay takes {self._bytes_max}")
        if not self.has_room:
            limits = self._limits
            raise QueueFull(
                f"{len(self._queue)} messages wait to be sent already "
                f"(queue_messages_max={limits.queue_messages_max}, "
                f"queue_bytes_max={limits.queue_bytes_max})"
            )
        self._queue.append(text)
        self._queued_bytes += size

    def withdraw(self, text: str) -> None:
        """Take a message out of the queue again, if it is still there."""
        if text in self._queue:
            self._queue.remove(text)
            self._queued_bytes -= _bytes_of(text)

    @property
    def has_room(self) -> bool:
        """The queue takes another message."""
        limits = self._limits
        return (
            len(self._queue) < limits.queue_messages_max
            and self._queued_bytes < limits.queue_bytes_max
        )

    @property
    def queued(self) -> int:
        """How many messages wait to be sent."""
        return len(self._queue)

    def next_text(self, connection: int, now: Instant) -> str | float | None:
        """What to send next on this connection; or, if the pace forbids it, at what time (monotonic
        seconds) to ask again; or None: nothing waits, or it must not go here, or not now."""
        if not self._queue or connection != self._route():
            return None
        due = self._messages.opens_at()
        if self._frames is not None:
            due = max(due, self._frames.opens_at())
        if not self._knows_relay:  # a relay that knows no `capabilities` is not waited for long
            due = max(due, self._life.joined + self._limits.probe_within_s)
        if due > now.at:
            return due
        texts = [self._take(now)]
        total = len(texts[0]) + 2
        if self._frames is not None:
            while (
                self._relay_takes_batches
                and self._queue
                and total + 1 + _bytes_of(self._queue[0]) <= self._frame_bytes
                and self._messages.opens_at() <= now.at
            ):
                total += 1 + _bytes_of(self._queue[0])
                texts.append(self._take(now))
            self._frames.take(now.at, math.ceil(total / self._frame_bytes))
        return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"

    def _take(self, now: Instant) -> str:
        text = self._queue.popleft()
        self._queued_bytes -= _bytes_of(text)
        self._messages.take(now.at)
        return text

    def _route(self) -> int | None:
        """The connection on which the queue goes, if it goes at all."""
        coming = self._next
        if self.state is MemberState.SWITCHING and coming is not None:
            return coming.connection
        if coming is not None and coming.is_open:
            return None  # held: the relay must have decided everything on the one before the other
        return self._use

    def _learn(self, capabilities: Message) -> None:
        """The relay's own bounds, as it told them; nonsense changes nothing."""
        self._knows_relay = True
        bounds = capabilities.word("limits")
        if not isinstance(bounds, dict):
            return

        def positive(name: str) -> float | None:
            value = bounds.get(name)
            return value if isinstance(value, (int, float)) and value > 0 else None

        accepted = capabilities.word("accept")
        self._relay_takes_batches = isinstance(accepted, list) and "batch" in accepted
        self._bytes_max = int(positive("messageBytes") or self._bytes_max)
        per_s = positive("messagesPerSecond")
        if per_s is not None:
            self._messages.set(PACE * per_s, BURST * (positive("messagesBurst") or per_s))
        frames_per_s = positive("framesPerSecond")
        self._frame_bytes = int(positive("frameBytes") or self._frame_bytes)
        if frames_per_s is None:
            self._frames = None
        elif self._frames is None:
            self._frames = Rate(PACE * frames_per_s, 0)
        else:
            self._frames.set(PACE * frames_per_s, 0)


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
