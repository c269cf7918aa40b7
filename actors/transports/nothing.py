"""What does nothing, for a protocol whose application has returned: all connections share it."""

import asyncio
from typing import Any, Final


class Nowhere(asyncio.Queue[Any]):
    """A queue that forgets: for ASGI events after the application has returned. All connections
    share one."""

    def put_nowait(self, item: object) -> None:
        pass


NOWHERE: Final = Nowhere()


class Nevermind(asyncio.Event):
    """An event that nobody waits for. All connections share one."""

    def set(self) -> None:
        pass

    def clear(self) -> None:
        pass


NEVERMIND: Final = Nevermind()


class NoTimer:
    """Looks like a timer that is set. A real timer would keep the context of the opening alive."""

    def cancel(self) -> None:
        pass


NO_TIMER: Final = NoTimer()
