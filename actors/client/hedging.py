"""Openings that nobody answers: others are tried beside them.

A connection that was asked for while a relay was away may hang for long after it is back: its
packets were lost, or what stands in front of the relay has forgotten it. A new one would be
answered at once. But a server may also need long for its first answer, as AgentCore does when it
starts a session; whoever gives up on that gets nowhere. So the first opening stays, and a second
one beside it is made anew, again and again. Whichever is answered first counts, but for one answer:
who refuses a second one may do so because of the first.

A program that wakes late from a pause is too busy to hear answers that may be there already. It has
no reason to doubt the relay, and more openings would keep it busier: it pauses once more.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from actors.clock import Clock
from protocol.member.errors import RelayError, Unreachable

Opened = TypeVar("Opened")

LATE: Final = 0.1
"""Whoever wakes later than that, in parts of the pause, is busy."""


class Hedge(Generic[Opened]):
    """Openings of one connection. `open` makes one; `drop` closes one that came too late.

    The second one comes after `after_s` (seconds of `clock`); then the time doubles, up to
    `most_s`, because whoever is only slow is not helped by many openings.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[Opened]],
        drop: Callable[[Opened], Awaitable[None]],
        *,
        after_s: float,
        most_s: float,
        clock: Clock,
    ) -> None:
        self._open = open
        self._drop = drop
        self._after_s = after_s
        self._most_s = most_s
        self._clock = clock
        self._opened: list[Opened] = []  # at most one
        self._error: Exception | None = None
        self._is_refused = False
        self._is_answered = anyio.Event()

    async def first(self) -> Opened:
        """What `open` returns, or raises, when it is answered. Call this once."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._try, anyio.CancelScope(), True)
                tasks.start_soon(self._try_others, tasks)
                await self._is_answered.wait()
                tasks.cancel_scope.cancel()
        except BaseException:
            for opened in self._opened:
                await self._drop(opened)
            raise
        if self._error is not None:
            raise self._error
        return self._opened[0]

    async def _try_others(self, tasks: TaskGroup) -> None:
        other, pause_s = anyio.CancelScope(), self._after_s
        while True:
            if await self._paused_late(pause_s):
                await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, self._most_s)
            if self._is_refused:
                return
            other.cancel()
            other = anyio.CancelScope()
            tasks.start_soon(self._try, other, False)

    async def _paused_late(self, pause_s: float) -> bool:
        """Pause for so long. Returns whether it took clearly longer."""
        began = self._clock.now().at
        await self._clock.sleep(pause_s)
        return self._clock.now().at - began > (1 + LATE) * pause_s

    async def _try(self, scope: anyio.CancelScope, is_first: bool) -> None:
        with scope:
            try:
                opened = await self._open()
            except Exception as error:
                is_refusal = isinstance(error, RelayError) and not isinstance(error, Unreachable)
                if is_refusal and not is_first:
                    self._is_refused = True
                elif not self._is_answered.is_set():
                    self._error = error
                    self._is_answered.set()
                return
            if self._is_answered.is_set():
                await self._drop(opened)
            else:
                self._opened.append(opened)
                self._is_answered.set()
