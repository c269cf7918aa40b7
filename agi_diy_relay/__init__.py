"""All that users need, under one name: `from agi_diy_relay import join, Runtime`.

The names are those of `__all__`; docs/api/ describes each. What is not listed here may change in
any release. A plain installation is enough for all of them but these, which say so when they are
called without their extra:

    agentcore, oauth     agi-diy-relay[agentcore]: signed URLs and credentials of AWS
"""

from actors.client.agentcore import agentcore, oauth
from actors.client.asking import Turn
from actors.client.changes import Changes
from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Address, Connector, websocket
from actors.link import Link, LinkClosed
from actors.relay.runtime import Full, Runtime
from actors.transports.asgi import AsgiTransport
from actors.transports.memory import MemoryLink
from protocol.about import __version__
from protocol.grants import Grant
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import (
    AmbiguousTarget,
    AnnouncementRefused,
    AnswerGap,
    BadAddress,
    Gap,
    IdTaken,
    Lagged,
    Left,
    NoCredentials,
    NotARelay,
    NotConnected,
    NotServed,
    QueueFull,
    Rejected,
    RelayError,
    Replaced,
    TargetLeft,
    TooLarge,
    TurnError,
    TurnFailed,
    TurnRefused,
    TurnTimeout,
    UnknownTarget,
    Unreachable,
)
from protocol.member.lifecycle import MemberState
from protocol.member.messages import Message, RemotePeer
from protocol.member.roster import Change
from protocol.mesh.visiting import Receipt
from protocol.session import session_id

__all__ = [
    "Address",
    "AmbiguousTarget",
    "AnnouncementRefused",
    "AnswerGap",
    "AsgiTransport",
    "BadAddress",
    "Change",
    "Changes",
    "Command",
    "Connector",
    "Full",
    "Gap",
    "Grant",
    "IdTaken",
    "Lagged",
    "Left",
    "Limits",
    "Link",
    "LinkClosed",
    "MemberState",
    "MembershipLimits",
    "MemoryLink",
    "Message",
    "NoCredentials",
    "NotARelay",
    "NotConnected",
    "NotServed",
    "Peer",
    "QueueFull",
    "Receipt",
    "Rejected",
    "RelayError",
    "RemotePeer",
    "Replaced",
    "Runtime",
    "TargetLeft",
    "TooLarge",
    "Turn",
    "TurnError",
    "TurnFailed",
    "TurnRefused",
    "TurnTimeout",
    "UnknownTarget",
    "Unreachable",
    "__version__",
    "agentcore",
    "join",
    "oauth",
    "session_id",
    "websocket",
]
