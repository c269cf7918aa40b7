"""What goes over the sockets of a peer, so that a connection can go on after its socket was cut.

Every number that the peer opens stands for a socket. What each carries is counted and kept by a
`Resuming` (protocol/member/resuming.py), which moves to another socket when it comes back. At most
one has none at a time (`is_away`): it was the one in use.

The peer asks on every new socket before it announces itself, and reports with every heartbeat and
after so many frames, but not too often. The answers to that are taken here, whenever and wherever
they come: nobody else can know their turn ids.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from protocol.limits import MembershipLimits
from protocol.member.effects import Effect, Transmit
from protocol.member.messages import Message, write_message
from protocol.member.outgoing import Frame, Outgoing
from protocol.member.resuming import Resuming

_ANSWERS: Final = frozenset({"capabilities_response", "error"})


class Sockets:
    """Those of the peer `id`. `turn_id()` makes one that nobody can guess; `emit` takes effects.

    `outgoing`: gives the pace at which frames are sent again.
    """

    def __init__(
        self,
        id: str,
        limits: MembershipLimits,
        *,
        outgoing: Outgoing,
        turn_id: Callable[[], str],
        emit: Callable[[Effect], None],
    ) -> None:
        self._id = id
        self._limits = limits
        self._outgoing = outgoing
        self._turn_id = turn_id
        self._emit = emit
        self._carried: dict[int, Resuming] = {}
        self._asked: dict[int, str] = {}  # by socket: the turn id of what was asked there
        self._away: Resuming | None = None
        self._reason: str | None = None
        self._doubts: tuple[str, ...] = ()

    # What goes out --------------------------------------------------------------------------------

    def transmit(self, socket: int, text: str) -> None:
        """Send this text at once, before anything that waits in the queue."""
        self._emit(Transmit(socket, text))
        if socket in self._carried:
            self._carried[socket].frame(text, count=0)

    def queued(self, socket: int, frame: Frame, at: float) -> None:
        """A frame of the queue goes out now."""
        carried = self._carried.get(socket)
        if carried is not None:
            carried.frame(frame.text, frame.said, len(frame.tickets))
            self.report_in_time(socket, at)

    def has_room(self, socket: int) -> bool:
        """A frame of the queue may go there: what is kept is bounded."""
        carried = self._carried.get(socket)
        return carried is None or carried.has_room

    def is_behind(self, socket: int) -> bool:
        """Something is to be sent there again, before anything of the queue."""
        carried = self._carried.get(socket)
        return carried is not None and carried.is_behind

    def again(self, socket: int, at: float) -> Frame | float:
        """The next frame that goes out again; or, if the pace forbids it, at what time (monotonic
        seconds) to ask for it. Its tickets were told before."""
        carried = self._carried[socket]
        kept = carried.peek()
        due = self._outgoing.repeat(kept.size, kept.count, at)
        if due is not None:
            return due
        carried.again()
        self.report_in_time(socket, at)
        return Frame(kept.text, ())

    @property
    def waiting(self) -> int:
        """How many messages of the queue wait to be sent again."""
        away = 0 if self._away is None else self._away.waiting
        return sum([carried.waiting for carried in self._carried.values()], away)

    # Asking and reporting -------------------------------------------------------------------------

    def ask(self, socket: int, history: Mapping[str, Any] | None = None) -> None:
        """The socket is new: ask that what it carries may come back, and for what was said before
        (`data.history`)."""
        carried = Resuming(self._limits)
        asked = {"resume": carried.ask(), "history": history}
        data = {name: wish for name, wish in asked.items() if wish is not None}
        if data:
            self._carried[socket] = carried
            self._asked[socket] = self._question(socket, data)

    def report(self, socket: int, at: float, *, is_quiet: bool) -> bool:
        """Say what has arrived, and ask what has been taken. False: there is nothing to report.

        `is_quiet`: nothing was heard lately, so nothing is known of reports without an answer.
        """
        carried = self._carried.get(socket)
        if carried is None:
            return False
        if not is_quiet and carried.is_ignored(at):
            carried.stop()
        return self._report(socket, carried, at)

    def report_due(self, socket: int | None) -> float | None:
        """When (monotonic seconds) `report_in_time` has something to say there; None: never."""
        carried = self._carried.get(socket) if socket is not None else None
        return None if carried is None else carried.report_due

    def report_in_time(self, socket: int | None, at: float) -> None:
        """Report, if it is time because of what has gone out."""
        due = self.report_due(socket)
        if socket is not None and due is not None and due <= at:
            self._report(socket, self._carried[socket], at)

    def _report(self, socket: int, carried: Resuming, at: float) -> bool:
        turn_id = self._turn_id()
        data = carried.report(turn_id, at)
        if data is None:
            return False
        self.transmit(socket, self._capabilities(turn_id, data))
        return True

    def _question(self, socket: int, data: Mapping[str, Any]) -> str:
        """Ask something that does not count as a frame. Returns its turn id."""
        turn_id = self._turn_id()
        self._emit(Transmit(socket, self._capabilities(turn_id, data)))
        return turn_id

    def _capabilities(self, turn_id: str, data: Mapping[str, Any]) -> str:
        fields = {"type": "capabilities", "from": self._id, "turnId": turn_id}
        return write_message({**fields, "data": data})

    # What comes in --------------------------------------------------------------------------------

    def note(self, socket: int, frame: str, message: Message) -> bool:
        """A message has arrived in this frame. True: it answers `ask`, or a report."""
        carried = self._carried.get(socket)
        if carried is None:
            return False
        carried.message(frame)
        if message.type not in _ANSWERS or not message.is_relays or message.turn_id is None:
            return False
        turn_id = message.turn_id
        if turn_id == self._asked.get(socket):
            del self._asked[socket]
            carried.offered(message.word("resume"))
        elif carried.is_report(turn_id):
            if carried.reported(turn_id, message.word("taken")):
                self._outgoing.released()
        else:
            return False
        return True

    def excess(self, socket: int, frame: str, *, is_countable: bool) -> None:
        """A message has arrived of which nothing is read; or a frame of nobody knows how many."""
        if socket in self._carried:
            self._carried[socket].message(frame)
            if not is_countable:
                self._carried[socket].uncountable()

    def uncountable(self, socket: int) -> None:
        """Something has arrived that no relay sends."""
        if socket in self._carried:
            self._carried[socket].uncountable()

    # Lost sockets ---------------------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """A connection has lost its socket, and may come back."""
        return self._away is not None

    def can_return(self, socket: int) -> bool:
        """What it carries could come back."""
        carried = self._carried.get(socket)
        return carried is not None and carried.can_return

    def lose(self, socket: int, at: float) -> bool:
        """The socket in use is gone. Returns whether what it carried may come back."""
        self._asked.pop(socket, None)
        carried = self._carried.pop(socket, None)
        if carried is None:
            return False
        self._away = carried
        if not carried.lost(at):
            self.give_up()
        return self.is_away

    def forget(self, socket: int, at: float) -> bool:
        """Another socket is gone, or this one has been replaced. True: something may still come
        back that was asked for there."""
        self._carried.pop(socket, None)
        was_asked = self._asked.pop(socket, None) is not None
        return was_asked and self._away is not None and self._away.lost(at)

    def give_up(self) -> None:
        """What is away does not come back."""
        if self._away is not None:
            self._reason, self._doubts = self._away.reason, self._away.in_doubt
            self._away = None

    def deadline(self) -> float | None:
        """When (monotonic seconds) that is so by itself; None: never."""
        return None if self._away is None else self._away.deadline()

    def expire(self, at: float) -> bool:
        """Returns whether what was away does not come back any more."""
        is_over = self._away is not None and self._away.expire(at)
        if is_over:
            self.give_up()
        return is_over

    def come_back(self, socket: int) -> None:
        """This socket is new: ask there to go on with what is away."""
        assert self._away is not None
        self._asked[socket] = self._question(socket, {"resume": self._away.come_back()})

    def is_answer(self, socket: int, message: Message) -> bool:
        """The relay answers that."""
        is_relays = message.type in _ANSWERS and message.is_relays
        return is_relays and message.turn_id == self._asked.get(socket)

    def came_back(self, socket: int, message: Message) -> bool:
        """The answer. Returns whether what was away goes on there."""
        del self._asked[socket]
        carried = self._away
        assert carried is not None
        if not carried.came_back(message.word("resume")):
            self.give_up()
            return False
        self._carried[socket], self._away = carried, None
        return True

    @property
    def is_broken(self) -> bool:
        """The relay has answered what cannot be right: that socket is of no use."""
        return self._reason == "broken"

    def take_loss(self) -> tuple[str | None, tuple[Message, ...]]:
        """Why the connection in use was lost for good, and what the program had sent of which
        nobody knows whether it arrived. Told once."""
        told = self._reason, tuple(Message(json.loads(text)) for text in self._doubts)
        self._reason, self._doubts = None, ()
        return told
