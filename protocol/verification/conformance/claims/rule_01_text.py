"""Rule 1: text passes untouched."""

import json
from typing import Final

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect
from protocol.verification.conformance.world import World

claim = Claims(rule=1)


@claim.base("text.unknown-fields-survive")
async def unknown_fields_survive(world: World) -> None:
    """Fields that the relay does not know reach the receivers with their values."""
    a, b = await world.joined("a", "b")
    text = await a.send(
        "broadcast",
        turnId="t",
        instanceId=a.id,
        data={"deep": [{"x": None}], "text": "é\U0001f600"},
        somethingElse=[1, 2.5, "x"],
    )
    await b.arrives(text, "all fields of the message, with their values")


@claim.base("text.lone-surrogate-escapes-pass", needs=["routing.stream-reaches-all-others"])
async def an_emoji_cut_in_two_passes(world: World) -> None:
    """A stream that cuts an emoji into two escapes arrives: lone surrogates are valid JSON."""
    a, b = await world.joined("a", "b")
    for chunk in ("\\ud83d", "\\ude00"):
        await a.send_text(f'{{"type":"stream","from":"{a.id}","data":{{"chunk":"{chunk}"}}}}')
        await b.until(
            lambda m, chunk=chunk: chunk in m.text.lower(),  # type: ignore[misc]
            f"the chunk {chunk}",
        )


@claim.base("text.a-large-result-passes", needs=["routing.turn-end-reaches-all-others"])
async def a_transcript_of_200_kb_arrives_whole(world: World) -> None:
    """A `turn_end` with a transcript of 200 kB arrives whole."""
    a, b = await world.joined("a", "b")
    text = await a.send("turn_end", turnId="t", data={"result": "x" * 200_000})
    await b.arrives(text, "a message of 200 kB")


@claim.base("text.fragments-are-put-together", needs=["routing.stream-reaches-all-others"])
async def a_message_in_many_fragments_arrives_whole(world: World) -> None:
    """A message sent in many WebSocket fragments, cut anywhere, arrives whole (RFC 6455, 5.4)."""
    a, b = await world.joined("a", "b")
    text = json.dumps(
        {"type": "stream", "from": a.id, "data": {"chunk": "é\U0001f600" * 50}}, ensure_ascii=False
    )
    data = text.encode()
    pieces = [b"", *(data[at : at + 1] for at in range(len(data))), b""]
    await a.send_fragments(pieces)
    await b.arrives(text, "the message, whole")


_NASTY: Final = (
    '{"type":"stream","from":"ME","data":{"chunk":"plain"}}',
    ' { "type" : "stream" , "from" : "ME" }\n',
    '\t{"from":"ME","data":null,"type":"stream"}\r\n',
    '{"type":"stream","from":"ME","n":[1E+5,-0,-0.0,1.50,0.1e-7,1e400,100000000000000000000001]}',
    '{"type":"stream","from":"ME","data":{"chunk":"\\u00e9 \\/ \\b\\f\\n\\r\\t \\" \\\\ \\u0000"}}',
    '{"type":"stream","from":"ME","data":{"chunk":"é \U0001f600 \u2028\u2029\ufeff \ufffd \x7f"}}',
    '{"type":"stream","from":"ME","data":{"chunk":"\\ud83d\\ude00"}}',
    '{"type":"stream","from":"ME","data":{"":{"":[[],{},[[{"a":[null,true,false]}]]]}}}',
    '{"type":"stream","from":"ME","turnId":{"any":["json"]},"unknown":[1,"2",null],"to":null}',
    '{"type":"stream","from":"ME","__proto__":{"x":1},"constructor":"c","toString":0}',
    '{"\\u0074ype":"stream","\\u0066rom":"ME","data":"escaped keys"}',
    '{"type":"stream","from":"ME","data":["two of a kind"],"data":"the last one counts"}',
    '{"type":"stream","from":"ME","timestamp":"not a number","data":12345}',
    '{"type":"stream","from":"ME","data":"]}{[\\"}{"}',
)


@claim.extension("text.byte-for-byte", needs=["routing.stream-reaches-all-others"])
async def a_valid_message_arrives_byte_for_byte(world: World) -> None:
    """A valid message arrives byte for byte as it was sent: spaces, key order, numbers, escapes."""
    a, b = await world.joined("a", "b")
    changed: list[tuple[str, str]] = []
    for nasty in _NASTY:
        text = nasty.replace("ME", a.id)
        await a.send_text(text)
        message = await b.until(
            lambda m: m.type != "presence" and "mark" not in m.data, f"{text!r} arrives"
        )
        if message.text != text:
            expect(message.carries(text), text, message)
            changed.append((text, message.text))
    if changed:
        raise Lacking(changed[0][0], changed[0][1])
