"""Rule 5: directs."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=5, is_base=True)


@claim("direct.to-a-peer")
async def a_direct_reaches_the_peer_that_it_names(world: World) -> None:
    """A direct reaches the peer that `to` names."""
    a, b = await world.joined("a", "b")
    text = await a.send("direct", to=b.id, data={"n": 1})
    await b.arrives(text, "the direct at its target")


@claim("direct.to-an-agent")
async def a_direct_reaches_the_peer_of_the_agent_that_it_names(world: World) -> None:
    """A direct reaches the peer that announced the agent that `to` names."""
    agent = world.name("agent")
    a, b = await world.join("a"), await world.join("b", world.name("other"), agent)
    text = await a.send("direct", to=agent)
    await b.arrives(text, "the direct at the peer of the agent")


@claim("direct.to-an-agent-announced-as-an-object")
async def agents_announced_as_objects_are_found_by_their_id(world: World) -> None:
    """Agents may be announced as objects with `agentId`, `id` or `name`, and are found by it."""
    a = await world.join("a")
    agents = {key: world.name(key) for key in ("agentId", "id", "name")}
    b = await world.join("b", *({key: name, "color": "red"} for key, name in agents.items()))
    for key, name in agents.items():
        text = await a.send("direct", to=name)
        await b.arrives(text, f"the direct at the peer whose agent has this `{key}`")


@claim("direct.reaches-only-its-target")
async def a_direct_reaches_only_its_target(world: World) -> None:
    """A direct reaches one peer, once; nobody else, nor its sender."""
    a, b, c = await world.joined("a", "b", "c")
    text = await a.send("direct", to=b.id)
    await b.arrives(text, "the direct at its target")
    await world.settle()
    for peer in (a, b, c):
        seen = peer.traffic()
        expect(not seen, f"nothing (more) at {peer!r}", seen)


@claim("direct.to-nobody-is-an-error")
async def a_direct_to_nobody_is_an_error(world: World) -> None:
    """A direct to nobody is answered with an error and reaches nobody."""
    a, b = await world.joined("a", "b")
    await a.send("direct", to=world.name("nobody"), turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "nothing at the others", seen)


@claim("direct.an-agent-leaves-with-its-peer")
async def an_agent_leaves_with_its_peer(world: World) -> None:
    """A direct to an agent whose peer has left is answered with an error."""
    agent = world.name("agent")
    a, _c, b = await world.join("a"), await world.join("c"), await world.join("b", agent)
    await b.close()
    await a.until(lambda m: m.is_offline and m.sender == b.id, "`offline` of the agent's peer")
    await a.send("direct", to=agent, turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")
