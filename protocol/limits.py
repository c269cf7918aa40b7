"""Every bound and every duration of the relay, in one place.

A field of `Limits` is one bound. Its metadata says, in words, what is bounded and what happens
beyond it; the table in docs/bounds.md, the command line options and the environment variables are
all made from these fields, so a new bound needs one new field here and nothing else.

Units are the last part of a name: `_s` seconds, `_bytes` octets of UTF-8 text, `_chars` Unicode
characters; a plain plural (`messages`, `agents`) is a count.
"""

from typing import Any

import attrs

Bound = int | float


def _bound(default: Bound, what: str, beyond: str, least: Bound) -> Any:
    kinds = (int,) if isinstance(default, int) else (int, float)

    def check(_: "Limits", field: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, kinds) or not least <= value <= 2**53:
            kind = "a whole number" if kinds == (int,) else "a number"
            raise ValueError(f"{field.name} must be {kind} from {least} to 2**53, got {value!r}")

    metadata = {"what": what, "beyond": beyond}
    return attrs.field(default=default, validator=check, metadata=metadata)


def _check_less(limits: object, small: str, large: str) -> None:
    if not getattr(limits, small) < getattr(limits, large):
        raise ValueError(
            f"{small} ({getattr(limits, small)}) must be less than "
            f"{large} ({getattr(limits, large)})"
        )


@attrs.frozen(kw_only=True)
class Limits:
    """The bounds of one relay process. Immutable; a bad value or relation raises ValueError.

    >>> Limits(stale_after_s=40).reap_after_s
    Traceback (most recent call last):
        ...
    ValueError: stale_after_s (40) must be less than reap_after_s (30.0)
    """

    message_bytes_max: int = _bound(
        2**20, "bytes of one message", "error `too_large`, message dropped", 1024
    )
    presence_bytes_max: int = _bound(
        2**16,
        "bytes of one presence (the relay keeps the latest of every peer)",
        "error `too_large`, presence refused",
        1024,
    )
    nesting_max: int = _bound(
        128, "depth of arrays and objects in a message", "error `malformed`, message dropped", 8
    )
    number_digits_max: int = _bound(
        4300,
        "digits in a row in a number (CPython's own default for reading integers)",
        "error `malformed`, message dropped",
        20,
    )
    id_chars_max: int = _bound(
        256, "characters of a peer, agent or type name", "error `too_long`, message dropped", 8
    )
    agents_max: int = _bound(
        256, "agents per peer, over all its connections", "error `too_many_agents`, refused", 1
    )
    messages_per_s: float = _bound(
        1000.0,
        "messages per second from one connection, sustained",
        "error `rate_limited` (at most one a second), message dropped",
        0.1,
    )
    messages_burst: int = _bound(
        2000, "messages from one connection at once, above the sustained rate", "as above", 1
    )
    inbox_messages_max: int = _bound(
        1024,
        "messages of one connection that wait for the supervisor",
        "reading from that connection pauses",
        1,
    )
    inbox_bytes_max: int = _bound(2**20, "bytes of the same", "as above", 1024)
    quantum_messages: int = _bound(
        64,
        "messages taken from one connection before others are served",
        "the rest waits for the next round",
        1,
    )
    round_messages_max: int = _bound(
        8192, "messages decided in one round of the supervisor", "as above", 1
    )
    flush_gap_s: float = _bound(
        0.05,
        "longest pause after a small write, so that more messages share the next (as long as the "
        "write took, this at most)",
        "the next round begins",
        0.0,
    )
    mailbox_messages_max: int = _bound(
        20_000,
        "messages that wait for one slow receiver",
        "the peer is evicted (close 1013); nobody else waits",
        1,
    )
    mailbox_bytes_max: int = _bound(2**22, "bytes of the same", "as above", 1024)
    frames_per_s: float = _bound(
        200.0,
        "frames per second to one connection behind AgentCore's edge (which allows 250)",
        "messages wait in the mailbox, or share a frame",
        1.0,
    )
    frame_bytes_max: int = _bound(
        32_000,
        "bytes in one frame to a connection behind the edge (which allows 64 KB, once 32)",
        "a longer message goes in several frames",
        1024,
    )
    connections_max: int = _bound(
        10_000,
        "connections per mesh, hence peers per mesh",
        "the opening is refused (HTTP 503)",
        1,
    )
    meshes_max: int = _bound(100, "meshes per process", "the opening is refused (HTTP 503)", 1)
    mesh_name_chars_max: int = _bound(
        256, "characters of a mesh name", "the opening is refused (HTTP 400)", 1
    )
    announce_within_s: float = _bound(
        30.0, "time from opening to the first presence", "the connection is closed (1008)", 0.01
    )
    stale_after_s: float = _bound(
        15.0, "silence after which a peer is shown as stale", "still routed to", 0.01
    )
    reap_after_s: float = _bound(
        30.0,
        "silence after which a connection is reaped",
        "closed (1008); the others hear offline",
        0.02,
    )
    presence_refresh_s: float = _bound(
        20.0,
        "time between repeats of the presence of a peer that only sends heartbeats",
        "its presence is sent to the others again",
        0.01,
    )
    rate_error_every_s: float = _bound(
        1.0, "time between `rate_limited` errors to one connection", "dropped without a word", 0.0
    )
    refusal_log_every_s: float = _bound(
        10.0, "time between log lines on the refusals of one connection", "counted, not logged", 0.0
    )
    close_within_s: float = _bound(
        5.0, "time for a peer to take a close frame and answer it", "the socket is cut", 0.0
    )
    drain_s: float = _bound(
        5.0, "time for the flush of all queues at shutdown", "what is left is dropped", 0.0
    )

    def __attrs_post_init__(self) -> None:
        for small, large in (
            ("stale_after_s", "reap_after_s"),
            ("presence_refresh_s", "reap_after_s"),
        ):
            _check_less(self, small, large)
        for small, large in (
            ("presence_bytes_max", "message_bytes_max"),
            ("message_bytes_max", "mailbox_bytes_max"),
            ("quantum_messages", "round_messages_max"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise ValueError(
                    f"{small} ({getattr(self, small)}) must not exceed "
                    f"{large} ({getattr(self, large)})"
                )


@attrs.frozen(kw_only=True)
class MembershipLimits:
    """The bounds of one peer's membership in a mesh, on the peer's side (docs/python.md).

    Immutable; a bad value or relation raises ValueError.

    >>> MembershipLimits(heartbeat_every_s=40)
    Traceback (most recent call last):
        ...
    ValueError: heartbeat_every_s (40) must be less than silent_after_s (30.0)
    """

    join_within_s: float = _bound(
        20.0,
        "time for one attempt: URL, opening, announcement",
        "the attempt has failed; another follows",
        0.01,
    )
    backoff_first_s: float = _bound(
        0.5, "longest wait after the first failure; doubled after each", "tries again", 0.0
    )
    backoff_max_s: float = _bound(30.0, "longest wait between attempts", "tries again", 0.0)
    give_up_after_s: float = _bound(
        30.0,
        "time of nothing but errors that no further attempt should mend, once present",
        "the peer ends with the last of them; before it was present, with the first",
        0.0,
    )
    heartbeat_every_s: float = _bound(
        10.0, "time between heartbeats", "one is sent, and a sign of life asked for", 0.01
    )
    silent_after_s: float = _bound(
        30.0, "silence of the relay", "the connection is dropped, and a new one made", 0.01
    )
    probe_within_s: float = _bound(
        5.0, "time for a sign of life when there is doubt", "as above", 0.01
    )
    renew_after_s: float = _bound(
        3300.0,
        "age of a connection (AgentCore cuts at 3600 s)",
        "a new one replaces it, overlapping",
        0.01,
    )
    switch_within_s: float = _bound(
        10.0, "time in which the replaced connection may deliver the rest", "it is dropped", 0.01
    )
    queue_messages_max: int = _bound(
        1000, "messages that wait to be sent", "waits while connected, else `QueueFull`", 1
    )
    queue_bytes_max: int = _bound(2**22, "bytes of the same", "as above", 1024)
    unread_messages_max: int = _bound(
        10_000, "messages that arrived and were not read", "the oldest go; `Lagged` says so", 1
    )
    unread_bytes_max: int = _bound(2**26, "characters of the same", "as above", 1024)
    turns_max: int = _bound(
        256, "commands that one peer serves at a time", "answered with an error, `busy`", 1
    )
    serve_within_s: float = _bound(
        20.0, "time for which a command waits that nobody serves", "it is not answered", 0.0
    )
    leave_within_s: float = _bound(
        5.0, "time to send what is queued when leaving", "the rest is dropped", 0.0
    )

    def __attrs_post_init__(self) -> None:
        for small, large in (
            ("heartbeat_every_s", "silent_after_s"),
            ("probe_within_s", "silent_after_s"),
            ("join_within_s", "renew_after_s"),
        ):
            _check_less(self, small, large)
