"""Rule 2: several connections, one peer. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=2, is_base=False)


@claim("routing.any-other-type-is-fanned-out")
async def an_unknown_type_goes_where_a_broadcast_goes(world: World) -> None:
    """A type that the protocol does not know goes where a broadcast goes."""
    a, b, c = await world.joined("a", "b", "c")
    text = await a.send("ring-update", data={"n": 1})
    await world.settle()
    if any(m.type == "error" and m.data.get("code") == "unknown_type" for m in a.inbox):
        raise NotApplicable("this relay is set to refuse unknown types")
    for peer in (b, c):
        seen = peer.traffic()
        if not seen:
            raise Lacking("the unknown type arrives", "nothing (a closed vocabulary)")
        expect(len(seen) == 1 and seen[0].carries(text), text, seen)
    seen = [m for m in a.traffic() if m.type != "error"]
    expect(not seen, "it does not come back to its sender", seen)


@claim("tabs.agents-are-the-union")
async def the_agents_of_a_peer_are_those_of_all_its_tabs(world: World) -> None:
    """The agents that the others see of a peer are those of all its connections."""
    (watcher,) = await world.joined("watcher")
    x, y = world.name("x"), world.name("y")
    one = await world.join("twotabs", x)
    await world.tab(one.id, y)
    await world.settle()
    seen = [m for m in watcher.taken() if m.type == "presence" and m.sender == one.id]
    if not seen or set(map(str, seen[-1].agents)) == {y}:
        raise Lacking(f"agents {x}, {y}", shown(seen))
    expect(sorted(map(str, seen[-1].agents)) == [x, y], f"agents {x}, {y}", seen)
    await one.close()
    await watcher.until(
        lambda m: m.type == "presence" and m.sender == one.id and m.agents == [y],
        f"a presence with only {y} after the connection that announced {x} has closed",
    )
