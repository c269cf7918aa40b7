"""Vectors of a peer that wants only some of what others say (protocol/member/subscribing.py)."""

from collections.abc import Iterator
from typing import Any

from tests.vectors import cuts
from tests.vectors.recording import Case
from tests.vectors.stories import Story, answer, command, joined, presence, relays

ANSWERS = ("ack", "stream", "turn_end", "error")


def said(type: str = "broadcast", **fields: Any) -> dict[str, Any]:
    """Something that bob says to everyone."""
    return {"type": type, "from": "bob", "data": type, **fields}


def too_many(turn: str | None) -> dict[str, Any]:
    return relays("error", turn, code="too_many_wishes", error="2048 are here")


def asked(s: Story) -> str:
    """The turn id of the presence that was said last."""
    return cuts.turn_of(s, "presence")


def take(s: Story) -> None:
    """The relay takes the latest presence."""
    s.hear(presence("ann", "coder", turn=asked(s)))


def _wishes() -> Iterator[Story]:
    """What goes into the presence, and what is refused."""
    good: tuple[Any, ...] = (
        *(None, True, False, {}, {"others": True}, {"others": None, "topics": None, "types": None}),
        {"others": False},
        {"topics": ["robots/*", "orders", "orders"]},
        {"topics": []},
        {"topics": ["*"]},
        {"types": ["price", "ack"]},
        {"types": []},
        {"others": False, "topics": ["x" * 256], "types": ["\U0001f600" * 256]},
        {"types": [f"type {n:02}" for n in range(63)]},
        {"types": [f"type {n:02}" for n in range(64)]},
        {"topics": [f"topic {n:02}" for n in range(64)]},
    )
    for agents in (["coder"], []):
        for subscribe in good:
            s = joined(f"subscribe {subscribe!r:.60}, {agents}", subscribe=subscribe, agents=agents)
            s.do("ask", "helper", "go")
            s.do("serve", None)
            s.pump()
            yield s

    s = joined("what cannot be meant is refused, and changes nothing", subscribe={"types": ["a"]})
    bad: tuple[Any, ...] = (
        *("all", 1, 0, ["a"], {"other": False}, {"others": 0}, {"others": "no"}),
        *({"topics": "a"}, {"topics": [1]}, {"topics": [""]}, {"topics": ["a*b"]}),
        *({"topics": ["**"]}, {"topics": 5}, {"topics": {"a": 1}}, {"types": [None]}),
        *({"types": "ack"}, {"types": ["\ud800"]}, {"types": ["x" * 257]}),
        *({"types": ["a"] * 65}, {"topics": [f"topic {n}" for n in range(65)]}),
    )
    for subscribe in bad:
        s.do("subscribe", subscribe)
    s.hear(said("a"), said("b"))
    yield s

    s = joined("a presence that gets too long with its wish is refused")
    s.do("announce", ["coder"], {"x": "y" * (2**20 - 9000)})
    take(s)
    s.do("subscribe", {"topics": [f"{n:0256}" for n in range(64)]})
    s.do("subscribe", {"topics": ["a"]})
    yield s


def _what_comes() -> Iterator[Story]:
    """What the program gets of what arrives, from a relay that sends everything."""
    everything = (
        said(),
        said("price"),
        said("price", topic="orders"),
        said("price", topic="orders/1"),
        said("price", topic="robots/7"),
        said("price", topic="robots"),
        said("price", topic=7),
        said("broadcast", topic="orders"),
        said("broadcast", to="ann"),
        said("broadcast", to="coder"),
        said("broadcast", to="carol"),
        said("broadcast", to="bob"),
        said("broadcast", to="helper"),
        said("broadcast", to="nobody"),
        said("broadcast", to=["carol"]),
        said("broadcast", to="carol", targetInstanceId="ann"),
        said("broadcast", to="ann", targetInstanceId="carol"),
        said("broadcast", to="carol", targetInstanceId="nobody"),
        said("broadcast", to="twin"),
        said("broadcast", to="carol's twin"),
        said("direct", to="ann", topic="x"),
        said("cancel", to="ann", turnId="c-9"),
        {**answer("stream", "x", chunk="a", chunkNum=0), "type": "direct", "answer": "stream"},
        answer("stream", "x", chunk="a", chunkNum=0),
        {**answer("stream", "x", chunk="a", chunkNum=0), "to": "carol"},
        relays("error", code="x", error="y"),
        {"type": "error", "from": "relay", "instanceId": "bob", "to": "carol", "data": {}},
        presence("dave"),
    )
    wishes: tuple[Any, ...] = (
        *(None, False, {"others": False}, {"topics": ["orders", "robots/*"]}, {"topics": []}),
        {"types": ["price"]},
        {"others": False, "topics": ["orders"], "types": ["broadcast"]},
    )
    for subscribe in wishes:
        s = joined(
            f"what comes to whom wants {subscribe!r}",
            presence("carol", "coder", "twin", "carol's twin"),
            subscribe=subscribe,
            agents=["coder", "twin"],
        )
        for message in everything:
            s.hear(message)
        yield s

    s = joined("an agent of another connection of the peer is its own", subscribe={"others": False})
    s.hear(presence("carol", "coder", "sewer"))
    s.hear(presence("ann", "coder", "sewer"))
    s.hear(said(to="sewer"), said(to="helper"))
    yield s

    s = Story("what is old, too", subscribe={"types": ["price"]}, history=3)
    s.do("begin", within_s=30.0)
    cuts.open_latest(s)
    s.hear(presence("ann", "coder", turn=asked(s)), presence("bob"))
    s.hear(relays("capabilities_response", history={"messages": 2}))
    s.hear(said(), said("price"), said("price"))
    yield s


def _needs() -> Iterator[Story]:
    """What the peer itself needs, whatever is wished."""
    s = joined("a page answers to everyone", subscribe=False)
    s.do("ask", "helper", "go")
    s.pump()
    take(s)
    for type, data in (("ack", {}), ("stream", {"chunk": "a", "chunkNum": 1})):
        s.hear({"type": type, "from": "bob", "turnId": "turn-1", "data": data})
    s.hear({"type": "turn_end", "from": "bob", "turnId": "turn-1", "data": {"result": "b"}})
    s.do("ask", "helper", "once more, which is said to nobody")
    s.pump()
    yield s

    s = joined("a command to everyone is served, and not shown", subscribe=False, agents=[])
    s.do("serve", None)
    take(s)
    s.hear(command(None, "c-1", type="broadcast"))
    s.hear(command("ann", "c-2"))
    s.pump()
    yield s

    s = Story("what is needed before it has joined is said when it has", subscribe=False)
    s.do("begin", within_s=30.0)
    s.do("ask", "helper", "go")
    cuts.open_latest(s)
    s.do("serve", None)
    s.hear(presence("ann", "coder", turn=asked(s)), presence("bob", "helper"))
    s.pump()
    yield s

    s = Story("what is needed while it joins is said when it has", subscribe=False)
    s.do("begin", within_s=30.0)
    cuts.open_latest(s)
    s.do("ask", "helper", "go")
    s.hear(presence("ann", "coder", turn=asked(s)), presence("bob", "helper"))
    s.hear(presence("ann", "coder", turn=asked(s)))
    s.pump()
    yield s

    s = joined("what has types gets what is needed, also after it wanted all", subscribe=True)
    s.do("ask", "helper", "go")
    s.do("subscribe", {"types": ["a"]})
    take(s)
    s.do("announce", [], None)
    take(s)
    s.do("subscribe", True)
    take(s)
    yield s

    s = joined("what is needed is said again if the relay goes on with what was before")
    s.do("subscribe", {"types": ["a"]})
    take(s)
    s.do("subscribe", True)
    s.do("ask", "helper", "go")
    s.hear(relays("error", asked(s), code="no_room", error="full"))
    take(s)
    yield s


def _changes() -> Iterator[Story]:
    """`subscribe` and what becomes of connections."""
    s = joined("it is told like an announcement, and holds at once")
    s.do("subscribe", {"types": ["price"]})
    s.hear(said(), said("price"))
    take(s)
    s.do("subscribe", {"types": ["broadcast"]})
    s.hear(relays("error", asked(s), code="rate_limited", error="slower"))
    s.hear(said(), said("price"))
    s.do("announce", ["other"], {"subscribe": "of the program's own"})
    take(s)
    s.do("subscribe", None)
    take(s)
    s.hear(said())
    yield s

    s = joined("each connection says it anew", subscribe={"others": False})
    s.do("closed", 1, code=1006)
    s.do("subscribe", {"topics": ["a"]})
    s.hear(said())
    s.wait(1.0)
    cuts.open_latest(s)
    take(s)
    s.hear(said(topic="a"), said(topic="b"))
    yield s

    s = Story("who comes back says nothing", subscribe=False, limits={"resume_s": 20.0})
    s.do("begin", within_s=30.0)
    cuts.open_latest(s)
    s.hear(cuts.answer_to(s, "seconds", resume=cuts.OFFER))
    s.hear(presence("ann", "coder", turn=asked(s)), presence("bob", "helper"))
    cuts.cut(s)
    cuts.back(s, 2, said(), said("direct", to="ann"))
    s.do("subscribe", {"types": ["price"]})
    yield s

    s = joined("nobody subscribes for who has left")
    s.do("end")
    s.do("subscribe", False)
    yield s


def _too_many() -> Iterator[Story]:
    """The relay takes no other wish."""
    s = Story("a peer that cannot join with its wish joins without", subscribe={"types": ["price"]})
    s.do("begin", within_s=30.0)
    cuts.open_latest(s)
    s.hear(too_many(asked(s)))
    s.wait(1.0)
    cuts.open_latest(s)
    take(s)
    s.hear(said(), said("price"))
    s.do("announce", ["other"], None)
    take(s)
    s.do("ask", "helper", "go")
    s.do("closed", 2, code=1006)
    s.wait(1.0)
    cuts.open_latest(s)
    take(s)
    s.do("subscribe", {"types": ["price"]})
    take(s)
    yield s

    s = Story("a relay that refuses what was not said is believed", subscribe={"types": ["price"]})
    s.do("begin", within_s=30.0)
    for _ in range(2):
        cuts.open_latest(s)
        s.hear(too_many(asked(s)))
        s.wait(1.0)
    yield s

    s = joined("also one that was told no wish")
    s.do("announce", ["other"], None)
    s.hear(too_many(asked(s)))
    yield s

    s = joined("who is here gets everything, and hears only what it wants", subscribe=False)
    s.do("subscribe", {"types": ["price"]})
    s.hear(too_many(asked(s)))
    s.hear(said(), said("price"))
    take(s)
    yield s

    s = joined("of two on their way both are refused, and none is said twice")
    s.do("announce", ["other"], None)
    s.do("subscribe", {"types": ["price"]})
    first = asked(s)
    s.do("subscribe", {"types": ["price", "rise"]})
    second = asked(s)
    s.hear(too_many(first))
    third = asked(s)
    s.hear(too_many(second))
    s.hear(presence("ann", "coder", turn=third))
    s.hear(said("rise"), said())
    yield s

    s = joined("the next connection goes on trying", limits={"renew_after_s": 25.0})
    s.do("subscribe", {"types": ["price"]})
    take(s)
    s.wait(25.0)
    s.open(2)
    s.hear(relays("capabilities_response", cuts.turn_of(s, "capabilities"), limits={}))
    s.use = 2
    s.hear(too_many(asked(s)))
    s.use = 1
    s.hear(said(), said("price"))
    s.wait(1.0)
    yield s


def cases() -> Iterator[Case]:
    """All of them."""
    for story in (*_wishes(), *_what_comes(), *_needs(), *_changes(), *_too_many()):
        yield story.case
