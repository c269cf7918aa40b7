"""The connections of a peer: each has one reader and one writer, and decides nothing.

What is said in one breath shares a frame: a command that is acknowledged, answered in three pieces
and ended is five messages, and five frames would cost the peer more than all the rest. So the
writer waits as long as each pass of the event loop brings another message. A message that comes
alone waits for one pass.
"""

import logging
from collections import deque
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from actors.client.driver import Driver
from actors.client.websocket import Address, Connector
from actors.link import ABNORMAL, Link, LinkClosed
from protocol.member.errors import BadAddress, RelayError, Unreachable
from protocol.member.outgoing import Frame

log = logging.getLogger(__name__)

URGENT_MAX: Final = 1000
"""A connection on which more texts of the membership itself wait takes nothing: it is dropped."""
PAUSE_S_MAX: Final = 1.0
"""The longest pause (seconds) between messages, so that a heartbeat never waits longer."""
GATHER_PASSES_MAX: Final = 16
"""For so many passes of the event loop a message waits for others at most."""


class _Line:
    """One connection. `urgent` is sent before anything of the queue."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.urgent: deque[str] = deque()
        self.scope = anyio.CancelScope()
        self.is_sending = False
        self.close_code = 1000


class Lines:
    """The connections that a member wants, by number. `connector` makes them."""

    def __init__(self, driver: Driver, connector: Connector) -> None:
        self._driver = driver
        self._connector = connector
        self._lines: dict[int, _Line] = {}

    @property
    def is_sending(self) -> bool:
        """Something is on its way into a connection."""
        return any(line.urgent or line.is_sending for line in self._lines.values())

    def open(self, number: int, tasks: TaskGroup) -> None:
        """Make a connection, in a task of its own."""
        line = self._lines[number] = _Line(number)
        tasks.start_soon(self._carry, line)

    def transmit(self, number: int, text: str) -> None:
        """Send this text before anything that waits in the queue."""
        self._lines[number].urgent.append(text)

    def close(self, number: int, code: int = 1000) -> None:
        """Close the connection, if it is there."""
        line = self._lines.pop(number, None)
        if line is not None:
            line.close_code = code
            line.scope.cancel()

    async def _carry(self, line: _Line) -> None:
        """One connection, from its making to its end."""
        with line.scope:
            try:
                link = await self._connector()
                if isinstance(link, (str, Address)):
                    raise BadAddress(
                        "join takes a connector: put this function into websocket(...)"
                    )
            except RelayError as error:
                self._not_made(line, error)
                return
            except Exception as error:
                # Whatever a user's connector raises may hold a credential: only its name is shown.
                kind = type(error).__name__
                self._not_made(line, Unreachable(f"the connection could not be made ({kind})"))
                return
            try:
                await self._use(line, link)
            except Exception:
                log.exception("connection crashed", extra={"peer": self._driver.member.id})
                self._lost(line, LinkClosed(ABNORMAL, "it crashed"))
            finally:
                await link.aclose(line.close_code)

    async def _use(self, line: _Line, link: Link) -> None:
        driver = self._driver
        driver.member.opened(line.number, driver.now())
        driver.obey()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, line, link)
            try:
                while len(line.urgent) <= URGENT_MAX:
                    frame = await link.receive()
                    driver.member.received(line.number, frame, driver.now())
                    driver.obey()
                end = LinkClosed(ABNORMAL, "it took nothing")
            except LinkClosed as closed:
                end = closed
            log.info("connection closed: %s", end, extra={"peer": driver.member.id})
            tasks.cancel_scope.cancel()
        self._lost(line, end)

    async def _write(self, line: _Line, link: Link) -> None:
        driver = self._driver
        try:
            while link.is_open:  # looked at last before something is taken to be sent
                due: Frame | float | None
                if line.urgent:
                    due = Frame(line.urgent.popleft(), ())
                else:
                    due = driver.member.next_frame(line.number, driver.now())
                    if isinstance(due, Frame):
                        driver.obey()
                if isinstance(due, Frame):
                    await self._send(line, link, due.text)
                elif due is None:
                    await driver.sendable.wait()
                    await self._gather()
                else:
                    pause_s = due - driver.now().at
                    await driver.clock.sleep(min(max(0.0, pause_s), PAUSE_S_MAX))
        except LinkClosed:
            pass  # the reader notices too, after what still arrives

    async def _gather(self) -> None:
        """Wait as long as more comes."""
        queued = 0
        for _ in range(GATHER_PASSES_MAX):
            before, queued = queued, self._driver.member.queued
            if queued <= before:
                return
            await anyio.lowlevel.checkpoint()

    async def _send(self, line: _Line, link: Link, text: str) -> None:
        line.is_sending = True
        try:
            await link.send(text)
        finally:
            line.is_sending = False
            self._driver.sendable.set()  # there is room now

    def _lost(self, line: _Line, end: LinkClosed) -> None:
        driver = self._driver
        driver.member.closed(line.number, driver.now(), end.code, end.reason)
        driver.obey()

    def _not_made(self, line: _Line, error: RelayError) -> None:
        driver = self._driver
        driver.member.failed(line.number, error, driver.now())
        driver.obey()
