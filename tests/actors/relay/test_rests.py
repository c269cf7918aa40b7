"""Rests: a mesh waits only while small writes take a good part of its time."""

import anyio
import pytest

from actors.clock import SystemClock
from actors.relay.rests import ENOUGH, FEW, GATHERS, LEAST_GAP_S, LITTLE_BYTES, Rests
from protocol.instant import Instant

pytestmark = pytest.mark.anyio


class Time(SystemClock):
    """Time passes by hand, or in a sleep, which takes no longer than it has to."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def now(self) -> Instant:
        return Instant(self.at, round(self.at * 1000))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        await anyio.lowlevel.checkpoint()


async def slept(
    clock: Time,
    rests: Rests,
    *,
    takes_s: float,
    every_s: float,
    count: int = 1,
    bytes: int = 100,
    receivers: int = 100,
    rounds: int = 1000,
) -> list[float]:
    """The rests while rounds that take so long come so often, or one right behind the other."""
    clock.slept.clear()
    due = clock.at
    for _ in range(rounds):
        clock.at = max(clock.at, due)
        due += every_s
        began_at = rests.began_at(receivers)
        clock.at += takes_s
        rests.sent(receivers, count, bytes, began_at)
        await rests.rest(has_more=False)
    return clock.slept


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def rests(clock: Time) -> Rests:
    return Rests(0.05, clock)


@pytest.mark.parametrize(
    ("receivers", "every_s"),
    [(100, 0.01), (1000, 0.1), (FEW + 1, 0.001), (FEW, 0.0)],
    ids=["quiet", "quiet and large", "small", "few receivers, always"],
)
async def test_a_mesh_that_is_quiet_or_small_never_waits(
    clock: Time, rests: Rests, receivers: int, every_s: float
) -> None:
    gaps = await slept(clock, rests, takes_s=0.0001, every_s=every_s, receivers=receivers)
    assert gaps == []


async def test_a_steady_mesh_waits_a_little_longer_if_that_gathers_little(
    clock: Time, rests: Rests
) -> None:
    gaps = await slept(clock, rests, takes_s=0.0002, every_s=0.00125)
    assert set(gaps) == {2 * LEAST_GAP_S}
    assert len(gaps) > 900
    gaps = await slept(clock, rests, takes_s=0.0002, every_s=0.005, count=GATHERS + 1)
    assert set(gaps) == {LEAST_GAP_S}  # what is gathered counts as if it were not
    assert len(gaps) > 900
    await slept(clock, rests, takes_s=0.0002, every_s=0.1, rounds=5)
    assert await slept(clock, rests, takes_s=0.0002, every_s=0.1) == []  # it has become quiet


async def test_a_short_storm_is_over_before_anybody_waits(clock: Time, rests: Rests) -> None:
    for _ in range(10):
        assert await slept(clock, rests, takes_s=0.0002, every_s=0.0, rounds=20) == []
        clock.at += 0.2


async def test_a_long_flush_rests_as_long_as_it_took_within_a_bound(
    clock: Time, rests: Rests
) -> None:
    (first,) = await slept(clock, rests, takes_s=0.003, every_s=0, rounds=1)
    assert first == pytest.approx(0.003)
    assert await slept(clock, rests, takes_s=0.3, every_s=0, rounds=1) == [0.05]


@pytest.mark.parametrize(("count", "bytes"), [(ENOUGH, 100), (1, LITTLE_BYTES + 1)])
async def test_what_is_no_small_write_needs_no_rest(
    clock: Time, rests: Rests, count: int, bytes: int
) -> None:
    assert await slept(clock, rests, takes_s=0.01, every_s=0, count=count, bytes=bytes) == []


async def test_rests_can_be_turned_off(clock: Time) -> None:
    for takes_s in (0.0006, 0.003):
        assert await slept(clock, Rests(0.0, clock), takes_s=takes_s, every_s=0.001) == []
