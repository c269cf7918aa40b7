"""Rule 7: bad input, and the errors that answer it."""

import json
import random

from protocol.verification.conformance.bad_input import BAD_INPUT, add_claims
from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable, expect, shown
from protocol.verification.conformance.world import World

claim = Claims(rule=7)


add_claims(claim)


@claim.base("bad-input.invalid-utf8-is-closed-with-1007", is_rough=True)
async def invalid_utf8_is_closed_with_1007(world: World) -> None:
    """Invalid UTF-8 in a text frame reaches nobody and is closed with 1007 (RFC 6455, 8.1)."""
    a, b, _c = await world.joined("a", "b", "c")
    await a.send_text(b'{"type":"stream","data":"\xff"}', as_text=True)
    code = await a.closed(world.target.patience_s, "the connection is closed with 1007")
    expect(code == 1007, "closed with 1007", f"closed with {code}")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "it reaches nobody", seen)


@claim.base("bad-input.rubbish", needs=["bad-input.half-an-object"], is_rough=True)
async def rubbish_closes_nothing_and_only_json_reaches_others(world: World) -> None:
    """Whatever rubbish a peer sends, its socket stays open; only valid JSON reaches others."""
    a, b = await world.joined("a", "b")
    chance = random.Random(7)
    whole = f'{{"type":"stream","from":"{a.id}","data":{{"chunk":"x","n":[1.5e3,null]}}}}'
    for _ in range(200):
        letters = list(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(letters))
            match chance.randrange(3):
                case 0:
                    del letters[at]
                case 1:
                    letters.insert(at, chance.choice('{}[]",:\\\0eE-+.0 é\U0001f600'))
                case _:
                    letters[at] = chance.choice('{}[]",:\\\0eE-+.0 é\U0001f600')
        await a.send_text("".join(letters))
    await world.settle()
    bad = [m for m in b.taken() if not isinstance(m.type, str) or not _is_strict_json(m.text)]
    expect(not bad, "only valid JSON objects with a type", bad)


@claim.base(
    "errors.go-to-the-offender-only",
    needs=["direct.to-nobody-is-an-error", "tabs.a-broadcast-reaches-all-of-them"],
)
async def an_error_reaches_nobody_but_the_offender(world: World) -> None:
    """The relay's error about a message reaches nobody but its sender."""
    a, b = await world.joined("a", "b")
    other_tab = await world.tab(a.id)
    await world.settled()
    await a.send("direct", to=world.name("nobody"))
    await world.settle()
    for peer in (b, other_tab):
        seen = peer.traffic()
        expect(not seen, f"nothing at {peer!r}", seen)


def _is_strict_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


@claim.extension("bad-input.too-large", needs=["routing.stream-reaches-all-others"], is_rough=True)
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


@claim.extension("errors.echo-the-turn", needs=["direct.to-nobody-is-an-error"])
async def an_error_echoes_the_turn(world: World) -> None:
    """An error carries the `turnId` of what it answers, whatever JSON that is."""
    a, _b = await world.joined("a", "b")
    for turn in ("t-1", 7, {"any": ["json"]}):
        await a.send("direct", to=world.name("nobody"), turnId=turn)
        error = await a.until(lambda m: m.type == "error", "an error")
        if "turnId" not in error.fields:
            raise Lacking(f"`turnId` {turn!r}", shown(error))
        expect(error.fields["turnId"] == turn, f"`turnId` {turn!r}", error)


@claim.extension("errors.have-a-shape", needs=["direct.to-nobody-is-an-error"])
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


@claim.extension(
    "errors.say-what-was-wrong",
    needs=["direct.to-nobody-is-an-error", "bad-input.half-an-object"],
    is_rough=True,
)
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
