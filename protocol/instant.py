"""A point in time. Events carry it, because the protocol itself reads no clock."""

import msgspec


class Instant(msgspec.Struct, frozen=True, gc=False):
    """A point in time. `at`: monotonic seconds. `wall_ms`: milliseconds since the epoch."""

    at: float
    wall_ms: int
