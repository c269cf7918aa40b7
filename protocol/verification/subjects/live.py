"""Any relay at a WebSocket URL as a subject. The one module here that opens sockets."""

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Collection, Sequence
from socket import SHUT_RDWR
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from protocol.limits import Limits
from protocol.verification.model import BINARY, Disagreement, Message, Permit
from protocol.verification.subjects.subject import Decision, Expectations, Subject

_MARKER: Final = "verification-marker-"
_ROUND_TRIPS: Final = 4
"""After the first the relay's event loop has read the end; after the last it has dealt with it."""


class LiveSubject(Subject):
    """A relay at a WebSocket URL, this one or another. Time passes only really, so it is not told.

    What was sent is known to be decided when a question that came after it is answered: with
    `marker="capabilities"` by `capabilities_response` or an error; with `marker="direct"`, for
    relays without that type, a direct to oneself does it.

    That a connection ended cannot be asked for. So another connection, which never announces
    itself, asks some questions one after the other. When the last is answered, the relay's event
    loop has seen the end too, however slow the machine is. Where a relay answers nothing before
    presence, `settle_s` (seconds) must do.

    `meshes`: the relay keeps meshes apart by `?mesh=NAME`, so this one gets a fresh name; else it
    relies on the relay being empty. `patience_s`: how long to wait for an answer (seconds).
    Methods raise Disagreement where an answer does not come, and what `websockets` raises where the
    relay takes no connection.
    """

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        *,
        meshes: bool = True,
        marker: str = "capabilities",
        patience_s: float = 5.0,
        settle_s: float = 0.02,
    ) -> None:
        self.limits = limits or Limits()
        self.url = url
        if meshes:
            self.url += ("&" if "?" in url else "?") + f"mesh={uuid.uuid4().hex}"
        self._marker = marker
        self._patience_s = patience_s
        self._settle_s = settle_s
        self._sockets: dict[int, ClientConnection] = {}
        self._stacks: dict[int, contextlib.ExitStack] = {}
        self._received: dict[int, list[bytes]] = {}
        self._peers: dict[int, str] = {}
        self._announced: dict[int, int] = {}
        self._claimed: dict[int, str] = {}
        self._closed: dict[int, int] = {}
        self._not_reading: set[int] = set()
        self._decisions: list[Decision] = []
        self._numbers = itertools.count()
        self._answers_strangers = True

    def open(self, c: int, permit: Permit | None = None, *, is_paced: bool = False) -> None:
        stack = self._stacks[c] = contextlib.ExitStack()
        self._sockets[c] = stack.enter_context(self._connect())
        self._received[c] = []
        self._decisions.append(Decision("opened", 0.0, c))

    def takes(self, c: int, message: Message) -> bool:
        # Beyond the burst an announcement waits until its time has come.
        if message is None or not (b"presence" in message or b"heartbeat" in message):
            return True
        self._announced[c] = self._announced.get(c, 0) + 1
        return self._announced[c] <= self.limits.announcements_burst

    def send(self, c: int, messages: Sequence[Message]) -> None:
        if c in self._closed or c not in self._sockets:
            return
        for message in messages:
            try:
                self._sockets[c].send(b"\x00" if message is BINARY else message.decode())
            except ConnectionClosed:  # another one has replaced it, and that was not looked at yet
                break
            self._note_claim(c, message)
            # One by one, because the relay may take them in several rounds.
            self._decisions.append(Decision("received", 0.0, c, (message,)))
        self._ask(c)

    def close(self, c: int) -> None:
        self._go(c, cleanly=True)

    def drop(self, c: int, cut: int = 0) -> None:
        self._go(c, cleanly=False)

    def stop_reading(self, c: int) -> None:
        self._not_reading.add(c)

    def read_again(self, c: int) -> None:
        self._not_reading.discard(c)

    def settle(self, judge: Expectations) -> None:
        judge.follow()
        for c in tuple(self._sockets):
            if c not in self._not_reading:
                deadline = time.monotonic() + self._patience_s
                self._ask(c)
                # What follows from a connection that went cannot be asked for, only waited for.
                while judge.missing(c) > len(self._received[c]) and c not in self._closed:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(self._settle_s)
                    self._ask(c)

    def decisions(self) -> list[Decision]:
        decisions, self._decisions = self._decisions, []
        return decisions

    def active(self) -> Collection[int]:
        return self._received

    def received(self, c: int) -> list[bytes]:
        if c in self._not_reading:
            return []
        got, self._received[c] = self._received[c], []
        return got

    def waiting(self, c: int) -> int | None:
        return None if c in self._not_reading or c not in self._sockets else 0

    def closed_with(self, c: int) -> int | None:
        return self._closed.get(c)

    def done(self) -> None:
        for stack in self._stacks.values():
            stack.close()
        self._stacks.clear()
        self._sockets.clear()

    def _connect(self) -> ClientConnection:
        return connect(self.url, compression=None, max_size=None, max_queue=None, proxy=None)

    def _go(self, c: int, cleanly: bool) -> None:
        socket = self._sockets.pop(c, None)
        if socket is None:
            return
        if not cleanly:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(SHUT_RDWR)
        self._stacks.pop(c).close()
        self._wait_until_ends_are_noticed()
        self._decisions.append(Decision("ended", 0.0, c, cause="left"))

    def _wait_until_ends_are_noticed(self) -> None:
        if self._answers_strangers:
            with self._connect() as stranger:
                try:
                    for _ in range(_ROUND_TRIPS):
                        name = f"{_MARKER}{next(self._numbers)}"
                        stranger.send(json.dumps({"type": self._marker, "turnId": name}))
                        while name not in str(stranger.recv(self._patience_s)):
                            pass
                except TimeoutError:
                    self._answers_strangers = False
        if not self._answers_strangers:
            time.sleep(self._settle_s)

    def _note_claim(self, c: int, message: Message) -> None:
        try:
            fields = json.loads(message or b"")
        except ValueError:
            return
        if isinstance(fields, dict) and fields.get("type") == "presence":
            self._claimed[c] = str(fields.get("from"))

    def _ask(self, c: int) -> None:
        """Everything that the relay had for `c` before it took this question is received."""
        name = f"{_MARKER}{next(self._numbers)}"
        question = {"type": self._marker, "turnId": name}
        if self._marker == "direct" and c in self._peers:
            question |= {"from": self._peers[c], "to": self._peers[c]}
            question["targetInstanceId"] = self._peers[c]
        socket = self._sockets[c]
        with contextlib.suppress(ConnectionClosed):  # what came before its end is still read
            socket.send(json.dumps(question))
        try:
            while True:
                text = socket.recv(self._patience_s)
                if isinstance(text, bytes):
                    raise Disagreement(f"connection {c} received a binary frame: {text!r}")
                if _MARKER in text:
                    if name in text:
                        return
                    continue  # asked by another tab
                self._received[c].append(text.encode())
                self._note_own_presence(c, text)
        except ConnectionClosed as closed:
            self._closed[c] = closed.rcvd.code if closed.rcvd is not None else 1006
        except TimeoutError:
            raise Disagreement(f"connection {c} got no answer to {question}") from None

    def _note_own_presence(self, c: int, text: str) -> None:
        if c in self._claimed and c not in self._peers and '"presence"' in text:
            sender = json.loads(text).get("from")
            if sender == self._claimed[c]:
                self._peers[c] = sender
