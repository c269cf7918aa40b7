"""The relay under test, and how it can be told there that somebody has joined."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import attrs


class Proof(enum.Enum):
    """By what a peer of the kit knows that the relay has taken its presence. The best one first."""

    OWN = "its own presence, which comes back"
    ROSTER = "the presence of somebody who was there"
    DIRECT = "a direct to itself"
    HEARD = "its presence at somebody else"
    TIME = "nothing: some time passes"


@attrs.frozen(kw_only=True)
class Target:
    """The relay under test.

    `reap_after_s` is the silence after which it reaps. `patience_s` is how long to wait for what
    must come; a claim that passes never waits that long. `headers` go with the opening handshake.
    `capabilities` is what the relay answered to that question; None: nothing. `proofs` are those
    that this relay gives, the best one first; the last is always TIME. `is_mute`: it has said
    nothing at all to peers that waited for the patience.
    """

    url: str
    reap_after_s: float = 30.0
    patience_s: float = 5.0
    has_mesh_names: bool = True
    headers: Mapping[str, str] = MappingProxyType({})
    capabilities: Mapping[str, Any] | None = None
    proofs: tuple[Proof, ...] = (Proof.OWN, Proof.TIME)
    is_mute: bool = False

    @property
    def mesh(self) -> str | None:
        """The mesh that the URL names, if it does."""
        return parse_qs(urlsplit(self.url).query).get("mesh", [None])[0]

    def url_in(self, mesh: str | None) -> str:
        """The URL, naming this mesh, unless it names one already."""
        if mesh is None or self.mesh is not None or not self.has_mesh_names:
            return self.url
        return self.url + ("&" if urlsplit(self.url).query else "?") + "mesh=" + quote(mesh)
