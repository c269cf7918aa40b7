"""The relay's public names, in one place: `from agi_diy_relay import join, Runtime`.

All that users need is in `__all__`, and docs/ describes it. A name is imported when it is first
used, because some need an extra: `agentcore` and `oauth` need `agi-diy-relay[agentcore]`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.client.agentcore import agentcore as agentcore
    from actors.client.agentcore import oauth as oauth
    from actors.client.asking import Turn as Turn
    from actors.client.changes import Change as Change
    from actors.client.changes import Changes as Changes
    from actors.client.peer import Peer as Peer
    from actors.client.peer import join as join
    from actors.client.serving import Command as Command
    from actors.client.websocket import Address as Address
    from actors.client.websocket import websocket as websocket
    from actors.link import Link as Link
    from actors.link import LinkClosed as LinkClosed
    from actors.relay.runtime import Full as Full
    from actors.relay.runtime import Runtime as Runtime
    from protocol.limits import Limits as Limits
    from protocol.limits import MembershipLimits as MembershipLimits
    from protocol.member.errors import AmbiguousTarget as AmbiguousTarget
    from protocol.member.errors import AnnouncementRefused as AnnouncementRefused
    from protocol.member.errors import BadAddress as BadAddress
    from protocol.member.errors import Lagged as Lagged
    from protocol.member.errors import Left as Left
    from protocol.member.errors import NoCredentials as NoCredentials
    from protocol.member.errors import NotARelay as NotARelay
    from protocol.member.errors import NotConnected as NotConnected
    from protocol.member.errors import QueueFull as QueueFull
    from protocol.member.errors import Rejected as Rejected
    from protocol.member.errors import RelayError as RelayError
    from protocol.member.errors import TargetLeft as TargetLeft
    from protocol.member.errors import TooLarge as TooLarge
    from protocol.member.errors import TurnError as TurnError
    from protocol.member.errors import TurnFailed as TurnFailed
    from protocol.member.errors import TurnRefused as TurnRefused
    from protocol.member.errors import TurnTimeout as TurnTimeout
    from protocol.member.errors import UnknownTarget as UnknownTarget
    from protocol.member.errors import Unreachable as Unreachable
    from protocol.member.lifecycle import MemberState as MemberState
    from protocol.member.messages import Message as Message
    from protocol.member.messages import RemotePeer as RemotePeer
    from protocol.session import session_id as session_id

_PACKAGES = {
    "actors.client.agentcore": ("agentcore", "oauth"),
    "actors.client.asking": ("Turn",),
    "actors.client.changes": ("Change", "Changes"),
    "actors.client.peer": ("Peer", "join"),
    "actors.client.serving": ("Command",),
    "actors.client.websocket": ("Address", "websocket"),
    "actors.link": ("Link", "LinkClosed"),
    "actors.relay.runtime": ("Full", "Runtime"),
    "protocol.limits": ("Limits", "MembershipLimits"),
    "protocol.member.errors": (
        "AmbiguousTarget",
        "AnnouncementRefused",
        "BadAddress",
        "Lagged",
        "Left",
        "NoCredentials",
        "NotARelay",
        "NotConnected",
        "QueueFull",
        "Rejected",
        "RelayError",
        "TargetLeft",
        "TooLarge",
        "TurnError",
        "TurnFailed",
        "TurnRefused",
        "TurnTimeout",
        "UnknownTarget",
        "Unreachable",
    ),
    "protocol.member.lifecycle": ("MemberState",),
    "protocol.member.messages": ("Message", "RemotePeer"),
    "protocol.session": ("session_id",),
}
_HOMES = {name: package for package, names in _PACKAGES.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605 (made of the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
