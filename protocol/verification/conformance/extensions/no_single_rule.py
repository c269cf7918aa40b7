"""No single rule: what slow and busy peers do to others. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect
from protocol.verification.conformance.world import World

claim = Claims(rule=None, is_base=False)


@claim("load.a-burst-of-600-passes")
async def a_burst_of_600_messages_passes(world: World) -> None:
    """600 messages from one peer at once all arrive: real pages send that many."""
    a, b = await world.joined("a", "b")
    for n in range(600):
        await a.send("stream", data={"n": n})
    await world.settle()
    seen = [m.data["n"] for m in b.taken() if "n" in m.data]
    if len(seen) < 600:
        raise Lacking("600 messages", f"{len(seen)} of them")
    expect(seen == list(range(600)), "0 to 599 in order", seen)
