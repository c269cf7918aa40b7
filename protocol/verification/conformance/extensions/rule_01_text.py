"""Rule 1: text passes untouched. More than the base specification asks."""

from typing import Final

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import Lacking, expect
from protocol.verification.conformance.world import World

claim = Claims(rule=1, is_base=False)

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


@claim("text.byte-for-byte")
async def a_valid_message_arrives_byte_for_byte(world: World) -> None:
    """A valid message arrives byte for byte as it was sent: spaces, key order, numbers, escapes."""
    a, b = await world.joined("a", "b")
    changed: list[tuple[str, str]] = []
    for nasty in _NASTY:
        text = nasty.replace("ME", a.id)
        await a.send_text(text)
        message = await b.until(lambda m: m.type != "presence", f"{text!r} arrives")
        if message.text != text:
            expect(message.carries(text), text, message)
            changed.append((text, message.text))
    if changed:
        raise Lacking(changed[0][0], changed[0][1])
