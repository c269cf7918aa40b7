"""Rule 6: before presence."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=6, is_base=True)


@claim("before-presence.nothing-is-routed")
async def nothing_is_routed_before_presence(world: World) -> None:
    """What a connection sends before its presence reaches nobody, and it may still join."""
    b, c = await world.joined("b", "c")
    a = await world.connect()
    a.id = world.name("a")
    a.is_left_alone = True
    for type in ("broadcast", "stream", "direct", "heartbeat"):
        await a.send(type, to=b.id, data={"early": True})
    await a.announce()
    a.is_left_alone = False
    await world.settle()
    seen = [*b.traffic(), *c.traffic()]
    expect(not seen, "nothing at the others", seen)


@claim("before-presence.nothing-is-received")
async def nothing_is_received_before_presence(world: World) -> None:
    """A connection that has not announced itself receives no traffic."""
    b, _c = await world.joined("b", "c")
    a = await world.connect()
    a.id = world.name("a")
    a.is_left_alone = True
    await b.send("broadcast", data={"n": 1})
    await world.settled()
    await a.announce()
    seen = [m for m in a.taken() if m.type != "error"]
    expect(not seen, "nothing before its own presence", seen)
