"""Rule 8: liveness."""

import time

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.silence import late, live_on, until_offline
from protocol.verification.conformance.world import World

claim = Claims(rule=8, is_base=True)


@claim("liveness.the-silent-are-reaped-on-time", needs_time=True)
async def a_silent_peer_is_reaped_on_time(world: World) -> None:
    """A peer silent for the time to reap is announced offline: not earlier, and not much later."""
    silent, watcher, _third = await world.joined("silent", "watcher", "third")
    due = world.target.reap_after_s
    silent.is_left_alone = True
    since = silent.spoke_at
    await until_offline(watcher, silent.id, late(world))
    took = time.monotonic() - since
    expect(took >= due - 0.05, f"offline after {due:g} s of silence", f"after {took:.2f} s")


@claim("liveness.heartbeats-keep-a-peer", needs_time=True)
async def heartbeats_keep_a_peer(world: World) -> None:
    """A peer that sends nothing but heartbeats is not reaped."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    await live_on(world, a, lambda: a.send("heartbeat"))
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, f"no `offline` of {a!r}", seen)
