"""Runs: messages behind one another with the same header, which one decision serves.

An agent that streams says many messages in one read, and where they go does not depend on what else
is in them. To read all headers at once and to decide each run once takes much less time than to do
so for every message.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, cast

from protocol.codec import Codec
from protocol.envelope import RELAY, Inbound, Refusal, Text
from protocol.instant import Instant
from protocol.mesh.answers import Answers
from protocol.mesh.connection import Connection
from protocol.mesh.granting import Said
from protocol.mesh.items import Apart
from protocol.mesh.routing import Kinds, Route

_FOR_OTHERS: Final = (Route.OTHERS, Route.TARGET)
LEAST: Final = 4
"""Of fewer messages that came at once, none is part of a long run."""


class Runs:
    """Decides the runs of one gate. What is no run for others is left to the gate."""

    def __init__(self, codec: Codec, kinds: Kinds, answers: Answers) -> None:
        self._codec = codec
        self._kinds = kinds
        self._refuse = answers.refuse

    def decide(
        self, said: Said, connection: Connection, messages: Sequence[Inbound], now: Instant
    ) -> int:
        """Decide as many of these messages as can be decided in runs, the first ones. Returns how
        many: none if it seems not worth while. `said`: `Items.said`, for this connection."""
        middle = len(messages) // 2
        near = self._codec.headers(messages[middle - 1 : middle + 1])
        if not near or near[0] != near[1]:  # most likely it is no long run
            return 0
        headers = self._codec.headers(messages)
        texts = cast("Sequence[Text]", messages)  # or there are no headers
        decided = 0
        for header, alike in groupby(headers):
            kind = self._kinds[header.type]
            if kind.route not in _FOR_OTHERS or header.sender == RELAY:
                break
            run = texts[decided : decided + len(list(alike))]
            try:
                said(connection.id, header, run, kind.route, now)
            except Apart:
                break
            except Refusal as refusal:
                for text in run:
                    self._refuse(connection, text, refusal, now)
            kind.count += len(run)
            decided += len(run)
        return decided
