"""For which agents this one of several connections of a peer serves.

Tabs that share a peer all hear every command for it. So they elect one for each agent (the browser
does: browser/src/election.js), and only that one serves it. The others stand by: they keep each
command for as long as one waits for a service, in case they are elected meanwhile, because the one
before is gone. What that one took it tells the others, so that nothing is done twice. Whoever does
not take part in elections, as programs do not, serves everything.
"""

from collections.abc import Iterable


class Elected:
    """For which agents this connection is elected. `takes_part`: there are elections, and at first
    it is elected for none. At most `taken_max` of the commands that others took are remembered."""

    def __init__(self, *, takes_part: bool, taken_max: int) -> None:
        self._agents: frozenset[str] | None = frozenset() if takes_part else None
        self._taken_max = taken_max
        self._taken: dict[tuple[str, str], None] = {}  # the oldest first

    @property
    def takes_part(self) -> bool:
        """There are others, perhaps, who should know what this one takes."""
        return self._agents is not None

    def elect(self, agents: Iterable[str] | None) -> None:
        """It is elected for these from now on; None: for all, there are no elections after all."""
        self._agents = None if agents is None else frozenset(agents)

    def serves(self, agent: str) -> bool:
        """Commands for this agent are this connection's."""
        return self._agents is None or agent in self._agents

    def note_taken(self, turn_id: str, agent: str) -> None:
        """Another one has taken this command for this agent."""
        self._taken[turn_id, agent] = None
        if len(self._taken) > self._taken_max:
            del self._taken[next(iter(self._taken))]

    def is_taken(self, turn_id: str | None, agent: str) -> bool:
        """Another one has it already, which it may say before the command itself comes."""
        return (turn_id, agent) in self._taken
