"""Rule 8: liveness. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.silence import late, live_on
from protocol.verification.conformance.world import World

claim = Claims(rule=8, is_base=False)


@claim("liveness.a-reaped-socket-is-closed", needs_time=True)
async def the_socket_of_a_reaped_peer_is_closed(world: World) -> None:
    """The socket of a peer that is reaped is closed by the relay, with 1008."""
    (silent,) = await world.joined("silent")
    try:
        code = await silent.closed(late(world), "the relay closes the socket")
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    if code != 1008:
        raise Lacking("closed with 1008", f"closed with {code}")


@claim("liveness.any-message-keeps-a-peer", needs_time=True)
async def any_message_keeps_a_peer(world: World) -> None:
    """A peer that sends something else than heartbeats is not reaped either."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    try:
        await live_on(world, a, lambda: a.send("stream"))
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    seen = [m for m in watcher.taken() if m.is_offline]
    if seen:
        raise Lacking(f"no `offline` of {a!r}", shown(seen))


@claim("liveness.pongs-count-for-those-who-ask", needs_time=True)
async def pongs_keep_a_peer_that_asked_for_it(world: World) -> None:
    """A peer with `data.keepalive: "pong"` lives on while it answers the relay's pings."""
    asked = (world.target.capabilities or {}).get("keepalive")
    if not isinstance(asked, list) or "pong" not in asked:
        raise NotApplicable("this relay does not offer it in its `capabilities`")
    if world.target.reap_after_s < 25.0:
        raise NotApplicable("needs a time to reap well above the interval of the relay's pings")
    watcher, _third = await world.joined("watcher", "third")
    hidden = await world.join("hidden-page", keepalive="pong")
    hidden.is_left_alone = True
    await world.pause(world.target.reap_after_s * 1.2)
    await world.settle()
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, f"no `offline` of {hidden!r}", seen)
