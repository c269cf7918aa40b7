"""A peer of the kit: one connection, and what arrived on it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from protocol.verification.conformance.messages import Message, read
from protocol.verification.conformance.outcomes import Failed, shown
from protocol.verification.conformance.sockets import Closed, Socket
from protocol.verification.conformance.target import Target


class Peer:
    """One connection. `inbox` is what arrived and was neither waited for nor taken.

    `token` is in everything that the peers of one claim send; what is about others is dropped.
    """

    def __init__(self, target: Target, token: str, socket: Socket) -> None:
        self.target = target
        self.token = token
        self.socket = socket
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

    async def announce(self, *agents: object, **data: Any) -> Message:
        """Send a presence and wait until it comes back. Raises Failed."""
        await self.send("presence", data={"agents": agents, **data})
        return await self.until(
            lambda m: m.type == "presence" and m.sender == self.id,
            f"the presence of {self!r} comes back to it",
        )

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
        while True:
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            message = await self.receive(expected, within_s=left_s)
            if wanted(message):
                return message
            self.inbox.append(message)

    async def arrives(self, text: str, expected: str) -> Message:
        """`text` arrives here, perhaps with added fields. Raises Failed."""
        return await self.until(lambda m: m.carries(text), expected)

    def taken(self) -> list[Message]:
        """The inbox, without markers; it is empty afterwards."""
        inbox, self.inbox = self.inbox, []
        return [m for m in inbox if "mark" not in m.data]

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
        return Failed(f"the connection of {self!r} is kept", str(closed))
