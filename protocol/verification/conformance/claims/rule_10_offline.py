"""Rule 10: offline."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.silence import late, until_offline
from protocol.verification.conformance.specification import STATELESS
from protocol.verification.conformance.world import World

claim = Claims(rule=10)


@claim.base(
    "liveness.a-reap-is-announced-once",
    needs=["liveness.the-silent-are-reaped-on-time"],
    needs_time=True,
)
async def a_reap_is_announced_once(world: World) -> None:
    """Of a peer that is reaped, the others hear `offline` exactly once."""
    silent, watcher, third = await world.joined("silent", "watcher", "third")
    silent.is_left_alone = True
    told = await until_offline(watcher, silent.id, late(world))
    await silent.close()
    await world.ends_are_noticed(pause_s=min(0.5, world.target.reap_after_s / 8))
    again = [m for m in watcher.taken() if m.is_offline and m.sender == silent.id]
    expect(not again, "`offline` once", [told, *again])
    seen = [m for m in third.taken() if m.is_offline and m.sender == silent.id]
    expect(len(seen) == 1, "`offline` once", seen)


@claim.base("leaving.offline-is-heard")
async def the_others_hear_that_a_peer_has_left(world: World) -> None:
    """When a peer closes its connection, the others hear a presence with the status `offline`."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    await watcher.until(
        lambda m: m.is_offline and m.sender == a.id, f"a presence of {a.id} with status `offline`"
    )


@claim.base("leaving.offline-exactly-once", needs=["leaving.offline-is-heard"])
async def a_peer_that_closes_is_offline_exactly_once(world: World) -> None:
    """When a peer closes its connection, the others hear `offline` exactly once."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    await world.offline_once(watcher, a.id)


@claim.base("leaving.a-lost-connection-is-offline-once", needs=["leaving.offline-is-heard"])
async def a_peer_that_is_lost_is_offline_exactly_once(world: World) -> None:
    """When a connection is lost without a closing handshake, the others hear `offline` once."""
    watcher, a = await world.joined("watcher", "a")
    a.cut()
    await world.offline_once(watcher, a.id)


@claim.base("leaving.offline-carries-no-agents", needs=["leaving.offline-is-heard"])
async def an_offline_presence_carries_no_agents(world: World) -> None:
    """The offline presence carries no agents: clients file it like a live one."""
    (watcher,) = await world.joined("watcher")
    a = await world.join("a", world.name("agent"))
    await a.close()
    told = await world.offline_once(watcher, a.id)
    expect(not told.data.get("agents"), "`data.agents` is empty", told)


@claim.specification(
    "leaving.a-peer-may-return",
    STATELESS,
    needs=["joining.everybody-sees-the-newcomer", "direct.to-a-peer"],
)
async def a_peer_may_return(world: World) -> None:
    """A peer that left and comes back is online again, reached and seen."""
    watcher, _other, a = await world.joined("watcher", "other", "a")
    await a.close()
    await world.after_the_end_of(a)
    watcher.inbox.clear()
    back = await world.tab(a.id)
    await watcher.until(
        lambda m: m.type == "presence" and m.sender == a.id and not m.is_offline, "its presence"
    )
    text = await watcher.send("direct", to=a.id)
    await back.arrives(text, "a direct to who has come back")


@claim.extension("leaving.offline-says-why", needs=["leaving.offline-is-heard"])
async def an_offline_presence_says_why(world: World) -> None:
    """The offline presence has the data `status`, `reason` and an empty list of agents."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    told = await world.offline_once(watcher, a.id)
    wanted = {"status": "offline", "reason": "left", "agents": []}
    if told.data != wanted:
        raise Lacking(str(wanted), shown(told))
