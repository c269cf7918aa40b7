"""The protocol alone as a subject: no I/O, exact time."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from protocol.envelope import ErrorCode, Inbound, Unreadable
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.effects import (
    Admitted,
    Chosen,
    Deliver,
    Dismissed,
    Effect,
    Everyone,
    Only,
    Others,
    Snapshot,
    Wants,
)
from protocol.mesh.lifecycle import Cause
from protocol.mesh.local import LocalMesh
from protocol.mesh.visiting import Rates, Receipt, Visit
from protocol.mesh.wishes import ALL
from protocol.verification.model import BINARY, Disagreement, Message, Permit
from protocol.verification.subjects.subject import Decision, Expectations, Happened, Subject

WALL_MS: Final = 1_700_000_000_000
"""The wall clock at virtual time 0 (milliseconds since the epoch)."""


def as_inbound(message: Message) -> Inbound:
    """A message of the model as the core takes it."""
    return Unreadable(ErrorCode.BINARY, "a binary frame") if message is BINARY else message


def as_grant(permit: Permit | None) -> Grant:
    """A permit of the model as the core takes it."""
    if permit is None:
        return OPEN
    ends_at = permit.ends_at
    return Grant(
        peer=permit.peer,
        agents=permit.agents,
        may_send=permit.may_send,
        may_watch=permit.may_watch,
        ends_at_ms=None if ends_at is None else WALL_MS + round(ends_at * 1000),
    )


def as_told(receipts: Sequence[Receipt]) -> list[str | int]:
    """What a visitor was answered, as a decision has it."""
    return [its.received if its.code is None else its.code for its in receipts]


class Expiry:
    """Notes what a mesh does when time passes: `begin`, let the mesh expire, ask what `happened`.

    Only held announcements are applied then. The effects of the mesh must be taken before.
    """

    def __init__(self, mesh: LocalMesh) -> None:
        self._noted: list[tuple[int, int]] = []  # how many effects there were, the connection
        self._effects = mesh._effects
        mesh.present = self._noting(mesh.present)  # type: ignore[method-assign]
        mesh.beat = self._noting(mesh.beat)  # type: ignore[method-assign]

    def begin(self) -> None:
        """The mesh expires next."""
        self._noted.clear()

    def happened(self, effects: Sequence[Effect]) -> list[Happened]:
        """What happened since `begin`, in order. `effects`: all that came of it."""
        order: list[tuple[int, Happened]] = [(at, ("announced", c)) for at, c in self._noted]
        for at, effect in enumerate(effects):
            if isinstance(effect, Dismissed):
                order.append((at, ("closed", effect.connection)))
        return [what for _, what in sorted(order, key=lambda one: one[0])]

    def _noting(self, apply: Callable[..., None]) -> Callable[..., None]:
        def noted(connection: int, *arguments: Any, **named: Any) -> None:
            self._noted.append((len(self._effects), connection))
            apply(connection, *arguments, **named)

        return noted


class CoreSubject(Subject):
    """The protocol alone. It decides at once, and time is exact."""

    has_time = True
    has_permits = True
    has_pace = True
    has_visits = True
    can_crash = True

    def __init__(
        self, limits: Limits | None = None, *, strict: bool = False, now: float = 0.0
    ) -> None:
        self.limits = limits or Limits()
        self.now = now
        self.mesh = self.make_mesh(strict)
        self._expiry = Expiry(self.mesh)
        self._present: set[int] = set()
        self._wishes: dict[int, int] = {}
        self._received: dict[int, list[bytes]] = {}
        self._closed: dict[int, int] = {}
        self._decisions: list[Decision] = []

    def make_mesh(self, strict: bool) -> LocalMesh:
        """What is checked. Here is the place for another one."""
        return LocalMesh(self.limits, strict=strict)

    @property
    def _instant(self) -> Instant:
        return Instant(self.now, WALL_MS + round(self.now * 1000))

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        self._received[c] = []
        self.mesh.opened(c, self._instant, is_paced=is_paced, grant=as_grant(permit))
        self._decided(Decision("opened", self.now, c))

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if c not in self._closed:
            self.mesh.received(c, [as_inbound(message) for message in messages], self._instant)
            while c in self.mesh.unfinished:
                self.mesh.received(c, (), self._instant)
            self._decided(Decision("received", self.now, c, messages))

    def visit(self, body: bytes, permit: Permit) -> None:
        visit = Visit(body, as_grant(permit), Rates(self.limits))
        while not visit.is_over:
            self.mesh.visits.decide(visit, self._instant)
        receipts = as_told(visit.receipts)
        self._decided(Decision("visited", self.now, 0, (body,), permit=permit, receipts=receipts))

    def close(self, c: int) -> None:
        self._end(c, Cause.LEFT)

    def fall_behind(self, c: int) -> None:
        self.mesh.fell_behind(c, self._instant)
        self._decided(Decision("fell_behind", self.now, c))

    def catch_up(self, c: int) -> None:
        self.mesh.caught_up(c, self._instant)
        self._decided(Decision("caught_up", self.now, c))

    def crash(self, c: int, where: int = 0) -> None:
        self._end(c, Cause.CRASHED)

    def pong(self, c: int) -> None:
        self.mesh.ponged(c, self._instant)
        self._decided(Decision("ponged", self.now, c))

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.mesh.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self._expire()
        self.now = until
        self._expire()

    def shut_down(self) -> None:
        self.mesh.shut_down(self._instant)
        self._decided(Decision("shut_down", self.now))

    def decisions(self) -> list[Decision]:
        decisions, self._decisions = self._decisions, []
        return decisions

    def active(self) -> Collection[int]:
        return [c for c, got in self._received.items() if got]

    def received(self, c: int) -> list[bytes]:
        got = self._received[c]
        if got:
            self._received[c] = []
        return got

    def closed_with(self, c: int) -> int | None:
        return self._closed.get(c)

    def check(self, judge: Expectations) -> None:
        seen = {
            peer.peer: (peer.state.value, peer.agents) for peer in self.mesh.status(self._instant)
        }
        if seen.keys() != judge.model.peers.keys():
            raise Disagreement(f"status shows {seen}, here are {[*judge.model.peers]}")
        for id, (state, _) in seen.items():
            if (state == "stale") != judge.model.is_stale(id):
                raise Disagreement(f"status shows peer {id} as {state}")

    def _end(self, c: int, cause: Cause) -> None:
        if c not in self._closed:
            self.mesh.ended(c, cause, self._instant)
            self._decided(Decision("ended", self.now, c, cause=cause.value))

    def _expire(self) -> None:
        self._expiry.begin()
        self.mesh.expire(self._instant)
        effects = self.mesh.take_effects()
        happened = self._expiry.happened(effects)
        self._decisions.append(Decision("elapsed", self.now, happened=happened))
        self._carry_out(effects)

    def _decided(self, decision: Decision) -> None:
        self._decisions.append(decision)
        self._carry_out(self.mesh.take_effects())

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(texts, Everyone()):
                    self._deliver(texts, self._present)
                case Deliver(texts, Others(excluded)):
                    self._deliver(texts, self._present.difference(excluded))
                case Deliver(texts, Chosen(wishes, excluded, also)):
                    chosen = {c for c in self._present if self._wishes.get(c, ALL) in wishes}
                    self._deliver(texts, chosen.difference(excluded).union(also))
                case Deliver(texts, Only(connections)):
                    self._deliver(texts, set(connections))
                case Snapshot(connection) as snapshot:
                    self._deliver(snapshot.presences, {connection})
                case Admitted(connection, watches=True):
                    self._present.add(connection)
                case Wants(connection, wish):
                    self._wishes[connection] = wish
                case Dismissed(connection, _, code):
                    if connection in self._closed:
                        raise Disagreement(f"connection {connection} was closed twice")
                    self._present.discard(connection)
                    self._closed[connection] = code
                case _:
                    pass  # for logs

    def _deliver(self, texts: Sequence[bytes], connections: set[int]) -> None:
        for c in connections:
            if c in self._closed:
                raise Disagreement(f"connection {c} is closed, and was sent {texts!r}")
            self._received[c] += texts
