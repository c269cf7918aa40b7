"""Relays of a federation as real processes, peers at them, and a judge of what these received."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import anyio
import anyio.abc
import anyio.to_thread
import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests import RELAY_COMMAND, ROOT
from tests.worlds.live import PATIENCE_S, open_socket

_ERROR: Final = '"level": "error"'


class Node:
    """A relay as a process. `backplane`: the addresses of its NATS servers."""

    def __init__(self, backplane: str, directory: Path, *arguments: str, port: int = 0) -> None:
        directory.mkdir(exist_ok=True)
        self._log = directory / f"{time.monotonic_ns()}.log"
        command = [*RELAY_COMMAND, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backplane", backplane, *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=log)
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def listening(self) -> Self:
        """Wait until it listens."""
        with anyio.fail_after(PATIENCE_S):
            while not self.port:
                await anyio.sleep(0.02)
                for line in self.log.splitlines():
                    with suppress(ValueError):
                        said = json.loads(line)
                        if str(said.get("event", "")).startswith("listening"):
                            self.port = int(said["port"])
                assert self.process.poll() is None, self.log
        return self

    async def stands(self) -> dict[str, Any]:
        """What `/ping` says of the federation."""
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            answer = await client.get(f"http://127.0.0.1:{self.port}/ping")
        return dict(answer.json()["federation"])

    async def joined(self, nodes: int = 0) -> Self:
        """Wait until it takes part, with so many."""
        await self.listening()
        with anyio.fail_after(PATIENCE_S):
            while True:
                stands = await self.stands()
                if stands["standing"] == "joined" and (not nodes or stands["nodes"] == nodes):
                    return self
                await anyio.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        await anyio.to_thread.run_sync(self.process.wait)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Nodes:
    """Several of them; all are killed at the end, and none has logged an error: for example that
    it has decided something else than another one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.all: list[Node] = []

    def start(self, backplane: str, *arguments: str, port: int = 0) -> Node:
        node = Node(backplane, self._directory, *arguments, port=port)
        self.all.append(node)
        return node

    async def started(self, count: int, backplane: str, *arguments: str) -> Sequence[Node]:
        """So many that have joined."""
        nodes = [self.start(backplane, *arguments) for _ in range(count)]
        return [await node.joined(count) for node in nodes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for node in self.all:
            node.kill()
        errors = [line for node in self.all for line in node.log.splitlines() if _ERROR in line]
        assert not errors or kind is not None, errors


class Hearer:
    """A peer at a node. It says a number now and then, and notes what it hears.

    `heard`: `(peer, n)` for each number, `(peer, "here")` and `(peer, "offline")`.
    """

    def __init__(self, id: str, socket: ClientConnection) -> None:
        self.id = id
        self.heard: list[tuple[str, Any]] = []
        self.said = 0
        self.closed: int | None = None
        self._socket = socket

    async def run(self, every_s: float) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._say, every_s)
                await self._hear()
                tasks.cancel_scope.cancel()
        finally:
            self._socket.transport.abort()
            with anyio.CancelScope(shield=True):
                await self._socket.wait_closed()

    async def _say(self, every_s: float) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.send('{"type":"heartbeat"}')
                for _ in range(20):
                    await anyio.sleep(every_s)
                    self.said += 1
                    await self._socket.send(
                        json.dumps({"type": "broadcast", "from": self.id, "data": self.said})
                    )

    async def _hear(self) -> None:
        try:
            async for text in self._socket:
                message = json.loads(text)
                who = message.get("instanceId") or message.get("from")
                if message["type"] == "broadcast":
                    self.heard.append((who, message["data"]))
                elif message["type"] == "presence":
                    data = message.get("data") or {}
                    is_gone = data.get("status") == "offline"
                    self.heard.append((who, "offline" if is_gone else "here"))
        except ConnectionClosed:
            pass
        self.closed = self._socket.close_code

    def has(self, who: str, what: Any) -> bool:
        return (who, what) in self.heard

    def latest(self, who: str) -> int:
        return max((n for peer, n in self.heard if peer == who and isinstance(n, int)), default=0)

    async def until(self, who: str, what: Any) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not self.has(who, what):
                await anyio.sleep(0.05)

    async def until_more(self, who: str, by: int = 10) -> None:
        """Wait until so many more numbers of this peer have come."""
        last = self.latest(who) + by
        with anyio.fail_after(PATIENCE_S):
            while self.latest(who) < last:
                await anyio.sleep(0.05)

    async def until_closed(self) -> int | None:
        with anyio.fail_after(PATIENCE_S):
            while self.closed is None:
                await anyio.sleep(0.05)
        return self.closed


async def hearer(node: Node, id: str, tasks: anyio.abc.TaskGroup, every_s: float = 0.02) -> Hearer:
    """A peer that is present."""
    socket = await open_socket(node.url, max_size=None)
    peer = Hearer(id, socket)
    await socket.send(json.dumps({"type": "presence", "from": id, "data": {}}))
    tasks.start_soon(peer.run, every_s)
    await peer.until(id, "here")
    return peer


def judge(hearers: Iterable[Hearer]) -> None:
    """What every peer received follows the rules: of each sender every number, until it is offline;
    one offline between two presences, and nothing behind it; and all agree on the order."""
    hearers = tuple(hearers)
    for hearer in hearers:
        gone: set[str] = set()
        last: dict[str, int] = {}
        for who, what in hearer.heard:
            if what == "here":
                gone.discard(who)
                last.pop(who, None)
            elif what == "offline":
                assert who not in gone, f"{hearer.id} heard twice that {who} is offline"
                gone.add(who)
            else:
                assert who not in gone, f"{hearer.id} heard {what} of {who}, who is offline"
                if who in last:
                    assert what == last[who] + 1, f"{hearer.id}: {last[who]}, {what} of {who}"
                last[who] = what
    for one, other in pairwise(hearers):
        own = {one.id, other.id}
        first = [its for its in one.heard if its[0] not in own and isinstance(its[1], int)]
        second = [its for its in other.heard if its[0] not in own and isinstance(its[1], int)]
        common = set(first) & set(second)
        assert [h for h in first if h in common] == [h for h in second if h in common]
