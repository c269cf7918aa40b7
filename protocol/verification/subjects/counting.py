"""What the peer of a connection counts, and with which words it comes back, rightly or wrongly."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args
from zlib import crc32

from protocol.verification.model import Resume

How = Literal["right", "fewer", "backwards", "one-more", "many-more", "crc", "token", "epoch"]
"""How a peer wants to go on: rightly, or with something wrong in it.

`fewer`: as if the last two messages had not arrived, which is its right as long as it has not said
otherwise. `backwards`: fewer than it has said before.
"""
HOW: Final[tuple[How, ...]] = get_args(How)

NEVER_SENT: Final = crc32(b"nobody has ever sent this")


@dataclass(eq=False)
class Counts:
    """What counts on one connection, since the answer that gave it its first token.

    `got`: the texts that have arrived. `decided_at`: when those and all others to this connection
    were decided (seconds). `token`: None until it has arrived. `reported`: what its peer said last.
    """

    got: list[bytes] = field(default_factory=list)
    decided_at: list[float] = field(default_factory=list)
    token: str | None = None
    epoch: str = ""
    reported: int = 0

    def ask(self, how: How) -> bytes:
        """The question with which its peer wants to go on."""
        received, token, epoch = len(self.got), self.token, self.epoch
        match how:
            case "fewer":
                received = max(0, received - 2)
            case "backwards":
                received = max(0, self.reported - 1)
            case "one-more":
                received += 1
            case "many-more":
                received += 10**6
            case "token":
                token = "a guess"
            case "epoch":
                epoch = "another one"
        resume: dict[str, Any] = {"token": token, "epoch": epoch, "received": received}
        if received:
            resume["crc"] = self._crc(received)
        if how == "crc":
            resume["crc"] = NEVER_SENT
        return _capabilities({"resume": resume})

    def _crc(self, received: int) -> int:
        return crc32(self.got[received - 1]) if received <= len(self.got) else NEVER_SENT

    def report(self) -> bytes:
        """The words in which its peer says what has arrived."""
        self.reported = len(self.got)
        return _capabilities({"received": len(self.got)})

    def faults(self, ask: Resume, forgotten_until: float) -> tuple[set[str], set[str]]:
        """The reasons for which a relay must refuse this, and those for which it may.

        `forgotten_until`: what was decided by then may be forgotten (seconds).
        """
        certain: set[str] = set()
        received, sent = ask.received, len(self.decided_at)
        if (
            received > sent
            or (ask.crc is None) != (received == 0)
            or (received and self._crc(received) != ask.crc)
            or received > len(self.got)  # that is not in the question of an honest peer
        ):
            certain.add("count")
        may = (
            {"history"}
            if received < sent and self.decided_at[received] <= forgotten_until
            else set()
        )
        return certain, may

    def gone_on(self, ask: Resume) -> "Counts":
        """The counts of the connection that goes on with this one."""
        return Counts(self.got[: ask.received], self.decided_at, reported=ask.received)


def open_question(seconds: float) -> bytes:
    """The question after which a connection may come back within so many seconds."""
    return _capabilities({"resume": {"seconds": seconds}})


def _capabilities(data: dict[str, Any]) -> bytes:
    return json.dumps({"type": "capabilities", "data": data}).encode()


WRONG: Final[Sequence[Any]] = (
    1,  # this and the next ones ask for nothing
    "resume",
    ["resume"],
    {"resume": None},
    {"resume": []},
    {"resume": {}},
    {"resume": {"seconds": "20"}},
    {"resume": {"seconds": -1}},
    {"resume": {"seconds": True}},
    {"resume": {"token": "", "epoch": "e", "received": 0}},
    {"resume": {"token": "t" * 101, "epoch": "e", "received": 0}},
    {"resume": {"token": "t", "received": 0}},
    {"resume": {"token": "t", "epoch": "e"}},
    {"resume": {"token": "t", "epoch": "e", "received": -1}},
    {"resume": {"token": "t", "epoch": "e", "received": 1.5}},
    {"resume": {"token": "t", "epoch": "e", "received": True}},
    {"resume": {"token": "t", "epoch": "e", "received": 2**53 + 1}},
    {"resume": {"token": "t", "epoch": "e", "received": 1, "crc": -1}},
    {"resume": {"token": "t", "epoch": "e", "received": 1, "crc": 2**32}},
    {"resume": {"token": "t", "epoch": "e", "received": 1, "crc": "1"}},
    {"received": -1},
    {"received": 1.5},
    {"received": "1"},
    {"received": None},
    {"received": 2**53 + 1},
)
"""The `data` of questions that are not as rule 19 has them."""
