"""One `Member` in time: it gets the clock's instants, and what it decides is carried out.

Everything else in this package works with a `Driver` instead of the whole peer, and so needs to
know nothing of the others.
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio

from actors.clock import Clock
from actors.signal import Signal
from protocol.instant import Instant
from protocol.member.effects import Changed, Effect, Finished, Ready, Sendable, Transmit
from protocol.member.member import Member

_CHANGES = (Changed, Ready, Finished)
_SENDABLE = (Sendable, Transmit, Finished)


class Driver:
    """Drives `member` by `clock`. `carry_out` is called with the effects, in order: all of them but
    `Sendable`, which is the driver's own matter."""

    def __init__(self, member: Member, clock: Clock, carry_out: Callable[[Effect], None]) -> None:
        self.member = member
        self.clock = clock
        self.changed = Signal()
        """The state or the roster is another, or the peer is over."""
        self.sendable = Signal()
        """What waits to be sent, or the room for more, is not what it was."""
        self._state = member.state
        self._carry_out = carry_out
        self._due = Signal()  # something is due earlier than was known
        self._abandoned: deque[str] = deque()  # turns of which the collector of garbage told
        self._thread: int | None = None  # in which time is kept
        self._sleeps_until: float | None = None

    def now(self) -> Instant:
        """The present."""
        return self.clock.now()

    def obey(self) -> None:
        """Carry out what the member has decided. To be called after everything it is told."""
        for effect in self.member.take_effects():
            if not isinstance(effect, Sendable):
                self._carry_out(effect)
            if isinstance(effect, _CHANGES):
                self.changed.set()
            if isinstance(effect, _SENDABLE):
                self.sendable.set()
        if self.member.state is not self._state:
            self._state = self.member.state
            self.sendable.set()  # without a connection nobody waits for room
        due = self.member.deadline()
        if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
            self._due.set()

    def check(self) -> None:
        """Raise what ended the peer, if it is over."""
        if self.member.over is not None:
            raise self.member.over.with_traceback(None)  # or that would grow each time

    async def room(self) -> None:
        """Wait until the queue takes another message. Without a connection there is no waiting: it
        takes it or refuses it. Raises what ended the peer."""
        while self.member.is_in_use and not self.member.has_room:
            self.check()
            await self.sendable.wait()

    def abandon_later(self, turn: str) -> None:
        """Tell the member that nobody waits for this turn any more. May be called at any time, in
        the middle of something and in any thread; in another one it takes until something else is
        due."""
        self._abandoned.append(turn)
        if threading.get_ident() == self._thread:
            with suppress(Exception):  # the loop may be over by now, and then nothing matters
                self._due.set()

    async def keep_time(self) -> None:
        """Tell the member what is due, for ever."""
        self._thread = threading.get_ident()
        while True:
            due = self._sleeps_until = self.member.deadline()
            async with anyio.create_task_group() as tasks:
                if due is not None:
                    tasks.start_soon(self._sleep_until, due)
                await self._due.wait()
                tasks.cancel_scope.cancel()
            self._sleeps_until = None
            now = self.now()
            while self._abandoned:
                self.member.abandon(self._abandoned.popleft(), now)
            if (due := self.member.deadline()) is not None and due <= now.at:
                self.member.expire(now)
            self.obey()

    async def _sleep_until(self, due: float) -> None:
        await self.clock.sleep(max(0.0, due - self.now().at))
        self._due.set()
