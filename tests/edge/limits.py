"""What the AgentCore data plane allows, as documented in November 2026, and how patient we are."""

import attrs

from tests.edge.idle import POLL_EVERY_S


@attrs.frozen(kw_only=True)
class EdgeLimits:
    """AgentCore's limits; each can be set, so that tests need not wait for an hour.

    From the service's quota page: 250 frames a second on a connection, 64 KB a frame (the WebSocket
    guide still says 32 KB, and that is taken here), 60 minutes a connection, 8 hours a session, 15
    minutes idle.
    Assumed, for want of a word on it: each direction has 250 of its own; every frame counts,
    control frames and fragments too; a second is any second, not the clock's.

    Lifetimes pass on the clock given to `Edge`, the rest in real time.
    """

    frames_per_s: int = 250
    frame_bytes_max: int = 32 * 1024
    connection_life_s: float = 3600.0
    session_life_s: float = 8 * 3600.0
    session_idle_s: float = 900.0
    """How old the stamp of /ping may be (tests/edge/idle.py)."""
    poll_every_s: float = POLL_EVERY_S
    """How often /ping is asked."""
    conflict_while_starting: bool = False
    """Answer 409 to whoever comes while a session is being started by somebody else.

    The service does so; by default everyone waits, since a test has rarely anything to gain."""
    answers_pings: bool = False
    """Answer pings at the edge instead of passing them on. Which of the two the service does is
    not documented; a relay behind one that answers never learns that a client fell silent."""
    start_within_s: float = 300.0
    """How long a session may take to answer /ping."""
    stop_within_s: float = 30.0
    """How long after SIGTERM a session's process is killed."""
    close_within_s: float = 2.0
    """How long after a close frame the socket is cut."""
