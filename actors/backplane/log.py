"""The log of a federation, as a port: what its nodes append comes back to all of them in one order.

A log may lose what is appended, and may keep it twice: nodes append again, and know what counts
(protocol.mesh.federation). It must never bring back its entries in different orders.

    memory.py       in this process, for several runtimes in one, and for tests
    nats.py         a stream of NATS JetStream
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import attrs

from protocol.mesh.federation.records import Entry


class LogUnreachable(Exception):
    """The log does not answer. The text says why, without any secret."""


@attrs.frozen
class Opened:
    """A log that answers. `epoch`: tells it from every other one, also from one that was lost and
    made anew. `last`: the position of its last entry; 0: it is empty."""

    epoch: str
    last: int


class Log(Protocol):
    """One node's way to the log. Every call may raise LogUnreachable; then `open` it again."""

    async def open(self) -> Opened:
        """Find the log, or make it. It may be called again at any time."""
        ...

    async def append(self, records: Sequence[bytes]) -> None:
        """Append these, in this order. When it returns they are on their way, and no more."""
        ...

    def read(self, after: int) -> AsyncGenerator[Sequence[Entry], None]:
        """The entries behind this position, as they come, in order. Those that the log has dropped
        by now are left out."""
        ...

    async def close(self) -> None:
        """Nothing more is appended or read."""
        ...
