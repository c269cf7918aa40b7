"""Commands from both sides: a `Turn` waits for the answers to one, a `Service` gives answers.

In the words of protocol/member/messages.py, which are those of the existing pages. Made by
`Peer.ask` and `Peer.serve` (actors/client/peer.py); neither has a task of its own until its user
awaits it.
"""

import logging
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from actors.client.unread import Unread
from actors.signal import Signal
from protocol.envelope import RELAY
from protocol.member.errors import AmbiguousTarget, RelayError, TurnError, UnknownTarget
from protocol.member.messages import Message, turn_error

if TYPE_CHECKING:
    from actors.client.peer import Peer

log = logging.getLogger(__name__)


class Turn:
    """A command and its answers. `await` it for the result, `async for` the chunks, or both.

    Answers are taken from the peer that was asked and nobody else; where the roster did not say
    which one that is, from the first that answers.
    """

    def __init__(
        self,
        asker: "Peer",
        agent: str,
        command: Any,
        *,
        peer: str | None,
        timeout_s: float,
        fields: Mapping[str, Any],
    ) -> None:
        self.id = secrets.token_hex(16)
        self.agent = agent
        self.peer = peer
        self.timeout_s = timeout_s
        self.due = float("inf")
        self.is_excused = False  # once, for a clock that was looked at late
        self.saw_peer = False  # since it was sent
        self._asker = asker
        self._command = command
        self._fields = fields
        self._chunks: Unread[str] = Unread(asker._limits)
        self._is_sent = False
        self._text: str | None = None
        self._over = Signal()
        self._result: tuple[Any] | None = None
        self._error: RelayError | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.result().__await__()

    async def result(self) -> Any:
        """`data.result` of the answer. Raises TurnError."""
        with self._abandoned_if_cut_short():
            await self._send()
            while self._result is None and self._error is None:
                await self._over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)  # or that would grow each time
        assert self._result is not None
        return self._result[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next chunk, until the result is there. Raises TurnError, Lagged."""
        with self._abandoned_if_cut_short():
            await self._send()
            return await self._chunks.get()

    @contextmanager
    def _abandoned_if_cut_short(self) -> Iterator[None]:
        try:
            yield
        except (RelayError, StopAsyncIteration):
            raise
        except BaseException:
            self.end(TurnError("the turn was abandoned"))
            raise

    async def _send(self) -> None:
        if self._is_sent:
            return
        self._is_sent = True
        asker = self._asker
        if self.peer in (None, asker.id) and self.agent in {asker.id, *asker._member.agent_ids}:
            # The relay passes on nothing that its sender has an agent for, and says nothing.
            hosts = tuple(asker._hosts(self.agent))
            if self.peer is None and hosts:
                sentence = f"{len(hosts)} other peers have an agent {self.agent}: name one (peer=)"
                self.end(AmbiguousTarget(sentence, hosts))
            else:
                self.end(UnknownTarget(f"{self.agent} is of this peer itself, and no other has it"))
            return
        asker._turns[self.id] = self
        self.saw_peer = self.peer in asker._member.roster
        # With `instanceId`, because that is how existing pages know whom to answer.
        fields = {"instanceId": asker.id, "peer": self.peer, **self._fields}
        data = {"command": self._command}
        try:
            await asker._room()
            self._text = asker._post("direct", data, to=self.agent, turn_id=self.id, **fields)
        except RelayError as error:
            self.end(error)
            return
        self.due = asker._clock.now().at + self.timeout_s
        asker._obey()

    def answer(self, message: Message, size: int, at: float) -> None:
        """A message with this turn's id."""
        is_refusal = message.sender == RELAY and message.type == "error"
        if not is_refusal:
            if self.peer is None:
                self.peer = message.origin
            if message.origin != self.peer:
                return
            self.saw_peer = True
        match message.type:
            case "stream":
                self._chunks.put(str(message.word("chunk") or ""), size)
            case "turn_end":
                self.end(None, message.word("result"))
            case "error":
                self.end(turn_error(message))
            case "ack":
                pass
            case _:
                return
        self.due = at + self.timeout_s

    def end(self, error: RelayError | None, result: Any = None) -> None:
        """It is over. The first end counts. What was not sent yet never will be."""
        self._asker._turns.pop(self.id, None)
        if error is not None and self._text is not None:
            self._asker._member.withdraw(self._text)
        if self._result is None and self._error is None:
            self._error = error
            if error is None:
                self._result = (result,)
            self._chunks.end(error)
            self._over.set()
