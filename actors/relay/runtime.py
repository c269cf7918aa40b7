"""The runtime: all meshes of one process, and the task group in which they live.

    async with Runtime() as runtime:
        link = await runtime.connect("my mesh")     # a peer in this process
        await runtime.serve(transport, "my mesh")   # a peer behind a transport

A mesh comes into being with its first connection and goes with its last. If a supervisor crashes,
its mesh is cut off and a new one begins with the next connection; other meshes do not notice.
"""

import logging
from contextvars import Context, copy_context
from threading import Lock
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup

from actors.clock import Clock, SystemClock
from actors.link import ABNORMAL
from actors.relay.peer import PeerActor
from actors.relay.supervisor import MeshStatus, Supervisor
from actors.transports.memory import MemoryLink, memory_pair
from actors.transports.transport import Transport
from protocol.limits import Limits
from protocol.mesh.status import Totals

log = logging.getLogger(__name__)

LAST_PART: Final = 0.1
"""Of the time for draining: when whoever still takes what was queued is closed without the rest, so
that the close arrives before the connection is cut."""


class Full(Exception):
    """The runtime takes no further connection. The text says which bound was reached."""


class Runtime:
    """All meshes of one process. An async context manager; leaving it drains."""

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Clock | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._strict = strict
        self._meshes: dict[str, Supervisor] = {}
        self._tasks: TaskGroup | None = None
        self._is_draining = False
        self._empty = anyio.Event()
        self._past = Totals()
        self._totals_lock = Lock()  # a mesh is in `_meshes` or in `_past`, whoever looks
        self._context: Context

    async def __aenter__(self) -> Self:
        self._context = copy_context()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._tasks is not None
        if error is None:
            await self.drain()
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, error, trace)

    # Connections ----------------------------------------------------------------------------------

    def check_room(self, mesh: str) -> None:
        """Raises Full if a connection to `mesh` would be refused now."""
        supervisor = self._meshes.get(mesh)
        if self._is_draining:
            raise Full("the relay is shutting down")
        if supervisor is None and len(self._meshes) >= self.limits.meshes_max:
            raise Full(f"there are {self.limits.meshes_max} meshes already (meshes_max)")
        if supervisor is not None and supervisor.connections >= self.limits.connections_max:
            raise Full(f"the mesh has {self.limits.connections_max} connections (connections_max)")

    def open(self, transport: Transport, mesh: str, *, is_paced: bool = False) -> PeerActor:
        """A new connection to `mesh`: its peer actor, which runs the transport. Raises Full."""
        self.check_room(mesh)
        supervisor = self._meshes.get(mesh)
        if supervisor is None:
            assert self._tasks is not None, "use `async with Runtime()`"
            supervisor = Supervisor(mesh, self.limits, self._clock, strict=self._strict)
            self._meshes[mesh] = supervisor
            # Not in the context of the connection that happens to be the first, with its trace.
            self._context.run(self._tasks.start_soon, self._supervise, supervisor)
        return supervisor.open(transport, is_paced=is_paced)

    async def serve(self, transport: Transport, mesh: str, *, is_paced: bool = False) -> None:
        """Carry one connection until it is over. Raises Full; contains every other failure.

        `is_paced`: frames go no faster and get no larger than AgentCore's edge allows.
        """
        await self._carry(self.open(transport, mesh, is_paced=is_paced))

    async def connect(self, mesh: str, window: int = 256) -> MemoryLink:
        """A peer's end of a new in-memory connection to `mesh`. Raises Full."""
        link, transport = memory_pair(window)
        actor = self.open(transport, mesh)
        assert self._tasks is not None
        self._tasks.start_soon(self._carry, actor)
        return link

    async def _carry(self, actor: PeerActor) -> None:
        try:
            await actor.run()
        except Exception as error:
            actor.crashed(error)
            actor.closed(ABNORMAL)
        except BaseException:
            actor.abort()
            raise

    async def _supervise(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.run()
        except Exception:
            log.exception("supervisor crashed", extra={"mesh": supervisor.name})
            supervisor.abort()
        finally:
            with self._totals_lock:
                del self._meshes[supervisor.name]
                self._past = self._past + supervisor.totals
            if not self._meshes:
                self._empty.set()

    # The end, and what can be seen ----------------------------------------------------------------

    async def drain(self) -> None:
        """Take nobody new; flush and close every connection (1001), within `drain_s`. Towards its
        end they are closed unflushed, and then cut. Idempotent."""
        self._is_draining = True
        for supervisor in tuple(self._meshes.values()):
            supervisor.drain()
        last_s = self.limits.drain_s * LAST_PART
        await self._until_empty(self.limits.drain_s - last_s)
        for supervisor in tuple(self._meshes.values()):
            supervisor.hurry()
        await self._until_empty(last_s)
        for supervisor in tuple(self._meshes.values()):
            supervisor.abort()

    async def _until_empty(self, seconds: float) -> None:
        if self._meshes:
            self._empty = anyio.Event()
            # Real time, whatever the clock: this wait is bounded by the patience of who stops us.
            with anyio.move_on_after(seconds):
                await self._empty.wait()

    @property
    def connections(self) -> int:
        """How many connections there are, over all meshes. Safe to read from any thread."""
        return sum(supervisor.connections for supervisor in tuple(self._meshes.values()))

    def status(self) -> tuple[MeshStatus, ...]:
        """A snapshot of every mesh. Call it on the event loop; the result is immutable."""
        return tuple(supervisor.status() for supervisor in self._meshes.values())

    def totals(self) -> Totals:
        """Counts since the runtime began, over all meshes, past ones included.

        Safe to read from any thread.
        """
        with self._totals_lock:
            total = self._past
            for supervisor in tuple(self._meshes.values()):
                total = total + supervisor.totals
        return total
