"""Every bound and every duration, in one place.

A field of `Limits` is one bound of the relay. Its metadata says in words what is bounded, and what
happens beyond the bound. The table in docs/bounds.md, the command line options and the environment
variables are made from these fields. So a new bound needs one new field here, and nothing else.
`MembershipLimits` has the bounds of a peer in the same way.

The last part of a name is its unit: `_s` seconds, `_bytes` bytes of UTF-8 text, `_chars` Unicode
characters. A plain plural (`messages`, `agents`) is a count.

Longer than 400 lines because every bound stands here with its words.
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
        "digits of a number in a row (4300 is what CPython itself reads)",
        "error `malformed`, message dropped",
        20,
    )
    id_chars_max: int = _bound(
        256,
        "characters of the id of a peer or agent, or of a type",
        "error `too_long`, message dropped",
        8,
    )
    agents_max: int = _bound(
        256, "agents per peer, over all its connections", "error `too_many_agents`, refused", 1
    )
    peer_connections_max: int = _bound(
        64,
        "connections of one peer",
        "error `too_many_connections`, presence refused",
        1,
    )
    announcements_per_s: float = _bound(
        1.0,
        "announcements per second from one connection, sustained: presences after the first, and "
        "heartbeats that change the agents",
        "the last one is held until its time has come, and those before it are left out",
        0.01,
    )
    announcements_burst: int = _bound(10, "announcements of one connection at once", "as above", 1)
    announcement_bytes: int = _bound(
        8192, "bytes that count as one announcement", "a longer one counts as several", 1024
    )
    messages_per_s: float = _bound(
        1000.0,
        "messages per second from one connection, sustained",
        "error `rate_limited` (at most one a second), message dropped",
        0.1,
    )
    messages_burst: int = _bound(
        2000,
        "messages that one connection may send at once, above the sustained rate",
        "as above",
        1,
    )
    frames_in_per_s: float = _bound(
        4000.0,
        "WebSocket frames of any kind per second from one connection, sustained",
        "reading from that connection pauses",
        1.0,
    )
    frames_in_burst: int = _bound(8000, "frames of one connection at once", "as above", 1)
    bytes_in_per_s: float = _bound(
        1_500_000.0, "bytes per second from one connection, sustained", "as above", 1024.0
    )
    bytes_in_burst: int = _bound(2**19, "bytes of one connection at once", "as above", 1024)
    crowd_bytes_per_s: float = _bound(
        6_000_000.0,
        "bytes per second from all connections of the process that have used up their bursts, "
        "sustained",
        "these connections are read in turns",
        1024.0,
    )
    inbox_messages_max: int = _bound(
        1024,
        "messages of one connection that wait to be decided",
        "the relay stops reading from this connection until there is room",
        1,
    )
    inbox_bytes_max: int = _bound(
        2**20, "bytes of the messages of one connection that wait to be decided", "as above", 1024
    )
    quantum_messages: int = _bound(
        64,
        "messages taken from one connection in one round, before the others are served; "
        "and so many elements of arrays",
        "the rest waits for the next round",
        1,
    )
    quantum_bytes: int = _bound(
        2**17,
        "bytes taken from one connection in one round (at least one message)",
        "as above",
        1024,
    )
    round_messages_max: int = _bound(8192, "messages decided in one round", "as above", 1)
    round_bytes_max: int = _bound(2**20, "bytes decided in one round", "as above", 1024)
    flush_gap_s: float = _bound(
        0.05,
        "longest pause after a small write, so that more messages share the next",
        "the next round begins",
        0.0,
    )
    mailbox_messages_max: int = _bound(
        20_000,
        "messages that wait to be sent to one connection",
        "the peer is evicted (close 1013); nobody else waits",
        1,
    )
    mailbox_bytes_max: int = _bound(
        2**22, "bytes of the messages that wait to be sent to one connection", "as above", 1024
    )
    held_bytes_max: int = _bound(
        0,
        "bytes that the process holds for all its connections; 0: a quarter of the memory that it "
        "may use, at least 64 MiB",
        "the connections with the heaviest queues are evicted (close 1013)",
        0,
    )
    frames_per_s: float = _bound(
        200.0,
        "frames per second to one connection behind AgentCore's edge (the edge allows 250)",
        "messages wait in the mailbox, or share a frame",
        1.0,
    )
    frame_bytes_max: int = _bound(
        32_000,
        "bytes of one frame to a connection behind AgentCore's edge (the edge allows 64 KB)",
        "a longer message goes in several frames",
        1024,
    )
    lag_s: float = _bound(
        1.0,
        "time that a connection behind AgentCore's edge that takes no arrays may be behind its "
        "`frames_per_s`",
        "it is not sent the answers to others until it has caught up (rule 20)",
        0.01,
    )
    lag_told_every_s: float = _bound(
        60.0,
        "time between two errors `lagging` to one connection",
        "answers to others are left out silently",
        0.0,
    )
    open_commands_max: int = _bound(
        1000,
        "commands that are shown as open to whoever watches the mesh",
        "the oldest is shown no more",
        0,
    )
    begun_turns_max: int = _bound(
        256,
        "turns that a peer with such a connection has begun, remembered so that it gets the "
        "answers",
        "the oldest is forgotten: its answers count as those to others",
        1,
    )
    connections_max: int = _bound(
        10_000,
        "connections per mesh, and therefore peers per mesh",
        "the opening is refused (HTTP 503)",
        1,
    )
    meshes_max: int = _bound(
        100,
        "meshes per process in which somebody is present",
        "the opening is refused (HTTP 503), or the presence (error `no_room`)",
        1,
    )
    unannounced_max: int = _bound(
        1000,
        "connections per process that have not sent a presence",
        "the oldest of them is closed (1013)",
        1,
    )
    resume_s: float = _bound(
        20.0,
        "time for which a connection that asked for it may be away and come back; 0: nobody may",
        "its peer leaves",
        0.0,
    )
    history_bytes_max: int = _bound(
        2**23,
        "bytes of what was delivered lately, kept in a mesh for connections that may come back",
        "the oldest is forgotten; whoever missed that joins anew",
        0,
    )
    recall_messages_max: int = _bound(
        100,
        "messages to everyone that a mesh remembers for those who come later and ask for them "
        "(rule 21); 0: none",
        "the oldest is forgotten",
        0,
    )
    recall_bytes_max: int = _bound(2**18, "bytes of these messages", "the oldest is forgotten", 0)
    recall_s: float = _bound(
        600.0, "time for which these messages are remembered", "they are forgotten", 0.0
    )
    wishes_max: int = _bound(
        2048,
        "different wishes of the connections of one mesh (rule 22)",
        "error `too_many_wishes`, presence refused",
        1,
    )
    wish_names_max: int = _bound(
        64, "topics, and types, in one wish", "error `bad_field`, presence refused", 1
    )
    grant_connections_max: int = _bound(
        64,
        "connections per process whose tokens name the same bearer, whatever their peer ids are",
        "the opening is refused (HTTP 503)",
        1,
    )
    grant_grace_s: float = _bound(
        5.0,
        "time after the end of a connection's grant, so that a renewal can overlap",
        "error `expired`, and the connection is closed (1008)",
        0.0,
    )
    visitors_max: int = _bound(
        1024,
        "bearers of tokens who have sent something over HTTP so lately that it still counts for "
        "their rate",
        "error `no_room` (HTTP 503)",
        1,
    )
    mesh_name_chars_max: int = _bound(
        256, "characters of a mesh name", "the opening is refused (HTTP 400)", 1
    )
    head_bytes_max: int = _bound(
        2**15,
        "bytes of the head of an HTTP request: its first line and its headers",
        "the request is refused (HTTP 431)",
        1024,
    )
    headers_max: int = _bound(100, "headers of an HTTP request", "as above", 16)
    body_bytes_max: int = _bound(
        2**16,
        "bytes of the body of an HTTP request to `/invocations` (one to `/send` may be as long as "
        "a message, and no other has one)",
        "the request is refused (HTTP 413)",
        1024,
    )
    opening_within_s: float = _bound(
        10.0,
        "time for the head of an HTTP request, for its body, between two requests, and without "
        "taking any of an answer",
        "the request is refused (HTTP 408), or the connection is closed",
        0.01,
    )
    announce_within_s: float = _bound(
        30.0, "time from opening to the first presence", "the connection is closed (1008)", 0.01
    )
    stale_after_s: float = _bound(
        15.0, "silence after which a peer is shown as stale", "it still receives messages", 0.01
    )
    reap_after_s: float = _bound(
        30.0,
        "silence after which a connection is reaped",
        "it is closed (1008); the others hear that the peer is offline",
        0.02,
    )
    pong_keepalive_s: float = _bound(
        75.0,
        "time since the last message for which answers to pings are signs of life, if a presence "
        'asks for that (`"keepalive": "pong"`): a browser answers them for a page that is frozen',
        "they count no more, and the peer is stale, then reaped, as if it were silent",
        0.01,
    )
    presence_refresh_s: float = _bound(
        20.0,
        "time after which the presence of a peer that only sends heartbeats is repeated, about",
        "its presence is sent to the others again, together with that of other peers (rule 9)",
        0.01,
    )
    rate_error_every_s: float = _bound(
        1.0,
        "time between two `rate_limited` errors to one connection, and between two `echoed`",
        "messages are dropped silently",
        0.0,
    )
    directory_bytes_max: int = _bound(
        2**14,
        "bytes of `agentCards` and `activeAgents` in an answer to `capabilities`",
        "further agents are left out",
        1024,
    )
    echo_within_s: float = _bound(
        10.0,
        "time for which what the mesh has passed on counts as the origin of an echo (pages with "
        "`data.pageId` send some messages again: rule 18); 0: nothing is an echo",
        "it passes as a message of its own",
        0.0,
    )
    echo_bytes_max: int = _bound(
        2**20,
        "bytes that one mesh uses to remember what such pages may send again",
        "the oldest is forgotten",
        1024,
    )
    refusal_log_every_s: float = _bound(
        10.0,
        "time between two log lines about refusals of one connection",
        "refusals are counted, not logged",
        0.0,
    )
    close_within_s: float = _bound(
        5.0, "time that a peer has to answer a close frame", "the socket is cut", 0.0
    )
    drain_s: float = _bound(
        5.0, "time to send what is queued at shutdown", "what is left is dropped", 0.0
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
            ("quantum_bytes", "round_bytes_max"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise ValueError(
                    f"{small} ({getattr(self, small)}) must not exceed "
                    f"{large} ({getattr(self, large)})"
                )
        if self.held_bytes_max:
            _check_less(self, "mailbox_bytes_max", "held_bytes_max")


@attrs.frozen(kw_only=True)
class MembershipLimits:
    """The bounds of one peer, on the client's side (docs/python.md).

    Immutable; a bad value or relation raises ValueError.

    >>> MembershipLimits(heartbeat_every_s=40)
    Traceback (most recent call last):
        ...
    ValueError: heartbeat_every_s (40) must be less than silent_after_s (30.0)
    """

    join_within_s: float = _bound(
        20.0,
        "time for one attempt to join: make the URL, connect, announce",
        "the attempt has failed; another one follows",
        0.01,
    )
    backoff_first_s: float = _bound(
        0.5,
        "longest wait after the first failure; it doubles with each further one",
        "the peer tries again",
        0.0,
    )
    retry_max_s: float = _bound(
        2.0,
        "longest wait between two attempts while nobody answers, so that everybody is back within "
        "seconds of the relay",
        "the peer tries again",
        0.0,
    )
    backoff_max_s: float = _bound(
        30.0,
        "the same while somebody answers, and refuses (`retry_max_s` is never longer than this)",
        "the peer tries again",
        0.0,
    )
    return_within_s: float = _bound(
        8.0,
        "time for which messages to peers that were here before the connection was lost wait for "
        "these to come back",
        "the messages are sent, and the relay refuses them",
        0.0,
    )
    hedge_after_s: float = _bound(
        1.5,
        "time for which an opening may stay without an answer",
        "another one is tried beside it, and then another one in the place of that; the first one "
        "stays",
        0.01,
    )
    hedge_max_s: float = _bound(
        4.0,
        "longest time between two of these; it doubles with each, so that they are no burden to a "
        "relay that is only slow",
        "the next one is tried",
        0.01,
    )
    give_up_after_s: float = _bound(
        30.0,
        "time for which a peer that was present tries again after permanent errors",
        "the peer ends with the latest of them (a peer that was never present: with the first)",
        0.0,
    )
    taken_for_s: float = _bound(
        35.0,
        "time for which a peer tries again while others have its id (a relay reaps a connection "
        "that died unnoticed after 30 s)",
        "the peer ends with `IdTaken`",
        0.0,
    )
    heartbeat_every_s: float = _bound(
        10.0,
        "time between two heartbeats",
        "one is sent, and the relay is asked for a sign of life",
        0.01,
    )
    silent_after_s: float = _bound(
        30.0, "silence of the relay", "the connection is dropped, and a new one is made", 0.01
    )
    probe_within_s: float = _bound(
        5.0, "the same, when there is a reason to doubt the connection", "as above", 0.01
    )
    renew_after_s: float = _bound(
        3300.0,
        "age of a connection (AgentCore cuts at 3600 s)",
        "a new one replaces it; the two overlap",
        0.01,
    )
    switch_within_s: float = _bound(
        10.0, "time for a replaced connection to deliver the rest", "it is dropped", 0.01
    )
    resume_s: float = _bound(
        20.0,
        "time for which the relay is asked to keep a lost connection, so that nothing is missed; "
        "0: it is not asked",
        "what may be missing is told as a `Gap`",
        0.0,
    )
    unreported_frames_max: int = _bound(
        64,
        "frames sent since the relay was asked last how many it has taken (it is asked with every "
        "heartbeat, too)",
        "it is asked, if that is not too soon (`report_every_s`)",
        1,
    )
    report_every_s: float = _bound(
        0.1,
        "shortest time between two of these questions (after half of `unconfirmed_frames_max` or "
        "`unconfirmed_bytes_max` the relay is asked at once)",
        "it is asked",
        0.0,
    )
    unconfirmed_frames_max: int = _bound(
        1024,
        "frames sent that the relay has not said it has taken, kept to be sent again after a cut",
        "what else is to be sent waits in the queue",
        1,
    )
    unconfirmed_bytes_max: int = _bound(2**22, "bytes of these", "as above", 1024)
    queue_messages_max: int = _bound(
        1000,
        "messages that wait to be sent",
        "`send` waits; without a connection it raises `QueueFull`",
        1,
    )
    queue_bytes_max: int = _bound(2**22, "bytes of the messages that wait", "as above", 1024)
    unread_messages_max: int = _bound(
        10_000,
        "messages that arrived and that the program has not read",
        "the oldest are dropped; `Lagged` says how many",
        1,
    )
    unread_bytes_max: int = _bound(
        2**26,
        "bytes that these cost in memory, about (64 for each value in them), with the chunks that "
        "wait in turns; what waits for a connection to replace another, or for a `serve`, and what "
        "is being served may cost as much each",
        "as above",
        1024,
    )
    read_bytes_max: int = _bound(
        2**26,
        "bytes that a frame may cost in memory, about, once it is read",
        "it is not read; a log line says so once",
        1024,
    )
    nesting_max: int = _bound(
        256, "depth of arrays and objects in a message that arrives", "as above", 1
    )
    peers_max: int = _bound(
        20_000,
        "peers in the roster (a relay takes 10000 by default)",
        "further ones are not in it; a log line says so once",
        1,
    )
    roster_bytes_max: int = _bound(
        2**28, "bytes that their presences cost in memory, about", "as above", 1024
    )
    asks_max: int = _bound(
        10_000, "commands given that are not over yet", "further ones end with `QueueFull`", 1
    )
    turns_max: int = _bound(
        256,
        "commands that one peer serves at a time, and that wait for a `serve`",
        "further ones are answered with the error `busy`",
        1,
    )
    service_queue_max: int = _bound(
        64,
        "commands that wait in one `serve` for others of it to end (`at_a_time`)",
        "further ones are answered with the error `busy`",
        1,
    )
    threads_max: int = _bound(
        40,
        "threads in which plain functions serve commands, in Python; those that were abandoned "
        "count until they end",
        "commands wait for one",
        1,
    )
    serve_within_s: float = _bound(
        20.0,
        "time for which a command waits for a `serve`",
        "it is answered with the error `not_served`",
        0.0,
    )
    ack_every_s: float = _bound(
        10.0,
        "silence of an agent that works on a command",
        "its peer says another `ack`, so that the asker goes on waiting",
        0.01,
    )
    asker_back_within_s: float = _bound(
        6.0,
        "time for an asker that has gone offline to come back",
        "what it has asked is cancelled",
        0.0,
    )
    leave_within_s: float = _bound(
        5.0, "time to send what is queued when the peer leaves", "the rest is dropped", 0.0
    )

    def __attrs_post_init__(self) -> None:
        for small, large in (
            ("heartbeat_every_s", "silent_after_s"),
            ("probe_within_s", "silent_after_s"),
            ("join_within_s", "renew_after_s"),
            ("hedge_after_s", "hedge_max_s"),
        ):
            _check_less(self, small, large)
