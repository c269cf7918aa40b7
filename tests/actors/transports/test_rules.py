"""The rules of docs/protocol.md, over every transport: in memory, fast, and plain ASGI.

(tests/protocol/mesh/test_mesh.py checks the same rules exhaustively on the protocol alone.)
"""

import json
from typing import Any

import anyio
import pytest

from tests.worlds.live import Relay

pytestmark = pytest.mark.anyio


async def test_1_text_passes_byte_for_byte(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    text = (
        ' { "type" : "stream", "from":"a" ,"n":[1E+5,-0,1.50,0.1e-7], "turnId":"t", "x":null,'
        '"data":{"chunk":"\\ud83d \\u00e9 é \U0001f600 \\/","deep":[[{"k":[]}]]},"timestamp":1.0}\n'
    )
    await a.send_text(text)
    assert await b.everything() == [text]


@pytest.mark.parametrize("type", ["broadcast", "stream", "ack", "turn_end", "error", "my-own-type"])
async def test_2_fanned_out_types_reach_all_peers_but_not_the_sender(
    relay: Relay, type: str
) -> None:
    a = await (await relay.connect()).announce("a")
    a2 = await (await relay.connect()).announce("a")
    b, c = await (await relay.connect()).announce("b"), await (await relay.connect()).announce("c")
    for peer in (a, a2, b, c):
        await peer.everything()
    text = await a.send(type, sender="a", data={"n": 1})
    assert await b.everything() == [text]
    assert await c.everything() == [text]
    assert await a.everything() == []
    assert await a2.everything() == []


async def test_2_closing_one_of_two_tabs_hides_nobody_and_the_last_says_offline_once(
    relay: Relay,
) -> None:
    b = await (await relay.connect()).announce("b")
    one = await (await relay.connect()).announce("a", "x")
    two = await (await relay.connect()).announce("a", "y")
    seen = await b.messages()
    assert [m["data"]["agents"] for m in seen] == [["x"], ["x", "y"]]
    await one.close()
    shrunk = await b.until("presence")
    assert shrunk["data"]["agents"] == ["y"]
    assert "status" not in shrunk["data"]
    text = await b.send("direct", to="a")
    assert json.loads(text).items() <= (await two.until("direct")).items()
    await two.close()
    gone = await b.until("presence")
    assert gone["data"] == {"status": "offline", "reason": "left", "agents": []}
    assert await b.messages() == []


async def test_3_a_newcomer_gets_its_own_presence_then_the_roster_then_the_rest(
    relay: Relay,
) -> None:
    first = await (await relay.connect()).announce("first", "f1")
    second = await (await relay.connect()).announce("second", "s1")
    newcomer = await relay.connect()
    await newcomer.send("presence", sender="newcomer", data={"agents": []})
    own = await newcomer.receive()
    roster = [await newcomer.receive(), await newcomer.receive()]
    await first.send("broadcast", sender="first")
    after = await newcomer.receive()
    assert own["from"] == "newcomer"
    assert [m["from"] for m in roster] == ["first", "second"]
    assert after["type"] == "broadcast"
    assert (await second.until("broadcast"))["from"] == "first"


async def test_3_a_repeated_presence_is_fanned_out_and_does_not_repeat_the_roster(
    relay: Relay,
) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.everything()
    await a.send("presence", sender="a", data={"agents": ["new"]})
    assert [m["from"] for m in await a.messages()] == ["a"]
    assert [m["data"]["agents"] for m in await b.messages()] == [["new"]]


async def test_4_an_agent_id_in_from_passes_and_the_origin_is_added(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.send("ack", sender="some-agent", turnId="t")
    await a.send("ack", sender="some-agent", instanceId="a")
    await a.send("ack")
    one, two, three = await b.messages()
    assert (one["from"], one["instanceId"]) == ("some-agent", "a")
    assert (two["from"], two["instanceId"]) == ("some-agent", "a")
    assert three["from"] == "a"


@pytest.mark.parametrize("forged", [{"from": "b"}, {"from": "relay"}, {"instanceId": "b"}])
async def test_4_a_forged_origin_is_refused_and_reaches_nobody(
    relay: Relay, forged: dict[str, str]
) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.send("broadcast", **forged, turnId="t")
    error = await a.until("error")
    assert (error["data"]["code"], error["turnId"], error["from"]) == ("spoofed", "t", "relay")
    assert await b.messages() == []


async def test_5_a_direct_finds_peer_instance_and_agent(relay: Relay) -> None:
    a = await (await relay.connect()).announce("a", "mine")
    b = await (await relay.connect()).announce("b", "theirs", "mine")
    c = await (await relay.connect()).announce("c")
    await a.everything()
    await b.everything()
    for fields in (
        {"to": "b"},
        {"to": "theirs"},
        {"to": "whatever", "targetInstanceId": "b"},
    ):
        await a.send("direct", sender="a", **fields)
        assert (await b.receive())["to"] == fields["to"]
    await a.send("direct", sender="a", to="mine")  # its own agent: the tabs have it already
    assert await a.messages() == []
    assert await b.messages() == []
    assert await c.messages() == []


async def test_5_unknown_and_ambiguous_targets_are_errors_that_echo_the_turn(relay: Relay) -> None:
    a = await (await relay.connect()).announce("a")
    await (await relay.connect()).announce("b", "twin")
    await (await relay.connect()).announce("c", {"agentId": "twin"})
    await a.everything()
    await a.send("direct", to="nobody", turnId={"any": ["json"]})
    await a.send("direct", to="twin", turnId=7)
    unknown, ambiguous = await a.messages()
    assert unknown["data"]["code"] == "unknown_target"
    assert unknown["turnId"] == {"any": ["json"]}
    assert ambiguous["data"]["code"] == "ambiguous_target"
    assert ambiguous["data"]["peers"] == ["b", "c"]
    assert ambiguous["turnId"] == 7


async def test_6_before_presence_nothing_is_routed_but_capabilities_are_answered(
    relay: Relay,
) -> None:
    b = await (await relay.connect()).announce("b")
    a = await relay.connect()
    await a.send("broadcast", sender="a")
    assert (await a.receive())["data"]["code"] == "not_present"
    await a.send("capabilities", turnId="c")
    answer = await a.receive()
    assert (answer["type"], answer["turnId"]) == ("capabilities_response", "c")
    await a.announce("a")
    assert [m["type"] for m in await b.messages()] == ["presence"]


async def test_8_silence_makes_stale_then_reaped_and_any_frame_is_a_sign_of_life(
    relay: Relay,
) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    for _ in range(3):
        relay.clock.shift_s += 14.0
        await b.send("some-type")
        await a.until("some-type")
        await a.everything()
    relay.clock.shift_s += 29.0
    await a.send("heartbeat")
    await a.send("capabilities")
    await a.until("capabilities_response")
    relay.clock.shift_s += 1.5
    assert await b.closed() == 1008
    gone = await a.until("presence")
    assert gone["from"] == "b"
    assert gone["data"] == {"status": "offline", "reason": "silent", "agents": []}
    assert await a.everything() == []


async def test_8_a_connection_that_never_announces_is_closed(relay: Relay) -> None:
    a = await relay.connect()
    await a.everything()
    relay.clock.shift_s += 30.0
    assert await a.closed() == 1008


async def test_9_heartbeats_are_not_forwarded_but_refresh_the_presence(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await b.send("heartbeat")
    await b.everything()
    assert await a.messages() == [{"type": "presence", "from": "b", "data": {"agents": []}}]
    await b.send("heartbeat", sender="b", data={"agents": ["new"]})
    await b.everything()
    assert [m["data"]["agents"] for m in await a.messages()] == [["new"]]
    for _ in range(4):
        relay.clock.shift_s += 10.5
        await b.send("heartbeat", sender="b", data={"agents": ["new"]})
        await b.everything()
        await a.send("heartbeat")
    assert [m["type"] for m in await a.messages()] == ["presence", "presence"]


async def test_11_everybody_sees_one_same_interleaving(relay: Relay) -> None:
    peers = [await (await relay.connect()).announce(f"p{n}") for n in range(4)]
    listeners = [await (await relay.connect()).announce(f"l{n}") for n in range(2)]
    for peer in (*peers, *listeners):
        await peer.everything()
    for n in range(50):
        for peer in peers:
            type = ("stream", "broadcast", "turn_end")[n % 3]
            await peer.send(type, sender=peer.id, n=n)
    for peer in peers:
        await peer.everything()
    one, other = [await listener.messages() for listener in listeners]
    assert one == other
    for peer in peers:
        assert [m["n"] for m in one if m["from"] == peer.id] == list(range(50))


async def test_11_a_direct_keeps_its_place_among_broadcasts(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    for n in range(100):
        await a.send("direct" if n % 3 else "broadcast", sender="a", to="b", n=n)
    await a.everything()
    assert [m["n"] for m in await b.messages()] == list(range(100))


async def test_12_meshes_never_see_one_another(relay: Relay) -> None:
    a = await (await relay.connect("one")).announce("a")
    b = await (await relay.connect("two")).announce("b")
    await a.send("broadcast", sender="a")
    await b.send("direct", to="a")
    assert (await b.receive())["data"]["code"] == "unknown_target"
    assert await a.messages() == []


async def test_13_types_that_carry_credentials_are_withheld(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.everything()
    for type in ("configure", "relay-log", "relay-auth-required", "list_github"):
        await a.send(type, sender="a", data={"url": "secret"})
    assert await a.messages() == []
    assert await b.messages() == []


async def test_15_an_array_is_its_messages_one_after_the_other(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.everything()
    await b.everything()
    texts = [f'{{"type": "stream", "from": "a",  "n": {n}}}' for n in range(3)]
    await a.send_text(f"[ {texts[0]},\n{texts[1]} ,5, {texts[2]}]")
    assert await b.everything() == texts
    assert [m["data"]["code"] for m in await a.messages()] == ["not_an_object"]


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "malformed"),
    "not JSON": ("{", "malformed"),
    "NaN": ('{"type":"stream","data":NaN}', "malformed"),
    "Infinity": ('{"type":"stream","data":[-Infinity]}', "malformed"),
    "5000 digits": ('{"type":"stream","data":' + "1" * 5000 + "}", "malformed"),
    "10 000 deep": ('{"type":"stream","data":' + "[" * 10_000 + "]" * 10_000 + "}", "malformed"),
    "array": ("[]", "not_an_object"),
    "null": ("null", "not_an_object"),
    "number": ("1", "not_an_object"),
    "string": ('"x"', "not_an_object"),
    "no type": ("{}", "bad_field"),
    "number as type": ('{"type":1}', "bad_field"),
    "list as from": ('{"type":"stream","from":[]}', "bad_field"),
    "presence without from": ('{"type":"presence","data":{}}', "bad_field"),
    "presence with agents as text": (
        '{"type":"presence","from":"a","data":{"agents":"x"}}',
        "bad_field",
    ),
    "presence with a list as data": ('{"type":"presence","from":"a","data":[]}', "bad_field"),
    "other id": ('{"type":"presence","from":"other"}', "identity_fixed"),
    "long id": ('{"type":"stream","from":"' + "x" * 300 + '"}', "too_long"),
    "too many agents": (
        json.dumps(
            {"type": "presence", "from": "a", "data": {"agents": [f"{n}" for n in range(300)]}}
        ),
        "too_many_agents",
    ),
    "too large": ('{"type":"stream","data":"' + "x" * 2**20 + '"}', "too_large"),
    "far too large": ('{"type":"stream","data":"' + "x" * 5 * 2**20 + '"}', "too_large"),
}


@pytest.mark.parametrize("case", BAD)
async def test_7_bad_input_is_answered_reaches_nobody_and_closes_nothing(
    relay: Relay, case: str
) -> None:
    text, code = BAD[case]
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    await a.everything()
    await a.send_text(text)
    answers: list[dict[str, Any]] = await a.messages()
    assert [m["data"]["code"] for m in answers] == [code]
    assert answers[0]["from"] == "relay"
    assert answers[0]["to"] == "a"
    assert answers[0]["data"]["error"]
    assert isinstance(answers[0]["timestamp"], int)
    assert await b.messages() == []
    sent = await a.send("broadcast", sender="a")
    assert await b.everything() == [sent]


@pytest.mark.limits(messages_per_s=10.0, messages_burst=200)
async def test_an_echo_storm_is_damped_and_newcomers_still_get_in(relay: Relay) -> None:
    began_at = relay.clock.now().at
    pages = [await (await relay.connect()).announce(f"page{n}") for n in range(3)]
    for page in pages:
        for n in range(400):
            await page.send("invoke", sender=page.id, n=n)
    newcomer = await relay.connect()
    await newcomer.send("presence", sender="newcomer")
    await newcomer.until("presence", **{"from": "newcomer"})
    while relay.runtime.totals().received < 3 * 400:  # until the whole flood is decided
        await anyio.sleep(0.01)
    relay.clock.shift_s += 3.0
    for page in pages:
        messages = await page.messages()
        errors = [m["data"]["code"] for m in messages if m["type"] == "error"]
        assert set(errors) == {"rate_limited"}
        assert len(errors) <= 1 + relay.clock.now().at - began_at
        echoes = [m for m in messages if m["type"] == "invoke"]
        assert 2 * 190 <= len(echoes) <= 2 * 300


async def test_a_burst_of_600_messages_from_one_peer_passes(relay: Relay) -> None:
    a, b = await (await relay.connect()).announce("a"), await (await relay.connect()).announce("b")
    for n in range(600):
        await a.send("stream", sender="a", n=n)
    await a.everything()
    assert [m["n"] for m in await b.messages()] == list(range(600))
