"""Where a node stands in its federation, as one total table.

    JOINING     it has asked to take part, and waits for what the others know
    JOINED      it takes part: what is decided comes from the log
    ISOLATED    the log was silent for too long. It decides alone, and the peers of others are gone
    FENCED      its part is over: its connections end, and then it asks again

A relay without a backplane has no standing; /ready calls it "solo".
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs


class Standing(enum.Enum):
    """Where a node stands. The value is what operators see."""

    JOINING = "joining"
    JOINED = "joined"
    ISOLATED = "isolated"
    FENCED = "fenced"


class Event(enum.Enum):
    """What can happen to the standing of a node."""

    REACHED = "reached"
    """The log answers, at the beginning or again."""
    ENTERED = "entered"
    """The node has everything that it must know, or begins the federation."""
    SILENCED = "silenced"
    """Nothing has come from the log for too long."""
    REFUTED = "refuted"
    """What the node has does not count: it was evicted, entries are missing, the log is another
    one, or it has decided something else than the others."""
    CLEARED = "cleared"
    """No connection of the node is left."""


class Action(enum.Enum):
    """What the node does then."""

    NOTHING = "nothing"
    ASK = "ask"
    """Begin another life: say hello, and keep what comes from the log."""
    OPEN = "open"
    """Append what was said meanwhile."""
    CUT = "cut"
    """Let the peers of all others leave, and decide alone what was appended and not applied."""
    EXPEL = "expel"
    """End all connections of this node; they come back."""
    IMPOSSIBLE = "impossible"
    """The caller has a bug."""


class ImpossibleStep(Exception):
    """An event came in a standing in which it cannot happen. Nothing has changed."""


@attrs.frozen
class Cell:
    """The standing afterwards, and what to do."""

    target: Standing
    action: Action


_J, _D, _I, _F = Standing
_E = Event

TABLE: Final[Mapping[tuple[Standing, Event], Cell]] = MappingProxyType(
    {
        (_J, _E.REACHED): Cell(_J, Action.ASK),
        (_J, _E.ENTERED): Cell(_D, Action.OPEN),
        (_J, _E.SILENCED): Cell(_I, Action.CUT),
        (_J, _E.REFUTED): Cell(_J, Action.ASK),  # nothing was decided yet
        (_J, _E.CLEARED): Cell(_J, Action.IMPOSSIBLE),
        (_D, _E.REACHED): Cell(_D, Action.NOTHING),  # the same log goes on
        (_D, _E.ENTERED): Cell(_D, Action.IMPOSSIBLE),
        (_D, _E.SILENCED): Cell(_I, Action.CUT),
        (_D, _E.REFUTED): Cell(_F, Action.EXPEL),
        (_D, _E.CLEARED): Cell(_D, Action.IMPOSSIBLE),
        (_I, _E.REACHED): Cell(_F, Action.EXPEL),
        (_I, _E.ENTERED): Cell(_I, Action.IMPOSSIBLE),
        (_I, _E.SILENCED): Cell(_I, Action.NOTHING),
        (_I, _E.REFUTED): Cell(_I, Action.IMPOSSIBLE),  # it reads nothing
        (_I, _E.CLEARED): Cell(_I, Action.IMPOSSIBLE),
        (_F, _E.REACHED): Cell(_F, Action.NOTHING),
        (_F, _E.ENTERED): Cell(_F, Action.IMPOSSIBLE),
        (_F, _E.SILENCED): Cell(_F, Action.NOTHING),
        (_F, _E.REFUTED): Cell(_F, Action.NOTHING),
        (_F, _E.CLEARED): Cell(_J, Action.ASK),
    }
)


def step(standing: Standing, event: Event) -> Cell:
    """What happens. Raises ImpossibleStep.

    >>> step(Standing.JOINED, Event.SILENCED).target
    <Standing.ISOLATED: 'isolated'>
    """
    cell = TABLE[standing, event]
    if cell.action is Action.IMPOSSIBLE:
        raise ImpossibleStep(f"{event.value} while {standing.value}")
    return cell


def table_rows() -> str:
    """The table as Markdown, a row per standing, a column per event."""
    lines = ["| | " + " | ".join(e.value for e in Event) + " |", "|---" * 6 + "|"]
    for standing in Standing:
        cells = (TABLE[standing, event] for event in Event)
        shown = (f"{cell.target.value}, *{cell.action.value}*" for cell in cells)
        lines.append(f"| **{standing.value}** | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
