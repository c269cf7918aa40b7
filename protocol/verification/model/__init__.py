"""Who receives what: the rules of docs/protocol.md once more, plainly, to check the first time.

The model is an independent second description. It imports nothing of what it checks, only `Limits`,
which says how large the bounds are. It keeps dicts and lists, reads every message with
`json.loads`, and looks through everything it knows for every question. You tell it what a relay
decided, in the order in which the relay decided it:

    model = Model(Limits())
    model.opened(1)
    model.received(1, [b'{"type":"presence","from":"a"}'])
    model.take()        # {1: [Made({'type': 'presence', 'from': 'a', 'data': {}})]}

`take` gives, for each connection, what its peer must receive from then on:

    Untouched(text)     these bytes, to the letter
    Made(value)         a message that the relay makes or changes: this JSON, spelled in any way
    Roster(presences)   all of these, in any order
    Closed(code)        the end, with this close code

The rules leave some things open, and so does the model: the sentences of errors, the times of
messages that the relay makes (an integer, though), the order of fields in messages that it changes,
and, for a message that is wrong in several ways, which of its faults the error names. One thing it
leaves out: a presence that the relay makes longer than its bound, because it depends on the
spelling. Histories here do not come near that bound.

    echoes.py       what pages send again, and who said what lately
    returning.py    who may come back, and what is wrong with who wants to
    reading.py      what a text says: JSON, numbers by their letters, agents and their ids
    entry.py        who may come in, and as whom: permits and claims
    expected.py     what may be expected of a connection, and whether a text is that
    lagging.py      who is behind, and which answers it need not get
    wishes.py       what of all that others say a connection wants
    faults.py       what is wrong with a message, whoever is here
    mesh.py         `Model`: who is here, and so who receives what
"""

from protocol.verification.model.entry import Permit
from protocol.verification.model.expected import (
    A_SENTENCE,
    A_TIME,
    AN_OBJECT,
    AtLeast,
    Closed,
    Disagreement,
    Expected,
    Made,
    Maybe,
    OneOf,
    Roster,
    Untouched,
    matches,
)
from protocol.verification.model.faults import FANNED_OUT, KNOWN, RELAY, RELAYS_OWN, WITHHELD
from protocol.verification.model.mesh import CLOSE_CODES, Connection, Model, Peer
from protocol.verification.model.reading import (
    BINARY,
    Message,
    Number,
    agent_id,
    depth,
    digits,
    elements_of,
    read,
    union,
)
from protocol.verification.model.returning import Resume, Ticket, Uncounted

__all__ = [
    "AN_OBJECT",
    "A_SENTENCE",
    "A_TIME",
    "BINARY",
    "CLOSE_CODES",
    "FANNED_OUT",
    "KNOWN",
    "RELAY",
    "RELAYS_OWN",
    "WITHHELD",
    "AtLeast",
    "Closed",
    "Connection",
    "Disagreement",
    "Expected",
    "Made",
    "Maybe",
    "Message",
    "Model",
    "Number",
    "OneOf",
    "Peer",
    "Permit",
    "Resume",
    "Roster",
    "Ticket",
    "Uncounted",
    "Untouched",
    "agent_id",
    "depth",
    "digits",
    "elements_of",
    "matches",
    "read",
    "union",
]
