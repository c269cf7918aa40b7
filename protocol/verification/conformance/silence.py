"""What the claims about silence share. These let real time pass."""

import time
from collections.abc import Awaitable, Callable

from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World


def late(world: World) -> float:
    """When a reap is too late, in seconds: relays may look for silent peers only now and then."""
    return world.target.reap_after_s * 1.5 + 1.0


async def until_offline(watcher: Peer, id: str, within_s: float) -> Message:
    """The presence that says `id` is offline. The world's heartbeats keep the watcher alive.

    Raises Failed if it does not come `within_s` (seconds).
    """
    return await watcher.until(
        lambda m: m.is_offline and m.sender == id,
        f"`offline` of {id} within {within_s:.1f} s",
        within_s=within_s,
    )


async def live_on(world: World, peer: Peer, speak: Callable[[], Awaitable[object]]) -> None:
    """Let the peer speak, and do nothing else, for longer than the time to reap. Raises Failed."""
    peer.is_left_alone = True
    until = time.monotonic() + world.target.reap_after_s * 1.3
    while time.monotonic() < until:
        await speak()
        await world.pause(world.target.reap_after_s / 4)
    await speak()
    peer.is_left_alone = False
    await world.settle()
