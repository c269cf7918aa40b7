"""Rule 7: bad input, and the errors that answer it. More than the base specification asks."""

from protocol.verification.conformance.bad_input import BAD_INPUT, add_claims
from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=7, is_base=False)
add_claims(claim)


@claim("bad-input.too-large")
async def a_message_beyond_the_bound_reaches_nobody(world: World) -> None:
    """A message beyond the relay's bound reaches nobody, and closes nothing."""
    a, b = await world.joined("a", "b")
    limits = (world.target.capabilities or {}).get("limits")
    bound = limits.get("messageBytes") if isinstance(limits, dict) else None
    if bound is None:
        bound = 2**20
    if bound > 2**25:
        raise NotApplicable(f"this relay takes messages of {bound} bytes")
    text = f'{{"type":"stream","from":"{a.id}","data":""}}'
    await a.send_text(text[:-2] + "x" * (bound - len(text)) + text[-2:])
    try:
        await b.until(lambda m: m.type == "stream", "a message of exactly the bound arrives")
        await a.send_text(text[:-2] + "x" * (bound + 1 - len(text)) + text[-2:])
        await world.settle()
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    if b.traffic():
        raise NotApplicable(f"this relay takes messages of more than {bound} bytes")


@claim("errors.echo-the-turn")
async def an_error_echoes_the_turn(world: World) -> None:
    """An error carries the `turnId` of what it answers, whatever JSON that is."""
    a, _b = await world.joined("a", "b")
    for turn in ("t-1", 7, {"any": ["json"]}):
        await a.send("direct", to=world.name("nobody"), turnId=turn)
        error = await a.until(lambda m: m.type == "error", "an error")
        if "turnId" not in error.fields:
            raise Lacking(f"`turnId` {turn!r}", shown(error))
        expect(error.fields["turnId"] == turn, f"`turnId` {turn!r}", error)


@claim("errors.have-a-shape")
async def an_error_has_the_documented_shape(world: World) -> None:
    """An error is from `relay`, to the sender, with `data.code`, a sentence and a time in ms."""
    a, _b = await world.joined("a", "b")
    await a.send("direct", to=world.name("nobody"))
    error = await a.until(lambda m: m.type == "error", "an error")
    shape = {
        "from": error.sender == "relay",
        "to": error.fields.get("to") == a.id,
        "data.code": error.data.get("code") == "unknown_target",
        "data.error": isinstance(error.data.get("error"), str) and bool(error.data["error"]),
        "timestamp": isinstance(error.fields.get("timestamp"), int),
    }
    wrong = [field for field, is_right in shape.items() if not is_right]
    if wrong:
        raise Lacking("error of documented shape", f"{', '.join(wrong)} differ: {shown(error)}")


@claim("errors.say-what-was-wrong")
async def an_error_says_what_was_wrong(world: World) -> None:
    """Every bad input is answered by one error with the code that the docs list for it."""
    a, b = await world.joined("a", "b")
    for bad in BAD_INPUT:
        await a.send_text(bad.of(a))
        await world.settle()
        codes = [m.data.get("code") for m in a.traffic() if m.type == "error"]
        if not bad.is_certain and b.traffic():
            continue
        if codes != [bad.code]:
            raise Lacking(f"{bad.name}: error `{bad.code}`", shown(codes))
