"""Messages for hypothesis, as existing pages send them: what a relay has to know of these pages."""

import functools

from hypothesis import strategies as st

from protocol.verification.strategies import agent_ids, message_of, origin, turn_ids


@functools.cache
def sent_again(me: str) -> st.SearchStrategy[bytes]:
    """What pages send again, with so few `data` that one says what another has said."""
    data = st.sampled_from([None, {"n": 1}, {"n": 1}, "half \ud83d", "half \\\ud83d"])
    turn = st.sampled_from([None, None, "turn-1"])
    return message_of(
        {"type": st.sampled_from(["ring-update", "invoke", "broadcast"])},
        {**origin(me), "data": data, "turnId": turn},
    )


@functools.cache
def pages(me: str) -> st.SearchStrategy[bytes]:
    """Announcements of `me` as a page that sends again what it receives; some say it wrong."""
    return message_of(
        {
            "type": "presence",
            "from": me,
            "data": st.fixed_dictionaries(
                {"agents": st.just([])},
                optional={"pageId": st.sampled_from(["unified", "unified", 7, None])},
            ),
        },
        {},
    )


@functools.cache
def between_local_agents(me: str) -> st.SearchStrategy[bytes]:
    """What pages publish of what their own agents say to one another."""
    return message_of(
        {"type": "direct", "from": st.sampled_from(["local", "x", "z"]), "to": agent_ids},
        {"instanceId": st.sampled_from([None, me]), "turnId": turn_ids},
    )
