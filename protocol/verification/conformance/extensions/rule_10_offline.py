"""Rule 10: offline. More than the base specification asks."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=10, is_base=False)


@claim("leaving.offline-says-why")
async def an_offline_presence_says_why(world: World) -> None:
    """The offline presence has the data `status`, `reason` and an empty list of agents."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    told = await world.offline_once(watcher, a.id)
    wanted = {"status": "offline", "reason": "left", "agents": []}
    if told.data != wanted:
        raise Lacking(str(wanted), shown(told))
