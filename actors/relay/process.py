"""What all meshes of one process share: its bounds, its turns, and what is counted for it."""

from actors.clock import Clock
from actors.relay.crowd import Crowd
from actors.relay.journal import Events
from actors.relay.ledger import Ledger
from actors.relay.lobby import Lobby
from actors.relay.rests import Holds
from actors.relay.traffic import Traffic
from protocol.limits import Limits


class Process:
    """Made once for each runtime.

    `ledger`: what the process holds. `lobby`: where connections wait that have not announced
    themselves. `crowd`: the turns of those who say too much. `holds`: the moments in which the
    thread may stop (None: it never may). `traffic` and `events`: what its meshes do.
    """

    __slots__ = ("crowd", "events", "holds", "ledger", "lobby", "traffic")

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        ledger: Ledger | None = None,
        owns_thread: bool = False,
    ) -> None:
        self.ledger = ledger or Ledger.within(limits)
        self.lobby = Lobby(limits, clock)
        self.crowd = Crowd(limits)
        self.holds = Holds(clock) if owns_thread else None
        self.traffic = Traffic(limits.round_bytes_max)
        self.events = Events()
