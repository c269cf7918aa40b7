"""What hand-written vectors are made with: one peer, and a relay whose words are written out."""

import json
from typing import Any

from protocol.instant import Instant
from protocol.member.outgoing import Frame
from tests.vectors.recording import Case, Recorded

WALL_MS = 1_700_000_000_000
"""The wall clock at monotonic time 0."""


def presence(peer: str, *agents: Any, turn: str | None = None, **data: Any) -> dict[str, Any]:
    """The presence of a peer."""
    message = {"type": "presence", "from": peer, "data": {"agents": list(agents), **data}}
    return message if turn is None else {**message, "turnId": turn}


def relays(type: str, turn: str | None = None, **data: Any) -> dict[str, Any]:
    """Something that the relay says itself."""
    message = {"type": type, "from": "relay", "to": "ann", "data": data}
    return message if turn is None else {**message, "turnId": turn}


def answer(type: str, turn: str, sender: str = "bob", **data: Any) -> dict[str, Any]:
    """An answer to a command of ann."""
    return {"type": type, "from": sender, "to": "ann", "turnId": turn, "data": data}


def command(
    to: str | None = "ann", turn: str = "c-1", sender: str = "bob", text: Any = "go", **fields: Any
) -> dict[str, Any]:
    """A command to ann."""
    named = {} if to is None else {"to": to}
    said = {"type": "direct", "from": sender, **named, "turnId": turn, "data": {"command": text}}
    return {**said, **fields}


class Story:
    """Peer `ann`, whose agent is `coder`, from monotonic second 1000 on."""

    def __init__(self, name: str, **setup: Any) -> None:
        self.at = 1000.0
        self.slept_ms = 0
        self.member = Recorded(name, {"id": "ann", "agents": ["coder"], **setup})
        self.use = 0

    @property
    def case(self) -> Case:
        return self.member.case

    @property
    def now(self) -> Instant:
        return Instant(self.at, WALL_MS + round(self.at * 1000) + self.slept_ms)

    # What happens ---------------------------------------------------------------------------------

    def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the member, now. Returns what it returns, and the error it raises."""
        if name not in ("withdraw", "returned", "taken"):
            kwargs["now"] = self.now
        try:
            return getattr(self.member, name)(*args, **kwargs)
        except Exception as error:
            return error

    def wait(self, seconds: float) -> None:
        """Time passes; what is due happens at its time."""
        until = self.at + seconds
        while (due := self.member.deadline()) is not None and due <= until:
            self.at = max(self.at, due)
            self.do("expire")
        self.at = until

    def sleep(self, seconds: float) -> None:
        """Time passes, and nobody looks at the clock until it is over."""
        self.at += seconds
        self.do("expire")

    def hear(self, *messages: dict[str, Any], connection: int | None = None) -> None:
        """The relay sends one frame with these."""
        frame = messages[0] if len(messages) == 1 else list(messages)
        text = json.dumps(frame, separators=(",", ":"), ensure_ascii=False)
        self.do("received", connection or self.use, text)

    def pump(self, connection: int | None = None, times: int = 100) -> float | None:
        """Hand on what may be sent now. Returns when to ask again."""
        for _ in range(times):
            due = self.do("next_frame", connection or self.use)
            if not isinstance(due, Frame):
                return due  # type: ignore[no-any-return]
        return None

    def pump_in_time(self, times: int) -> None:
        """The same so many times, each when the pace allows it."""
        for _ in range(times):
            due = self.pump()
            if due is not None:
                self.wait(due - self.at)

    # How it begins --------------------------------------------------------------------------------

    def open(self, connection: int) -> None:
        """The connection opens."""
        self.do("opened", connection)

    def join(
        self,
        *others: dict[str, Any],
        limits: dict[str, Any] | None = None,
        accept: Any = ("batch",),
        connection: int = 1,
        first_turn: int = 1,
        knows_capabilities: bool = True,
    ) -> "Story":
        """The connection opens and joins, and these presences are the roster."""
        self.open(connection)
        self.use = connection
        own = presence("ann", "coder", turn=f"t:{first_turn}", keepalive="pong", accept=["batch"])
        self.hear(own)
        for other in others:
            self.hear(other)
        if knows_capabilities:
            told = {"limits": limits or {}, "accept": accept}
            self.hear(relays("capabilities_response", f"t:{first_turn + 1}", **told))
        return self


def joined(name: str, *others: dict[str, Any], told: Any = None, **setup: Any) -> Story:
    """Ann has joined a mesh in which bob is, with the agent `helper`, and these others."""
    story = Story(name, **setup)
    story.do("begin", within_s=30.0)
    first_turn = 2 if "owner" in setup else 1  # the claim has one of its own
    return story.join(presence("bob", "helper"), *others, limits=told, first_turn=first_turn)
