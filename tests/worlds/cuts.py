"""Members and a relay to which they come back: every socket moves, and is cut, by hand."""

import itertools
import json
from collections import deque
from typing import Any

import attrs

from actors.link import ABNORMAL
from actors.relay.peer import PeerActor
from actors.relay.supervisor import Supervisor
from protocol.envelope import Inbound
from protocol.grants import OPEN, Grant
from protocol.instant import Instant
from protocol.limits import Limits, MembershipLimits
from protocol.member.effects import (
    DROP_CODE,
    Arrived,
    Close,
    Drop,
    Effect,
    Missed,
    Open,
    Resumed,
    Transmit,
)
from protocol.member.errors import Gap
from protocol.member.lifecycle import MemberState, renewed_by
from protocol.member.member import Member
from protocol.member.messages import Message
from protocol.member.outgoing import Frame
from protocol.mesh.local import LocalMesh
from tests.actors.relay.test_peer import HandClock, HandTransport


@attrs.define(eq=False)
class Socket:
    """One socket. `up`: what the member has handed to it and the relay has not got."""

    actor: PeerActor
    transport: HandTransport
    up: deque[str] = attrs.Factory(deque)
    is_cut: bool = False


class CutRelay:
    """A relay that is moved by hand."""

    def __init__(self, **limits: Any) -> None:
        self.clock = HandClock()
        self.limits = Limits(**limits)
        self.epochs = itertools.count(1)
        self.starts()

    def starts(self) -> None:
        """It is another process from here on."""
        epoch, numbers = next(self.epochs), itertools.count(1)

        def new_token() -> str:
            return f"token {epoch}.{next(numbers)}"

        mesh = LocalMesh(self.limits, new_token=new_token)
        self.supervisor = Supervisor("m", self.limits, self.clock, mesh=mesh)

    def settle(self) -> None:
        """Everything is decided that has come."""
        while self.supervisor.has_work:
            self.supervisor.round()

    @property
    def peers(self) -> dict[str, str]:
        """The peers that are here, and their states."""
        return {peer.peer: peer.state.value for peer in self.supervisor.status().peers}


class CutMember:
    """A member whose sockets are cut by hand. `messages`, `gaps`, `resumed`: what its program has
    seen, in order; `story`: all of that together."""

    def __init__(
        self,
        relay: CutRelay,
        id: str,
        *,
        limits: MembershipLimits | None = None,
        grant: Grant = OPEN,
        member: Member | None = None,
        **setup: Any,
    ) -> None:
        self.relay, self.id, self.grant = relay, id, grant
        numbers, nonces = itertools.count(1), itertools.count(1)
        self.limits = limits or MembershipLimits()
        self.member = member or Member(
            id,
            setup.pop("agents", []),
            {},
            self.limits,
            token=id,
            nonce=lambda: str(next(nonces)),
            roll=lambda: 0.5,
            turn_id=lambda: f"{id}-turn-{next(numbers)}",
            **setup,
        )
        self.sockets: dict[int, Socket] = {}
        self.opening: deque[int] = deque()
        self.cut_sockets: list[Socket] = []
        self.story: list[Message | Gap] = []
        self.seen: list[Effect] = []
        self.resumed = 0
        self.is_network_there = True

    @property
    def now(self) -> Instant:
        return self.relay.clock.now()

    @property
    def messages(self) -> list[Message]:
        return [one for one in self.story if isinstance(one, Message)]

    @property
    def gaps(self) -> list[Gap]:
        return [one for one in self.story if isinstance(one, Gap)]

    def data(self, *types: str) -> list[Any]:
        """`data` of all messages of these types, in order."""
        return [message.data for message in self.messages if message.type in types]

    @property
    def is_asking(self) -> bool:
        """It has asked to come back, and does not know the answer."""
        return self.member.state is MemberState.JOINING and bool(self.sockets)

    # What a test chooses --------------------------------------------------------------------------

    def begin(self) -> "CutMember":
        self.member.begin(self.now)
        self.obey()
        self.settle()
        assert self.member.state is MemberState.PRESENT
        return self

    def say(self, type: str, data: Any = None, **fields: Any) -> None:
        self.member.send({"type": type, "data": data, **fields}, self.now)
        self.obey()

    def pump(self, most: int = 10_000) -> None:
        """The member hands so many frames to its sockets."""
        for number in [*self.sockets]:
            while most > 0:
                frame = self.member.next_frame(number, self.now)
                if not isinstance(frame, Frame):
                    self.obey()
                    break
                self.sockets[number].up.append(frame.text)
                self.obey()  # what is said behind it
                most -= 1

    def rise(self, most: int = 10_000) -> None:
        """So many frames reach the relay, in one read."""
        for socket in self.sockets.values():
            frames: list[Inbound] = [
                socket.up.popleft().encode() for _ in range(min(most, len(socket.up)))
            ]
            if frames and not socket.is_cut and socket.actor.close_code is None:
                socket.actor.received(frames)

    def fall(self, most: int = 10_000, *, as_array: bool = False) -> None:
        """So many messages reach the member, one by one or as an array."""
        for number, socket in [*self.sockets.items()]:
            texts = [text.decode() for text in socket.transport.sent[:most]]
            del socket.transport.sent[:most]
            if as_array and len(texts) > 1:
                texts = [f"[{','.join(texts)}]"]
            for text in texts:
                if number in self.sockets and not socket.is_cut:
                    self.member.received(number, text, self.now)
                    self.obey()
            code = socket.transport.closed_with
            if code is not None and not socket.transport.sent and number in self.sockets:
                del self.sockets[number]
                socket.actor.closed(code)
                self.member.closed(number, self.now, code)
                self.obey()

    def open(self) -> None:
        """The sockets that are being made open, or fail."""
        while self.opening:
            number = self.opening.popleft()
            if not self.is_network_there:
                self.member.closed(number, self.now)
            else:
                transport = HandTransport()
                actor = self.relay.supervisor.open(transport, grant=self.grant)
                self.sockets[number] = Socket(actor, transport)
                self.member.opened(number, self.now)
            self.obey()

    def settle(self) -> None:
        """Everything moves until nothing can."""
        for _ in range(30):
            self.open()
            self.pump()
            self.rise()
            self.relay.settle()
            self.fall()
        for socket in self.cut_sockets:
            if socket.transport.closed_with is not None and socket.actor.close_code is None:
                socket.actor.closed(socket.transport.closed_with)

    def cut(self, *, up: int = 0, down: int = 0, is_noticed: bool = True) -> None:
        """All sockets break. So many frames, and messages, still arrive before that.

        `is_noticed`: by the relay. The member notices in any case.
        """
        self.rise(up)
        self.fall(down)
        for number, socket in [*self.sockets.items()]:
            del self.sockets[number]
            self.cut_sockets.append(socket)
            socket.is_cut = True
            if is_noticed and socket.actor.close_code is None:
                socket.actor.closed(ABNORMAL)
            self.member.closed(number, self.now)
            self.obey()

    def wait(self, seconds: float) -> None:
        """Time passes for all, and the member does what is due."""
        until = self.relay.clock.at + seconds
        while (due := self.member.deadline()) is not None and due <= until:
            self.relay.clock.at = max(due, self.relay.clock.at)
            self.member.expire(self.now)
            self.obey()
            self.open()
        self.relay.clock.at = until
        self.relay.supervisor.round()

    def renew(self) -> None:
        """The time for another connection has come."""
        connections = self.member._connections
        connections._life = renewed_by(connections._life, self.now.at)
        self.member.expire(self.now)
        self.obey()

    def beat(self) -> None:
        """The time for a heartbeat has come, and nobody looks at the clock."""
        connections = self.member._connections
        if connections.is_in_use:
            connections._heartbeat(self.now)
            self.obey()

    def come_back(self) -> None:
        """It tries again at once, and everything settles."""
        self.is_network_there = True
        self.member.nudge(self.now)
        self.obey()
        self.settle()

    # ----------------------------------------------------------------------------------------------

    def obey(self) -> None:
        for effect in self.member.take_effects():
            self.seen.append(effect)
            match effect:
                case Open(number):
                    self.opening.append(number)
                case Transmit(number, text):
                    if number in self.sockets:
                        self.sockets[number].up.append(text)
                case Close(number) | Drop(number):
                    self._close(number, 1000 if isinstance(effect, Close) else DROP_CODE)
                case Arrived(message, _):
                    self.story.append(message)
                case Missed(error):
                    assert isinstance(error, Gap)
                    self.story.append(error)
                case Resumed():
                    self.resumed += 1

    def _close(self, number: int, code: int) -> None:
        socket = self.sockets.pop(number, None)
        if socket is not None and socket.actor.close_code is None:
            frames: list[Inbound] = [
                text.encode() for text in socket.up
            ]  # TCP delivers what was sent before
            if frames:
                socket.actor.received(frames)
            socket.actor.closed(code)


def numbers(member: CutMember) -> list[int]:
    """The numbers in the streams and directs that the member has got."""
    return [n for n in member.data("stream", "direct") if isinstance(n, int)]


def text_of(socket: Socket) -> list[dict[str, Any]]:
    """What is in a socket, to be read by the member."""
    return [json.loads(text) for text in socket.transport.sent]
