"""The rate limit of messages: how many of those that came at once a connection may say.

Its state is one number for each connection (GCRA): `Connection.rate_due_at`, the theoretical
arrival time of the next message.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from protocol import refusals
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.answers import Answers
from protocol.mesh.connection import Connection
from protocol.mesh.status import Totals


class Within(Protocol):
    """`Rating.within`."""

    def __call__(
        self, connection: Connection, messages: Sequence[Any], now: Instant, *, counted: bool
    ) -> Sequence[Any]:
        """The messages that the rate limit lets through."""
        ...


class Rating:
    """Keeps the connections of one gate to `messages_per_s`, after a burst."""

    def __init__(self, limits: Limits, answers: Answers, totals: Totals) -> None:
        self._limits = limits
        self._answers = answers
        self._totals = totals
        self._interval_s = 1 / limits.messages_per_s
        self._burst_s = (limits.messages_burst + 0.5) * self._interval_s  # (rounding)

    def within(
        self, connection: Connection, messages: Sequence[Any], now: Instant, *, counted: bool
    ) -> Sequence[Any]:
        """The messages that the rate limit lets through. The others are refused together.

        `counted`: the limit has counted one message already, the array that holds all of these.
        """
        fresh = len(messages) - counted
        self._totals.received += fresh
        connection.received += fresh
        earliest, at = connection.rate_due_at, now.at
        if earliest < at:  # noqa: PLR1730 (a call, for every message that comes alone)
            earliest = at
        due = earliest + fresh * self._interval_s
        if due - at <= self._burst_s:  # as far ahead of now as the burst allows, and no further
            connection.rate_due_at = due
            return messages
        passed = max(0, int((at + self._burst_s - earliest) / self._interval_s))
        passed = min(passed, fresh)
        connection.rate_due_at = earliest + passed * self._interval_s
        dropped = fresh - passed
        if not dropped:  # rounded the other way than the quick check
            return messages
        refusal = refusals.rate_limited(self._limits)
        if at - connection.rate_error_at >= self._limits.rate_error_every_s:
            connection.rate_error_at = at
            self._answers.refuse(connection, None, refusal, now, dropped)
        else:
            self._answers.note(connection, refusal.code, dropped, now)
        return messages[: passed + counted]
