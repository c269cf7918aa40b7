"""The steps of the state machine that are about connections that come back (rule 19)."""

from collections.abc import Callable
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    precondition,
    rule,
)

from protocol.verification import strategies, wish_strategies
from protocol.verification.model import Permit
from protocol.verification.strategies import peers
from protocol.verification.subjects import Judge, Subject
from protocol.verification.subjects.counting import HOW, WRONG, How, open_question

connections: Final[Bundle[int]] = Bundle("connections")
"""The numbers of all connections, also of those that are over."""

ways_back: Final = st.one_of(st.just(HOW[0]), st.just(HOW[0]), st.sampled_from(HOW))
"""How a peer wants to go on; most often rightly."""


def _presences(name: str) -> st.SearchStrategy[bytes]:
    """A presence, of somebody who wants everything, or something."""
    return strategies.presences(name) | wish_strategies.presences(name)


class ComingBack(RuleBasedStateMachine):
    """Peers whose sockets are cut, and who want to go on: rightly, wrongly, too late, or twice.

    `names`: the peer of each connection. `count`: how many there were.
    """

    make_subject: ClassVar[Callable[[], Subject]]

    def __init__(self) -> None:
        super().__init__()
        self.subject = type(self).make_subject()
        self.judge = Judge(self.subject)
        self.names: dict[int, str] = {}
        self.count = 0

    def _open(self, name: str, *, is_paced: bool = False) -> int:
        self.count += 1
        self.judge.open(self.count, is_paced=is_paced)
        self.names[self.count] = name
        return self.count

    def _come_back(
        self, old: int, how: How, data: st.DataObject, permit: Permit | None = None
    ) -> int:
        name = self.names[old]
        self.count += 1
        self.judge.open(self.count, permit)
        self.names[self.count] = name
        otherwise = (open_question(20), data.draw(strategies.presences(name)))
        self.judge.resume(self.count, old, how, otherwise=otherwise)
        behind = st.lists(strategies.others(name), max_size=2)
        self.judge.send(self.count, *data.draw(behind))
        return self.count

    @precondition(lambda self: self.subject.can_resume)
    @rule(
        target=connections, name=peers, seconds=st.sampled_from([20, 5.0, 0, 1e9]), data=st.data()
    )
    def join_to_come_back(self, name: str, seconds: float, data: st.DataObject) -> int:
        c = self._open(name)
        asked, announced = open_question(seconds), data.draw(_presences(name))
        if data.draw(st.booleans()):
            asked, announced = announced, asked
        self.judge.send(
            c, asked, announced, *data.draw(st.lists(strategies.others(name), max_size=3))
        )
        return c

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections, seconds=st.integers(0, 30))
    def ask_to_come_back(self, c: int, seconds: int) -> None:
        self.judge.send(c, open_question(seconds))

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections)
    def report(self, c: int) -> None:
        self.judge.report(c)

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections, cut=st.integers(0, 9))
    def break_off(self, c: int, cut: int) -> None:
        self.judge.break_off(c, cut)

    @precondition(lambda self: self.subject.can_resume)
    @rule(target=connections, old=connections, how=ways_back, data=st.data())
    def come_back(self, old: int, how: How, data: st.DataObject) -> int:
        return self._come_back(old, how, data)

    @precondition(lambda self: self.subject.can_resume)
    @rule(target=connections, old=connections, other=connections, how=ways_back, data=st.data())
    def be_cut_and_come_back(self, old: int, other: int, how: How, data: st.DataObject) -> int:
        self._be_cut(old, other, data)
        return self._come_back(old, how, data)

    @precondition(lambda self: self.subject.can_resume)
    @rule(
        target=connections,
        name=peers,
        other=connections,
        how=ways_back,
        then=st.sampled_from(["be there", "come back twice", "be cut again"]),
        again=ways_back,
        data=st.data(),
    )
    def join_be_cut_and_come_back(  # noqa: PLR0917 (hypothesis passes names)
        self, name: str, other: int, how: How, then: str, again: How, data: st.DataObject
    ) -> int:
        c = self._open(name)
        self.judge.send(c, open_question(20), data.draw(_presences(name)))
        self.judge.settle()
        self._say_something(other, data)
        if data.draw(st.booleans()):
            self.judge.report(c)
        self._be_cut(c, other, data)
        back = self._come_back(c, how, data)
        if then == "come back twice":
            return self._come_back(c, "right", data)
        if then == "be cut again":
            self.judge.settle()
            self._be_cut(back, other, data)
            return self._come_back(back, again, data)
        return back

    @precondition(lambda self: self.subject.can_resume)
    @rule(target=connections, old=connections, how=ways_back, data=st.data())
    def come_back_twice_at_once(self, old: int, how: How, data: st.DataObject) -> Any:
        return multiple(self._come_back(old, "right", data), self._come_back(old, how, data))

    def _be_cut(self, c: int, other: int, data: st.DataObject) -> None:
        self._say_something(c, data)
        cut = data.draw(st.integers(0, 9))
        (self.judge.drop if data.draw(st.booleans()) else self.judge.break_off)(c, cut)
        self._say_something(other, data)
        if data.draw(st.booleans()):
            burst = self.subject.limits.messages_burst
            self.judge.send(other, *[strategies.text_of({"type": "ack"})] * min(burst, 24))
        for choice in data.draw(st.lists(st.integers(0, 63), max_size=4)):
            self.subject.hand_over(choice)

    def _say_something(self, c: int, data: st.DataObject) -> None:
        said = st.lists(strategies.others(self.names[c]), max_size=3)
        self.judge.send(c, *data.draw(said))

    @precondition(lambda self: self.subject.can_resume and self.subject.has_permits)
    @rule(target=connections, old=connections, data=st.data())
    def come_back_with_another_permit(self, old: int, data: st.DataObject) -> int:
        return self._come_back(old, "right", data, data.draw(strategies.permits(self.subject.now)))

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections, old=connections, how=ways_back)
    def want_to_go_on_too_late(self, c: int, old: int, how: How) -> None:
        self.judge.resume(c, old, how)

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections, wrong=st.sampled_from(WRONG), is_array=st.booleans())
    def ask_wrongly(self, c: int, wrong: Any, is_array: bool) -> None:
        text = strategies.text_of({"type": "capabilities", "turnId": 1, "data": wrong})
        self.judge.send(c, b"[" + text + b"]" if is_array else text)

    @precondition(lambda self: self.subject.can_resume)
    @rule(c=connections)
    def ask_in_an_array(self, c: int) -> None:
        self.judge.send(c, b"[" + open_question(20) + b"]", b'[{"type":"ack"}, 1]')
