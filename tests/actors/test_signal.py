"""A signal wakes everyone who waits, once, and forgets who has given up."""

import anyio
import pytest

from actors.signal import Signal

pytestmark = pytest.mark.anyio


async def waiting(signal: Signal, count: int) -> None:
    while len(signal._waiting) != count:
        await anyio.lowlevel.checkpoint()


async def test_everyone_who_waits_wakes_and_nobody_later() -> None:
    signal, woken = Signal(), []

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    signal.set()  # nobody waits
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "a")
        tasks.start_soon(wait, "b")
        await waiting(signal, 2)
        assert woken == []
        signal.set()
        tasks.start_soon(wait, "c")
        await waiting(signal, 1)
        assert sorted(woken) == ["a", "b"]
        signal.set()
    assert sorted(woken) == ["a", "b", "c"]


async def test_who_gives_up_is_forgotten_and_stops_nobody() -> None:
    signal, woken = Signal(), []

    async def wait() -> None:
        await signal.wait()
        woken.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(3):
            with anyio.move_on_after(0):
                await signal.wait()
        await waiting(signal, 1)
        async with anyio.create_task_group() as others:
            others.start_soon(signal.wait)
            await waiting(signal, 2)
            others.cancel_scope.cancel()
            signal.set()  # it is being cancelled, and was not yet told
    assert woken == [True]
    assert not signal._waiting
