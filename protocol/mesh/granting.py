"""Keeps a connection to its grant: refuses what is beyond it (protocol.grants).

A connection with the open grant never comes here.
"""

from collections.abc import Callable, Sequence

from protocol import refusals
from protocol.agents import Agent
from protocol.envelope import Header, Text
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.connection import Connection
from protocol.mesh.routing import Route

Said = Callable[[int, Header, Sequence[Text], Route, Instant], None]
"""`Items.said`."""


def check_peer(grant: Grant, id: str) -> None:
    """Raise Refusal unless the connection may be this peer."""
    if not grant.covers_peer(id):
        raise refusals.not_granted(
            f"only the peer {grant.peer!r}, or one below it (`{grant.peer}/...`), not {id!r}"
        )


def check_agents(grant: Grant, agents: Sequence[Agent]) -> None:
    """Raise Refusal unless the connection may have all these agents. With a list of agents in the
    grant every agent needs an id, or one could not say whether it is in the list."""
    if grant.agents is None:
        return
    for agent in agents:
        if agent.id is None:
            raise refusals.not_granted("only agents that it names, and this one has no id")
        _check_agent(grant, agent.id)


def check_said(grant: Grant, peer: str, header: Header, limits: Limits) -> None:
    """Raise Refusal unless `peer` may say this to others: it may send, and `from` is the peer
    itself or an agent that it may have."""
    if not grant.may_send:
        raise refusals.not_granted("no messages to others, because `send` is missing")
    if header.sender is not None and header.sender != peer:
        refusals.check_name(header.sender, "from", limits)  # before it is repeated to its sender
        _check_agent(grant, header.sender)


def say(  # noqa: PLR0917 (the gate binds the first ones)
    said: Said,
    connection: Connection,
    limits: Limits,
    id: int,
    header: Header,
    messages: Sequence[Text],
    route: Route,
    now: Instant,
) -> None:
    """`Items.said` for a connection with a grant. Raises Refusal for what is beyond it, too."""
    peer = connection.speaks_as
    if peer is not None:  # or the mesh refuses it
        check_said(connection.grant, peer, header, limits)
    said(id, header, messages, route, now)


def _check_agent(grant: Grant, id: str) -> None:
    if not grant.covers_agent(id):
        raise refusals.not_granted(f"only some agents, and {id!r} is none of them")
