"""The seam between gate and mesh: the items that pass a gate, in the one order of the mesh.

    connection -> Gate -> items -> Mesh -> effects -> connections

A gate (protocol.mesh.gate) decides what concerns one connection alone, in the process where the
connection ends. A mesh (protocol.mesh.mesh) applies items in one order and decides everything that
depends on who is here. It is deterministic: the same items in the same order give the same effects,
wherever they are applied. So a mesh may be cut here. Then there are gates in many processes, and
something between them and the mesh that brings all items into one order. In one process there is
nothing between them (protocol.mesh.local): an item is one plain call, and nothing is copied.

Before a first or a longer announcement becomes an item, the gate asks an `Admission` for room.

Whoever applies an item tells its outcome to the gate that it came from: `Gate.accepted` if a
presence was accepted, `Gate.agents_said` if something with agents was, `Gate.refuse` for a
`Refusal`. `Gate.replaced` tells it to the gates of the connections that a presence has replaced.
If the outcome comes later, `Gate.entering` and `Gate.agents_said` say what will most likely come.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
import msgspec

from protocol.claims import Claim
from protocol.envelope import Announcement, Header, Refusal, Text
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.mesh.lifecycle import Cause
from protocol.mesh.routing import Route


@attrs.frozen
class Entrance:
    """What counts when a connection joins its peer: with what it claims the id (None: it does not),
    whether it gets what goes to everyone, whether an edge limits its frames, and how many earlier
    messages it wants (None: it did not ask)."""

    claim: Claim | None = None
    watches: bool = True
    is_paced: bool = False
    recalls: int | None = None


PLAIN: Final = Entrance()
"""Nothing is claimed, and the connection watches."""


@attrs.frozen
class Question:
    """What is asked with a `capabilities`, and what counts for the answer.

    `peer`: the peer id of who asks, None before it has one. `turn_id`: as it was written.
    `is_paced`: an edge limits the frames of its connection. `grant`: what it may do. `resume`: how
    it may come back. `counts`: from the answer on, the messages to the connection are counted.
    """

    peer: str | None
    turn_id: msgspec.Raw | None
    is_paced: bool
    grant: Grant
    resume: dict[str, object] | None = None
    counts: bool = False

    def of(self, peer: str | None) -> "Question":
        """The same, of this peer."""
        return attrs.evolve(self, peer=peer)


@attrs.frozen
class Visitor:
    """Who says something and has no connection. `peer`: its peer id. `is_proven`: its grant names
    exactly this id, so it speaks as this peer if that is here."""

    peer: str
    is_proven: bool = False


class Items(Protocol):
    """What a gate may pass on. Every method may raise Refusal, except `asked`, `lagging` and
    `gone`.

    `connection` is the number of the connection that the item comes from. Numbers are unique in the
    mesh.
    """

    def present(
        self,
        connection: int,
        header: Header,
        text: Text,
        said: Announcement,
        now: Instant,
        *,
        entrance: Entrance,
    ) -> None:
        """The connection announces a peer. `text` is the presence, `said` what its `data` says.

        `entrance` counts if this is its first presence.
        """
        ...

    def said(
        self, connection: int, header: Header, messages: Sequence[Text], route: Route, now: Instant
    ) -> None:
        """The connection sends messages to others: `route` is OTHERS or TARGET.

        All have this header. Raises Apart if they are several, and one decision does not serve all
        of them. Then nothing is decided: they must be said one by one.
        """
        ...

    def visited(  # noqa: PLR0917 (as `said`, and one more)
        self,
        visitor: Visitor,
        header: Header,
        text: Text,
        route: Route,
        now: Instant,
        then: "Decided",
    ) -> None:
        """Somebody without a connection sends a message to others: `route` is OTHERS or TARGET.

        `then`: called, now or later, with what came of it.
        """
        ...

    def beat(self, connection: int, header: Header, said: Announcement, now: Instant) -> None:
        """The connection sent a heartbeat. `said` is what its `data` says."""
        ...

    def asked(self, connection: int, question: Question, now: Instant) -> None:
        """The connection asks what the relay can do, and which agents are here."""
        ...

    def lagging(self, connection: int, now: Instant, *, is_lagging: bool) -> None:
        """The connection has fallen too far behind its pace, or has caught up."""
        ...

    def gone(self, connection: int, cause: Cause, now: Instant) -> None:
        """The connection no longer counts for its peer."""
        ...


class Apart(Exception):
    """These messages must be decided one by one (`Items.said`)."""


Decided = Callable[[int | Refusal], None]
"""Gets to how many connections something goes, or why it was refused."""

Admission = Callable[[int], Refusal | None]
"""Asked whether there is room for a presence with so many bytes (more than before). Answers with
None, or with the reason why not."""


def admit_all(presence_bytes: int) -> None:
    """The admission where there is always room."""
