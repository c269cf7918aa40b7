"""The gate: decides everything that concerns one connection alone, where this connection ends.

`received` handles a message in this order:

    rate, size, header, type    refused here: an `error` to the sender, and to nobody else
    `capabilities`              claims are taken here, the mesh answers
    a withheld type             counted here
    what is not granted         refused here (protocol.mesh.granting)
    an announcement too many    held until its time has come (protocol.mesh.announcer)
    everything else             one item for the mesh (protocol.mesh.items)

Of many messages that came at once, those that have the same header pass together, as one item
(protocol.mesh.runs).

The gate also keeps the life of each connection (protocol.mesh.lifecycle): it notes signs of life,
looks for deadlines that have passed, and tells the mesh which connections are gone. Some are only
lost, and may come back (protocol.mesh.returning). It ends those whose grant has run out. It never
compares connections. Of peers it knows only the id that the mesh has `accepted` for a connection.

Longer than 400 lines because a message passes the steps above in one place.
"""

import heapq
import math
from collections.abc import Sequence
from functools import partial
from operator import length_hint
from typing import Final

import attrs

from protocol import refusals
from protocol.agents import Agent
from protocol.codec import Codec
from protocol.envelope import (
    RELAY,
    Announcement,
    ErrorCode,
    Header,
    Inbound,
    Refusal,
    Text,
    Unreadable,
)
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import granting, lifecycle
from protocol.mesh.announcer import Announcer
from protocol.mesh.announcing import Announcements
from protocol.mesh.answers import Answers
from protocol.mesh.arrays import Arrays
from protocol.mesh.connection import Connection
from protocol.mesh.effects import CLOSE_CODES, Dismissed, Effect
from protocol.mesh.items import Admission, Items, admit_all
from protocol.mesh.lifecycle import (
    Cause,
    Ended,
    Hangup,
    Heard,
    Join,
    Leave,
    PeerState,
    Renew,
)
from protocol.mesh.rating import Rating
from protocol.mesh.resuming import Resumptions
from protocol.mesh.returning import Returns
from protocol.mesh.routing import Kinds, Route
from protocol.mesh.runs import LEAST, Runs
from protocol.mesh.status import Totals
from protocol.mesh.unfinished import Unfinished

_OTHERS: Final = Route.OTHERS  # looked up once: this costs a call
_TARGET: Final = Route.TARGET
_PRESENT: Final = PeerState.PRESENT
_STEP_BYTES: Final = 128
"""To read so many bytes of an announcement costs about as much as to decide a message."""


class Gate:
    """The connections of one mesh that end in this process. Never waits. Not thread-safe.

    Messages that pass go to `items`. Answers, and the ends of connections, go to `effects`. Before
    a first or a longer announcement passes, `admit` is asked.
    """

    def __init__(
        self,
        limits: Limits,
        items: Items,
        effects: list[Effect],
        *,
        strict: bool = False,
        admit: Admission = admit_all,
        resumptions: Resumptions | None = None,
    ) -> None:
        self.connections: dict[int, Connection] = {}
        self.unfinished: dict[int, Unfinished] = {}  # by connection
        self.totals = Totals()
        self._limits = limits
        self._items = items
        self._effects = effects
        self.codec = Codec(limits)
        self.announcer = Announcer(limits, self.codec, items, admit=admit, held=self._schedule)
        self.answers = Answers(limits, self.codec, effects, self.totals)
        self.refuse = self.answers.refuse
        self.returns = Returns(
            self.connections,
            self.unfinished,
            self.answers,
            items,
            effects,
            resumptions=resumptions,
            schedule=self._schedule,
        )
        self.kinds = Kinds(limits, strict=strict)
        self._runs = Runs(self.codec, self.kinds, self.answers)
        self._within_rate = Rating(limits, self.answers, self.totals).within
        self._arrays = Arrays(self.codec, self._within_rate, self.refuse)
        # One valid entry per connection, at or before its deadline: there is nothing to cancel.
        self._deadlines: list[tuple[float, int]] = []

    # What happens to connections ------------------------------------------------------------------

    def opened(self, id: int, now: Instant, *, is_paced: bool = False, grant: Grant = OPEN) -> None:
        """A connection was opened. `id` must be new. `is_paced`: an edge limits its frames.
        `grant`: what it may do."""
        if id in self.connections:
            raise ValueError(f"connection {id} is already open")
        connection = Connection(id, lifecycle.opened(now.at), now.at, is_paced, grant)
        if grant.ends_at_ms is not None:
            connection.ends_at_ms = grant.ends_at_ms + 1000 * self._limits.grant_grace_s
            connection.ends_at = now.at + (connection.ends_at_ms - now.wall_ms) / 1000
        self.connections[id] = connection
        self._schedule(connection)

    def received(self, id: int, messages: Sequence[Inbound], now: Instant) -> int:
        """Messages arrived on a connection, in this order. An unknown connection is ignored.

        Only a quantum of elements of arrays, or of long announcements, is decided at once. If there
        is more, the connection is in `unfinished`, and the next call, with or without messages,
        decides more of what waits.
        Returns how many messages were decided: the elements of an array count each.
        """
        connection = self.connections.get(id)
        if connection is None:
            return 0
        if connection.grant is not OPEN and connection.has_run_out(now):
            self._dismiss(connection, refusals.expired(), Cause.EXPIRED, now)
            return 0
        connection.heard_at = connection.said_at = now.at
        if connection.life.state is not _PRESENT:
            self._hear(connection, now)
        if connection.resumption is not None:
            connection.resumption.taken += len(messages)
        passed = self._within_rate(connection, messages, now, counted=False)
        dropped = 0 if passed is messages else len(messages) - len(passed)
        if self.unfinished and id in self.unfinished:
            waiting = self.unfinished.pop(id)
            waiting.add(passed, dropped)
            return self._receive_more(connection, waiting, now)
        return self._receive(connection, passed, now, dropped)

    def heard(self, id: int, now: Instant) -> None:
        """A sign of life, for example a message that still waits to be `received`."""
        connection = self.connections.get(id)
        if connection is not None:
            connection.said_at = now.at
            self._hear(connection, now)

    def ponged(self, id: int, now: Instant) -> None:
        """A WebSocket pong arrived. It is a sign of life if the presence asked for that, and the
        peer has said something itself lately."""
        connection = self.connections.get(id)
        if connection is None or not connection.keepalive_pong:
            return
        if now.at - connection.said_at <= self._limits.pong_keepalive_s:
            self._hear(connection, now)

    def lagging(self, id: int, now: Instant, *, is_lagging: bool) -> None:
        """A connection has fallen too far behind its pace, or has caught up."""
        self._items.lagging(id, now, is_lagging=is_lagging)

    def ended(self, id: int, cause: Cause, now: Instant) -> None:
        """A connection is over. Calling it again changes nothing."""
        connection = self.connections.get(id)
        if connection is not None:
            self._apply(
                connection, lifecycle.transition(connection.life, Ended(now.at, cause)), now
            )

    def _dismiss(self, connection: Connection, reason: Refusal, cause: Cause, now: Instant) -> None:
        """End a connection after an error that says why."""
        self.refuse(connection, None, reason, now)
        self.ended(connection.id, cause, now)

    def lost(self, id: int, code: int, now: Instant) -> bool:
        """The socket of a connection is gone, with this close code. False: it cannot come back, so
        the connection is over, and `ended` has to be called."""
        connection = self.connections.get(id)
        step = None if connection is None else self.returns.lose(connection, code, now)
        if connection is not None and step is not None:
            self._apply(connection, step, now)
        return step is not None

    def shut_down(self, now: Instant) -> None:
        """Dismiss every connection at once. The mesh is not told: nobody stays to hear it."""
        for connection in tuple(self.connections.values()):
            step = lifecycle.transition(connection.life, Ended(now.at, Cause.SHUTDOWN))
            self._apply(connection, attrs.evolve(step, effects=(Hangup(Cause.SHUTDOWN),)), now)

    def deadline(self) -> float | None:
        """When (monotonic seconds) to call `expire`. It may be too early. None: never."""
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: Instant) -> None:
        """Let time pass: carry out everything whose deadline is at or before `now`."""
        while self._deadlines and self._deadlines[0][0] <= now.at:
            at, id = heapq.heappop(self._deadlines)
            connection = self.connections.get(id)
            if connection is None or connection.deadline_at != at:
                continue  # it ended, or an earlier deadline has taken the place of this one
            connection.deadline_at = math.inf
            if connection.has_run_out(now):
                self._dismiss(connection, refusals.expired(), Cause.EXPIRED, now)
                continue
            held = connection.announcements
            if held is not None and held.due <= now.at:
                announced = self.announcer.take(connection, now.at)
                try:
                    self.announcer.announce(connection, announced, now)
                except Refusal as refusal:
                    self.refuse(connection, announced.text, refusal, now)
            life = connection.life
            if connection.heard_at > life.since:
                # When a present peer says something, only `heard_at` changes. The table learns of
                # it here.
                life = lifecycle.transition(life, Heard(connection.heard_at)).life
            self._apply(connection, lifecycle.expire(life, now.at, self._limits), now)

    # What the mesh has decided about an item ------------------------------------------------------

    def entering(self, id: int, peer: str) -> None:
        """The mesh decides later about a presence that has just passed. Until then the connection
        speaks as this peer, and the mesh refuses what it says if it refuses the presence."""
        connection = self.connections[id]
        if connection.peer is None:
            connection.entering = peer
        if connection.announcements is None:
            connection.announcements = Announcements(self._limits)

    def turned_away(self, id: int, now: Instant) -> None:
        """The mesh has refused the latest presence of a connection that was entering."""
        connection = self.connections.get(id)
        if connection is not None:
            connection.entering = None
            if connection.peer is None:
                for held in self.announcer.forget(connection):
                    self.refuse(connection, held.text, refusals.not_present(), now)
                connection.announcements = None

    def accepted(self, id: int, peer: str, said: Announcement, now: Instant) -> None:
        """The mesh has accepted a presence: from now on this connection belongs to `peer`."""
        connection = self.connections.get(id)
        if connection is not None:
            # It may have been held: then it was heard before.
            announced = lifecycle.Announced(connection.heard_at)
            connection.life = lifecycle.transition(connection.life, announced).life
            connection.peer, connection.entering = peer, None
            connection.keepalive_pong = said.keepalive_pong
            if connection.announcements is None:
                connection.announcements = Announcements(self._limits)
            self._schedule(connection)

    def agents_said(self, id: int, agents: tuple[Agent, ...] | None) -> None:
        """An announcement has passed: from now on the connection has these agents. None: nobody
        knows, because the mesh has refused it later."""
        connection = self.connections.get(id)
        if connection is not None and connection.announcements is not None:
            connection.announcements.agents = agents

    def replaced(self, id: int, now: Instant) -> None:
        """Another connection of its peer has taken over. The mesh knows this one no more."""
        connection = self.connections.get(id)
        if connection is not None:
            self._dismiss(connection, refusals.replaced(), Cause.REPLACED, now)

    # Life -----------------------------------------------------------------------------------------

    def _hear(self, connection: Connection, now: Instant) -> None:
        connection.heard_at = now.at
        if connection.life.state is not _PRESENT:
            self._apply(connection, lifecycle.transition(connection.life, Heard(now.at)), now)

    def _apply(self, connection: Connection, step: lifecycle.Step, now: Instant) -> None:
        """Carry out the effects of a transition. It is not that of an announcement."""
        connection.life = step.life
        for effect in step.effects:
            match effect:
                case Leave(cause):
                    self._items.gone(connection.id, cause, now)
                case Hangup(cause):
                    if connection.peer is None and connection.entering is not None:
                        self._items.gone(connection.id, cause, now)  # perhaps it has joined
                    del self.connections[connection.id]
                    self.totals.closed[cause.value] += 1
                    self.announcer.forget(connection)
                    self.returns.forget(connection)
                    self.unfinished.pop(connection.id, None)
                    self._effects.append(Dismissed(connection.id, cause, CLOSE_CODES[cause]))
                case Join() | Renew():
                    raise AssertionError("only an announcement joins or renews")
        self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        due = lifecycle.deadline(connection.life, self._limits)
        if due is not None:
            due = min(due, connection.ends_at)
            if connection.announcements is not None:
                due = min(due, connection.announcements.due)
        if due is not None and due < connection.deadline_at:
            connection.deadline_at = due
            heapq.heappush(self._deadlines, (due, connection.id))

    # Messages -------------------------------------------------------------------------------------

    def _receive(
        self, connection: Connection, messages: Sequence[Inbound], now: Instant, dropped: int | None
    ) -> int:
        """`dropped`: how many frames came behind these, and were dropped by the rate limit.
        None: these are elements of an array."""
        decided = len(messages)
        id = connection.id
        said: granting.Said = self._items.said
        if connection.grant is not OPEN:
            said = partial(granting.say, said, connection, self._limits)
        if decided >= LEAST:
            together = self._runs.decide(said, connection, messages, now)
            if together == decided:
                return decided
            messages = messages[together:]
        decode, kinds, limits = self.codec.header, self.kinds, self._limits
        steps_left = limits.quantum_messages  # for elements, and for announcements
        waiting: Unfinished | None = None
        type: str | None = None
        coming = iter(messages)
        for message in coming:
            try:
                if message.__class__ is not bytes:
                    assert isinstance(message, Unreadable)
                    raise Refusal(message.code, message.sentence)
                if len(message) > limits.message_bytes_max:
                    raise refusals.too_large(limits)
                header = decode(message)
                if header.sender == RELAY:
                    raise refusals.as_the_relay(f"messages with `from` {RELAY!r}")
                if header.type != type:  # messages of one type often come in a run
                    type = header.type
                    kind = kinds[type]
                kind.count += 1
                route = kind.route
                if route is None:
                    route = kinds.invented(header.type)
                if route is _OTHERS or route is _TARGET:
                    said(id, header, (message,), route, now)
                else:
                    steps_left -= len(message) // _STEP_BYTES
                    behind = None if dropped is None else length_hint(coming) + dropped
                    must_wait = self._not_for_others(
                        connection, header, message, route, now, behind=behind
                    )
                    if (must_wait or steps_left < 0) and dropped is not None:
                        waiting = Unfinished([], list(coming), dropped)
            except Refusal as refusal:
                if refusal.code is ErrorCode.NOT_AN_OBJECT and dropped is not None:
                    passed, elements = self._arrays.read(connection, message, refusal, now)
                    first = passed[: max(0, steps_left)]
                    decided += self._receive(connection, first, now, None)
                    steps_left -= elements
                    if steps_left < 0:
                        waiting = Unfinished(passed[len(first) :], list(coming), dropped)
                else:
                    self.refuse(connection, message, refusal, now)
                    if steps_left < 0 and dropped is not None:
                        waiting = Unfinished([], list(coming), dropped)
        if waiting is not None and waiting.count:
            self.unfinished[id] = waiting
            decided -= len(waiting.messages)
        return decided

    def _receive_more(self, connection: Connection, waiting: Unfinished, now: Instant) -> int:
        """Decide a quantum of the elements that wait, and then what came behind them."""
        first = waiting.take_elements(self._limits.quantum_messages)
        decided = self._receive(connection, first, now, None)
        if waiting.elements:
            self.unfinished[connection.id] = waiting
            return decided
        return decided + self._receive(connection, waiting.messages, now, waiting.dropped)

    def _not_for_others(
        self,
        connection: Connection,
        header: Header,
        text: Text,
        route: Route | None,
        now: Instant,
        *,
        behind: int | None,
    ) -> bool:
        """`behind`: how many frames came behind this one at once (None: it is part of an array).
        True: they must wait."""
        if header.type == "capabilities":
            return self.returns.asked(connection, text, now, behind=behind)
        if route is Route.EVERYONE:
            self.announcer.present(connection, header, text, now)
        elif connection.speaks_as is None:
            raise refusals.not_present()
        elif route is Route.RELAY:
            self.announcer.beat(connection, header, text, now)
        elif route is Route.NOBODY:
            self.totals.withheld += 1
        elif route is Route.REFUSED:
            raise refusals.as_the_relay(f"the type {header.type!r}")
        else:
            raise refusals.unknown_type(header.type)
        return False
