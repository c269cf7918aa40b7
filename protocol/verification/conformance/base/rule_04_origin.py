"""Rule 4: the origin of a message."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=4, is_base=True)


@claim("origin.forged-from-refused")
async def a_forged_from_is_not_delivered_as_that_peers(world: World) -> None:
    """A message with another peer's id as `from` is not delivered as that peer's."""
    a, b, c = await world.joined("a", "b", "c")
    for type in ("broadcast", "stream", "direct"):
        await a.send(type, sender=b.id, to=c.id, data={"forged": True})
    await world.settle()
    for peer in (b, c):
        seen = [m for m in peer.traffic() if "forged" in m.data and m.origin == b.id]
        expect(not seen, f"nothing that says it is from {b.id}", seen)


@claim("origin.an-agent-id-in-from-passes")
async def an_agent_of_the_sender_may_stand_in_from(world: World) -> None:
    """`from` may be an agent of the sender, announced or not: existing pages always send that."""
    announced = world.name("announced")
    a, b = await world.join("a", announced), await world.join("b")
    await world.settled()
    for agent in (announced, world.name("not-announced")):
        text = await a.send("stream", sender=agent, instanceId=a.id)
        await b.arrives(text, f"a message from agent {agent}")
