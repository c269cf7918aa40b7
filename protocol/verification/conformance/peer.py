"""A peer of the kit: one connection, and what arrived on it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from protocol.verification.conformance.messages import Message, read
from protocol.verification.conformance.outcomes import Failed, shown
from protocol.verification.conformance.sockets import Closed, Socket
from protocol.verification.conformance.target import Proof, Target

JOIN_S: Final = 0.1
"""How long a peer waits to be in the mesh of a relay that gives no sign of it, at most."""

KEEPS_ALIVE: Final = "keepsAlive"
"""A field of the heartbeats of peers that merely wait. No claim is about these, and some relays
forward them."""

NOW_S: Final = 0.02
"""How long it may take to receive what has come already."""


class Peer:
    """One connection. `inbox` is what arrived and was neither waited for nor taken.

    `token` is in everything that the peers of one claim send; what is about others is dropped.
    `neighbours` are the peers of its claim, itself included.
    """

    def __init__(
        self,
        target: Target,
        token: str,
        socket: Socket,
        mesh: str = "",
        neighbours: Sequence["Peer"] = (),
    ) -> None:
        self.target = target
        self.token = token
        self.socket = socket
        self.mesh = mesh
        self.neighbours = neighbours
        self.is_announced = False
        self.id = ""
        self.inbox: list[Message] = []
        self.is_left_alone = False  # neither settled with nor kept alive
        self.is_deaf = False  # not settled with, because it does not read
        self.got: list[str] | None = None  # if set: every text that arrives, whatever it is about
        self.said: list[str] = []  # and every text that was sent since then
        self.spoke_at = time.monotonic()

    def __repr__(self) -> str:
        return self.id or "a connection without presence"

    # Sending --------------------------------------------------------------------------------------

    async def send_text(self, text: str | bytes, *, as_text: bool = False) -> None:
        """Send a text frame, or bytes: as a binary frame, or `as_text`. Raises Failed if closed."""
        self.spoke_at = time.monotonic()  # before the relay can have heard it
        if self.got is not None and isinstance(text, str):
            self.said.append(text)
        try:
            async with asyncio.timeout(self.target.patience_s * 2):
                await self.socket.send(text, as_text=as_text)
        except Closed as closed:
            raise self._was_closed(closed) from None
        except TimeoutError:
            raise Failed(f"the relay reads what {self!r} sends", "it does not") from None

    async def send_fragments(self, fragments: Iterable[bytes]) -> None:
        """Send one message in these fragments. Raises Failed if closed."""
        try:
            await self.socket.send_fragments(fragments)
        except Closed as closed:
            raise self._was_closed(closed) from None

    async def send(self, type: str, **fields: Any) -> str:
        """Send a message from this peer and return its text.

        `sender=` replaces `from`, or (None) leaves it out. Raises Failed if closed.
        """
        sender = fields.pop("sender", self.id)
        origin = {} if sender is None else {"from": sender}
        message = {"type": type, **origin, **fields, "timestamp": round(time.time() * 1000)}
        text = json.dumps(message)
        await self.send_text(text)
        return text

    async def announce(self, *agents: object, **data: Any) -> None:
        """Send a presence and wait until the relay has surely taken it. Raises Failed."""
        others = [p for p in self.neighbours if p.is_announced and self._may_hear(p)]
        heard = [sum(map(self._is_mine, other.inbox)) for other in others]
        await self.send("presence", data={"agents": agents, **data})
        is_first, self.is_announced = not self.is_announced, True
        for proof in self.target.proofs:
            match proof:
                case Proof.OWN:
                    await self.until(self._is_mine, f"the presence of {self!r} comes back to it")
                case Proof.ROSTER if is_first and others:
                    ids = {other.id for other in others}
                    await self.sees(
                        lambda m, ids=ids: m.type == "presence" and m.sender in ids,  # type: ignore[misc]
                        f"{self!r} hears who is here",
                    )
                case Proof.DIRECT:
                    await self.hears_itself()
                case Proof.HEARD if others:
                    words = f"{others[0]!r} hears the presence of {self!r}"
                    await others[0].sees(self._is_mine, words, times=heard[0] + 1)
                    await self.catch_up()
                case Proof.TIME:
                    await asyncio.sleep(min(JOIN_S, self.target.patience_s))
                    await self.catch_up()
                case _:
                    continue
            return

    def _is_mine(self, message: Message) -> bool:
        return message.type == "presence" and message.sender == self.id

    def _may_hear(self, other: "Peer") -> bool:
        is_here = not (other.is_left_alone or other.is_deaf)
        return is_here and other.id != self.id and other.mesh == self.mesh

    async def hears_itself(self) -> None:
        """Send a direct to itself, and wait for it. Raises Failed."""
        mark = f"self-{self.token}-{time.monotonic_ns()}"
        await self.send("direct", to=self.id, data={"mark": mark})
        await self.until(lambda m: m.data.get("mark") == mark, f"{self!r} hears itself")

    # Receiving ------------------------------------------------------------------------------------

    async def receive(self, expected: str, *, within_s: float | None = None) -> Message:
        """The next message that is about this claim.

        Raises Failed, with `expected`, if none comes `within_s` (seconds; None: the patience).
        """
        bound_s = self.target.patience_s if within_s is None else within_s
        try:
            async with asyncio.timeout(bound_s):
                while True:
                    message = read(await self.socket.receive())
                    if self.got is not None:
                        self.got.append(message.text)
                    if not self.is_foreign(message):
                        return message
        except Closed as closed:
            raise self._was_closed(closed) from None
        except TimeoutError:
            words = f"{self!r} waited {bound_s:.3g} s in vain"
            if self.inbox:
                words += f"; what came last: {shown(self.inbox[-1])}"
            raise Failed(expected, words) from None

    def is_foreign(self, message: Message) -> bool:
        """Is this message about somebody outside this claim, on a relay without meshes?"""
        is_answer = message.type in ("error", "capabilities_response")
        return bool(message.fields) and not is_answer and self.token not in message.text

    async def until(
        self,
        wanted: Callable[[Message], bool],
        expected: str,
        *,
        within_s: float | None = None,
    ) -> Message:
        """The next message that is `wanted`. What comes before it stays in the inbox.

        Raises Failed, with `expected`, if it does not come `within_s` (seconds; None: if nothing
        comes for as long as the target's patience).
        """
        ends_at = None if within_s is None else time.monotonic() + within_s
        for at, message in enumerate(self.inbox):
            if wanted(message):
                return self.inbox.pop(at)
        quiet_since = time.monotonic()
        while True:
            until = quiet_since + self.target.patience_s if ends_at is None else ends_at
            message = await self.receive(expected, within_s=max(0.0, until - time.monotonic()))
            if wanted(message):
                return message
            self.inbox.append(message)
            if message.type != "heartbeat":  # a relay may forward those of the kit for ever
                quiet_since = time.monotonic()

    async def sees(
        self, wanted: Callable[[Message], bool], expected: str, *, times: int = 1
    ) -> None:
        """Wait until so many messages in the inbox are `wanted`. They stay there. Raises Failed."""
        while sum(map(wanted, self.inbox)) < times:
            self.inbox.append(await self.receive(expected))

    async def is_kept(self) -> None:
        """The relay answers a ping on this connection. Raises Failed if it is closed."""
        try:
            async with asyncio.timeout(self.target.patience_s):
                await self.socket.answers_a_ping()
        except Closed as closed:
            raise self._was_closed(closed) from None
        except TimeoutError:
            raise Failed("a ping is answered (RFC 6455, 5.5.2)", "it is not") from None

    async def catch_up(self) -> None:
        """Take into the inbox whatever has come until a ping is answered. Raises Failed."""
        await self.is_kept()  # now all that came before the pong waits to be received
        try:
            while True:
                self.inbox.append(await self.receive("more", within_s=NOW_S))
        except Failed as failed:
            if failed.was_closed:
                raise

    async def arrives(self, text: str, expected: str) -> Message:
        """`text` arrives here, perhaps with added fields. Raises Failed."""
        return await self.until(lambda m: m.carries(text), expected)

    def taken(self) -> list[Message]:
        """The inbox, without markers and what keeps peers alive; it is empty afterwards."""
        inbox, self.inbox = self.inbox, []
        return [m for m in inbox if "mark" not in m.data and KEEPS_ALIVE not in m.fields]

    def traffic(self) -> list[Message]:
        """The same without presences, which a relay may repeat at any time."""
        return [m for m in self.taken() if m.type != "presence"]

    # Ending ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Leave, with a closing handshake."""
        self.is_left_alone = True
        await self.socket.close()

    def cut(self) -> None:
        """Lose the connection without a word."""
        self.is_left_alone = True
        self.socket.cut()

    async def closed(self, within_s: float, expected: str) -> int:
        """Wait for the relay to close, dropping what comes before. The close code.

        Raises Failed if it is still open after `within_s` (seconds).
        """
        self.is_left_alone = True
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self.socket.receive()
        except Closed as closed:
            return closed.code
        except TimeoutError:
            raise Failed(expected, f"still open after {within_s:.1f} s") from None

    def _was_closed(self, closed: Closed) -> Failed:
        return Failed(f"the connection of {self!r} is kept", str(closed), was_closed=True)
