"""What a connection may do: its grant.

A host makes the grant when it opens the connection: out of a token (actors/host/tokens.py), or from
whatever it knows of its user. The gate of the connection keeps to it (protocol/mesh/gate.py). It
concerns this connection alone; who owns a peer id in a mesh is decided there (`claims`, in
protocol/mesh/mesh.py).
"""

import re
from collections.abc import Sequence
from typing import Final

import attrs

PATTERNS_MAX: Final = 100
"""A grant lists at most so many meshes, and so many agents."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _check_peer(_: "Grant", field: "attrs.Attribute[str | None]", value: object) -> None:
    if value is not None and not _is_name(value):
        raise ValueError(f"{field.name} must be a non-empty string of Unicode, got {value!r:.100}")


def _check_patterns(
    _: "Grant",
    field: "attrs.Attribute[tuple[str, ...] | None]",
    value: object,
) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or not all(map(_is_name, value)):
        raise ValueError(f"{field.name} must be a tuple of non-empty strings, got {value!r:.100}")
    if len(value) > PATTERNS_MAX:
        raise ValueError(f"{field.name} has more than {PATTERNS_MAX} entries")


def _check_end(_: "Grant", field: "attrs.Attribute[int | None]", value: object) -> None:
    if value is not None and not (isinstance(value, int) and abs(value) <= 2**53):
        raise ValueError(f"{field.name} must be a whole number up to 2**53, got {value!r:.100}")


def _is_name(value: object) -> bool:
    """Non-empty text that can be sent: lone surrogates cannot be, and are in no id."""
    return isinstance(value, str) and bool(value) and not _SURROGATE.search(value)


@attrs.frozen(kw_only=True)
class Grant:
    """What a connection may do. By default everything. A bad value raises ValueError.

    `peer`: the peer id that it may announce: this one, or one below it (`ann/laptop` is below
    `ann`). None: any. `meshes`, `agents`: names, or patterns that end with `*`. None: all.
    `may_send`: it may say something to others. `may_watch`: it gets what goes to everyone; without
    that, it gets only what is for its peer alone. `ends_at_ms`: when the grant runs out (Unix
    milliseconds), None: never.

    >>> ann = Grant(peer="ann", agents=("coder", "test-*"))
    >>> tuple(ann.covers_peer(id) for id in ("ann", "ann/laptop", "anna", "bob"))
    (True, True, False, False)
    >>> tuple(ann.covers_agent(id) for id in ("coder", "test-7", "planner"))
    (True, True, False)
    """

    peer: str | None = attrs.field(default=None, validator=_check_peer)
    meshes: tuple[str, ...] | None = attrs.field(default=None, validator=_check_patterns)
    agents: tuple[str, ...] | None = attrs.field(default=None, validator=_check_patterns)
    may_send: bool = True
    may_watch: bool = True
    ends_at_ms: int | None = attrs.field(default=None, validator=_check_end)

    def covers_mesh(self, name: str) -> bool:
        """It may connect to this mesh."""
        return self.meshes is None or _matches(name, self.meshes)

    def covers_all_meshes(self) -> bool:
        """It may connect to any mesh."""
        return self.meshes is None or "*" in self.meshes

    def covers_peer(self, id: str) -> bool:
        """It may be this peer."""
        return self.peer is None or id == self.peer or id.startswith(f"{self.peer}/")

    def covers_agent(self, id: str) -> bool:
        """It may have, and speak for, an agent of this name."""
        return self.agents is None or _matches(id, self.agents)


OPEN: Final = Grant()
"""Everything: the grant where nobody is asked for a token."""


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )
