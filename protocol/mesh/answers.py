"""What the gate itself answers: errors. And what it hands to the mesh to answer: `capabilities`."""

from collections.abc import Callable
from functools import partial

import msgspec

from protocol.claims import read_claim
from protocol.codec import Codec
from protocol.envelope import ErrorCode, Inbound, Refusal, Text
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh import texts
from protocol.mesh.connection import Connection
from protocol.mesh.effects import Deliver, Effect, Only, Refused
from protocol.mesh.items import Question
from protocol.mesh.recalling import how_many
from protocol.mesh.status import Totals
from protocol.mesh.work import ERROR_WORK, Work

Make = Callable[[str | None], Text]
"""Makes an answer to a connection that belongs to this peer (None: to none)."""


def _error(
    refusal: Refusal, turn_id: msgspec.Raw | None, wall_ms: int, limits: Limits, peer: str | None
) -> Text:
    return texts.error(refusal, peer, turn_id, wall_ms, limits)


class Answers:
    """Answers to the connections of one gate. Appends them to `effects`, and counts in `totals`.

    `work`: what they cost. `later`: takes an answer to a connection of which it is not decided yet
    whether it belongs to the peer that it has announced.
    """

    def __init__(self, limits: Limits, codec: Codec, effects: list[Effect], totals: Totals) -> None:
        self.work = Work()
        self.later: Callable[[Connection, Make], None] | None = None
        self._limits = limits
        self._codec = codec
        self._effects = effects
        self.totals = totals

    def refuse(
        self,
        connection: Connection,
        message: Inbound | None,
        refusal: Refusal,
        now: Instant,
        count: int = 1,
    ) -> None:
        """Tell the sender, and nobody else, why `message` is not passed on.

        `message` is None if the refusal is about none, or about `count` messages. Of echoes it is
        told now and then, as with the rate limit.
        """
        if refusal.code is ErrorCode.ECHOED:
            self.totals.echoed += count
            if now.at - connection.echo_error_at < self._limits.rate_error_every_s:
                self.note(connection, refusal.code, count, now)
                return
            connection.echo_error_at = now.at
        turn_id = self._codec.turn_id(message) if isinstance(message, bytes) else None
        make = partial(_error, refusal, turn_id, now.wall_ms, self._limits)
        self.work.extra += ERROR_WORK
        self._answer(connection, make)
        self.note(connection, refusal.code, count, now)

    def note(self, connection: Connection, code: ErrorCode, count: int, now: Instant) -> None:
        """Count `count` refusals. Now and then they are told to whoever reads the logs."""
        self.totals.refused += count
        self.totals.codes[code.code] += count
        connection.refusals += count
        if now.at - connection.refusal_logged_at >= self._limits.refusal_log_every_s:
            noted = Refused(connection.id, connection.peer, code, connection.refusals)
            self._effects.append(noted)
            connection.refusals, connection.refusal_logged_at = 0, now.at

    def question(self, connection: Connection, text: Text) -> Question:
        """Take the claim in a `capabilities`, and the wish for earlier messages. What is asked with
        it. Raises Refusal."""
        claim = read_claim(text)
        recalls = how_many(text) if self._limits.recall_messages_max else None
        if recalls is not None and connection.speaks_as is not None:
            raise Refusal(ErrorCode.BAD_FIELD, "`data.history` comes before the first presence")
        if claim is not None:
            connection.claims(claim)
        if recalls is not None:
            connection.recalls = recalls
        turn_id = self._codec.turn_id(text)
        return Question(connection.peer, turn_id, connection.is_paced, connection.grant)

    def _answer(self, connection: Connection, make: Make) -> None:
        if connection.entering is not None and self.later is not None:
            self.later(connection, make)
        else:
            self._effects.append(Deliver((make(connection.peer),), Only((connection.id,))))

    def reported(
        self, connection: Connection, text: Text, data: dict[str, object], now: Instant
    ) -> None:
        """Answer a `capabilities` that is only a report for coming back."""
        turn_id = self._codec.turn_id(text)
        self._answer(
            connection, lambda peer: texts.about_coming_back(peer, turn_id, data, now.wall_ms)
        )

    def about_coming_back(
        self, connection: Connection, text: Text, data: dict[str, object], now: Instant
    ) -> Text:
        """The answer to a `capabilities` that is only about coming back."""
        turn_id = self._codec.turn_id(text)
        return texts.about_coming_back(connection.peer, turn_id, data, now.wall_ms)
