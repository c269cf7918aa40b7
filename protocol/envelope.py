"""A message as the relay sees it: its header fields, its unchanged text, and reasons to refuse it.

The relay never builds a message again from its parts. It reads the header out of the text, decides,
and passes on the text as it came (UTF-8 bytes, `Text`). So `Header` has no `data`. The relay reads
`data` only in presences and heartbeats, and the codec does that separately.
"""

import enum
from typing import Final

import attrs
import msgspec

from protocol.agents import Agent
from protocol.wish import EVERYTHING, Wish

Text = bytes
"""One message as it stands on the wire: JSON, UTF-8 encoded, without any framing."""

TEXT_BYTES: Final = 100
"""What a text costs beside its bytes: the head of the object, and the references to it."""

RELAY: Final = "relay"
"""The `from` of the relay's own messages. No peer or agent may have this name."""


NO_TURN: Final = msgspec.Raw()
"""This very object is the `turn_id` of a message that has none."""


class Header(msgspec.Struct, gc=False):
    """The fields that decide where a message goes. `None`: absent, or null.

    `from` is called `sender` here, because `from` is a keyword of Python. `turn_id` decides nothing
    (protocol.mesh.commands). It is as it stands in the text; empty: absent.
    """

    type: str
    sender: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    instance_id: str | None = msgspec.field(name="instanceId", default=None)
    target_instance_id: str | None = msgspec.field(name="targetInstanceId", default=None)
    turn_id: msgspec.Raw = msgspec.field(name="turnId", default=NO_TURN)


@attrs.frozen
class Announcement:
    """What a presence or heartbeat says in `data`. `agents` is None if the field is absent.

    `is_page`: it has a `pageId`, as pages have that send again what they receive. `wish`: what its
    connection wants of what others say to everyone.
    """

    agents: tuple[Agent, ...] | None = None
    keepalive_pong: bool = False
    has_data: bool = True
    accepts_batches: bool = False
    is_page: bool = False
    wish: Wish = EVERYTHING


class ErrorCode(enum.Enum):
    """Every reason to refuse a message, and what the relay tells the sender.

    The value is the `data.code` on the wire; `meaning` is the sentence in docs/protocol.md.
    """

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        self.meaning = meaning

    MALFORMED = (
        "malformed",
        "not JSON: bad syntax, empty, NaN or Infinity, nested too deeply, or a too long number",
    )
    NOT_AN_OBJECT = "not_an_object", "JSON, but not an object"
    BAD_FIELD = "bad_field", "a field is missing, empty or of the wrong type"
    BINARY = "binary", "a binary frame; messages are text"
    TOO_LARGE = "too_large", "the message, or the presence, has too many bytes"
    TOO_LONG = "too_long", "an id or a type has too many characters"
    TOO_MANY_AGENTS = "too_many_agents", "the peer would have more agents than allowed"
    TOO_MANY_CONNECTIONS = (
        "too_many_connections",
        "the peer has as many connections as allowed; the presence of one more is refused",
    )
    TOO_MANY_WISHES = (
        "too_many_wishes",
        "the connections of this mesh want as many different things as allowed: rule 22",
    )
    NO_ROOM = "no_room", "the relay has no room now for one more peer, or a longer presence"
    NOT_PRESENT = "not_present", "the connection has not sent a presence yet"
    ID_TAKEN = (
        "id_taken",
        "the peer id is here, and another secret (or none) has claimed it: rule 16",
    )
    REPLACED = (
        "replaced",
        "another connection with the same claim has taken over; this one is closed: rule 16",
    )
    NOT_GRANTED = "not_granted", "beyond what this connection may do: rule 17"
    EXPIRED = "expired", "the grant of this connection has run out; it is closed: rule 17"
    IDENTITY_FIXED = "identity_fixed", "a connection cannot change its peer id"
    SPOOFED = (
        "spoofed",
        "`from` or `instanceId` names somebody else, or the type is the relay's",
    )
    UNKNOWN_TARGET = "unknown_target", "a direct to a peer or agent that is not in the mesh"
    AMBIGUOUS_TARGET = "ambiguous_target", "a direct to an agent that several peers have"
    UNKNOWN_TYPE = "unknown_type", "a type that is not in the table (only with `--strict true`)"
    RATE_LIMITED = "rate_limited", "too many messages; they were dropped"
    UNDECIDED = (
        "undecided",
        "the relay has lost touch with the other relays of the mesh, so nobody knows whether it "
        "arrived (only in the answer to `POST /send`)",
    )
    LAGGING = (
        "lagging",
        "the connection is too far behind and is spared the answers to others (at most one such "
        "error in 60 s): rule 20",
    )
    ECHOED = (
        "echoed",
        "a page sent again what others had said (at most one such error a second): rule 18",
    )


class Refusal(Exception):
    """A message is refused. `code` tells programs why, and `sentence` tells people.

    `details` are further fields of the error's `data`.
    """

    def __init__(self, code: ErrorCode, sentence: str, **details: object) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.details = details


@attrs.frozen
class Unreadable:
    """A transport puts this in the place of a message that is binary or too large."""

    code: ErrorCode
    sentence: str

    def __len__(self) -> int:
        """The bytes that it counts for, as those of a text do."""
        return 0


Inbound = Text | Unreadable
