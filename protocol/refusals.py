"""Refusals that several modules make, so that each has one sentence."""

from protocol.envelope import ErrorCode, Refusal, Text
from protocol.limits import Limits


def check_name(name: str, field: str, limits: Limits) -> None:
    """Raise Refusal unless `name` can be the id of a peer or agent, or a type."""
    if not name:
        raise Refusal(ErrorCode.BAD_FIELD, f"`{field}` is empty")
    if len(name) > limits.id_chars_max:
        sentence = f"`{field}` has {len(name)} characters; the most is {limits.id_chars_max}"
        raise Refusal(ErrorCode.TOO_LONG, sentence)


def not_present() -> Refusal:
    """The refusal of a message from a connection that has not announced a peer."""
    return Refusal(ErrorCode.NOT_PRESENT, "send a `presence` first, to announce yourself")


def undecided() -> Refusal:
    """What came of something that was said when the relay lost touch with the other ones."""
    sentence = "this relay has lost touch with the other relays; perhaps it arrived, perhaps not"
    return Refusal(ErrorCode.UNDECIDED, sentence)


def identity_fixed(peer: str) -> Refusal:
    """The refusal of a presence of another peer than the one to which the connection belongs."""
    sentence = f"this connection belongs to peer {peer!r} and cannot change that"
    return Refusal(ErrorCode.IDENTITY_FIXED, sentence)


def not_granted(what: str) -> Refusal:
    """The refusal of what is beyond a connection's grant. `what`: what it covers instead."""
    return Refusal(ErrorCode.NOT_GRANTED, f"the grant of this connection covers {what}")


def id_taken(id: str) -> Refusal:
    """The refusal of a first presence. It says the same whatever the connection has claimed."""
    sentence = f"the peer {id!r} is here, and was claimed otherwise than by this connection"
    return Refusal(ErrorCode.ID_TAKEN, sentence)


def replaced() -> Refusal:
    """What a connection hears when its peer continues with another one."""
    return Refusal(ErrorCode.REPLACED, "another connection of this peer has taken over")


def expired() -> Refusal:
    """What a connection hears when its grant has run out."""
    return Refusal(ErrorCode.EXPIRED, "the grant of this connection has run out; get a new token")


def as_the_relay(what: str) -> Refusal:
    """The refusal of a message that looks like one of the relay's own. `what` makes it so."""
    return Refusal(ErrorCode.SPOOFED, f"only the relay sends {what}")


def too_large(limits: Limits, why: str = "") -> Refusal:
    """The refusal of a message that is too long. `why`: what made it so long."""
    sentence = f"a message has at most {limits.message_bytes_max} bytes{why}"
    return Refusal(ErrorCode.TOO_LARGE, sentence)


def check_presence(text: Text, limits: Limits) -> None:
    """Raise Refusal if a presence is too long, or a heartbeat would make it so."""
    if len(text) > limits.presence_bytes_max:
        sentence = f"a presence has at most {limits.presence_bytes_max} bytes"
        raise Refusal(ErrorCode.TOO_LARGE, sentence)


def rate_limited(limits: Limits) -> Refusal:
    """The refusal of the messages that are beyond the rate."""
    sentence = f"more than {limits.messages_per_s:g} messages a second; some were dropped"
    return Refusal(ErrorCode.RATE_LIMITED, sentence)


def too_many_bytes(limits: Limits) -> Refusal:
    """The refusal of a visit whose bearer has sent too many bytes lately."""
    sentence = f"more than {limits.bytes_in_per_s:g} bytes a second; try again later"
    return Refusal(ErrorCode.RATE_LIMITED, sentence)


def too_many_visitors() -> Refusal:
    """The refusal of a visit because of all the others."""
    return Refusal(ErrorCode.NO_ROOM, "too many others have sent something; try again later")


def only_for_connections(type: str) -> Refusal:
    """The refusal of a type that says something about a connection, from who has none."""
    sentence = f"a `{type}` is about a connection, and a visitor has none"
    return Refusal(ErrorCode.BAD_FIELD, sentence)


def nobody_speaks() -> Refusal:
    """The refusal of a visitor's message that does not say whose it is."""
    sentence = "a visitor's message needs `from`, unless a token says who speaks"
    return Refusal(ErrorCode.BAD_FIELD, sentence)


def somebody_is_here(field: str, name: str) -> Refusal:
    """The refusal of a visitor's message under the name of a peer or agent that is here."""
    sentence = f"`{field}` {name!r} is here; only a token for exactly this id speaks for it"
    return Refusal(ErrorCode.SPOOFED, sentence)


def unknown_type(type: str) -> Refusal:
    """The refusal of a type that is not in the table."""
    sentence = f"this relay is strict, and {type!r} is not in its table of types"
    return Refusal(ErrorCode.UNKNOWN_TYPE, sentence)


def check_agents(count: int, limits: Limits) -> None:
    """Raise Refusal if an announcement has too many agents, or the peer would have."""
    if count > limits.agents_max:
        sentence = f"a peer has at most {limits.agents_max} agents, this is {count}"
        raise Refusal(ErrorCode.TOO_MANY_AGENTS, sentence)


def check_connections(peer: str, count: int, limits: Limits) -> None:
    """Raise Refusal if a peer that has so many connections may have no more."""
    most = limits.peer_connections_max
    if count >= most:
        sentence = f"a peer has at most {most} connections, and {peer!r} has so many"
        raise Refusal(ErrorCode.TOO_MANY_CONNECTIONS, sentence)


def too_many_wishes(most: int) -> Refusal:
    """The refusal of a presence whose `data.subscribe` is one wish too many."""
    sentence = f"the connections of this mesh have {most} different wishes, which is the most"
    return Refusal(ErrorCode.TOO_MANY_WISHES, sentence)


def lagging(limits: Limits) -> Refusal:
    """What a connection hears when it is spared the answers to others."""
    sentence = (
        f"you are {limits.lag_s:g} s behind the {limits.frames_per_s:g} frames a second that you "
        "get here, so answers to others are left out until you have caught up; ask for arrays: "
        'data.accept ["batch"]'
    )
    return Refusal(ErrorCode.LAGGING, sentence)


def echoed(type: str) -> Refusal:
    """The refusal of what a page sends again."""
    sentence = f"another peer has said this {type!r} already; what pages send again is dropped"
    return Refusal(ErrorCode.ECHOED, sentence)
