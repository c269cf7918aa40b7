"""What a peer says about itself, and how much of that the relay has taken.

Announcements are numbered from 1; number 0 is what the peer joined with. A later announcement
stands for all that came before it: when the relay takes or refuses it, those are answered too.
A refused one is forgotten, and the peer is again what the relay took last.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from protocol.agents import agent_id
from protocol.instant import Instant
from protocol.member.errors import AnnouncementRefused, RelayError
from protocol.member.messages import copy_of, write_message

ANNOUNCED_MAX: Final = 16
"""So many announcements may be on their way on one connection. Beyond, only the latest is made,
once one of them is answered."""


@attrs.frozen(eq=False)
class Said:
    """What one announcement says."""

    number: int
    agents: tuple[Any, ...]
    metadata: Mapping[str, Any]


@attrs.frozen
class Answered:
    """These announcements are answered. `error`: why they were refused, None if they were taken."""

    numbers: tuple[int, ...]
    error: RelayError | None


class Announcements:
    """What the peer `id` announces. `keepalive`: what its presences say under that name.

    Making one raises TypeError (no JSON).
    """

    def __init__(
        self, id: str, agents: Iterable[Any], metadata: Mapping[str, Any], keepalive: str | None
    ) -> None:
        self._id = id
        self._keepalive = keepalive
        self._number = 0
        self._unanswered: list[int] = []
        self.wanted = self.made(agents, metadata)
        """What the peer is to be."""
        self.accepted: Said | None = None
        """What the relay has taken last; None before the first joining."""
        self._said: Said | None = None  # on the connection in use
        self._asked: dict[str, Said] = {}  # there, by turn id, and not answered yet

    @property
    def agent_ids(self) -> tuple[str, ...]:
        """The ids of the peer's own agents, in their order, each once."""
        ids = (agent_id(agent) for agent in self.wanted.agents)
        return tuple(dict.fromkeys(id for id in ids if id is not None))

    def made(self, agents: Iterable[Any] | None, metadata: Mapping[str, Any] | None) -> Said:
        """An announcement of these; None: as it is now. Raises TypeError."""
        if isinstance(agents, str):
            raise TypeError("agents is a list, of ids or of objects")
        return Said(
            self._number,  # a copy, so that it stays what it is, whatever becomes of the objects
            self.wanted.agents if agents is None else tuple(copy_of(tuple(agents))),
            self.wanted.metadata if metadata is None else copy_of(dict(metadata)),
        )

    def want(self, said: Said) -> int:
        """Be this from now on. Returns the number of the announcement."""
        self._number += 1
        self._unanswered.append(self._number)
        self.wanted = attrs.evolve(said, number=self._number)
        return self._number

    def text(self, said: Said, turn_id: str, now: Instant) -> str:
        """The presence that says it."""
        own: dict[str, Any] = {"agents": said.agents}
        if self._keepalive is not None:
            own["keepalive"] = self._keepalive
        fields = {"type": "presence", "from": self._id, "turnId": turn_id}
        data = {**said.metadata, **own, "accept": ["batch"]}
        return write_message({**fields, "data": data, "timestamp": now.wall_ms})

    # On the connection in use ---------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Something else is wanted than was said, and it may be said now."""
        return self._said is not self.wanted and len(self._asked) < ANNOUNCED_MAX

    def say(self, turn_id: str) -> Said:
        """What is wanted is said now, under this turn id."""
        self._said = self._asked[turn_id] = self.wanted
        return self.wanted

    def repeat(self) -> None:
        """What was said is to be said once more."""
        self._said = None

    def is_asked(self, turn_id: str) -> bool:
        """This announcement is not answered yet."""
        return turn_id in self._asked

    def joined(self, said: Said) -> Answered:
        """A connection that began by saying this is the one in use now."""
        self._said = said
        self._asked.clear()
        return self._accept(said)

    def taken(self, turn_id: str) -> Answered:
        """The relay has taken what was said under this turn id."""
        return self._accept(self._pop(turn_id))

    def refused(self, turn_id: str, error: AnnouncementRefused) -> Answered:
        """The relay has refused it."""
        said = self._pop(turn_id)
        if self.wanted is said:  # else it has been taken back already
            self.wanted = self._said = self.accepted or said
        return self._answer(said.number, error)

    def joined_as_refused(self, said: Said, error: AnnouncementRefused) -> Answered | None:
        """The relay has refused what a new connection began with. None: there is nothing that it
        took before, so that the peer cannot be anything else."""
        if said is self.accepted or self.accepted is None:
            return None
        if self.wanted is said:
            self.wanted = self.accepted
        return self._answer(said.number, error)

    def _pop(self, turn_id: str) -> Said:
        """What was said under this turn id. Nothing more is awaited of what was said before it: of
        announcements in quick succession the relay may take the last alone."""
        said = self._asked[turn_id]
        self._asked = {id: s for id, s in self._asked.items() if s.number > said.number}
        return said

    def _accept(self, said: Said) -> Answered:
        self.accepted = said
        return self._answer(said.number, None)

    def _answer(self, number: int, error: RelayError | None) -> Answered:
        answered = tuple(other for other in self._unanswered if other <= number)
        self._unanswered = self._unanswered[len(answered) :]
        return Answered(answered, error)
