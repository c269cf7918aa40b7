"""Which messages go where: the table from message type to audience.

`ROUTES` is that table. A type that it does not list goes where a broadcast goes, so that pages can
invent types of their own. The `strict` setting refuses such types instead.

`WITHHELD` has the types that the relay takes and passes on to nobody, and why.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from protocol import refusals
from protocol.limits import Limits


class Route(enum.Enum):
    """Where messages of one type go. The value is the wording of the table in the documents."""

    EVERYONE = "all peers, the sender included"
    OTHERS = "all peers except the sender"
    TARGET = "one peer"
    RELAY = "the server only"
    NOBODY = "nobody: existing pages mean these for themselves (rule 13)"
    REFUSED = "nobody: only the relay sends these, and a peer that does is refused"


RELAYS_PREFIX: Final = "relay-"
"""What the types begin with in which existing pages tell their own tabs about their relays."""

WITHHELD: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{RELAYS_PREFIX}*": "all types that begin so: what a page tells its own tabs about its "
        "relays, with their addresses and the tokens in them; `relay-auth-required` opens a login "
        "dialog on every page that receives it",
        "configure": "a relay's address and credentials",
        "credentials_updated": "what a page tells its own tabs about its keys: others would load "
        "theirs anew",
        "list_github": "a GitHub token",
        "trigger_github": "a GitHub token",
        "poll_github_logs": "a GitHub token",
    }
)
"""Types that go to nobody, and why: what existing pages put into them, or what comes of it."""

ROUTES: Final[Mapping[str, Route]] = MappingProxyType(
    {
        "presence": Route.EVERYONE,
        "heartbeat": Route.RELAY,
        "capabilities": Route.RELAY,
        "direct": Route.TARGET,
        "cancel": Route.TARGET,
        "broadcast": Route.OTHERS,
        "stream": Route.OTHERS,
        "ack": Route.OTHERS,
        "turn_end": Route.OTHERS,
        "error": Route.OTHERS,
        # `WITHHELD` says why. (What begins with `RELAYS_PREFIX` is no single type.)
        "configure": Route.NOBODY,
        "credentials_updated": Route.NOBODY,
        "list_github": Route.NOBODY,
        "trigger_github": Route.NOBODY,
        "poll_github_logs": Route.NOBODY,
        # Clients believe what it says of the relay.
        "capabilities_response": Route.REFUSED,
    }
)

ANY_OTHER_TYPE: Final = Route.OTHERS
"""Where messages of all other types go, except those that begin with `RELAYS_PREFIX`."""

OTHER_TYPES: Final = "other"
"""The name under which all types are counted that are not in the table. (A peer that invents this
one is counted right.)"""


class Kind:
    """The messages of one type: where they go (None: as `ANY_OTHER_TYPE`), and how many came."""

    __slots__ = ("count", "route")

    def __init__(self, route: Route | None) -> None:
        self.route = route
        self.count = 0


class Kinds(dict[str, Kind]):
    """The kinds of messages of one mesh, by type. Every message is counted here. `strict`: types
    that are not in the table go nowhere."""

    def __init__(self, limits: Limits, *, strict: bool = False) -> None:
        super().__init__({type: Kind(route) for type, route in ROUTES.items()})
        self[OTHER_TYPES] = self._other = Kind(None)
        self._limits = limits
        self._any_other_type = None if strict else ANY_OTHER_TYPE

    def __missing__(self, type: str) -> Kind:
        return self._other

    def invented(self, type: str) -> Route | None:
        """Where messages go whose type is not in the table. None: nowhere. Raises Refusal."""
        if type.startswith(RELAYS_PREFIX):
            return Route.NOBODY
        refusals.check_name(type, "type", self._limits)
        return self._any_other_type
