"""What happens in one mesh, as lines of the log: comings, goings, refusals and failures."""

import logging

from protocol.mesh.effects import PeerJoined, PeerLeft, Refused, Spared
from protocol.mesh.lifecycle import Cause

log = logging.getLogger(__name__)


class Journal:
    """The log lines of one mesh. They have names and counts, never contents."""

    def __init__(self, mesh: str) -> None:
        self._mesh = mesh

    def note(self, effect: PeerJoined | PeerLeft | Refused | Spared) -> None:
        """The mesh has decided this."""
        match effect:
            case PeerJoined(peer, connection, agents):
                facts = {"peer": peer, "connection": connection, "agents": agents}
                log.info("joined", extra={"mesh": self._mesh, **facts})
            case PeerLeft(peer, cause):
                log.info("left", extra={"mesh": self._mesh, "peer": peer, "cause": cause.value})
            case Refused(connection, peer, code, count):
                facts = {"peer": peer, "connection": connection, "count": count}
                log.warning("refused", extra={"mesh": self._mesh, "code": code.code, **facts})
            case Spared(connection, peer, count):
                facts = {"peer": peer, "connection": connection, "count": count}
                log.warning("spared", extra={"mesh": self._mesh, **facts})

    def failed(
        self,
        connection: int,
        peer: str | None,
        cause: Cause,
        error: BaseException | None,
        reason: str | None,
    ) -> None:
        """A connection had to end. `error`: the exception, if there was one."""
        facts: dict[str, object] = {"mesh": self._mesh, "connection": connection, "peer": peer}
        if reason is not None:
            facts["reason"] = reason
        log.warning(cause.value, extra=facts, exc_info=error)
