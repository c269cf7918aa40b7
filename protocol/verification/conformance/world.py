"""The world of one claim: its peers, and ways to let them meet, speak together and wait.

That something does *not* arrive is never shown by waiting: `World.settle` lets every peer send
markers, which by rule 11 arrive after all that was caused before. What must arrive is waited for,
up to `Target.patience_s`. Only claims with `needs_time` let real time pass.

Claims do not disturb one another: ids are fresh for each, and where the relay has meshes, so is the
mesh; what belongs to other claims or to other people's peers is not looked at.
"""

import asyncio
import secrets
import time
from collections.abc import Container, Coroutine
from types import TracebackType
from typing import Any, Self

from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import Failed, expect
from protocol.verification.conformance.peer import KEEPS_ALIVE, Peer
from protocol.verification.conformance.sockets import Refused, Socket
from protocol.verification.conformance.target import Target

_LOOKS = 4
"""How often a world settles until an end has surely been noticed."""


class World:
    """The peers of one claim. An async context manager; closes what it opened.

    `late_s` is by how much this program itself was late at most, to speak for peers that merely
    wait (seconds). A relay is not to blame for what that causes. `broken` are the names of the
    claims that do not hold on this relay, as far as it is known.
    """

    def __init__(self, target: Target, broken: Container[str] = ()) -> None:
        self.target = target
        self._broken = broken
        self.token = secrets.token_hex(5)
        self.peers: list[Peer] = []
        self.late_s = 0.0
        self._mesh = f"check-{self.token}"
        self._names = 0
        self._heartbeats: asyncio.Task[None] | None = None

    def name(self, word: str) -> str:
        """A name that nobody else uses: `word` with this world's token."""
        return f"{word}-{self.token}"

    def keeps(self, name: str) -> bool:
        """Does this relay keep the claim of this name? Then a part of a claim may build on it."""
        return name not in self._broken

    # Peers ----------------------------------------------------------------------------------------

    async def connect(self, *, mesh: str | None = None, is_slow: bool = False) -> Peer:
        """A connection that has not announced itself. Raises Failed.

        `is_slow`: with small buffers, so that it stalls soon when it is not read.
        """
        url = self.target.url_in(mesh or self._mesh)
        within_s = self.target.patience_s * 2
        try:
            socket = await Socket.opened(
                url, self.target.headers, within_s=within_s, is_slow=is_slow
            )
        except Refused as refused:
            raise Failed(
                "the relay accepts a connection", f"{refused}", was_closed=True
            ) from refused
        peer = Peer(self.target, self.token, socket, mesh or self._mesh, self.peers)
        self.peers.append(peer)
        return peer

    async def tab(self, id: str, *agents: object, **data: Any) -> Peer:
        """A connection that announced `id`. Raises Failed."""
        peer = await self.connect()
        peer.id = id
        await peer.announce(*agents, **data)
        return peer

    async def join(self, word: str, *agents: object, **data: Any) -> Peer:
        """A new peer with these agents; `word` becomes the beginning of its id. Raises Failed."""
        return await self.tab(self.name(word), *agents, **data)

    async def joined(self, *words: str) -> list[Peer]:
        """New peers without agents; what their arrival caused is settled and dropped."""
        peers = [await self.join(word) for word in words]
        await self.settled()
        return peers

    # Waiting --------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything sent so far has arrived wherever it goes. Raises Failed.

        A claim that uses it needs broadcasts (`BROADCASTS` in claim.py).

        In the first pass everybody's marker shows that the relay has read all that was sent before
        it; in the second, that what it sent because of that has arrived.
        """
        peers = [p for p in self.peers if p.id and not (p.is_left_alone or p.is_deaf)]
        for _ in range(2):
            marks = {}
            for peer in peers:
                self._names += 1
                marks[peer] = mark = self.name(f"mark{self._names}")
                await peer.send("broadcast", data={"mark": mark})
            for peer in peers:
                for other in peers:
                    if other.id != peer.id:
                        await peer.until(
                            lambda m, mark=marks[other]: m.data.get("mark") == mark,  # type: ignore[misc]
                            f"a broadcast of {other!r} reaches {peer!r}",
                        )

    async def settled(self) -> None:
        """Settle, and drop what arrived. Raises Failed."""
        await self.settle()
        for peer in self.peers:
            peer.inbox.clear()

    async def ends_are_noticed(self, pause_s: float = 0.005) -> None:
        """Wait until the relay has surely noticed which connections ended, as far as can be told.

        A closing handshake tells it; a connection that was cut is noticed by its event loop along
        with the messages of the others, so a few round trips through it are awaited.
        """
        for _ in range(_LOOKS):
            await self.settle()
            await asyncio.sleep(pause_s)

    async def after_the_end_of(self, gone: Peer) -> None:
        """Wait until the relay has surely noticed that this connection ended."""
        await gone.socket.wait_closed()
        await self.ends_are_noticed()

    async def offline_once(self, watcher: Peer, id: str) -> Message:
        """The watcher hears that `id` is offline, and hears it only once. Raises Failed."""

        def is_its_offline(message: Message) -> bool:
            return message.is_offline and message.sender == id

        await self.join("another")  # settling needs two
        told = await watcher.until(is_its_offline, f"a presence of {id} with status `offline`")
        await self.ends_are_noticed()
        again = [m for m in watcher.taken() if is_its_offline(m)]
        expect(not again, "`offline` once", [told, *again])
        return told

    async def pause(self, seconds: float = 0.0) -> None:
        """Let real time pass; 0: let the others speak."""
        await asyncio.sleep(seconds)

    async def together(self, *doings: Coroutine[Any, Any, object]) -> None:
        """Do these at the same time. The first that fails ends the others."""
        async with asyncio.TaskGroup() as tasks:
            for doing in doings:
                tasks.create_task(doing)

    # Its life -------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """A relay that reaps within seconds must not reap peers that merely wait."""
        step_s = self.target.reap_after_s / 8
        while True:
            since = time.monotonic()
            await asyncio.sleep(step_s)
            self.late_s = max(self.late_s, time.monotonic() - since - step_s)
            for peer in tuple(self.peers):
                due = time.monotonic() - peer.spoke_at >= self.target.reap_after_s / 4
                if due and peer.id and not peer.is_left_alone:
                    try:
                        await peer.send("heartbeat", **{KEEPS_ALIVE: True})
                    except Failed:
                        peer.is_left_alone = True

    async def __aenter__(self) -> Self:
        self._heartbeats = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._heartbeats is not None:
            self._heartbeats.cancel()
            await asyncio.gather(self._heartbeats, return_exceptions=True)
        for peer in self.peers:
            if peer.is_left_alone or peer.is_deaf:
                peer.cut()
        await asyncio.gather(*(p.socket.close() for p in self.peers), return_exceptions=True)
