"""Rule 13: withheld types."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, shown
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=13)


@claim.extension("withheld.types-with-credentials")
async def types_with_credentials_reach_nobody(world: World) -> None:
    """Types in which existing pages send addresses and tokens reach nobody."""
    a, b = await world.joined("a", "b")
    for type in ("configure", "relay-log", "relay-connected", "relay-config-updated"):
        await a.send(type, data={"url": "wss://example.invalid/?token=secret"})
    await _reaches_nobody(world, b)


@claim.extension("withheld.types-with-tokens")
async def types_with_tokens_reach_nobody(world: World) -> None:
    """Types in which existing pages send GitHub tokens reach nobody."""
    a, b = await world.joined("a", "b")
    for type in ("list_github", "trigger_github", "poll_github_logs"):
        await a.send(type, token="ghp_secret", repos=["a/b"])
    await _reaches_nobody(world, b)


@claim.extension("withheld.types-for-a-pages-own-tabs")
async def types_for_a_pages_own_tabs_reach_nobody(world: World) -> None:
    """What pages tell their own tabs about relays and keys (all types that begin with `relay-`, and
    `credentials_updated`) reaches nobody, before a presence and after it."""
    a, b = await world.joined("a", "b")
    stranger = await world.connect()
    for type in ("relay-auth-required", "relay-capabilities", "relay-", "credentials_updated"):
        await stranger.send(type, data={"reason": "no_token"})
        await a.send(type, data={"reason": "no_token"})
    await _reaches_nobody(world, b)


async def _reaches_nobody(world: World, other: Peer) -> None:
    await world.settle()
    seen = other.traffic()
    if seen:
        raise Lacking("nothing", shown(seen))
