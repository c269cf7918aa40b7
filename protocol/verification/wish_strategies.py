"""Messages for hypothesis: what peers want of what others say, and what meets that or does not."""

import functools
from typing import Any, Final

from hypothesis import strategies as st

from protocol.verification.strategies import (
    agent_ids,
    agents,
    message_of,
    origin,
    peers,
    turn_ids,
)

_patterns: Final = st.sampled_from(["orders", "orders*", "robots/*", "größer", "half *", "*"])
_types: Final = st.sampled_from(["broadcast", "ack", "stream", "price"])
_topics: Final = st.sampled_from(
    ["orders", "orders/1", "robots/7", "größer", "half \ud83d", "", None, 7, ["orders"]]
)
_no_others: Final = {"others": st.sampled_from([False, False, True, None])}
_some_topics: Final = {"topics": st.lists(_patterns, max_size=2)}
_some_types: Final = {"types": st.lists(_types, min_size=1, max_size=3)}
_right: Final = st.one_of(
    st.just({"others": False}),
    st.fixed_dictionaries(_some_topics),
    st.fixed_dictionaries(_some_types),
    st.fixed_dictionaries(
        {}, optional={**_no_others, **_some_topics, **_some_types, "of another kind": st.just(1)}
    ),
)
_wrong: Final[list[Any]] = [
    "everything",
    [],
    False,
    {"others": 0},
    {"others": "no"},
    {"topics": "orders"},
    {"topics": [7]},
    {"topics": [""]},
    {"topics": ["**"]},
    {"topics": ["ord*s"]},
    {"topics": ["half \ud83d"]},
    {"topics": ["x" * 300]},
    {"topics": [f"{n}" for n in range(65)]},
    {"types": "ack"},
    {"types": [None]},
    {"types": ["ack", ""]},
    {"types": ["x" * 300]},
    {"types": ["ack"] * 65},
]


def subscriptions() -> st.SearchStrategy[Any]:
    """What may stand in `data.subscribe`; some of it is wrong."""
    rare = st.one_of(
        st.sampled_from([None, {"topics": None, "types": None}]), st.sampled_from(_wrong)
    )
    return st.one_of(_right, _right, _right, rare)


@functools.cache
def presences(me: str) -> st.SearchStrategy[bytes]:
    """Announcements of `me` that say what it wants."""
    data = st.fixed_dictionaries(
        {"subscribe": subscriptions()}, optional={"agents": st.lists(agents, max_size=2)}
    )
    return message_of({"type": "presence", "from": me, "data": data}, {"turnId": turn_ids})


@functools.cache
def messages(me: str) -> st.SearchStrategy[bytes]:
    """What goes to everyone, or not: with few topics and types, and names of those who are here."""
    address = {
        "to": st.one_of(peers, agent_ids, st.sampled_from(["*", "nobody", None])),
        "targetInstanceId": st.one_of(peers, st.sampled_from(["nobody", None])),
    }
    return message_of({"type": _types, "topic": _topics}, {**origin(me), **address})
