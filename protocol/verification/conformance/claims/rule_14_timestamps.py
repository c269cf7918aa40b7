"""Rule 14: timestamps."""

import json
import time

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=14)


@claim.base("timestamps.the-senders-is-kept", needs=["routing.stream-reaches-all-others"])
async def the_timestamp_of_a_sender_is_kept(world: World) -> None:
    """The timestamp of a sender arrives as it was sent."""
    a, b = await world.joined("a", "b")
    for stamp in (1_700_000_000_123, 0, 1.5):
        await a.send_text(
            json.dumps({"type": "stream", "from": a.id, "data": {}, "timestamp": stamp})
        )
        seen = await b.until(lambda m: m.type == "stream", "the message")
        expect(seen.fields.get("timestamp") == stamp, f"timestamp {stamp}", seen)


@claim.extension("timestamps.the-relays-are-milliseconds", needs=["leaving.offline-is-heard"])
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
