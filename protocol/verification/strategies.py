"""Messages for hypothesis: as the known clients send them, and as nobody should.

Names come from small pools, so that peers collide, agents are shared, and an agent is called like a
peer. Every strategy gives the bytes of a message; `me` is the id of the peer that sends it.

    presences(me), heartbeats(me), changes(me)                                 right
    fanned_out(me), directs(me), others(me), claims(me)                        right
    forged(me), damaged(me, limits), too_much(me, limits)                      wrong
    at_the_bound(me, limits)                                                   one or the other
    messages(me, limits), misbehaviour(me, limits)                             all of these
"""

import functools
import json
from typing import Any, Final

from hypothesis import strategies as st

from protocol.limits import Limits
from protocol.verification.model import (
    BINARY,
    FANNED_OUT,
    RELAY,
    RELAYS_OWN,
    WITHHELD,
    Message,
    Permit,
)

PEERS: Final = ("a", "b", "c", "d", "a/1")
AGENTS: Final = ("x", "y", "z", "a")
"""One of them is called like a peer."""

peers: Final = st.sampled_from(PEERS)
agent_ids: Final = st.sampled_from(AGENTS)

agents: Final = st.one_of(
    agent_ids,
    agent_ids.map(lambda name: {"agentId": name, "name": f"Agent {name}", "color": "#fff"}),
    agent_ids.map(lambda name: {"id": name, "status": "ready"}),
    agent_ids.map(lambda name: {"name": name}),
    agent_ids.map(lambda name: {"agentId": "", "id": name, "name": "x"}),
    agent_ids.map(lambda name: {"agentId": 5, "id": None, "name": name}),
    st.just({"color": "#000"}),  # passed on; nobody can address it
)
"""Agents in all shapes in which pages announce them."""

payloads: Final = st.one_of(
    st.none(),
    st.just({}),
    st.text(max_size=5),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.one_of(st.booleans(), st.text(max_size=3)), max_size=3),
    st.just({"chunk": "half an emoji: \ud83d", "chunkNum": 1}),
    st.just({"command": "hello", "deep": [[{"k": []}]]}),
)
"""`data` of messages that the relay does not read."""

turn_ids: Final = st.one_of(
    st.sampled_from(["turn-1", "", 7, None]), st.just({"any": ["JSON", 1.50]}), st.text(max_size=4)
)


def text_of(fields: dict[str, Any], spelling: int = 0) -> bytes:
    """A message on the wire, in one of five spellings of the same.

    The first three spell every inner value alike, as one client does all its life; agents without
    an id are told apart by their text.
    """
    match spelling:
        case 1:
            return (
                b"\t "
                + json.dumps(fields).encode().replace(b'"type"', b'"t\\u0079pe"', 1)
                + b"\r\n"
            )
        case 2 if "\\ud" not in json.dumps(fields):
            return json.dumps(fields, ensure_ascii=False).encode()
        case 3:
            return json.dumps(fields, separators=(",", ":")).encode()
        case 4:
            return json.dumps(fields, indent=1).encode()
        case _:
            return json.dumps(fields).encode()


@st.composite
def message_of(draw: st.DrawFn, required: dict[str, Any], optional: dict[str, Any]) -> bytes:
    """A message with all of `required` and some of `optional`: values, or strategies of them."""
    fields: dict[str, Any] = {}
    for name, value in required.items():
        fields[name] = draw(value) if isinstance(value, st.SearchStrategy) else value
    for name, value in optional.items():
        if draw(st.booleans()):
            fields[name] = draw(value) if isinstance(value, st.SearchStrategy) else value
    if draw(st.integers(0, 3)) == 0:
        fields = dict(draw(st.permutations(list(fields.items()))))
    has_agents = fields.get("type") in ("presence", "heartbeat")
    return text_of(fields, draw(st.integers(0, 2 if has_agents else 4)))


_TIMES: Final = st.sampled_from([1_700_000_000_000, 1.5, None, "yesterday"])
_EXTRA: Final = {"timestamp": _TIMES, "turnId": turn_ids, "x-unknown": payloads}


@functools.cache
def presences(me: str, *, of_arrays: bool = False) -> st.SearchStrategy[bytes]:
    """Announcements of `me`. `of_arrays`: some say whether they take arrays."""
    accepted = {"accept": st.sampled_from([["batch"], [], None])} if of_arrays else {}
    data = st.fixed_dictionaries(
        {},
        optional={
            "agents": st.lists(agents, max_size=3),
            "hostname": st.sampled_from(["laptop", "half \ud83d"]),
            "timestamp": st.just(1_700_000_000_000),
            "keepalive": st.sampled_from(["pong", "ping", None]),
            **accepted,
        },
    )
    return message_of(
        {"type": "presence", "from": me},
        {"data": st.one_of(st.none(), data, data, data), "instanceId": me, **_EXTRA},
    )


@functools.cache
def heartbeats(me: str) -> st.SearchStrategy[bytes]:
    """Signs of life, bare, or with the agents that `me` has now."""
    data = st.fixed_dictionaries(
        {},
        optional={
            "agents": st.lists(agents, max_size=3),
            "subscribe": st.sampled_from([{"types": []}, "no wish, as this is no presence"]),
        },
    )
    return message_of(
        {"type": "heartbeat"},
        {"from": me, "data": st.one_of(st.none(), data, data, data), **_EXTRA},
    )


@functools.cache
def changes(me: str) -> st.SearchStrategy[bytes]:
    """Announcements of few agents, so that one often says what another has said."""
    few = st.fixed_dictionaries({"agents": st.sampled_from([[], ["x"], ["y"], ["x", "y"]])})
    types = st.sampled_from(["presence", "heartbeat", "heartbeat"])
    return message_of({"type": types, "from": me, "data": few}, {"turnId": turn_ids})


def origin(me: str) -> dict[str, Any]:
    """`from` as pages fill it: an agent's id, more often than their own."""
    return {"from": st.one_of(st.just(me), agent_ids.filter(lambda name: name not in PEERS))}


@functools.cache
def fanned_out(me: str) -> st.SearchStrategy[bytes]:
    """What goes to all others."""
    own_types = st.sampled_from(["invoke", "ring-update", "topic/news", "größer"])
    types = st.one_of(st.sampled_from(FANNED_OUT), st.sampled_from(FANNED_OUT), own_types)
    optional = {**origin(me), "instanceId": st.sampled_from([me, None]), "to": st.just("*")}
    return message_of({"type": types}, {**optional, "data": payloads, **_EXTRA})


@functools.cache
def directs(me: str) -> st.SearchStrategy[bytes]:
    """What goes to one peer: named as peer, as agent, as instance, or nobody."""
    anyone = st.one_of(peers, agent_ids, st.just("nobody"))
    nowhere = st.none()
    return st.one_of(
        message_of({"type": "direct", "to": anyone}, {**origin(me), "data": payloads, **_EXTRA}),
        message_of(
            {"type": "direct", "to": st.one_of(anyone, nowhere), "targetInstanceId": peers},
            {**origin(me), "instanceId": me, **_EXTRA},
        ),
        message_of({"type": "direct"}, {"to": nowhere, **_EXTRA}),
        message_of({"type": "cancel", "to": anyone}, {**origin(me), **_EXTRA}),
    )


@functools.cache
def others(me: str) -> st.SearchStrategy[bytes]:
    """Questions to the relay, and types that it keeps to itself."""
    return st.one_of(
        message_of({"type": "capabilities"}, {"from": me, **_EXTRA}),
        message_of({"type": st.sampled_from(WITHHELD)}, {"data": payloads, **_EXTRA}),
    )


SECRETS: Final = ("größer als sechzehn", "größer als sechzehn", "a rarer secret of one")
"""So few that many peers have the same."""


@functools.cache
def claims(me: str, *, takes_over: bool = False, wrong: bool = False) -> st.SearchStrategy[bytes]:
    """Claims of an id, before a presence right and after it wrong. `wrong`: in itself."""
    takeover = st.just(True) if takes_over else st.sampled_from([True, False, None])
    right = st.fixed_dictionaries(
        {"claim": st.sampled_from(SECRETS), **({"takeover": takeover} if takes_over else {})},
        optional={} if takes_over else {"takeover": takeover},
    )
    bad = ["x" * 15, "x" * 257, "", 7, [SECRETS[0]], SECRETS[0] + "\ud83d", {}]
    faulty = st.sampled_from(
        [{"claim": claim} for claim in bad]
        + [{"takeover": True}, {"claim": SECRETS[0], "takeover": "yes"}]
    )
    return message_of({"type": "capabilities", "data": faulty if wrong else right}, _EXTRA)


def wishes() -> st.SearchStrategy[bytes]:
    """Questions for what was said before, some of them not as they should be."""
    right = st.integers(0, 8).map(lambda count: {"messages": count})
    wrong: list[Any] = [None, 3, {}, {"messages": -1}, {"messages": 1.5}, {"messages": True}]
    wish = st.one_of(right, right, st.sampled_from([*wrong, {"messages": 2**53 + 1}]))
    return wish.map(lambda asked: text_of({"type": "capabilities", "data": {"history": asked}}))


def permits(now: float) -> st.SearchStrategy[Permit]:
    """What a host may let a connection do that opens at `now` (seconds)."""
    return st.builds(
        Permit,
        peer=st.sampled_from([None, "a", "b"]),
        agents=st.sampled_from([("x",), ("y*", "a"), (), None]),
        may_send=st.sampled_from([True, True, False]),
        may_watch=st.sampled_from([True, True, False]),
        ends_at=st.sampled_from([None, None, now + 2.0, now + 20.0, now - 100.0]),
    )


@functools.cache
def forged(me: str) -> st.SearchStrategy[bytes]:
    """Somebody else's name, or the relay's."""
    not_me = st.one_of(peers.filter(lambda peer: peer != me), st.just(RELAY))
    types = st.sampled_from(
        [*FANNED_OUT, "direct", "heartbeat", "presence", "invoke", "capabilities", WITHHELD[0]]
    )
    return st.one_of(
        message_of({"type": types, "from": not_me}, {"to": peers, **_EXTRA}),
        message_of({"type": types, "instanceId": not_me}, {"from": me, "to": peers, **_EXTRA}),
        message_of({"type": st.sampled_from(RELAYS_OWN)}, {"from": me, "to": peers, **_EXTRA}),
        message_of(
            {"type": "presence", "from": me, "data": {"agents": [RELAY]}}, {"turnId": turn_ids}
        ),
    )


_NOT_JSON: Final = (
    b"",
    b" ",
    b"{",
    b"}",
    b"{'type':'stream'}",
    b'{"type":"stream",}',
    b'{"type":"stream"} {}',
    b'{"type":"stream","data":NaN}',
    b'{"type":"stream","data":[-Infinity]}',
    b'{"type":"stream","data":01}',
    b'{"type":"stream","data":"\x01"}',
    b'{"type":"stream","data":"\\x"}',
    b'\xef\xbb\xbf{"type":"stream"}',
    b"[1,2",
    b"nul",
)
_NO_OBJECT: Final = (b"[]", b"null", b"1", b'"stream"', b"true", b'[{"type":"stream"}]')
_NOT_TEXT: Final = (
    b'{"type":"stream","data":"\xff"}',
    b'{"type":"stream","data":"\xed\xa0\x80"}',
    b"\xc0\x80",
)


@functools.cache
def damaged(me: str, limits: Limits, *, not_utf8: bool) -> st.SearchStrategy[bytes]:
    """What is no message: broken JSON, other JSON, fields of wrong types."""
    wrong = st.sampled_from([1, 1.5, True, [], {}, [me]])
    names = st.sampled_from(["type", "from", "to", "instanceId", "targetInstanceId"])

    def with_wrong(field: str) -> st.SearchStrategy[bytes]:
        return message_of({"type": "stream", field: wrong}, {"turnId": turn_ids})

    surrogate = message_of(
        {"type": st.sampled_from(["ack", "direct"]), "to": "\ud83d"}, {"from": me}
    )
    half = fanned_out(me).flatmap(
        lambda text: st.integers(0, len(text.rstrip()) - 1).map(lambda end: text[:end])
    )
    wrong_data = st.sampled_from(
        ["x", 1, [], {"agents": "x"}, {"agents": None}, {"agents": [""]}, {"agents": [1, "x"]}]
    )
    return st.one_of(
        st.sampled_from(_NOT_JSON + _NO_OBJECT + (_NOT_TEXT if not_utf8 else ())),
        names.flatmap(with_wrong),
        half,
        surrogate,
        st.just(text_of({"from": me, "turnId": "no type"})),
        st.just(text_of({"type": "", "from": me})),
        st.just(text_of({"type": "presence"})),
        st.just(text_of({"type": "presence", "from": ""})),
        message_of(
            {"type": st.sampled_from(["presence", "heartbeat"]), "from": me, "data": wrong_data},
            _EXTRA,
        ),
    )


@functools.cache
def too_much(me: str, limits: Limits) -> st.SearchStrategy[bytes]:
    """What is too long, too deep, too large, too many."""
    name = "n" * (limits.id_chars_max + 1)
    deep = b"[" * limits.nesting_max + b"]" * limits.nesting_max
    many = [f"agent {n}" for n in range(limits.agents_max + 1)]
    large = "x" * limits.message_bytes_max
    large_presence = {"agents": [], "hostname": "x" * limits.presence_bytes_max}
    return st.sampled_from(
        [
            text_of({"type": name, "from": me}),
            text_of({"type": "stream", "from": name}),
            text_of({"type": "stream", "instanceId": name}),
            text_of({"type": "direct", "to": name, "turnId": 1}),
            text_of({"type": "direct", "targetInstanceId": name}),
            text_of({"type": "presence", "from": name}),
            text_of({"type": "presence", "from": me, "data": {"agents": [name]}}),
            text_of({"type": "presence", "from": me, "data": {"agents": many}}),
            text_of({"type": "heartbeat", "from": me, "data": {"agents": many}}),
            text_of({"type": "presence", "from": me, "data": large_presence}),
            text_of({"type": "heartbeat", "from": me, "data": large_presence}),
            text_of({"type": "stream", "from": me, "data": large, "turnId": "t"}),
            b'{"type":"stream","data":' + deep + b"}",
            b'{"type":"stream","data":' + b"1" * (limits.number_digits_max + 1) + b"}",
            b'{"type":"stream","data":0.' + b"1" * (limits.number_digits_max + 1) + b"}",
        ]
    )


@functools.cache
def at_the_bound(me: str, limits: Limits) -> st.SearchStrategy[bytes]:
    """The largest messages that may pass, and one byte more; the relay adds the origin to some."""

    def of_size(fields: dict[str, Any], size: int) -> bytes:
        bare = text_of({**fields, "data": ""})
        return text_of({**fields, "data": "x" * (size - len(bare))})

    bound = limits.message_bytes_max
    origins: tuple[tuple[dict[str, Any], str], ...] = (
        ({"from": me}, ""),
        ({}, f',"from":"{me}"'),
        ({"from": "some-agent"}, f',"instanceId":"{me}"'),
    )
    return st.sampled_from(
        [
            of_size({"type": "stream", **given}, bound - len(added) + more)
            for given, added in origins
            for more in (0, 1)
        ]
    )


@functools.cache
def batches(me: str) -> st.SearchStrategy[bytes]:
    """Arrays of messages, with something else among them now and then."""
    no_message = st.sampled_from([b"1", b"null", b'[{"type":"ack"}]', b'"]"', b"{}"])
    one = st.one_of(fanned_out(me), fanned_out(me), directs(me), presences(me), no_message)
    return st.lists(one, min_size=1, max_size=4).map(lambda texts: b" [" + b" ,".join(texts) + b"]")


@functools.cache
def messages(me: str) -> st.SearchStrategy[bytes]:
    """Any right message of `me`."""
    return st.one_of(
        presences(me),
        heartbeats(me),
        fanned_out(me),
        fanned_out(me),
        directs(me),
        directs(me),
        others(me),
        batches(me),
    )


@functools.cache
def misbehaviour(me: str, limits: Limits, *, not_utf8: bool = True) -> st.SearchStrategy[Message]:
    """Any wrong message of `me`. `not_utf8`: also what a WebSocket would not carry as text."""
    return st.one_of(
        forged(me),
        claims(me, wrong=True),
        damaged(me, limits, not_utf8=not_utf8),
        too_much(me, limits),
        st.just(BINARY),
    )
