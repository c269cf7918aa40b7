"""Status reports of a mesh, and its running totals."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import attrs
import msgspec

from protocol.codec import decode_object, decode_value, without_lone_surrogates
from protocol.envelope import Text
from protocol.mesh.lifecycle import PeerState


@attrs.frozen
class ConnectionStatus:
    """One connection in a status report. `silent_s`: seconds since the relay last heard it, which
    was at `heard_at` (monotonic seconds). `received`: how many messages have come from it, also
    those that were refused."""

    connection: int
    state: PeerState
    silent_s: float
    heard_at: float = 0.0
    received: int = 0


@attrs.frozen
class PeerStatus:
    """One present peer in a status report. `presence`: its latest one."""

    peer: str
    state: PeerState
    agents: tuple[str, ...]
    connections: tuple[ConnectionStatus, ...]
    presence: Text = b""


class Described(NamedTuple):
    """What a presence says of its peer for people."""

    name: str | None
    host: str | None


def described(presence: Text) -> Described:
    """What the `data` of a presence that was accepted has for people to read.

    >>> described(b'{"type":"presence","from":"a","data":{"name":"Ann","hostname":"laptop"}}')
    Described(name='Ann', host='laptop')
    """
    try:
        data = decode_object(decode_object(without_lone_surrogates(presence))["data"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return Described(None, None)
    return Described(_first_text(data, _NAMES), _first_text(data, _HOSTS))


def _first_text(data: Mapping[str, msgspec.Raw], names: Iterable[str]) -> str | None:
    for name in names:
        if bytes(data.get(name, b"")).startswith(b'"'):
            text = decode_value(data[name])
            assert isinstance(text, str)
            return text[:DESCRIBED_CHARS_MAX]
    return None


_NAMES: Final = ("name", "displayName", "program")
_HOSTS: Final = ("hostname", "host")
DESCRIBED_CHARS_MAX: Final = 200


@attrs.define
class Totals:
    """Counts since the mesh began. `relayed` counts messages, not deliveries. Of those `refused`
    some were `echoed`. `spared` counts deliveries: answers to others that a connection which was
    behind did not get.

    `types`: messages whose header could be read, by type. `codes`: those `refused`, by the code of
    the error. `causes`: peers that `left`, by cause. `closed`: connections, by the cause of their
    end. `returns`: connections that wanted to go on with a lost one: `resumed`, or why not.
    """

    received: int = 0
    relayed: int = 0
    refused: int = 0
    echoed: int = 0
    withheld: int = 0
    spared: int = 0
    joined: int = 0
    left: int = 0
    types: Counter[str] = attrs.Factory(Counter)
    codes: Counter[str] = attrs.Factory(Counter)
    causes: Counter[str] = attrs.Factory(Counter)
    closed: Counter[str] = attrs.Factory(Counter)
    returns: Counter[str] = attrs.Factory(Counter)

    def __add__(self, other: "Totals") -> "Totals":
        total = Totals()
        for name in (field.name for field in attrs.fields(Totals)):
            one, more = getattr(self, name), getattr(other, name)
            setattr(total, name, one + more)
        return total
