"""The actor of one node: reads the log for it, appends to the log, and lets its time pass.

The node (protocol.mesh.federation.node) decides. What comes back from the log goes from here
straight into the meshes, between two rounds of their supervisors, and wakes these.
"""

import logging
import secrets
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import anyio

from actors.backplane.log import Log, LogUnreachable
from actors.clock import Clock
from actors.signal import Signal
from protocol.limits import Limits
from protocol.mesh.federation.federated import FederatedMesh
from protocol.mesh.federation.node import Node
from protocol.mesh.federation.standing import Standing
from protocol.mesh.federation.timing import Timing

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
"""How often the node looks at the time."""
AGAIN_S: Final = 0.5
"""After so long a log that does not answer is opened again."""
GOODBYE_S: Final = 2.0
"""So long a node that ends waits until the others know."""
OPEN_WITHIN_S: Final = 5.0
"""A log that does not answer in this time is unreachable."""
NUMBER_BITS: Final = 31


class Federation:
    """This process as a node of a federation over `backplane`. `run` it in a task group.

    `keep`: told how many bytes the meshes keep that have no connections here.
    """

    def __init__(
        self,
        backplane: Log,
        limits: Limits,
        clock: Clock,
        timing: Timing | None = None,
        *,
        keep: Callable[[int], None] = lambda kept: None,
    ) -> None:
        timing = timing or Timing()
        timing.check(limits)
        self._log = backplane
        self._clock = clock
        self._keep = keep
        self._more = Signal()
        number = 1 + secrets.randbelow(2**NUMBER_BITS)
        self.node = Node(
            number, limits, timing, clock.now(), changed=self._changed, wake=self._more.set
        )
        self._left = Signal()

    def mesh(self, name: str, **of_gate: Any) -> FederatedMesh:
        """A mesh of this federation, as `Node.mesh`."""
        return self.node.mesh(name, **of_gate)

    @property
    def is_ready(self) -> bool:
        """Connections may come: what they say is decided."""
        return self.node.standing in (Standing.JOINED, Standing.ISOLATED)

    @property
    def kept_bytes(self) -> int:
        """What the meshes keep that have no connections here."""
        return sum(replica.kept_bytes for replica in self.node.unseen.values())

    def report(self) -> dict[str, object]:
        """How the node stands, for operators."""
        node = self.node
        said: dict[str, object] = {
            "standing": node.standing.value,
            "node": f"{node.number:08x}",
            "nodes": node.nodes,
            "position": node.position,
            "lag_ms": node.lag_ms,
            "lag_records": node.lag_records,
            "waiting_bytes": node.waiting_bytes,
        }
        return said if node.refusal is None else {**said, "refusal": node.refusal}

    async def run(self) -> None:
        """Take part until this is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tick)
            tasks.start_soon(self._append)
            await self._read()

    async def goodbye(self) -> None:
        """Let the others know that this node ends, if that can be done in a moment."""
        self.node.goodbye()
        self._more.set()
        with anyio.move_on_after(GOODBYE_S):
            while not self.node.has_left:
                await self._left.wait()

    async def close(self) -> None:
        """Close the log."""
        await self._log.close()

    # ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        node = self.node
        reason = ""
        while True:
            try:
                with anyio.fail_after(OPEN_WITHIN_S):
                    opened = await self._log.open()
                node.reached(opened.epoch, opened.last, self._clock.now())
                self._more.set()
                reason = ""
                await self._read_on()
            except (LogUnreachable, TimeoutError) as error:
                said = str(error) or "no answer in time"
                if said != reason:
                    log.warning("the log is unreachable", extra={"reason": said})
                    reason = said
                await self._clock.sleep(AGAIN_S)
            except Exception:
                log.exception("the node has crashed")
                node.crashed(self._clock.now())
                await self._clock.sleep(AGAIN_S)
            self._note_faults()

    async def _read_on(self) -> None:
        """Read until the node has lost its place in the log."""
        node = self.node
        async with aclosing(self._log.read(node.position)) as coming:
            async for entries in coming:
                node.read(entries, self._clock.now())
                self._note_faults()
                if node.has_more:
                    self._more.set()
                if node.has_left:
                    self._left.set()
                if node.is_lost:
                    return

    async def _append(self) -> None:
        node = self.node
        while True:
            while not node.has_more:
                await self._more.wait()
            records = node.take(self._clock.now())
            try:
                await self._log.append(records)
            except LogUnreachable:
                await self._clock.sleep(AGAIN_S)
                node.retry()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self.node.tick(self._clock.now())
            self._keep(self.kept_bytes)
            if self.node.has_more:
                self._more.set()

    def _note_faults(self) -> None:
        faults, self.node.faults = self.node.faults, []
        for error in faults:
            log.error("the mesh has failed on an item", exc_info=error)

    def _changed(self, standing: Standing, why: str) -> None:
        level = logging.INFO if standing is Standing.JOINED else logging.WARNING
        log.log(level, standing.value, extra={"reason": why, "node": f"{self.node.number:08x}"})
