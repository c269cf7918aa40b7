"""Rule 13: withheld types. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=13, is_base=False)


@claim("withheld.types-with-credentials")
async def types_with_credentials_reach_nobody(world: World) -> None:
    """Types in which existing pages send addresses and tokens reach nobody."""
    a, b = await world.joined("a", "b")
    for type in (
        "configure",
        "relay-log",
        "relay-connected",
        "relay-disconnected",
        "relay-config-updated",
    ):
        await a.send(type, data={"url": "wss://example.invalid/?token=secret"})
    await world.settle()
    seen = b.traffic()
    if seen:
        raise Lacking("nothing", shown(seen))
