"""Hand-written vectors of commands that are shared out: over time in one service, and over several
connections of one peer."""

from collections.abc import Iterator

from tests.vectors.recording import Case
from tests.vectors.stories import Story, command, joined, presence


def _places() -> Iterator[Story]:
    s = joined("one command at a time, in their order")
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("ann", "c-2"), command("coder", "c-3"))
    s.do("finish", 1, "first")
    s.do("returned", 1)
    s.do("fail", 2, "no")
    s.do("returned", 2)
    s.do("returned", 2)
    s.do("finish", 3, "third")
    s.do("returned", 3)
    s.hear(command("coder", "c-4"))
    s.pump()
    yield s

    s = joined("or two at a time, while another service has no bound", agents=["a", "b"])
    s.do("serve", ["a"], at_a_time=2)
    s.do("serve", ["b"])
    s.hear(*[command("a", f"a-{n}") for n in range(4)])
    s.hear(*[command("b", f"b-{n}") for n in range(3)])
    s.do("finish", 2, None)
    s.do("returned", 2)
    yield s

    s = joined("the next one begins when the handler has ended, not when its command is over")
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.hear({"type": "cancel", "from": "bob", "to": "ann", "turnId": "c-1"})
    s.wait(1.0)
    s.do("returned", 1)
    yield s

    s = joined("what is cancelled while it waits never begins")
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("coder", "c-2"), command("coder", "c-3"))
    s.hear({"type": "cancel", "from": "bob", "to": "ann", "turnId": "c-2"})
    s.do("returned", 1)
    s.pump()
    yield s

    s = joined("so many may wait", limits={"service_queue_max": 2})
    s.do("serve", None, at_a_time=1)
    s.hear(*[command("coder", f"c-{n}") for n in range(5)])
    s.do("returned", 1)
    s.hear(command("coder", "c-5"), command("coder", "c-6"))
    s.pump()
    yield s

    s = joined("who waits hears signs of life")
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("coder", "c-2", answers="direct"))
    for chunk in ("some", "more"):
        s.wait(12.0)
        s.hear(presence("bob", "helper"))
        s.pump()
        s.do("stream", 1, chunk)
    s.pump()
    yield s

    s = joined("what waits in a service that has stopped is told")
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.do("stop_serving", 1, cancels=False)
    s.do("finish", 1, "done")
    s.do("returned", 1)
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-3"), command("coder", "c-4"))
    s.do("stop_serving", 2, cancels=True)
    s.do("returned", 3)
    s.pump()
    yield s

    s = joined("a bound that cannot be meant is refused")
    for at_a_time in (0, -1, 1.5):
        s.do("serve", None, at_a_time=at_a_time)
    s.do("serve", None, at_a_time=1)
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.do("end")
    s.do("returned", 1)
    yield s


def _elected() -> Iterator[Story]:
    s = joined("before it is elected, a connection stands by", elects=True)
    s.do("serve", None)
    s.hear(command("coder", "c-1"), command("ann", "c-2"))
    s.do("elect", ["coder"])
    s.hear(command("coder", "c-3"), command("ann", "c-4"))
    s.do("finish", 1, "done")
    s.do("elect", ["coder", "ann"])
    s.pump()
    yield s

    s = joined("what another one has taken is not done twice", elects=True)
    s.do("serve", None)
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    s.do("taken", "c-1", "coder")
    s.do("taken", "c-3", "coder")
    s.do("taken", "c-2", "ann")
    s.hear(command("coder", "c-3"))
    s.do("elect", ["coder", "ann"])
    s.hear(command("coder", "c-3"))
    yield s

    s = joined("who stands by says nothing, however long it waits", elects=True)
    s.do("serve", None)
    s.hear(command("coder", "c-1"), command("typo", "c-2"))
    for _ in range(3):
        s.wait(9.0)
        s.hear(presence("bob", "helper"))
    s.do("elect", ["coder", "ann"])
    s.pump()
    yield s

    s = joined("and nothing if too much waits", elects=True, limits={"turns_max": 2})
    s.do("serve", ["coder"])
    s.hear(*[command("coder", f"c-{n}") for n in range(5)])
    s.do("elect", ["coder"])
    s.pump()
    yield s

    s = joined("each agent is elected for by itself", elects=True, agents=["a", "b"])
    s.do("serve", ["a", "b"])
    s.do("elect", ["b"])
    s.hear(command(None, "c-1", type="broadcast"))
    s.do("taken", "c-1", "a")
    s.do("elect", ["a", "b"])
    s.hear(command(None, "c-2", type="broadcast"))
    yield s

    s = joined("whoever is elected no more goes on with what it has", elects=True)
    s.do("serve", None)
    s.do("elect", ["coder"])
    s.hear(command("coder", "c-1"))
    s.do("elect", [])
    s.hear(command("coder", "c-2"))
    s.do("finish", 1, "done")
    s.pump()
    yield s

    s = joined("without elections after all, everything is served", elects=True)
    s.do("serve", None)
    s.hear(command("coder", "c-1"))
    s.do("elect", None)
    s.hear(command("ann", "c-2"))
    yield s

    s = joined("what was refused is taken, too", elects=True, limits={"turns_max": 1})
    s.do("serve", None)
    s.do("elect", ["coder"])
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    yield s

    s = joined("so much of what others took is remembered", elects=True)
    s.do("serve", None)
    s.do("taken", "c-1", "coder")
    s.do("elect", ["coder"])
    s.hear(command("coder", "c-1"))
    yield s

    s = joined(
        "the oldest of it is forgotten first", elects=True, limits={"unread_messages_max": 1}
    )
    s.do("serve", None)
    s.do("taken", "c-1", "coder")
    s.do("taken", "c-2", "coder")
    s.do("elect", ["coder"])
    s.hear(command("coder", "c-1"), command("coder", "c-2"))
    yield s


def _twice() -> Iterator[Story]:
    s = joined("somebody else has the id, which is told once")
    s.hear(presence("ann", "coder", "typist", turn="u:1"))
    s.hear(presence("ann", "coder", turn="u:2"))
    yield s

    s = joined("nobody else has it when the peer's own connections come and go")
    s.hear(presence("ann", "coder", turn="t:1"))
    s.do("announce", ["coder", "typist"], None)
    s.hear(presence("ann", "coder", "typist", turn="t:3"))
    s.do("closed", 1)
    s.wait(1.0)
    s.join(presence("bob", "helper"), connection=2, first_turn=4)
    s.hear(presence("ann", "coder", "typist", turn="t:3"))
    s.hear(presence("ann", status="offline", reason="silent"))
    yield s

    s = joined("a peer that is meant to share its id is told nothing", shares=True)
    s.hear(presence("ann", "coder", turn="u:1"))
    yield s

    for name, serves, is_seen in (
        ("who shares its id and serves nothing leaves it to the others", False, False),
        ("who shares its id and serves something says what it does not", True, False),
        ("but not if the others are there", True, True),
    ):
        s = joined(name, shares=True)
        if serves:
            s.do("serve", ["ann"])
        if is_seen:
            s.hear(presence("ann", "coder", turn="u:1"))
        s.hear(command("coder", "c-1"))
        for _ in range(3):
            s.wait(9.0)
            s.hear(presence("bob", "helper"))
        s.pump()
        yield s


def places() -> Iterator[Case]:
    for story in _places():
        yield story.case


def elected() -> Iterator[Case]:
    for stories in (_elected, _twice):
        for story in stories():
            yield story.case
