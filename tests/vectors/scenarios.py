"""Hand-written vectors of a whole peer, by room: every case has the name of what it shows."""

from collections.abc import Callable, Iterator
from typing import Any

from protocol.member.errors import NoCredentials, NotARelay, Unreachable
from protocol.member.incoming import cost_of
from protocol.member.messages import write_message
from tests.vectors.recording import Case
from tests.vectors.stories import Story, answer, command, joined, presence, relays
from tests.vectors.turns import told, turns

LONG = "x" * 1024
SMALL = {"messageBytes": 1024}
EDGE_TOLD = {"framesPerSecond": 10, "frameBytes": 300, "messagesPerSecond": 1000}
OWNER = "a secret of ann's"
FINAL, PASSING = NoCredentials("log in"), Unreachable("nobody there")
Room = Callable[[], Iterator[Story]]


def _sized(size: int) -> dict[str, Any]:
    """A message of ann that has so many bytes."""
    message: dict[str, Any] = {"type": "a", "from": "ann", "data": "", "timestamp": 5}
    return {**message, "data": "x" * (size - len(write_message(message)))}


# Who is here --------------------------------------------------------------------------------------


def roster() -> Iterator[Story]:
    s = joined("peers come, change and go")
    s.hear(presence("carol", {"agentId": 5, "id": "x"}, "", {"name": "y"}))
    s.hear(presence("carol", "z", mood="new"))
    s.hear(presence("carol", "z", mood="new"))
    s.hear(presence("carol", status="offline"))
    s.hear(presence("carol", status="offline"))
    s.hear({"type": "presence", "from": "dave"}, {"type": "presence", "data": [1]})
    s.hear({"type": "presence", "from": "eve", "data": {"agents": "none", "status": 1}})
    yield s

    s = joined("another connection of the same peer shares its id")
    s.hear(presence("ann", "coder", "typist"))
    s.hear(presence("ann", "coder", turn="u:1"))
    yield s

    s = joined("who left while there was no connection is gone afterwards", presence("carol"))
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("carol"), presence("dave"), connection=2, first_turn=3)
    s.hear(presence("carol"))
    yield s

    s = joined("who announces something else while one was away has changed", presence("carol"))
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), presence("carol", "c"), connection=2, first_turn=3)
    yield s

    s = joined("the roster takes so many peers", presence("carol"), limits={"peers_max": 2})
    s.do("ask", "helper", "x", peer="dave")
    for _ in range(2):
        s.hear(presence("dave"), presence("eve", "coder"), presence("bob", "other"))
    s.hear(answer("ack", "turn-1", "dave"))
    s.hear(presence("carol", status="offline"))
    s.hear(presence("eve", "coder"))
    s.hear(presence("dave"))
    s.hear(answer("turn_end", "turn-1", "dave", result=1))
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("carol"), presence("dave"), connection=2, first_turn=3)
    s.hear(presence("carol"))
    yield s

    s = joined("and so much of them", limits={"roster_bytes_max": 2000})
    s.hear(presence("carol", mood="z" * 600))
    s.hear(presence("carol", mood="z" * 700))
    s.hear(presence("dave"))
    s.hear(presence("carol"))
    s.hear(presence("dave"))
    yield s

    s = joined("a connection that is lost before the roster is whole removes nobody")
    s.do("closed", 1)
    s.wait(1.0)
    s.join(connection=2, first_turn=3, knows_capabilities=False)
    s.do("closed", 2)
    yield s


# Who is waited for after a loss -------------------------------------------------------------------


def returns() -> Iterator[Story]:
    def lost(name: str, **setup: Any) -> Story:
        """The relay was started again. Ann is the first that is back."""
        s = joined(name, presence("carol", "twin"), presence("dave", "twin"), **setup)
        s.do("ask", "helper", "under way")
        s.pump()
        s.do("closed", 1)
        return s

    def say(s: Story) -> None:
        """To each that was here, to all, and to who never was."""
        for to, peer in (("bob", None), ("helper", None), ("twin", None), ("twin", "dave")):
            named = {} if peer is None else {"targetInstanceId": peer}
            s.do("send", {"type": "direct", "to": to, **named})
        s.do("send", {"type": "broadcast"})
        s.do("send", {"type": "direct", "to": "eve"})
        s.do("send", {"type": "direct", "to": ["bob"], "targetInstanceId": 7})

    s = lost("what is for who was here waits until that one is back")
    say(s)
    s.wait(1.0)
    s.join(connection=2, first_turn=3)
    s.pump()
    s.do("ask", "helper", "another")
    s.do("send", {"type": "direct", "to": "bob", "n": 2})
    s.pump()
    s.wait(2.0)
    s.hear(presence("carol", "twin"))
    s.pump()
    s.hear(presence("bob", "helper"))
    s.pump()
    s.hear(presence("dave", status="offline"))
    s.pump()
    s.hear(answer("turn_end", "turn-1", result=1), answer("turn_end", "turn-2", result=2))
    yield s

    s = lost("and no longer than its time", limits={"return_within_s": 3.0})
    say(s)
    s.wait(1.0)
    s.join(connection=2, first_turn=3)
    s.pump()
    s.wait(2.875)
    s.pump()
    s.wait(0.125)
    s.pump()
    yield s

    s = lost("the time begins anew with each return")
    s.wait(1.0)
    s.join(connection=2, first_turn=3)
    s.wait(5.0)
    s.do("closed", 2)
    s.do("send", {"type": "direct", "to": "bob"})
    s.wait(1.0)
    s.join(connection=3, first_turn=5)
    s.wait(7.0)
    s.pump()
    s.hear(presence("bob", "helper"))
    s.pump()
    yield s

    s = joined("behind an edge what is held lets others share a frame", told=EDGE_TOLD)
    s.do("closed", 1)
    for number in range(3):
        s.do("send", {"type": "direct", "to": "bob", "n": number})
        s.do("send", {"type": "broadcast", "n": number})
    s.wait(1.0)
    s.join(connection=2, first_turn=3, limits=EDGE_TOLD)
    s.pump()
    s.hear(presence("bob", "helper"))
    s.pump()
    yield s


# What the peer says about itself ------------------------------------------------------------------


def announcements() -> Iterator[Story]:
    s = joined("what changes is announced, and answered")
    s.do("announce", ["coder", "tester"], {"mood": "new"})
    s.hear(presence("ann", "coder", "tester", turn="t:3", mood="new"))
    s.do("announce", None, {"mood": "old"})
    s.do("announce", [], None)
    s.hear(presence("ann", "coder", "tester", turn="t:4", mood="old"))
    s.hear(presence("ann", turn="t:5", mood="old"))
    yield s

    s = joined("what the relay refuses is undone")
    s.do("announce", ["a", "b"], None)
    s.hear(relays("error", "t:3", code="too_many_agents", error="at most 1"))
    yield s

    s = joined("two refused in a row are both forgotten")
    s.do("announce", ["a"], None)
    s.hear(presence("ann", "a", turn="t:3"))
    s.do("announce", ["b"], None)
    s.do("announce", ["c"], None)
    s.hear(relays("error", "t:4", code="too_many_agents", error="no"))
    s.hear(relays("error", "t:5", code="too_many_agents", error="no"))
    yield s

    s = joined("a later announcement answers those before it")
    s.do("closed", 1)
    s.do("announce", ["a"], None)
    s.do("announce", ["b"], {"n": 1})
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    yield s

    s = joined("one that was said before the connection was lost is answered with the next")
    s.do("announce", ["a"], None)
    s.do("closed", 1)
    s.do("announce", ["b"], None)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=4)
    yield s

    s = joined("what is refused in joining again is undone, and joining goes on")
    s.do("closed", 1)
    s.do("announce", ["a", "b"], None)
    s.wait(1.0)
    s.open(2)
    s.hear(relays("error", "t:3", code="too_many_agents", error="at most 1"), connection=2)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=3, first_turn=5)
    yield s

    s = joined("what is wanted instead meanwhile is not undone with it")
    s.do("closed", 1)
    s.do("announce", ["bad"], None)
    s.wait(1.0)
    s.open(2)
    s.do("announce", ["good"], None)
    s.hear(relays("error", "t:3", code="too_many_agents", error="no"), connection=2)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=3, first_turn=5)
    yield s

    s = joined("only so many are on their way at a time")
    for number in range(20):
        s.do("announce", [f"a{number}"], None)
    s.hear(presence("ann", "a0", turn="t:3"))
    yield s

    s = joined("what cannot be announced is refused at once", told=SMALL)
    s.do("announce", ["a"], {"long": LONG})
    s.do("announce", "a", None)
    yield s

    s = Story("a relay that refuses the first announcement ends the peer")
    s.do("begin")
    s.open(1)
    s.hear(relays("error", "t:1", code="spoofed", error="`relay` is not yours"), connection=1)
    yield s

    for code in ("rate_limited", "no_room", "too_many_connections"):
        s = Story(f"or only cannot take it now: {code}")
        s.do("begin", within_s=10.0)
        s.open(1)
        s.hear(relays("error", "t:1", code=code, error="not now"), connection=1)
        s.wait(9.0)
        yield s

    s = joined("what cannot be taken now is not given up")
    s.do("closed", 1)
    s.do("announce", ["new"], None)
    s.wait(1.0)
    s.open(2)
    s.hear(relays("error", "t:3", code="no_room", error="not now"), connection=2)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=3, first_turn=5)
    yield s

    s = joined("of announcements in quick succession the relay may take the last alone")
    for number in range(20):
        s.do("announce", [f"a{number}"], None)
    s.hear(presence("ann", "a15", turn="t:18"))
    s.hear(presence("ann", "a19", turn="t:19"))
    s.do("announce", ["b"], None)
    s.hear(presence("ann", "b", turn="t:20"))
    yield s

    s = Story("an error without a turn id is about the announcement, too")
    s.do("begin")
    s.open(1)
    s.hear(presence("bob"), connection=1)
    s.hear(relays("error", "other", code="spoofed", error="of another turn"), connection=1)
    s.hear(relays("error", code="too_large", error="too large"), connection=1)
    yield s

    s = Story("pongs need not count", keepalive=None)
    s.do("begin")
    s.open(1)
    yield s


# What is sent -------------------------------------------------------------------------------------


def outgoing() -> Iterator[Story]:
    s = joined("what the program sends is completed")
    s.do("send", {"type": "broadcast", "data": {"n": 1}})
    s.do("send", {"type": "direct", "from": "coder", "to": "bob", "data": None})
    s.do("send", {"type": "ring-update", "from": "coder", "instanceId": "x", "timestamp": 5})
    for type in ("presence", "heartbeat", "capabilities"):
        s.do("send", {"type": type})
    s.pump()
    yield s

    s = joined("the queue is bounded in messages", limits={"queue_messages_max": 2, "turns_max": 1})
    for number in range(3):
        s.do("send", {"type": "a", "n": number})
    s.do("next_frame", 1)
    s.do("send", {"type": "a", "n": 3})
    s.do("withdraw", 2)
    s.do("withdraw", 2)
    s.do("withdraw", 99)
    s.pump()
    yield s

    s = joined("and in bytes", limits={"queue_bytes_max": 2000})
    s.do("send", {"type": "a", "data": "x" * 1900})
    s.do("send", {"type": "a", "data": "\u00e9" * 500})
    s.do("send", {"type": "a"})
    s.pump()
    yield s

    s = joined("what the relay would drop is refused here", told={"messageBytes": 2048})
    s.do("send", {"type": "a", "data": "x" * 1900})
    s.do("send", {"type": "a", "data": "x" * 2048})
    s.do("send", {"type": "a", "data": "\u00e9" * 1100})
    s.do("announce", None, {"long": "x" * 2048})
    for size in (2048, 2049):
        s.do("send", _sized(size))
    s.do("nudge")
    s.hear(relays("capabilities_response", "t:3", limits={"messageBytes": 1}))
    s.do("send", {"type": "a"})
    yield s

    s = Story("a relay that tells no bounds is waited for")
    s.do("begin")
    s.join(knows_capabilities=False)
    s.do("send", {"type": "a"})
    s.pump()
    s.wait(5.0)
    s.pump()
    yield s

    s = joined("the pace is the relay's", told={"messagesPerSecond": 10, "messagesBurst": 4})
    for number in range(6):
        s.do("send", {"type": "a", "n": number})
    s.pump_in_time(5)
    yield s

    s = joined("without a burst the rate counts as one", told={"messagesPerSecond": 4})
    for number in range(5):
        s.do("send", {"type": "a", "n": number})
    s.pump()
    yield s

    edge = EDGE_TOLD
    s = joined("where frames are counted, messages share them", told=edge)
    for number in range(12):
        s.do("send", {"type": "a", "n": number})
    s.do("send", {"type": "long", "data": "x" * 700})
    s.do("send", {"type": "last"})
    s.pump_in_time(8)
    yield s

    for small in ({"messageBytes": 300}, {**edge, "messageBytes": 250}):
        most = small["messageBytes"]
        s = joined(f"an array is no longer than a message may be: {most}", told=small)
        for number in range(12):
            s.do("send", {"type": "a", "n": number})
        s.pump_in_time(4)
        yield s

    s = joined("a frame is filled to its last byte, and no further", told=edge)
    for sizes in ((300, 300), (100, 98, 99), (100, 97, 100), (301, 10)):
        for size in sizes:
            s.do("send", _sized(size))
        s.pump_in_time(3)
        s.wait(1.0)
    yield s

    s = Story("a relay that takes no arrays gets none")
    s.do("begin")
    s.join(limits=edge, accept=["something"])
    for number in range(3):
        s.do("send", {"type": "a", "n": number})
    s.do("next_frame", 1)
    s.do("next_frame", 1)
    s.wait(0.2)
    s.do("next_frame", 1)
    yield s

    s = joined("an array keeps to the pace of messages", told={**edge, "messagesBurst": 6})
    for number in range(6):
        s.do("send", {"type": "a", "n": number})
    s.do("next_frame", 1)
    yield s

    s = joined("a page cannot split a message", told=edge, splits=False)
    s.do("send", {"type": "a", "data": "x" * 200})
    for size in (300, 301):
        s.do("send", _sized(size))
    s.do("announce", None, {"long": "x" * 300})
    s.pump()
    yield s

    nonsense: tuple[Any, ...] = (*(True, "1000", -5, 0, None, [], {}, 10**400),)
    s = joined("nonsense among the bounds changes nothing", told={**edge, "messageBytes": 2000})
    for number, value in enumerate(nonsense, start=3):
        s.do("nudge")  # asks for a sign of life
        names = ("messageBytes", "messagesPerSecond", "messagesBurst", "framesPerSecond")
        told = {"limits": dict.fromkeys((*names, "frameBytes"), value), "accept": ["batch"]}
        s.hear(relays("capabilities_response", f"t:{number}", **told))
        s.do("send", {"type": "a", "data": "x" * 2000})
        s.do("send", {"type": "b", "n": number})
        s.pump()
    yield s

    s = joined("bounds that are no object, or fractions of a byte", told=edge)
    tiny = {"messageBytes": 0.5, "frameBytes": 0.5, "framesPerSecond": 10}
    wrong: tuple[Any, ...] = (None, 7, [], tiny)
    for number, limits in enumerate(wrong, start=3):
        s.do("nudge")
        s.hear(relays("capabilities_response", f"t:{number}", limits=limits))
        s.do("send", {"type": "a", "data": "x" * 250})
        s.pump()
        s.wait(0.2)
    yield s

    s = joined("bounds that are too large for a number, or below one", told=edge)
    infinite = '"messagesPerSecond":1e999,"messageBytes":1e999,"framesPerSecond":1e999'
    s.do("nudge")
    said = '{"type":"capabilities_response","from":"relay","turnId":"t:3","data":{"limits":{%s}}}'
    s.do("received", 1, said % infinite)
    s.do("nudge")
    s.hear(relays("capabilities_response", "t:4", limits={"messagesPerSecond": 0.5}))
    for number in range(3):
        s.do("send", {"type": "a", "n": number})
    s.pump()
    s.do("nudge")
    s.hear(relays("capabilities_response", "t:5", limits={"messagesPerSecond": 0.5}))
    s.wait(1.0)
    s.pump()
    yield s

    slow = {"framesPerSecond": 0.1, "frameBytes": 1, "messagesPerSecond": 0.1}
    s = joined("a new connection owes nothing for the one before", told=slow)
    for number in range(2):
        s.do("send", {"type": "a", "n": number})
    s.pump()
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.pump()
    yield s

    s = joined("a rate that would mute the peer, and a number that is no text of a number")
    for number, rate in enumerate((0.0999, 1e-300, 5e-324), start=3):
        s.do("nudge")
        rates = {"messagesPerSecond": rate, "framesPerSecond": rate}
        s.hear(relays("capabilities_response", f"t:{number}", limits=rates))
    for digits in ("1" * 4000, "1" * 5000):
        s.do("nudge")
        number += 1
        said = (
            '{"type":"capabilities_response","from":"relay","turnId":"t:%s","data":{"limits":%s}}'
        )
        bounds = '{"messageBytes":%s,"messageBytes":%s,"messagesPerSecond":%s,"frameBytes":-%s}'
        s.do("received", 1, said % (number, bounds % ((digits,) * 4)))
    for n in range(3):
        s.do("send", {"type": "a", "n": n})
    s.pump()
    yield s

    s = joined("the bytes that wait have a sharp bound", limits={"queue_bytes_max": 1024})
    s.do("send", _sized(1023))
    s.do("send", _sized(60))
    s.do("withdraw", 2)
    s.do("withdraw", 1)
    s.do("send", _sized(1024))
    s.do("send", _sized(60))
    yield s

    heavy = {"queue_bytes_max": 1024}
    s = joined("and so have those that are given up", overfill=10, limits=heavy)
    for size in (512, 512, 60):
        s.do("send", _sized(size))
    s.do("closed", 1)
    yield s

    s = joined("messages wait for the next connection")
    s.do("closed", 1)
    s.do("send", {"type": "a"})
    s.pump()
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.pump()
    yield s

    s = joined("or are refused, if that was asked for", waits=False)
    s.do("send", {"type": "a"})
    s.do("closed", 1)
    s.do("send", {"type": "b"})
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.pump()
    yield s

    small = {"queue_messages_max": 2}
    s = joined("who waits for each message may queue more", overfill=10, limits=small)
    for number in range(21):
        s.do("send", {"type": "a", "n": number})
    s.do("closed", 1)
    s.do("send", {"type": "b"})
    yield s

    s = joined("and loses all of it without a connection", overfill=10, waits=False, limits=small)
    for number in range(3):
        s.do("send", {"type": "a", "n": number})
    s.do("closed", 1)
    yield s


# Commands given -----------------------------------------------------------------------------------


def asks() -> Iterator[Story]:
    s = joined("a command is answered")
    s.do("ask", "helper", "what?")
    s.pump()
    s.hear(answer("ack", "turn-1"))
    s.hear(answer("stream", "turn-1", chunk="some", chunkNum=0))
    s.hear(
        answer("stream", "turn-1", chunk=" more", chunkNum=1),
        answer("turn_end", "turn-1", result=7),
    )
    s.hear(answer("turn_end", "turn-1", result=8))
    yield s

    s = joined("chunks and results may be anything")
    s.do("ask", "helper", {"do": ["it"]}, timeout_s=None, fields={"priority": 1})
    for chunk in (None, 0, "", {"a": [1, "b"]}, True):
        s.hear(answer("stream", "turn-1", chunk=chunk))
    s.hear({"type": "stream", "from": "bob", "turnId": "turn-1", "data": "text"})
    s.hear({"type": "turn_end", "from": "bob", "turnId": "turn-1"})
    yield s

    s = joined("the agent reports an error")
    for error in ("no", None, {"code": 1}):
        s.hear(answer("error", s.do("ask", "helper", "x"), error=error))
    yield s

    s = joined("the relay refuses")
    for data in (
        {"code": "unknown_target", "error": "nobody has nobody"},
        {"code": "ambiguous_target", "error": "several", "peers": ["bob", "eve"]},
        {"code": "ambiguous_target", "error": "several", "peers": "bob"},
        {"code": "rate_limited", "error": "too many"},
        {"code": 7},
        {},
    ):
        turn = s.do("ask", "nobody", "x")
        s.hear(relays("error", turn, **data))
    yield s

    s = joined("silence is a timeout, and every sign begins it anew")
    s.do("ask", "helper", "x", timeout_s=6.0)
    s.wait(5.0)
    s.hear(answer("ack", "turn-1"))
    s.wait(5.0)
    s.hear(answer("stream", "turn-1", chunk="a"))
    s.hear(answer("question", "turn-1"))
    s.wait(6.0)
    yield s

    s = joined("whoever was asleep looks for the answer first")
    s.do("ask", "helper", "x", timeout_s=20.0)
    s.sleep(100.0)
    s.hear(answer("ack", "turn-1"))
    s.sleep(100.0)
    yield s

    s = joined("a second too late is late, and no less")
    s.do("ask", "helper", "x", timeout_s=20.0)
    s.do("ask", "helper", "x", timeout_s=20.5)
    s.sleep(21.0)
    s.sleep(0.75)
    yield s

    s = joined("and has a little time for it, once")
    s.do("ask", "helper", "x", timeout_s=20.0)
    s.sleep(100.0)
    s.hear({"type": "tick", "from": "bob"})
    s.wait(5.0)
    yield s

    s = joined("so many may be under way", limits={"asks_max": 2})
    for _ in range(3):
        s.do("ask", "helper", "x")
    s.hear(answer("turn_end", "turn-1", result=1))
    s.do("ask", "helper", "x")
    yield s

    s = joined("an error may be anything, and comes from the relay or from the one that was asked")
    wrong = (5, ["bob", 5, None], {"bob": 1})
    for number, peers in enumerate(wrong, start=1):
        s.do("ask", "helper", "x")
        s.hear(relays("error", f"turn-{number}", code="ambiguous_target", error=[1], peers=peers))
    s.do("ask", "helper", "x")
    for liar in IMPOSTORS:
        s.hear({**liar, "type": "error", "turnId": "turn-4", "data": {"code": "unknown_target"}})
    s.hear(relays("error", "turn-4", code={"a": 1}, error="\U0001f916" * 1001))
    s.do("ask", "helper", "x")
    s.hear(answer("error", "turn-5", error={"a": ["z" * 2000]}))
    s.do("ask", "helper", "x")
    s.hear({"type": "error", "from": "relay", "turnId": "turn-6", "data": ["no"]})
    yield s

    s = joined("a timeout of 0, and one below it")
    s.do("ask", "helper", "x", timeout_s=0.0)
    s.do("ask", "helper", "x", timeout_s=-1.0)
    s.do("expire")
    yield s

    s = joined("the peer that was asked leaves")
    s.do("ask", "helper", "x")
    s.do("ask", "other", "x", peer="bob")
    s.do("ask", "other", "x", peer="carol")
    s.hear(presence("bob", status="offline"))
    s.hear(presence("carol"), presence("carol", status="offline"))
    yield s

    s = joined("or was gone when the roster came again")
    s.do("ask", "helper", "x")
    s.do("closed", 1)
    s.wait(1.0)
    s.join(connection=2, first_turn=3)
    yield s

    s = joined("a peer that answered before it was seen can leave")
    s.do("ask", "ghost", "x")
    s.hear(answer("ack", "turn-1", "carol"))
    s.hear(presence("carol"))
    s.hear(presence("carol", status="offline"))
    yield s

    s = joined("only the peer that was asked may answer", presence("eve"))
    s.do("ask", "helper", "x")
    s.hear(answer("turn_end", "turn-1", "eve", result="forged"))
    s.hear(answer("error", "turn-1", "eve", error="forged"))
    s.hear({**answer("turn_end", "turn-1", "helper", result="true"), "instanceId": "bob"})
    yield s

    s = joined("or the first that does, where that is open")
    s.do("ask", "ghost", "x")
    s.hear(answer("direct", "turn-1", "eve"))
    s.hear(answer("ack", "turn-1", "carol"))
    s.hear(answer("turn_end", "turn-1", "eve", result="late"))
    s.hear(answer("turn_end", "turn-1", "carol", result="first"))
    yield s

    twins = (presence("carol", "twin"), presence("dave", "twin"))
    s = joined("which peer is meant", *twins, presence("twin-peer"), presence("eve", "twin-peer"))
    s.do("ask", "twin", "x")
    s.do("ask", "twin", "x", peer="carol")
    s.do("ask", "twin-peer", "x")
    s.do("ask", "bob", "x")
    s.do("ask", "helper", "x", peer="nobody")
    s.pump()
    yield s

    s = joined(
        "agents of the peer itself",
        *twins,
        presence("eve", "writer"),
        agents=["twin", "coder", "writer"],
    )
    for agent, peer in (
        *(("ann", None), ("ann", "ann"), ("coder", None), ("coder", "ann")),
        *(("twin", None), ("twin", "ann"), ("twin", "carol"), ("writer", None)),
    ):
        s.do("ask", agent, "x", peer=peer)
    s.pump()
    yield s

    s = joined("what is no command, or cannot be sent", told=SMALL)
    s.do("ask", "helper", None)
    s.do("ask", "helper", LONG)
    yield s

    s = joined("an abandoned command that was not sent never is")
    s.do("ask", "helper", "x")
    s.do("abandon", "turn-1")
    s.do("abandon", "turn-1")
    s.do("abandon", "turn-9")
    s.do("ask", "helper", "y")
    s.pump()
    s.do("abandon", "turn-2")
    s.hear(answer("turn_end", "turn-2", result=1))
    yield s

    few = {"queue_messages_max": 1, "turns_max": 2}
    s = joined("while the queue is full commands wait, so many of them", limits=few)
    s.do("send", {"type": "a"})
    for _ in range(3):
        s.do("ask", "helper", "x")
    s.do("next_frame", 1)
    s.do("abandon", "turn-2")
    s.do("ask", "helper", "y", timeout_s=5.0)
    s.wait(5.0)
    s.pump()
    yield s

    s = joined("without a connection they do not", limits=few)
    s.do("send", {"type": "a"})
    s.do("ask", "helper", "x")
    s.do("closed", 1)
    s.do("ask", "helper", "y")
    yield s

    s = joined("nor where nothing waits for a connection", waits=False)
    s.do("closed", 1)
    s.do("ask", "helper", "y")
    yield s

    s = joined("what ends the peer ends its turns")
    s.do("ask", "helper", "x")
    s.do("closed", 1)
    s.do("announce", ["other"], None)
    s.do("end", error=FINAL)
    s.do("send", {"type": "a"})
    yield s

    s = joined("the end of the peer is the end of its turns")
    s.do("ask", "helper", "x")
    s.do("ask", "ghost", "x")
    s.do("end")
    s.do("ask", "helper", "x")
    yield s


# Commands served ----------------------------------------------------------------------------------


def services() -> Iterator[Story]:
    s = joined("a command is served")
    s.do("serve", None)
    s.hear(command("coder"))
    s.do("stream", 1, "some")
    s.do("stream", 1, "more")
    s.do("finish", 1, {"lines": 2})
    s.do("stream", 1, "late")
    s.do("finish", 1, 2)
    s.do("fail", 1, "late")
    s.hear(command("ann", "c-2"))
    s.do("fail", 2, "y" * 2000)
    s.pump()
    yield s

    s = joined("what is no command, or the peer's own, is not served")
    s.do("serve", None)
    s.hear(command("coder", text=None), command("coder", sender="ann"))
    s.hear({"type": "direct", "from": "bob", "to": "coder", "data": {"command": "x"}})
    s.hear(command("coder", type="broadcast-command"), command("coder", data="x"))
    s.hear(
        {"type": "direct", "from": "x", "instanceId": "ann", "turnId": "c", "data": {"command": 1}}
    )
    s.hear(command("coder", text=0), command("coder", turn="", text=False))
    yield s

    s = joined("who serves what", agents=["a", "b"])
    s.do("serve", ["a"])
    s.do("serve", ["ann"])
    s.do("serve", None)
    s.hear(command("a", "c-1"), command("b", "c-2"), command("ann", "c-3"), command(None, "c-4"))
    s.hear(command(None, "c-5", type="broadcast"))
    s.do("stop_serving", 1, cancels=False)
    s.hear(command("a", "c-6"))
    s.hear(command("typo", "c-7"))
    s.pump()
    yield s

    s = joined("a broadcast is for every agent served", agents=["a", "b"])
    s.do("serve", ["c", "a", "a"])
    s.hear(command(None, "c-1", type="broadcast"))
    s.do("serve", ["b"])
    s.hear(command(None, "c-2", type="broadcast"))
    yield s

    s = joined("or for the peer itself, if it has no agents", agents=[])
    s.do("serve", None)
    s.hear(command(None, "c-1", type="broadcast"))
    s.hear(command("bob", "c-2", type="broadcast"))
    yield s

    s = joined("a command waits its time for a service", agents=["a", "b"])
    s.hear(command("a", "late"))
    s.wait(15.0)
    s.hear(command("a", "in time"), command("b", "other"))
    s.wait(10.0)
    s.do("serve", ["a"])
    s.do("serve", None)
    yield s

    s = joined("and no longer")
    s.hear(command("coder"))
    s.wait(20.0)
    s.do("serve", None)
    yield s

    s = joined("a command answered by hand is not served too", agents=["a", "b"])
    s.hear(command("a", "c-1"), command("a", "c-2"))
    s.hear(command(None, "c-3", type="broadcast"))
    s.do("send", {"type": "turn_end", "to": "bob", "turnId": "c-1", "data": {"result": 1}})
    s.do("serve", ["a"])
    s.do("send", {"type": "ack", "to": "bob", "turnId": "c-3"})
    s.do("serve", ["b"])
    yield s

    s = joined("so many wait, and the oldest go", limits={"turns_max": 2})
    for number in range(4):
        s.hear(command("coder", f"c-{number}"))
    s.do("serve", None)
    yield s

    s = joined("or so much", limits={"unread_bytes_max": 2500})
    for number in range(3):
        s.hear(command("coder", f"c-{number}", text="z" * 500))
    s.do("serve", None)
    yield s

    s = joined("but one always does", limits={"unread_bytes_max": 1024})
    s.hear(command("coder", text="z" * 2000))
    s.do("serve", None)
    yield s

    s = joined("the size of what waits has a sharp bound", limits={"unread_bytes_max": 4096})
    for number in range(2):
        frame = command("coder", f"c-{number}")
        frame["data"]["padding"] = ""
        frame["data"]["padding"] = "z" * (2048 - cost_of(write_message(frame)))
        s.hear(frame)
    s.do("serve", None)
    yield s

    s = joined(
        "commands that cost too much at a time are refused", limits={"unread_bytes_max": 4096}
    )
    s.do("serve", None)
    for number in range(3):
        frame = command("coder", f"c-{number}")
        frame["data"]["padding"] = "z" * (2040 - cost_of(write_message(frame)))
        s.hear(frame)
    s.do("finish", 1, None)
    s.do("fail", 2, "no")
    s.hear(command("coder", "c-3", text="z" * 3000))
    yield s

    s = joined("beyond so many at a time it is busy", limits={"turns_max": 1})
    s.do("serve", None)
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.do("finish", 1, None)
    s.hear(command("coder", "c-3"))
    s.pump()
    yield s

    s = joined("agents of other connections of the peer are left to them")
    s.do("serve", None)
    s.hear(presence("ann", "coder", "typist"))
    s.hear(command("typist"), command("nobody", "c-2"))
    s.pump()
    yield s

    s = joined("a service that is cancelled tells who waits for it")
    s.do("serve", None)
    s.do("serve", ["x"])
    s.hear(command("coder"), command("x", "c-2"))
    s.do("stop_serving", 1, cancels=True)
    s.do("finish", 1, 1)
    s.do("finish", 2, 1)
    s.pump()
    yield s

    s = joined("whoever falls asleep gives up what it has, and tells who waits for it")
    s.do("serve", None, at_a_time=1)
    s.hear(
        command("coder"), told(command("coder", "c-2")), command("coder", "c-3", type="broadcast")
    )
    s.do("stream", 1, "some")
    s.do("forsake")
    s.do("forsake")
    s.do("finish", 1, "late")
    s.pump()
    s.do("suspend")
    s.do("returned", 1)
    s.do("nudge")
    yield s

    s = joined("an asker that is away then is not told, unless others hear it too")
    s.do("serve", None)
    s.hear(told(command("coder")), command("coder", "c-2"))
    s.hear(presence("bob", status="offline"))
    s.do("forsake")
    s.pump()
    s.hear(presence("bob", "helper"))
    s.pump()
    yield s

    s = joined("whoever leaves gives up what it has, and serves nothing more")
    s.do("serve", None)
    s.do("serve", ["x"])
    s.hear(command("coder"), command("x", "c-2"))
    s.do("leave")
    s.hear(command("coder", "c-3"), command("x", "c-4"))
    s.do("fail", 1, "late")
    s.do("stop_serving", 1, cancels=True)
    s.pump()
    s.do("end")
    yield s

    s = joined("without a connection nobody waits for one to say so")
    s.do("serve", None)
    s.hear(command("coder"), told(command("coder", "c-2")))
    s.do("closed", 1)
    s.do("leave")
    s.do("end")
    yield s

    s = joined(
        "short replies are sent though the queue is full",
        limits={"queue_messages_max": 1, "turns_max": 3},
    )
    s.do("send", {"type": "a"})
    s.do("serve", None)
    s.hear(command("coder", "c-1"), command("coder", "c-2"), command("coder", "c-3"))
    s.do("stream", 1, "no room")
    s.do("finish", 1, "no room")
    s.do("fail", 1, "no room even for that")
    s.pump()
    s.do("finish", 2, "room")
    yield s

    s = joined("what cannot be sent is no result", told={"messageBytes": 1024})
    s.do("serve", None)
    s.hear(command("coder"))
    s.do("finish", 1, "r" * 1024)
    s.do("fail", 1, "the result is too long")
    yield s

    s = joined("without a connection nobody is told, if nothing waits for one", waits=False)
    s.do("serve", None)
    s.hear(command("coder"))
    s.do("closed", 1)
    s.do("stream", 1, "x")
    s.do("fail", 1, "x")
    yield s

    s = joined("after the end there is nothing to serve")
    s.do("serve", None)
    s.hear(command("coder"))
    s.do("end")
    s.do("stream", 1, "x")
    s.do("fail", 1, "x")
    s.do("serve", None)
    s.do("stop_serving", 1, cancels=True)
    yield s

    s = joined("who serves must be a list")
    s.do("serve", "coder")
    yield s


# How long it goes on trying -----------------------------------------------------------------------


def patience() -> Iterator[Story]:
    s = Story("a permanent error ends a peer that was never present at once")
    s.do("begin", within_s=30.0)
    s.do("failed", 1, PASSING)
    s.wait(1.0)
    s.do("failed", 2, FINAL)
    yield s

    s = Story("a peer present on a relay that tells no roster has its time, too")
    s.do("begin", within_s=30.0)
    s.join(presence("bob"), knows_capabilities=False)
    s.wait(2.0)
    s.do("closed", 1)
    s.wait(1.0)
    s.do("failed", 2, FINAL)
    s.wait(29.0)
    s.do("failed", s.member.case["steps"][-1]["effects"][-1].get("connection", 3), FINAL)
    yield s

    s = joined("errors that end it must go on, and be nothing else")
    s.do("closed", 1)
    attempt = 2
    for error in (FINAL, FINAL, PASSING, FINAL, None, FINAL, FINAL):
        s.wait(19.0)
        attempt = max(2, _latest(s))
        if error is None:
            s.do("closed", attempt)
        else:
            s.do("failed", attempt, error)
    s.wait(11.0)
    s.do("failed", _latest(s), NotARelay("a page"))
    s.wait(20.0)
    s.do("failed", _latest(s), FINAL)
    yield s

    s = joined("a joining forgets them")
    s.do("closed", 1)
    s.wait(0.0)
    s.do("failed", 2, FINAL)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=3, first_turn=3)
    s.do("closed", 3)
    s.wait(29.5)
    s.do("failed", _latest(s), FINAL)
    yield s

    s = joined("what fails beside a connection in use ends nothing", limits={"renew_after_s": 60})
    for _ in range(6):
        s.wait(10.0)
        s.hear({"type": "tick", "from": "bob"})
    s.do("failed", 2, FINAL)
    s.wait(1.0)
    yield s

    s = Story("joining that takes too long ends with what was wrong")
    s.do("begin", within_s=10.0)
    s.do("failed", 1, PASSING)
    s.wait(10.0)
    yield s

    s = Story("or says that nothing answered")
    s.do("begin", within_s=2.5)
    s.wait(2.5)
    yield s

    s = Story("a peer that has joined at least is ready then")
    s.do("begin", within_s=2.0)
    s.join(knows_capabilities=False)
    s.wait(2.0)
    yield s

    s = Story("a relay that tells no roster is not waited for long")
    s.do("begin", within_s=60.0)
    s.join(presence("bob"), knows_capabilities=False)
    s.wait(5.0)
    yield s

    s = Story("a connection lost before that makes nobody ready")
    s.do("begin", within_s=60.0)
    s.join(presence("bob"), knows_capabilities=False)
    s.do("closed", 1)
    s.wait(6.0)
    s.join(connection=2, first_turn=3)
    yield s

    s = Story("joining may take for ever")
    s.do("begin")
    s.wait(200.0)
    yield s


def _latest(story: Story) -> int:
    """The connection that was opened last."""
    opened = [
        effect["connection"]
        for step in story.case["steps"]
        for effect in step["effects"]
        if effect["effect"] == "Open"
    ]
    return int(opened[-1])


# One connection and the next ----------------------------------------------------------------------

TIGHT = {"read_bytes_max": 2000, "nesting_max": 8}
IMPOSTORS: tuple[dict[str, Any], ...] = (
    {"from": "eve"},
    {"from": "relay", "instanceId": "eve"},
    {"from": "eve", "instanceId": "relay"},
    {"from": "ann"},
    {"from": ["relay"]},
    {},
)
"""Who says what only the relay may say."""
QUICK = {"renew_after_s": 60}


def renewing(name: str, **setup: Any) -> Story:
    """Ann's connection 1 has got too old, and connection 2 is being made."""
    s = joined(name, **{"limits": QUICK, **setup})
    for _ in range(6):
        s.wait(10.0)
        s.hear({"type": "tick", "from": "bob"})
    assert s.member.state.value == "renewing"
    return s


def _last_turn(s: Story, connection: int) -> str:
    """The turn id of what was said last on the connection."""
    said = [
        effect["message"]["turnId"]
        for step in s.case["steps"]
        for effect in step["effects"]
        if effect["effect"] == "Transmit" and effect["connection"] == connection
        if "turnId" in effect["message"]
    ]
    return str(said[-1])


def announced(name: str, **setup: Any) -> tuple[Story, str, str]:
    """Connection 2 has announced itself. The turn ids of its presence, and of the question."""
    s = renewing(name, **setup)
    s.open(2)
    s.do("send", {"type": "held"})
    s.pump(1)
    s.hear(relays("capabilities_response", _last_turn(s, 1), limits={}))
    sync = _last_turn(s, 2)
    token, _, number = sync.partition(":")
    return s, f"{token}:{int(number) - 1}", sync


def connections() -> Iterator[Story]:
    s = joined("how a connection was closed says how soon the next is made")
    s.member.roll = 0.9375
    for number, code in enumerate((1006, 1001, 1013, 1008, 1008, 4003, 1011, 1006), start=1):
        s.do("closed", number, code, *(["because"] if number % 2 else []))
        s.wait(60.0)
    yield s

    s = joined("a connection that lasts is a new beginning", limits={"heartbeat_every_s": 20})
    s.member.roll = 0.9375
    turn = 1
    for number, (lasted, code) in enumerate(
        ((1.0, 1006), (2.0, 1006), (4.0, 1006), (1.0, 1013), (10.0, 1013), (29.0, 1013)), start=1
    ):
        s.wait(lasted)
        s.do("closed", number, code)
        s.wait(10.0)
        turn += 2
        s.join(connection=number + 1, first_turn=turn)
    yield s

    s = joined("asleep it has no connection, and when it is nudged it makes one at once")
    s.do("suspend")
    s.do("suspend")
    s.do("send", {"type": "waits"})
    s.do("ask", "helper", "x")
    s.do("announce", ["coder", "tester"], None)
    s.do("closed", 1, 1000)
    s.do("received", 1, "{}")
    s.sleep(3600.0)
    s.do("nudge")
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.pump()
    yield s

    s = renewing("it falls asleep while one connection replaces another")
    s.open(2)
    s.do("suspend")
    s.do("opened", 2)
    s.do("nudge")
    yield s

    s, mark, _ = announced("it falls asleep while the old connection still delivers")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.do("suspend")
    s.hear(presence("ann", "coder", turn=mark), connection=1)
    s.do("nudge")
    yield s

    s = Story("it falls asleep before it was ever present", limits={"join_within_s": 5})
    s.do("begin", within_s=8.0)
    s.do("suspend")
    s.do("failed", 1, PASSING)
    s.wait(4.0)
    s.do("nudge")
    s.wait(5.0)
    yield s

    s = joined("it leaves in its sleep")
    s.do("suspend")
    s.do("end")
    s.do("suspend")
    yield s

    s, mark, sync = announced("one connection replaces another, which delivers the mark last")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.pump(2)
    s.hear({"type": "n", "from": "bob", "data": 2}, connection=2)
    s.hear({"type": "n", "from": "bob", "data": 1}, connection=1)
    s.hear(presence("bob", "helper"), connection=2)
    s.hear(presence("ann", "coder", turn=mark), connection=1)
    s.hear(relays("capabilities_response", sync, limits={}), connection=2)
    yield s

    s, mark, sync = announced("or delivers it first")
    s.hear(presence("ann", "coder", turn=mark), {"type": "n", "from": "bob"}, connection=1)
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.hear(presence("bob", "helper"), {"type": "n", "from": "bob"}, connection=2)
    s.hear(relays("capabilities_response", sync, limits={}), connection=2)
    s.use = 2
    s.pump()
    yield s

    s = renewing("the old one is lost while it is fenced")
    s.open(2)
    s.do("closed", 1)
    yield s

    s = renewing("the old one is lost before the next is open")
    s.do("closed", 1)
    s.open(2)
    yield s

    s, mark, _ = announced("the old one is lost in the switch")
    s.hear(presence("ann", "coder", turn=mark), {"type": "n", "from": "bob"}, connection=2)
    s.do("closed", 1)
    yield s

    s, mark, _ = announced("the old one says nothing more in the switch")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.wait(10.0)
    yield s

    s, mark, _ = announced(
        "the old one is silent in the switch", limits={**QUICK, "switch_within_s": 100}
    )
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.wait(30.0)
    yield s

    s, mark, _ = announced(
        "what waits behind the mark is bounded", limits={**QUICK, "unread_messages_max": 2}
    )
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    for number in range(4):
        s.hear({"type": "n", "from": "bob", "data": number}, connection=2)
    yield s

    s, mark, _ = announced("and so is its size", limits={**QUICK, "unread_bytes_max": 2500})
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    for _ in range(3):
        s.hear({"type": "n", "from": "bob", "data": "x" * 500}, connection=2)
    yield s

    s, mark, _ = announced("the next one is lost in the switch")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.do("closed", 2)
    s.pump(1)
    yield s

    s = renewing("the next one cannot be made")
    s.do("closed", 2)
    s.wait(1.0)
    yield s

    s = renewing("the next one takes too long")
    for _ in range(2):
        s.wait(9.9)
        s.hear({"type": "tick", "from": "bob"})
    s.wait(0.2)
    yield s

    s = renewing("the next one is no relay")
    s.open(2)
    s.do("received", 2, "<html>")
    yield s

    s = renewing(
        "the old one is silent while the next is made", limits={**QUICK, "join_within_s": 50}
    )
    s.wait(30.0)
    yield s

    s, mark, _ = announced("what is refused on the next one costs that only")
    s.hear(relays("error", mark, code="too_many_agents", error="no"), connection=2)
    yield s

    s, mark, _ = announced("a change meanwhile is made afterwards")
    s.do("announce", ["other"], None)
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.hear(presence("ann", "coder", turn=mark), connection=1)
    yield s

    s, mark, _ = announced("a nudge disturbs nothing that is on its way")
    s.do("nudge")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.do("nudge")
    yield s

    s = renewing("leaving closes both")
    s.open(2)
    s.do("leave")
    s.do("send", {"type": "late"})
    s.do("end")
    for name in ("nudge", "end", "expire"):
        s.do(name)
    s.do("closed", 1)
    yield s

    s, mark, _ = announced("leaving in the switch closes both, too")
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.do("end")
    yield s

    s = joined("a heartbeat, and behind it a question if the relay was silent")
    for _ in range(3):
        s.wait(10.0)
    s.wait(5.0)
    yield s

    s = joined("doubt asks once, and an answer ends it")
    s.do("nudge")
    s.do("nudge")
    s.wait(4.0)
    s.hear(relays("capabilities_response", "t:3", limits={}))
    s.wait(5.9)
    s.do("nudge")
    s.wait(5.0)
    yield s

    s = Story("what others say in the words of its presence is no answer to it")
    s.do("begin")
    s.open(1)
    s.hear({"type": "error", "from": "bob", "turnId": "t:1", "data": {"code": "x"}}, connection=1)
    s.hear(relays("ack", "t:1"), connection=1)
    s.hear(presence("ann", "coder"), connection=1)
    s.join()
    yield s

    s = joined("its own agents are told by its own presences only")
    s.do("serve", None)
    s.hear(presence("carol", "typist"))
    s.hear({"type": "broadcast", "from": "ann", "data": {"agents": ["typist"]}})
    s.hear(command("typist"))
    yield s

    s = joined("a clock that was set a little is no sleep")
    s.slept_ms = 30_000
    s.wait(10.0)
    yield s

    s = joined("a sleep that only the wall clock has seen raises doubt")
    s.slept_ms = 3_600_000
    s.wait(10.0)
    yield s

    s = joined("an hour asleep is reason for doubt first")
    s.sleep(3600.0)
    s.wait(5.0)
    yield s

    s = joined("a nudge ends the waiting")
    s.member.roll = 0.875
    s.do("closed", 1)
    s.do("nudge")
    s.do("nudge")
    yield s

    s = Story("attempts come ever later")
    s.member.roll = 0.75
    s.do("begin")
    for attempt in range(1, 9):
        s.do("closed", attempt)
        s.wait((s.member.deadline() or s.at) - s.at)
    yield s

    s = joined("a connection that lasted begins the counting anew")
    s.member.roll = 0.5
    for _ in range(4):
        s.wait(10.0)
        s.hear({"type": "tick", "from": "bob"})
    s.do("closed", 1)
    yield s

    for frame in ("", "hello", "[1]", "{}", '{"type":3}', "null", "NaN", "[" * 500):
        s = Story(f"what answers {frame[:9]!r} is no relay")
        s.do("begin")
        s.open(1)
        s.do("received", 1, frame)
        yield s

    s = joined("nonsense later costs the connection only")
    s.do("received", 1, "<html>")
    yield s

    s = joined("one frame may hold many messages, or none")
    s.do("received", 1, "[]")
    s.hear({"type": "a", "from": "bob", "data": 1}, {"type": "b", "from": "bob", "data": 2})
    s.do("received", 1, '{"type":"cut","from":"bob","data":{"chunk":"\\\\ud83d"}}')
    yield s

    s = joined("a frame that costs too much is not read, which is told once", limits=TIGHT)
    for _ in range(2):
        s.do("received", 1, '{"type":"a","from":"bob","data":[%s[]]}' % ("[]," * 20))
        s.do("received", 1, '{"type":"a","from":"bob","data":[[[[[[[[]]]]]]]]}')
        s.do("received", 1, ' [{"type":"a","from":"bob","data":[[[[[[[]]]]]]]}]')
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=3)
    s.do("received", 2, '{"type":"a","from":"bob","data":[[[[[[[[]]]]]]]]}')
    yield s

    s, mark, _ = announced("nor on the next connection", limits={**QUICK, **TIGHT})
    s.hear(presence("ann", "coder", turn=mark), connection=2)
    s.do("received", 2, '{"type":"a","from":"bob","data":[[[[[[[[]]]]]]]]}')
    yield s

    s = Story("bounds and the roster come from the relay alone")
    s.do("begin", within_s=30.0)
    s.join(presence("bob", "helper"), presence("eve", "relay"), knows_capabilities=False)
    mute = {"limits": {"messageBytes": 1}}
    for liar in IMPOSTORS:
        s.hear({**liar, "type": "capabilities_response", "turnId": "t:2", "data": mute})
        s.hear({**liar, "type": "capabilities_response", "turnId": "t:1", "data": mute})
        s.hear({**liar, "type": "error", "turnId": "t:2", "data": {"error": "no"}})
    s.hear(relays("capabilities_response", "t:1", **mute))
    s.hear(relays("capabilities_response", "t:2", limits={}))
    s.hear(relays("capabilities_response", "t:2", **mute))
    s.hear(relays("capabilities_response", "c-1", **mute))
    s.hear(relays("capabilities_response", None, **mute))
    s.do("send", {"type": "a"})
    s.pump()
    yield s

    s = Story("it has joined with its own presence, and nobody else's")
    s.do("begin", within_s=30.0)
    s.open(1)
    s.hear({"type": "presence", "from": "ann", "turnId": None}, connection=1)
    s.hear(presence("ann", "coder"), connection=1)
    s.hear(presence("ann", "coder", turn="t:2"), connection=1)
    s.hear(presence("eve", "coder", turn="t:1"), connection=1)
    for liar in IMPOSTORS:
        s.hear({**liar, "type": "error", "turnId": "t:1", "data": {"error": "no"}}, connection=1)
        s.hear({**liar, "type": "error", "data": {"error": "no"}}, connection=1)
    s.hear(presence("ann", "coder", turn="t:1"), connection=1)
    yield s

    s, mark, sync = announced("nor does anybody else make the mark")
    for sender in ("eve", "relay"):
        s.hear(presence(sender, turn=mark))
    s.hear({"type": "stream", "from": "ann", "turnId": mark})
    s.hear(presence("ann", "coder", turn=sync))
    s.hear(presence("ann", "coder", turn=mark))
    yield s

    s = renewing("nor lifts the fence")
    s.open(2)
    fence = _last_turn(s, 1)
    for liar in IMPOSTORS:
        s.hear({**liar, "type": "capabilities_response", "turnId": fence, "data": {}})
    s.hear(relays("capabilities_response", fence, limits={}))
    yield s

    s = joined("so many questions are open at a time")
    for _ in range(20):
        s.do("nudge")
        s.hear({"type": "tick", "from": "bob"})
    s.hear(relays("capabilities_response", "t:6", limits={"messageBytes": 1024}))
    s.do("send", {"type": "a", "data": LONG})
    s.hear(relays("capabilities_response", "t:7", limits={"messageBytes": 1024}))
    s.do("send", {"type": "a", "data": LONG})
    yield s

    s = joined("answers to its own questions, and what only looks like them")
    s.hear(relays("capabilities_response", "t:77", limits={}))
    s.hear(relays("error", "t:78", code="rate_limited", error="too many"))
    s.hear(relays("error", code="rate_limited", error="too many"))
    s.hear({"type": "direct", "from": "bob", "turnId": "t:2", "data": 1})
    s.hear({"type": "ack", "from": 7, "turnId": 8, "data": 1})
    yield s

    s = joined("what connections report that are not there any more means nothing")
    for name, *rest in (("opened",), ("received", "{}"), ("closed",), ("failed", PASSING)):
        s.do(name, 9, *rest)
        s.do(name, 0, *rest)
    yield s


# Whose the id is, and for how long a connection may be used ---------------------------------------


def ownership() -> Iterator[Story]:
    s = joined("the id is claimed before the presence, on every connection", owner=OWNER)
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=5)
    yield s

    s = Story("a takeover is asked for until the peer has joined", owner=OWNER, takeover=True)
    s.do("begin")
    s.open(1)
    s.do("closed", 1)
    s.wait(1.0)
    s.join(connection=2, first_turn=5)
    s.do("closed", 2)
    s.wait(1.0)
    s.open(3)
    yield s

    s = joined("a replacement claims the id as well", owner=OWNER, limits={"renew_after_s": 25.0})
    for turn in ("t:4", "t:5"):
        s.wait(10.0)
        s.hear({"type": "tick", "from": "bob"}, relays("capabilities_response", turn))
    s.wait(5.0)
    s.open(2)
    s.hear(relays("capabilities_response", "t:4"))
    s.hear(relays("capabilities_response", "t:5"), connection=2)
    own = presence("ann", "coder", turn="t:6", keepalive="pong", accept=["batch"])
    s.hear(own, connection=2)
    s.hear(own)
    yield s

    s = Story("the relay's answer to the claim tells nothing", owner=OWNER)
    s.do("begin")
    s.open(1)
    s.hear(relays("capabilities_response", "t:1", claim=True), connection=1)
    s.hear(relays("error", "t:1", code="bad_field", error="no claim"), connection=1)
    s.hear(presence("ann", "coder", turn="t:2"), connection=1)
    yield s

    s = Story("an id that others have is tried again until it is free", owner=OWNER)
    s.member.roll = 0.5
    s.do("begin", within_s=40.0)
    for connection in (1, 2, 3):
        s.open(connection)
        s.hear(_taken(3 * connection - 1), connection=connection)
        s.wait(4.0)
    s.join(connection=4, first_turn=11)
    yield s

    s = Story("and the last time when it must be free, whatever the dice say", owner=OWNER)
    s.member.roll = 0.999
    s.do("begin")
    for connection, wait_s in enumerate((0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 3.5, 60.0), start=1):
        s.open(connection)
        s.hear(_taken(3 * connection - 1), connection=connection)
        s.wait(wait_s)
    yield s

    s = Story("joining has its own time, and then that is what is told", owner=OWNER)
    s.member.roll = 0.999
    s.do("begin", within_s=1.0)
    s.open(1)
    s.hear(_taken(2), connection=1)
    s.wait(1.0)
    yield s

    s = joined("a peer that comes back to an id that others have", limits={"taken_for_s": 2.0})
    s.do("closed", 1)
    s.wait(0.0)
    s.open(2)
    s.hear(_taken(3), connection=2)
    s.wait(1.0)
    s.do("failed", 3, PASSING)
    s.wait(0.0)
    for connection, number in ((4, 5), (5, 7), (6, 9)):
        s.open(connection)
        s.hear(_taken(number), connection=connection)
        s.wait(1.0)
    yield s

    s = joined("has its time for that, whatever failed before", limits={"taken_for_s": 2.0})
    s.do("closed", 1)
    s.wait(0.0)
    s.do("failed", 2, FINAL)
    s.wait(15.0)
    s.do("failed", 3, FINAL)
    s.wait(0.0)
    s.open(4)
    s.hear(_taken(3), connection=4)
    s.wait(0.0)
    for connection in (5, 6, 7):
        s.do("failed", connection, FINAL)
        s.wait(15.0)
    yield s

    s = joined("what was announced meanwhile is not to blame", owner=OWNER)
    s.do("closed", 1)
    s.do("announce", ["new"], None)
    s.wait(0.0)
    s.open(2)
    s.hear(_taken(5), connection=2)
    s.wait(0.0)
    s.join(connection=3, first_turn=8)
    yield s

    s = joined("a peer that is replaced is over, and says so", owner=OWNER)
    s.do("ask", "helper", "x")
    for liar in IMPOSTORS:
        s.hear({**liar, "type": "error", "data": {"code": "replaced"}})
    s.hear(relays("error", code="replaced", error="it was"), {"type": "late", "from": "bob"})
    s.do("closed", 1)
    s.wait(60.0)
    yield s

    s = joined("also while it changes connections", owner=OWNER, limits={"renew_after_s": 25.0})
    for turn in ("t:4", "t:5"):
        s.wait(10.0)
        s.hear({"type": "tick", "from": "bob"}, relays("capabilities_response", turn))
    s.wait(5.0)
    s.open(2)
    s.hear(relays("capabilities_response", "t:4"))
    s.hear(own, connection=2)
    s.hear(relays("error", code="replaced", error="it was"), connection=2)
    s.hear({"type": "late", "from": "bob"}, connection=2)
    s.hear(own)
    yield s

    quiet = {"silent_after_s": 4000.0, "heartbeat_every_s": 3500.0}
    for name, expires_in_s, wait_s in (
        ("a connection is replaced before its grant ends", 100, 80.0),
        ("but a new one is not replaced at once", 1, 5.0),
        ("nor later than any other", 10**6, 3300.0),
    ):
        s = Story(name, limits=quiet)
        s.do("begin")
        s.open(1)
        s.hear(presence("ann", "coder", turn="t:1"), connection=1)
        grant = {"peer": "ann", "expiresInSeconds": expires_in_s}
        s.hear(relays("capabilities_response", "t:2", grant=grant), connection=1)
        s.wait(wait_s - 0.5)
        s.wait(0.5)
        yield s

    s = joined("what the relay says later does not put it off", limits=quiet)
    for turn, expires_in_s in (("t:3", 100), ("t:4", 90), ("t:5", 50), ("t:6", 10**6)):
        s.do("nudge")
        told = relays("capabilities_response", turn, grant={"expiresInSeconds": expires_in_s})
        s.hear({**told, "turnId": "t:99"})
        s.hear(told)
        s.wait(1.0)
    s.wait(60.0)
    yield s

    s = joined("nonsense about a grant changes nothing", limits=quiet)
    grants: tuple[Any, ...] = (*(True, "a", None, [], 7, {}),)
    values: tuple[Any, ...] = (*(True, "1", None, [], -1, 0, 10**400),)
    grants += tuple({"expiresInSeconds": value} for value in values)
    for number, grant in enumerate(grants, start=3):
        s.do("nudge")
        s.hear(relays("capabilities_response", f"t:{number}", grant=grant))
    yield s


def _taken(turn: int) -> dict[str, Any]:
    return relays("error", f"t:{turn}", code="id_taken", error="it is taken")


ROOMS: dict[str, Room] = {
    "roster": roster,
    "returns": returns,
    "announcements": announcements,
    "outgoing": outgoing,
    "asks": asks,
    "services": services,
    "turns": turns,
    "patience": patience,
    "connections": connections,
    "ownership": ownership,
}


def cases(room: str) -> Iterator[Case]:
    """The cases of a room."""
    for story in ROOMS[room]():
        yield story.case
