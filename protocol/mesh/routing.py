"""Message type to audience: the table of the README, and what an audience is.

`ROUTES` is the whole of it. A type that is not in the table goes where a broadcast goes, so that
pages can invent types of their own; with `strict` it is refused instead.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class Route(enum.Enum):
    """Where a message of some type goes. The value is the wording of the README's table."""

    EVERYONE = "all peers, the sender included"
    OTHERS = "all peers except the sender"
    TARGET = "one peer"
    RELAY = "the server only"
    NOBODY = "withheld"


ROUTES: Final[Mapping[str, Route]] = MappingProxyType(
    {
        "presence": Route.EVERYONE,
        "heartbeat": Route.RELAY,
        "capabilities": Route.RELAY,
        "direct": Route.TARGET,
        "broadcast": Route.OTHERS,
        "stream": Route.OTHERS,
        "ack": Route.OTHERS,
        "turn_end": Route.OTHERS,
        "error": Route.OTHERS,
        # Sent by existing pages with relay addresses and tokens inside; nobody needs to see them.
        "configure": Route.NOBODY,
        "relay-log": Route.NOBODY,
        "relay-connected": Route.NOBODY,
        "relay-disconnected": Route.NOBODY,
        "relay-config-updated": Route.NOBODY,
    }
)

ANY_OTHER_TYPE: Final = Route.OTHERS


# Audiences: who receives a text. Connections are named by number, as at the moment of decision. ---
