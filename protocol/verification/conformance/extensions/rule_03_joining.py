"""Rule 3: joining. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=3, is_base=False)


@claim("joining.the-roster-is-not-repeated")
async def a_repeated_presence_does_not_bring_the_roster(world: World) -> None:
    """A repeated presence does not bring the roster again."""
    a, b = await world.joined("a", "b")
    await a.announce()
    await world.settle()
    seen = [m for m in a.taken() if m.type == "presence" and m.sender == b.id]
    if seen:
        raise Lacking("no presences of others", shown(seen))


@claim("joining.the-last-of-many-announcements-counts")
async def the_last_of_many_announcements_counts(world: World) -> None:
    """Of many presences in quick succession the others see at least the last one."""
    watcher, a = await world.joined("watcher", "a")
    agents = [world.name(f"agent-{n}") for n in range(30)]
    for agent in agents:
        await a.send("presence", data={"agents": [agent]})
    await watcher.until(
        lambda m: m.type == "presence" and m.data.get("agents") == agents[-1:],
        f"a presence with the agent {agents[-1]}",
    )


@claim("joining.the-data-of-a-presence-is-an-object")
async def the_data_of_a_presence_is_an_object(world: World) -> None:
    """A presence without `data` is relayed with an object there: receivers read `data.agents`."""
    (b,) = await world.joined("b")
    a = await world.connect()
    a.id = world.name("a")
    for data in ({}, {"data": None}):
        await a.send("presence", **data)
        seen = await b.until(lambda m: m.sender == a.id and not m.is_offline, "the presence")
        if not isinstance(seen.fields.get("data"), dict):
            raise Lacking("`data` is an object", shown(seen))


@claim("joining.a-connection-keeps-its-id")
async def a_connection_keeps_its_id(world: World) -> None:
    """A presence under a second id on the same connection is refused and reaches nobody."""
    watcher, a = await world.joined("watcher", "a")
    second = world.name("second")
    await a.send("presence", sender=second, data={"agents": []})
    await world.settle()
    seen = [m for m in watcher.taken() if m.sender == second]
    if seen:
        raise Lacking("no presence of the second id", shown(seen))
    codes = [m.data.get("code") for m in a.taken() if m.type == "error"]
    if codes != ["identity_fixed"]:
        raise Lacking("error `identity_fixed`", shown(codes))
