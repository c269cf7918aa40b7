"""The stream of the console over HTTP: what observers see, as server-sent events."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from actors.host.observing import Observers, TooMany

SEND_S: Final = 30.0
"""An observer that takes nothing for so long is cut off."""


class Stream(Response):
    """The answer that has the events of one mesh, as they come. Too many observers: 503."""

    def __init__(self, observers: Observers, mesh: str) -> None:
        super().__init__()
        self._observers = observers
        self._mesh = mesh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until one of both ends goes."""
        try:
            self._observers.check_room()
        except TooMany as error:
            await PlainTextResponse(f"{error}\n", 503, {"retry-after": "5"})(scope, receive, send)
            return
        with suppress(SendTimeoutError):  # who is cut off hears of it by that
            await EventSourceResponse(self._events(), send_timeout=SEND_S)(scope, receive, send)

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        try:
            async for told in self._observers.observe(self._mesh):
                yield ServerSentEvent(told.data, event=told.type)
        except TooMany:
            return  # another one was faster
