"""What a peer says about itself, and how much of that the relay has taken.

Announcements are numbered from 1; number 0 is what the peer joined with. A later announcement
stands for all that came before it: when the relay takes or refuses it, those are answered too.
A refused one is forgotten, and the peer is again what the relay took last.

What the program wants of others (subscribing) is part of it. If the relay refuses that alone,
because there are too many wishes already, the peer is the same without it (`renounce`).
"""

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

import attrs

from protocol.agents import agent_id
from protocol.instant import Instant
from protocol.member.errors import AnnouncementRefused, RelayError
from protocol.member.messages import copy_of, write_message
from protocol.member.subscribing import FOR_ALL, NEEDED_MAX, subscription
from protocol.wish import EVERYTHING, Wish

ANNOUNCED_MAX: Final = 16
"""So many announcements may be on their way on one connection. Beyond, only the latest is made,
once one of them is answered."""


@attrs.frozen(eq=False)
class Said:
    """What one announcement says."""

    number: int
    agents: tuple[Any, ...]
    metadata: Mapping[str, Any]
    wish: Wish = EVERYTHING


@attrs.frozen
class Answered:
    """These announcements are answered. `error`: why they were refused, None if they were taken."""

    numbers: tuple[int, ...]
    error: RelayError | None


class Announcements:
    """What the peer `id` announces. `keepalive`: what its presences say under that name. `wish`:
    what its program wants.

    Making one raises TypeError (no JSON).
    """

    def __init__(
        self,
        id: str,
        agents: Iterable[Any],
        metadata: Mapping[str, Any],
        keepalive: str | None,
        wish: Wish = EVERYTHING,
    ) -> None:
        self._id = id
        self._keepalive = keepalive
        self._number = 0
        self._unanswered: list[int] = []
        self._needed: frozenset[str] = frozenset()  # types, whatever is wished
        self._is_alone = False  # the relay does not take what is wished
        self._version = 0  # of these two
        self._said_version = 0  # on the connection in use
        self._begun_version = 0  # on the one that comes
        self._began_with_wish = False
        self.wanted = self.made(agents, metadata, wish)
        """What the peer is to be."""
        self.accepted: Said | None = None
        """What the relay has taken last; None before the first joining."""
        self._said: Said | None = None  # on the connection in use
        # There, by turn id, and not answered yet; and whether a wish was said with it.
        self._asked: dict[str, tuple[Said, bool]] = {}

    @property
    def agent_ids(self) -> tuple[str, ...]:
        """The ids of the peer's own agents, in their order, each once."""
        ids = (agent_id(agent) for agent in self.wanted.agents)
        return tuple(dict.fromkeys(id for id in ids if id is not None))

    def made(
        self,
        agents: Iterable[Any] | None,
        metadata: Mapping[str, Any] | None,
        wish: Wish | None = None,
    ) -> Said:
        """An announcement of these; None: as it is now. Raises TypeError."""
        if isinstance(agents, str):
            raise TypeError("agents is a list, of ids or of objects")
        return Said(
            self._number,  # a copy, so that it stays what it is, whatever becomes of the objects
            self.wanted.agents if agents is None else tuple(copy_of(tuple(agents))),
            self.wanted.metadata if metadata is None else copy_of(dict(metadata)),
            self.wanted.wish if wish is None else wish,
        )

    def want(self, said: Said) -> int:
        """Be this from now on. Returns the number of the announcement."""
        self._number += 1
        self._unanswered.append(self._number)
        self.wanted = attrs.evolve(said, number=self._number)
        return self._number

    def need(self, types: Set[str]) -> bool:
        """The peer itself needs messages of these types from now on. True: that is to be said."""
        if self._needed.issuperset(types):
            return False
        said = [said for said in (self.wanted, self.accepted) if said is not None]
        before = [self._subscription(one, self._needed) for one in said]
        self._needed |= types
        is_news = before != [self._subscription(one, self._needed) for one in said]
        self._version += is_news
        return is_news

    def retry(self) -> None:
        """The relay may take what is wished now."""
        self._is_alone = False

    def renounce(self, turn_id: str | None = None) -> bool | None:
        """The relay takes no other wish; the same is to be said without one. False: this is known
        already. None: it was said without one. `turn_id`: of what was refused, on the connection in
        use; None: on the one that comes."""
        if turn_id is None:
            had_wish = self._began_with_wish
        else:
            had_wish = self._asked[turn_id][1]
            if had_wish:  # what was said later is awaited, also if that was the same
                while next(iter(self._asked)) != turn_id:
                    del self._asked[next(iter(self._asked))]
                del self._asked[turn_id]
        if not had_wish:
            return None
        if self._is_alone:
            return False
        self._is_alone = True
        self._version += 1
        return True

    def _subscription(self, said: Said, needed: Set[str]) -> dict[str, Any] | None:
        if self._is_alone or said.wish is EVERYTHING:
            return None
        return subscription(said.wish, needed | FOR_ALL if said.agents else needed)

    def longest(self, said: Said, turn_id: str, now: Instant) -> str:
        """The longest presence that may say it."""
        return self._text(said, turn_id, now, NEEDED_MAX)

    def text(self, said: Said, turn_id: str, now: Instant) -> str:
        """The presence that says it."""
        return self._text(said, turn_id, now, self._needed)

    def _text(self, said: Said, turn_id: str, now: Instant, needed: Set[str]) -> str:
        own: dict[str, Any] = {"agents": said.agents}
        if self._keepalive is not None:
            own["keepalive"] = self._keepalive
        wanted = self._subscription(said, needed)
        if wanted is not None:
            own["subscribe"] = wanted
        fields = {"type": "presence", "from": self._id, "turnId": turn_id}
        data = {**said.metadata, **own, "accept": ["batch"]}
        return write_message({**fields, "data": data, "timestamp": now.wall_ms})

    # On the connection in use ---------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Something else is wanted than was said, and it may be said now."""
        is_said = self._said is self.wanted and self._said_version == self._version
        return not is_said and len(self._asked) < ANNOUNCED_MAX

    def begin(self) -> Said:
        """What is wanted is said now on a connection that comes."""
        self._begun_version = self._version
        self._began_with_wish = self._subscription(self.wanted, self._needed) is not None
        return self.wanted

    def say(self, turn_id: str) -> Said:
        """What is wanted is said now, under this turn id."""
        said = self._said = self.wanted
        self._said_version = self._version
        self._asked[turn_id] = (said, self._subscription(said, self._needed) is not None)
        return said

    def repeat(self) -> None:
        """What was said is to be said once more."""
        self._said = None

    def is_asked(self, turn_id: str) -> bool:
        """This announcement is not answered yet."""
        return turn_id in self._asked

    def joined(self, said: Said) -> Answered:
        """A connection that began by saying this is the one in use now."""
        self._said, self._said_version = said, self._begun_version
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
        said, _ = self._asked[turn_id]
        self._asked = {id: s for id, s in self._asked.items() if s[0].number > said.number}
        return said

    def _accept(self, said: Said) -> Answered:
        self.accepted = said
        return self._answer(said.number, None)

    def _answer(self, number: int, error: RelayError | None) -> Answered:
        answered = tuple(other for other in self._unanswered if other <= number)
        self._unanswered = self._unanswered[len(answered) :]
        return Answered(answered, error)
