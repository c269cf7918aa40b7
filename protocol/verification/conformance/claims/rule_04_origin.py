"""Rule 4: the origin of a message."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=4)


@claim.base("origin.forged-from-refused")
async def a_forged_from_is_not_delivered_as_that_peers(world: World) -> None:
    """A message with another peer's id as `from` is not delivered as that peer's."""
    a, b, c = await world.joined("a", "b", "c")
    for type in ("broadcast", "stream", "direct"):
        await a.send(type, sender=b.id, to=c.id, data={"forged": True})
    await world.settle()
    for peer in (b, c):
        seen = [m for m in peer.traffic() if "forged" in m.data and m.origin == b.id]
        expect(not seen, f"nothing that says it is from {b.id}", seen)


@claim.base("origin.an-agent-id-in-from-passes", needs=["routing.stream-reaches-all-others"])
async def an_agent_of_the_sender_may_stand_in_from(world: World) -> None:
    """`from` may be an agent of the sender, announced or not: existing pages always send that."""
    announced = world.name("announced")
    a, b = await world.join("a", announced), await world.join("b")
    await world.settled()
    for agent in (announced, world.name("not-announced")):
        text = await a.send("stream", sender=agent, instanceId=a.id)
        await b.arrives(text, f"a message from agent {agent}")


@claim.extension("origin.forged-instance-refused")
async def a_forged_instance_is_refused(world: World) -> None:
    """A message with another peer's id as `instanceId` is refused."""
    a, b, c = await world.joined("a", "b", "c")
    for sender in (a.id, world.name("agent"), None):
        await a.send("broadcast", sender=sender, instanceId=b.id, data={"forged": True})
    await world.settle()
    for peer in (b, c):
        seen = [m for m in peer.traffic() if "forged" in m.data and m.origin == b.id]
        if seen:
            raise Lacking(f"nothing that says it is from {b.id}", shown(seen))


@claim.extension("origin.the-relays-name-is-reserved", needs=["capabilities.closes-nothing"])
async def nobody_can_speak_as_the_relay(world: World) -> None:
    """Nobody can speak as `relay`: neither a message nor a presence nor an agent has that name."""
    a, b, _c = await world.joined("a", "b", "c")
    for type in ("broadcast", "heartbeat", "error"):
        await a.send(type, sender="relay", data={"forged": world.token})
    await a.send("presence", data={"agents": ["relay"], "forged": world.token})
    other = await world.connect()
    await other.send("presence", sender="relay", data={"agents": [], "forged": world.token})
    await other.send("capabilities", sender=None)
    await world.settle()
    await other.close()
    await world.settle()
    seen = [m for m in b.taken() if "forged" in m.data]
    if seen:
        raise Lacking("nothing from `relay`", shown(seen))


@claim.extension("origin.only-the-relay-tells-what-it-can")
async def nobody_can_answer_for_the_relay(world: World) -> None:
    """A `capabilities_response` from a peer reaches nobody, alone or in an array."""
    a, b = await world.joined("a", "b")
    for sender in (a.id, "relay", None):
        text = await a.send(
            "capabilities_response", sender=sender, to=b.id, data={"forged": world.token}
        )
        await a.send_text(f"[{text}]")
    await world.settle()
    seen = [m for m in b.taken() if "forged" in m.data]
    if seen:
        raise Lacking("nothing that only a relay can say", shown(seen))


@claim.extension("origin.the-origin-is-added", needs=["routing.ack-reaches-all-others"])
async def the_origin_is_added_to_a_message_from_an_agent(world: World) -> None:
    """A message from an agent without `instanceId` arrives with the peer's id there."""
    a, b = await world.joined("a", "b")
    text = await a.send("ack", sender=world.name("agent"), turnId="t")
    seen = await b.arrives(text, "the message")
    if "instanceId" not in seen.fields:
        raise Lacking(f"`instanceId` is {a.id}", shown(seen))
    expect(seen.fields["instanceId"] == a.id, f"`instanceId` is {a.id}", seen)
    expect(seen.text.startswith(text[:-1]), "fields are added at the end", seen)


@claim.extension("origin.a-missing-from-is-filled")
async def a_missing_from_is_filled(world: World) -> None:
    """A message without `from` arrives with the peer's id there."""
    a, b = await world.joined("a", "b")
    await a.send("broadcast", sender=None, data={"text": world.token})
    await world.settle()
    seen = b.traffic()
    if not seen or "from" not in seen[0].fields:
        raise Lacking(f"`from` is {a.id}", shown(seen))
    expect([m.sender for m in seen] == [a.id], f"`from` is {a.id}", seen)
