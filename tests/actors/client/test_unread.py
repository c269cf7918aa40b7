"""What arrived and was not read yet."""

import anyio
import pytest

from actors.client.unread import Shelf, Unread
from protocol.limits import MembershipLimits
from protocol.member.errors import Gap, Lagged
from protocol.member.messages import Message

pytestmark = pytest.mark.anyio


async def test_who_does_not_read_is_told_what_was_dropped() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_messages_max=3)))
    for number in range(10):
        unread.put(number)
    with pytest.raises(Lagged) as caught:
        await unread.get()
    assert caught.value.count == 7
    assert [await unread.get() for _ in range(3)] == [7, 8, 9]
    unread.end()
    with pytest.raises(StopAsyncIteration):
        await unread.get()


async def test_unread_messages_are_bounded_by_their_size_too() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_bytes_max=1024)))
    for number in range(3):
        unread.put(number, 600)
    with pytest.raises(Lagged):
        await unread.get()
    assert await unread.get() == 2


async def test_the_latest_is_there_in_any_case() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_bytes_max=1024)))
    unread.put(1, 5000)
    assert await unread.get() == 1
    unread.put(2, 5000)
    unread.put(3, 5000)
    with pytest.raises(Lagged):
        await unread.get()
    assert await unread.get() == 3


async def test_what_waits_in_several_places_is_bounded_together_and_the_heaviest_loses() -> None:
    shelf = Shelf(MembershipLimits(unread_bytes_max=1024))
    light, heavy = Unread[int](shelf), Unread[int](shelf)
    light.put(1, 200)
    for number in range(5):
        heavy.put(number, 300)
    light.put(2, 200)
    assert [await light.get() for _ in range(2)] == [1, 2]
    with pytest.raises(Lagged) as caught:
        await heavy.get()
    assert caught.value.count == 3
    assert [await heavy.get() for _ in range(2)] == [3, 4]
    heavy.put(5, 1024)
    assert await heavy.get() == 5


async def test_what_nobody_holds_any_more_takes_no_room() -> None:
    shelf = Shelf(MembershipLimits(unread_bytes_max=1024))
    dropped, kept = Unread[int](shelf), Unread[int](shelf)
    dropped.put(1, 1000)
    del dropped
    for number in range(2):
        kept.put(number, 500)
    assert [await kept.get() for _ in range(2)] == [0, 1]


async def test_a_gap_is_told_once_in_its_place() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits()))
    unread.put(1)
    for seconds in (2.0, 3.0):
        unread.gap(Gap(seconds))
    unread.put(2)
    unread.gap(Gap(4.0))
    assert await unread.get() == 1
    with pytest.raises(Gap) as caught:
        await unread.get()
    assert caught.value.seconds == 3.0
    assert await unread.get() == 2
    unread.end()
    with pytest.raises(Gap):
        await unread.get()
    with pytest.raises(StopAsyncIteration):
        await unread.get()


async def test_a_gap_wakes_whoever_waits() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits()))
    async with anyio.create_task_group() as tasks:
        caught: list[Gap] = []

        async def wait() -> None:
            try:
                await unread.get()
            except Gap as gap:
                caught.append(gap)

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        unread.gap(Gap(1.0))
    assert len(caught) == 1


async def test_gaps_among_what_was_dropped_are_one() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_messages_max=3)))
    for number in range(10):
        unread.gap(Gap(float(number)))
        unread.put(number)
    with pytest.raises(Lagged):
        await unread.get()
    for number in range(7, 10):
        with pytest.raises(Gap) as caught:
            await unread.get()
        assert caught.value.seconds == float(number)
        assert await unread.get() == number
    unread.put(10)
    assert await unread.get() == 10


def doubts(*numbers: int) -> tuple[Message, ...]:
    return tuple(Message({"type": "a", "data": number}) for number in numbers)


async def test_gaps_in_one_place_are_one_that_tells_all_that_is_in_doubt() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_messages_max=2)))
    unread.gap(Gap(1.0, "epoch", doubts(1, 2)), 10)
    unread.put(1)
    unread.gap(Gap(2.0, "window", doubts(3)), 10)
    unread.gap(Gap(3.0, None, doubts(4)), 10)
    with pytest.raises(Gap) as first:
        await unread.get()
    assert first.value.in_doubt == doubts(1, 2)
    assert await unread.get() == 1
    with pytest.raises(Gap) as second:
        await unread.get()
    assert (second.value.seconds, second.value.in_doubt) == (3.0, doubts(3, 4))
    assert unread.size == 0


async def test_what_is_in_doubt_is_bounded_with_all_that_is_unread() -> None:
    unread: Unread[int] = Unread(Shelf(MembershipLimits(unread_bytes_max=1024)))
    for number in range(3):
        unread.gap(Gap(1.0, "epoch", doubts(*range(5))), 300)
        unread.put(number, 100)
    assert unread.size <= 1024
    with pytest.raises(Lagged) as caught:
        await unread.get()
    assert caught.value.count == 5
    gaps = 0
    for number in range(3):
        with pytest.raises(Gap) as gap:
            await unread.get()
        gaps += len(gap.value.in_doubt)
        assert await unread.get() == number
    assert gaps == 10
    assert unread.size == 0
