"""Rule 9: heartbeats are not forwarded."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect
from protocol.verification.conformance.silence import live_on
from protocol.verification.conformance.specification import HEARTBEAT
from protocol.verification.conformance.world import World

claim = Claims(rule=9)


@claim.specification("heartbeat.not-forwarded", HEARTBEAT)
async def a_heartbeat_is_not_forwarded(world: World) -> None:
    """A heartbeat is for the relay: nobody else receives it."""
    a, b = await world.joined("a", "b")
    await a.send("heartbeat", data={"agents": []})
    await a.send("heartbeat")
    await world.settle()
    seen = [m for m in (*a.taken(), *b.taken()) if m.type == "heartbeat"]
    expect(not seen, "no heartbeat at anybody", seen)


@claim.extension("heartbeat.new-agents-are-announced", needs=["heartbeat.not-forwarded"])
async def new_agents_in_a_heartbeat_are_announced(world: World) -> None:
    """A heartbeat with new agents makes the others see the peer's presence, and reach them."""
    a, b = await world.joined("a", "b")
    agent = world.name("new")
    await a.send("heartbeat", data={"agents": [agent]})
    await world.settle()
    seen = [m for m in b.taken() if m.type == "presence" and m.sender == a.id]
    if not seen:
        raise Lacking(f"a presence with agent {agent}", "nothing")
    expect([m.agents for m in seen] == [[agent]], f"one presence with agent {agent}", seen)
    text = await b.send("direct", to=agent)
    await a.arrives(text, "a direct to the new agent")


@claim.extension(
    "heartbeat.the-presence-is-repeated", needs=["liveness.heartbeats-keep-a-peer"], needs_time=True
)
async def the_presence_of_a_quiet_peer_is_repeated(world: World) -> None:
    """Of a peer that only sends heartbeats, the others hear a presence before they forget it."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    await live_on(world, a, lambda: a.send("heartbeat"))
    seen = [m for m in watcher.taken() if m.type == "presence" and m.sender == a.id]
    if not seen:
        raise Lacking(f"a presence of {a!r} within {world.target.reap_after_s:g} s", "none")
