"""Rule 20: falling behind."""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=20)


LAG_S = 2
"""What is said at once would take the pace so long (seconds) and more."""


@claim.extension("lagging.what-one-has-asked-comes", needs_time=True)
async def what_one_has_asked_comes(world: World) -> None:
    """Where an edge limits frames, a connection without arrays that is far behind is told `lagging`
    and does not get all answers to others. Answers to itself, and all that is no answer, come."""
    limits = (world.target.capabilities or {}).get("limits")
    per_s = limits.get("framesPerSecond") if isinstance(limits, dict) else None
    if not isinstance(per_s, int | float):
        raise NotApplicable("there is no edge in front of this relay")
    reader, agent = await world.joined("reader", "agent")
    own, anothers = world.name("own"), world.name("another's")
    await reader.send("broadcast", turnId=own, data={"command": "go"})
    await agent.until(lambda m: m.fields.get("turnId") == own, "the command")
    count = round(per_s * LAG_S)
    for number in range(count):
        await agent.send("stream", turnId=anothers, data={"n": number})
    wanted = [
        await agent.send("topic/news", turnId=anothers, data={"n": "news"}),
        await agent.send("stream", turnId=anothers, to=reader.id, data={"n": "named"}),
        await agent.send("stream", turnId=own, data={"n": "own"}),
    ]
    for text in wanted:
        await reader.arrives(text, "whatever is no answer to others")
    seen = reader.traffic()
    numbers = [m.data["n"] for m in seen if m.fields.get("turnId") == anothers]
    if len(numbers) == count:
        raise Lacking("fewer answers to others than there were", shown(len(numbers)))
    expect(numbers == list(range(len(numbers))), "the first answers to others, in order", numbers)
    errors = [m for m in seen if m.type == "error"]
    codes = [m.data.get("code") for m in errors]
    expect(codes == ["lagging"], "one error `lagging`", errors)
    expect("turnId" not in errors[0].fields, "an error without a `turnId`", errors)
