"""Rule 2: several connections, one peer, and who is an audience."""

from protocol.verification.conformance.claim import Check, Claims
from protocol.verification.conformance.outcomes import Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.specification import BROADCAST, OTHERS
from protocol.verification.conformance.world import World

claim = Claims(rule=2)


def _reaches_all_others(type: str) -> Check:
    async def check(world: World) -> None:
        a, b, c = [await world.join(word) for word in "abc"]
        text = await a.send(type, data={"n": 1})
        for peer in (b, c):
            await peer.arrives(text, f"a `{type}` reaches every other peer")
        await world.settle()
        for peer in (b, c):
            seen = peer.traffic()
            expect(not seen, f"a `{type}` arrives once", seen)

    return check


def _does_not_come_back(type: str) -> Check:
    async def check(world: World) -> None:
        a, _b = await world.joined("a", "b")
        await a.send(type, data={"n": 1})
        await world.settle()
        seen = a.traffic()
        expect(not seen, f"a `{type}` does not come back to its sender", seen)

    return check


for _type in ("broadcast", "stream", "ack", "turn_end", "error"):
    _name = f"routing.{_type.replace('_', '-')}"
    _sentence = BROADCAST if _type == "broadcast" else OTHERS
    claim.add(
        f"{_name}-reaches-all-others",
        "specification",
        f"Type `{_type}` reaches all other peers, once.",
        _reaches_all_others(_type),
        _sentence,
    )
    claim.add(
        f"{_name}-does-not-come-back",
        "specification",
        f"Type `{_type}` does not come back to its sender.",
        _does_not_come_back(_type),
        _sentence,
        needs=[f"{_name}-reaches-all-others"],
    )


@claim.base("tabs.a-broadcast-reaches-all-of-them")
async def a_broadcast_reaches_every_tab(world: World) -> None:
    """What is for all others reaches every connection of a peer."""
    a, b = await world.join("a"), await world.join("b")
    other_tab = await world.tab(b.id)
    text = await a.send("broadcast", data={"n": 1})
    for tab in (b, other_tab):
        await tab.arrives(text, "the broadcast at every connection of a peer")


@claim.base(
    "tabs.closing-one-hides-nobody",
    uses=["joining.then-the-roster"],
    needs=["tabs.a-broadcast-reaches-all-of-them", "direct.to-a-peer"],
)
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
    if world.keeps("joining.then-the-roster"):
        newcomer = await world.join("newcomer")
        await newcomer.sees(
            lambda m: m.type == "presence" and m.sender == two.id and not m.is_offline,
            "a newcomer finds the peer in the roster",
        )


@claim.base(
    "tabs.late-death-of-an-old-socket-hides-nobody",
    needs=["tabs.a-broadcast-reaches-all-of-them", "direct.to-a-peer"],
)
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


@claim.base(
    "tabs.the-last-one-says-offline-once",
    needs=["tabs.a-broadcast-reaches-all-of-them", "leaving.offline-is-heard"],
)
async def the_last_tab_to_close_says_offline_once(world: World) -> None:
    """When the last of a peer's connections closes, the others hear `offline` exactly once."""
    watcher, one = await world.joined("watcher", "twotabs")
    two = await world.tab(one.id)
    await world.settled()
    await one.close()
    await two.close()
    await world.offline_once(watcher, one.id)


@claim.base(
    "tabs.the-sender-is-all-its-connections",
    needs=["tabs.a-broadcast-reaches-all-of-them", "routing.broadcast-does-not-come-back"],
)
async def a_broadcast_does_not_come_back_to_another_tab(world: World) -> None:
    """A broadcast does not come back to another connection of its sender."""
    a, _b = await world.joined("a", "b")
    other_tab = await world.tab(a.id)
    await world.settled()
    await a.send("broadcast", data={"n": 1})
    await world.settle()
    seen = other_tab.traffic()
    expect(not seen, "nothing at the sender's other connection", seen)


@claim.base(
    "tabs.a-direct-reaches-all-of-them",
    needs=["tabs.a-broadcast-reaches-all-of-them", "direct.to-a-peer"],
)
async def a_direct_reaches_every_tab_of_its_target(world: World) -> None:
    """A direct reaches every connection of its target."""
    a, b = await world.joined("a", "b")
    other_tab = await world.tab(b.id)
    await world.settled()
    text = await a.send("direct", to=b.id)
    for tab in (b, other_tab):
        await tab.arrives(text, "the direct at every connection of its target")


@claim.extension(
    "routing.any-other-type-is-fanned-out", uses=["routing.broadcast-does-not-come-back"]
)
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
    is_echo = seen and world.keeps("routing.broadcast-does-not-come-back")
    expect(not is_echo, "it does not come back to its sender", seen)


@claim.extension(
    "tabs.agents-are-the-union",
    needs=["tabs.a-broadcast-reaches-all-of-them", "joining.everybody-sees-the-newcomer"],
)
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
