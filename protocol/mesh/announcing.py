"""The announcements of one connection: so many a second are applied, and the last one always is.

Every announcement goes to everybody in the mesh, so a connection may make only
`announcements_per_s`, after a burst. An announcement is a presence, or a heartbeat that changes the
agents; a long one counts as several, one for every `announcement_bytes`. What comes beyond the rate
is *held* until its time has come. A later announcement replaces a held one, as far as it says the
same: a presence replaces everything, a heartbeat only the agents. So in the end the mesh is what it
would be if all of them had been applied.
"""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from protocol import refusals
from protocol.agents import Agent
from protocol.envelope import RELAY, Announcement, ErrorCode, Header, Refusal, Text
from protocol.limits import Limits
from protocol.rate import Rate

PRESENCE: Final = "presence"


@attrs.frozen
class Announced:
    """One announcement: a presence, or a heartbeat with agents. `said` is what its `data` says."""

    header: Header
    text: Text
    said: Announcement

    @property
    def is_presence(self) -> bool:
        """It says everything about the connection, not only its agents."""
        return self.header.type == PRESENCE

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The agents that the connection has after it."""
        return self.said.agents or ()


class Announcements:
    """Those of one connection: what has passed last, and what is held.

    `agents`: those that have passed last. None: that is not known. `held`: in their order.
    """

    __slots__ = ("_rate", "_unit_bytes", "agents", "held")

    def __init__(self, limits: Limits) -> None:
        self.agents: tuple[Agent, ...] | None = ()
        self._rate = Rate(limits.announcements_per_s, limits.announcements_burst)
        self._unit_bytes = limits.announcement_bytes
        self.held: Sequence[Announced] = ()

    def is_news(self, said: Announcement) -> bool:
        """This heartbeat changes the agents that the connection has, or will have in a moment."""
        latest = self.held[-1].agents if self.held else self.agents
        return said.agents is not None and said.agents != latest

    def must_wait(self, at: float) -> bool:
        """What is offered at monotonic time `at` (seconds) would be held."""
        return bool(self.held) or self._rate.opens_at() > at

    def offer(self, announced: Announced, at: float) -> bool:
        """Something is announced at monotonic time `at` (seconds). True: apply it now. False: it
        is held."""
        if not self.must_wait(at):
            self._count(announced, at)
            return True
        if announced.is_presence:
            self.held = (announced,)
        else:
            self.held = (*(held for held in self.held if held.is_presence), announced)
        return False

    @property
    def held_bytes(self) -> int:
        """The bytes of what is held."""
        return sum(len(held.text) for held in self.held)

    @property
    def due(self) -> float:
        """When (monotonic seconds) the first held one is to be applied. Infinite: none is held."""
        return self._rate.opens_at() if self.held else math.inf

    def take(self, at: float) -> Announced:
        """Take out the held one that is due, to apply it at monotonic time `at` (seconds)."""
        first, *rest = self.held
        self._count(first, at)
        self.held = tuple(rest)
        return first

    def _count(self, announced: Announced, at: float) -> None:
        self._rate.take(at, -(-len(announced.text) // self._unit_bytes))


def check_identity(header: Header, peer: str | None, limits: Limits) -> None:
    """Raise Refusal unless this presence may come from a connection that belongs to `peer` (None:
    to nobody yet)."""
    id = header.sender
    if id is None:
        raise Refusal(ErrorCode.BAD_FIELD, "a presence needs `from`, the peer's id")
    refusals.check_name(id, "from", limits)
    if peer is not None and id != peer:
        raise refusals.identity_fixed(peer)
    if header.instance_id not in (None, id):
        raise Refusal(ErrorCode.SPOOFED, "`instanceId` must be the same as `from`")


def check_agents(agents: Sequence[Agent], limits: Limits) -> None:
    """Raise Refusal unless agents may have these names."""
    for agent in agents:
        id = agent.id
        if id is not None:
            refusals.check_name(id, "data.agents", limits)
        if id == RELAY:
            sentence = f"an agent must not have the relay's name, {RELAY!r}"
            raise Refusal(ErrorCode.SPOOFED, sentence)
