"""Something changed: whoever waits looks again."""

import anyio


class Signal:
    """Something changed: everyone who waits looks again."""

    def __init__(self) -> None:
        self.next = anyio.Event()

    def set(self) -> None:
        event, self.next = self.next, anyio.Event()
        event.set()

    async def wait(self) -> None:
        await self.next.wait()
