"""Vectors of one connection that goes on over other sockets (protocol/member/resuming.py): what is
done with it, what that returns, and what it shows afterwards."""

import json
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import attrs

from protocol.limits import MembershipLimits
from protocol.member.incoming import last_message
from protocol.member.resuming import Resuming
from tests.vectors.recording import Case

SHOWN = (
    *("stage", "received", "taken", "sent", "reason", "in_doubt", "has_room"),
    *("is_away", "can_return", "is_behind", "report_due", "deadline", "waiting"),
)
"""What a step tells of the connection."""
OFFER = {"token": "t-1", "epoch": "e-1", "seconds": 20}


def shown(resuming: Resuming) -> dict[str, Any]:
    """What a connection shows."""
    told = {name: getattr(resuming, name) for name in SHOWN}
    told |= {"stage": resuming.stage.value, "deadline": resuming.deadline()}
    return {**told, "in_doubt": list(told["in_doubt"])}


def call(resuming: Resuming, name: str, arguments: dict[str, Any]) -> Any:
    """Do something with a connection. Returns what that returns, as a file tells it."""
    returned = getattr(resuming, name)(**arguments)
    if not attrs.has(type(returned)):
        return returned
    return {**attrs.asdict(returned), "said": list(returned.said)}


class Script:
    """One connection that writes down what is done with it."""

    def __init__(self, name: str, **limits: Any) -> None:
        self.case: Case = {"name": name, "class": "Resuming", "limits": limits, "steps": []}
        self._resuming = Resuming(MembershipLimits(**limits))
        self._before: dict[str, Any] = {}

    def do(self, name: str, **arguments: Any) -> Any:
        """A step."""
        returned = call(self._resuming, name, arguments)
        after = shown(self._resuming)
        changed = {k: v for k, v in after.items() if k not in self._before or self._before[k] != v}
        self._before = after
        step = {"do": name, "arguments": arguments, "returns": returned, "after": changed}
        self.case["steps"].append(step)
        return returned

    def open(self, **offer: Any) -> "Script":
        self.do("ask")
        self.do("offered", resume={**OFFER, **offer})
        return self

    def send(self, *texts: str, said: bool = True) -> None:
        for text in texts:
            self.do("frame", text=text, said=[text] if said else [])

    def hear(self, *texts: str) -> None:
        """In one frame."""
        frame = texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
        for _ in texts:
            self.do("message", frame=frame)

    def again(self) -> None:
        """All of it."""
        while self._resuming.is_behind:
            self.do("peek")
            self.do("again")


def _a(number: int) -> str:
    return json.dumps({"type": "a", "n": number}, separators=(",", ":"))


FRAMES = (
    '{"type":"a"}',
    ' {"type":"a"} ',
    '[{"type":"a"}]',
    '[{"type":"a"},{"type":"b"}]',
    ' [ {"type":"a"} , \t{"type":"b", "data":[1, {"c":"],}"}]}\r\n ] ',
    '[{"type":"a"},{"type":"caf\u00e9 \U0001f916"}]',
    '[{"type":"a"},{"type":"b","data":"\\ud83d"}]',
    '[{"type":"a"},{"type":"b","data":"\\\\\\"]["}]',
    f'[{{"type":"a"}}, {{"type":"b","data":{"[" * 300}{"]" * 300}}}]',
)


def _scripts() -> Iterator[Script]:
    s = Script("a cut in the middle: what was not taken is sent again, once, before all").open()
    s.send(_a(0), said=False)
    s.send(_a(1), _a(2), _a(3))
    s.hear(_a(10))
    s.hear(_a(11), _a(12))
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 2, **OFFER, "token": "t-2"})
    s.again()
    s.send(_a(4))
    s.hear(_a(13))
    s.do("lost", at=110.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 5, **OFFER, "token": "t-3"})
    yield s

    s = Script("a cut while frames are sent again").open()
    s.send(_a(1), _a(2), _a(3))
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    s.do("again")
    s.send("urgent", said=False)
    s.do("lost", at=101.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 1, **OFFER})
    s.again()
    yield s

    s = Script("before any message there is nothing to compare").open()
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    s.hear(_a(1))
    s.do("lost", at=101.0)
    s.do("come_back")
    yield s

    s = Script("coming back again without anything new compares the same message").open()
    s.hear(_a(1))
    for at in (100.0, 101.0, 102.0):
        s.do("lost", at=at)
        s.do("come_back")
        s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    yield s

    s = Script("the first messages may come in one frame with the answer")
    s.do("ask")
    frame = f'[{{"type":"capabilities_response"}},{_a(1)},{_a(2)}]'
    s.do("message", frame=frame)
    s.do("offered", resume=OFFER)
    s.do("message", frame=frame)
    s.do("message", frame=frame)
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("message", frame="[the answer,more]")
    s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    s.do("message", frame=f"[the answer,{_a(3)}]")
    s.do("lost", at=100.0)
    s.do("come_back")
    yield s

    s = Script("the socket is lost before the relay has answered the question").open()
    s.send(_a(1))
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("lost", at=105.0)
    s.do("expire", at=119.0)
    s.do("come_back")
    s.do("expire", at=121.0)  # it is being asked
    s.do("lost", at=122.0)
    s.do("expire", at=122.0)
    yield s

    for reason in ("epoch", "unknown", "history", "count", "grant", "late", "x" * 300, 7):
        s = Script(f"refused: {reason!r:.20}").open()
        s.send(_a(1), said=False)
        s.send(_a(2), _a(3))
        s.do("lost", at=100.0)
        s.do("come_back")
        s.do("came_back", resume={"resumed": False, "reason": reason, "seconds": 20})
        s.do("lost", at=101.0)
        s.send(_a(4))
        yield s

    for told in (None, "2", 0, 1, 2, 3, 4):
        s = Script(f"refused, and the relay has taken {told!r} of 3, after 1").open()
        s.send(_a(1), _a(2), _a(3))
        s.do("report", turn_id="r-1", at=50.0)
        s.do("reported", turn_id="r-1", taken=1)
        s.do("lost", at=100.0)
        s.do("come_back")
        no = {"resumed": False, "reason": "history", "taken": told, "seconds": 20}
        s.do("came_back", resume=no)
        yield s

    for answer in (None, 7, {}, {"seconds": 20}, {"resumed": 1, "taken": 0}):
        s = Script(f"a relay without the rule: {answer!r}").open()
        s.send(_a(1))
        s.do("lost", at=100.0)
        s.do("come_back")
        s.do("came_back", resume=answer)
        yield s

    for taken in (None, True, "1", -1, 0, 1, 1.0, 1.5, 3, 4, 2**60):
        s = Script(f"a relay that says it has taken {taken!r} of 3, after 1").open()
        s.send(_a(1), _a(2), _a(3))
        s.do("report", turn_id="r-1", at=50.0)
        s.do("reported", turn_id="r-1", taken=1)
        s.do("lost", at=100.0)
        s.do("come_back")
        s.do("came_back", resume={"resumed": True, "taken": taken, **OFFER})
        yield s

    s = Script("a report after so many frames, and what it tells", unreported_frames_max=3).open()
    s.send(*map(_a, range(3)))
    s.do("report", turn_id="r-1", at=50.0)
    s.send("the report", said=False)
    s.send(*map(_a, range(3, 6)))
    s.send(_a(6))
    s.do("report", turn_id="r-2", at=51.0)
    s.do("is_report", turn_id="r-1")
    s.do("is_report", turn_id="r-3")
    s.do("reported", turn_id="r-1", taken=4)
    s.do("is_report", turn_id="r-1")
    s.do("reported", turn_id="r-2", taken=3)  # fewer than before mean nothing
    s.do("report", turn_id="r-3", at=52.0)
    s.do("reported", turn_id="r-3", taken=7)
    s.do("report", turn_id="r-4", at=53.0)
    s.do("reported", turn_id="r-4", taken=8)  # more than were sent
    s.do("lost", at=100.0)
    yield s

    s = Script("a later answer makes the earlier ones superfluous").open()
    for number in range(20):
        s.do("report", turn_id=f"r-{number}", at=50.0 + number)
    s.do("is_report", turn_id="r-3")
    s.do("reported", turn_id="r-10", taken=0)
    s.do("is_report", turn_id="r-9")
    s.do("is_ignored", at=91.0)
    s.do("is_ignored", at=91.5)
    s.do("stop")
    s.do("is_ignored", at=1000.0)
    yield s

    s = Script("a report at once before there is no room", unconfirmed_bytes_max=1025).open()
    s.send("x" * 200, "x" * 200)
    s.send("x" * 112)
    s.do("report", turn_id="r-1", at=50.0)
    s.send("x" * 511)
    s.send("x")
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 3, **OFFER})
    s.again()
    yield s

    few = {"unreported_frames_max": 2, "unconfirmed_frames_max": 9, "report_every_s": 0.25}
    s = Script("not too often, unless half of what may be kept has gone out", **few).open()
    s.send(*map(_a, range(2)))
    s.do("report", turn_id="r-1", at=50.0)
    s.send("the report", said=False)
    s.send(*map(_a, range(2, 6)))
    s.do("report", turn_id="r-2", at=50.1)
    s.send("the report", said=False)
    s.send(_a(6))
    s.do("reported", turn_id="r-2", taken=8)
    s.send(_a(7))
    s.do("lost", at=50.2)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 8, **OFFER})
    s.again()
    s.send(_a(8))
    yield s

    s = Script("what is kept is bounded in frames", unconfirmed_frames_max=2).open()
    s.send(_a(1), _a(2))
    s.do("report", turn_id="r-1", at=50.0)
    s.do("reported", turn_id="r-1", taken=1)
    s.do("lost", at=100.0)
    yield s

    s = Script("to one frame, if it must be", unconfirmed_frames_max=1).open()
    s.send(_a(1))
    s.do("report", turn_id="r-1", at=50.0)
    s.send("the report", said=False)
    s.do("reported", turn_id="r-1", taken=2)
    yield s

    s = Script("and in bytes", unconfirmed_bytes_max=1024).open()
    s.send("\u00e9" * 511)
    s.send("xx")
    s.do("report", turn_id="r-1", at=50.0)
    s.do("reported", turn_id="r-1", taken=1)
    yield s

    for offer in ({}, {"token": ""}, {"token": 7}, {"epoch": None}, {"token": "x" * 257}):
        s = Script(f"an offer that is none: {offer!r:.30}")
        s.do("ask")
        s.send(_a(1))
        s.do("offered", resume={**OFFER, **offer} if offer else {"seconds": 20})
        s.send(_a(2))
        s.do("lost", at=100.0)
        yield s

    for seconds in (None, "9", -1, 0, 5, 60):
        s = Script(f"it may be away for {seconds!r} s, the relay says").open(seconds=seconds)
        s.do("lost", at=100.0)
        s.do("expire", at=104.5)
        s.do("expire", at=119.5)
        s.do("expire", at=120.0)
        yield s

    s = Script("lost before the relay has said that it may come back")
    s.do("ask")
    s.send(_a(1), said=False)
    s.send(_a(2))
    s.do("lost", at=100.0)
    s.do("expire", at=101.0)
    yield s

    s = Script("it is not asked for", resume_s=0.0)
    s.do("ask")
    s.send(_a(1))
    s.do("offered", resume=OFFER)
    s.hear(_a(1))
    s.do("report", turn_id="r-1", at=50.0)
    s.do("lost", at=100.0)
    yield s

    s = Script("it has come back without another token, so it cannot do so again").open()
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 0})
    s.send(_a(1))
    s.do("lost", at=101.0)
    yield s

    s = Script("where messages cannot be counted, it cannot come back").open()
    s.send(_a(1))
    s.do("uncountable")
    s.send(_a(2))
    s.do("report", turn_id="r-1", at=50.0)
    s.do("reported", turn_id="r-1", taken=1)
    s.hear(_a(3))
    s.do("lost", at=100.0)
    s.do("expire", at=200.0)
    yield s

    s = Script("what is sent again counts as many messages as it has").open()
    s.do("frame", text=f"[{_a(1)},{_a(2)}]", said=[_a(2)], count=2)
    s.send(_a(3))
    s.do("lost", at=100.0)
    s.do("come_back")
    s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    s.again()
    yield s

    s = Script("it is stopped").open()
    s.send(_a(1))
    s.do("stop")
    s.send(_a(2))
    s.hear(_a(3))
    s.do("came_back", resume={"resumed": True, "taken": 0, **OFFER})
    s.do("lost", at=100.0)
    yield s


def cases() -> Iterator[Case]:
    """All of them, and the last messages of frames."""
    for frame in FRAMES:
        last = last_message(frame)
        yield {
            "name": f"the last message of {frame[:40]}",
            "call": "last_message",
            "arguments": {"frame": frame},
            "returns": {"text": last, "crc": crc32(last.encode())},
        }
    for script in _scripts():
        yield script.case
