"""Rule 18: echoes."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=18)


@claim.extension(
    "echoes.what-a-page-sends-again-is-dropped", needs=["routing.any-other-type-is-fanned-out"]
)
async def what_a_page_sends_again_is_dropped(world: World) -> None:
    """A `ring-update`, `invoke` or `broadcast` that a page (its presence has `pageId`) sends with
    the `data` that another peer has just sent reaches nobody."""
    page, program, watcher = await world.join("page", pageId="x"), *await world.joined("a", "b")
    for type in ("ring-update", "invoke", "broadcast"):
        text = await program.send(type, data={"said": type})
        await watcher.arrives(text, f"the first {type!r} at everyone")
        await page.send(type, data={"said": type})
    await world.settle()
    seen = watcher.traffic()
    if seen:
        raise Lacking("nothing of what the page sends again", shown(seen))


@claim.extension("echoes.what-is-no-echo-passes", needs=["routing.any-other-type-is-fanned-out"])
async def what_is_no_echo_passes(world: World) -> None:
    """What programs say alike passes, and what a page says with a `turnId`, with other `data`, in
    another type, or again by itself."""
    page, watcher = await world.join("page", pageId="x"), await world.join("watcher")
    first, second = await world.join("first"), await world.join("second")
    await world.settled()
    said = {"data": {"said": world.name("word")}}
    texts = [
        await first.send("broadcast", **said),
        await second.send("broadcast", **said),
        await page.send("broadcast", **said, turnId="its own"),
        await page.send("topic/news", **said),
        await page.send("broadcast", data={"said": world.name("other")}),
        await page.send("broadcast", data={"said": world.name("other")}),
    ]
    await world.settle()
    seen = watcher.traffic()
    for text in texts:
        expect(any(message.carries(text) for message in seen), text, seen)
