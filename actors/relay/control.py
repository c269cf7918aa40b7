"""What a peer actor tells its supervisor beside messages. No backlog delays it.

A control message names the actor, not its connection: an actor may take the number of another one
(actors/relay/comebacks.py) before its supervisor reads the message.
"""

from typing import Generic, TypeVar

import attrs

from protocol.mesh.lifecycle import Cause

Actor = TypeVar("Actor")


@attrs.frozen
class Opened(Generic[Actor]):
    """This actor has begun."""

    actor: Actor


@attrs.frozen
class Ponged(Generic[Actor]):
    """Its peer answered a ping."""

    actor: Actor


@attrs.frozen
class Failed(Generic[Actor]):
    """This actor must end now. What still waits in it is dropped."""

    actor: Actor
    cause: Cause
    error: BaseException | None = None
    reason: str | None = None


@attrs.frozen
class Displaced(Generic[Actor]):
    """This actor must end, unless its presence has come in by now."""

    actor: Actor


@attrs.frozen
class Lagging(Generic[Actor]):
    """This actor has fallen too far behind its pace, or has caught up."""

    actor: Actor
    is_lagging: bool


Control = Lagging[Actor] | Opened[Actor] | Ponged[Actor] | Failed[Actor] | Displaced[Actor]
