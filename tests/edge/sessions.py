"""One relay process per session: started on first use, asked for its health, stopped."""

import asyncio
import atexit
import contextlib
import os
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Final

import attrs

from actors.clock import Clock, SystemClock
from protocol.session import TOKEN_HEADER
from tests import RELAY_COMMAND, ROOT
from tests.edge.frames import Connection
from tests.edge.idle import Health, Idleness
from tests.edge.limits import EdgeLimits
from tests.worlds.ports import free_port

POLL_S: Final = 0.02


@attrs.frozen(kw_only=True)
class HostedRuntime:
    """A runtime as it is deployed: the relay, under an ARN."""

    arn: str = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/relay-0123456789"
    command: tuple[str, ...] = RELAY_COMMAND
    environ: Mapping[str, str] = attrs.field(factory=dict)
    authorizer: Callable[[str], bool] | None = None
    """Says whether a bearer token is good. With one, this is an OAuth runtime; without, SigV4."""
    allowed_headers: frozenset[str] = frozenset({TOKEN_HEADER.lower()})
    """The runtime's header allowlist, in lower case."""

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    def environment(self, port: int) -> dict[str, str]:
        """What a process of this runtime finds in its environment, as far as that is known.

        DOCKER_CONTAINER and the region as in the toolkit's Dockerfile; the ARN where the SDK looks
        for it. The service's port is 8080 and its host all interfaces; both are free here, so that
        many sessions fit on one machine and none can be reached from another.
        """
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        return {
            **inherited,
            "DOCKER_CONTAINER": "1",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "OTEL_RESOURCE_ATTRIBUTES": f"cloud.resource_id={self.arn}/runtime-endpoint/DEFAULT",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            **self.environ,
        }


class SessionState(Enum):
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


class Session:
    """A session and its process. `run` is its whole life, in `task`; `end` ends it."""

    task: asyncio.Task[None]

    def __init__(self, runtime: HostedRuntime, id: str, limits: EdgeLimits, clock: Clock) -> None:
        self.runtime = runtime
        self.id = id
        self.state = SessionState.STARTING
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.started_at = clock.now().at
        self.idleness = Idleness(self.started_at)
        self.connections: set[Connection] = set()
        self.settled = asyncio.Event()
        """Set when it is known whether the session runs."""
        self._limits = limits
        self._ending = asyncio.Event()
        self._is_killed = False

    async def run(self) -> None:
        """Start the process, keep it until `end` or its own end, and leave nothing behind."""
        self.process = process = await asyncio.create_subprocess_exec(
            *self.runtime.command,
            cwd=ROOT,
            env=self.runtime.environment(self.port),
            stdin=asyncio.subprocess.DEVNULL,
        )
        # If this process dies without coming to the lines below, that one goes with it.
        last_resort = partial(_kill, process)
        atexit.register(last_resort)
        exit = asyncio.create_task(process.wait())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.start_within_s):
                    while not (exit.done() or self._ending.is_set()):
                        if await ping(self.port):
                            self.state = SessionState.RUNNING
                            break
                        await asyncio.sleep(POLL_S)
            self.settled.set()
            if self.state is SessionState.RUNNING:
                await _first(exit, asyncio.create_task(self._ending.wait()))
        finally:
            was_running = self.state is SessionState.RUNNING
            self.state = SessionState.ENDING
            self.settled.set()
            if was_running and self._ending.is_set() and not self._is_killed:
                for connection in self.connections:
                    connection.code_at_relays_end = 1001
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await asyncio.wait({exit}, timeout=self._limits.stop_within_s)
            _kill(process)
            await exit
            atexit.unregister(last_resort)

    def end(self, *, kill: bool = False) -> None:
        """Stop the process, politely or not."""
        self._is_killed = kill
        self._ending.set()

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    async def is_idle(self, now: float) -> bool:
        """Is it to end, by what `/ping` says and when it was said (tests/edge/idle.py)?"""
        if not self.idleness.is_due(now, self._limits.poll_every_s):
            return False
        health, wall_s = await ping(self.port), SystemClock().now().wall_ms / 1000
        idle_s = self.idleness.polled(now, wall_s, health, is_open=bool(self.connections))
        return idle_s >= self._limits.session_idle_s


async def _first(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks[1:]:
        task.cancel()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def ping(port: int) -> Health | None:
    """What /ping on this port says. None: nothing, or nothing that can be read."""
    request = b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(10.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                answer = await reader.read(-1)
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        return None
    return Health.read(body)
