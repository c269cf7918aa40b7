"""The model itself: one mesh, as the rules describe it. See the package's docstring.

Longer than 400 lines because it is one class, read from top to bottom beside
docs/protocol.md, and every rule needs the same two dicts: who is connected, and who is here.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocol.limits import Limits
from protocol.verification.model.echoes import SENT_AGAIN, Lately, data_of, is_page
from protocol.verification.model.entry import Claim, Permit, claim_of, visitor_of, wish_of
from protocol.verification.model.expected import (
    A_NAME,
    A_SENTENCE,
    A_TIME,
    Amount,
    AtLeast,
    Closed,
    Disagreement,
    Expected,
    Made,
    Maybe,
    OneOf,
    Roster,
    Untouched,
)
from protocol.verification.model.faults import RELAY, TO_ONE, Faults, is_withheld
from protocol.verification.model.lagging import Begun, is_for_others, takes_arrays
from protocol.verification.model.reading import (
    BINARY,
    Message,
    Number,
    agent_id,
    elements_of,
    read,
    union,
)
from protocol.verification.model.returning import (
    Open,
    Report,
    Resume,
    Resumption,
    Ticket,
    Uncounted,
    request_of,
)
from protocol.verification.model.wishes import EVERYTHING, Wish, subscription_of

CLOSE_CODES: Final = {
    "left": 1000,
    "silent": 1008,
    "unannounced": 1008,
    "displaced": 1013,
    "evicted": 1013,
    "replaced": 1008,
    "expired": 1008,
    "crashed": 1011,
    "shutdown": 1001,
}

NAMED_MAX: Final = 20
"""An error names the peers that have an agent if they are no more than so many, else some."""

_DROPPED: Final = "dropped"
"""Stands for a frame beyond the rate, which counts as taken."""


@dataclass
class Connection:
    """What the model knows of one socket that is open."""

    opened_at: float
    heard_at: float
    said_at: float
    tokens: float
    tokens_at: float
    permit: Permit
    claim: Claim | None = None
    peer: str | None = None
    agents: list[Any] = field(default_factory=list)
    announcement_tokens: float = 0.0
    announcement_tokens_at: float = 0.0
    held: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)
    pongs_count: bool = False
    is_page: bool = False
    is_paced: bool = False
    may_lag: bool = False
    lags: bool = False
    told_lag_at: float = float("-inf")
    rate_error_at: float = float("-inf")
    echo_error_at: float = float("-inf")
    resumption: Resumption | None = None
    waiting: list[Message | str] = field(default_factory=list)
    asks: list[tuple[Resume, dict[str, Any]]] = field(default_factory=list)
    recalls: int | None = None
    wish: Wish = EVERYTHING
    is_dismissed: bool = False


@dataclass
class Peer:
    """What the model knows of one peer that is here: its latest presence, when it was sent, and the
    secret that all its connections know (None: they claimed nothing)."""

    secret: str | None
    agents: list[Any]
    presence: Untouched | Made
    fields: dict[str, Any]
    at: float
    begun: Begun | None = None


class Model:
    """One mesh, as the rules describe it.

    `resumes`: connections may come back (rule 19). What peers have read of that is told with
    `learned`.
    """

    def __init__(
        self, limits: Limits, *, strict: bool = False, now: float = 0.0, resumes: bool = False
    ) -> None:
        self.limits = limits
        self.resumes = resumes
        # What was said to everyone: when, how many bytes, the value, and what arrives of it.
        self.said: list[tuple[float, int, dict[str, Any], Untouched | Made]] = []
        self.tokens: dict[str, int] = {}
        self.epoch: str | None = None
        self.faults = Faults(limits, strict)
        self.now = now
        self.connections: dict[int, Connection] = {}
        self.peers: dict[str, Peer] = {}
        self.lately = Lately()
        self.beaten: list[str] = []  # peers with a heartbeat since their presence was said
        self._expected: dict[int, list[Expected]] = {}

    def take(self) -> dict[int, list[Expected]]:
        """What every connection must receive, of what has happened since the last call."""
        expected, self._expected = self._expected, {}
        return expected

    # Events ---------------------------------------------------------------------------------------

    def opened(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        """A connection was accepted, and may do this (None: everything). `is_paced`: an edge limits
        its frames."""
        burst = self.limits.messages_burst
        self.connections[c] = Connection(
            self.now, self.now, self.now, burst, self.now, permit or Permit(), is_paced=is_paced
        )

    def received(self, c: int, messages: Sequence[Message]) -> None:
        """These messages of `c` were decided, in this order, at once. BINARY: a binary frame."""
        connection = self.connections.get(c)
        if connection is None:
            return
        if self._permit_end(connection) <= self.now:
            self._dismissed(c, "expired")
            self.ended(c, "expired")
            return
        self.heard(c)
        passed = self._within_rate(c, connection, len(messages))
        connection.waiting += messages[:passed]
        connection.waiting += [_DROPPED] * (len(messages) - passed)
        self._go_on(c, connection)

    def _go_on(self, c: int, connection: Connection) -> None:
        """Decide what has come in; but what came behind a wish to go on with another connection
        waits until that is decided."""
        waiting, asks = connection.waiting, len(connection.asks)
        while waiting and len(connection.asks) <= asks:
            message = waiting.pop(0)
            if connection.resumption is not None:
                connection.resumption.taken += 1
            if not isinstance(message, str):
                self._frame(c, connection, message)

    def _frame(self, c: int, connection: Connection, message: Message) -> None:
        elements = self._elements(message)
        if len(elements) > self.limits.messages_burst:
            self._error(c, {"too_large"})
            return
        if elements:  # they count, the array does not
            connection.tokens += 1
        passed = self._within_rate(c, connection, len(elements))
        for one in elements[:passed] if elements else [message]:
            self._decide(c, connection, one, in_array=bool(elements))

    def heard(self, c: int) -> None:
        """Something of `c` came in and waits: a sign of life."""
        connection = self.connections.get(c)
        if connection is not None:
            connection.heard_at = connection.said_at = self.now
            if connection.resumption is not None:
                connection.resumption.until = float("inf")

    def ponged(self, c: int) -> None:
        """A WebSocket pong of `c`: a sign of life, if it asked for that and spoke lately."""
        connection = self.connections.get(c)
        if connection is None or not connection.pongs_count:
            return
        if self.now - connection.said_at <= self.limits.pong_keepalive_s:
            connection.heard_at = self.now

    def fell_behind(self, c: int) -> None:
        """So much waits for `c` that it is too far behind."""
        connection = self.connections.get(c)
        if connection is not None and connection.may_lag:
            connection.lags = True

    def caught_up(self, c: int) -> None:
        """`c` is behind no more."""
        if c in self.connections:
            self.connections[c].lags = False

    def ended(self, c: int, cause: str) -> None:
        """`c` is over. Calling it again does nothing."""
        connection = self.connections.pop(c, None)
        if connection is None:
            return
        self._forget_without_pages()
        if connection.peer is not None:
            self._leave(connection.peer, cause)
        if not connection.is_dismissed:
            self._expect([c], Closed(CLOSE_CODES[cause]))

    # Connections that come back -------------------------------------------------------------------

    def learned(self, c: int, token: str, epoch: str) -> None:
        """The peer of `c` has read its token. Raises Disagreement if the relay is another one."""
        if self.epoch not in (None, epoch):
            raise Disagreement(f"the epoch was {self.epoch!r}, and is {epoch!r}")
        self.tokens[token], self.epoch = c, epoch

    def lost(self, c: int, *, has_socket: bool) -> None:
        """The socket of `c` is gone, and it may come back. `has_socket`: its peer did not know.

        Raises Disagreement.
        """
        resumption = self.connections[c].resumption
        if resumption is None or not self.may_come_back(c):
            raise Disagreement(f"{c} is kept, and cannot come back")
        resumption.until = min(resumption.until, self.now + resumption.seconds)
        if has_socket:
            self._expect([c], Closed(CLOSE_CODES["replaced"]))

    def is_lost(self, c: int) -> bool:
        """Its socket is gone, and it may come back."""
        return self._lost_until(self.connections[c]) < float("inf")

    def may_come_back(self, c: int) -> bool:
        """If its socket is gone, it may come back."""
        connection = self.connections[c]
        return connection.resumption is not None and connection.peer is not None

    def is_asked_for(self, c: int) -> bool:
        """Somebody has shown its token, and that is not decided yet."""
        asks = (ask for connection in self.connections.values() for ask, _ in connection.asks)
        return any(self.tokens.get(ask.token) == c for ask in asks)

    def asked(self, c: int) -> tuple[Resume, int | None]:
        """With what `c` wants to go on, and the connection that it means, if there is one."""
        ask, _ = self.connections[c].asks[0]
        old = self.tokens.get(ask.token)
        return ask, old if old in self.connections else None

    def resumed(self, c: int, old: int, wrong: set[str]) -> None:
        """`c` goes on with `old`, which is over. `wrong`: for which reasons it should not.

        Raises Disagreement.
        """
        new = self.connections[c]
        if wrong | self._reasons(c) or self.tokens.get(new.asks[0][0].token) != old:
            raise Disagreement(f"{c} goes on with {old}: {new.asks[0]}")
        ask, value = new.asks.pop(0)
        del self.tokens[ask.token]
        going_on = self.connections[old]
        assert going_on.resumption is not None
        going_on.resumption.reported = ask.received
        going_on.opened_at, going_on.permit = new.opened_at, new.permit
        going_on.is_paced = new.is_paced
        going_on.waiting = new.waiting
        del self.connections[c]
        self.connections = {c if o == old else o: one for o, one in self.connections.items()}
        self.heard(c)
        taken = Number(str(going_on.resumption.taken))
        data = {"resume": {"resumed": True, "taken": taken, **self._offer(going_on)}}
        answer = self._relay_says("capabilities_response", c, data, value)
        self._expect([c], Ticket(answer.value, opens=False))
        self._expect([old], Closed(CLOSE_CODES["replaced"]))

    def refused(self, c: int, wrong: set[str]) -> None:
        """`c` may not go on with another connection. `wrong`: reasons for that, beside the
        model's own. Raises Disagreement if there is none."""
        reasons = wrong | self._reasons(c)
        _, old = self.asked(c)
        ask, value = self.connections[c].asks.pop(0)
        if not reasons:
            raise Disagreement(f"{c} may not come back, for no reason: {ask}")
        self.tokens.pop(ask.token, None)
        told = {"resumed": False, "reason": OneOf(frozenset(reasons))}
        if old is not None and reasons <= {"history", "count"}:
            lost = self.connections[old].resumption
            assert lost is not None
            told["taken"] = Maybe(Number(str(lost.taken)))
        data = {"resume": {**told, **self._offer(self.connections[c])}}
        answer = self._relay_says("capabilities_response", c, data, value)
        self._expect([c], Uncounted(answer.value))

    def _reasons(self, c: int) -> set[str]:
        """Why `c` may not go on with the connection that it means."""
        ask, old = self.asked(c)
        new = self.connections[c]
        reasons = set()
        if ask.epoch != self.epoch:
            reasons.add("epoch")
        if new.peer is not None or new.resumption is not None:
            reasons.add("late")
        if old is None:
            return reasons | {"unknown"}
        lost = self.connections[old]
        assert lost.resumption is not None
        if lost.peer is None:
            reasons.add("unknown")
        if replace(lost.permit, ends_at=None) != replace(new.permit, ends_at=None):
            reasons.add("grant")
        if ask.received < lost.resumption.reported:
            reasons.add("count")
        return reasons

    def _offer(self, connection: Connection) -> dict[str, Any]:
        if connection.resumption is None:
            return {"seconds": Amount(self.limits.resume_s)}
        seconds = Amount(connection.resumption.seconds)
        return {"token": A_NAME, "epoch": A_NAME, "seconds": seconds}

    # Time -----------------------------------------------------------------------------------------

    def due(self, now: float) -> dict[int, float]:
        """The connections whose time is up at `now` (seconds), and since when."""
        ends = {c: self._end(connection) for c, connection in self.connections.items()}
        return {c: end for c, end in ends.items() if end <= now}

    def elapsed(self, happened: Sequence[tuple[str, int]], late_s: float) -> None:
        """Time passed to `now`, and because of that this happened to connections, in this order:
        `"closed"` one, or `"announced"` what one had said too soon. One that was `"dismissed"`
        before it was closed got nothing in between.

        `late_s` (seconds): how late the relay may do it. Raises Disagreement if it did something
        early or too late, or did not do it.
        """
        due = self.due(self.now)
        closed = [c for what, c in happened if what == "closed"]
        if set(closed) != due.keys() or len(closed) != len(due):
            raise Disagreement(f"at {self.now:g} s time is up for {due}, closed were {closed}")
        for what, c in happened:
            if what == "announced":
                self._announce_held(c, late_s)
                continue
            if self.now - due[c] > late_s:
                raise Disagreement(f"{c} was due at {due[c]:g} s, closed at {self.now:g} s")
            if not self.connections[c].is_dismissed:
                self._dismissed(c, self._why_due(c))
            if what == "closed":
                self.ended(c, self._why_due(c))
        for c, connection in self.connections.items():
            if connection.held and self._may_announce_at(connection) <= self.now:
                raise Disagreement(f"what {c} has said too soon was not announced in time")

    def _why_due(self, c: int) -> str:
        connection = self.connections[c]
        if self._permit_end(connection) <= self.now:
            return "expired"
        return "silent" if connection.peer is not None else "unannounced"

    def _dismissed(self, c: int, cause: str) -> None:
        if cause == "expired":
            self._error(c, {cause})
        self._expect([c], Closed(CLOSE_CODES[cause]))
        self.connections[c].is_dismissed = True

    def shut_down(self) -> None:
        """The relay stops: everybody is closed, and nobody is told who goes."""
        for c in self.connections:
            self._expect([c], Closed(CLOSE_CODES["shutdown"]))
        self.connections.clear()
        self.peers.clear()
        self.lately.said.clear()
        self.said.clear()

    # What is known --------------------------------------------------------------------------------

    def of(self, peer: str) -> list[int]:
        """The connections of a peer."""
        return [c for c, connection in self.connections.items() if connection.peer == peer]

    def present(self) -> list[int]:
        """All connections of peers that get what goes to everyone."""
        return [c for c, its in self.connections.items() if its.peer and its.permit.may_watch]

    def others(self, peer: str) -> list[int]:
        """Those of other peers."""
        return [c for c in self.present() if self.connections[c].peer != peer]

    def hosts(self, agent: str) -> list[str]:
        """The peers that have this agent, by name."""
        return sorted(id for id, peer in self.peers.items() if agent in map(agent_id, peer.agents))

    def is_stale(self, peer: str) -> bool:
        """Nothing was heard on any of its connections for `stale_after_s`."""
        return all(
            self.now - self.connections[c].heard_at >= self.limits.stale_after_s or self.is_lost(c)
            for c in self.of(peer)
        )

    def _end(self, connection: Connection) -> float:
        if connection.peer is None:
            end = connection.opened_at + self.limits.announce_within_s
        else:
            end = connection.heard_at + self.limits.reap_after_s
        return min(end, self._permit_end(connection), self._lost_until(connection))

    def _lost_until(self, connection: Connection) -> float:
        return float("inf") if connection.resumption is None else connection.resumption.until

    def _permit_end(self, connection: Connection) -> float:
        if connection.permit.ends_at is None:
            return float("inf")
        return max(connection.opened_at, connection.permit.ends_at + self.limits.grant_grace_s)

    def _elements(self, message: Message) -> list[bytes]:
        if message is None or len(message) > self.limits.message_bytes_max:
            return []
        return elements_of(message)

    # Decisions ------------------------------------------------------------------------------------

    def _within_rate(self, c: int, connection: Connection, count: int) -> int:
        """How many of `count` messages pass. The rest is answered before those that pass."""
        limits = self.limits
        refill = (self.now - connection.tokens_at) * limits.messages_per_s
        tokens = min(float(limits.messages_burst), connection.tokens + refill)
        passed = 0
        while passed < count and tokens >= 1:
            tokens -= 1
            passed += 1
        connection.tokens, connection.tokens_at = tokens, self.now
        if passed < count and self.now - connection.rate_error_at >= limits.rate_error_every_s:
            connection.rate_error_at = self.now
            self._error(c, {"rate_limited"})
        return passed

    def _decide(self, c: int, connection: Connection, message: Message, *, in_array: bool) -> None:
        if message is BINARY:
            self._error(c, {"binary"})
            return
        faults = self.faults.of_size(message)
        try:
            value = read(message)
        except ValueError:
            self._error(c, faults | {"malformed"})
            return
        faults |= self.faults.of_value(value)
        if not isinstance(value, dict):
            self._error(c, faults)
            return
        faults |= self.faults.of_header(value)
        type, peer = value.get("type"), connection.peer
        if peer is None and type not in ("presence", "capabilities"):
            faults.add("not_present")
        if faults:
            self._error(c, faults, value)
        elif type == "presence":
            self._presence(c, connection, message, value)
        elif type == "capabilities":
            self._capabilities(c, connection, value, in_array=in_array)
        elif not is_withheld(value["type"]):
            assert peer is not None
            self._from_a_peer(c, connection, peer, message, value)

    def _from_a_peer(
        self, c: int, connection: Connection, peer: str, message: bytes, value: dict[str, Any]
    ) -> None:
        if value["type"] == "heartbeat":
            self._heartbeat(c, connection, message, value)
            return
        faults = self._origin_faults(peer, value) | self._said_faults(connection, peer, value)
        added = self._missing_origin(peer, value)
        faults |= self.faults.of_size(message, added)
        text = Made({**value, **added}) if added else Untouched(message)
        if value["type"] in TO_ONE:
            self._direct(c, peer, value, faults, text)
        elif faults:
            self._error(c, faults, value)
        elif not self._is_echo(c, connection, peer, message, value):
            self._begins(peer, value)
            wanting = [c for c in self.others(peer) if self._wants(c, value)]
            self._expect(self._not_spared(wanting, value), text)
            self.said.append((self.now, self.faults.size(message, added), value, text))

    def _is_echo(
        self, c: int, connection: Connection, peer: str, message: bytes, value: dict[str, Any]
    ) -> bool:
        """A page sends again what it received; if so, it is told so now and then."""
        if value["type"] not in SENT_AGAIN or not any(
            other.is_page for other in self.connections.values()
        ):
            return False
        said = value["type"], data_of(message)
        since = self.now - self.limits.echo_within_s
        if (
            connection.is_page
            and value.get("turnId") is None
            and self.lately.has_from_others(peer, *said, since)
        ):
            if self.now - connection.echo_error_at >= self.limits.rate_error_every_s:
                connection.echo_error_at = self.now
                self._error(c, {"echoed"}, value)
            return True
        self.lately.said.append((self.now, peer, *said))
        return False

    def _forget_without_pages(self) -> None:
        if not any(connection.is_page for connection in self.connections.values()):
            self.lately.said.clear()

    def _said_faults(self, connection: Connection, peer: str, value: dict[str, Any]) -> set[str]:
        permit, sender = connection.permit, value.get("from")
        is_itself = sender is None or sender == peer
        allowed = permit.may_send and (is_itself or permit.allows_agent(sender))
        return set() if allowed else {"not_granted"}

    def _capabilities(
        self, c: int, connection: Connection, value: dict[str, Any], *, in_array: bool
    ) -> None:
        request, faults = request_of(value.get("data")) if self.resumes else (None, set())
        if request is not None and in_array:
            faults.add("bad_field")
        if isinstance(request, Report) and connection.resumption is None:
            faults.add("bad_field")
        if faults:
            self._error(c, faults, value)
        elif isinstance(request, Resume):
            connection.asks.append((request, value))
        elif isinstance(request, Report):
            assert connection.resumption is not None
            connection.resumption.reported = max(connection.resumption.reported, request.received)
            data = {"taken": Number(str(connection.resumption.taken))}
            self._expect([c], self._relay_says("capabilities_response", c, data, value))
        else:
            self._question(c, connection, request, value)

    def _question(
        self, c: int, connection: Connection, request: Open | None, value: dict[str, Any]
    ) -> None:
        claim, faults = claim_of(value.get("data"))
        is_late = connection.peer is not None
        if claim is not None and (is_late or connection.claim not in (None, claim)):
            faults.add("bad_field")
        recalls, more = (
            wish_of(value.get("data")) if self.limits.recall_messages_max else (None, set())
        )
        if recalls is not None and is_late:
            more.add("bad_field")
        if faults | more:
            self._error(c, faults | more, value)
            return
        if claim is not None:
            connection.claim = claim
        if recalls is not None:
            connection.recalls = recalls
        opens = request is not None and connection.resumption is None
        if request is not None and opens:
            connection.resumption = Resumption(min(request.seconds, self.limits.resume_s))
        permit = connection.permit
        agents = self._agents_here() if permit.may_watch else {}
        told: dict[str, Any] = {"claim": True, "activeAgents": [*agents]}
        if self.limits.recall_messages_max:
            told["history"] = {"messages": Number(str(self.limits.recall_messages_max))}
        names_max = Number(str(self.limits.wish_names_max))
        told["subscribe"] = {"topics": names_max, "types": names_max}
        told["agentCards"] = [AtLeast({"name": agents[id]}) for id in agents]
        if self.resumes:
            told["resume"] = self._offer(connection)
        if permit != Permit():
            told["grant"] = {} if permit.peer is None else {"peer": permit.peer}
            if permit.ends_at is not None:
                left_s = max(0, math.floor(permit.ends_at - self.now))
                told["grant"]["expiresInSeconds"] = Number(str(left_s))
        answer = self._relay_says("capabilities_response", c, AtLeast(told), value)
        self._expect([c], Ticket(answer.value) if opens else answer)

    def _agents_here(self) -> dict[str, str]:
        """The ids of all agents, and the name of each: that of who announced it first.

        (Agents that pages would take for HTML, or that are too many to tell, are not in histories.)
        """
        named: dict[str, str] = {}
        for agent in (agent for peer in self.peers.values() for agent in peer.agents):
            id = agent_id(agent)
            if id is not None and id not in named:
                name = agent.get("name") if isinstance(agent, dict) else None
                named[id] = name if isinstance(name, str) and name else id
        return named

    def _origin_faults(self, peer: str, value: dict[str, Any]) -> set[str]:
        faults: set[str] = set()
        sender, instance = value.get("from"), value.get("instanceId")
        if instance is not None and instance != peer:
            faults |= self.faults.of_name(instance) | {"spoofed"}
        if sender is not None and sender != peer:
            faults |= self.faults.of_name(sender)
            if sender in self.peers:
                faults.add("spoofed")
        return faults

    def _missing_origin(self, peer: str, value: dict[str, Any]) -> dict[str, str]:
        """The field that the relay adds, so that every receiver knows the peer; perhaps none."""
        sender, instance = value.get("from"), value.get("instanceId")
        if sender is None:
            return {"from": peer}
        return {"instanceId": peer} if sender != peer and instance is None else {}

    def _direct(
        self, c: int, peer: str, value: dict[str, Any], faults: set[str], text: Untouched | Made
    ) -> None:
        target, more, named = self._target(peer, value)
        faults |= more
        if faults:
            self._error(
                c, faults, value, **({"peers": named} if named and len(faults) == 1 else {})
            )
        elif target is not None:
            self._begins(peer, value)
            self._expect(self.of(target), text)

    def _target(self, peer: str, value: dict[str, Any]) -> tuple[str | None, set[str], list[str]]:
        """For whom a direct of this peer is (None: its own tabs have it already), what is wrong
        with that, and the peers that an error names."""
        to, instance = value.get("to"), value.get("targetInstanceId")
        hosts = self.hosts(to) if to is not None else []
        faults: set[str] = set()
        target: str | None = None
        named: list[str] = []
        if instance is not None:
            faults |= self.faults.of_name(instance)
            target = instance
        elif to is None:
            faults.add("bad_field")
        elif to in self.peers:
            target = to
        elif peer in hosts:
            target = None  # its own tabs have it already
        elif self._stays_at_home(peer, value):
            faults |= self.faults.of_name(to) | {"unknown_target"}
        elif len(hosts) > 1:
            faults |= self.faults.of_name(to) | {"ambiguous_target"}
            named = hosts if len(hosts) <= NAMED_MAX else []
        else:
            faults |= self.faults.of_name(to)
            target = hosts[0] if hosts else to
        if target is not None and target not in self.peers:
            faults.add("unknown_target")
        return target, faults, named

    def _begins(self, peer: str, value: dict[str, Any]) -> None:
        begun = self.peers[peer].begun if peer in self.peers else None
        if begun is not None:
            begun.note(value)

    def _wants(self, c: int, value: dict[str, Any]) -> bool:
        """The connection wants this, which somebody said to everyone."""
        connection = self.connections[c]
        assert connection.peer is not None
        return connection.wish.has(value, self._named(value), connection.peer)

    def _named(self, value: dict[str, Any]) -> set[str]:
        """The peers that are here and that this names."""
        to, instance = value.get("to"), value.get("targetInstanceId")
        if instance is None and to is not None and to not in self.peers:
            return set(self.hosts(to))
        name = to if instance is None else instance
        return {id for id in self.peers if id == name}

    def _room_for(self, wish: Wish, c: int, replaced: Collection[int]) -> bool:
        """There may be this wish, too, if it is that of `c`, and `replaced` are gone."""
        others = {
            its.wish
            for other, its in self.connections.items()
            if other != c and other not in replaced and its.permit.may_watch
        }
        return len((others | {wish}) - {EVERYTHING}) <= self.limits.wishes_max

    def _not_spared(self, receivers: list[int], value: dict[str, Any]) -> list[int]:
        """All of them but those that are behind and do not get this. These are told now and
        then."""
        spared = [c for c in receivers if self.connections[c].lags and self._is_spared(c, value)]
        for c in spared:
            if self.now - self.connections[c].told_lag_at >= self.limits.lag_told_every_s:
                self.connections[c].told_lag_at = self.now
                self._error(c, {"lagging"})
        return [c for c in receivers if c not in spared]

    def _is_spared(self, c: int, value: dict[str, Any]) -> bool:
        id = self.connections[c].peer
        assert id is not None
        peer = self.peers[id]
        assert peer.begun is not None  # it has a connection that may lag
        return is_for_others(value, peer.begun, id, set(map(agent_id, peer.agents)))

    def _stays_at_home(self, peer: str, value: dict[str, Any]) -> bool:
        """Said by somebody whom nobody has heard of, who does not say whose agent it is."""
        agents = self.peers[peer].agents if peer in self.peers else []
        known = {None, peer, *map(agent_id, agents)}
        return value.get("instanceId") is None and value.get("from") not in known

    # Visitors -------------------------------------------------------------------------------------

    def visited(self, body: bytes, permit: Permit) -> list[set[str] | int]:
        """Somebody without a connection, who may do this, has said one message or an array.

        For each message: what is wrong with it, or how many connections get it. (The rate of a
        bearer is not in here: it is as if each had come for the first time.)
        """
        if permit.ends_at is not None and self.now >= permit.ends_at + self.limits.grant_grace_s:
            return [{"expired"}]
        elements = self._elements(body)
        if len(elements) > self.limits.messages_burst:
            return [{"too_large"}]
        return [self._visited(one, permit) for one in elements or [body]]

    def _visited(self, message: bytes, permit: Permit) -> set[str] | int:
        faults = self.faults.of_size(message)
        try:
            value = read(message)
        except ValueError:
            return faults | {"malformed"}
        faults |= self.faults.of_value(value)
        if not isinstance(value, dict):
            return faults
        faults |= self.faults.of_header(value)
        if value.get("type") in ("presence", "heartbeat", "capabilities"):
            faults.add("bad_field")
        if faults:
            return faults
        if is_withheld(value["type"]):
            return 0
        id, faults = visitor_of(permit, value)
        if id is None:
            return faults
        faults |= self._visitors_faults(id, permit, value)
        added = self._missing_origin(id, value)
        faults |= self.faults.of_size(message, added)
        text = Made({**value, **added}) if added else Untouched(message)
        if value["type"] in TO_ONE:
            target, more, _ = self._target(id, value)
            if faults | more:
                return faults | more
            self._begins(id, value)
            receivers = [] if target is None else self.of(target)
        elif faults:
            return faults
        else:
            if value["type"] in SENT_AGAIN and any(c.is_page for c in self.connections.values()):
                self.lately.said.append((self.now, id, value["type"], data_of(message)))
            self._begins(id, value)
            wanting = [c for c in self.others(id) if self._wants(c, value)]
            receivers = self._not_spared(wanting, value)
            self.said.append((self.now, self.faults.size(message, added), value, text))
        self._expect(receivers, text)
        return len(receivers)

    def _visitors_faults(self, id: str, permit: Permit, value: dict[str, Any]) -> set[str]:
        """What is wrong with the names under which a visitor speaks."""
        faults, sender = self.faults.of_name(id), value.get("from")
        if id != permit.peer and (id in self.peers or self.hosts(id)):
            faults.add("spoofed")
        if sender not in (None, id):
            faults |= self.faults.of_name(sender)
            hosts = self.hosts(sender)
            if sender in self.peers or (hosts and id not in hosts):
                faults.add("spoofed")
        return faults

    # Presence -------------------------------------------------------------------------------------

    def _presence(
        self, c: int, connection: Connection, message: bytes, value: dict[str, Any]
    ) -> None:
        id, instance = value.get("from"), value.get("instanceId")
        faults = {"bad_field"} if id is None else self.faults.of_name(id)
        if connection.peer is not None and id != connection.peer:
            faults.add("identity_fixed")
        if instance not in (None, id):
            faults.add("spoofed")
        agents, more = self.faults.of_agents(message, value)
        more |= subscription_of(value.get("data"), self.limits)[1]
        permit = connection.permit
        if not permit.allows_peer(id or "") or not permit.allows_agents(agents):
            more.add("not_granted")
        if faults | more:
            self._error(c, faults | more, value)
        elif connection.peer is None or self._may_announce(connection, message):
            self._announce(c, connection, message, value)
        else:
            connection.held = [(message, value)]

    def _announce(
        self, c: int, connection: Connection, message: bytes, value: dict[str, Any]
    ) -> None:
        """The presence is right in itself, and its time has come."""
        id: str = value["from"]
        agents, faults = self.faults.of_agents(message, value)
        agents = agents or []
        is_new_here = connection.peer is None
        claim = connection.claim
        secret = claim.secret if claim is not None else None
        replaced: list[int] = []
        if is_new_here and id in self.peers:
            if secret != self.peers[id].secret:
                faults.add("id_taken")
            elif claim is not None and claim.takes_over:
                replaced = self.of(id)
            if not replaced and len(self.of(id)) >= self.limits.peer_connections_max:
                faults.add("too_many_connections")
        everything = agents if replaced else self._union(id, c, agents)
        faults |= self.faults.of_union(everything)
        data = value.get("data")
        wish, _ = subscription_of(data, self.limits)
        if connection.permit.may_watch and not self._room_for(wish, c, replaced):
            faults.add("too_many_wishes")
        if faults:
            self._error(c, faults, value)
            return
        if is_new_here:
            connection.announcement_tokens = self.limits.announcements_burst
            connection.announcement_tokens_at = self.now
        connection.peer = id
        connection.agents = agents
        connection.wish = wish
        connection.pongs_count = data is not None and data.get("keepalive") == "pong"
        connection.is_page = is_page(data) and self.limits.echo_within_s > 0
        if data is None:
            value = {**value, "data": {}}
        if everything != agents:
            value = {**value, "data": {**value["data"], "agents": everything}}
        untouched = data is not None and everything == agents
        text = Untouched(message) if untouched else Made(value)
        if id in self.peers:
            peer = self.peers[id]
            peer.agents, peer.presence, peer.fields, peer.at = everything, text, value, self.now
        else:
            self.peers[id] = Peer(secret, everything, text, value, self.now)
        self._note_presence(id)
        if is_new_here and connection.is_paced and connection.permit.may_watch:
            connection.may_lag = not takes_arrays(data)
            if connection.may_lag and self.peers[id].begun is None:
                self.peers[id].begun = Begun(self.limits.begun_turns_max)
        self._in_order_of_joining(c, is_new_here)
        own = set(self.of(id)).difference(replaced)  # those too that may not watch
        self._expect(own.union(self.present()), text)
        for old in replaced:
            self._error(old, {"replaced"})
            self._expect([old], Closed(CLOSE_CODES["replaced"]))
            del self.connections[old]
        self._forget_without_pages()
        if is_new_here and connection.permit.may_watch:
            others = [peer.presence for other, peer in self.peers.items() if other != id]
            if others:
                self._expect([c], Roster(others))
        if is_new_here and connection.recalls is not None:
            said = self._recalled(c, connection.recalls) if connection.permit.may_watch else []
            count = {"history": {"messages": Number(str(len(said)))}}
            self._expect([c], self._relay_says("capabilities_response", c, count, {}))
            for one in said:
                self._expect([c], one)

    def _recalled(self, c: int, most: int) -> list[Untouched | Made]:
        """The last messages that went to everyone and that `c` wants, within the bounds of the
        memory."""
        limits, left = self.limits, self.limits.recall_bytes_max
        old: list[Untouched | Made] = []
        for at, size, value, text in reversed(self.said[-limits.recall_messages_max :]):
            left -= size
            if left < 0 or at < self.now - limits.recall_s or len(old) >= most:
                break
            if self._wants(c, value):
                old.insert(0, text)
        return old

    def _in_order_of_joining(self, c: int, is_new_here: bool) -> None:
        # A union lists agents in the order of announcement; connections open in another one.
        if is_new_here:
            self.connections[c] = self.connections.pop(c)

    def _heartbeat(
        self, c: int, connection: Connection, message: bytes, value: dict[str, Any]
    ) -> None:
        agents, faults = self.faults.of_agents(message, value)
        latest = connection.agents
        if connection.held:
            latest = self.faults.of_agents(*connection.held[-1])[0] or []
        if not connection.permit.allows_agents(agents):
            faults.add("not_granted")
        if faults:
            self._error(c, faults, value)
        elif agents is None or agents == latest:
            self._beat(c, connection, value, connection.agents)
        elif self._may_announce(connection, message):
            self._beat(c, connection, value, agents)
        else:
            presences = [held for held in connection.held if held[1]["type"] == "presence"]
            connection.held = [*presences, (message, value)]

    def _beat(
        self, c: int, connection: Connection, value: dict[str, Any], agents: list[Any]
    ) -> None:
        """The heartbeat is right in itself, and its time has come."""
        assert connection.peer is not None
        id, peer = connection.peer, self.peers[connection.peer]
        faults = self._origin_faults(id, value)
        everything = peer.agents
        if agents != connection.agents:
            everything = self._union(id, c, agents)
            faults |= self.faults.of_union(everything)
        if faults:
            self._error(c, faults, value)
            return
        connection.agents = agents
        changed = everything != peer.agents
        if changed:
            self._change_agents(peer, everything)
        if changed:
            self._say_again(id)
            return
        self.beaten += [id] if id not in self.beaten else []
        if self.now - peer.at >= self.limits.presence_refresh_s * 7 / 8:
            for other in tuple(self.beaten):  # whose time has nearly come, too
                if self.now - self.peers[other].at >= self.limits.presence_refresh_s * 6 / 8:
                    self._say_again(other)

    def _say_again(self, id: str) -> None:
        """The others get the presence of a peer once more."""
        self.peers[id].at = self.now
        self._note_presence(id)
        self._expect(self.others(id), self.peers[id].presence)

    def _note_presence(self, id: str) -> None:
        """The presence of this peer has been said, or it is gone: no heartbeat has come since."""
        self.beaten = [other for other in self.beaten if other != id]

    def _may_announce_at(self, connection: Connection) -> float:
        missing = max(0.0, 1 - connection.announcement_tokens)
        return connection.announcement_tokens_at + missing / self.limits.announcements_per_s

    def _may_announce(self, connection: Connection, message: bytes) -> bool:
        """One more may be announced now; then it counts."""
        if connection.held or self._may_announce_at(connection) > self.now:
            return False
        self._count_announcement(connection, message)
        return True

    def _count_announcement(self, connection: Connection, message: bytes) -> None:
        """A long one counts as several."""
        limits = self.limits
        refill = (self.now - connection.announcement_tokens_at) * limits.announcements_per_s
        tokens = min(float(limits.announcements_burst), connection.announcement_tokens + refill)
        tokens -= math.ceil(len(message) / limits.announcement_bytes)
        connection.announcement_tokens, connection.announcement_tokens_at = tokens, self.now

    def _announce_held(self, c: int, late_s: float) -> None:
        """What `c` has said too soon is announced now."""
        connection = self.connections[c]
        due = self._may_announce_at(connection)
        if not connection.held or not due <= self.now <= due + late_s:
            raise Disagreement(f"{c} was announced at {self.now:g} s, and not at {due:g} s")
        message, value = connection.held.pop(0)
        self._count_announcement(connection, message)
        if value["type"] == "presence":
            self._announce(c, connection, message, value)
        else:
            agents = self.faults.of_agents(message, value)[0]
            self._beat(c, connection, value, agents or [])

    def _union(self, id: str | None, c: int, agents: list[Any]) -> list[Any]:
        """The agents of a peer over its connections, if those of `c` were these."""
        tabs = self.of(id) if id is not None else []
        if c not in tabs:
            tabs = [*tabs, c]
        return union([agents if tab == c else self.connections[tab].agents for tab in tabs])

    def _change_agents(self, peer: Peer, agents: list[Any]) -> None:
        peer.agents = agents
        peer.fields = {**peer.fields, "data": {**peer.fields["data"], "agents": agents}}
        peer.presence = Made(peer.fields)

    def _leave(self, id: str, cause: str) -> None:
        """A connection of a peer has gone. With the last one goes the peer."""
        rest = self.of(id)
        if not rest:
            del self.peers[id]
            self._note_presence(id)
            data = {"status": "offline", "reason": cause, "agents": []}
            offline = {"type": "presence", "from": id, "data": data, "timestamp": A_TIME}
            self._expect(self.present(), Made(offline))
            return
        peer = self.peers[id]
        everything = union([self.connections[c].agents for c in rest])
        if everything != peer.agents:
            self._change_agents(peer, everything)
            peer.at = self.now
            self._note_presence(id)
            self._expect(self.present(), peer.presence)

    # What goes out --------------------------------------------------------------------------------

    def _expect(self, connections: Collection[int], expected: Expected) -> None:
        for c in connections:
            its = self.connections.get(c)
            if its is None or not its.is_dismissed:
                self._expected.setdefault(c, []).append(expected)

    def _error(
        self, c: int, faults: set[str], value: dict[str, Any] | None = None, **details: Any
    ) -> None:
        data = AtLeast({"code": OneOf(frozenset(faults)), "error": A_SENTENCE, **details})
        # What is too large may have been dropped unread.
        unread = "too_large" in faults
        self._expect([c], self._relay_says("error", c, data, value or {}, maybe_unread=unread))

    def _relay_says(
        self, type: str, c: int, data: Any, about: dict[str, Any], maybe_unread: bool = False
    ) -> Made:
        peer = self.connections[c].peer
        said = {"type": type, "from": RELAY, "to": peer if peer is not None else Maybe(None)}
        if "turnId" in about:
            said["turnId"] = Maybe(about["turnId"]) if maybe_unread else about["turnId"]
        return Made({**said, "data": data, "timestamp": A_TIME})
