"""No single rule: what slow and busy peers do to others."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=None, is_base=True)


@claim("load.a-stalled-reader-blocks-nobody")
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
