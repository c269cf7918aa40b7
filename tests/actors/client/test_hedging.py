"""Openings that nobody answers, and others beside them."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from actors.client.hedging import Hedge
from actors.clock import VirtualClock
from protocol.member.errors import Rejected, RelayError, Unreachable

pytestmark = pytest.mark.anyio


class Openings:
    """Openings by number, from 1, that a test answers. `made`: those that were begun."""

    def __init__(self) -> None:
        self.made = 0
        self.under_way: set[int] = set()
        self.dropped: list[int] = []
        self.result: int | Exception | None = None
        self.clock = VirtualClock()
        self._answers: dict[int, Exception | None] = {}
        self._changed = anyio.Event()

    async def open(self) -> int:
        self.made += 1
        number = self.made
        self.under_way.add(number)
        try:
            while number not in self._answers:
                await self._changed.wait()
        finally:
            self.under_way.remove(number)
        error = self._answers[number]
        if error is not None:
            raise error
        return number

    async def drop(self, number: int) -> None:
        self.dropped.append(number)

    async def answer(self, *numbers: int, error: Exception | None = None) -> None:
        self._answers |= dict.fromkeys(numbers, error)
        self._changed.set()
        self._changed = anyio.Event()
        await self.clock.advance(0.0)

    async def run(self) -> None:
        hedge = Hedge(self.open, self.drop, after_s=2.0, most_s=5.0, clock=self.clock)
        try:
            self.result = await hedge.first()
        except RelayError as error:
            self.result = error


@pytest.fixture
async def openings() -> AsyncIterator[Openings]:
    openings = Openings()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openings.run)
        await openings.clock.advance(0.0)
        yield openings
        tasks.cancel_scope.cancel()


async def test_what_is_answered_in_time_is_the_only_one(openings: Openings) -> None:
    await openings.clock.advance(1.9)
    await openings.answer(1)
    assert (openings.result, openings.made) == (1, 1)


async def test_the_first_one_stays_and_the_other_is_always_a_new_one(openings: Openings) -> None:
    for waited, there in ((1.9, {1}), (0.2, {1, 2}), (4.0, {1, 3}), (5.0, {1, 4}), (50.0, {1, 14})):
        await openings.clock.advance(waited)
        assert openings.under_way == there


@pytest.mark.parametrize("answered", [1, 4])
async def test_whichever_is_answered_first_counts(openings: Openings, answered: int) -> None:
    await openings.clock.advance(11.1)
    await openings.answer(answered)
    assert openings.result == answered
    assert not openings.under_way


async def test_what_is_answered_too_late_is_closed(openings: Openings) -> None:
    await openings.clock.advance(2.1)
    await openings.answer(1, 2)
    assert openings.result in (1, 2)
    assert openings.dropped == [{1: 2, 2: 1}[openings.result]]


async def test_an_error_of_the_first_one_counts(openings: Openings) -> None:
    error = Rejected("no", 403)
    await openings.answer(1, error=error)
    assert openings.result is error


async def test_where_nobody_is_any_more_the_first_one_is_in_vain(openings: Openings) -> None:
    await openings.clock.advance(2.1)
    error = Unreachable("the port is dead")
    await openings.answer(2, error=error)
    assert openings.result is error
    assert not openings.under_way


async def test_who_refuses_another_one_is_not_asked_again_and_may_answer_the_first(
    openings: Openings,
) -> None:
    """AgentCore answers 409 while it starts a session, for which the first one waits."""
    await openings.clock.advance(2.1)
    await openings.answer(2, error=Rejected("not now", 409))
    assert openings.result is None
    await openings.clock.advance(60.0)
    assert openings.under_way == {1}
    await openings.answer(1)
    assert openings.result == 1


async def test_who_stops_waiting_leaves_nothing_open() -> None:
    openings = Openings()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openings.run)
        await openings.clock.advance(2.1)
        assert len(openings.under_way) == 2
        tasks.cancel_scope.cancel()
    assert not openings.under_way


async def test_what_was_opened_as_its_owner_stopped_waiting_is_closed() -> None:
    openings = Openings()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(openings.run)
        await openings.clock.advance(0.0)
        openings._answers[1] = None
        openings._changed.set()
        while not openings.made or openings.under_way:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert openings.result == 1 or openings.dropped == [1]


async def test_a_program_that_wakes_late_pauses_once_more(openings: Openings) -> None:
    await openings.clock.jump(2.5)
    assert openings.made == 1
    await openings.clock.advance(1.9)
    assert openings.made == 1
    await openings.clock.advance(0.2)
    assert openings.made == 2


async def test_and_only_once(openings: Openings) -> None:
    await openings.clock.jump(2.5)
    await openings.clock.jump(2.5)
    assert openings.made == 2
