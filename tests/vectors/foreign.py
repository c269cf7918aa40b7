"""Vectors of relays that do not send a presence back, or never answer `capabilities`."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.recording import Case
from tests.vectors.stories import Story, presence, relays


def _self(turn: str, **fields: Any) -> dict[str, Any]:
    """What ann sends to itself."""
    return {"type": "direct", "from": "ann", "to": "ann", "turnId": turn, **fields}


def _announced(name: str, **setup: Any) -> Story:
    """Ann has announced itself, as turn 1, and has asked a question, as turn 2."""
    s = Story(name, **setup)
    s.do("begin", within_s=30.0)
    s.open(1)
    s.use = 1
    return s


def _unproved(name: str, **setup: Any) -> Story:
    """The relay has told who is here, and has delivered a direct to ann itself."""
    s = _announced(name, **setup)
    s.hear(presence("bob", "helper"))
    s.wait(2.5)
    s.hear(_self("t:3"))
    return s


def cases() -> Iterator[Case]:
    """Every case."""
    for story in _stories():
        yield story.case


def _stories() -> Iterator[Story]:
    s = _unproved("a direct to itself comes back, and the relay is ready a little later")
    s.do("send", {"type": "broadcast", "n": 1})
    s.pump()
    s.wait(2.5)
    s.pump()
    s.hear(presence("ann", "coder", turn="t:1"))
    yield s

    s = _announced("without that, somebody's presence is enough when the time is over")
    s.hear(presence("bob", "helper"), {"type": "n", "from": "bob", "data": 1})
    s.wait(5.0)
    s.do("ask", "helper", "x")
    s.pump()
    yield s

    s = _announced("and so is an answer of the relay")
    s.hear(relays("capabilities_response", "t:2", limits={}))
    s.wait(5.0)
    yield s

    s = _announced("what is heard too late is enough at once")
    s.wait(7.0)
    s.hear(presence("bob", "helper"))
    yield s

    s = _announced("where nothing is heard there may be no relay")
    s.wait(25.0)
    yield s

    s = _announced("errors are no sign, nor is a direct of somebody else")
    s.hear({"type": "error", "from": "relay", "data": {"error": "announce yourself first"}})
    s.wait(2.5)
    s.hear(relays("error", "t:3", error="who is that?"))
    s.hear(_self("t:3", instanceId="eve"), connection=1)
    s.wait(4.0)
    yield s

    s = _announced("an error with a code is about the presence, whatever its turn")
    s.hear(relays("error", code="no_room", error="full"))
    yield s

    s = _announced("only so much is kept until then", limits={"unread_messages_max": 2})
    for number in range(4):
        s.hear({"type": "n", "from": "bob", "data": number})
    s.wait(5.0)
    yield s

    s = _announced("and so many bytes", limits={"unread_bytes_max": 2000})
    for number in range(4):
        s.hear({"type": "n", "from": "bob", "data": str(number) * 700})
    s.wait(5.0)
    yield s

    s = _unproved("announcements count as taken when they are sent")
    s.do("announce", ["coder", "tester"], None)
    s.do("announce", ["tester"], None)
    s.pump()
    yield s

    s = _unproved("such a connection is used until it is lost", limits={"renew_after_s": 25.0})
    for _ in range(8):
        s.wait(5.0)
        s.hear({"type": "n", "from": "bob"})
    s.do("closed", 1)
    s.wait(1.0)
    s.open(2)
    s.wait(4.0)
    yield s

    s = _unproved("in a quiet mesh it hears itself")
    s.wait(20.0)
    s.do("nudge")
    s.wait(6.0)
    yield s

    s = _unproved("what another connection of the peer sends to itself is told to nobody")
    s.hear(_self("u:1", data={"probe": True}), _self("u:2", data={"probe": 1}), _self("u:3"))
    yield s

    s = _announced("a relay that sends the presence back and never answers is asked for directs")
    s.hear(presence("ann", "coder", turn="t:1"))
    s.wait(20.0)
    s.hear(_self("t:4"))
    s.do("nudge")
    yield s
