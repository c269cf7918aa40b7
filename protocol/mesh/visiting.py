"""Visits: what a program says that has no connection (rule 23 in docs/protocol.md).

A visit is one message, or an array of messages, and the bearer of a grant says them at once. Who
visits is not here: nobody sees it come and go, and it receives nothing but a `Receipt` for each
message.

This part stands where a gate stands: it decides what concerns one visit alone, and passes on the
rest as items (protocol.mesh.items). The rules are those of a connection. What differs:

- **Origin.** A connection has announced its peer. A visit has only what the message and the grant
  say (`visitor_of`).
- **Rate.** A bearer may come again and again, so it has one rate for all its visits (`Bearers`),
  for messages and for bytes. Without a grant that names a bearer all visits together have one.
- **Types** that say something about a connection are refused: `presence`, `heartbeat`,
  `capabilities`.

Whether a name is free, and who receives what, is decided in the mesh (protocol.mesh.visitors).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import attrs

from protocol import refusals
from protocol.codec import Codec
from protocol.envelope import RELAY, TEXT_BYTES, Header, Refusal, Text
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import granting
from protocol.mesh.items import Decided, Items, Visitor
from protocol.mesh.routing import Kinds, Route
from protocol.mesh.status import Totals
from protocol.rate import Rate

EXPLAINED_MAX: Final = 16
"""So many refusals of one visit are explained. Of the others only the codes are told, so that an
answer is not longer than what it answers."""
_FOR_OTHERS: Final = (Route.OTHERS, Route.TARGET)


@attrs.frozen
class Receipt:
    """What came of one message.

    `received`: to how many connections it went. `code`: why it was refused, as in the `data.code`
    of an `error`; None: it was not. `error`: the same for people, if it is explained. `details`:
    further fields of the error's `data`.

    >>> Receipt(3).as_data
    {'received': 3}
    """

    received: int = 0
    code: str | None = None
    error: str | None = None
    details: Mapping[str, object] = attrs.Factory(dict)

    @classmethod
    def of(cls, refusal: Refusal) -> "Receipt":
        """The message was refused."""
        return cls(0, refusal.code.code, refusal.sentence, refusal.details)

    @property
    def as_data(self) -> dict[str, object]:
        """As the visitor is told."""
        if self.code is None:
            return {"received": self.received}
        explained = {} if self.error is None else {"error": self.error}
        return {"code": self.code, **explained, **self.details}


# Rates --------------------------------------------------------------------------------------------


class Rates:
    """How much one bearer says in all its visits: as much as one connection may."""

    def __init__(self, limits: Limits) -> None:
        self.messages = Rate(limits.messages_per_s, limits.messages_burst)
        self.bytes = Rate(limits.bytes_in_per_s, limits.bytes_in_burst)

    def is_idle(self, at: float) -> bool:
        """Nothing that went so far makes a difference any more."""
        return self.messages.is_idle(at) and self.bytes.is_idle(at)


class Bearers:
    """The rates of those who have visited lately, in all meshes of a process. It is bounded: who
    has said nothing for a while is as good as new, and forgotten."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rates: dict[str | None, Rates] = {}

    def __len__(self) -> int:
        return len(self._rates)

    def admit(self, bearer: str | None, now: Instant) -> Rates:
        """The rates of this bearer (None: of all who have none), who wants to say something now.

        Raises Refusal: `rate_limited`, or `no_room` if too many others have visited.
        """
        rates = self._rates.get(bearer)
        if rates is None:
            if len(self._rates) >= self._limits.visitors_max:
                self._rates = {b: its for b, its in self._rates.items() if not its.is_idle(now.at)}
            if len(self._rates) >= self._limits.visitors_max:
                raise refusals.too_many_visitors()
            rates = self._rates[bearer] = Rates(self._limits)
        if not rates.messages.room(now.at):
            raise refusals.rate_limited(self._limits)
        if rates.bytes.opens_at() > now.at:
            raise refusals.too_many_bytes(self._limits)
        return rates


# One visit ----------------------------------------------------------------------------------------


class Visit:
    """What is said in one visit by the bearer of `grant`, whose `rates` these are.

    `is_list`: it is an array of messages, so the visitor expects a list. `when_over`: called when
    everything is decided.
    """

    def __init__(self, body: Text, grant: Grant, rates: Rates) -> None:
        self.grant = grant
        self.rates = rates
        self.body = body
        self.has_begun = False
        self.is_list = False
        self.when_over: Callable[[], None] = lambda: None
        self._receipts: list[Receipt | None] = []
        self._undecided = 0  # so many of the receipts are missing
        self._texts: list[Text] = []  # still to be decided, the last one first
        self._dropped = 0  # so many behind them are beyond the rate
        self._refused = 0

    def begin(self, texts: list[Text], *, is_list: bool, dropped: int) -> None:
        """It consists of these, and of so many that are dropped."""
        self.body = b""
        self.has_begun = True
        self.is_list = is_list
        self._texts, self._dropped = texts[::-1], dropped

    def next(self) -> int:
        """The next message is to be decided. Returns its place."""
        self._receipts.append(None)
        self._undecided += 1
        return len(self._receipts) - 1

    def decided(self, place: int, outcome: int | Refusal) -> None:
        """What came of the message at this place: to how many connections it went, or why not."""
        if isinstance(outcome, Refusal):
            self._refused += 1
            is_explained = self._refused <= EXPLAINED_MAX
            receipt = Receipt.of(outcome) if is_explained else Receipt(0, outcome.code.code)
        else:
            receipt = Receipt(outcome)
        self._receipts[place] = receipt
        self._undecided -= 1
        if self.is_over:
            self.when_over()

    @property
    def receipts(self) -> list[Receipt]:
        """What has come of it so far, in order."""
        return [receipt for receipt in self._receipts if receipt is not None]

    @property
    def has_more(self) -> bool:
        """Something of it waits to be said."""
        return not self.has_begun or bool(self._texts)

    @property
    def is_over(self) -> bool:
        """Everything is decided."""
        return self.has_begun and not self._texts and not self._dropped and not self._undecided

    @property
    def held_bytes(self) -> int:
        """The bytes of what waits to be decided."""
        return len(self.body) + sum(len(text) + TEXT_BYTES for text in self._texts)

    def take(self, limits: Limits) -> list[Text]:
        """Take out the next ones to decide: a quantum, and at least one if any is left."""
        taken: list[Text] = []
        bytes = 0
        while self._texts and len(taken) < limits.quantum_messages:
            bytes += len(self._texts[-1])
            if taken and bytes > limits.quantum_bytes:
                break
            taken.append(self._texts.pop())
        return taken

    def take_dropped(self) -> int:
        """How many were dropped by the rate. The next answer is 0."""
        dropped, self._dropped = self._dropped, 0
        return dropped


class Visits:
    """Decides about the visits to one mesh. Never waits. Not thread-safe.

    Messages that pass go to `items`. What is counted is counted in `totals` and in `kinds`, which
    are those of the gate.
    """

    def __init__(
        self, limits: Limits, codec: Codec, items: Items, totals: Totals, kinds: Kinds
    ) -> None:
        self._limits = limits
        self._codec = codec
        self._items = items
        self._totals = totals
        self._kinds = kinds

    def decide(self, visit: Visit, now: Instant) -> int:
        """Decide the next quantum of a visit. Returns how many messages were decided."""
        if not visit.has_begun:
            try:
                self._begin(visit, now)
            except Refusal as refusal:
                visit.rates.messages.take(now.at)
                self._totals.received += 1
                visit.begin([], is_list=False, dropped=0)
                self._decided(visit, visit.next(), refusal)
                return 1
        texts = visit.take(self._limits)
        dropped = 0 if visit.has_more else visit.take_dropped()
        # All of them first: what is decided at once may end the visit.
        places = [visit.next() for _ in range(len(texts) + dropped)]
        for place, text in zip(places, texts, strict=False):
            then = partial(self._decided, visit, place)
            try:
                self._say(visit.grant, text, now, then)
            except Refusal as refusal:
                then(refusal)
        for place in places[len(texts) :]:
            self._decided(visit, place, refusals.rate_limited(self._limits))
        return len(texts)

    def _decided(self, visit: Visit, place: int, outcome: int | Refusal) -> None:
        if isinstance(outcome, Refusal):
            self._totals.refused += 1
            self._totals.codes[outcome.code.code] += 1
        visit.decided(place, outcome)

    def _begin(self, visit: Visit, now: Instant) -> None:
        """Find the messages, and those of them that the rate lets through. Raises Refusal if the
        whole visit is wrong."""
        limits, body = self._limits, visit.body
        ends_at_ms = visit.grant.ends_at_ms
        if ends_at_ms is not None and now.wall_ms >= ends_at_ms + 1000 * limits.grant_grace_s:
            raise refusals.expired()
        if len(body) > limits.message_bytes_max:
            raise refusals.too_large(limits)
        elements = self._codec.elements(body) if body.lstrip()[:1] == b"[" else []
        texts = self._codec.texts(body, elements) if elements else [body]
        rate = visit.rates.messages
        passed = min(len(texts), rate.room(now.at))
        rate.take(now.at, passed)
        self._totals.received += len(texts)
        visit.begin(texts[:passed], is_list=bool(elements), dropped=len(texts) - passed)

    def _say(self, grant: Grant, text: Text, now: Instant, then: Decided) -> None:
        """`then` hears to how many connections a message goes, or why it is refused. Raises
        Refusal, if that is known at once."""
        header, limits = self._codec.header(text), self._limits
        if header.sender == RELAY:
            raise refusals.as_the_relay(f"messages with `from` {RELAY!r}")
        kind = self._kinds[header.type]
        kind.count += 1
        route = kind.route or self._kinds.invented(header.type)
        if route is None:
            raise refusals.unknown_type(header.type)
        if route is Route.NOBODY:
            self._totals.withheld += 1
            then(0)
            return
        if route is Route.REFUSED:
            raise refusals.as_the_relay(f"the type {header.type!r}")
        if route not in _FOR_OTHERS:
            raise refusals.only_for_connections(header.type)
        visitor = visitor_of(grant, header, limits)
        granting.check_said(grant, visitor.peer, header, limits)
        self._items.visited(visitor, header, text, route, now, then)


def visitor_of(grant: Grant, header: Header, limits: Limits) -> Visitor:
    """Who speaks. Raises Refusal: `bad_field`, `too_long`, `spoofed`, `not_granted`.

    It is the peer in `instanceId`, or, without this field, in `from`. Where the grant names a peer,
    it is that peer if `from` is missing, or is none that the grant covers: then it is the name of
    one of its agents.

    >>> ann, limits = Grant(peer="ann"), Limits()
    >>> [visitor_of(ann, Header("ack", id), limits).peer for id in (None, "ann/cron", "coder")]
    ['ann', 'ann/cron', 'ann']
    """
    peer, field = header.instance_id, "instanceId"
    if peer is None:
        peer, field = header.sender, "from"
        if peer is None or not grant.covers_peer(peer):
            peer = grant.peer
    if peer is None:
        raise refusals.nobody_speaks()
    refusals.check_name(peer, field, limits)
    if peer == RELAY:
        raise refusals.as_the_relay(f"messages of a peer {RELAY!r}")
    granting.check_peer(grant, peer)
    return Visitor(peer, is_proven=peer == grant.peer)
