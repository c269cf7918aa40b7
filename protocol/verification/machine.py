"""A hypothesis state machine over any relay: what every peer receives, after every step.

To run it against a relay of your own, in your own tests:

    from protocol.limits import Limits
    from protocol.verification.machine import machine_for
    from protocol.verification.subjects.live import LiveSubject

    Machine = machine_for(lambda: LiveSubject("ws://127.0.0.1:8080/ws"))
    Machine.TestCase.settings = hypothesis.settings(max_examples=20, stateful_step_count=30)
    TestMyRelay = Machine.TestCase

A failing run ends with the shortest sequence of steps that hypothesis finds, as a Python program.
"""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

from protocol.about import missing_extra

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import (
        initialize,
        invariant,
        multiple,
        precondition,
        rule,
    )
except ModuleNotFoundError as error:
    raise missing_extra(error, "verification", __name__) from None

from protocol.limits import Limits
from protocol.verification import page_strategies, strategies, turn_strategies, wish_strategies
from protocol.verification.coming_back import connections
from protocol.verification.strategies import peers
from protocol.verification.subjects import Subject
from protocol.verification.visiting import Visiting

TIGHT: Limits = Limits(
    message_bytes_max=2048,
    presence_bytes_max=1024,
    nesting_max=8,
    number_digits_max=40,
    id_chars_max=16,
    agents_max=4,
    peer_connections_max=3,
    announcements_per_s=0.5,
    announcements_burst=2,
    messages_per_s=4.0,
    messages_burst=24,
    inbox_messages_max=6,
    quantum_messages=3,
    round_messages_max=7,
    mailbox_messages_max=6,
    mailbox_bytes_max=2**20,
    begun_turns_max=2,
    lag_told_every_s=5.0,
    history_bytes_max=8_000,
    recall_messages_max=4,
    recall_bytes_max=600,
    recall_s=20.0,
    wishes_max=2,
    wish_names_max=3,
)
"""Limits under which a few steps reach every bound."""

# Multiples of a quarter of a second: exact as floats, and at the rates of `TIGHT` the rate limits
# then stand at whole messages, so that a limiter's rounding makes no difference.
_seconds = st.one_of(
    st.integers(1, 20).map(lambda n: n / 4),
    st.sampled_from([1.0, 5.0, 10.0, 14.75, 15.0, 20.0, 29.75, 30.0, 31.0, 90.0]),
)


class RelayMachine(Visiting):
    """Peers come, speak, misbehave, stall, vanish and return; the judge looks after every step."""

    not_utf8: ClassVar[bool] = True

    # Coming and going -----------------------------------------------------------------------------

    @initialize(target=connections)
    def somebody_is_here(self) -> int:
        return self._announced(
            "a", strategies.text_of({"type": "presence", "from": "a", "data": {"agents": ["x"]}})
        )

    @rule(target=connections, name=peers)
    def connect(self, name: str) -> int:
        return self._open(name)

    @rule(target=connections, name=peers, data=st.data())
    def join(self, name: str, data: st.DataObject) -> int:
        return self._announced(name, data.draw(strategies.presences(name)))

    @rule(target=connections, other=connections, data=st.data())
    def open_another_tab(self, other: int, data: st.DataObject) -> int:
        name = self.names[other]
        return self._announced(name, data.draw(strategies.presences(name)))

    @rule(target=connections, old=connections, data=st.data())
    def lose_and_reconnect(self, old: int, data: st.DataObject) -> int:
        self.judge.drop(old, data.draw(st.integers(0, 9)))
        name = self.names[old]
        return self._announced(name, data.draw(strategies.presences(name)))

    @rule(target=connections, name=peers, data=st.data())
    def claim_and_join(self, name: str, data: st.DataObject) -> int:
        c = self._open(name)
        said = [data.draw(strategies.claims(name)), data.draw(strategies.presences(name))]
        self.judge.send(c, *said)
        return c

    @rule(target=connections, other=connections, data=st.data())
    def take_over(self, other: int, data: st.DataObject) -> int:
        name = self.names[other]
        c = self._open(name)
        secret = data.draw(strategies.claims(name, takes_over=True))
        self.judge.send(c, secret, data.draw(strategies.presences(name)))
        return c

    @rule(target=connections, name=peers, data=st.data())
    def join_and_ask_what_was_said(self, name: str, data: st.DataObject) -> int:
        c = self._open(name)
        wishes = st.lists(strategies.wishes(), min_size=1, max_size=2)
        self.judge.send(c, *data.draw(wishes), data.draw(strategies.presences(name)))
        return c

    @rule(c=connections, data=st.data())
    def ask_what_was_said(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.wishes()))

    @rule(target=connections, c=connections, name=peers, data=st.data())
    def want_something_else(self, c: int, name: str, data: st.DataObject) -> int:
        return self._want_something_else(c, name, data)

    @rule(target=connections, name=peers, other=peers, data=st.data())
    def join_and_want_something(self, name: str, other: str, data: st.DataObject) -> Any:
        c = self._announced(name, data.draw(wish_strategies.presences(name)))
        return multiple(c, self._want_something_else(c, other, data))

    def _want_something_else(self, c: int, name: str, data: st.DataObject) -> int:
        speaker = self._announced(name, strategies.text_of({"type": "presence", "from": name}))
        self._say_what_is_wanted_or_not(speaker, data)
        self.judge.send(c, data.draw(wish_strategies.presences(self.names[c])))
        self._say_what_is_wanted_or_not(speaker, data)
        return speaker

    @rule(target=connections, other=connections, name=peers, data=st.data())
    def ask_for_what_is_wanted_of_what_was_said(
        self, other: int, name: str, data: st.DataObject
    ) -> int:
        self._say_what_is_wanted_or_not(other, data)
        c = self._open(name)
        wish = data.draw(wish_strategies.presences(name))
        self.judge.send(c, data.draw(strategies.wishes()), wish)
        return c

    def _say_what_is_wanted_or_not(self, c: int, data: st.DataObject) -> None:
        said = st.lists(wish_strategies.messages(self.names[c]), min_size=1, max_size=4)
        self.judge.send(c, *data.draw(said))

    @rule(c=connections, data=st.data())
    def claim_again(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.claims(self.names[c])))

    @precondition(lambda self: self.subject.has_permits)
    @rule(target=connections, name=peers, data=st.data())
    def join_within_a_permit(self, name: str, data: st.DataObject) -> int:
        self.count += 1
        self.judge.open(self.count, data.draw(strategies.permits(self.subject.now)))
        self.names[self.count] = name
        if data.draw(st.booleans()):
            self.judge.send(self.count, data.draw(strategies.claims(name)))
        kinds = (strategies.presences, strategies.changes, strategies.fanned_out)
        self.judge.send(self.count, *(data.draw(kind(name)) for kind in kinds))
        return self.count

    @precondition(lambda self: self.subject.has_time)
    @rule(target=connections, name=peers, data=st.data())
    def join_as_a_page(self, name: str, data: st.DataObject) -> int:
        return self._announced(name, data.draw(page_strategies.pages(name)))

    def _joined_at_a_pace(self, name: str, data: st.DataObject) -> int:
        said = data.draw(strategies.presences(name, of_arrays=True))
        return self._announced(name, said, is_paced=True)

    def _announced(self, name: str, presence: bytes, *, is_paced: bool = False) -> int:
        c = self._open(name, is_paced=is_paced)
        self.judge.send(c, presence)
        return c

    @rule(c=connections)
    def leave(self, c: int) -> None:
        self.judge.close(c)

    @rule(c=connections, cut=st.integers(0, 9))
    def lose(self, c: int, cut: int) -> None:
        self.judge.drop(c, cut)

    # Speaking -------------------------------------------------------------------------------------

    @rule(c=connections, data=st.data())
    def announce(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.presences(self.names[c])))

    @rule(c=connections, data=st.data())
    def beat(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.heartbeats(self.names[c])))

    @rule(c=connections, data=st.data())
    def announce_too_often(self, c: int, data: st.DataObject) -> None:
        said = st.lists(strategies.changes(self.names[c]), min_size=4, max_size=8)
        self.judge.send(c, *data.draw(said))

    @rule(c=connections, data=st.data())
    def stream(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.fanned_out(self.names[c])))

    @rule(c=connections, data=st.data())
    def say_what_pages_send_again(self, c: int, data: st.DataObject) -> None:
        said = st.lists(page_strategies.sent_again(self.names[c]), min_size=1, max_size=3)
        self.judge.send(c, *data.draw(said))

    @precondition(lambda self: self.subject.has_time)
    @rule(target=connections, other=connections, name=peers, data=st.data())
    def join_and_send_again(self, other: int, name: str, data: st.DataObject) -> int:
        said = page_strategies.sent_again(self.names[other])
        c = self._announced(name, data.draw(page_strategies.pages(name)))
        again = data.draw(page_strategies.sent_again(name))
        self.judge.send(other, again, data.draw(said))
        self.judge.send(c, again, data.draw(page_strategies.sent_again(name)))
        return c

    @precondition(lambda self: self.subject.has_pace)
    @rule(target=connections, name=peers, data=st.data())
    def join_at_a_pace(self, name: str, data: st.DataObject) -> int:
        return self._joined_at_a_pace(name, data)

    @precondition(lambda self: self.subject.has_pace)
    @rule(c=connections, other=connections, data=st.data())
    def ask_and_be_answered(self, c: int, other: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(turn_strategies.asks(self.names[c])))
        few = st.lists(turn_strategies.answers(self.names[other]), min_size=1, max_size=3)
        self.judge.send(other, *data.draw(few))

    @precondition(lambda self: self.subject.has_pace)
    @rule(target=connections, other=connections, name=peers, data=st.data())
    def join_and_fall_behind(self, other: int, name: str, data: st.DataObject) -> int:
        c = self._joined_at_a_pace(name, data)
        self.judge.send(c, data.draw(turn_strategies.asks(name)))
        self.judge.settle()
        self.subject.fall_behind(c)
        few = st.lists(turn_strategies.answers(self.names[other]), min_size=1, max_size=3)
        self.judge.send(other, *data.draw(few))
        return c

    @precondition(lambda self: self.subject.has_pace)
    @rule(c=connections)
    def fall_behind(self, c: int) -> None:
        self.subject.fall_behind(c)

    @precondition(lambda self: self.subject.has_pace)
    @rule(c=connections)
    def catch_up(self, c: int) -> None:
        self.subject.catch_up(c)

    @rule(target=connections, name=peers, data=st.data())
    def join_and_command_a_local_agent(self, name: str, data: st.DataObject) -> int:
        c = self._announced(name, strategies.text_of({"type": "presence", "from": name}))
        self.judge.send(c, data.draw(page_strategies.between_local_agents(name)))
        return c

    @rule(c=connections, data=st.data())
    def direct(self, c: int, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.directs(self.names[c])))

    @rule(c=connections, data=st.data())
    def say_several(self, c: int, data: st.DataObject) -> None:
        texts = st.lists(strategies.messages(self.names[c]), min_size=2, max_size=6)
        self.judge.send(c, *data.draw(texts))

    @rule(c=connections, data=st.data())
    def misbehave(self, c: int, data: st.DataObject) -> None:
        wrong = strategies.misbehaviour(self.names[c], self.subject.limits, not_utf8=self.not_utf8)
        self.judge.send(c, data.draw(wrong))

    @rule(c=connections, data=st.data())
    @precondition(lambda self: self.subject.limits.message_bytes_max <= 2**16)
    def say_as_much_as_may_be(self, c: int, data: st.DataObject) -> None:
        largest = strategies.at_the_bound(self.names[c], self.subject.limits)
        self.judge.send(c, data.draw(largest))

    @rule(c=connections, name=peers, data=st.data())
    def claim_another_name(self, c: int, name: str, data: st.DataObject) -> None:
        self.judge.send(c, data.draw(strategies.presences(name)))

    @rule(c=connections)
    @precondition(lambda self: self.subject.limits.messages_burst <= 100)
    def flood(self, c: int) -> None:
        text = strategies.text_of({"type": "stream", "from": self.names[c]})
        self.judge.send(c, *[text] * (self.subject.limits.messages_burst + 2))

    @rule(c=connections, more=st.integers(0, 2))
    @precondition(lambda self: self.subject.limits.messages_burst <= 100)
    def flood_in_arrays(self, c: int, more: int) -> None:
        text = strategies.text_of({"type": "stream", "from": self.names[c]})
        half = self.subject.limits.messages_burst // 2
        self.judge.send(c, *(b"[" + b",".join([text] * n) + b"]" for n in (half, half + more)))

    # Reading, time, failures ----------------------------------------------------------------------

    @rule(c=connections)
    def stop_reading(self, c: int) -> None:
        self.subject.stop_reading(c)

    @rule(c=connections)
    def read_again(self, c: int) -> None:
        self.subject.read_again(c)

    @precondition(lambda self: self.subject.has_time)
    @rule(seconds=_seconds)
    def time_passes(self, seconds: float) -> None:
        self.subject.pass_time(seconds)

    @precondition(lambda self: self.subject.has_time)
    @rule(seconds=_seconds, data=st.data())
    def all_beat_and_time_passes(self, seconds: float, data: st.DataObject) -> None:
        for c, name in self.names.items():
            if self.judge.is_open(c) and data.draw(st.booleans()):
                self.judge.send(c, strategies.text_of({"type": "heartbeat", "from": name}))
        self.judge.settle()
        self.subject.pass_time(seconds)

    @precondition(lambda self: self.subject.has_time)
    @rule(c=connections)
    def pong(self, c: int) -> None:
        if self.judge.is_open(c):
            self.subject.pong(c)

    @precondition(lambda self: self.subject.can_crash)
    @rule(c=connections, where=st.integers(0, 9))
    def crash(self, c: int, where: int) -> None:
        self.subject.crash(c, where)

    # Interleaving ---------------------------------------------------------------------------------

    @rule(choices=st.lists(st.integers(0, 63), min_size=1, max_size=10))
    def hand_over(self, choices: list[int]) -> None:
        for choice in choices:
            self.subject.hand_over(choice)

    @rule()
    def settle(self) -> None:
        self.judge.settle()

    # Judging --------------------------------------------------------------------------------------

    @invariant()
    def everybody_received_what_the_rules_say(self) -> None:
        if self.subject.is_immediate:
            self.judge.settle()
        self.judge.look()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is not None:  # that is what will be reported
                return
            self.judge.settle()
            self.subject.shut_down()
            for c in self.names:
                self.subject.read_again(c)
            self.judge.settle()
        finally:
            self.subject.done()


def machine_for(make_subject: Callable[[], Subject], **fields: Any) -> type[RelayMachine]:
    """The state machine against the subjects that `make_subject` makes, a fresh one per example."""
    return type("Machine", (RelayMachine,), {"make_subject": staticmethod(make_subject), **fields})
