"""The life of a membership: how a peer comes into a mesh and stays there, as one total table.

This is the peer's own side of the matter; the relay's side is protocol/mesh/lifecycle.py, and the
two are written alike. Seven states, ten events, seventy cells, all of them in `TABLE`, the target
of a transition nowhere else. The browser module has the same table in its own language, and a test
compares the two.

    WAITING     no connection; the next attempt comes when the backoff is over
    JOINING     a connection is being made: opened, announced, until its own presence comes back (or
                something else tells that it was taken: protocol/member/unproved.py)
    PRESENT     one connection, in use
    RENEWING    in use, while its replacement is being made
    SWITCHING   the replacement has joined; the one in use still delivers what came before that
    SUSPENDED   asleep, and no connection is there; nothing happens until the peer is nudged
    ENDED       over: the peer has left, or has met a permanent error

At any time there are at most two connections: the one **in use** (PRESENT, RENEWING, SWITCHING) and
the **next** one (JOINING, RENEWING, SWITCHING). Why an overlap loses and repeats nothing: all
connections of a mesh see one same order of messages, in which the presence that the next one
announces is a mark. The connection in use is read up to the mark, the next one from the mark on.

As there, nothing here reads a clock or throws dice: an event carries the time (`at`, seconds of any
monotonic clock) and, where a backoff may follow, a `chance` from 0 up to 1.

Longer than 400 lines because the table has every cell, and every action stands beside it.
"""

import enum
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from protocol.instant import first_of
from protocol.limits import MembershipLimits


class MemberState(enum.Enum):
    """Where a peer's membership is in its life: docs/lifecycle.md has the table."""

    WAITING = "waiting"
    JOINING = "joining"
    PRESENT = "present"
    RENEWING = "renewing"
    SWITCHING = "switching"
    SUSPENDED = "suspended"
    ENDED = "ended"


# Events -------------------------------------------------------------------------------------------


@attrs.frozen
class _Happened:
    """What happened at monotonic time `at` (seconds). A backoff that may follow is by `chance`, and
    over at `until`. `is_refusal`: it happened because somebody there said no."""

    at: float
    chance: float = 0.0
    until: float = math.inf
    is_refusal: bool = False


@attrs.frozen
class Joined(_Happened):
    """The next connection has its own presence back, or what counts as that: the relay routes to
    it."""


@attrs.frozen
class Failed(_Happened):
    """The next connection could not be made, or is over."""


@attrs.frozen
class Heard(_Happened):
    """Something arrived on the connection in use."""


@attrs.frozen
class Marked(_Happened):
    """The connection in use has delivered the presence that the next one announced."""


@attrs.frozen
class Lost(_Happened):
    """The connection in use is over."""


@attrs.frozen
class Silent(_Happened):
    """Nothing was heard on the connection in use for too long: it may be open, but only here."""


@attrs.frozen
class Elapsed(_Happened):
    """The time of the state is over: of the wait, of the attempt, of the connection's life."""


@attrs.frozen
class Nudged(_Happened):
    """There is reason to look now: the network is back, or the machine, or the peer, has slept."""


@attrs.frozen
class Suspended(_Happened):
    """The peer falls asleep, and says goodbye: it will not hear what is said to it meanwhile."""


@attrs.frozen
class Ended(_Happened):
    """The peer leaves, or has met a permanent error."""


Event = Joined | Failed | Heard | Marked | Lost | Silent | Elapsed | Nudged | Suspended | Ended
EVENTS: Final = (*(Joined, Failed, Heard, Marked, Lost, Silent, Elapsed, Nudged, Suspended, Ended),)


class Effect(enum.Enum):
    """What must be done, in order."""

    OPEN = "open"  # make a connection: it is the next one
    ADOPT = "adopt"  # the next one is the one in use from here on
    DISCARD = "discard"  # close the next one, if it is open
    DROP = "drop"  # close the one in use, if it is open
    PROBE = "probe"  # ask the relay for a sign of life on the connection in use


# The record, and what comes out of a transition ---------------------------------------------------


@attrs.frozen
class Membership:
    """Where a membership is in its life. Times are seconds of the events' clock.

    `due`: when the state runs out by itself, None if never. `heard`: when something last came on
    the connection in use. `doubted`: since when there is doubt that it is alive, None if there is
    none. `attempts`: how many have failed in a row because nobody answered; `refusals`: or because
    somebody refused. One of the two is 0. `joined`: when the connection in use was joined.
    """

    state: MemberState
    due: float | None
    heard: float = 0.0
    doubted: float | None = None
    attempts: int = 0
    refusals: int = 0
    joined: float = 0.0


@attrs.frozen
class Step:
    """The record after a transition, and the effects to carry out, in order."""

    membership: Membership
    effects: tuple[Effect, ...] = ()


Action = Callable[[Membership, Event, MembershipLimits], Step]
"""From the old record to the new one, whose state the table sets, and the effects."""


class ImpossibleTransition(Exception):
    """An event came in a state in which it cannot happen: a bug in the caller. Nothing has
    changed."""


# Actions ------------------------------------------------------------------------------------------


def ignored(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Legal, and without meaning here."""
    return Step(old)


def impossible(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Cannot happen: the connection that it is about does not exist in this state."""
    raise ImpossibleTransition(f"{type(event).__name__} in state {old.state.name}")


def attempt(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Make a connection."""
    due = event.at + limits.join_within_s
    return Step(attrs.evolve(old, due=due), (Effect.OPEN,))


def enter(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """The connection that was made is the one in use. How many attempts have failed is forgotten
    only when it has lasted, so that one which is always lost at once is not made ever faster."""
    return Step(_in_use(old, event, limits), (Effect.ADOPT,))


def switch(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Read the old one up to the mark."""
    return Step(attrs.evolve(old, due=event.at + limits.switch_within_s))


def replace(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """The old one has delivered all that was its own to deliver, or can deliver no more."""
    return Step(_in_use(old, event, limits), (Effect.DROP, Effect.ADOPT))


def back_off(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """No connection is left: try again, later after every failure. Where nobody answers, it is
    never much later, because whoever comes back expects to find everyone."""
    if event.is_refusal:
        attempts, refusals, wait_max_s = 0, old.refusals + 1, limits.backoff_max_s
    else:
        attempts, refusals, wait_max_s = old.attempts + 1, 0, limits.retry_max_s
    if old.state is not MemberState.JOINING:  # what was before a healthy connection is forgotten
        lasted_s = event.at - old.joined
        attempts = min(attempts, 1) if lasted_s > limits.retry_max_s else attempts
        refusals = min(refusals, 1) if lasted_s > limits.backoff_max_s else refusals
    wait_s = backoff(attempts + refusals - 1, event.chance, wait_max_s, limits)
    due = min(event.at + wait_s, event.until)
    effects = (Effect.DISCARD,) if old.state is MemberState.JOINING else (Effect.DROP,)
    return Step(Membership(old.state, due, attempts=attempts, refusals=refusals), effects)


def postpone(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """The replacement was not made; the one in use still is, so there is no hurry. Try again
    later."""
    wait_s = backoff(old.attempts, event.chance, limits.backoff_max_s, limits)
    due, attempts = event.at + wait_s, old.attempts + 1
    return Step(attrs.evolve(old, due=due, attempts=attempts, refusals=0), (Effect.DISCARD,))


def carry_on(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """The one in use is lost, but the next is on its way already; its time goes on."""
    return Step(attrs.evolve(old, doubted=None), (Effect.DROP,))


def touch(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """A sign of life. Every message is one, so the record is made at once: `evolve` costs more."""
    heard = max(old.heard, event.at)
    return Step(Membership(old.state, old.due, heard, None, old.attempts, old.refusals, old.joined))


def doubt(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Ask for a sign of life, and wait only briefly for it; not again while it is waited for."""
    if old.doubted is not None:
        return Step(old)
    return Step(attrs.evolve(old, doubted=event.at), (Effect.PROBE,))


def suspend(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Close whatever is open, and wait for a nudge."""
    return Step(Membership(old.state, None), (Effect.DISCARD, Effect.DROP))


def finish(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """Close whatever is open."""
    return Step(Membership(old.state, None), (Effect.DISCARD, Effect.DROP))


def backoff(attempts: int, chance: float, wait_max_s: float, limits: MembershipLimits) -> float:
    """Seconds to wait after so many failures before this one: doubled each time up to `wait_max_s`,
    then spread evenly from nothing to that, so that a thousand peers do not come back as one.

    >>> [backoff(n, 0.5, 30.0, MembershipLimits(backoff_first_s=1)) for n in (0, 1, 9)]
    [0.5, 1.0, 15.0]
    """
    grown_s = limits.backoff_first_s * 2.0 ** min(attempts, 64)
    return chance * min(wait_max_s, limits.backoff_max_s, grown_s)


def _in_use(old: Membership, event: Event, limits: MembershipLimits) -> Membership:
    return Membership(
        old.state,
        due=event.at + limits.renew_after_s,
        heard=event.at,
        attempts=old.attempts,
        refusals=old.refusals,
        joined=event.at,
    )


# The table ----------------------------------------------------------------------------------------


@attrs.frozen
class Edge:
    """One cell: the state afterwards, and the action that says what else happens."""

    target: MemberState
    action: Action


_W, _J, _P, _R, _S, _Z, _E = MemberState

TABLE: Final[Mapping[tuple[MemberState, type[Event]], Edge]] = MappingProxyType(
    {
        (_W, Joined): Edge(_W, impossible),
        (_W, Failed): Edge(_W, impossible),
        (_W, Heard): Edge(_W, impossible),
        (_W, Marked): Edge(_W, impossible),
        (_W, Lost): Edge(_W, impossible),
        (_W, Silent): Edge(_W, impossible),
        (_W, Elapsed): Edge(_J, attempt),
        (_W, Nudged): Edge(_J, attempt),
        (_W, Suspended): Edge(_Z, suspend),
        (_W, Ended): Edge(_E, finish),
        (_J, Joined): Edge(_P, enter),
        (_J, Failed): Edge(_W, back_off),
        (_J, Heard): Edge(_J, impossible),
        (_J, Marked): Edge(_J, impossible),
        (_J, Lost): Edge(_J, impossible),
        (_J, Silent): Edge(_J, impossible),
        (_J, Elapsed): Edge(_W, back_off),
        (_J, Nudged): Edge(_J, ignored),  # it is being made already
        (_J, Suspended): Edge(_Z, suspend),
        (_J, Ended): Edge(_E, finish),
        (_P, Joined): Edge(_P, impossible),
        (_P, Failed): Edge(_P, impossible),
        (_P, Heard): Edge(_P, touch),
        (_P, Marked): Edge(_P, impossible),
        (_P, Lost): Edge(_W, back_off),
        (_P, Silent): Edge(_W, back_off),
        (_P, Elapsed): Edge(_R, attempt),
        (_P, Nudged): Edge(_P, doubt),
        (_P, Suspended): Edge(_Z, suspend),
        (_P, Ended): Edge(_E, finish),
        (_R, Joined): Edge(_S, switch),
        (_R, Failed): Edge(_P, postpone),
        (_R, Heard): Edge(_R, touch),
        (_R, Marked): Edge(_P, replace),  # the mark overtook the next one's own copy of it
        (_R, Lost): Edge(_J, carry_on),
        (_R, Silent): Edge(_J, carry_on),
        (_R, Elapsed): Edge(_P, postpone),
        (_R, Nudged): Edge(_R, doubt),
        (_R, Suspended): Edge(_Z, suspend),
        (_R, Ended): Edge(_E, finish),
        (_S, Joined): Edge(_S, impossible),
        (_S, Failed): Edge(_P, postpone),
        (_S, Heard): Edge(_S, touch),
        (_S, Marked): Edge(_P, replace),
        (_S, Lost): Edge(_P, replace),
        (_S, Silent): Edge(_P, replace),
        (_S, Elapsed): Edge(_P, replace),
        (_S, Nudged): Edge(_S, ignored),  # a fresh connection is there already
        (_S, Suspended): Edge(_Z, suspend),
        (_S, Ended): Edge(_E, finish),
        (_Z, Joined): Edge(_Z, impossible),
        (_Z, Failed): Edge(_Z, impossible),
        (_Z, Heard): Edge(_Z, impossible),
        (_Z, Marked): Edge(_Z, impossible),
        (_Z, Lost): Edge(_Z, impossible),
        (_Z, Silent): Edge(_Z, impossible),
        (_Z, Elapsed): Edge(_Z, impossible),
        (_Z, Nudged): Edge(_J, attempt),
        (_Z, Suspended): Edge(_Z, ignored),
        (_Z, Ended): Edge(_E, finish),
        (_E, Joined): Edge(_E, impossible),
        (_E, Failed): Edge(_E, impossible),
        (_E, Heard): Edge(_E, impossible),
        (_E, Marked): Edge(_E, impossible),
        (_E, Lost): Edge(_E, impossible),
        (_E, Silent): Edge(_E, impossible),
        (_E, Elapsed): Edge(_E, impossible),
        (_E, Nudged): Edge(_E, ignored),
        (_E, Suspended): Edge(_E, ignored),
        (_E, Ended): Edge(_E, ignored),
    }
)

IN_USE: Final = (_P, _R, _S)
"""The states in which there is a connection in use."""
HAS_NEXT: Final = frozenset({_J, _R, _S})
"""The states in which there is a next connection."""


def begun(at: float) -> Membership:
    """The record of a peer that wants to join at once, at monotonic time `at` (seconds)."""
    return Membership(_W, due=at)


def transition(old: Membership, event: Event, limits: MembershipLimits) -> Step:
    """The one way from a record to the next. Raises ImpossibleTransition, and then changes nothing.

    >>> transition(begun(at=0.0), Elapsed(at=0.0), MembershipLimits()).membership.state
    <MemberState.JOINING: 'joining'>
    """
    edge = TABLE[old.state, type(event)]
    step = edge.action(old, event, limits)
    is_there, moved = step.membership.state is edge.target, step.membership
    return step if is_there else Step(attrs.evolve(moved, state=edge.target), step.effects)


def renewed_by(membership: Membership, at: float) -> Membership:
    """The record of a connection that may not be used for long: it is replaced at `at`, if not
    sooner. Without a connection, or if it is being replaced already, nothing changes."""
    if membership.state is not _P or membership.due is None or membership.due <= at:
        return membership
    return attrs.evolve(membership, due=at)


def kept(membership: Membership, at: float) -> Membership:
    """The record of a connection that cannot be replaced while it is in use, and should be at `at`:
    it is in use until it is lost."""
    is_due = membership.due is not None and membership.due <= at
    return attrs.evolve(membership, due=None) if is_due and membership.state is _P else membership


def silent_at(membership: Membership, limits: MembershipLimits) -> float | None:
    """When the connection in use counts as dead if nothing is heard; None if there is none."""
    if membership.state not in IN_USE:
        return None
    if membership.doubted is None:
        return membership.heard + limits.silent_after_s
    return membership.doubted + limits.probe_within_s


def deadline(membership: Membership, limits: MembershipLimits) -> float | None:
    """When (monotonic seconds) something happens by itself; None if nothing ever does."""
    return first_of(membership.due, silent_at(membership, limits))


def expire(membership: Membership, now: float, chance: float, limits: MembershipLimits) -> Step:
    """The transition whose deadline is at or before `now`, if there is one.

    One at a time, at the time it is noticed: a process that slept for an hour has lost its
    connection once, and has not made a hundred attempts meanwhile. If a silence is noticed too
    late, perhaps this process itself was asleep and did not listen: then it doubts first.
    """
    silent = silent_at(membership, limits)
    if silent is not None and silent <= now:
        late = now - silent > limits.probe_within_s
        if late and membership.doubted is None and membership.state is not MemberState.SWITCHING:
            return transition(membership, Nudged(now, chance), limits)
        return transition(membership, Silent(now, chance), limits)
    if membership.due is not None and membership.due <= now:
        return transition(membership, Elapsed(now, chance), limits)
    return Step(membership)


def diagram() -> str:
    """The table as a Mermaid state diagram, one arrow per cell that changes the state or has
    effects."""
    lines = ["stateDiagram-v2", "    [*] --> waiting"]
    for (state, event), edge in TABLE.items():
        if edge.action not in (ignored, impossible, touch):
            name = f"{event.__name__} / {edge.action.__name__}"
            lines.append(f"    {state.value} --> {edge.target.value}: {name}")
    lines.append("    ended --> [*]")
    return "\n".join(lines) + "\n"


def table_rows() -> str:
    """The table as Markdown, a row per event, a column per state, every cell filled."""
    lines = ["| | " + " | ".join(f"**{state.value}**" for state in MemberState) + " |"]
    lines.append("|---" * (len(MemberState) + 1) + "|")
    for event in EVENTS:
        cells = (TABLE[state, event] for state in MemberState)
        shown = (
            "-" if cell.action is impossible else f"{cell.target.value}, *{cell.action.__name__}*"
            for cell in cells
        )
        lines.append(f"| {event.__name__} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
