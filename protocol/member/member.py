"""A peer's own side of the protocol without any I/O: what happened goes in, what to do comes out.

`Member` is one peer of one mesh, over as many connections as it takes, each named by a number. Its
owner opens and closes them, reports what comes of them, at what `Instant`, and carries out what
`take_effects()` says, in order (protocol/member/effects.py). What the program sends waits in the
queue; the owner takes from it (`next_frame`) while the connection takes it.

Each module beside this one decides one thing. Here they are put together:

    connections    two at most: joining, staying, replacing (the table is in lifecycle)
    sockets        what goes over them, and goes on after a cut (resuming)
    ownership      whose the id is
    patience       when joining has taken too long, and which errors end the peer
    roster         who else is here
    announcements  what this peer says about itself
    subscribing    what its program wants of what others say to everyone
    outgoing       what waits to be sent, and when it may go
    returns        who was here before a loss, and is waited for
    recalling      what was said before the peer came, if it asks for it
    asks           commands given
    services       commands served

Longer than 400 lines because it has a method, and its docstring, for everything that can happen to
a peer and that its program can want.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from protocol.instant import Instant, first_of
from protocol.limits import MembershipLimits
from protocol.member.announcements import Announcements, Said
from protocol.member.asks import Asks
from protocol.member.connections import LOST_CODE, NONCE_CHARS_MAX, Connections, Rooms
from protocol.member.effects import Effect, Finished, Sendable
from protocol.member.errors import Left, RelayError
from protocol.member.lifecycle import MemberState
from protocol.member.messages import ANSWERS, RemotePeer, compose
from protocol.member.outgoing import Frame, Outgoing
from protocol.member.ownership import Ownership
from protocol.member.patience import Patience
from protocol.member.recalling import Recalling
from protocol.member.returns import Returns, target_of
from protocol.member.roster import Roster
from protocol.member.services import Services
from protocol.member.subscribing import FOR_ALL, wish_of


class Member:
    """One peer of one mesh.

    The turn ids of what it sends by itself begin with `token`, and end with a `nonce()`; `turn_id`
    gives one for each command that is asked. Nobody can guess either. `roll` gives numbers in
    [0, 1). `waits`, `splits` and `overfill` are as in `Outgoing`, `keepalive` as in
    `Announcements`, `owner` and `takeover` as in `Ownership`. `shares`: others are meant to have
    the id too. `elects`: the connections of the peer elect who serves (elected). `history`: as in
    `Recalling`. `subscribe`: as in subscribing. Raises TypeError (agents or metadata that are no
    JSON, a history that is no number, something else as `subscribe`), ValueError (a bad owner,
    history or `subscribe`), TooLarge (more agents and metadata than a relay takes).
    """

    def __init__(
        self,
        id: str,
        agents: Iterable[Any],
        metadata: Mapping[str, Any],
        limits: MembershipLimits,
        *,
        token: str,
        nonce: Callable[[], str],
        roll: Callable[[], float],
        turn_id: Callable[[], str],
        waits: bool = True,
        splits: bool = True,
        overfill: int = 1,
        keepalive: str | None = "pong",
        owner: str | None = None,
        takeover: bool = False,
        shares: bool = False,
        elects: bool = False,
        history: int = 0,
        subscribe: Any = None,
    ) -> None:
        self.id = id
        self.over: RelayError | None = None
        """What the program gets that wants something of a peer which is over, or leaving."""
        self._token = token
        self._make_turn_id = turn_id
        self._effects: list[Effect] = []
        emit = self._effects.append
        self._announcements = announcements = Announcements(
            id, agents, metadata, keepalive, wish_of(subscribe)
        )
        self._roster = roster = Roster(id, limits, shares=shares)
        self._returns = returns = Returns(limits, roster)
        self._outgoing = outgoing = Outgoing(
            limits, waits=waits, splits=splits, overfill=overfill, holds=returns.holds
        )
        self._check_presence(announcements.wanted)
        ownership = Ownership(id, owner, takeover=takeover)
        self._patience = Patience(limits, emit=emit)
        self._asks = Asks(
            id,
            limits,
            roster=roster,
            announcements=announcements,
            outgoing=outgoing,
            returns=returns,
            roll=roll,
            emit=emit,
        )
        self._services = Services(
            id,
            limits,
            roster=roster,
            announcements=announcements,
            outgoing=outgoing,
            emit=emit,
            elects=elects,
        )
        rooms = Rooms(
            ownership,
            roster,
            announcements,
            outgoing,
            returns,
            Recalling(history, limits),
            self._asks,
            self._services,
            self._patience,
        )
        self._connections = Connections(
            id, limits, rooms, token=token, nonce=nonce, roll=roll, emit=emit, give_up=self.end
        )

    # What is seen ---------------------------------------------------------------------------------

    @property
    def state(self) -> MemberState:
        """Where the membership is in its life."""
        return self._connections.state

    @property
    def roster(self) -> dict[str, RemotePeer]:
        """The other peers, by id. Without a connection, those that were here last."""
        return self._roster.peers

    @property
    def agent_ids(self) -> tuple[str, ...]:
        """The ids of this peer's own agents."""
        return self._announcements.agent_ids

    @property
    def served_agents(self) -> tuple[str, ...]:
        """The agents of which commands would be handled, if this connection is elected."""
        return self._services.agents

    @property
    def is_ready(self) -> bool:
        """It has joined, and the roster has come whole, or will never be said to have."""
        return self._patience.is_ready

    @property
    def is_in_use(self) -> bool:
        """There is a connection over which messages go, or one that was cut and may come back."""
        return self._connections.is_connected

    @property
    def has_room(self) -> bool:
        """The queue takes another message."""
        return self._outgoing.has_room

    @property
    def queued(self) -> int:
        """How many messages wait to be sent, or to be sent again after a cut."""
        return len(self._outgoing) + self._connections.waiting

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order; taken once."""
        if self._outgoing.take_news():
            self._effects.append(Sendable())
        effects = self._effects[:]
        self._effects.clear()  # not replaced: the rooms add to this list
        return effects

    # What happens ---------------------------------------------------------------------------------

    def begin(self, now: Instant, within_s: float | None = None) -> None:
        """Join. A peer that is not ready `within_s` seconds later gives up, unless it has joined at
        least; None: it never gives up because of that."""
        self._patience.begin(now.at, within_s)
        self._connections.begin(now)

    def opened(self, connection: int, now: Instant) -> None:
        """The connection is open."""
        self._connections.opened(connection, now)

    def received(self, connection: int, frame: str | bytes, now: Instant) -> None:
        """A frame arrived on the connection."""
        self._connections.received(connection, frame, now)

    def closed(
        self, connection: int, now: Instant, code: int = LOST_CODE, reason: str = ""
    ) -> None:
        """The connection is over, or could not be opened. `code`, `reason`: as it was closed."""
        self._connections.closed(connection, now, code, reason)

    def failed(self, connection: int, error: RelayError, now: Instant) -> None:
        """The connection could not be made. Some errors end the peer (see patience)."""
        self._connections.failed(connection, error, now)

    def nudge(self, now: Instant) -> None:
        """There is reason to look now whether the connection is alive, or to try again."""
        self._connections.nudge(now)

    def forsake(self, now: Instant) -> None:
        """Nobody will work or listen for a while: give up the commands that others have given, and
        tell them. To be followed by `suspend`, when what is queued was sent, as far as it can be
        sent at once."""
        self._services.forsake(now)

    def suspend(self, now: Instant) -> None:
        """Nobody will listen for a while: say goodbye to the relay, and wait for a nudge."""
        self._connections.suspend(now)

    def leave(self, now: Instant) -> None:
        """Take nothing more from the program (it gets Left). Commands that are under way end, in
        both directions, and whoever works on them or waits for them is told. To be followed by
        `end`, when what is queued has been sent or has had its time (`leave_within_s`)."""
        self.over = self.over or Left()
        self._asks.leave(self.over, now)
        self._services.forsake(now, for_good=True)

    def end(self, now: Instant, error: RelayError | None = None) -> None:
        """Leave now, or give up because of `error`. Everything that is under way ends."""
        if self.state is MemberState.ENDED:
            return
        self.over = error or Left()
        self._connections.end(now)
        self._patience.end()
        self._services.end()
        self._asks.end(self.over)
        self._effects.append(Finished(error))

    # What the program wants -----------------------------------------------------------------------

    def announce(
        self, agents: Iterable[Any] | None, metadata: Mapping[str, Any] | None, now: Instant
    ) -> int:
        """Be someone with these agents and metadata from now on; None: as before.

        Returns the announcement's number: `Announced` answers it. Raises TypeError (no JSON),
        TooLarge, and what ended the peer.
        """
        self._check_over()
        said = self._announcements.made(agents, metadata)
        self._check_presence(said)
        number = self._announcements.want(said)
        self._connections.say(now)
        return number

    def subscribe(self, subscribe: Any, now: Instant) -> int:
        """Want this from now on (as in subscribing).

        Returns the number of an announcement. Raises TypeError, ValueError, TooLarge, and what
        ended the peer.
        """
        wish = wish_of(subscribe)
        self._check_over()
        said = self._announcements.made(None, None, wish)
        self._announcements.retry()
        self._check_presence(said)
        number = self._announcements.want(said)
        self._connections.say(now)
        return number

    def send(self, fields: Mapping[str, Any], now: Instant) -> int:
        """Queue a message with these fields (see `compose`). Returns its ticket.

        Raises TypeError (no JSON), ValueError (a type that the peer sends by itself), TooLarge,
        QueueFull, NotConnected, and what ended the peer.
        """
        text = compose(self.id, fields, now)
        self._check_over()
        ticket = self._outgoing.offer(text, target_of(fields), is_said=True)
        turn_id = fields.get("turnId")
        if isinstance(turn_id, str):
            self._services.answered(turn_id)
        return ticket

    def withdraw(self, ticket: int) -> None:
        """Do not send this message, if it is still in the queue."""
        self._outgoing.withdraw(ticket)

    def ask(
        self,
        agent: str,
        command: Any,
        now: Instant,
        *,
        peer: str | None = None,
        any: bool = False,
        timeout_s: float | None = 60.0,
        fields: Mapping[str, Any] | None = None,
    ) -> str:
        """Give a command to an agent, or to a peer. Returns its turn id, under which the effects
        `Chunk` and `TurnEnded` tell what comes of it.

        `peer`: which one is meant. `any`: it may be any of those that have the agent. `timeout_s`:
        the longest silence, None if any. `fields`: further fields of the message. Raises TypeError
        (no command, or no JSON), ValueError (a timeout below 0, or `peer` and `any`), TooLarge, and
        what ended the peer.
        """
        self._check_over()
        turn = self._make_turn_id()
        self._asks.ask(
            turn,
            agent,
            command,
            now,
            peer=peer,
            any=any,
            timeout_s=timeout_s,
            fields=fields or {},
        )
        self._need(ANSWERS, now)
        return turn

    def abandon(self, turn: str, now: Instant) -> None:
        """Nobody waits for this turn any more. If it was not sent yet, it never will be; if it was,
        whoever works on it is told. If it is over already, nothing happens."""
        self._asks.abandon(turn, now)

    def serve(
        self, agents: Iterable[str] | None, now: Instant, *, at_a_time: int | None = None
    ) -> int:
        """Have commands for these agents handled (`Handle`), None: all that are for this peer.
        `at_a_time`: so many at once, None: any number.

        Returns the number of the service. Raises TypeError, ValueError, and what ended the peer.
        """
        self._check_over()
        number = self._services.serve(agents, now, at_a_time=at_a_time)
        self._need(FOR_ALL, now)
        return number

    def returned(self, command: int) -> None:
        """The handler of a command has ended, however, also if its command was over before."""
        self._services.returned(command)

    def elect(self, agents: Iterable[str] | None, now: Instant) -> None:
        """Serve these agents from now on, of those that are served at all; None: all of them."""
        self._services.elect(agents, now)

    def taken(self, turn: str, agent: str) -> None:
        """Another connection of this peer has taken a command (its `Taken`)."""
        self._services.taken(turn, agent)

    def stop_serving(self, service: int, now: Instant, *, cancels: bool) -> None:
        """Give this service no more commands. `cancels`: those it has get an error."""
        self._services.stop(service, now, cancels=cancels)

    def stream(self, command: int, chunk: str, now: Instant) -> int:
        """Send a piece of the answer to a command. Returns its ticket. Raises as `send`, and
        TurnError if the command is over."""
        self._check_over()
        return self._services.stream(command, chunk, now)

    def finish(self, command: int, result: Any, now: Instant) -> int:
        """Send the result of a command: it is over. Returns its ticket. Raises as `stream`; then
        the command is still under way, and to be ended by `fail`."""
        self._check_over()
        return self._services.finish(command, result, now)

    def fail(self, command: int, sentence: str, now: Instant) -> None:
        """Answer a command with an error: it is over. If it is over already, nothing happens."""
        self._services.fail(command, sentence, now)

    def _need(self, types: frozenset[str], now: Instant) -> None:
        if self._announcements.need(types):
            self._connections.say(now)

    def _check_over(self) -> None:
        if self.over is not None:
            raise self.over.with_traceback(None)  # or that would grow each time

    def _check_presence(self, said: Said) -> None:
        """A relay that drops a message as too large does not say which one that was."""
        longest = Instant(0.0, 10**12)
        text = self._announcements.longest(said, f"{self._token}:{'9' * NONCE_CHARS_MAX}", longest)
        self._outgoing.check(text, "presence")

    # Time -----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When (monotonic seconds) `expire` must be called next; None if never."""
        return first_of(
            self._connections.deadline(),
            self._asks.deadline(),
            self._services.deadline(),
            self._patience.deadline(),
            self._returns.deadline(),
        )

    def expire(self, now: Instant) -> None:
        """Do what is due."""
        self._connections.expire(now)
        if self._returns.expire(now.at):
            self._outgoing.released()
            self._asks.roster_changed(now)
        self._asks.expire(now)
        self._services.expire(now)
        error = self._patience.expire(now.at, is_in_use=self.is_in_use)
        if error is not None:
            self.end(now, error)

    # What is sent ---------------------------------------------------------------------------------

    def next_frame(self, connection: int, now: Instant) -> Frame | float | None:
        """What to send next on this connection; or, if the pace forbids it, at what time (monotonic
        seconds) to ask again; or None: nothing waits, or it must not go here, or not now."""
        return self._connections.next_frame(connection, now)
