"""Rule 7: bad input, and the errors that answer it."""

import json
import random

from protocol.verification.conformance.bad_input import add_claims
from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.world import World

claim = Claims(rule=7, is_base=True)
add_claims(claim)


@claim("bad-input.invalid-utf8-is-closed-with-1007")
async def invalid_utf8_is_closed_with_1007(world: World) -> None:
    """Invalid UTF-8 in a text frame reaches nobody and is closed with 1007 (RFC 6455, 8.1)."""
    a, b, _c = await world.joined("a", "b", "c")
    await a.send_text(b'{"type":"stream","data":"\xff"}', as_text=True)
    code = await a.closed(world.target.patience_s, "the connection is closed with 1007")
    expect(code == 1007, "closed with 1007", f"closed with {code}")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "it reaches nobody", seen)


@claim("bad-input.rubbish")
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


@claim("errors.go-to-the-offender-only")
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
