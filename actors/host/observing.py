"""What observers of a mesh see: everything once, and then what has changed (docs/console.md).

A mesh that is observed is looked at once a second for all its observers together. So an observer
costs the relay what it is sent. An observer that falls behind gets everything again: nothing waits
for it.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from heapq import nlargest
from typing import Any, Final

import anyio
import attrs
import msgspec
from anyio.abc import TaskGroup

from actors.clock import Clock
from actors.host.metrics import Metrics
from actors.relay.journal import EVENTS_MAX
from actors.relay.runtime import Runtime
from actors.relay.snapshot import MeshStatus
from protocol.about import __version__
from protocol.envelope import Text
from protocol.mesh.commands import Command
from protocol.mesh.status import Described, Totals, described

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
REST: Final = 20
"""A look is followed by a rest of at least so many times as long, times the number of meshes that
are observed. So all looks together take no more than a twentieth of the process."""

OBSERVERS_MAX: Final = 16
MESHES_MAX: Final = 100
WAYS_MAX: Final = 200
BOUNDS: Final = (
    "mailbox_messages_max",
    "mailbox_bytes_max",
    "messages_per_s",
    "stale_after_s",
    "reap_after_s",
)

_WHOLE: Final = ("relay", "totals", "flow", "flow_since_ms")  # told again if they differ
_BY_KEY: Final = ("peers", "turns")  # of these it is told what differs


class TooMany(Exception):
    """There are `OBSERVERS_MAX` observers already."""


@attrs.frozen
class Told:
    """One event: its type, and its data as JSON."""

    type: str
    data: str


class Observers:
    """All observers of one process, and what they see. `tasks` lives as long as they may."""

    def __init__(self, runtime: Runtime, metrics: Metrics, clock: Clock, tasks: TaskGroup) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self._clock = clock
        self._tasks = tasks
        self._views: dict[str, _View] = {}
        self._began = clock.now()

    def check_room(self) -> None:
        """Raises TooMany."""
        if sum(view.observers for view in self._views.values()) >= OBSERVERS_MAX:
            raise TooMany(f"{OBSERVERS_MAX} are watching already; try again later")

    async def observe(self, mesh: str) -> AsyncIterator[Told]:
        """The events of a mesh, until the runtime drains. Raises TooMany."""
        self.check_room()
        with self._joined(mesh) as view:
            seen = 0
            while True:
                version, changed, is_over = view.version, view.changed, view.is_over
                if version != seen:
                    yield view.change if version == seen + 1 and seen else view.everything()
                    seen = version
                    if is_over:
                        return
                else:
                    await changed.wait()

    @contextmanager
    def _joined(self, mesh: str) -> "Iterator[_View]":
        view = self._views.get(mesh)
        if view is None:
            view = _View()
            view.renew(self._look(mesh, view))
            self._views[mesh] = view
            self._tasks.start_soon(self._keep, mesh, view)
        view.observers += 1
        try:
            yield view
        finally:
            view.observers -= 1

    async def _keep(self, mesh: str, view: "_View") -> None:
        """Look again and again, while there are observers."""
        took_s = 0.0
        try:
            while True:
                await self._clock.sleep(max(EVERY_S, REST * took_s * len(self._views)))
                if not view.observers:
                    return
                began_at = self._clock.now().at
                view.renew(self._look(mesh, view))
                took_s = self._clock.now().at - began_at
        except Exception:  # that is nothing to the mesh, nor to those who observe another one
            log.exception("observing failed", extra={"mesh": mesh})
            view.end()
        finally:
            del self._views[mesh]
            self._runtime.look_away(mesh)

    def _look(self, mesh: str, view: "_View") -> dict[str, Any]:
        """Everything about a mesh, but of its events only those that the view does not have."""
        runtime, limits = self._runtime, self._runtime.limits
        now = self._clock.now()
        status, activity = runtime.look(mesh, WAYS_MAX)
        sizes = runtime.sizes()
        largest = nlargest(MESHES_MAX, sizes, key=lambda name: (sizes[name].connections, name))
        return {
            "at_ms": now.wall_ms,
            "mesh": mesh,
            "bounds": {name: getattr(limits, name) for name in BOUNDS},
            "relay": {
                "version": __version__,
                "since_ms": self._began.wall_ms,
                "is_draining": runtime.is_draining,
                "connections": runtime.connections,
                "deliveries": runtime.traffic.deliveries,
                "held_bytes": runtime.held_bytes,
                "held_bytes_max": runtime.ledger.bytes_max,
                "lag_s": round(self._metrics.lag_s, 4),
                "meshes": {name: sizes[name]._asdict() for name in largest},
            },
            "totals": attrs.asdict(status.totals if status is not None else Totals()),
            "peers": {} if status is None else self._peers(status, view),
            "turns": {its.id: _turn(its) for its in activity.commands},
            "flow": [(*way, count) for way, count in activity.flow],
            "flow_since_ms": activity.flow_since_ms,
            "events": [
                attrs.asdict(event, filter=_without_mesh)
                for event in runtime.events.after(view.last_event, mesh)
            ],
        }

    def _peers(self, status: MeshStatus, view: "_View") -> dict[str, Any]:
        known, view.described = view.described, {}
        rows, now = {}, self._clock.now()
        for peer in status.peers:
            presence, who = known.get(peer.peer, (b"", None))
            if who is None or presence is not peer.presence:
                who = described(peer.presence)
            view.described[peer.peer] = peer.presence, who
            # Of a peer whose connections are all at other relays it is not known here.
            heard_at = max((its.heard_at for its in peer.connections), default=now.at)
            mailbox = status.mailbox_of(peer)
            rows[peer.peer] = {
                "state": peer.state.value,
                "name": who.name,
                "host": who.host,
                "agents": peer.agents,
                "connections": len(peer.connections),
                "heard_ms": self._began.wall_ms + round(1000 * (heard_at - self._began.at)),
                "received": sum(its.received for its in peer.connections),
                "sent": mailbox.sent,
                "queued_messages": mailbox.messages,
                "queued_bytes": mailbox.bytes,
            }
        return rows


class _View:
    """What all observers of one mesh see. `version` goes up by one with each `change`. `is_over`:
    it is the last one, because the relay ends."""

    def __init__(self) -> None:
        self.observers = 0
        self.version = 0
        self.changed = anyio.Event()
        self.change = Told("change", "{}")
        self.last_event = 0
        self.is_over = False
        self.described: dict[str, tuple[Text, Described]] = {}  # by peer, of which presence
        self._state: dict[str, Any] = {}
        self._everything: Told | None = None

    def renew(self, state: dict[str, Any]) -> None:
        """This is so now. The events of `state` are the new ones."""
        old, events = self._state, state["events"]
        change: dict[str, Any] = {"at_ms": state["at_ms"]}
        change |= {key: state[key] for key in _WHOLE if state[key] != old.get(key)}
        for key in _BY_KEY:
            if differing := _difference(old.get(key, {}), state[key]):
                change[key] = differing
        if events:
            change["events"] = events
            self.last_event = events[-1]["n"]
        state["events"] = [*old.get("events", ()), *events][-EVENTS_MAX:]
        self.is_over = state["relay"]["is_draining"]
        self._state, self._everything = state, None
        self._renewed(Told("change", _json(change)))

    def end(self) -> None:
        """There is nothing more to tell."""
        self.is_over = True
        self._renewed(Told("change", "{}"))

    def _renewed(self, change: Told) -> None:
        self.change = change
        self.version += 1
        self.changed.set()
        self.changed = anyio.Event()

    def everything(self) -> Told:
        """What a new observer has to know. Made once for all that ask."""
        if self._everything is None:
            self._everything = Told("state", _json(self._state))
        return self._everything


def _turn(command: Command) -> dict[str, object]:
    row: dict[str, object] = attrs.asdict(command)
    row["outcome"] = None if command.outcome is None else command.outcome.value
    return row


def _without_mesh(field: "attrs.Attribute[Any]", _: object) -> bool:
    return field.name != "mesh"


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    gone = dict.fromkeys(key for key in old if key not in new)
    return gone | {key: value for key, value in new.items() if old.get(key) != value}


def _json(data: object) -> str:
    return msgspec.json.encode(data).decode()
