"""Rule 12: meshes."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import NotApplicable, expect
from protocol.verification.conformance.world import World

claim = Claims(rule=12)


@claim.extension("meshes.never-see-one-another", needs=["joining.everybody-sees-the-newcomer"])
async def meshes_never_see_one_another(world: World) -> None:
    """Peers of meshes with different names do not see, hear or reach one another."""
    if world.target.mesh is not None:
        raise NotApplicable("the URL names a mesh already")
    if not world.target.has_mesh_names:
        raise NotApplicable("this relay refuses URLs with `?mesh=`")
    a, b = await world.joined("a", "b")
    stranger = await world.connect(mesh=world.name("other-mesh"))
    stranger.id = world.name("stranger")
    stranger.is_left_alone = True  # it cannot see the markers of the others
    await stranger.announce(world.name("agent"))
    await a.send("broadcast", data={"n": 1})
    await a.send("direct", to=stranger.id)
    await a.send("direct", to=world.name("agent"))
    await stranger.send("broadcast", data={"n": 2})
    await stranger.send("direct", to=b.id)
    await stranger.announce()
    await a.announce()
    await world.settle()
    await stranger.announce()
    seen_there = [m for m in stranger.taken() if m.type != "error" and m.sender != stranger.id]
    seen_here = [m for m in (*a.taken(), *b.taken()) if m.sender == stranger.id]
    sees_presences = any(m.type == "presence" for m in seen_there)
    if sees_presences and any(m.type == "presence" for m in seen_here):
        raise NotApplicable("this relay has one mesh only")
    expect(not seen_there, "nothing at the peer of another mesh", seen_there)
    expect(not seen_here, "nothing of the peer of another mesh", seen_here)
