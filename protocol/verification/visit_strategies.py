"""Messages for hypothesis: what somebody says who has no connection, under which name, and may."""

import functools
from typing import Final

from hypothesis import strategies as st

from protocol.limits import Limits
from protocol.verification import strategies
from protocol.verification.model import BINARY, RELAY, Permit
from protocol.verification.strategies import AGENTS, agent_ids, message_of, peers

VISITOR: Final = "cron"

_names: Final = st.one_of(
    peers, agent_ids, st.sampled_from([VISITOR, VISITOR, f"{VISITOR}/1", RELAY, "", None])
)


@functools.cache
def said(limits: Limits) -> st.SearchStrategy[bytes]:
    """Anything that anybody may say, right or wrong."""
    me = VISITOR
    right = st.one_of(strategies.fanned_out(me), strategies.directs(me), strategies.batches(me))
    wrong = strategies.misbehaviour(me, limits).filter(lambda message: message is not BINARY)
    return st.one_of(right, right, strategies.messages(me), wrong)


@functools.cache
def under_any_name(peer: str) -> st.SearchStrategy[bytes]:
    """A right message under some name: that of this peer, or of one of its agents, or another."""
    names = st.one_of(st.sampled_from([peer, VISITOR, *AGENTS]), _names)
    return message_of(
        {
            "type": st.sampled_from(["broadcast", "stream", "invoke", "direct"]),
            "from": st.one_of(names, names, st.none()),
            "to": st.one_of(st.just(peer), agent_ids),
        },
        {"instanceId": names, "turnId": strategies.turn_ids},
    )


def permits(peer: str, now: float) -> st.SearchStrategy[Permit]:
    """What somebody may do who comes at `now` (seconds): perhaps speak for this peer."""
    bound = st.builds(
        Permit,
        peer=st.sampled_from([None, peer, peer, VISITOR]),
        agents=st.sampled_from([None, None, ("x", "y*")]),
        may_send=st.sampled_from([True, True, True, False]),
        ends_at=st.sampled_from([None, None, None, now + 2.0, now - 100.0]),
    )
    return st.one_of(st.just(Permit()), bound, bound)
