"""Rule 14: timestamps. More than the base specification asks."""

import time

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=14, is_base=False)


@claim("timestamps.the-relays-are-milliseconds")
async def the_timestamps_of_the_relay_are_milliseconds(world: World) -> None:
    """What the relay says itself is stamped in whole milliseconds since the epoch."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    told = await world.offline_once(watcher, a.id)
    stamp = told.fields.get("timestamp")
    if stamp is None:
        raise Lacking("a timestamp", shown(told))
    day_ms = 86_400_000
    kept = isinstance(stamp, int) and abs(stamp - time.time() * 1000) < day_ms
    expect(kept, "whole milliseconds since the epoch", told)
