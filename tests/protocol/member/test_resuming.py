"""One connection over several sockets: what a relay that counts would see of it."""

from collections import deque
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import MembershipLimits
from protocol.member import resuming as module
from protocol.member.resuming import Resuming, Stage

LIMITS = MembershipLimits()


class Relay:
    """The other side, as rule 19 has it: what it took, and what it sent."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.sent: list[str] = []
        self.token = 0

    def offer(self) -> dict[str, Any]:
        self.token += 1
        return {"token": f"t-{self.token}", "epoch": "e", "seconds": 20}

    def come_back(self, ask: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Its answer, and what was missed."""
        received = ask["received"]
        assert ask["token"] == f"t-{self.token}"
        assert ("crc" in ask) == (received > 0)
        if received:
            assert ask["crc"] == crc32(self.sent[received - 1].encode())
        resume = {"resumed": True, "taken": len(self.taken), **self.offer()}
        return resume, self.sent[received:]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 5)),  # so many frames
        st.tuples(st.just("say"), st.integers(1, 5)),  # so many messages of the relay in one frame
        st.tuples(st.just("report"), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 6)),  # so many frames of the last arrive
        st.tuples(st.just("again"), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(steps)
@settings(deadline=None)
def test_whatever_is_cut_each_side_has_everything_once_and_in_order(
    story: list[tuple[str, int]],
) -> None:
    relay, resuming = Relay(), Resuming(LIMITS)
    resuming.ask()
    resuming.offered(relay.offer())
    wanted: list[str] = []  # what the peer has sent, in order
    heard: list[str] = []
    wire: list[str] = []  # what is on its way to the relay

    def send(text: str, said: bool = True) -> None:
        resuming.frame(text, [text] if said else [])
        wire.append(text)

    for what, number in story:
        match what:
            case "send":
                for _ in range(number):
                    text = f"frame {len(wanted)}"
                    if resuming.is_behind:  # it waits
                        break
                    wanted.append(text)
                    send(text)
            case "say":
                texts = [f'{{"n":{len(relay.sent) + n}}}' for n in range(number)]
                relay.sent += texts
                frame = texts[0] if number == 1 else f"[{','.join(texts)}]"
                for text in texts:
                    resuming.message(frame)
                    heard.append(text)
            case "report" if not resuming.is_behind:
                text = f"frame {len(wanted)}"
                wanted.append(text)
                assert resuming.report("r", 0.0) == {"received": len(heard)}
                send(text, said=False)
                relay.taken += wire
                wire.clear()
                assert resuming.reported("r", len(relay.taken))
                assert resuming.in_doubt == ()
            case "cut":
                relay.taken += wire[:number]
                wire.clear()
                relay.sent.append(f'{{"n":{len(relay.sent)}}}')  # lost with the socket
                assert resuming.lost(1.0)
                answer, missed = relay.come_back(resuming.come_back())
                assert resuming.came_back(answer)
                for text in missed:
                    resuming.message(text)
                    heard.append(text)
            case "again":
                for _ in range(number):
                    if resuming.is_behind:
                        wire.append(resuming.again().text)
    while resuming.is_behind:
        wire.append(resuming.again().text)
    relay.taken += wire
    assert relay.taken == wanted
    assert heard == relay.sent
    assert resuming.sent == len(wanted)


@pytest.mark.parametrize("frames_per_s", [50, 1000, 5000, 10_000, 20_000])
@pytest.mark.parametrize("way_and_back_s", [0.001, 0.02])
def test_a_flood_is_reported_seldom_and_yet_never_waits_for_the_answer(
    frames_per_s: int, way_and_back_s: float
) -> None:
    relay, resuming = Relay(), Resuming(LIMITS)
    resuming.ask()
    resuming.offered(relay.offer())
    answers: deque[tuple[float, str, int]] = deque()  # when it arrives
    reports = 0
    for n in range(2 * frames_per_s):
        at = 100.0 + n / frames_per_s
        while answers and answers[0][0] <= at:
            _, turn_id, taken = answers.popleft()
            resuming.reported(turn_id, taken)
        assert resuming.has_room
        resuming.frame("x")
        due = resuming.report_due
        if due is not None and due <= at:
            reports += 1
            resuming.report(f"r-{reports}", at)
            resuming.frame("the report")
            answers.append((at + way_and_back_s, f"r-{reports}", resuming.sent))
    at_once = 2 * frames_per_s // (LIMITS.unconfirmed_frames_max // 2)
    assert reports <= max(20, at_once) + 1


def test_a_report_is_due_in_time_also_if_nothing_more_is_sent() -> None:
    resuming = Resuming(LIMITS)
    resuming.ask()
    resuming.offered(Relay().offer())
    for _ in range(2):
        for _ in range(LIMITS.unreported_frames_max):
            assert resuming.report_due is None
            resuming.frame("x")
        assert resuming.report_due == (50.1 if resuming.is_report("r") else 0.0)
        resuming.report("r", 50.0)
        resuming.frame("the report")
    resuming.stop()
    assert resuming.report_due is None


def test_a_token_is_not_shown() -> None:
    resuming = Resuming(LIMITS)
    resuming.ask()
    resuming.offered({"token": "s3cr3t", "epoch": "e"})
    assert "s3cr3t" not in repr(resuming)


@pytest.mark.parametrize("stage", Stage)
def test_the_table_in_the_docstring_has_every_stage(stage: Stage) -> None:
    assert module.__doc__ is not None
    assert f"| {stage.name}" in module.__doc__
