"""How a subcommand runs: its event loop, and how it is told to stop."""

import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

import anyio

Result = TypeVar("Result")

SIGPIPE: Final = 13
"""Not everywhere is there such a signal."""


class CannotDo(Exception):
    """What was asked for is not possible. The text is one sentence that says why."""


class Stopped(BaseException):
    """The command was told to stop, by this signal, and everything has ended as it should."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def possible() -> Iterator[None]:
    """What cannot be, as its user has said it, is no fault of the program. Raises CannotDo."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise CannotDo(str(error)) from None


def run(work: Callable[[], Awaitable[Result]]) -> Result:
    """What `work` returns. Ctrl-C and SIGTERM cancel it where it waits, so that a peer leaves and
    a program that it has started ends; so does a reader of the results that has gone. Raises
    Stopped after that."""
    try:
        return anyio.run(partial(_until_told, work))
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT) from None
    except BrokenPipeError:
        raise Stopped(SIGPIPE) from None


async def _until_told(work: Callable[[], Awaitable[Result]]) -> Result:
    was_told = False
    result: list[Result] = []

    async def listen() -> None:
        nonlocal was_told
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                was_told = True
                tasks.cancel_scope.cancel()
                return

    async def do() -> None:
        try:
            result.append(await work())
        finally:
            tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            # Others get no signals, and Windows has no such one.
            if threading.current_thread() is threading.main_thread() and os.name == "posix":
                tasks.start_soon(listen)
            tasks.start_soon(do)
    except BaseExceptionGroup as group:  # of one: only `do` raises
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    if was_told:
        raise Stopped(signal.SIGTERM)
    return result[0]
