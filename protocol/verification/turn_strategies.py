"""Messages for hypothesis: commands, and answers to them, in so few turns that they meet."""

import functools
from typing import Final

from hypothesis import strategies as st

from protocol.verification.strategies import agent_ids, message_of, origin, payloads, peers

few_turns: Final = st.sampled_from(["turn-1", "turn-2", 7, "turn-\ud83d"])


@functools.cache
def asks(me: str) -> st.SearchStrategy[bytes]:
    """Commands: a turn begins."""
    command = {"data": {"command": "go"}, "turnId": few_turns}
    anyone = st.one_of(peers, agent_ids)
    return st.one_of(
        message_of({"type": "direct", "to": anyone, "instanceId": me, **command}, origin(me)),
        message_of({"type": st.sampled_from(["broadcast", "invoke"]), **command}, origin(me)),
    )


@functools.cache
def answers(me: str) -> st.SearchStrategy[bytes]:
    """Answers to everyone, some of which name whom they are for."""
    address = {"to": st.one_of(peers, agent_ids, st.just("*")), "targetInstanceId": peers}
    return message_of(
        {"type": st.sampled_from(["ack", "stream", "turn_end", "error"]), "turnId": few_turns},
        {**origin(me), **address, "data": payloads},
    )
