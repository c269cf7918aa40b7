"""Rule 6: before presence."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, expect, shown
from protocol.verification.conformance.silence import late
from protocol.verification.conformance.world import World

claim = Claims(rule=6)


@claim.base("before-presence.nothing-is-routed")
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


@claim.base("before-presence.nothing-is-received")
async def nothing_is_received_before_presence(world: World) -> None:
    """A connection that has not announced itself receives no traffic."""
    b, _c = await world.joined("b", "c")
    a = await world.connect()
    a.id = world.name("a")
    a.is_left_alone = True
    await b.send("broadcast", data={"n": 1})
    await world.settled()
    await a.announce()
    seen = [m for m in a.taken() if m.type not in ("error", "presence")]
    expect(not seen, "nothing before its own presence", seen)


@claim.base("capabilities.closes-nothing", settles=False)
async def who_asks_for_capabilities_keeps_its_connection(world: World) -> None:
    """Who asks for `capabilities`, as pages do before their presence, keeps its connection."""
    a = await world.connect()
    await a.send("capabilities", sender=None, turnId="t")
    await a.is_kept()
    a.id = world.name("a")
    await a.announce()
    await a.send("capabilities", turnId="t")
    await a.is_kept()


@claim.extension("before-presence.is-answered", settles=False)
async def a_message_before_presence_is_answered(world: World) -> None:
    """A message before presence is answered with the error `not_present`."""
    a = await world.connect()
    a.id = world.name("a")
    await a.send("broadcast", turnId="t")
    await a.announce()
    codes = [m.data.get("code") for m in a.taken() if m.type == "error"]
    if codes != ["not_present"]:
        raise Lacking("one error `not_present`", shown(codes))


@claim.extension("capabilities.answered-at-any-time", needs=["capabilities.closes-nothing"])
async def capabilities_are_answered_at_any_time(world: World) -> None:
    """`capabilities` is answered, to its sender only, before and after presence."""
    (b,) = await world.joined("b")
    a = await world.connect()
    await a.send("capabilities", sender=None, turnId="before")
    a.id = world.name("a")
    await a.announce()
    await a.send("capabilities", turnId="after")
    await world.settle()
    answers = [m for m in a.taken() if m.type == "capabilities_response"]
    if not answers:
        raise Lacking("two answers", "none")
    turns = [m.fields.get("turnId") for m in answers]
    expect(turns == ["before", "after"], "an answer to each, with its `turnId`", answers)
    seen = b.traffic()
    expect(not seen, "nothing at the others", seen)


@claim.extension("capabilities.tell-the-agents", needs=["capabilities.closes-nothing"])
async def capabilities_tell_the_agents(world: World) -> None:
    """The answer to `capabilities` has a card with the name of each agent, and the agents' ids."""
    plain, object_id = world.name("plain"), world.name("object")
    await world.join("a", plain, {"agentId": object_id, "description": "helps"})
    page = await world.join("page")
    await page.send("capabilities")
    await world.settle()
    answers = [m for m in page.taken() if m.type == "capabilities_response"]
    if not answers:
        raise Lacking("an answer", "none")
    answer = answers[0]
    active = answer.data.get("activeAgents")
    if not isinstance(active, list) or not {plain, object_id} <= {*map(str, active)}:
        raise Lacking(f"`activeAgents` with {plain} and {object_id}", shown(active))
    cards = [card for card in answer.data.get("agentCards", ()) if isinstance(card, dict)]
    for card in ({"name": plain}, {"name": object_id, "description": "helps"}):
        found = any(card.items() <= its.items() for its in cards)
        expect(found, f"a card with {card}", cards)


@claim.extension(
    "liveness.the-unannounced-are-closed", needs=["capabilities.closes-nothing"], needs_time=True
)
async def a_connection_that_never_announces_itself_is_closed(world: World) -> None:
    """A connection that never announces itself is closed, whatever else it says."""
    a = await world.connect()
    await a.send("capabilities", sender=None)
    try:
        await a.closed(late(world), "the relay closes the connection")
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
