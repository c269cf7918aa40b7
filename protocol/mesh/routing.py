"""Which messages go where: the table from message type to audience.

`ROUTES` is that table. A type that it does not list goes where a broadcast goes, so that pages can
invent types of their own. The `strict` setting refuses such types instead.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class Route(enum.Enum):
    """Where messages of one type go. The value is the wording of the table in the documents."""

    EVERYONE = "all peers, the sender included"
    OTHERS = "all peers except the sender"
    TARGET = "one peer"
    RELAY = "the server only"
    NOBODY = "nobody: existing pages put credentials into these"
    REFUSED = "nobody: only the relay sends these, and a peer that does is refused"


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
        # Existing pages send these with relay addresses and tokens inside. Nobody needs them.
        "configure": Route.NOBODY,
        "relay-log": Route.NOBODY,
        "relay-connected": Route.NOBODY,
        "relay-disconnected": Route.NOBODY,
        "relay-config-updated": Route.NOBODY,
        # Clients believe what it says of the relay.
        "capabilities_response": Route.REFUSED,
    }
)

ANY_OTHER_TYPE: Final = Route.OTHERS
"""Where messages of all other types go."""
