"""Rule 14: timestamps."""

import json

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=14, is_base=True)


@claim("timestamps.the-senders-is-kept")
async def the_timestamp_of_a_sender_is_kept(world: World) -> None:
    """The timestamp of a sender arrives as it was sent."""
    a, b = await world.joined("a", "b")
    for stamp in (1_700_000_000_123, 0, 1.5):
        await a.send_text(
            json.dumps({"type": "stream", "from": a.id, "data": {}, "timestamp": stamp})
        )
        seen = await b.until(lambda m: m.type == "stream", "the message")
        expect(seen.fields.get("timestamp") == stamp, f"timestamp {stamp}", seen)
