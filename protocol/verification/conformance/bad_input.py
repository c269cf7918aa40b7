"""Input that a relay must refuse: the table, and how one of them is tried."""

import json
from collections.abc import Iterable
from typing import Final

import attrs

from protocol.verification.conformance.claim import Check, Claims, Level
from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import Failed, Lacking, NotApplicable, expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World


@attrs.frozen
class BadInput:
    """A text (bytes: a binary frame) that reaches nobody; ME in it stands for its sender's id.

    `code` is the code of the error that answers it. `is_certain`: every relay must refuse it; else
    only those with such a bound.
    """

    name: str
    text: str | bytes
    code: str
    is_certain: bool = True

    def of(self, peer: Peer) -> str | bytes:
        """The text, as this peer's."""
        if isinstance(self.text, bytes):
            return self.text.replace(b"ME", peer.id.encode())
        return self.text.replace("ME", peer.id)


BAD_INPUT: Final = (
    BadInput("empty", "", "malformed"),
    BadInput("half-an-object", '{"type":"stream",', "malformed"),
    BadInput("not-json", "hello", "malformed"),
    BadInput("trailing-comma", '{"type":"stream","from":"ME",}', "malformed"),
    BadInput("nan", '{"type":"stream","from":"ME","data":NaN}', "malformed"),
    BadInput("infinity", '{"type":"stream","from":"ME","data":[-Infinity]}', "malformed"),
    BadInput("control-character", '{"type":"stream","from":"ME","data":"\n"}', "malformed"),
    BadInput("array", "[]", "not_an_object"),
    BadInput("null", "null", "not_an_object"),
    BadInput("number", "17", "not_an_object"),
    BadInput("string", '"hello"', "not_an_object"),
    BadInput("no-type", '{"from":"ME"}', "bad_field"),
    BadInput("number-as-type", '{"type":1,"from":"ME"}', "bad_field"),
    BadInput("list-as-from", '{"type":"stream","from":["ME"]}', "bad_field"),
    BadInput("object-as-to", '{"type":"direct","from":"ME","to":{}}', "bad_field"),
    BadInput("presence-without-from", '{"type":"presence","data":{"agents":[]}}', "bad_field"),
    BadInput(
        "presence-with-text-as-agents",
        '{"type":"presence","from":"ME","data":{"agents":"x"}}',
        "bad_field",
    ),
    BadInput(
        "presence-with-a-list-as-data", '{"type":"presence","from":"ME","data":[]}', "bad_field"
    ),
    BadInput("binary", b'{"type":"stream","from":"ME"}', "binary"),
    BadInput("binary-rubbish", b"\x00\xff\xfe", "binary"),
    BadInput(
        "ten-thousand-deep",
        '{"type":"stream","from":"ME","data":' + "[" * 10_000 + "]" * 10_000 + "}",
        "malformed",
        False,
    ),
    BadInput(
        "five-thousand-digits",
        '{"type":"stream","from":"ME","data":' + "1" * 5000 + "}",
        "malformed",
        False,
    ),
    BadInput("long-type", '{"type":"' + "x" * 2000 + '","from":"ME"}', "too_long", False),
    BadInput("long-from", '{"type":"stream","from":"ME' + "x" * 2000 + '"}', "too_long", False),
    BadInput(
        "a-thousand-agents",
        json.dumps(
            {
                "type": "presence",
                "from": "ME",
                "data": {"agents": list(map(str, range(1000)))},
            }
        ),
        "too_many_agents",
        False,
    ),
)


def add_claims(claim: Claims) -> None:
    """One claim for each bad input: of the base if every relay must refuse it."""
    for bad in BAD_INPUT:
        what = bad.name.replace("-", " ")
        promise = f"Bad input ({what}) reaches nobody and closes nothing."
        level: Level = "base" if bad.is_certain else "extension"
        name = f"bad-input.{bad.name}"
        claim.add(name, level, promise, _reaches_nobody(bad), is_rough=True)


def _reaches_nobody(bad: BadInput) -> Check:
    async def check(world: World) -> None:
        a, b = await world.joined("a", "b")
        await a.send_text(bad.of(a))
        if bad.is_certain:
            await world.settle()
        else:
            try:
                await world.settle()
            except Failed as failed:
                raise Lacking(failed.expected, failed.seen) from None
        seen = _nothing_new(b.taken())
        if seen and not bad.is_certain:
            raise NotApplicable("this relay sets no such bound, or a higher one")
        expect(not seen, "it reaches nobody", seen)
        text = await a.send("broadcast", data={"n": 1})
        await b.arrives(text, "what its sender says next arrives")

    return check


def _nothing_new(messages: Iterable[Message]) -> list[Message]:
    """What is left without repeats of the presences of peers that have no agents."""
    return [
        m
        for m in messages
        if not (m.type == "presence" and not m.is_offline and m.data.get("agents") == [])
    ]
