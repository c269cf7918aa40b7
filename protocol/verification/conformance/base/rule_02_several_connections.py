"""Rule 2: several connections, one peer, and who is an audience."""

from protocol.verification.conformance.claim import Check, Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=2, is_base=True)


def _reaches_all_but_the_sender(type: str) -> Check:
    async def check(world: World) -> None:
        a, b, c = await world.joined("a", "b", "c")
        text = await a.send(type, data={"n": 1})
        for peer in (b, c):
            await peer.arrives(text, f"a `{type}` reaches every other peer")
        await world.settle()
        seen = a.traffic()
        expect(not seen, f"a `{type}` does not come back to its sender", seen)
        for peer in (b, c):
            seen = peer.traffic()
            expect(not seen, f"a `{type}` arrives once", seen)

    return check


for _type in ("broadcast", "stream", "ack", "turn_end", "error"):
    claim.add(
        f"routing.{_type.replace('_', '-')}-reaches-all-but-the-sender",
        f"Type `{_type}` reaches all peers once, except the sender.",
        _reaches_all_but_the_sender(_type),
    )


@claim("tabs.closing-one-hides-nobody")
async def closing_one_of_two_tabs_hides_nobody(world: World) -> None:
    """When one of a peer's two tabs closes, nobody hears `offline`, and it is still reached."""
    watcher, one = await world.joined("watcher", "twotabs")
    two = await world.tab(one.id)
    await world.settled()
    await one.close()
    text = await watcher.send("direct", to=one.id)
    await two.arrives(text, "a direct still reaches the peer")
    await world.after_the_end_of(one)
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, "no `offline` while another connection is open", seen)
    newcomer = await world.join("newcomer")
    await newcomer.until(
        lambda m: m.type == "presence" and m.sender == two.id and not m.is_offline,
        "a newcomer finds the peer in the roster",
    )


@claim("tabs.late-death-of-an-old-socket-hides-nobody")
async def the_late_death_of_an_old_socket_hides_nobody(world: World) -> None:
    """A peer that reconnected stays online when its old connection is found dead later."""
    watcher, old = await world.joined("watcher", "reconnected")
    new = await world.tab(old.id)
    await world.settled()
    old.cut()
    await world.after_the_end_of(old)
    text = await watcher.send("direct", to=old.id)
    await new.arrives(text, "a direct still reaches the peer")
    await world.settle()
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, "no `offline` while the new connection is open", seen)


@claim("tabs.the-last-one-says-offline-once")
async def the_last_tab_to_close_says_offline_once(world: World) -> None:
    """When the last of a peer's connections closes, the others hear `offline` exactly once."""
    watcher, one = await world.joined("watcher", "twotabs")
    two = await world.tab(one.id)
    await world.settled()
    await one.close()
    await two.close()
    await world.offline_once(watcher, one.id)


@claim("tabs.the-sender-is-all-its-connections")
async def a_broadcast_does_not_come_back_to_another_tab(world: World) -> None:
    """A broadcast does not come back to another connection of its sender."""
    a, _b = await world.joined("a", "b")
    other_tab = await world.tab(a.id)
    await world.settled()
    await a.send("broadcast", data={"n": 1})
    await world.settle()
    seen = other_tab.traffic()
    expect(not seen, "nothing at the sender's other connection", seen)


@claim("tabs.a-direct-reaches-all-of-them")
async def a_direct_reaches_every_tab_of_its_target(world: World) -> None:
    """A direct reaches every connection of its target."""
    a, b = await world.joined("a", "b")
    other_tab = await world.tab(b.id)
    await world.settled()
    text = await a.send("direct", to=b.id)
    for tab in (b, other_tab):
        await tab.arrives(text, "the direct at every connection of its target")
