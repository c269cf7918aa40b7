"""What the specification of the protocol says: the sentences that claims of its level quote."""

from typing import Final

PRESENCE: Final = "`presence` to all"
HEARTBEAT: Final = "`heartbeat` to the server only"
BROADCAST: Final = "`broadcast` to all others"
DIRECT: Final = "`direct` to one peer"
OTHERS: Final = "`stream`, `ack`, `turn_end`, `error` to all others"
REAPED: Final = "peers that miss heartbeats for 30 s are reaped"
STATELESS: Final = "nothing survives a restart, peers re-announce (stateless)"

WHOLE: Final = (
    "Browsers and agents connect to /ws, announce themselves with `presence`, and exchange JSON "
    f"messages of eight types: {PRESENCE}; {HEARTBEAT}; {BROADCAST}; {DIRECT}; {OTHERS}. "
    f"{REAPED[0].upper()}{REAPED[1:]}; {STATELESS}."
)
"""All of it."""
