"""How a handler is called: on the event loop if it is async, and else in a worker thread.

A plain function may block: on the event loop it would keep the peer from its heartbeats, and other
commands from being answered. What a handler returns may be awaitable, or a generator, whose chunks
are streamed one by one; then what it returns is the result.

A thread cannot be stopped. When a command is cancelled whose function runs in a thread, the thread
is abandoned: what it streams from then on is refused, and what it returns is ignored. It counts
among the threads of the peer until it ends.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator
from contextlib import aclosing, closing, suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import EventLoopToken, current_token

from actors.client.command import Command

Handler = Callable[[Command], Any]
"""What a user serves with."""

Result = TypeVar("Result")

Ends = list[anyio.Event]
"""Of the threads in which a command ran: each is set when its thread has ended."""


class Threads:
    """The worker threads of one peer: `threads_max` at a time, and whoever needs one more waits.
    Those that were abandoned count until they end."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._limiter: anyio.CapacityLimiter | None = None  # which needs an event loop

    async def run(self, function: Callable[[], Result], ends: Ends | None = None) -> Result:
        """What `function` returns, called in a thread. If this is cancelled, the thread goes on;
        `ends` gets an event that tells when it has ended."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._threads_max)
        work = Work(function, self._limiter, current_token())
        await self._limiter.acquire_on_behalf_of(work)
        if ends is not None:
            ends.append(work.ended)
        try:
            # With a limiter that is never full, because the one that counts is given back later.
            alone = anyio.CapacityLimiter(1)
            boxed = await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=alone)
            return boxed.pop()
        finally:
            work.done_with()


class Work(Generic[Result]):
    """One call in a thread, which gives its place among the threads back exactly once: when it has
    ended, or when it is certain that it will not begin."""

    def __init__(
        self, function: Callable[[], Result], limiter: anyio.CapacityLimiter, token: EventLoopToken
    ) -> None:
        self._function = function
        self._limiter = limiter
        self._token = token
        self._lock = threading.Lock()
        self.ended = anyio.Event()
        """It runs no more, and never will."""
        self._has_begun = False
        self._is_over = False
        self._boxed: list[Result] = []

    def __call__(self) -> list[Result]:
        """What the function returns, in a list: trio takes no awaitable from a thread. Whoever
        takes it out is who waits for it."""
        with self._lock:
            if self._is_over:
                return []  # nobody waits for it, and its place is somebody else's by now
            self._has_begun = True
        try:
            self._boxed.append(self._function())
            return self._boxed
        finally:
            with self._lock:
                was_abandoned, self._is_over = self._is_over, True
            if was_abandoned:
                self._forget()
                _soon(self._token, self._release)

    def done_with(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            goes_on = self._has_begun and not self._is_over
            self._is_over = True
        if not goes_on:
            self._forget()
            self._release()

    def _forget(self) -> None:
        for result in self._boxed:
            if inspect.iscoroutine(result):
                result.close()  # or Python warns that it was never awaited

    def _release(self) -> None:
        self._limiter.release_on_behalf_of(self)
        self.ended.set()


def _soon(token: EventLoopToken, function: Callable[[], None]) -> None:
    """Call this on the event loop. The thread does not wait for it, because a loop that is ending
    may never come to it."""
    loop: Any = token.native_token
    with suppress(RuntimeError):  # it is over
        if isinstance(loop, asyncio.AbstractEventLoop):
            loop.call_soon_threadsafe(function)
        else:
            loop.run_sync_soon(function)


async def call(
    handler: Handler, command: Command, threads: Threads, ends: Ends | None = None
) -> Any:
    """The result of a command. Raises what the handler raises, and what `command.stream` does."""
    if _is_async(handler):
        result = handler(command)
    else:
        result = await threads.run(partial(_plainly, handler, command), ends)
    if inspect.isawaitable(result):
        result = await result
    is_async, is_plain = inspect.isasyncgen(result), inspect.isgenerator(result)
    if is_async:
        async with aclosing(result):
            async for chunk in result:
                await command.stream(chunk)
        return None
    if is_plain:
        return await threads.run(partial(_streamed, result, command), ends)
    return result


def _plainly(handler: Handler, command: Command) -> Any:
    result = handler(command)
    # In this thread already: it may hold what belongs to it.
    return _streamed(result, command) if _is_plain_generator(result) else result


def _is_plain_generator(result: Any) -> bool:
    return inspect.isgenerator(result) and not inspect.isawaitable(result)


def _streamed(chunks: Generator[Any, None, Any], command: Command) -> Any:
    """What the generator returns, after all that it yields was streamed."""
    with closing(chunks):
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as end:
                return end.value
            command.stream(chunk)


_CALLED: Final = "__call__"


def _is_async(handler: Handler) -> bool:
    """It is an async function or generator function, or an object that is called like one."""
    plain = handler
    while isinstance(plain, partial):
        plain = plain.func
    calls = (plain, getattr(type(plain), _CALLED, None))
    return any(inspect.iscoroutinefunction(it) or inspect.isasyncgenfunction(it) for it in calls)
