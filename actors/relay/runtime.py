"""The runtime: all meshes of one process, and the task group in which they live.

    async with Runtime() as runtime:
        link = await runtime.connect("my mesh")     # a peer in this process
        await runtime.serve(transport, "my mesh")   # a peer behind a transport

A mesh begins with its first connection and ends with its last. If a supervisor crashes, the
connections of its mesh are cut, and the next connection begins a new mesh. Other meshes do not
notice.
"""

import logging
import secrets
from collections.abc import Sequence
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from actors.backplane.federation import Federation
from actors.backplane.log import Log
from actors.clock import Clock, SystemClock
from actors.link import ABNORMAL
from actors.relay.peer import PeerActor
from actors.relay.process import Process
from actors.relay.snapshot import Activity, Gauges, MeshStatus, Size
from actors.relay.supervisor import Supervisor
from actors.relay.visits import VisitActor, VisitQueue
from actors.transports.memory import MemoryLink, memory_pair
from actors.transports.transport import Transport
from protocol.envelope import ErrorCode, Refusal
from protocol.grants import OPEN, Grant
from protocol.limits import Limits
from protocol.mesh.local import LocalMesh
from protocol.mesh.status import Totals
from protocol.mesh.visiting import Bearers, Receipt

log = logging.getLogger(__name__)

ELSEWHERE: Final = "\0"
"""The ledger knows by this name, which no mesh has, what is kept of meshes without connections."""
TOKEN_BYTES: Final = 16
"""A token of a connection that may come back has so many random bytes."""
LAST_PART: Final = 0.1
"""The last part of the time for draining. When it begins, connections that still have something
queued are closed without it, so that the close arrives before they are cut."""


class Full(Exception):
    """The runtime takes no more connections. The text says which bound was reached."""


class Runtime:
    """All meshes of one process. Use it with `async with`; at the end it calls `drain`.

    `limits`: the bounds. `clock`: another clock, for tests. `strict`: refuse message types that are
    not in the protocol's table. `owns_thread`: nothing else runs in this thread, so the runtime may
    stop it for a millisecond, to read together what comes in one by one. `backplane`: the log of a
    federation: the same meshes on several relays (docs/federation.md).
    """

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Clock | None = None,
        *,
        strict: bool = False,
        owns_thread: bool = False,
        backplane: Log | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._strict = strict
        self._process = Process(self.limits, self._clock, owns_thread=owns_thread)
        self.ledger = self._process.ledger
        self.federation: Federation | None = None
        if backplane is not None:
            keep = partial(self.ledger.keep, ELSEWHERE)
            self.federation = Federation(backplane, self.limits, self._clock, keep=keep)
        self.traffic = self._process.traffic
        self.events = self._process.events
        self._bearers = Bearers(self.limits)
        self._meshes: dict[str, Supervisor] = {}
        self._inhabited: dict[str, Supervisor] = {}  # where somebody is present, or was
        self._tasks: TaskGroup | None = None
        self._is_draining = False
        self._empty = anyio.Event()
        self._past = Totals()
        self._past_alive_at = self._clock.now().at  # of meshes that have ended
        self._totals_lock = Lock()  # so that every mesh is in `_meshes` or in `_past`
        self._context: Context

    async def __aenter__(self) -> Self:
        self._past_alive_at = self._clock.now().at
        self._context = copy_context()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if self.federation is not None:
            self._tasks.start_soon(self.federation.run)
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
        if self.federation is not None:
            await self.federation.close()
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, error, trace)

    # Connections ----------------------------------------------------------------------------------

    def check_room(self, mesh: str, grant: Grant = OPEN) -> None:
        """Raises Full if a connection to `mesh` with this grant would be refused now."""
        supervisor = self._meshes.get(mesh)
        self._check_room_for_one(grant)
        if not self._has_room_for(mesh):
            raise Full(f"there are {self.limits.meshes_max} meshes already (meshes_max)")
        if supervisor is not None and supervisor.connections >= self.limits.connections_max:
            raise Full(f"the mesh has {self.limits.connections_max} connections (connections_max)")

    def _check_room_for_one(self, grant: Grant) -> None:
        """Raises Full if one more with this grant, wherever it is, would be too many."""
        if self._is_draining:
            raise Full("the relay is shutting down")
        most = self.limits.grant_connections_max
        if grant.peer is not None and self.ledger.connections_of(grant.peer) >= most:
            raise Full(f"whoever bears this token has {most} connections (grant_connections_max)")
        if not self.ledger.has_room():
            raise Full("connections and presences take half of the memory (held_bytes_max)")

    def admit(self, mesh: str, presence_bytes: int) -> Refusal | None:
        """Why a presence with so many bytes (more than before) is refused. None: it is not.

        The gate of the mesh asks this before it passes on a first or a longer announcement.
        """
        if not self._has_room_for(mesh):
            most = self.limits.meshes_max
            return Refusal(ErrorCode.NO_ROOM, f"peers are in {most} other meshes; try again later")
        if not self.ledger.has_room(presence_bytes):
            return Refusal(ErrorCode.NO_ROOM, "the relay keeps too many presences; try again later")
        self._inhabited[mesh] = self._meshes[mesh]
        return None

    def _has_room_for(self, mesh: str) -> bool:
        """Somebody may be present in this mesh. It counts only then, so whoever opens connections
        and says nothing uses up no mesh."""
        most = self.limits.meshes_max
        if mesh not in self._inhabited and len(self._inhabited) >= most:
            self._inhabited = {m: s for m, s in self._inhabited.items() if not s.mesh.is_empty}
        return mesh in self._inhabited or len(self._inhabited) < most

    def open(
        self, transport: Transport, mesh: str, *, is_paced: bool = False, grant: Grant = OPEN
    ) -> PeerActor:
        """Make a connection to `mesh`. Returns its peer actor.

        `grant`: what the connection may do. Raises Full, or PermissionError if the grant is not for
        this mesh.
        """
        if not grant.covers_mesh(mesh):
            raise PermissionError("the grant is not for this mesh")
        self.check_room(mesh, grant)
        supervisor = self._meshes.get(mesh)
        if supervisor is None:
            assert self._tasks is not None, "use `async with Runtime()`"
            made = self._make_mesh(
                mesh,
                admit=partial(self.admit, mesh),
                new_token=partial(secrets.token_urlsafe, TOKEN_BYTES),
            )
            supervisor = Supervisor(
                mesh, self.limits, self._clock, process=self._process, mesh=made
            )
            made.begin(supervisor.wake)
            self._meshes[mesh] = supervisor
            # Not in the context of the connection that happens to be the first, with its trace.
            self._context.run(self._tasks.start_soon, self._supervise, supervisor)
        return supervisor.open(transport, is_paced=is_paced, grant=grant)

    def _make_mesh(self, name: str, **of_gate: Any) -> LocalMesh:
        if self.federation is not None:
            return self.federation.mesh(name, strict=self._strict, **of_gate)
        return LocalMesh(self.limits, strict=self._strict, **of_gate)

    async def serve(
        self, transport: Transport, mesh: str, *, is_paced: bool = False, grant: Grant = OPEN
    ) -> None:
        """Carry one connection to `mesh`. Raises Full, or PermissionError if the grant is not for
        this mesh. Any other failure ends only this connection.

        Return from your application when this returns. With the fast transport that is before the
        connection is over. If this is cancelled, the connection is cut. `is_paced`: keep to the
        frame limits of AgentCore's edge. `grant`: what the connection may do.
        """
        await self._carry(self.open(transport, mesh, is_paced=is_paced, grant=grant))

    async def connect(self, mesh: str, window: int = 256, *, grant: Grant = OPEN) -> MemoryLink:
        """Make an in-memory connection to `mesh`. Returns the peer's end. Raises Full, or
        PermissionError if the grant is not for this mesh.

        At most about `window` messages wait at this end; more wait in the peer actor's outbox.
        `grant`: what the connection may do.
        """
        link, transport = memory_pair(window)
        actor = self.open(transport, mesh, grant=grant)
        assert self._tasks is not None
        self._tasks.start_soon(self._carry, actor)
        return link

    # Visits ---------------------------------------------------------------------------------------

    def visit(self, mesh: str, grant: Grant = OPEN) -> VisitActor:
        """Begin to say something in `mesh` without a connection. Use it with `with`, and give it to
        `say` when it has everything.

        Raises Full, PermissionError if the grant is not for this mesh, or Refusal if its bearer has
        said too much lately.
        """
        if not grant.covers_mesh(mesh):
            raise PermissionError("the grant is not for this mesh")
        self._check_room_for_one(grant)
        rates = self._bearers.admit(grant.peer, self._clock.now())
        return VisitActor(mesh, grant, rates, self.ledger, self._clock)

    async def say(self, visit: VisitActor) -> Sequence[Receipt]:
        """Have all of a visit decided, in one order with everything else that is said in its mesh.

        Returns what came of each message. Raises Full if there is no room for it any more.
        """
        visit.complete()
        supervisor = self._meshes.get(visit.mesh)
        if supervisor is not None:
            supervisor.visits.put(visit)
            await visit.wait()
        else:
            await self._say_to_nobody(visit)
        if visit.failure is not None:
            raise Full(visit.failure)
        return visit.receipts

    async def _say_to_nobody(self, visit: VisitActor) -> None:
        """The mesh has no connections. What is wrong is refused all the same."""
        mesh, queue = self._make_mesh(visit.mesh), VisitQueue(self.limits)
        queue.put(visit)
        while queue.waiting:
            queue.decide(mesh, self._clock.now())
            mesh.take_effects()
            await anyio.lowlevel.checkpoint()
        await visit.wait()
        with self._totals_lock:
            self._past = self._past + mesh.totals

    async def send(self, mesh: str, text: str, *, grant: Grant = OPEN) -> Sequence[Receipt]:
        """Say something in `mesh` without a connection: a message, or an array of messages (JSON).

        Nobody sees who says it come and go, and nothing comes back but a receipt for each message.
        `grant`: who it is, and what it may do. Raises Full, or PermissionError if the grant is not
        for this mesh.
        """
        try:
            visit = self.visit(mesh, grant)
        except Refusal as refusal:
            return [Receipt.of(refusal)]
        with visit:
            visit.take(text.encode("utf-8", "surrogatepass"))
            return await self.say(visit)

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
            supervisor.visits.abort()
            supervisor.mesh.end()
            self.ledger.keep(supervisor.name, 0)
            with self._totals_lock:
                del self._meshes[supervisor.name]
                self._inhabited.pop(supervisor.name, None)
                self._past = self._past + supervisor.totals
            self._past_alive_at = max(self._past_alive_at, supervisor.mesh.alive_at)
            if not self._meshes:
                self._empty.set()

    # The end, and what can be seen ----------------------------------------------------------------

    async def drain(self) -> None:
        """End every connection, within `drain_s`, and take no new ones. It may be called again.

        Each connection is closed (1001) after what is queued for it. Near the end of the time, the
        connections that still have something queued are closed without it. What is left is cut.
        """
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
        if self.federation is not None:
            await self.federation.goodbye()

    async def _until_empty(self, seconds: float) -> None:
        if self._meshes:
            self._empty = anyio.Event()
            # Real time, not the injected clock: whoever stops this process waits in real time.
            with anyio.move_on_after(seconds):
                await self._empty.wait()

    @property
    def connections(self) -> int:
        """The number of connections in all meshes. May be read from any thread."""
        return sum(supervisor.connections for supervisor in tuple(self._meshes.values()))

    def alive_ms(self) -> int:
        """When a peer last gave a sign of life, or, without peers, when the last one left.

        Milliseconds since the epoch. Before the first peer: when the runtime began. Call it on the
        event loop.
        """
        now = self._clock.now()
        meshes = (supervisor.mesh.alive_at for supervisor in self._meshes.values())
        alive_at = max((self._past_alive_at, *meshes))
        return now.wall_ms - round(max(0.0, now.at - alive_at) * 1000)

    @property
    def held_bytes(self) -> int:
        """What is held for all connections, in bytes. May be read from any thread."""
        return self.ledger.held

    def status(self) -> tuple[MeshStatus, ...]:
        """A snapshot of every mesh. Call it on the event loop. The result never changes."""
        return tuple(supervisor.status() for supervisor in self._meshes.values())

    def look(self, mesh: str, ways: int) -> tuple[MeshStatus | None, Activity]:
        """One mesh now, and what is going on there, with so many of the largest flows.

        The flow is counted from the first call on, until `look_away`. Call it on the event loop.
        """
        supervisor = self._meshes.get(mesh)
        if supervisor is None:
            return None, Activity()
        supervisor.tapes.watch()
        return supervisor.status(), Activity(*supervisor.mesh.watch(ways, self._clock.now()))

    def look_away(self, mesh: str) -> None:
        """Nobody watches this mesh any more."""
        if mesh in self._meshes:
            self._meshes[mesh].mesh.unwatch()
            self._meshes[mesh].tapes.unwatch()

    def sizes(self) -> dict[str, Size]:
        """How large every mesh is. May be called from any thread."""
        meshes = tuple(self._meshes.values())
        return {its.name: Size(its.connections, its.mesh.peers) for its in meshes}

    def gauges(self) -> Gauges:
        """Numbers of now, over all meshes. May be called from any thread."""
        return sum((its.gauges() for its in tuple(self._meshes.values())), Gauges())

    @property
    def is_draining(self) -> bool:
        """It takes no new connections, because it ends."""
        return self._is_draining

    def totals(self) -> Totals:
        """Counts since the runtime began, over all meshes, also those that have ended.

        May be called from any thread.
        """
        with self._totals_lock:
            total = self._past
            for supervisor in tuple(self._meshes.values()):
                total = total + supervisor.totals
        return total
