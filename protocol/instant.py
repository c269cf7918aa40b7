"""A point in time, as events carry it: the protocol itself never asks what time it is."""

import attrs


@attrs.frozen
class Instant:
    """A point in time: `at` seconds of a monotonic clock, `wall_ms` milliseconds since the
    epoch."""

    at: float
    wall_ms: int
