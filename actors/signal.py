"""A signal that something has changed, for all tasks that wait for it."""

import anyio


class Signal:
    """Wakes all tasks that wait; each of them then looks at what has changed."""

    def __init__(self) -> None:
        self.next = anyio.Event()

    def set(self) -> None:
        """Wake everyone who waits now."""
        event, self.next = self.next, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait until the next `set`."""
        await self.next.wait()
