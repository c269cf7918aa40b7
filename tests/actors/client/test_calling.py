"""Handlers of every kind: async, plain, generators; and threads, which are bounded."""

import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from anyio.lowlevel import current_token

from actors.client import serving
from actors.client.calling import Threads, Work, call
from actors.client.command import Command
from actors.client.peer import join
from actors.client.websocket import Connector
from protocol.limits import MembershipLimits
from protocol.member.errors import TurnError, TurnFailed
from tests.worlds.live import PATIENCE_S
from tests.worlds.peers import Memory, Serving, message_of, until

pytestmark = pytest.mark.anyio


async def answers_to(where: Connector | Memory, handler: Any) -> tuple[list[str], Any]:
    """The chunks and the result of one command that this handler serves."""
    async with join(where, "bob") as bob, join(where, "ann") as ann, Serving(bob, handler):
        turn = ann.ask("bob", "x")
        return [chunk async for chunk in turn], await turn


# Handlers -----------------------------------------------------------------------------------------


def plain(command: Command) -> str:
    command.stream("a")
    command.stream("b")
    return "done"


def generator(_: Command) -> Generator[str, None, str]:
    yield "a"
    yield "b"
    return "done"


async def async_generator(_: Command) -> AsyncIterator[str]:
    yield "a"
    yield "b"


def returns_a_generator(command: Command) -> Iterator[str]:
    return generator(command)


def returns_an_async_generator(command: Command) -> AsyncIterator[str]:
    return async_generator(command)


async def async_that_returns_a_generator(command: Command) -> Iterator[str]:
    return generator(command)


async def coroutine(command: Command) -> str:
    await command.stream("a")
    await command.stream("b")
    return "done"


def returns_a_coroutine(command: Command) -> Any:
    return coroutine(command)


class AsyncCallable:
    async def __call__(self, command: Command) -> str:
        return await coroutine(command)


class PlainCallable:
    def __call__(self, command: Command) -> str:
        return plain(command)


HANDLERS: dict[str, tuple[Any, Any]] = {
    "a plain function": (plain, "done"),
    "a plain generator function": (generator, "done"),
    "an async generator function": (async_generator, None),
    "a plain function that returns a generator": (returns_a_generator, "done"),
    "a plain function that returns an async one": (returns_an_async_generator, None),
    "an async function that returns a generator": (async_that_returns_a_generator, "done"),
    "an async function": (coroutine, "done"),
    "a plain function that returns a coroutine": (returns_a_coroutine, "done"),
    "a part of an async function": (partial(partial(coroutine)), "done"),
    "an object": (AsyncCallable(), "done"),
    "a plain object": (PlainCallable(), "done"),
}


@pytest.mark.parametrize("kind", HANDLERS)
async def test_every_kind_of_handler_streams_and_returns(here: Memory, kind: str) -> None:
    handler, result = HANDLERS[kind]
    assert await answers_to(here, handler) == (["a", "b"], result)


@pytest.mark.parametrize(
    ("handler", "is_here"),
    [
        (coroutine, True),
        (partial(coroutine), True),
        (AsyncCallable(), True),
        (async_generator, True),
        (plain, False),
        (partial(plain), False),
        (PlainCallable(), False),
        (generator, False),
        (returns_a_coroutine, False),
    ],
)
async def test_plain_functions_are_called_in_a_thread_and_async_ones_are_not(
    here: Memory, monkeypatch: pytest.MonkeyPatch, handler: Any, is_here: bool
) -> None:
    """A plain function may block, which would keep the peer from its heartbeats."""
    in_threads: list[Any] = []
    run = Threads.run

    async def watched(self: Threads, function: Callable[[], Any], ends: Any) -> Any:
        in_threads.append(function)
        return await run(self, function, ends)

    monkeypatch.setattr(Threads, "run", watched)
    await answers_to(here, handler)
    assert (in_threads == []) == is_here


async def test_a_plain_function_that_blocks_holds_nobody_up(where: Connector) -> None:
    """Two commands meet in a barrier: both run, while the peer answers a third one."""
    barrier = threading.Barrier(3, timeout=PATIENCE_S)

    def block(command: Command) -> str:
        if command.text == "quick":
            return "quick"
        barrier.wait()
        return "slow"

    async with join(where, "bob") as bob, join(where, "ann") as ann, Serving(bob, block):
        slow = [ann.ask("bob", "slow") for _ in range(2)]
        assert await ann.ask("bob", "quick") == "quick"
        await anyio.to_thread.run_sync(barrier.wait)
        assert [await turn for turn in slow] == ["slow", "slow"]


async def test_a_chunk_may_come_from_any_thread(here: Memory) -> None:
    """Libraries call back from threads of their own."""

    def elsewhere(command: Command) -> str:
        other = threading.Thread(target=command.stream, args=("from afar",))
        other.start()
        other.join(PATIENCE_S)
        return "done"

    async def nested(command: Command) -> str:
        return await anyio.to_thread.run_sync(elsewhere, command)

    for handler in (elsewhere, nested):
        assert await answers_to(here, handler) == (["from afar"], "done")


async def test_in_a_thread_a_chunk_may_be_awaited_too(here: Memory) -> None:
    """Such as on an event loop that a plain function runs by itself."""

    async def inner(command: Command) -> str:
        await command.stream("a")
        return "done"

    def outer(command: Command) -> Any:
        return anyio.run(inner, command)

    assert await answers_to(here, outer) == (["a"], "done")


# What goes wrong ----------------------------------------------------------------------------------


def raises(_: Command) -> None:
    raise ValueError("out of ink")


def raises_stop(_: Command) -> None:
    raise StopIteration


def breaks_off(_: Command) -> Iterator[str]:
    yield "a"
    raise ValueError("out of ink")


async def raises_async(_: Command) -> None:
    raise ValueError("out of ink")


def returns_no_json(_: Command) -> object:
    return object()


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (raises, "out of ink"),
        (raises_async, "out of ink"),
        (breaks_off, "out of ink"),
        (raises_stop, "StopIteration"),
        (returns_no_json, "object"),
    ],
)
async def test_what_a_handler_raises_is_told_and_logged_with_its_traceback(
    here: Memory, caplog: pytest.LogCaptureFixture, handler: Any, told: str
) -> None:
    with pytest.raises(TurnFailed, match=told):
        await answers_to(here, handler)
    (record,) = [one for one in caplog.records if one.name == serving.__name__]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[2] is not None
    assert (record.peer, record.agent) == ("bob", "bob")  # type: ignore[attr-defined]


async def test_a_generator_is_closed_when_nothing_more_can_be_said(here: Memory) -> None:
    closed = threading.Event()

    def endless(_: Command) -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async with join(here, "bob") as bob, join(here, "ann") as ann:
        async with Serving(bob, endless):
            async for _ in ann.ask("bob", "x"):
                break
        assert await anyio.to_thread.run_sync(closed.wait, PATIENCE_S)


async def test_a_command_that_is_cancelled_abandons_its_thread_which_can_say_nothing_more(
    here: Memory,
) -> None:
    begun, go_on, over = anyio.Event(), threading.Event(), threading.Event()
    said: list[Any] = []

    def slow(command: Command) -> str:
        anyio.from_thread.run_sync(begun.set)
        go_on.wait(PATIENCE_S)
        said.append(command.is_over)
        try:
            command.stream("too late")
        except TurnError as error:
            said.append(str(error))
        over.set()
        return "too late"

    async with join(here, "bob") as bob, join(here, "ann") as ann:
        async with Serving(bob, slow):
            turn = ann.ask("bob", "x")
            await begun.wait()
        with pytest.raises(TurnFailed, match="cancelled"):
            await turn
        go_on.set()
        assert await anyio.to_thread.run_sync(over.wait, PATIENCE_S)
        assert said == [True, "this command is over; nothing more can be said to it"]


async def test_a_command_is_over_when_it_was_answered(here: Memory) -> None:
    kept: list[Command] = []

    def keep(command: Command) -> bool:
        kept.append(command)
        return command.is_over

    assert await answers_to(here, keep) == ([], False)
    assert kept[0].is_over
    with pytest.raises(TurnError):
        await anyio.to_thread.run_sync(kept[0].stream, "x")


# Threads ------------------------------------------------------------------------------------------


async def test_so_many_threads_at_a_time_and_further_commands_wait(here: Memory) -> None:
    limits = MembershipLimits(threads_max=2)
    lock, release = threading.Lock(), threading.Event()
    running, most = 0, 0

    def work(_: Command) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(PATIENCE_S)
        with lock:
            running -= 1
        return "done"

    async with join(here, "bob", limits=limits) as bob, join(here, "ann") as ann:
        async with Serving(bob, work):
            turns = [ann.ask("bob", "x") for _ in range(6)]
            await until(lambda: running == 2)
            release.set()
            assert [await turn for turn in turns] == ["done"] * 6
    assert most == 2


async def test_an_abandoned_thread_counts_until_it_ends() -> None:
    threads = Threads(1)
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.run, hang)
        assert await anyio.to_thread.run_sync(begun.wait, PATIENCE_S)
        tasks.cancel_scope.cancel()
    results: list[str] = []

    async def next_one() -> None:
        results.append(await threads.run(lambda: "next"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_one)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert results == []
        go_on.set()
    assert results == ["next"]


async def test_work_that_is_cancelled_before_it_begins_gives_its_place_back() -> None:
    threads = Threads(1)
    for _ in range(3):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await threads.run(lambda: None)
    with anyio.fail_after(PATIENCE_S):
        assert await threads.run(lambda: "free") == "free"


async def test_work_whose_place_is_somebody_elses_by_now_does_not_begin() -> None:
    """The thread may come to it only after whoever waited was cancelled."""
    limiter, done = anyio.CapacityLimiter(1), []
    work = Work(lambda: done.append("work"), limiter, current_token())
    await limiter.acquire_on_behalf_of(work)
    work.done_with()
    assert limiter.borrowed_tokens == 0
    assert work() == []
    assert done == []


async def test_a_coroutine_that_a_thread_made_is_awaited_on_the_loop(here: Memory) -> None:
    async with join(here, "bob") as bob:
        here_is = threading.get_ident()

        async def where() -> int:
            await anyio.lowlevel.checkpoint()
            return threading.get_ident()

        command: Any = bob
        assert await call(lambda _: where(), command, Threads(1)) == here_is
        assert await call(lambda _: threading.get_ident(), command, Threads(1)) != here_is


async def test_a_coroutine_that_nobody_waits_for_any_more_is_closed() -> None:
    """Else Python warns that it was never awaited, which is no fault of the handler."""
    begun, go_on = threading.Event(), threading.Event()
    coroutine = anyio.sleep_forever()

    def make() -> Any:
        begun.set()
        go_on.wait(PATIENCE_S)
        return coroutine

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Threads(1).run, make)
        assert await anyio.to_thread.run_sync(begun.wait, PATIENCE_S)
        tasks.cancel_scope.cancel()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    go_on.set()
    await until(lambda: inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED)


async def test_a_coroutine_of_a_thread_that_was_just_over_is_closed() -> None:
    coroutine = anyio.sleep_forever()
    limiter = anyio.CapacityLimiter(1)
    work = Work(lambda: coroutine, limiter, current_token())
    await limiter.acquire_on_behalf_of(work)
    assert work() == [coroutine]
    work.done_with()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# One at a time ------------------------------------------------------------------------------------


async def test_a_handler_that_cannot_run_twice_at_once_is_given_one_command_at_a_time(
    where: Connector,
) -> None:
    running, most = 0, 0

    async def work(command: Command) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        running -= 1
        return str(command.text)

    async with join(where, "bob") as bob, join(where, "ann") as ann:
        async with Serving(bob, work, at_a_time=1):
            turns = [ann.ask("bob", str(n)) for n in range(5)]
            assert [await turn for turn in turns] == ["0", "1", "2", "3", "4"]
    assert most == 1


async def test_the_next_command_waits_for_a_thread_whose_command_was_cancelled(
    here: Memory,
) -> None:
    """A thread goes on; an agent that cannot run twice at once would fail."""
    begun, go_on = [], threading.Event()
    first = anyio.Event()

    def work(command: Command) -> str:
        begun.append(command.text)
        if command.text == "first":
            anyio.from_thread.run_sync(first.set)
            go_on.wait(PATIENCE_S)
            begun.append("the first has ended")
        return "done"

    async with join(here, "bob") as bob, join(here, "ann") as ann:
        async with Serving(bob, work, at_a_time=1):
            cancelled, waiting = ann.ask("bob", "first"), ann.ask("bob", "second")
            await first.wait()
            cancelled.cancel()
            with pytest.raises(TurnError):
                await cancelled
            # What bob hears after the cancel it has decided after it, too.
            await ann.direct("bob", "behind it")
            while (await message_of(bob, "direct")).data != "behind it":
                pass
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert begun == ["first"]
            go_on.set()
            assert await waiting == "done"
    assert begun == ["first", "the first has ended", "second"]


async def test_more_than_so_many_may_not_wait(here: Memory) -> None:
    limits = MembershipLimits(service_queue_max=1)
    go_on = anyio.Event()

    async def work(_: Command) -> str:
        await go_on.wait()
        return "done"

    async with join(here, "bob", limits=limits) as bob, join(here, "ann") as ann:
        async with Serving(bob, work, at_a_time=1):
            turns = [ann.ask("bob", "x") for _ in range(2)]
            with pytest.raises(TurnFailed, match="busy: 1 commands wait for bob"):
                await ann.ask("bob", "x")
            go_on.set()
            assert [await turn for turn in turns] == ["done", "done"]


async def test_a_bound_that_cannot_be_meant_is_refused(here: Memory) -> None:
    async with join(here, "bob") as bob:
        with pytest.raises(ValueError, match="at_a_time"):
            await bob.serve(plain, at_a_time=0)
