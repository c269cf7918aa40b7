"""Arrays of messages (rule 15 in docs/protocol.md): which messages of one may be decided."""

from collections.abc import Callable

from protocol.codec import Codec
from protocol.envelope import Inbound, Refusal, Text
from protocol.instant import Instant
from protocol.mesh.connection import Connection
from protocol.mesh.rating import Within

Refuse = Callable[[Connection, Inbound | None, Refusal, Instant], None]
"""`Answers.refuse`."""


class Arrays:
    """Reads the arrays of all connections of one gate. `within`: the rate limit."""

    def __init__(self, codec: Codec, within: Within, refuse: Refuse) -> None:
        self._codec = codec
        self._within = within
        self._refuse = refuse

    def read(
        self, connection: Connection, message: Inbound, refusal: Refusal, now: Instant
    ) -> tuple[list[Text], int]:
        """The messages of an array that the rate limit lets through, and how many it has.

        If it is no valid array, it is refused as one message, with `refusal`.
        """
        assert isinstance(message, bytes)
        try:
            elements = self._codec.elements(message)
        except Refusal as too_many:
            elements, refusal = [], too_many
        if elements:
            passed = self._within(connection, elements, now, counted=True)
            return self._codec.texts(message, passed), len(elements)
        self._refuse(connection, message, refusal, now)
        return [], 0
