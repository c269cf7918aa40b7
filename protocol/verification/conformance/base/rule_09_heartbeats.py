"""Rule 9: heartbeats are not forwarded."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=9, is_base=True)


@claim("heartbeat.not-forwarded")
async def a_heartbeat_is_not_forwarded(world: World) -> None:
    """A heartbeat is for the relay: nobody else receives it."""
    a, b = await world.joined("a", "b")
    await a.send("heartbeat", data={"agents": []})
    await a.send("heartbeat")
    await world.settle()
    seen = [m for m in (*a.taken(), *b.taken()) if m.type == "heartbeat"]
    expect(not seen, "no heartbeat at anybody", seen)
