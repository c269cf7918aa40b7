"""Rule 3: joining."""

import contextlib

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, expect, shown
from protocol.verification.conformance.specification import PRESENCE
from protocol.verification.conformance.world import World

claim = Claims(rule=3)


@claim.specification("joining.own-presence-comes-back", PRESENCE, settles=False)
async def the_presence_of_a_newcomer_comes_back_to_it(world: World) -> None:
    """A presence reaches its sender, too: it is for all, not for all others."""
    newcomer = await world.connect()
    newcomer.id = world.name("newcomer")
    await newcomer.send("presence", data={"agents": []})
    await newcomer.until(
        lambda m: m.type == "presence" and m.sender == newcomer.id, "its own presence"
    )


@claim.base("joining.own-presence-first", needs=["joining.own-presence-comes-back"], settles=False)
async def a_newcomer_receives_its_own_presence_first(world: World) -> None:
    """The first thing that a newcomer receives is its own presence."""
    for word in ("first", "second"):
        await world.join(word)
    newcomer = await world.connect()
    newcomer.id = world.name("newcomer")
    await newcomer.send("presence", data={"agents": []})
    message = await newcomer.receive("its own presence")
    kept = message.type == "presence" and message.sender == newcomer.id
    expect(kept, "its own presence first", message)


@claim.base("joining.then-the-roster")
async def then_a_newcomer_receives_the_roster(world: World) -> None:
    """Then come the presences of all who are here, each once, before any later traffic."""
    here = [await world.join(f"here{n}", world.name(f"agent{n}")) for n in range(3)]
    newcomer = await world.join("newcomer")
    await here[0].send("broadcast", data={"n": 1})
    await newcomer.until(lambda m: m.data.get("n") == 1, "later traffic")
    presences = [m for m in newcomer.taken() if m.type == "presence"]
    seen = [(m.sender, m.agents) for m in presences if m.sender != newcomer.id]
    wanted = [(peer.id, [world.name(f"agent{n}")]) for n, peer in enumerate(here)]
    expect(sorted(map(str, seen)) == sorted(map(str, wanted)), f"{wanted}, in any order", seen)


@claim.base("joining.the-roster-holds-the-latest-presences", needs=["joining.then-the-roster"])
async def the_roster_holds_the_latest_presences(world: World) -> None:
    """The roster shows what each peer announced last, and nobody who has left."""
    agent = world.name("new")
    watcher, gone = await world.join("watcher"), await world.join("gone")
    here = await world.join("here", world.name("old"))
    await here.announce(agent)
    await gone.close()
    await world.after_the_end_of(gone)
    newcomer = await world.join("newcomer")
    await world.settle()
    others = (newcomer.id, watcher.id)
    seen = [m for m in newcomer.taken() if m.type == "presence" and m.sender not in others]
    kept = [(m.sender, m.agents) for m in seen] == [(here.id, [agent])]
    expect(kept, f"only the latest presence of {here.id}", seen)


@claim.specification("joining.everybody-sees-the-newcomer", PRESENCE, settles=False)
async def everybody_sees_a_newcomer(world: World) -> None:
    """A presence reaches all peers that are here."""
    a, b = await world.join("a"), await world.join("b")
    newcomer = await world.join("newcomer", world.name("agent"))
    for peer in (a, b):
        await peer.until(
            lambda m: m.sender == newcomer.id and m.agents == [world.name("agent")],
            "the presence of the newcomer, with its agents",
        )


@claim.specification(
    "joining.a-repeated-presence-is-seen", PRESENCE, needs=["joining.everybody-sees-the-newcomer"]
)
async def a_repeated_presence_reaches_everybody(world: World) -> None:
    """A repeated presence reaches everybody."""
    a, b = await world.joined("a", "b")
    await a.announce(world.name("new"))
    await b.until(
        lambda m: m.sender == a.id and m.agents == [world.name("new")], "the repeated presence"
    )


@claim.base(
    "joining.a-second-id-leaves-no-ghost",
    uses=["joining.then-the-roster"],
    needs=["leaving.offline-is-heard"],
)
async def a_second_id_leaves_no_ghost(world: World) -> None:
    """A connection that announces a second id leaves no peer behind when it closes."""
    watcher, _third, a = await world.joined("watcher", "third", "a")
    second = world.name("second")
    a.is_left_alone = True
    with contextlib.suppress(Failed):  # that it is closed or refused here is for other claims
        await a.send("presence", sender=second, data={"agents": []})
        await a.send("broadcast", data={"done": 1})
        await a.send("broadcast", sender=second, data={"done": 2})
        await watcher.until(lambda m: "done" in m.data, "what it says next")
    await a.close()
    seen = [
        await watcher.until(lambda m: m.is_offline and m.sender == a.id, f"`offline` of {a.id}")
    ]
    if any(m.sender == second and m.type == "presence" for m in watcher.inbox):
        seen.append(
            await watcher.until(
                lambda m: m.is_offline and m.sender == second, f"`offline` of {second}"
            )
        )
    await world.ends_are_noticed()
    again = [m for m in watcher.taken() if m.is_offline]
    expect(not again, "`offline` exactly once for each id", [*seen, *again])
    if not world.keeps("joining.then-the-roster"):
        return
    newcomer = await world.join("newcomer")
    await world.settle()
    ghosts = [m for m in newcomer.taken() if m.sender in (a.id, second) and not m.is_offline]
    expect(not ghosts, "neither id in the roster of a newcomer", ghosts)


@claim.base("joining.during-a-storm-disconnects-nobody")
async def joining_during_a_storm_disconnects_nobody(world: World) -> None:
    """Peers that join while another broadcasts disturb nobody: all arrives, in order."""
    sender, listener = await world.joined("sender", "listener")
    count = 300

    async def storm() -> None:
        for n in range(count):
            await sender.send("broadcast", data={"n": n})
            if n % 4 == 0:
                await world.pause()

    async def join_one_after_another() -> None:
        for n in range(8):
            await world.join(f"newcomer{n}")

    await world.together(storm(), join_one_after_another())
    seen = [
        (await listener.until(lambda m: "n" in m.data, "all broadcasts arrive")).data["n"]
        for _ in range(count)
    ]
    expect(seen == list(range(count)), f"0 to {count - 1} in order", seen)
    await world.settle()


@claim.extension("joining.the-roster-is-not-repeated", needs=["joining.then-the-roster"])
async def a_repeated_presence_does_not_bring_the_roster(world: World) -> None:
    """A repeated presence does not bring the roster again."""
    a, b = await world.joined("a", "b")
    await a.announce()
    await world.settle()
    seen = [m for m in a.taken() if m.type == "presence" and m.sender == b.id]
    if seen:
        raise Lacking("no presences of others", shown(seen))


@claim.extension(
    "joining.the-last-of-many-announcements-counts", needs=["joining.a-repeated-presence-is-seen"]
)
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


@claim.extension(
    "joining.the-data-of-a-presence-is-an-object", needs=["joining.everybody-sees-the-newcomer"]
)
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


@claim.extension("joining.a-connection-keeps-its-id")
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
