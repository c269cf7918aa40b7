"""What the rounds of all meshes of this process have moved, and how long rounds take."""

from bisect import bisect_left
from typing import Final

import attrs

BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Durations are counted between these bounds."""

SAMPLED: Final = 16
"""Every 16th round is measured, because a look at the clock costs as much as a small message."""


class Durations:
    """A histogram. `counts`: how many were at most as long as each of `BOUNDS_S`, and not as long
    as the one before; the last count has the longer ones. It may be read from any thread."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, seconds: float) -> None:
        """Something took so long."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


@attrs.define(eq=False)
class Traffic:
    """Counts since the process began. A delivery is one message to one connection; its bytes are
    those of WebSocket frames. `untaken_bytes`: of the `round_bytes_max` that each round may take.

    `rounds_s`: how long rounds took, one of `SAMPLED`.
    """

    round_bytes_max: int = 0
    rounds: int = 0
    untaken_bytes: int = 0
    deliveries: int = 0
    delivered_bytes: int = 0
    rounds_s: Durations = attrs.Factory(Durations)

    def deliver(self, messages: int, bytes: int) -> None:
        """So many messages are sent, each as often as it has receivers."""
        self.deliveries += messages
        self.delivered_bytes += bytes

    @property
    def taken_bytes(self) -> int:
        """Of messages that were decided."""
        return self.rounds * self.round_bytes_max - self.untaken_bytes
