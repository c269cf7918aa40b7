"""Rule 5: directs."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.specification import DIRECT
from protocol.verification.conformance.world import World

claim = Claims(rule=5)


@claim.specification("direct.to-a-peer", DIRECT, settles=False)
async def a_direct_reaches_the_peer_that_it_names(world: World) -> None:
    """A direct reaches the peer that `to` names."""
    a, b = await world.join("a"), await world.join("b")
    text = await a.send("direct", to=b.id, data={"n": 1})
    await b.arrives(text, "the direct at its target")


@claim.base("direct.to-an-agent", needs=["direct.to-a-peer"])
async def a_direct_reaches_the_peer_of_the_agent_that_it_names(world: World) -> None:
    """A direct reaches the peer that announced the agent that `to` names."""
    agent = world.name("agent")
    a, b = await world.join("a"), await world.join("b", world.name("other"), agent)
    text = await a.send("direct", to=agent)
    await b.arrives(text, "the direct at the peer of the agent")


@claim.base("direct.to-an-agent-announced-as-an-object", needs=["direct.to-an-agent"])
async def agents_announced_as_objects_are_found_by_their_id(world: World) -> None:
    """Agents may be announced as objects with `agentId`, `id` or `name`, and are found by it."""
    a = await world.join("a")
    agents = {key: world.name(key) for key in ("agentId", "id", "name")}
    b = await world.join("b", *({key: name, "color": "red"} for key, name in agents.items()))
    for key, name in agents.items():
        text = await a.send("direct", to=name)
        await b.arrives(text, f"the direct at the peer whose agent has this `{key}`")


@claim.specification("direct.reaches-only-its-target", DIRECT, needs=["direct.to-a-peer"])
async def a_direct_reaches_only_its_target(world: World) -> None:
    """A direct reaches one peer, once; nobody else, nor its sender."""
    a, b, c = await world.joined("a", "b", "c")
    text = await a.send("direct", to=b.id)
    await b.arrives(text, "the direct at its target")
    await world.settle()
    for peer in (a, b, c):
        seen = peer.traffic()
        expect(not seen, f"nothing (more) at {peer!r}", seen)


@claim.base("direct.to-nobody-is-an-error")
async def a_direct_to_nobody_is_an_error(world: World) -> None:
    """A direct to nobody is answered with an error and reaches nobody."""
    a, b = await world.joined("a", "b")
    await a.send("direct", to=world.name("nobody"), turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "nothing at the others", seen)


@claim.base(
    "direct.an-agent-leaves-with-its-peer",
    needs=["direct.to-an-agent", "direct.to-nobody-is-an-error"],
)
async def an_agent_leaves_with_its_peer(world: World) -> None:
    """A direct to an agent whose peer has left is answered with an error."""
    agent = world.name("agent")
    a, _c, b = await world.join("a"), await world.join("c"), await world.join("b", agent)
    await b.close()
    await world.after_the_end_of(b)
    await a.send("direct", to=agent, turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")


@claim.extension(
    "direct.an-agents-id-is-the-first-that-is-one",
    needs=["direct.to-an-agent-announced-as-an-object", "direct.to-nobody-is-an-error"],
)
async def the_id_of_an_agent_is_the_first_that_is_one(world: World) -> None:
    """An agent's id is the first of `agentId`, `id` and `name` that is a string and not empty."""
    a = await world.join("a")
    first, second = world.name("first"), world.name("second")
    await world.join(
        "b",
        {"agentId": 5, "id": first, "name": second},
        {"agentId": "", "id": None, "name": second},
    )
    await world.settled()
    for agent in (first, second):
        await a.send("direct", to=agent)
    await world.settle()
    errors = [m for m in a.taken() if m.type == "error"]
    if errors:
        raise Lacking(f"no error: {first} and {second} are agents of one peer", shown(errors))


@claim.extension("direct.by-target-instance", needs=["direct.to-a-peer"])
async def a_target_instance_names_the_peer(world: World) -> None:
    """`targetInstanceId` names the peer, whatever `to` says."""
    agent = world.name("twin")
    a, b, c = await world.join("a"), await world.join("b", agent), await world.join("c", agent)
    await world.settled()
    text = await a.send("direct", to=agent, targetInstanceId=c.id)
    await world.settle()
    at_b, at_c = b.traffic(), c.traffic()
    if at_b or not at_c:
        raise Lacking(f"the direct at {c.id} only", f"at {b.id}: {len(at_b)}, there: {len(at_c)}")
    expect(len(at_c) == 1 and at_c[0].carries(text), text, at_c)


@claim.extension("direct.an-agent-of-several-peers-is-an-error", needs=["direct.to-an-agent"])
async def a_direct_to_an_agent_of_several_peers_is_an_error(world: World) -> None:
    """A direct to an agent that several peers have reaches none of them; the error names them."""
    agent = world.name("twin")
    a, b, c = await world.join("a"), await world.join("b", agent), await world.join("c", agent)
    await world.settled()
    await a.send("direct", to=agent)
    await world.settle()
    seen = [*b.traffic(), *c.traffic()]
    if seen:
        raise Lacking("the direct reaches nobody", shown(seen))
    errors = [m for m in a.taken() if m.type == "error"]
    named = [sorted(map(str, m.data.get("peers", ()))) for m in errors]
    if named != [sorted([b.id, c.id])]:
        raise Lacking(f"one error with `peers` {b.id} and {c.id}", shown(errors))


@claim.extension("direct.to-ones-own-agent-is-not-relayed", needs=["direct.to-an-agent"])
async def a_direct_to_ones_own_agent_is_not_relayed(world: World) -> None:
    """A direct to an agent that its sender has itself reaches nobody, whoever else has one."""
    agent = world.name("twin")
    a, b = await world.join("a", agent), await world.join("b", agent)
    await world.settled()
    await a.send("direct", to=agent)
    await world.settle()
    seen = [*a.traffic(), *b.traffic()]
    if seen:
        raise Lacking("nothing, at nobody", shown(seen))


@claim.extension("direct.between-local-agents-stays-at-home", needs=["direct.to-an-agent"])
async def a_direct_between_local_agents_stays_at_home(world: World) -> None:
    """A direct to an agent's name from somebody whom its peer has not announced, without
    `instanceId`, reaches nobody and is answered with `unknown_target`; with it, it arrives."""
    local, agent = world.name("local"), world.name("agent")
    a, b = await world.join("a"), await world.join("b", agent)
    await world.settled()
    await a.send("direct", sender=local, to=agent, data={"command": "for my own agent"})
    await world.settle()
    seen = b.traffic()
    if seen:
        raise Lacking("the direct reaches nobody", shown(seen))
    errors = [m for m in a.taken() if m.type == "error"]
    if [m.data.get("code") for m in errors] != ["unknown_target"]:
        raise Lacking("one error `unknown_target`", shown(errors))
    text = await a.send("direct", sender=local, to=agent, instanceId=a.id)
    await b.arrives(text, "the direct with `instanceId` at the peer of the agent")


@claim.extension("direct.a-cancel-reaches-whoever-it-names", needs=["direct.to-a-peer"])
async def a_cancel_reaches_whoever_it_names(world: World) -> None:
    """A `cancel` reaches the peer that it names, as a direct does, and nobody else."""
    a, b, c = await world.join("a"), await world.join("b"), await world.join("c")
    await world.settled()
    text = await a.send("cancel", to=b.id, turnId="t")
    await a.send("cancel", to=world.name("nobody"), turnId="t")
    await world.settle()
    at_b, at_c = b.traffic(), c.traffic()
    if at_c or not at_b:
        raise Lacking(f"the cancel at {b.id} only", f"there: {len(at_b)}, at {c.id}: {len(at_c)}")
    expect(len(at_b) == 1 and at_b[0].carries(text), text, at_b)
    codes = [m.data.get("code") for m in a.taken() if m.type == "error"]
    if codes != ["unknown_target"]:
        raise Lacking("one error `unknown_target`", str(codes))
