"""How fast one connection is read, and the turns of those that are read beyond their bursts."""

import itertools

import pytest

from actors.relay.crowd import LONGEST_S, Crowd
from actors.transports.intake import Intake
from protocol.limits import Limits
from tests.actors.transports.test_transport import Notes

LIMITS = Limits(
    frames_in_per_s=10.0,
    frames_in_burst=20,
    bytes_in_per_s=1024.0,
    bytes_in_burst=2048,
    crowd_bytes_per_s=4096.0,
)


class Alone(Notes):
    """A port without others."""


class InCrowd(Notes):
    """A port that shares the turns of a process."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__()
        self.crowd = crowd

    def turn_s(self, bytes: float, at: float) -> float:
        return self.crowd.turn_s(bytes, at)


def rest(intake: Intake, bytes: int, at: float, port: Notes, frames: int = 0) -> float:
    intake.bytes_left -= bytes
    return intake.rest_s(frames, at, port)


def test_within_its_burst_a_connection_never_rests() -> None:
    assert rest(Intake(LIMITS, 0.0), 2048, 0.0, Alone()) == 0.0


def test_a_debt_is_paid_off_by_time() -> None:
    intake = Intake(LIMITS, 0.0)
    assert rest(intake, 2048 + 1024, 0.0, Alone()) == pytest.approx(1.0)
    assert rest(intake, 0, 1.0, Alone()) == 0.0
    assert rest(intake, 512, 1.0, Alone()) == pytest.approx(0.5)


def test_too_many_frames_are_a_debt_too() -> None:
    intake = Intake(LIMITS, 0.0)
    assert rest(intake, 0, 0.0, Alone(), frames=25) == pytest.approx(0.5)
    assert rest(intake, 0, 0.5, Alone(), frames=25) == 0.0


def test_frames_take_turns_as_bytes_do() -> None:
    crowd = Crowd(LIMITS)
    intakes = [Intake(LIMITS, 0.0) for _ in range(3)]
    rests = [rest(intake, 0, 0.0, InCrowd(crowd), frames=20 + 80) for intake in intakes]
    # 80 frames take 8 s of a connection, and 2 s of the crowd.
    assert rests == pytest.approx([8.0, 8.0, 8.0])
    late = Intake(LIMITS, 0.0)
    assert rest(late, 0, 0.0, InCrowd(crowd), frames=21) == pytest.approx(6.0)


def test_a_long_silence_saves_no_more_than_a_burst() -> None:
    intake = Intake(LIMITS, 0.0)
    assert rest(intake, 0, 1e6, Alone()) == 0.0
    assert rest(intake, 2048 + 1024, 1e6, Alone()) == pytest.approx(1.0)


def test_those_in_debt_are_read_one_after_the_other_at_their_common_rate() -> None:
    crowd, at, size = Crowd(LIMITS), 0.0, 1024
    port = InCrowd(crowd)
    intakes = [Intake(LIMITS, 0.0) for _ in range(20)]
    due = {n: rest(intake, 2048, 0.0, port) for n, intake in enumerate(intakes)}
    read = 0
    reads: list[float] = []
    while at < 100.0:
        first = min(due, key=due.__getitem__)
        at = due[first]
        due[first] = at + rest(intakes[first], size, at, port)
        read += size
        reads.append(at)
    assert read <= 100.0 * LIMITS.crowd_bytes_per_s + 20 * (size + 2048)
    assert read >= 0.9 * 100.0 * LIMITS.crowd_bytes_per_s  # and no slower
    late = [later - earlier for earlier, later in itertools.pairwise(reads[40:])]
    assert min(late) >= 0.5 * size / LIMITS.crowd_bytes_per_s  # never two at once


def test_one_connection_alone_has_its_own_rate_and_not_that_of_the_crowd() -> None:
    port = InCrowd(Crowd(LIMITS))
    intake, at, read = Intake(LIMITS, 0.0), 0.0, 0
    while at < 100.0:
        at += rest(intake, 1024, at, port)
        read += 1024
    assert read == pytest.approx(100.0 * LIMITS.bytes_in_per_s, rel=0.05)


def test_nobody_waits_longer_than_a_bound_however_many_there_are() -> None:
    crowd = Crowd(LIMITS)
    waits = [crowd.turn_s(4096.0, 0.0) for _ in range(10_000)]
    assert waits[:3] == pytest.approx([0.0, 1.0, 2.0])
    assert max(waits) == LONGEST_S < Limits().stale_after_s
    assert crowd.turn_s(1.0, LONGEST_S + 1.0) == pytest.approx(0.0)  # and it is over soon
