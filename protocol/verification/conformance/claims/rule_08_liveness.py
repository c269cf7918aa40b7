"""Rule 8: liveness."""

import time

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.silence import late, live_on, until_offline
from protocol.verification.conformance.specification import REAPED
from protocol.verification.conformance.world import World

claim = Claims(rule=8)


async def _gets(silent: Peer, text: str) -> bool:
    """Has this text come to a peer that nobody has read from?"""
    try:
        await silent.catch_up()
    except Failed:  # the relay has closed the connection
        return False
    return any(m.carries(text) for m in silent.inbox)


@claim.specification("liveness.the-silent-are-reaped", REAPED, needs_time=True)
async def a_silent_peer_is_reaped(world: World) -> None:
    """A peer silent for the time to reap is no longer here, however that is told."""
    silent, speaker, _third = await world.joined("silent", "speaker", "third")
    silent.is_left_alone = True
    await world.pause(late(world))
    text = await speaker.send("broadcast", data={"n": 1})
    await world.settle()
    seen = [m for m in speaker.taken() if m.is_offline and m.sender == silent.id]
    if not seen and await _gets(silent, text):
        raise Failed(f"nothing after {late(world):.1f} s of silence", "it gets what others say")


@claim.base(
    "liveness.the-silent-are-reaped-on-time",
    needs=["liveness.the-silent-are-reaped", "leaving.offline-is-heard"],
    needs_time=True,
)
async def a_silent_peer_is_reaped_on_time(world: World) -> None:
    """A peer silent for the time to reap is announced offline: not earlier, and not much later."""
    silent, watcher, _third = await world.joined("silent", "watcher", "third")
    due = world.target.reap_after_s
    silent.is_left_alone = True
    since = silent.spoke_at
    await until_offline(watcher, silent.id, late(world))
    took = time.monotonic() - since
    expect(took >= due - 0.05, f"offline after {due:g} s of silence", f"after {took:.2f} s")


@claim.specification("liveness.heartbeats-keep-a-peer", REAPED, needs_time=True)
async def heartbeats_keep_a_peer(world: World) -> None:
    """A peer that sends nothing but heartbeats is not reaped."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    await live_on(world, a, lambda: a.send("heartbeat"))
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, f"no `offline` of {a!r}", seen)


@claim.extension(
    "liveness.a-reaped-socket-is-closed", needs=["liveness.the-silent-are-reaped"], needs_time=True
)
async def the_socket_of_a_reaped_peer_is_closed(world: World) -> None:
    """The socket of a peer that is reaped is closed by the relay, with 1008."""
    (silent,) = await world.joined("silent")
    try:
        code = await silent.closed(late(world), "the relay closes the socket")
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    if code != 1008:
        raise Lacking("closed with 1008", f"closed with {code}")


@claim.extension(
    "liveness.any-message-keeps-a-peer",
    needs=["liveness.heartbeats-keep-a-peer", "routing.stream-reaches-all-others"],
    needs_time=True,
)
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


@claim.extension("liveness.pongs-count-for-those-who-ask", needs_time=True)
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
