"""Rule 1: text passes untouched."""

import json

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.world import World

claim = Claims(rule=1, is_base=True)


@claim("text.unknown-fields-survive")
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


@claim("text.lone-surrogate-escapes-pass")
async def an_emoji_cut_in_two_passes(world: World) -> None:
    """A stream that cuts an emoji into two escapes arrives: lone surrogates are valid JSON."""
    a, b = await world.joined("a", "b")
    for chunk in ("\\ud83d", "\\ude00"):
        await a.send_text(f'{{"type":"stream","from":"{a.id}","data":{{"chunk":"{chunk}"}}}}')
        await b.until(
            lambda m, chunk=chunk: chunk in m.text.lower(),  # type: ignore[misc]
            f"the chunk {chunk}",
        )


@claim("text.a-large-result-passes")
async def a_transcript_of_200_kb_arrives_whole(world: World) -> None:
    """A `turn_end` with a transcript of 200 kB arrives whole."""
    a, b = await world.joined("a", "b")
    text = await a.send("turn_end", turnId="t", data={"result": "x" * 200_000})
    await b.arrives(text, "a message of 200 kB")


@claim("text.fragments-are-put-together")
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
