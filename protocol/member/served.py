"""A command that a service has: when it is time for another sign of life, and when nobody waits."""

import math

import attrs

from protocol.member.messages import Message


@attrs.define
class Served:
    """A command of the service `service`, for `agent`, at the cost of `size` bytes.

    `ack_at`: when to give another sign of life (None: never). `chunks`: how many were sent.
    `asker_was_here`: its asker has been in the roster meanwhile. `gone_at`: when the asker has been
    away for too long, None while it is here.
    """

    service: int
    agent: str
    message: Message
    size: int
    ack_at: float | None
    asker_was_here: bool
    chunks: int = 0
    gone_at: float | None = None

    @property
    def is_private(self) -> bool:
        """Only its asker receives the answers."""
        return self.message.fields.get("answers") == "direct"

    def is_of(self, asker: str | None, turn_id: str | None) -> bool:
        """This peer has asked it, under this turn id."""
        return self.message.origin == asker and self.message.turn_id == turn_id

    @property
    def due(self) -> float:
        """When (monotonic seconds) something is due first; infinity: never."""
        ack_at = math.inf if self.ack_at is None else self.ack_at
        return ack_at if self.gone_at is None else min(ack_at, self.gone_at)

    def note_asker(self, *, is_here: bool, is_sure: bool, too_long_at: float) -> None:
        """The asker is in the roster, or not; and that may mean nothing (`is_sure`). If it is away
        from now on, that is too long at `too_long_at`."""
        if is_here:
            self.asker_was_here, self.gone_at = True, None
        elif self.asker_was_here and self.gone_at is None and is_sure:
            self.gone_at = too_long_at

    def chunk_sent(self, ack_at: float) -> None:
        """The agent has given a sign of life itself. Where everyone receives it, pages would take
        another `ack` for a beginning."""
        self.chunks += 1
        self.ack_at = ack_at if self.is_private else None
