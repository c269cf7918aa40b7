"""The answer of `/invocations`."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from actors.clock import Clock
from actors.relay.snapshot import MeshStatus
from protocol.mesh.status import PeerStatus, Totals

EVERY_S: Final = 0.1
"""Time between two reports: a report reads every peer of every mesh."""

REPORTS_MAX: Final = 4
"""So many reports are held at a time, for clients that are still reading them."""

CHUNK_BYTES: Final = 2**16
"""A report is sent in parts of this size, so that a client that does not read holds only one."""


class Reports:
    """Makes the answers. All that are asked for within `EVERY_S` are one, made and held once.

    `look` reads the meshes, the totals and what is held (bytes). `answer` may be called from any
    thread but the event loop's.
    """

    def __init__(
        self, look: Callable[[], tuple[Sequence[MeshStatus], Totals, int]], clock: Clock
    ) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._made: dict[bool, tuple[float, _Report]] = {}  # the latest, by `details`
        self._readers_lock = (
            threading.Lock()
        )  # (the other one is held while the loop is waited for)
        self._readers: dict[_Report, int] = {}  # how many clients are reading each one

    def answer(self, details: bool) -> Response:
        """Who is here: a report of the last `EVERY_S` seconds. Where too many older ones are still
        being read: 503."""
        with self._lock:
            at, made = self._made.get(details, (0.0, None))
            if made is None or self._clock.now().at - at >= EVERY_S:
                if len(self._readers) >= REPORTS_MAX:
                    return _busy()
                made = self._make(details)
                self._made[details] = self._clock.now().at, made
            with self._readers_lock:
                self._readers[made] = self._readers.get(made, 0) + 1
            return made

    def _make(self, details: bool) -> "_Report":
        meshes, totals, held_bytes = self._look()
        answer = report(meshes, details)
        if details:
            answer["totals"] = attrs.asdict(totals)
            answer["held_bytes"] = held_bytes
        return _Report(json.dumps(answer).encode(), self._read)

    def _read(self, report: "_Report") -> None:
        with self._readers_lock:
            self._readers[report] -= 1
            if not self._readers[report]:
                del self._readers[report]


class _Report(Response):
    """One report, sent to any number of clients, to each in parts. `over` is told of each."""

    media_type = "application/json"

    def __init__(self, body: bytes, over: Callable[["_Report"], None]) -> None:
        super().__init__(body)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            for at in range(0, len(self.body), CHUNK_BYTES):
                part = bytes(self.body[at : at + CHUNK_BYTES])
                more = at + CHUNK_BYTES < len(self.body)
                await send({"type": "http.response.body", "body": part, "more_body": more})
        finally:
            self._over(self)


def _busy() -> Response:
    error = {"status": "busy", "error": "too many reports are being read; try again"}
    return JSONResponse(error, 503, {"retry-after": "1"})


def report(meshes: Sequence[MeshStatus], details: bool) -> dict[str, object]:
    """Who is here, as JSON. With `details` also the state, agents, last sign of life (seconds ago)
    and mailbox of every peer, and counts per mesh."""
    peers = sorted(peer.peer for mesh in meshes for peer in mesh.peers)
    answer: dict[str, object] = {"status": "ok", "peers": peers, "count": len(peers)}
    if details:
        answer["meshes"] = {
            mesh.name: {
                "connections": mesh.connections,
                "peers": {peer.peer: _peer_report(peer, mesh) for peer in mesh.peers},
                "totals": attrs.asdict(mesh.totals),
            }
            for mesh in meshes
        }
    return answer


def _peer_report(peer: PeerStatus, mesh: MeshStatus) -> dict[str, object]:
    queued = [mesh.mailboxes.get(c.connection, (0, 0)) for c in peer.connections]
    return {
        "state": peer.state.value,
        "agents": peer.agents,
        "connections": len(peer.connections),
        "last_seen_s": round(min(c.silent_s for c in peer.connections), 3),
        "mailbox_messages": sum(messages for messages, _ in queued),
        "mailbox_bytes": sum(size for _, size in queued),
    }
