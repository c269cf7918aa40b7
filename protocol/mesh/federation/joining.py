"""How a newcomer comes into a federation: it says hello, and hears what the others know.

It keeps what comes from the log behind its hello. Members answer with all that they had decided
when the hello came to them; with that and the rest of the log the newcomer has decided the same. If
nobody answers, it says hello again, and another member answers. If nobody says anything, it begins
the federation: at once in an empty log, else when `found_after_s` have passed in the log.
"""

import attrs

from protocol.instant import Instant
from protocol.mesh.federation.records import (
    Entry,
    Found,
    Fragment,
    Hello,
    Record,
    State,
    Tick,
    whole,
    written,
)
from protocol.mesh.federation.timing import Timing

ENTRY_BYTES = 200
"""What an entry that is kept costs beside its bytes, about."""

VERSIONS_DIFFER = (
    "the other relays have another version, or other limits that decide what a mesh does, so they "
    "do not let this one in"
)


class TooMuch(Exception):
    """More has come than may be kept."""


@attrs.frozen
class First:
    """Nobody was there: the federation begins with this node, at this entry."""

    entry: Entry


@attrs.frozen
class Answer:
    """What the others know, and what has come since."""

    state: State
    behind: list[tuple[Entry, Record]]


class Joining:
    """One life of node `number`, until it takes part.

    `outgoing`: what to append, if it is not None; the owner takes it out. `refusal`: why the others
    do not let it in, as far as they have said anything.
    """

    def __init__(
        self, number: int, life: int, fingerprint: str, timing: Timing, now: Instant
    ) -> None:
        self.outgoing: bytes | None = None
        self.refusal: str | None = None
        self._number = number
        self._life = life
        self._fingerprint = fingerprint
        self._timing = timing
        self._attempt = 0
        self._said_at = 0.0
        self._hello: Entry | None = None  # the first one of this life
        self._latest_at = 0.0  # when the log took the latest one
        self._quiet_since: Entry | None = None  # this hello, or the last word of a member
        self._has_founded = False
        self._entries: list[tuple[Entry, Record]] = []
        self._bytes = 0
        self._parts: dict[int, tuple[int, bytes]] = {}  # of answers, by node
        self._ask(now)

    def tick(self, now: Instant) -> None:
        """Time passes."""
        if now.at - self._said_at < self._timing.ask_s:
            return
        since = self._quiet_since
        if (
            since is not None
            and self._latest_at - since.at >= self._timing.found_after_s
            and not self._has_founded
        ):
            self._has_founded = True
            self._say(Found(self._fingerprint, since.position), now)
        else:
            self._has_founded = False
            self._ask(now)

    def hear(self, entry: Entry, record: Record, now: Instant) -> First | Answer | None:
        """This has come from the log. Returns how the node can take part, if it can. Raises
        TooMuch."""
        body = record.body
        is_own = record.node == self._number and record.life == self._life
        if is_own and isinstance(body, Hello):
            if entry.position == 1:  # the log is empty, so nobody can be there
                return First(entry)
            self._hello = self._hello or entry
            self._quiet_since = self._quiet_since or entry
            self._latest_at = entry.at
        elif is_own and isinstance(body, Found):
            if self._quiet_since is not None and self._quiet_since.position <= body.since:
                return First(entry)
        elif isinstance(body, Found):
            self._quiet_since = entry
            self._ask(now)  # whoever has begun knows nothing of the hello before
        elif not isinstance(body, Hello):
            self._quiet_since = entry
            if isinstance(body, Tick):
                differs = body.fingerprint != self._fingerprint
                self.refusal = VERSIONS_DIFFER if differs else None
        return None if self._hello is None else self._keep(entry, record)

    def _keep(self, entry: Entry, record: Record) -> Answer | None:
        body, answer = record.body, None
        if isinstance(body, Fragment) and body.to:
            if body.to == self._number:
                answer = self._collect(record.node, body)
            # It counts among the records of its node, and nothing else of it does.
            empty = Fragment(body.to, body.index, body.is_last, b"")
            record = Record(record.node, record.life, record.n, empty)
        else:
            self._bytes += len(entry.data)
        self._entries.append((Entry(entry.position, entry.at, b""), record))
        self._bytes += ENTRY_BYTES
        if self._bytes > self._timing.joining_bytes_max:
            raise TooMuch
        if answer is not None:
            answer.behind.extend(
                kept for kept in self._entries if kept[0].position > answer.state.position
            )
        return answer

    def _collect(self, node: int, part: Fragment) -> Answer | None:
        """A part of an answer. Returns the answer if it is complete, and for this life."""
        index, data = self._parts.get(node, (0, b"")) if part.index else (0, b"")
        if part.index != index:  # it was appended again, or others are missing
            return None
        data += part.data
        self._parts[node] = (index + 1, data)
        if not part.is_last:
            return None
        del self._parts[node]
        state, hello = whole(data), self._hello
        if not isinstance(state, State) or state.life != self._life or hello is None:
            return None
        return Answer(state, []) if state.position >= hello.position else None

    def _ask(self, now: Instant) -> None:
        self._attempt += 1
        self._say(Hello(self._fingerprint, self._attempt), now)

    def _say(self, body: Hello | Found, now: Instant) -> None:
        self._said_at = now.at
        self.outgoing = written(Record(self._number, self._life, 0, body))
