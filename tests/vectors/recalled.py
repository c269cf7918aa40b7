"""Vectors of a peer that asks what was said before it came (protocol/member/recalling.py)."""

from collections.abc import Iterator
from typing import Any

from protocol.member.errors import Unreachable
from tests.vectors import cuts
from tests.vectors.recording import Case
from tests.vectors.stories import Story, answer, command, presence, relays

DEEP = f'{{"type":"a","from":"bob","data":{"[" * 300}1{"]" * 300}}}'


def said(n: int, type: str = "broadcast", **fields: Any) -> dict[str, Any]:
    """Something that bob has said to everyone."""
    return {"type": type, "from": "bob", "data": {"n": n}, **fields}


def mark(count: Any) -> dict[str, Any]:
    """What the relay says before so many old messages."""
    return relays("capabilities_response", history={"messages": count})


def entered(name: str, *, history: int = 3, resumes: bool = True, **setup: Any) -> Story:
    """The first connection has joined, and the roster is there, but for the relay's last word."""
    limits = {"resume_s": 20.0 if resumes else 0.0, **setup.pop("limits", {})}
    s = Story(name, history=history, limits=limits, **setup)
    s.do("begin", within_s=30.0)
    s.do("serve", None)
    enter(s)
    return s


def enter(s: Story) -> None:
    """The latest connection opens, and joins."""
    cuts.open_latest(s)
    be_let_in(s)


def be_let_in(s: Story) -> None:
    """The relay answers on the connection that has announced."""
    if any("resume" in message.get("data", {}) for message in cuts.sent(s)):
        s.hear(cuts.answer_to(s, "seconds", resume=cuts.OFFER))
    s.hear(presence("ann", "coder", turn=cuts.turn_of(s, "presence"), accept=["batch"]))
    s.hear(presence("bob", "helper"))


def complete(s: Story) -> None:
    """The relay's last word of the roster."""
    s.hear(relays("capabilities_response", cuts.turn_of(s, "capabilities"), limits={}, accept=[]))


def _joining() -> Iterator[Story]:
    for resumes in (True, False):
        with_what = "with what it may come back" if resumes else "by itself"
        s = entered(f"it asks once, {with_what}, and what comes is old", resumes=resumes)
        s.hear(mark(3))
        s.hear(said(1))
        s.hear(said(2, "stream", turnId="t-9"), said(3, "topic/news"))
        s.hear(said(4))
        complete(s)
        s.hear(said(5))
        yield s

    s = entered("it does not ask for none", history=0)
    s.hear(mark(1), said(1))
    complete(s)
    yield s

    s = Story("all of it may come in one frame", history=2, limits={"resume_s": 20.0})
    s.do("begin", within_s=30.0)
    cuts.open_latest(s)
    s.hear(
        cuts.answer_to(s, "seconds", resume=cuts.OFFER),
        presence("ann", "coder", turn=cuts.turn_of(s, "presence"), accept=["batch"]),
        presence("bob", "helper"),
        *(mark(2), said(1), said(2), said(3)),
        relays("capabilities_response", cuts.turn_of(s, "capabilities"), limits={}),
        said(4),
    )
    yield s

    s = entered("an old command is served by nobody, and an old answer belongs to no turn")
    complete_later = cuts.turn_of(s, "capabilities")
    s.do("ask", "helper", "now")
    s.pump()
    s.hear(mark(3), command(None, "c-1", type="broadcast"))
    s.hear(answer("stream", "turn-1", chunk="old", chunkNum=0))
    s.hear(answer("turn_end", "turn-1", result="old"))
    s.hear(answer("stream", "turn-1", chunk="new", chunkNum=0))
    s.hear(relays("capabilities_response", complete_later, limits={}))
    s.hear(command(None, "c-2", type="broadcast"))
    s.hear({"type": "cancel", "from": "bob", "to": "ann", "turnId": "c-1"})
    s.wait(25.0)
    yield s

    s = entered("an old error that calls itself the relay's is the relay's")
    s.hear(mark(3), relays("error", code="lagging", error="slow"))
    s.hear({"type": "error", "from": "relay", "instanceId": "bob", "data": {"code": "replaced"}})
    complete(s)
    yield s

    s = entered("what is never remembered is not counted")
    s.hear(mark(1), presence("carol"), relays("error", code="x", error="y"))
    s.hear(command("coder", "c-1"))
    s.hear(said(1, "direct", to="ann"), said(2, "cancel", turnId="c-1"))
    s.hear({**answer("turn_end", "x", result=1), "type": "direct", "answer": "turn_end"})
    s.hear(said(3), said(4))
    complete(s)
    yield s


def _relays() -> Iterator[Story]:
    s = entered("a relay that does not know the rule sends nothing old")
    s.hear(said(1))
    complete(s)
    s.hear(said(2))
    s.hear(mark(1), said(3))
    _lose(s)
    be_let_in(s)
    s.hear(mark(1), said(4))
    complete(s)
    yield s

    s = entered("also one that answers nothing, to which it does not go back")
    s.wait(6.0)
    s.hear(said(1))
    yield s

    counts: tuple[Any, ...] = (0, None, -1, 1.5, "2", True, [], 2**54)
    for count in counts:
        s = entered(f"a relay that says {count!r} messages follow")
        s.hear(mark(count), said(1))
        complete(s)
        s.hear(said(2))
        yield s

    s = entered("a count may have a point, as some languages write it")
    s.hear(mark(1.0), said(1), said(2))
    yield s

    s = entered("more than that is said in the relay's other answers")
    long: dict[str, Any] = {"limits": {}, "history": {"messages": 100}}
    for told in (
        relays("capabilities_response", **long),
        relays("capabilities_response", "x", history={"messages": 100}),
        relays("error", history={"messages": 100}),
        relays("capabilities_response", history=7),
        relays("capabilities_response", history=None),
        {"type": "capabilities_response", "from": "relay", "data": 7},
        {"type": "capabilities_response", "from": "relay"},
        {**mark(100), "from": "eve"},
        {**mark(100), "instanceId": "eve"},
        {**mark(100), "type": "stream"},
    ):
        s.hear(told, said(1))
    s.hear(mark(1), said(2), said(3))
    yield s

    s = entered("what a relay counts wrong ends behind the roster")
    s.hear(mark(1000), said(1))
    complete(s)
    s.hear(said(2))
    yield s

    s = entered("it counts once")
    s.hear(mark(1), said(1), mark(1), said(2))
    yield s

    s = entered("old messages of which nothing is read", limits={"read_bytes_max": 4096})
    s.do("received", 1, DEEP)
    s.hear(said(0), mark(3))
    s.do("received", 1, DEEP)
    s.do("received", 1, '{"type":"a","from":"bob","data":[%s[]]}' % ("[]," * 80))
    s.hear(said(1), said(2))
    complete(s)
    yield s

    s = entered("several of which nothing is read", limits={"read_bytes_max": 4096})
    s.hear(mark(3))
    s.do("received", 1, '[{"type":"a","data":[%s[]]},{"type":"a"}]' % ("[]," * 80))
    s.hear(said(1))
    complete(s)
    s.hear(said(2))
    yield s


def _losses() -> Iterator[Story]:
    s = Story("it asks until it has joined", history=3, limits={"resume_s": 20.0})
    s.do("begin", within_s=30.0)
    s.do("failed", 1, Unreachable("nobody there"))
    s.wait(1.0)
    cuts.open_latest(s)
    s.hear(relays("error", cuts.turn_of(s, "presence"), code="no_room", error="come later"))
    s.wait(3.0)
    enter(s)
    s.hear(mark(1), said(1))
    complete(s)
    yield s

    s = entered("cut in the middle: the rest is old, too, and nothing comes twice")
    s.hear(mark(3), said(1))
    cuts.cut(s)
    cuts.back(s, 2, said(2))
    cuts.cut(s)
    cuts.back(s, 2, said(3), said(4))
    s.hear(relays("capabilities_response", "t:3", limits={}))
    s.hear(said(5))
    yield s

    s = entered("cut before the first of them")
    cuts.cut(s)
    cuts.back(s, 2, mark(2), said(1))
    s.hear(said(2), said(3))
    yield s

    for what, before in (
        ("in the middle", (mark(3), said(1))),
        ("behind them", (mark(1), said(1), said(2))),
    ):
        s = entered(f"lost for good {what}: it does not ask again")
        s.hear(*before)
        _lose(s)
        be_let_in(s)
        s.hear(mark(3), said(3), said(4))
        complete(s)
        yield s

    s = entered("lost for good before them: it asks again")
    _lose(s)
    be_let_in(s)
    s.hear(mark(1), said(3), said(4))
    complete(s)
    yield s

    s = entered("another connection that replaces it does not ask", limits={"renew_after_s": 25.0})
    s.hear(mark(1), said(1))
    complete(s)
    for taken in (4, 6):
        s.wait(10.0)
        s.hear(said(taken), cuts.taken_told(s, taken))
    s.wait(5.0)
    s.open(2)
    s.hear(relays("capabilities_response", cuts.turn_of(s, "capabilities"), limits={}))
    s.use = 2
    announced = presence("ann", "coder", turn=cuts.turn_of(s, "presence"))
    s.hear(cuts.answer_to(s, "seconds", resume=cuts.OFFER), announced, presence("bob", "helper"))
    s.hear(announced, connection=1)
    s.hear(said(7))
    complete(s)
    yield s

    s = entered("who was asleep does not ask again")
    s.hear(mark(1), said(1))
    complete(s)
    s.do("suspend")
    s.wait(1.0)
    s.do("nudge")
    enter(s)
    s.hear(said(2))
    complete(s)
    yield s


def _lose(s: Story) -> None:
    """The connection is cut, and the relay does not know it any more."""
    cuts.cut(s)
    cuts.open_latest(s)
    no = {"resumed": False, "reason": "epoch", "seconds": 20}
    s.hear(cuts.answer_to(s, "token", resume=no))


def cases() -> Iterator[Case]:
    """All of them."""
    for story in (*_joining(), *_relays(), *_losses()):
        yield story.case
