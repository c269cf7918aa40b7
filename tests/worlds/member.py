"""A `Member` in a mesh, with every connection a pair of pipes that move when they are told to."""

import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from protocol.envelope import ErrorCode, Unreadable
from protocol.instant import Instant
from protocol.limits import Limits, MembershipLimits
from protocol.member.effects import Arrived, Changed, Close, Effect, Finished, Open, Transmit
from protocol.member.lifecycle import MemberState
from protocol.member.member import Member
from protocol.member.messages import Message
from protocol.member.outgoing import Frame
from protocol.mesh.lifecycle import Cause
from tests.worlds.mesh import World, text


@attrs.define
class Pipes:
    """One connection of the member: what is on its way to the relay, and to the member.

    `relay_side` is its number there, None while it is being opened or when the relay has closed it.
    """

    relay_side: int | None = None
    up: deque[bytes] = attrs.Factory(deque)
    down: deque[str] = attrs.Factory(deque)
    is_closed: bool = False


class MemberWorld:
    """Member `ann` and whoever else joins `self.world`. Nothing moves by itself."""

    def __init__(
        self,
        limits: MembershipLimits | None = None,
        relay_limits: Limits | None = None,
        *,
        behind_edge: bool = False,
        member: Member | None = None,
        **metadata: Any,
    ) -> None:
        # What is cut here is lost; tests/worlds/cuts.py has a relay to which a peer comes back.
        self.limits = attrs.evolve(limits or MembershipLimits(), resume_s=0.0)
        self.world = World(relay_limits)
        self.chance = 0.0
        self.behind_edge = behind_edge
        numbers, nonces = itertools.count(1), itertools.count(1)
        self.member = member or Member(
            "ann",
            ["coder"],
            metadata,
            self.limits,
            token="t",
            nonce=lambda: str(next(nonces)),
            roll=lambda: self.chance,
            turn_id=lambda: f"turn-{next(numbers)}",
        )
        self.pipes: dict[int, Pipes] = {}
        self.opening: deque[int] = deque()
        self.arrived: list[Message] = []
        self.finished: list[Finished] = []
        self.seen: list[Effect] = []
        self.changes = 0

    @property
    def now(self) -> Instant:
        return self.world.now

    # What a test chooses --------------------------------------------------------------------------

    def begin(self) -> None:
        self.member.begin(self.now)
        self.obey()

    def open(self) -> bool:
        """The oldest connection that is being made opens."""
        if not self.opening:
            return False
        connection = self.opening.popleft()
        pipes = self.pipes[connection]
        if not pipes.is_closed:
            pipes.relay_side = self.world.open(is_paced=self.behind_edge)
            self.member.opened(connection, self.now)
            self.obey()
        return True

    def refuse(self) -> None:
        """The oldest connection that is being made fails."""
        connection = self.opening.popleft()
        self.pipes[connection].is_closed = True
        self.member.closed(connection, self.now)
        self.obey()

    def rise(self, connection: int) -> bool:
        """One text of the member reaches the relay."""
        pipes = self.pipes[connection]
        if not pipes.up or pipes.relay_side is None:
            return False
        self._say(pipes.relay_side, pipes.up.popleft())
        return True

    def fall(self, connection: int) -> bool:
        """One text of the relay reaches the member."""
        self.collect()
        pipes = self.pipes[connection]
        if not pipes.down:
            return False
        text = pipes.down.popleft()
        if not pipes.is_closed:
            self.member.received(connection, text, self.now)
            self.obey()
        return True

    def pump(self) -> bool:
        """The member hands one message of its queue to its connection."""
        for connection in self.live():
            frame = self.member.next_frame(connection, self.now)
            if isinstance(frame, Frame):
                self.pipes[connection].up.append(frame.text.encode())
                return True
        return False

    def lose(self, connection: int) -> None:
        """The connection breaks: what was on its way is lost."""
        pipes = self.pipes[connection]
        pipes.is_closed = True
        if pipes.relay_side is not None:
            self.world.end(pipes.relay_side)
            pipes.relay_side = None
        pipes.up.clear()
        pipes.down.clear()
        self.member.closed(connection, self.now)
        self.obey()

    def wait(self, seconds: float) -> None:
        """Time passes, for the relay and for the member."""
        until = self.world.at + seconds
        while (due := self.member.deadline()) is not None and due <= until:
            self.world.wait(max(0.0, due - self.world.at))
            self.member.expire(self.now)
            self.obey()
        self.world.wait(until - self.world.at)

    def settle(self) -> None:
        """Everything moves until nothing can."""
        moved = True
        while moved:
            moved = self.open()
            while self.pump():
                moved = True
            for connection in tuple(self.pipes):
                while self.rise(connection) or self.fall(connection):
                    moved = True

    def settle_until(self, condition: Callable[[], bool]) -> None:
        """Everything moves, step by step, new connections first, until this is so."""
        while not condition():
            steps = [self.open, self.pump]
            for connection in reversed(self.live()):
                steps += [partial(self.rise, connection), partial(self.fall, connection)]
            assert any(step() for step in steps), "nothing moves any more"

    # What is seen ---------------------------------------------------------------------------------

    def send(self, type: str, **fields: Any) -> int:
        ticket = self.member.send({"type": type, **fields}, self.now)
        self.obey()
        return ticket

    def data(self, type: str) -> list[Any]:
        """`data` of all messages of this type that arrived, in order."""
        return [message.data for message in self.arrived if message.type == type]

    def live(self) -> list[int]:
        """The connections that are open on the member's side."""
        return [number for number, pipes in self.pipes.items() if not pipes.is_closed]

    # ----------------------------------------------------------------------------------------------

    def collect(self) -> None:
        for pipes in self.pipes.values():
            if pipes.relay_side is not None:
                pipes.down.extend(text.decode() for text in self.world.texts(pipes.relay_side))

    def obey(self) -> None:
        for effect in self.member.take_effects():
            self.seen.append(effect)
            match effect:
                case Open(connection):
                    self.pipes[connection] = Pipes()
                    self.opening.append(connection)
                case Transmit(connection, text):
                    assert not self.pipes[connection].is_closed
                    self.pipes[connection].up.append(text.encode())
                case Close(connection):
                    self._close(self.pipes[connection])
                case Arrived(message, _):
                    self.arrived.append(message)
                case Changed():
                    self.changes += 1
                case Finished():
                    self.finished.append(effect)

    def _say(self, relay_side: int, text: bytes) -> None:
        if len(text) > self.world.limits.message_bytes_max:  # as the transports do
            self.world.say(relay_side, Unreadable(ErrorCode.TOO_LARGE, "too large"))
        else:
            self.world.say(relay_side, text)

    def _close(self, pipes: Pipes) -> None:
        pipes.is_closed = True
        if pipes.relay_side is not None:
            while pipes.up:  # TCP delivers what was sent before the close
                self._say(pipes.relay_side, pipes.up.popleft())
            self.world.end(pipes.relay_side, Cause.LEFT)
            pipes.relay_side = None
            pipes.down.clear()


# How tests begin ---------------------------------------------------------------------------------


def joined(limits: MembershipLimits | None = None, **relay: float) -> MemberWorld:
    """Ann is present, and bob with the agent `helper` (connection 1 of the relay)."""
    world = MemberWorld(limits, Limits(**relay))  # type: ignore[arg-type]
    world.world.join("bob", "helper")
    world.begin()
    world.settle()
    assert world.member.state is MemberState.PRESENT
    world.world.texts(1)
    return world


BOB = 1


def renewing(world: MemberWorld) -> MemberWorld:
    """The time for a new connection has come."""
    while world.member.state is MemberState.PRESENT:
        beat(world)
    assert world.member.state is MemberState.RENEWING
    return world


def beat(world: MemberWorld, seconds: float = 10.0) -> None:
    """Time passes in which everybody gives signs of life and everything arrives."""
    world.world.say(BOB, text("heartbeat"))
    world.wait(seconds)
    for connection in world.live():
        while world.rise(connection) or world.fall(connection):
            pass
