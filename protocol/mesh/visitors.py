"""Visitors, as the mesh sees them: who of those who are not here may speak, and under which name.

A visitor (protocol.mesh.visiting) is not here. For the moment of its message the roster has a
connection for it that gets nothing, so the mesh decides about the message as about any other:

- It is a peer that nobody knows, unless a peer of its id is here. Then it must be proven to be that
  peer, and speaks for it: the message goes to all but the connections of that peer.
- It does not take a name from anybody: neither `from` nor its id is an agent of another peer that
  is here, unless it is proven to have this id.
"""

from typing import Final

from protocol import refusals
from protocol.envelope import Header
from protocol.mesh.items import Visitor
from protocol.mesh.roster import Connection, Peer, Roster

NO_CONNECTION: Final = -1
"""The number of a visitor's connection, as long as its message is decided. No other one has it."""


def speaker_of(roster: Roster, visitor: Visitor, header: Header) -> Connection:
    """The connection for which the mesh takes this visitor. Raises Refusal (`spoofed`)."""
    id, sender = visitor.peer, header.sender
    peer = roster.peers.get(id)
    if not visitor.is_proven:
        field = "from" if header.instance_id is None else "instanceId"
        if peer is not None or roster.has_agent(id):
            raise refusals.somebody_is_here(field, id)
    if sender is not None and sender != id and roster.has_agent(sender, without=id):
        raise refusals.somebody_is_here("from", sender)
    return Connection(NO_CONNECTION, peer or Peer(id), watches=False)
