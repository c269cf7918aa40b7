"""Rule 11: order."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=11)


@claim.base(
    "order.one-sender-across-types",
    needs=[
        "direct.to-a-peer",
        "routing.stream-reaches-all-others",
        "routing.ack-reaches-all-others",
        "routing.turn-end-reaches-all-others",
        "routing.error-reaches-all-others",
    ],
)
async def one_sender_is_heard_in_its_order_across_types(world: World) -> None:
    """What one peer sends reaches another in sending order, directs among broadcasts."""
    a, b = await world.joined("a", "b")
    types = ("direct", "broadcast", "direct", "stream", "ack", "direct", "turn_end", "error")
    count = 160
    for n in range(count):
        await a.send(types[n % len(types)], to=b.id, data={"n": n})
    seen = [
        (await b.until(lambda m: "n" in m.data, f"all {count} messages arrive")).data["n"]
        for _ in range(count)
    ]
    expect(seen == list(range(count)), f"0 to {count - 1} in order", seen)


@claim.base("order.one-interleaving-for-all", needs=["routing.stream-reaches-all-others"])
async def all_receivers_hear_one_interleaving(world: World) -> None:
    """All receivers see the messages of several senders in one same interleaving."""
    senders = [await world.join(f"sender{n}") for n in range(3)]
    listeners = [await world.join(f"listener{n}") for n in range(3)]
    await world.settled()
    count = 50

    async def talk(sender: Peer) -> None:
        for n in range(count):
            await sender.send(("stream", "broadcast")[n % 2], data={"n": n})
            if n % 5 == 0:
                await world.pause()

    await world.together(*map(talk, senders))
    seen = []
    for listener in listeners:
        expected = f"all {3 * count} messages arrive"
        messages = [
            await listener.until(lambda m: "n" in m.data, expected) for _ in range(3 * count)
        ]
        seen.append([(str(m.sender), m.data["n"]) for m in messages])
    for sender in senders:
        own = [n for id, n in seen[0] if id == sender.id]
        expect(own == list(range(count)), f"the messages of {sender!r} in order", own)
    for other in seen[1:]:
        differs = [(a, b) for a, b in zip(seen[0], other, strict=True) if a != b]
        expect(not differs, "the same order at every receiver", differs[:3])
