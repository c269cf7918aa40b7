"""So many a second, and so many at once above that, as one number (GCRA)."""


class Rate:
    """So many a second, and so many at once above that (GCRA: one number, the next one's time)."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._due = 0.0
        self.set(per_s, burst)

    def set(self, per_s: float, burst: float) -> None:
        self._interval_s = 1 / per_s
        self._burst_s = max(0.0, burst - 1) * self._interval_s

    def opens_at(self) -> float:
        """When the next one may go."""
        return self._due - self._burst_s

    def take(self, at: float, count: int = 1) -> None:
        """So many go now."""
        self._due = max(self._due, at) + count * self._interval_s
