"""A point in time. Events carry it, because the protocol itself reads no clock."""

import msgspec


class Instant(msgspec.Struct, frozen=True, gc=False):
    """A point in time. `at`: monotonic seconds. `wall_ms`: milliseconds since the epoch."""

    at: float
    wall_ms: int


def first_of(*dues: float | None) -> float | None:
    """The first of these times, without those that never come (None).

    >>> first_of(2.0, None, 1.0), first_of(None)
    (1.0, None)
    """
    first = None
    for due in dues:
        if due is not None and (first is None or due < first):
            first = due
    return first
