"""A rate limit: so many a second, and so many more at once."""


class Rate:
    """A rate limit of `per_s` a second and `burst` at once. Its state is one number (GCRA).

    The number is the time at which the next one would be due without any burst.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._due = 0.0
        self.set(per_s, burst)

    def set(self, per_s: float, burst: float) -> None:
        """Have this rate from now on; what went so far still counts."""
        self._interval_s = 1 / per_s
        self._burst_s = max(0.0, burst - 1) * self._interval_s

    def clear(self) -> None:
        """Nothing counts that went so far."""
        self._due = 0.0

    def opens_at(self) -> float:
        """When the next one may go (monotonic seconds)."""
        return self._due - self._burst_s

    def room(self, at: float) -> int:
        """How many may go at once now. Rounding makes no difference.

        >>> Rate(10, 5).room(100)
        5
        """
        ahead_s = at + self._burst_s - max(self._due, at)
        return max(0, int(ahead_s / self._interval_s + 1.5))

    def is_idle(self, at: float) -> bool:
        """What went so far makes no difference any more."""
        return self._due <= at

    def take(self, at: float, count: float = 1) -> None:
        """`count` go now."""
        self._due = max(self._due, at) + count * self._interval_s

    def forgive(self, at: float, most_s: float) -> None:
        """What has gone beyond so many seconds at this rate does not count any more."""
        self._due = min(self._due, at + most_s)
