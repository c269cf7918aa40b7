"""No single rule: what slow and busy peers do to others."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect
from protocol.verification.conformance.world import World

claim = Claims(rule=None)


@claim.base(
    "load.a-stalled-reader-blocks-nobody",
    needs=["routing.stream-reaches-all-others", "joining.everybody-sees-the-newcomer"],
)
async def a_stalled_reader_blocks_nobody(world: World) -> None:
    """A peer that stops reading delays nobody: 12 MB reach the others while it sleeps."""
    sender, listener = await world.joined("sender", "listener")
    stalled = await world.connect(is_slow=True)
    stalled.id = world.name("stalled")
    stalled.is_deaf = True
    await stalled.send("presence", data={"agents": []})
    await listener.until(lambda m: m.sender == stalled.id, "the presence of the one that stalls")
    padding = "x" * 50_000
    for n in range(240):
        await sender.send("stream", data={"n": n, "padding": padding})
        seen = await listener.until(
            lambda m: m.type == "stream", f"message {n} of 240 reaches who does read"
        )
        expect(seen.data["n"] == n, f"message {n}", seen.data["n"])
    await world.settle()


@claim.extension("load.a-burst-of-600-passes", needs=["routing.stream-reaches-all-others"])
async def a_burst_of_600_messages_passes(world: World) -> None:
    """600 messages from one peer at once all arrive: real pages send that many."""
    a, b = await world.joined("a", "b")
    for n in range(600):
        await a.send("stream", data={"n": n})
    await world.settle()
    seen = [m.data["n"] for m in b.taken() if "n" in m.data]
    if len(seen) < 600:
        raise Lacking("600 messages", f"{len(seen)} of them")
    expect(seen == list(range(600)), "0 to 599 in order", seen)
