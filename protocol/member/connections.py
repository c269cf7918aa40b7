"""The connections of a peer, two at most: joining, staying, coming back, replacing one by the next.

After a cut the peer goes on over another socket, if the relay has agreed to that before (rule 19 in
docs/protocol.md, and protocol/member/sockets.py):

1. While that is open, a lost connection counts as one: the queue takes messages, and nobody is told
   of a loss. The states are those of joining.
2. The next one is opened. It asks for what was missed, before anything else.
3. If the relay agrees, it is the one in use at once. What was not taken is sent again, before
   anything of the queue. If not, it joins as ever, and the program hears of a `Gap`.

How a connection replaces another, so that nothing is lost, doubled or put out of order:

1. The next one is opened. The queue is held, and a `capabilities` is sent behind everything that
   was sent on the one in use: its answer means that the relay has decided all of it.
2. The next one announces. That presence goes to all connections of the mesh, in one order with
   everything else: it is the mark. The one in use is read up to it, the next one from it on (what
   it delivers earlier waits in `ahead`).
3. The queue goes on over the next one as soon as that is the one in use. So if the one in use is
   cut before, the next one is given up, and nothing is missing: the one in use comes back.

Before every joining presence goes the claim of the id, where there is one (ownership). After it
follows a `capabilities`: its answer comes after the whole roster, so whoever has not been in it has
gone.

What is trusted, and of whom: answers to questions (`capabilities`) and errors, of the relay only; a
presence of this peer, of this peer only. All have the turn id of what they answer, and that is a
new one which nobody can guess. Others see those of presences, and never those of questions.

Longer than 400 lines because both connections of an overlap are decided by one table, in one place.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from protocol.instant import Instant, first_of
from protocol.limits import MembershipLimits
from protocol.member import lifecycle as membership
from protocol.member.announcements import Announcements, Answered, Said
from protocol.member.asks import Asks
from protocol.member.effects import (
    Announced,
    Arrived,
    Changed,
    Close,
    Drop,
    Effect,
    Ignored,
    Missed,
    Open,
    PresentTwice,
    Resumed,
    Unsent,
    WishRefused,
)
from protocol.member.errors import (
    AnnouncementRefused,
    Gap,
    IdTaken,
    NotARelay,
    RelayError,
    Replaced,
    Unreachable,
)
from protocol.member.incoming import Excess, Nonsense, read_frame
from protocol.member.lifecycle import (
    Elapsed,
    Ended,
    Event,
    Failed,
    Heard,
    Joined,
    Lost,
    Marked,
    Membership,
    MemberState,
    Nudged,
    Suspended,
)
from protocol.member.messages import Message, is_offline, opened, sentence_of, write_message
from protocol.member.outgoing import Frame, Outgoing, positive
from protocol.member.ownership import Ownership
from protocol.member.patience import Patience, refuses
from protocol.member.recalling import Recalling
from protocol.member.returns import Returns
from protocol.member.roster import Roster
from protocol.member.services import Services
from protocol.member.sockets import Sockets
from protocol.member.subscribing import is_wanted
from protocol.member.unproved import PROBE, Unproved

QUESTIONS_MAX: Final = 16
"""So many answers of the relay are awaited at a time; the oldest questions are forgotten."""
NONCE_CHARS_MAX: Final = 32
TOO_MANY_WISHES: Final = "too_many_wishes"
LOST_CODE: Final = 1006
"""RFC 6455: the connection was lost without a close."""

RENEW_AT: Final = 0.8
"""A connection whose grant ends is replaced after this part of the time that is left."""


@attrs.frozen
class Rooms:
    """Where what arrives is decided: one object for each module beside this one."""

    ownership: Ownership
    roster: Roster
    announcements: Announcements
    outgoing: Outgoing
    returns: Returns
    recalling: Recalling
    asks: Asks
    services: Services
    patience: Patience


@attrs.define
class _Next:
    """The next connection. `presence`, `fence`: the turn ids of what was sent and is awaited.
    `is_asked`: it wants to go on with a lost one; `is_back`: it does.

    `unproved`: what else may tell that the presence was taken.
    `ahead`: what it delivered before its time, at the cost of `ahead_size` bytes.
    """

    connection: int
    is_open: bool = False
    is_asked: bool = False
    is_back: bool = False
    presence: str | None = None
    fence: str | None = None
    said: Said | None = None
    unproved: Unproved | None = None
    ahead: list[tuple[Message, int]] = attrs.Factory(list)
    ahead_size: int = 0

    @property
    def has_begun(self) -> bool:
        """Something that is about the peer was said there."""
        return self.is_asked or self.presence is not None


class Connections:
    """The connections of the peer `id`, each named by a number from 1.

    The turn ids of what they send by themselves begin with `token`, and end with a `nonce()`, which
    nobody can guess. `roll` gives numbers in [0, 1). `emit` takes the effects; `give_up` ends the
    peer.
    """

    def __init__(
        self,
        id: str,
        limits: MembershipLimits,
        rooms: Rooms,
        *,
        token: str,
        nonce: Callable[[], str],
        roll: Callable[[], float],
        emit: Callable[[Effect], None],
        give_up: Callable[[Instant, RelayError], None],
    ) -> None:
        self._id = id
        self._limits = limits
        self._rooms = rooms
        self._own = f"{token}:"
        self._nonce = nonce
        self._roll = roll
        self._emit = emit
        self._give_up = give_up
        self._sockets = Sockets(
            id, limits, outgoing=rooms.outgoing, turn_id=self._turn_id, emit=emit
        )
        self._life = Membership(MemberState.WAITING, None)
        self._opened = 0
        self._use: int | None = None
        self._next: _Next | None = None
        self._sync: str | None = None  # the turn id whose answer follows the whole roster
        self._questions: deque[str] = deque(maxlen=QUESTIONS_MAX)  # their turn ids
        self._ignored: set[str] = set()  # what was told on this connection
        self._size = 0  # what the message costs that is being read
        self._beat = Instant(0.0, 0)
        self._is_quiet = False  # nothing was heard since the last heartbeat
        self._heard_at: float | None = None  # on a connection in use, None before the first
        self._is_whole = True  # all of the connection that is replaced was read
        self._is_unproved = False  # the one in use was joined without its own presence

    @property
    def state(self) -> MemberState:
        """Where the membership is in its life."""
        return self._life.state

    @property
    def is_in_use(self) -> bool:
        """There is a connection over which messages go."""
        return self.state in membership.IN_USE

    @property
    def is_connected(self) -> bool:
        """There is one, or one that was lost and may come back."""
        return self.is_in_use or self._sockets.is_away

    @property
    def waiting(self) -> int:
        """How many messages of the queue wait to be sent again."""
        return self._sockets.waiting

    # What happens ---------------------------------------------------------------------------------

    def begin(self, now: Instant) -> None:
        """Make the first connection."""
        self._life = membership.begun(now.at)
        self.expire(now)

    def opened(self, connection: int, now: Instant) -> None:
        """The connection is open."""
        coming = self._next
        if coming is None or coming.connection != connection:
            return
        coming.is_open = True
        self._begin_on(coming, now)

    def _begin_on(self, coming: _Next, now: Instant) -> None:
        """It is open, and nothing was said there."""
        if self._use is not None:
            if not self._sockets.is_behind(self._use):  # else when it is not
                coming.fence = self._turn_id()
                self._ask_capabilities(self._use, coming.fence)
        elif self._sockets.is_away:
            coming.is_asked = True
            self._sockets.come_back(coming.connection)
        else:
            self._announce_on(coming, now)

    def received(self, connection: int, frame: str | bytes, now: Instant) -> None:
        """A frame arrived on the connection."""
        if connection == self._use:
            self._is_quiet, self._heard_at = False, now.at
            self._apply(Heard(now.at), now)
        elif self._next is None or self._next.connection != connection:
            return
        try:
            arrived = read_frame(frame, self._limits)
        except Nonsense as nonsense:
            self._nonsense(connection, nonsense, now)
            return
        for one in arrived:
            coming = self._next
            if isinstance(one, Excess):
                is_array = len(arrived) == 1 and str(frame).lstrip().startswith("[")
                self._sockets.excess(connection, str(frame), is_countable=not is_array)
                self._rooms.recalling.excess()
                self._ignore(one.what, f"at most {one.bound}")
                continue
            message, self._size = Message(one.fields), one.size
            if self._sockets.note(connection, str(frame), message):
                pass  # the answer to something that was asked there
            elif connection == self._use:
                self._on_use(message, now)
            elif coming is not None and connection == coming.connection:
                self._on_next(coming, message, now)

    def closed(
        self, connection: int, now: Instant, code: int = LOST_CODE, reason: str = ""
    ) -> None:
        """The connection is over, or could not be opened. `code`, `reason`: as it was closed."""
        is_refusal = refuses(code)
        if connection == self._use:
            self._choose_use(now)
            self._apply(Lost(now.at, self._roll(), is_refusal=is_refusal), now)
        elif self._next is not None and connection == self._next.connection:
            self._rooms.patience.passed()
            self._miss(f"the connection was closed before the relay answered ({code})", reason)
            self._apply(Failed(now.at, self._roll(), is_refusal=is_refusal), now)

    def _choose_use(self, now: Instant) -> None:
        """The one in use is lost. If it may come back, it delivers all that the next one would."""
        coming = self._next
        if self._use is None or coming is None or coming.presence is None:
            return
        if self._sockets.can_return(self._use):
            self._apply(Failed(now.at, self._roll()), now)

    def _miss(self, sentence: str, reason: str = "") -> None:
        """An attempt has failed without an error."""
        error = Unreachable(f"{sentence}: {sentence_of(reason)}" if reason else sentence)
        self._rooms.patience.missed(error)

    def failed(self, connection: int, error: RelayError, now: Instant) -> None:
        """The connection could not be made. The peer tries again, or gives up."""
        if self._next is None or self._next.connection != connection:
            return
        if self._rooms.patience.failed(error, now.at, is_in_use=self._use is not None):
            self._give_up(now, error)
        else:
            until = self._rooms.patience.last_attempt_at
            is_refusal = not isinstance(error, Unreachable)
            self._apply(Failed(now.at, self._roll(), until, is_refusal), now)

    def nudge(self, now: Instant) -> None:
        """Look now whether the connection is alive, or try again now."""
        self._apply(Nudged(now.at, self._roll()), now)

    def suspend(self, now: Instant) -> None:
        """Close whatever is open, and make no connection until `nudge`."""
        self._apply(Suspended(now.at), now)

    def end(self, now: Instant) -> None:
        """Close whatever is open, for good."""
        self._apply(Ended(now.at), now)
        self._tell_loss(now)

    # Time -----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When (monotonic seconds) `expire` must be called next; None if never."""
        return first_of(
            membership.deadline(self._life, self._limits),
            self._sockets.deadline(),
            self._sockets.report_due(self._use),
            self._beat_due if self.is_in_use else None,
            self._proof_due,
        )

    def expire(self, now: Instant) -> None:
        """Do what is due."""
        if self.is_in_use and self._beat_due <= now.at:
            self._heartbeat(now)
        self._prove(now)
        if not self._can_be_replaced:
            self._life = membership.kept(self._life, now.at)
        self._sockets.report_in_time(self._use, now.at)
        if self._sockets.expire(now.at):
            self._rooms.outgoing.released()  # whoever waits for room there is told
        silent_at = membership.silent_at(self._life, self._limits)
        step = membership.expire(self._life, now.at, self._roll(), self._limits)
        if silent_at is not None and silent_at <= now.at and membership.Effect.DROP in step.effects:
            before = self._next
            self._choose_use(now)
            if self._next is not before:
                step = membership.expire(self._life, now.at, self._roll(), self._limits)
        if membership.Effect.DISCARD in step.effects:
            within_s = self._limits.join_within_s
            self._miss(f"the relay has not answered within {within_s:g} s")
        self._step(step, now)

    @property
    def _beat_due(self) -> float:
        return self._beat.at + self._limits.heartbeat_every_s

    @property
    def _is_awaited(self) -> bool:
        """The presence was sent, and only its coming back is missing."""
        has_announced = self._next is not None and self._next.unproved is not None
        return has_announced and self.state is MemberState.JOINING

    @property
    def _proof_due(self) -> float | None:
        unproved = self._next.unproved if self._next is not None and self._is_awaited else None
        return unproved.deadline() if unproved is not None else None

    def _prove(self, now: Instant) -> None:
        """Perhaps the relay has taken the presence, although it does not come back."""
        coming = self._next
        if coming is None or coming.unproved is None or not self._is_awaited:
            return
        if coming.unproved.must_ask(now.at):
            coming.unproved.direct = self._turn_id()
            self._hear_itself(coming.connection, coming.unproved.direct)
        if coming.unproved.is_due(now.at):
            self._join_unproved(coming.unproved, now)

    def _join_unproved(self, unproved: Unproved, now: Instant) -> None:
        unproved.is_taken = True
        self._apply(Joined(now.at), now)

    @property
    def _can_be_replaced(self) -> bool:
        """Another connection can take the place of the one in use, and nothing is lost: the relay
        answers questions, and sends presences back."""
        return self._sync is None and not self._is_unproved

    def _heartbeat(self, now: Instant) -> None:
        assert self._use is not None
        beat = {"type": "heartbeat", "from": self._id, "timestamp": now.wall_ms}
        # The relay does not answer heartbeats, so a quiet mesh sounds like a dead connection.
        connection = self._route() or self._use
        self._sockets.transmit(connection, write_message(beat))
        has_reported = self._sockets.report(self._use, now.at, is_quiet=self._is_quiet)
        if self._is_quiet and not has_reported:
            self._probe(self._use)
        elapsed_s = (now.wall_ms - self._beat.wall_ms) / 1000
        if elapsed_s > self._limits.heartbeat_every_s + self._limits.silent_after_s:
            self.nudge(now)  # asleep, perhaps on a machine whose monotonic clock sleeps too
        elif self._is_quiet and has_reported and self._sockets.can_return(self._use):
            self.nudge(now)  # the report before has no answer; later the relay would not wait
        self._beat, self._is_quiet = now, True

    # The life -------------------------------------------------------------------------------------

    def _apply(self, event: Event, now: Instant) -> None:
        self._step(membership.transition(self._life, event, self._limits), now)

    def _step(self, step: membership.Step, now: Instant) -> None:
        before, self._life = self.state, step.membership
        if before is not self.state:
            self._emit(Changed())
        elif not step.effects:
            return  # a sign of life, as every message is one
        for effect in step.effects:
            match effect:
                case membership.Effect.OPEN:
                    self._opened += 1
                    self._next = _Next(self._opened)
                    self._emit(Open(self._opened))
                case membership.Effect.ADOPT:
                    self._adopt(now)
                case membership.Effect.DISCARD:
                    self._discard(now)
                case membership.Effect.DROP:
                    self._drop(now)
                case membership.Effect.PROBE:
                    assert self._use is not None
                    self._probe(self._use)
        if self.state in (MemberState.SUSPENDED, MemberState.ENDED):
            self._sockets.give_up()
        coming = self._next
        if self._use is None and coming is not None and coming.is_open and not coming.has_begun:
            self._begin_on(coming, now)  # the one in use was lost while it was being fenced
        self._connect()
        self.say(now)

    def _discard(self, now: Instant) -> None:
        """Close the next one. If it was to go on with a lost one, the relay must not take that for
        leaving."""
        coming, self._next = self._next, None
        if coming is not None:
            may_return = self._sockets.forget(coming.connection, now.at)
            is_over = self.state in (MemberState.SUSPENDED, MemberState.ENDED)
            self._emit((Drop if may_return and not is_over else Close)(coming.connection))
            if coming.presence is None:
                return  # the roster is still that of the one before
        self._sync = None
        self._rooms.roster.cancel()

    def _drop(self, now: Instant) -> None:
        """The one in use is over: lost, replaced, or left."""
        use, self._use = self._use, None
        if use is None:
            return
        is_lost = self.state in (MemberState.WAITING, MemberState.JOINING)
        may_return = self._sockets.lose(use, now.at) if is_lost else False
        self._sockets.forget(use, now.at)
        self._emit((Drop if may_return else Close)(use))

    def _connect(self) -> None:
        """Tell the queue whether there is a connection in use."""
        was_connected, is_connected = self._rooms.outgoing.is_connected, self.is_connected
        if is_connected:
            self._rooms.outgoing.is_connected = True
        elif was_connected:
            self._rooms.returns.lost()
            dropped = self._rooms.outgoing.disconnected()
            for lost in dropped:
                self._emit(Unsent(lost.ticket, lost.error))
            self._rooms.asks.unsent(dropped)
            self._rooms.asks.flush()

    def _adopt(self, now: Instant) -> None:
        coming = self._next
        assert coming is not None
        self._use, self._next = coming.connection, None
        self._beat, self._is_quiet = now, False
        unproved = coming.unproved
        self._is_unproved = unproved is not None and unproved.is_taken
        since = unproved.at if unproved is not None and unproved.is_taken else None
        self._rooms.patience.joined(now.at, since)
        if coming.is_back:
            assert self._heard_at is not None
            self._emit(Resumed(now.at - self._heard_at))
            self._heard_at = now.at
            self._ask_capabilities(self._use, self._turn_id())  # for how long it may be used
            return
        assert coming.said is not None
        self._tell_loss(now)
        self._heard_at, self._is_whole = now.at, False
        self._ignored.clear()
        self._rooms.returns.joined(now.at)
        self._rooms.ownership.joined()
        self._tell(self._rooms.announcements.joined(coming.said))
        for message, size in coming.ahead:
            if self._use is None:
                break  # that was the end
            self._size = size
            self._on_use(message, now)

    def _tell_loss(self, now: Instant) -> None:
        """Tell the program what may be missing, if something may."""
        reason, doubts = self._sockets.take_loss()
        is_over = self.state is MemberState.ENDED
        if self._heard_at is not None and (doubts or not (self._is_whole or is_over)):
            self._emit(Missed(Gap(now.at - self._heard_at, reason, doubts)))

    def _announce_on(self, coming: _Next, now: Instant) -> None:
        if self._rooms.ownership.is_claimed:
            claim = self._rooms.ownership.text(self._turn_id())  # whose answer tells nothing
            self._sockets.transmit(coming.connection, claim)
        self._sockets.ask(coming.connection, self._rooms.recalling.ask())
        coming.presence, coming.said = self._turn_id(), self._rooms.announcements.begin()
        text = self._rooms.announcements.text(coming.said, coming.presence, now)
        self._sockets.transmit(coming.connection, text)
        coming.unproved = Unproved(now.at, self._limits)
        self._sync = self._turn_id()
        self._rooms.roster.begin()
        self._ask_capabilities(coming.connection, self._sync)

    def say(self, now: Instant) -> None:
        """Announce on the connection in use what has changed, if it may be said there."""
        if (
            self._use is not None
            and self._route() == self._use
            and not self._sockets.is_behind(self._use)
            and self._rooms.announcements.is_due
        ):
            turn_id = self._turn_id()
            text = self._rooms.announcements.text(
                self._rooms.announcements.say(turn_id), turn_id, now
            )
            self._sockets.transmit(self._use, text)
            if self._is_unproved:
                self._tell(self._rooms.announcements.taken(turn_id))

    def _tell(self, answered: Answered) -> None:
        for number in answered.numbers:
            self._emit(Announced(number, answered.error))

    def _ask_capabilities(self, connection: int, turn_id: str) -> None:
        self._questions.append(turn_id)
        text = write_message({"type": "capabilities", "from": self._id, "turnId": turn_id})
        self._sockets.transmit(connection, text)

    def _probe(self, connection: int) -> None:
        """Ask for a sign of life. A relay that has never answered a question may send a direct."""
        self._ask_capabilities(connection, self._turn_id())
        if self._sync is not None and self._next is None:  # it was asked on this connection
            self._hear_itself(connection, self._turn_id())

    def _hear_itself(self, connection: int, turn_id: str) -> None:
        origin = {"type": "direct", "from": self._id, "to": self._id, "turnId": turn_id}
        self._sockets.transmit(connection, write_message({**origin, "data": {PROBE: True}}))

    def _turn_id(self) -> str:
        return self._own + self._nonce()

    # What arrives ---------------------------------------------------------------------------------

    def _on_next(self, coming: _Next, message: Message, now: Instant) -> None:
        if self.state is MemberState.SWITCHING:
            coming.ahead.append((message, self._size))
            coming.ahead_size += self._size
            if (
                len(coming.ahead) > self._limits.unread_messages_max
                or coming.ahead_size > self._limits.unread_bytes_max
            ):
                self._apply(Elapsed(now.at), now)
        elif coming.is_asked:
            if self._sockets.is_answer(coming.connection, message):
                self._answer_coming_back(coming, message, now)
        elif coming.presence is not None:
            is_answer = message.turn_id == coming.presence
            # About the presence too: of what else was said here, this relay would name the turn.
            is_about_all = message.turn_id is None and isinstance(message.word("code"), str)
            if message.type == "presence" and is_answer and message.sender == self._id:
                self._note_own(message, now)
                self._apply(Joined(now.at), now)
            elif message.type == "error" and message.is_relays and (is_answer or is_about_all):
                self._refused(coming, message, now)
            elif self._is_awaited:
                self._on_unproved(coming, message, now)

    def _on_unproved(self, coming: _Next, message: Message, now: Instant) -> None:
        """The relay says something else before the presence comes back, if ever it does."""
        unproved = coming.unproved
        assert unproved is not None
        turn_id = message.turn_id
        if turn_id is not None and turn_id == unproved.direct and message.origin == self._id:
            self._join_unproved(unproved, now)
            return
        if not message.is_relays:
            if (
                len(coming.ahead) >= self._limits.unread_messages_max
                or coming.ahead_size + self._size > self._limits.unread_bytes_max
            ):
                return  # it may still come back, and who is here is said again
            coming.ahead.append((message, self._size))
            coming.ahead_size += self._size
        elif turn_id != self._sync:
            return
        unproved.heard()
        self._prove(now)

    def _answer_coming_back(self, coming: _Next, answer: Message, now: Instant) -> None:
        """The relay says whether this socket goes on with the connection that was lost."""
        if self._sockets.came_back(coming.connection, answer):
            coming.is_back = True
            self._apply(Joined(now.at), now)
        elif self._sockets.is_broken:
            self._rooms.patience.passed()
            self._miss("the relay has counted in a way that cannot be right")
            self._apply(Failed(now.at, self._roll()), now)
        else:
            coming.is_asked = False
            self._connect()
            self._rooms.outgoing.released()
            self._announce_on(coming, now)

    def _refused(self, coming: _Next, error: Message, now: Instant) -> None:
        assert coming.said is not None
        if error.word("code") == "id_taken":
            self.failed(coming.connection, IdTaken(), now)
            return
        refused = _refusal(error)
        if self._is_renounced(refused):
            self._rooms.patience.passed()
            self._apply(Failed(now.at, self._roll()), now)
            return
        if refused.is_transient:
            self.failed(coming.connection, refused, now)
            return
        answered = self._rooms.announcements.joined_as_refused(coming.said, refused)
        if answered is not None:  # something that was never accepted: be what was, and try again
            self._tell(answered)
            self._emit(Arrived(error, self._size))
            self._rooms.patience.passed()
            self._apply(Failed(now.at, self._roll()), now)
        else:
            self.failed(coming.connection, refused, now)

    def _on_use(self, message: Message, now: Instant) -> None:
        if self._rooms.recalling.is_old(message):
            self._hand_on(message, Message(message.fields, is_old=True))
            return
        arrived, message = message, opened(message)
        turn_id = message.turn_id
        if message.type == "presence":
            self._note_own(message, now)
        if turn_id is not None and turn_id.startswith(self._own) and self._is_own(message):
            self._on_own(message, turn_id, now)
        elif message.type == "presence":
            self._on_presence(message, now)
        elif message.type == "error" and message.is_relays and message.word("code") == "replaced":
            self._give_up(now, Replaced())
        elif message.type == "capabilities_response" and message.is_relays:
            self._rooms.recalling.note(message)
        elif message.type == "direct" and self._is_own(message) and message.word(PROBE) is True:
            pass  # another connection of this peer wants to hear itself
        else:
            self._rooms.asks.answer(message, self._size, now)
            self._rooms.services.note(message, self._size, now)
            self._hand_on(arrived, message)

    def _hand_on(self, arrived: Message, message: Message) -> None:
        """Give the program what has `arrived`, as this message, if it wants it."""
        said, roster = self._rooms.announcements, self._rooms.roster
        if is_wanted(said.wanted.wish, arrived, self._id, lambda: said.agent_ids, roster):
            self._emit(Arrived(message, self._size))

    def _is_own(self, message: Message) -> bool:
        return message.is_relays or message.origin == self._id

    def _note_own(self, presence: Message, now: Instant) -> None:
        if presence.sender == self._id:
            is_own = (presence.turn_id or "").startswith(self._own)
            is_anothers = not is_own and not is_offline(presence)
            roster = self._rooms.roster
            if is_anothers and not (roster.shares or roster.is_shared):
                self._emit(PresentTwice(presence))
                self._rooms.announcements.repeat()  # so that the other one finds out, too
                self.say(now)
            self._rooms.roster.note_own(presence, is_anothers=is_anothers)

    def _on_own(self, message: Message, turn_id: str, now: Instant) -> None:
        """The answer to something that the membership itself has sent; none of the user's."""
        coming, announcements = self._next, self._rooms.announcements
        if message.type == "presence" and message.sender == self._id:
            if coming is not None and turn_id == coming.presence:
                self._is_whole = True
                self._apply(Marked(now.at), now)
            elif announcements.is_asked(turn_id):
                self._tell(announcements.taken(turn_id))
                self.say(now)
        elif not message.is_relays:
            pass  # another connection of this peer may say what it likes
        elif turn_id in self._questions:
            self._questions.remove(turn_id)
            self._answered(message, turn_id, now)
        elif message.type == "error":
            if announcements.is_asked(turn_id):
                refused = _refusal(message)
                if self._is_renounced(refused, turn_id):
                    self.say(now)
                    return
                self._tell(announcements.refused(turn_id, refused))
            self._emit(Arrived(message, self._size))
            self.say(now)

    def _is_renounced(self, refused: AnnouncementRefused, turn_id: str | None = None) -> bool:
        """It was refused for what the program wants, and the peer will say the same without it.
        `turn_id`: of what was refused on the connection in use, None: on the next one."""
        if refused.code != TOO_MANY_WISHES:
            return False
        is_news = self._rooms.announcements.renounce(turn_id)
        if is_news:
            self._emit(WishRefused(refused))
        return is_news is not None

    def _answered(self, message: Message, turn_id: str, now: Instant) -> None:
        """The relay answers a question."""
        coming = self._next
        if coming is not None and turn_id == coming.fence and coming.presence is None:
            self._announce_on(coming, now)
        elif turn_id == self._sync:
            self._sync = None
            self._rooms.recalling.end()
            self._rooms.roster.complete()
            self._roster_changed(now)
            self._rooms.patience.complete()
        elif message.type == "error":
            self._emit(Arrived(message, self._size))
        if message.type == "capabilities_response":
            self._rooms.outgoing.learn(message)
            self._renew_in_time(message.word("grant"), now)

    def _renew_in_time(self, grant: Any, now: Instant) -> None:
        """Replace the connection before its grant ends, if the relay says when that is. But a new
        one is not replaced at once, whatever the relay says."""
        expires_in_s = positive(grant.get("expiresInSeconds")) if isinstance(grant, dict) else None
        if expires_in_s is not None:
            soonest = self._life.joined + self._limits.probe_within_s
            due = max(soonest, now.at + RENEW_AT * expires_in_s)
            self._life = membership.renewed_by(self._life, due)

    def _on_presence(self, presence: Message, now: Instant) -> None:
        noted = self._rooms.roster.note(presence, self._size)
        if self._rooms.returns.seen(presence.sender):
            self._rooms.outgoing.released()
        if noted.is_ignored:
            peers_max, bytes_max = self._limits.peers_max, self._limits.roster_bytes_max
            bounds = f"at most {peers_max} peers, of {bytes_max} bytes together"
            self._ignore("a presence for which the roster has no room", bounds)
        if noted.has_changed:
            self._roster_changed(now)
        if noted.is_news:
            self._emit(Arrived(presence, self._size))

    def _roster_changed(self, now: Instant) -> None:
        self._rooms.asks.roster_changed(now)
        self._rooms.services.roster_changed(now)
        self._emit(Changed())

    def _ignore(self, what: str, bounds: str) -> None:
        if what not in self._ignored:
            self._ignored.add(what)
            self._emit(Ignored(f"{what} ({bounds})"))

    def _nonsense(self, connection: int, nonsense: Nonsense, now: Instant) -> None:
        if connection == self._use:
            self._sockets.uncountable(connection)
            self.closed(connection, now)
        else:
            sentence = f"what answers at this URL is no relay of agent meshes (it sent {nonsense})"
            self.failed(connection, NotARelay(f"{sentence}; check host, port and path"), now)

    # What is sent ---------------------------------------------------------------------------------

    def next_frame(self, connection: int, now: Instant) -> Frame | float | None:
        """What to send next on this connection; or, if the pace forbids it, at what time (monotonic
        seconds) to ask again; or None: nothing waits, or it must not go here, or not now."""
        if connection == self._use and self._sockets.is_behind(connection):
            again = self._sockets.again(connection, now.at)
            if isinstance(again, Frame) and not self._sockets.is_behind(connection):
                self._catch_up(now)
            return again
        if connection != self._route() or not self._sockets.has_room(connection):
            return None
        # A relay that knows no `capabilities` is not waited for long.
        patient_until = self._life.joined + self._limits.probe_within_s
        frame = self._rooms.outgoing.next_frame(now.at, patient_until)
        if isinstance(frame, Frame):
            self._sockets.queued(connection, frame, now.at)
            self._rooms.asks.flush()  # there is room now
        return frame

    def _catch_up(self, now: Instant) -> None:
        """All has been sent again: what waited for that goes on."""
        self.say(now)
        coming = self._next
        if coming is not None and coming.is_open and coming.fence is None:
            self._begin_on(coming, now)
        self._rooms.outgoing.released()

    def _route(self) -> int | None:
        """The connection on which the queue goes, if it goes at all."""
        if self._next is not None and self._next.is_open:
            return None  # held: the relay must have decided everything on the one before the other
        return self._use


def _refusal(error: Message) -> AnnouncementRefused:
    code, sentence = error.word("code"), error.word("error")
    return AnnouncementRefused(sentence_of(code), sentence_of(sentence))
