"""Making a failing history small."""

from collections.abc import Callable, Sequence

from protocol.verification.simulation.events import Event, HandOver, OfConnection, Settle


def shrink(
    history: Sequence[Event],
    fails: Callable[[Sequence[Event]], bool],
    may_go_on: Callable[[], bool] = lambda: True,
) -> list[Event]:
    """A part of a failing history that still fails, as short as leaving out can make it.

    First whole kinds of events are left out, then whole connections, then chunks, down to single
    events (as ddmin does), with their time or without. `fails` says whether a history fails;
    `may_go_on` is asked before each attempt, and if it says no, the shortest so far is the answer.
    Without it the answer depends on `history` and `fails` alone.
    """
    events = list(history)

    def attempt(rest: list[Event]) -> bool:
        nonlocal events
        if len(rest) < len(events) and may_go_on() and fails(rest):
            events = rest
            return True
        return False

    for kind in (HandOver, Settle):
        attempt([event for event in events if not isinstance(event, kind)])
    connections = sorted({e.c for e in events if isinstance(e, OfConnection)}, reverse=True)
    size = len(connections)
    while size:
        size //= 2
        for start in range(0, len(connections), max(1, size)):
            without = set(connections[start : start + max(1, size)])
            attempt([e for e in events if not (isinstance(e, OfConnection) and e.c in without)])
    size = len(events)
    while size:
        size = max(1, size // 2)
        start, is_shorter = 0, False
        while start < len(events) and may_go_on():
            rest = events[start + size :]
            if attempt(events[:start] + rest) or (
                rest and attempt(events[:start] + _earlier(rest, rest[0].at - events[start].at))
            ):
                is_shorter = True
            else:
                start += size
        if size == 1 and not (is_shorter and may_go_on()):
            break
    return events


def _earlier(events: list[Event], seconds: float) -> list[Event]:
    return [event.earlier(seconds) for event in events]
