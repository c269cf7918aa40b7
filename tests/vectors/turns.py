"""Hand-written vectors of turns: answers with something missing, commands that nobody waits for any
more, signs of life, any of several, answers for the asker alone, agents that nobody serves."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.stories import Story, answer, command, joined, presence, relays

TWINS = (presence("carol", "twin"), presence("dave", "twin"))


def alone(type: str, turn: str, sender: str = "bob", **data: Any) -> dict[str, Any]:
    """An answer to a command of ann that nobody else receives."""
    told = answer("direct", turn, sender, **data)
    return {**told, "targetInstanceId": "ann", "answer": type}


def cancel(turn: str, sender: str = "bob", **fields: Any) -> dict[str, Any]:
    """Somebody waits no more for what ann works on."""
    return {"type": "cancel", "from": sender, "to": "ann", "turnId": turn, **fields}


def told(told: dict[str, Any]) -> dict[str, Any]:
    """A command that is to be answered to its asker alone."""
    return {**told, "answers": "direct"}


def asked(name: str, *others: dict[str, Any], count: int = 1, **setup: Any) -> Story:
    """Ann has asked bob's agent so many times, and that was sent."""
    s = joined(name, *others, **setup)
    for _ in range(count):
        s.do("ask", "helper", "x")
    s.pump()
    return s


# What is missing ----------------------------------------------------------------------------------


def gaps() -> Iterator[Story]:
    for name, numbers in (
        ("a hole in an answer ends the turn", (0, 1, 4, 5)),
        ("a hole of one chunk", (1, 3)),
        ("a missing start", (2, 3)),
        ("a chunk that comes twice", (0, 1, 1)),
        ("two programs that answer under one id", (0, 0, 1, 1)),
        ("numbers may begin with 1, as those of existing pages do", (1, 2, 3)),
        ("numbers that are none are not judged", (0, "1", 9, 9)),
        ("nor those that are missing", (None, None)),
        ("numbers may be written with a point", (0.0, 1, 2.0, 4.0)),
        ("numbers that are too large to be read alike", (2**53, 10**400, -(10**400))),
        ("halves and truths are no numbers", (0.5, True, False)),
    ):
        s = asked(name)
        for number in numbers:
            s.hear(answer("stream", "turn-1", chunk=f"<{number}>", chunkNum=number))
        s.hear(answer("turn_end", "turn-1", result="done"))
        s.pump()
        yield s

    for name, total in (
        ("the end says how many there were", 2),
        ("and that some are missing", 20),
        ("or too many", 1),
        ("a number that is none says nothing", "20"),
        ("nor does a truth", True),
    ):
        s = asked(name)
        for number in (1, 2):
            s.hear(answer("stream", "turn-1", chunk="c", chunkNum=number))
        s.hear(answer("turn_end", "turn-1", result="done", chunks=total))
        s.pump()
        yield s

    s = asked("all chunks are missing")
    s.hear(answer("turn_end", "turn-1", result="done", chunks=7))
    yield s

    s = asked("in the middle of an answer the connection is lost")
    s.hear(alone("ack", "turn-1"), alone("stream", "turn-1", chunk="a", chunkNum=0))
    s.wait(3.25)
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.hear({"type": "broadcast", "from": "bob", "data": "after the gap"})
    s.hear(alone("stream", "turn-1", chunk="d", chunkNum=3))
    s.hear(alone("turn_end", "turn-1", result="done"))
    s.pump()
    yield s

    s = joined("a connection that is lost while it is replaced", limits={"renew_after_s": 25.0})
    s.wait(24.0)
    s.hear({"type": "tick", "from": "bob"})
    s.wait(2.0)
    s.open(2)
    s.do("closed", 1)
    yield s


# Nobody waits any more ----------------------------------------------------------------------------


def cancels() -> Iterator[Story]:
    s = asked("an abandoned turn is cancelled", count=3)
    s.do("abandon", "turn-1")
    s.do("ask", "ghost", "x")
    s.do("ask", "helper", "x")
    s.do("abandon", "turn-5")
    s.pump()
    s.do("abandon", "turn-4")
    s.hear(answer("turn_end", "turn-2", result=1), answer("error", "turn-3", error="no"))
    s.do("abandon", "turn-2")
    s.pump()
    yield s

    s = joined("a timeout cancels")
    s.do("ask", "helper", "x", timeout_s=5.0)
    s.pump()
    s.wait(5.0)
    s.pump()
    yield s

    s = asked("whoever leaves cancels", count=2)
    s.do("ask", "helper", "not sent yet")
    s.do("leave")
    s.pump()
    s.do("end")
    yield s

    s = asked("and does not wait for a connection to say so")
    s.do("closed", 1)
    s.do("leave")
    s.do("end")
    yield s

    s = asked("a cancel waits for the next connection")
    s.do("closed", 1)
    s.do("abandon", "turn-1")
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.pump()
    yield s

    s = asked("or is left out", waits=False)
    s.do("closed", 1)
    s.do("abandon", "turn-1")
    yield s

    s = asked("many cancels wait for room", count=4, limits={"queue_messages_max": 2})
    for number in range(1, 5):
        s.do("abandon", f"turn-{number}")
    s.pump()
    yield s

    s = asked("a relay that takes no message takes no cancel")
    s.do("nudge")
    s.hear(relays("capabilities_response", "t:3", limits={"messageBytes": 1}))
    s.do("abandon", "turn-1")
    s.pump()
    yield s

    s = asked("what the queue gave up is not asked any more", overfill=10, waits=False)
    s.do("ask", "helper", "never sent")
    s.do("closed", 1)
    yield s

    s = joined("an asker cancels what it has asked, and nobody else does", agents=["a", "b"])
    s.do("serve", None)
    s.hear(command("a", "c-1"), told(command("b", "c-2")), command(None, "c-3", type="broadcast"))
    s.hear(cancel("c-1", "eve"), cancel("c-1", "a", instanceId="eve"), cancel("c-9"))
    s.hear({"type": "cancel", "from": "bob"}, {"type": "cancel", "turnId": "c-1"})
    s.hear(cancel("c-1"), cancel("c-2", "tab", instanceId="bob"), cancel("c-3"), cancel("c-3"))
    s.do("stream", 1, "late")
    s.do("finish", 2, "late")
    s.do("fail", 3, "late")
    s.pump()
    yield s

    s = joined("what waits for a service is cancelled")
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.hear(cancel("c-1"))
    s.do("serve", None)
    yield s

    s = joined("an asker that stays away has cancelled", presence("eve"))
    s.do("serve", None)
    s.hear(command("coder", "c-1"), told(command("coder", "c-2")))
    s.hear(told(command("coder", "c-3", "eve")))
    s.hear(presence("bob", status="offline"))
    s.wait(10.0)
    s.pump()
    yield s

    s = joined("one that comes back has not")
    s.do("serve", None)
    s.hear(command("coder", "c-1", "dave"))
    s.hear(presence("dave"), presence("dave", status="offline"))
    s.wait(5.0)
    s.hear(presence("dave"))
    s.wait(30.0)
    s.hear(presence("dave", status="offline"))
    s.do("finish", 1, "in time")
    s.wait(30.0)
    yield s

    s = joined("who is gone when the roster comes again may still come back")
    s.do("serve", None)
    s.hear(command("coder", "c-1"))
    s.do("closed", 1)
    s.wait(1.0)
    s.join(connection=2, first_turn=3)
    s.wait(10.0)
    yield s

    s = joined("whoever comes back too late is told that it was cancelled")
    s.do("serve", None)
    s.hear(told(command("coder", "c-1")), command("coder", "c-2"))
    s.hear(presence("bob", status="offline"))
    s.wait(6.0)
    s.hear(presence("bob"))
    s.hear(presence("bob", status="offline"), presence("bob"))
    s.pump()
    yield s

    s = joined("an end that came while its asker was away is told when it is back")
    s.do("serve", None)
    s.hear(*(told(command("coder", f"c-{number}")) for number in range(1, 5)))
    s.hear(presence("bob", status="offline"))
    s.do("stream", 1, "nobody hears it")
    s.do("finish", 1, "nor this")
    s.do("fail", 2, "nor this")
    s.do("finish", 3, "but this it has heard")
    s.pump()
    gone = {"code": "unknown_target", "error": "no peer 'bob' is here", "target": "bob"}
    s.hear(relays("error", "c-1", **gone), relays("error", "c-1", **gone))
    s.hear(relays("error", "c-3", **{**gone, "code": "other"}))
    s.hear({**relays("error", "c-3", **gone), "from": "eve"})
    s.hear(presence("bob"))
    s.hear(relays("error", "c-2", **gone))
    s.hear(relays("error", "c-9", **gone), relays("error", "c-3", **{**gone, "target": ["bob"]}))
    s.do("finish", 4, "in time")
    s.pump()
    yield s

    s = asked("an asker that was away hears that there was an end")
    s.hear(alone("error", "turn-1", code="missed", error="the answer came while you were away"))
    yield s

    s = asked("an asker hears that who worked on it has gone, though its peer is here", count=2)
    s.hear(alone("ack", "turn-1"), alone("error", "turn-1", code="left", error="it has gone"))
    s.hear(answer("error", "turn-2", code="left"))
    s.hear(relays("error", "turn-2", code="left"))
    yield s

    s = joined("where not all peers are known, nobody counts as gone", limits={"peers_max": 1})
    s.do("serve", None)
    s.hear(presence("eve"), command("coder", "c-1"))
    s.hear(presence("bob", status="offline"))
    s.wait(30.0)
    yield s


# Signs of life ------------------------------------------------------------------------------------


def signs() -> Iterator[Story]:
    s = joined("while an agent thinks its peer says so", agents=["a", "b"])
    s.do("serve", None)
    s.hear(command("a", "c-1"))
    s.wait(4.0)
    s.hear(told(command("b", "c-2")))
    s.wait(20.0)
    s.do("stream", 1, "for all to read")
    s.do("stream", 2, "for one")
    s.wait(25.0)
    s.do("finish", 2, "done")
    s.wait(20.0)
    s.pump()
    yield s

    s = joined("one for all that it was too late for")
    s.do("serve", None)
    s.hear(command("coder", "c-1"))
    s.sleep(25.0)
    s.pump()
    yield s

    s = joined("none without a connection")
    s.do("serve", None)
    s.hear(told(command("coder", "c-1")))
    s.do("closed", 1)
    s.wait(1.0)
    s.open(2)
    s.wait(15.0)
    yield s


# Who reads the answers ----------------------------------------------------------------------------


def readers() -> Iterator[Story]:
    s = asked("answers come alone or for all", count=2)
    s.hear(alone("ack", "turn-1"), answer("ack", "turn-2"))
    s.hear(alone("stream", "turn-1", chunk="a", chunkNum=0))
    s.hear(alone("stream", "turn-1", "eve", chunk="forged", chunkNum=1))
    s.hear(alone("turn_end", "turn-1", result="done", chunks=1))
    s.hear(alone("error", "turn-2", error="no"))
    yield s

    s = asked("alone they begin with chunk 0")
    s.hear(alone("stream", "turn-1", chunk="b", chunkNum=1))
    yield s

    s = asked("what is no answer is none")
    kinds: tuple[Any, ...] = ("direct", "presence", "", None, 5, ["ack"], {})
    for kind in kinds:
        s.hear(alone(kind, "turn-1", result="x"))
    s.hear({**alone("turn_end", "turn-1", result="x"), "type": "broadcast"})
    yield s

    s = joined("whoever asks so is answered alone", limits={"turns_max": 1})
    s.do("serve", None)
    s.hear(told(command("coder", "c-1", "tab", instanceId="page")))
    s.do("stream", 1, "some")
    s.hear(told(command("coder", "c-2")), told(command("nobody", "c-3")))
    s.do("finish", 1, {"n": 1})
    for answers in ("all", None, True, ["direct"]):
        s.hear({**command("nobody", "c-4"), "answers": answers})
    s.hear(told(command("nobody", None)))  # type: ignore[arg-type]
    s.pump()
    yield s

    s = joined("an asker may have all read them")
    s.do("ask", "helper", "x", fields={"answers": "all"})
    s.pump()
    yield s


# Any of several -----------------------------------------------------------------------------------


def several() -> Iterator[Story]:
    s = joined("any of several: those with the fewest commands, and chance", *TWINS)
    s.hear(presence("eve", "twin"))
    for roll in (0.0, 0.5, 0.75, 0.25, 0.5):
        s.member.roll = roll
        s.do("ask", "twin", "x", any=True)
    s.hear(answer("turn_end", "turn-2", "carol", result=1))
    s.hear(answer("turn_end", "turn-2", "dave", result=1))
    s.do("ask", "twin", "x", any=True)
    s.do("ask", "helper", "x", any=True)
    s.do("ask", "nobody", "x", any=True)
    s.do("ask", "carol", "x", any=True)
    s.do("ask", "coder", "x", any=True)
    s.do("ask", "twin", "x", any=True, peer="dave")
    s.pump()
    yield s

    s = joined("if the chosen leaves before a sign of life, another is asked, once", *TWINS)
    s.do("ask", "twin", "x", any=True, timeout_s=20.0)
    s.do("ask", "twin", "x", peer="carol")
    s.pump()
    s.wait(5.0)
    s.hear(presence("carol", status="offline"))
    late = {"code": "unknown_target", "error": "no peer 'carol' is here", "target": "carol"}
    s.hear(relays("error", "turn-1", **late))
    s.hear(answer("ack", "turn-1", "carol"))
    s.pump()
    s.hear(presence("eve", "twin"), presence("dave", status="offline"))
    s.pump()
    yield s

    s = joined("not after one", *TWINS)
    s.do("ask", "twin", "x", any=True)
    s.pump()
    s.hear(alone("ack", "turn-1", "carol"))
    s.hear(presence("carol", status="offline"))
    yield s

    for code in ("unknown_target", "not_served", "busy", "other", ["busy"], None):
        s = joined(f"the chosen says {code}", *TWINS)
        for _ in range(2):
            s.do("ask", "twin", "x", any=True)
        s.pump()
        s.hear(alone("error", "turn-1", "carol", code=code, error="not me"))
        s.pump()
        s.hear(alone("error", "turn-1", "dave", code=code, error="nor me"))
        yield s

    s = joined("what was not sent goes to the other alone", *TWINS)
    s.do("ask", "twin", "x", any=True)
    s.hear(presence("carol", status="offline"))
    s.pump()
    yield s

    s = joined("the relay knows more peers than the roster", limits={"peers_max": 1})
    s.hear(presence("carol", "twin"))
    s.do("ask", "twin", "x", any=True)
    s.pump()
    names = {"code": "ambiguous_target", "error": "2 peers", "peers": ["ann", "carol", "dave"]}
    s.hear(relays("error", "turn-1", **names))
    s.pump()
    yield s

    few = {"queue_messages_max": 1, "turns_max": 1}
    s = joined("the queue has no room for the other", *TWINS, limits=few)
    s.do("ask", "twin", "x", any=True)
    s.pump()
    s.do("send", {"type": "a"})
    s.do("ask", "helper", "waits for room")
    s.hear(presence("carol", status="offline"))
    yield s


# Nobody serves it ---------------------------------------------------------------------------------


def unserved() -> Iterator[Story]:
    s = joined("whoever asks for what nobody serves is told", agents=["a", "b"])
    s.hear(command("a", "c-1"), told(command("typo", "c-2")), command("ann", "c-3"))
    s.hear(command(None, "c-4", type="broadcast"), command("b", "c-5"), command(None, "c-6"))
    s.do("send", {"type": "ack", "to": "bob", "turnId": "c-5"})
    s.wait(20.0)
    s.pump()
    yield s

    s = joined("unless another program with the same id may serve it")
    s.hear(presence("ann", "coder", "typist", turn="other:1"))
    s.hear(command("coder", "c-1"), command("typist", "c-2"), command("typo", "c-3"))
    s.wait(20.0)
    s.pump()
    yield s

    s = joined("what makes room for others is told that it is too much", limits={"turns_max": 2})
    s.hear(command(None, "c-0", type="broadcast"))
    for number in range(1, 5):
        s.hear(told(command("coder", f"c-{number}")))
    s.pump()
    yield s

    s = asked("an agent that is not served, in the words of a peer", count=3)
    s.hear(alone("error", "turn-1", code="not_served", error="nobody serves it"))
    s.hear(answer("ack", "turn-2"))
    s.hear(answer("error", "turn-2", code="not_served", error="but somebody does"))
    s.hear(answer("turn_end", "turn-2", result=1))
    s.hear(answer("error", "turn-3", code="unknown_target", error="no such agent here"))
    yield s


def turns() -> Iterator[Story]:
    """All of them."""
    for part in (gaps, cancels, signs, readers, several, unserved):
        yield from part()
