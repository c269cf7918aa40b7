"""The life of one connection of a peer, as one total table.

Four states, five events, twenty cells, every one of them written down in `TABLE`. The target of a
transition is in the table and nowhere else; what must happen beside it is a pure action, from the
old record and the event to the new record's facts and a tuple of effects. Nothing here reads a
clock: an event carries the time at which it happened, in seconds of any monotonic clock.

There are no timers either. `deadline(life, limits)` says, from the record alone, when its state
runs out, so there is nothing to cancel when something is heard; whoever owns a clock calls
`expire(life, now, limits)` then.

    CONNECTING  the socket is open, the peer has not announced itself yet
    PRESENT     announced, and heard from lately
    STALE       announced, and silent for longer than `stale_after_s`, or its socket was lost and it
                may come back; still routed to
    REAPED      over, whatever the cause; the cause is data, not a state

The diagram in docs/lifecycle.md is generated from `TABLE` by `diagram()`, and a test compares them.
"""

import enum
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from protocol.limits import Limits


class PeerState(enum.Enum):
    """Where a connection is in its life."""

    CONNECTING = "connecting"
    PRESENT = "present"
    STALE = "stale"
    REAPED = "reaped"


class Cause(enum.Enum):
    """Why a connection ended. The value is the `reason` in the offline presence."""

    LEFT = "left"
    SILENT = "silent"
    UNANNOUNCED = "unannounced"
    DISPLACED = "displaced"
    EVICTED = "evicted"
    REPLACED = "replaced"
    EXPIRED = "expired"
    UNREACHABLE = "unreachable"
    CRASHED = "crashed"
    SHUTDOWN = "shutdown"


# Events -------------------------------------------------------------------------------------------


@attrs.frozen
class Announced:
    """A valid presence arrived at monotonic time `at` (seconds)."""

    at: float


@attrs.frozen
class Heard:
    """Anything that counts as a sign of life arrived at monotonic time `at` (seconds)."""

    at: float


@attrs.frozen
class Elapsed:
    """The record's deadline has passed. `at` is this deadline, not when it was noticed."""

    at: float


@attrs.frozen
class Ended:
    """The connection is over at monotonic time `at` (seconds), because of `cause`."""

    at: float
    cause: Cause


@attrs.frozen
class Lost:
    """The socket is gone at monotonic time `at` (seconds), and the connection may come back on
    another one until `until`."""

    at: float
    until: float


Event = Announced | Heard | Elapsed | Lost | Ended

# Effects ------------------------------------------------------------------------------------------


@attrs.frozen
class Join:
    """From now on this connection belongs to a peer that is here."""


@attrs.frozen
class Renew:
    """A peer that was here announced itself again."""


@attrs.frozen
class Leave:
    """This connection no longer counts for its peer."""

    cause: Cause


@attrs.frozen
class Hangup:
    """Close the socket, if it is still open."""

    cause: Cause


Effect = Join | Renew | Leave | Hangup

# The record, and what comes out of a transition ---------------------------------------------------


@attrs.frozen
class Life:
    """Where one connection is in its life. `since`: when it opened or was last heard (seconds).

    `until`: it has lost its socket, and may come back until then (seconds).
    """

    state: PeerState
    since: float
    cause: Cause | None = None
    until: float = math.inf


@attrs.frozen
class Step:
    """The record after a transition, and the effects to carry out, in order."""

    life: Life
    effects: tuple[Effect, ...] = ()


@attrs.frozen
class Facts:
    """What an action decides: the new record without its state. The table decides the state."""

    since: float
    effects: tuple[Effect, ...] = ()
    cause: Cause | None = None
    until: float = math.inf


Action = Callable[[Life, Event], Facts]


class ImpossibleTransition(Exception):
    """An event came in a state in which it cannot happen: the caller has a bug.

    Nothing has changed.
    """


# Actions ------------------------------------------------------------------------------------------


def ignored(life: Life, event: Event) -> Facts:
    """The event is legal here and means nothing."""
    return Facts(life.since, (), life.cause)


def impossible(life: Life, event: Event) -> Facts:
    """The event cannot happen: the `deadline` of this state is None, so it never elapses."""
    raise ImpossibleTransition(f"{type(event).__name__} in state {life.state.name}")


def join(life: Life, event: Event) -> Facts:
    """The first presence: the connection joins its peer."""
    return Facts(max(life.since, event.at), (Join(),))


def renew(life: Life, event: Event) -> Facts:
    """A repeated presence: a sign of life that the others see too."""
    return Facts(max(life.since, event.at), (Renew(),))


def touch(life: Life, event: Event) -> Facts:
    """A sign of life. Events may be told late, so time never runs backwards."""
    return Facts(max(life.since, event.at))


def age(life: Life, event: Event) -> Facts:
    """Silent for too long. `since` stays: the next deadline counts from the same silence."""
    return Facts(life.since)


def lose(life: Life, event: Event) -> Facts:
    """Its socket is gone. It is as good as silent, but for a shorter time."""
    if isinstance(event, Lost):
        return Facts(life.since, until=min(life.until, event.until))
    raise ImpossibleTransition(f"{type(event).__name__} is no loss")


def give_up(life: Life, event: Event) -> Facts:
    """It did not announce itself in time. Nobody knew it, so nobody is told."""
    return Facts(life.since, (Hangup(Cause.UNANNOUNCED),), Cause.UNANNOUNCED)


def reap(life: Life, event: Event) -> Facts:
    """Silent for so long that the connection ends."""
    return Facts(life.since, (Leave(Cause.SILENT), Hangup(Cause.SILENT)), Cause.SILENT)


def forget(life: Life, event: Event) -> Facts:
    """It ended before it joined."""
    cause = _cause(event)
    return Facts(life.since, (Hangup(cause),), cause)


def part(life: Life, event: Event) -> Facts:
    """It ended after it joined."""
    cause = _cause(event)
    return Facts(life.since, (Leave(cause), Hangup(cause)), cause)


def _cause(event: Event) -> Cause:
    if isinstance(event, Ended):
        return event.cause
    if isinstance(event, Lost):
        return Cause.LEFT
    raise ImpossibleTransition(f"{type(event).__name__} has no cause")


# The table ----------------------------------------------------------------------------------------


@attrs.frozen
class Edge:
    """One cell: the state afterwards, and the action that says what else happens."""

    target: PeerState
    action: Action


_C, _P, _S, _R = PeerState.CONNECTING, PeerState.PRESENT, PeerState.STALE, PeerState.REAPED

TABLE: Final[Mapping[tuple[PeerState, type[Event]], Edge]] = MappingProxyType(
    {
        (_C, Announced): Edge(_P, join),
        (_C, Heard): Edge(_C, ignored),  # talking does not extend the time to announce
        (_C, Elapsed): Edge(_R, give_up),
        (_C, Lost): Edge(_R, forget),  # there is nothing to come back to
        (_C, Ended): Edge(_R, forget),
        (_P, Announced): Edge(_P, renew),
        (_P, Heard): Edge(_P, touch),
        (_P, Elapsed): Edge(_S, age),
        (_P, Lost): Edge(_S, lose),
        (_P, Ended): Edge(_R, part),
        (_S, Announced): Edge(_P, renew),
        (_S, Heard): Edge(_P, touch),
        (_S, Elapsed): Edge(_R, reap),
        (_S, Lost): Edge(_S, lose),
        (_S, Ended): Edge(_R, part),
        (_R, Announced): Edge(_R, ignored),  # frames that were on their way when it ended
        (_R, Heard): Edge(_R, ignored),
        (_R, Elapsed): Edge(_R, impossible),
        (_R, Lost): Edge(_R, ignored),
        (_R, Ended): Edge(_R, ignored),  # the first cause stands
    }
)


def opened(at: float) -> Life:
    """The record of a socket accepted at monotonic time `at` (seconds)."""
    return Life(PeerState.CONNECTING, at)


def transition(life: Life, event: Event) -> Step:
    """The next record. There is no other way to it. May raise ImpossibleTransition.

    >>> transition(opened(at=0.0), Announced(at=1.0)).life
    Life(state=<PeerState.PRESENT: 'present'>, since=1.0, cause=None, until=inf)
    """
    edge = TABLE[life.state, type(event)]
    facts = edge.action(life, event)
    return Step(Life(edge.target, facts.since, facts.cause, facts.until), facts.effects)


def deadline(life: Life, limits: Limits) -> float | None:
    """When (monotonic seconds) the state of `life` ends by itself. None if it never does."""
    match life.state:
        case PeerState.CONNECTING:
            return life.since + limits.announce_within_s
        case PeerState.PRESENT:
            return life.since + limits.stale_after_s
        case PeerState.STALE:
            return min(life.since + limits.reap_after_s, life.until)
        case PeerState.REAPED:
            return None


def expire(life: Life, now: float, limits: Limits) -> Step:
    """All transitions whose deadline is at or before `now`, one after the other, as one step.

    If a process slept through several deadlines, it passes through all states between.
    """
    effects: tuple[Effect, ...] = ()
    while (due := deadline(life, limits)) is not None and due <= now:
        step = transition(life, Elapsed(due))
        life, effects = step.life, effects + step.effects
    return Step(life, effects)


def diagram() -> str:
    """The table as a Mermaid state diagram: an arrow for each cell that does something."""
    lines = ["stateDiagram-v2", "    [*] --> connecting"]
    for (state, event), edge in TABLE.items():
        if edge.action in (ignored, impossible):
            continue
        name = event.__name__
        lines.append(f"    {state.value} --> {edge.target.value}: {name} / {edge.action.__name__}")
    lines.append("    reaped --> [*]")
    return "\n".join(lines) + "\n"


def table_rows() -> str:
    """The table as Markdown, a row per state, a column per event, every cell filled."""
    events = (Announced, Heard, Elapsed, Lost, Ended)
    lines = ["| | " + " | ".join(e.__name__ for e in events) + " |", "|---" * 6 + "|"]
    for state in PeerState:
        cells = (TABLE[state, event] for event in events)
        shown = (f"{cell.target.value}, *{cell.action.__name__}*" for cell in cells)
        lines.append(f"| **{state.value}** | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
