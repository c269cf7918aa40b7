"""The bounds and durations of a federation. All its nodes need the same ones."""

from itertools import pairwise
from typing import Final

import attrs

from protocol.limits import Limits

STEPS: Final = ("tick_s", "found_after_s", "evict_after_s", "isolate_after_s")
"""Durations of which each must be less than the next one."""


@attrs.frozen(kw_only=True)
class Timing:
    """How long a federation waits for what, and how much it keeps. `_s`: seconds.

    `tick_s`: a node says so often that it lives. `found_after_s`: if a newcomer hears nobody for so
    long, it begins the federation. `evict_after_s`: a node of which nothing has come for so long is
    evicted. `isolate_after_s`: a node to which nothing has come for so long decides alone.
    `stay_s`: the peers of a node that has said goodbye stay so long, and may come back elsewhere.
    `retry_s`: what was appended and has not come back is appended again. `ask_s`: a newcomer asks
    another node.

    `record_bytes_max`: of one record in the log. `window_bytes`: so much is appended and has not
    come back; then nothing more is read from connections. `joining_bytes_max`: so much comes while
    a newcomer waits for an answer; beyond that it asks anew.

    >>> Timing(tick_s=13)
    Traceback (most recent call last):
        ...
    ValueError: tick_s (13) must be less than found_after_s (6.0)
    """

    tick_s: float = 2.0
    found_after_s: float = 6.0
    evict_after_s: float = 12.0
    isolate_after_s: float = 14.0
    stay_s: float = 10.0
    retry_s: float = 2.0
    ask_s: float = 2.0
    record_bytes_max: int = 2**18
    window_bytes: int = 2**22
    joining_bytes_max: int = 2**27

    def __attrs_post_init__(self) -> None:
        for small, large in pairwise(STEPS):
            if not getattr(self, small) < getattr(self, large):
                raise ValueError(
                    f"{small} ({getattr(self, small)}) must be less than "
                    f"{large} ({getattr(self, large)})"
                )

    @property
    def evict_ticks(self) -> int:
        """So many Ticks of a node make `evict_after_s`."""
        return max(1, round(self.evict_after_s / self.tick_s))

    def check(self, limits: Limits) -> None:
        """Raise ValueError if peers would be reaped before their node is evicted."""
        if not self.isolate_after_s < limits.reap_after_s:
            raise ValueError(
                f"reap_after_s ({limits.reap_after_s}) must be more than the "
                f"{self.isolate_after_s} s after which a node decides alone"
            )
