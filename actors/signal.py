"""A signal that something has changed, for all tasks that wait for it."""

import asyncio

import anyio


class Signal:
    """Wakes all tasks that wait; each of them then looks at what has changed.

    Supervisors wait for one in every round. So on asyncio a task waits for a bare future, which
    costs a third of an `anyio.Event`. If nobody waits, a signal costs nearly nothing.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None] | anyio.Event] = set()

    def set(self) -> None:
        """Wake everyone who waits now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for one in waiting:
                if isinstance(one, anyio.Event):
                    one.set()
                elif not one.done():  # it may have been cancelled a moment ago
                    one.set_result(None)

    async def wait(self) -> None:
        """Wait until the next `set`."""
        one: asyncio.Future[None] | anyio.Event
        try:
            one = asyncio.get_running_loop().create_future()
        except RuntimeError:  # this is trio
            one = anyio.Event()
        self._waiting.add(one)
        try:
            await (one.wait() if isinstance(one, anyio.Event) else one)
        finally:
            self._waiting.discard(one)
