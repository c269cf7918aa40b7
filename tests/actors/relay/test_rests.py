"""Rests: a mesh waits only while small writes take a good part of its time."""

import anyio
import pytest

from actors.clock import SystemClock
from actors.relay.rests import (
    AWAKE_S,
    ENOUGH,
    FEW,
    GATHERS,
    LEAST_GAP_S,
    LITTLE_BYTES,
    LONE,
    UNHURRIED,
    Holds,
    Rests,
)
from protocol.instant import Instant
from tests.actors.relay.test_peer import HandTransport, World
from tests.actors.relay.test_peer import say as say_all

pytestmark = pytest.mark.anyio


class Time(SystemClock):
    """Time passes by hand, or in a sleep, which takes no longer than it has to."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []
        self.held: list[float] = []

    def now(self) -> Instant:
        return Instant(self.at, round(self.at * 1000))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        await anyio.lowlevel.checkpoint()

    def hold(self, seconds: float) -> None:
        self.held.append(seconds)
        self.at += seconds


async def slept(
    clock: Time,
    rests: Rests,
    *,
    takes_s: float,
    every_s: float,
    count: int = 1,
    bytes: int = 100,
    receivers: int = 100,
    came_or_went: int = 0,
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
        rests.sent(receivers, count, bytes, began_at, came_or_went)
        await rests.rest(0)
    return clock.slept


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def rests(clock: Time) -> Rests:
    return Rests(0.05, clock, Holds(clock))


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


async def test_of_those_who_come_and_go_there_is_never_enough(clock: Time) -> None:
    for took_s, count, came_or_went, gap_s in (
        (0.002, 500, 500, UNHURRIED * 0.002),
        (0.002, 500, 500 - ENOUGH + 1, 0.002),
        (0.002, 500, 500 - ENOUGH, 0.0),
        (0.002, GATHERS, GATHERS, 0.002),
        (0.0009, GATHERS + 1, GATHERS + 1, 0.0),
        (0.04, 500, 500, 0.05),
    ):
        how = {"count": count, "came_or_went": came_or_went}
        rests = Rests(0.05, clock, None)
        gaps = await slept(clock, rests, takes_s=took_s, every_s=0, rounds=1, **how)
        assert sum(gaps) == pytest.approx(gap_s)


def test_the_supervisor_tells_who_came_and_who_went_from_what_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(Rests, "sent", lambda *about: told.append((about[2], about[5])))
    world = World()
    ann, _ = world.join("ann")
    told.clear()
    for name in ("bob", "carol"):
        actor = world.supervisor.open(HandTransport())
        say_all(actor, "presence", sender=name)
    say_all(ann, "broadcast", 3, sender="ann")
    world.supervisor.round()
    actor.closed(1000)
    world.supervisor.round()
    assert told == [(5, 2), (1, 1)]


async def test_who_has_gathered_enough_needs_no_rest(clock: Time, rests: Rests) -> None:
    for waiting, slept in ((ENOUGH - 1, 1), (ENOUGH, 0)):
        clock.slept.clear()
        began_at = rests.began_at(100)
        clock.at += 0.01
        rests.sent(100, 1, 100, began_at)
        await rests.rest(waiting)
        assert len(clock.slept) == slept


async def test_rests_can_be_turned_off(clock: Time) -> None:
    for takes_s in (0.0006, 0.003):
        assert (
            await slept(clock, Rests(0.0, clock, Holds(clock)), takes_s=takes_s, every_s=0.001)
            == []
        )


async def say(clock: Time, rests: Rests, *, every_s: float, rounds: int = 1000) -> list[int]:
    """How many private messages each round had, one of which comes every so often."""
    clock.held.clear()
    counts, said = [], clock.at
    for _ in range(rounds):
        clock.at = max(clock.at, said + every_s)
        count = int((clock.at - said + 1e-9) / every_s)
        said += count * every_s
        counts.append(count)
        at = clock.at
        clock.at += 0.00005
        rests.sent_privately(count, at)
        await rests.rest(0)
    return counts


async def test_many_lone_private_messages_are_gathered_and_few_never_wait(
    clock: Time, rests: Rests
) -> None:
    counts = (await say(clock, rests, every_s=0.0001))[-100:]
    assert set(clock.held) == {LEAST_GAP_S}
    assert clock.slept == []
    assert sum(counts) / len(counts) > LONE
    assert max(counts) < 20
    await say(clock, rests, every_s=0.1, rounds=10)
    for every_s in (0.1, 0.0003):
        assert await say(clock, rests, every_s=every_s) == [1] * 1000
        assert clock.held == []


async def test_rounds_that_gather_by_themselves_never_wait(clock: Time, rests: Rests) -> None:
    for _ in range(1000):
        rests.sent_privately(LONE + 1, clock.at)
        await rests.rest(0)
    assert clock.held == []


def test_many_private_messages_that_come_together_are_not_lone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(Rests, "sent_privately", lambda _, count, at: counts.append(count))
    world = World()
    ann, _ = world.join("ann")
    world.join("bob")
    for times in (1, LONE, 30):
        counts.clear()
        say_all(ann, "direct", times, sender="ann", to="bob")
        world.supervisor.round()
        assert counts == [times]


async def test_the_meshes_of_a_process_share_their_holds(clock: Time) -> None:
    holds = Holds(clock)
    meshes = [Rests(0.05, clock, holds) for _ in range(50)]
    for _ in range(1000):
        for rests in meshes:
            rests.sent_privately(1, clock.at)
        async with anyio.create_task_group() as tasks:  # in one pass of the event loop
            for rests in meshes:
                tasks.start_soon(rests.rest, 0)
        clock.at += 2 * AWAKE_S
    assert 900 < len(clock.held) <= 1000


async def test_who_shares_a_thread_never_stops_it(clock: Time) -> None:
    rests = Rests(0.05, clock, None)
    assert await say(clock, rests, every_s=0.0001) == [1] * 1000
    assert clock.held == clock.slept == []


async def test_what_comes_in_during_a_rest_is_taken_in_every_millisecond(
    clock: Time, rests: Rests
) -> None:
    taken_at: list[float] = []
    began_at = rests.began_at(100)
    clock.at += 0.0045
    rests.sent(100, 1, 100, began_at)
    await rests.rest(0, lambda: taken_at.append(clock.at))
    assert taken_at == pytest.approx([0.0055, 0.0065, 0.0075, 0.0085, 0.0095])
    await rests.rest(0, lambda: taken_at.append(clock.at))  # it does not rest
    assert len(taken_at) == 5
