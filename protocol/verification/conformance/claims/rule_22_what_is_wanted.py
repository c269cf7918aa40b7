"""Rule 22: only what is wanted.

A relay that does not offer it in its answer to `capabilities` sends everything to everyone: these
claims are not applicable to it.
"""

from itertools import count
from typing import Any

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.outcomes import NotApplicable, expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=22, offer="subscribe")


_numbers = count()
"""What tells one direct from all others: other tabs get them, too."""


async def _gets(world: World, receiver: Peer, sender: Peer, *said: dict[str, Any]) -> list[int]:
    """The numbers of those messages, from 0, that arrive of what `sender` says.

    A direct behind them shows that all the others would have arrived before.
    """
    for number, fields in enumerate(said):
        await sender.send(fields.get("type", "broadcast"), n=number, **_without_type(fields))
    to = {"to": receiver.id, "targetInstanceId": receiver.id}
    last = await sender.send("direct", **to, n=-1, data={"unlike": next(_numbers)})
    await receiver.arrives(last, "a direct, whatever is wanted")
    return [m.fields["n"] for m in receiver.traffic() if m.fields.get("n", -1) >= 0]


def _without_type(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "type"}


async def _wishing(world: World, wish: Any, *agents: str) -> Peer:
    """A peer that wants this."""
    peer = await world.join("picky", *agents, subscribe=wish)
    peer.is_left_alone = True  # it does not get all markers
    return peer


@claim.extension("what-is-wanted.nothing-for-others")
async def nothing_for_others_arrives(world: World) -> None:
    """Who wants nothing for `others` gets no message that names another peer, but what names it, or
    an agent of it, or nobody who is here."""
    speaker, other = await world.joined("speaker", "other")
    await other.announce(world.name("its agent"), world.name("of both"))
    picky = await _wishing(world, {"others": False}, world.name("my agent"), world.name("of both"))
    plain = await world.join("plain")
    said: list[dict[str, Any]] = [
        {},
        {"to": other.id},
        {"to": picky.id},
        {"to": world.name("its agent")},
        {"to": world.name("my agent")},
        {"to": world.name("of both")},
        {"to": world.name("nobody")},
        {"to": picky.id, "targetInstanceId": other.id},
        {"to": other.id, "targetInstanceId": picky.id},
        {"to": other.id, "targetInstanceId": world.name("nobody")},
    ]
    await world.settled()
    got = await _gets(world, picky, speaker, *said)
    expect(got == [0, 2, 4, 5, 6, 8, 9], "what is for itself or for nobody here", got)
    everything = await _gets(world, plain, speaker, {"to": other.id})
    expect(everything[-1:] == [0], "everything for who has no wish", everything)


@claim.extension("what-is-wanted.only-these-topics")
async def only_these_topics_arrive(world: World) -> None:
    """Who names `topics` gets no message with a `topic` that none of them matches. A `*` at the end
    of a pattern stands for anything. What has no `topic`, or one that is no string, arrives."""
    (speaker,) = await world.joined("speaker")
    picky = await _wishing(world, {"topics": ["orders", "robots/*"]})
    topics: list[Any] = ["orders", "orders/1", "order", "robots/7", "robots/", "robots", 7, None]
    got = await _gets(world, picky, speaker, *({"topic": topic} for topic in topics), {})
    expect(got == [0, 3, 4, 6, 7, 8], "these topics and what has none", got)


@claim.extension("what-is-wanted.only-these-types")
async def only_these_types_arrive(world: World) -> None:
    """Who names `types` gets no messages to everyone of other types."""
    (speaker,) = await world.joined("speaker")
    picky = await _wishing(world, {"types": ["broadcast", "price"]})
    types = ("broadcast", "stream", "price", "ack", "topic/news")
    got = await _gets(world, picky, speaker, *({"type": type} for type in types))
    expect(got == [0, 2], "these types", got)


@claim.extension("what-is-wanted.presences-always-come")
async def presences_always_come(world: World) -> None:
    """Who wants nothing of what is said gets the presences of others all the same, directs, and the
    relay's errors."""
    (speaker,) = await world.joined("speaker")
    picky = await _wishing(world, {"others": False, "topics": [], "types": []})
    await world.settled()
    newcomer = await world.join("newcomer")
    await picky.until(lambda m: m.sender == newcomer.id, "the presence of a newcomer")
    await newcomer.close()
    await picky.until(lambda m: m.is_offline and m.sender == newcomer.id, "that it went")
    await picky.send("direct", to=world.name("nobody"), turnId="lost")
    await picky.until(lambda m: m.fields.get("turnId") == "lost", "an error of the relay")
    got = await _gets(world, picky, speaker, {}, {"to": picky.id})
    expect(got == [], "nothing of what is said to everyone", got)


@claim.extension("what-is-wanted.is-said-anew")
async def what_is_wanted_is_said_anew_with_each_presence(world: World) -> None:
    """Each presence says it anew, for its own connection: another tab of the same peer gets what it
    wants itself, and a presence without `data.subscribe` wants everything."""
    (speaker,) = await world.joined("speaker")
    picky = await _wishing(world, {"types": ["price"]})
    tab = await world.tab(picky.id)
    tab.is_left_alone = True
    said: tuple[dict[str, Any], ...] = ({"type": "stream"}, {"type": "price"})
    for wish, wanted in (("as before", [1]), ({"types": ["stream"]}, [0]), (None, [0, 1])):
        if isinstance(wish, dict):
            await picky.announce(subscribe=wish)
        elif wish is None:
            await picky.announce()
        await picky.send("capabilities", turnId=str(wish))
        await picky.until(lambda m: m.type == "capabilities_response", "an answer")
        got = await _gets(world, picky, speaker, *said)
        expect(got == wanted, f"{wanted}", got)
        got = await _gets(world, tab, speaker)
        expect(got[:2] == [0, 1], "everything at the other tab", got)


@claim.extension("what-is-wanted.goes-for-what-was-said")
async def what_is_wanted_goes_for_what_was_said_too(world: World) -> None:
    """Of what was said before (rule 21), who asks for it gets what it wants: the last messages of
    those, and a count of these alone."""
    if "history" not in (world.target.capabilities or {}):
        raise NotApplicable("no `data.history` in the answer to `capabilities`")
    speaker, _ = await world.joined("speaker", "watcher")
    for number in range(6):
        await speaker.send("broadcast" if number % 2 else "price", n=number)
    await world.settle()
    late = await world.connect()
    late.id, late.is_left_alone = world.name("late"), True
    await late.send("capabilities", sender=None, data={"history": {"messages": 2}})
    await late.announce(subscribe={"types": ["price"]})
    mark = await late.until(
        lambda m: m.type == "capabilities_response" and "claim" not in m.data, "a count"
    )
    expect(mark.data.get("history") == {"messages": 2}, "a count of 2", mark)
    seen = [(await late.receive("an earlier message")).fields.get("n") for _ in range(2)]
    expect(seen == [2, 4], "the last two that are wanted", seen)


@claim.extension("what-is-wanted.a-bad-wish-is-refused")
async def a_bad_wish_is_refused_with_its_presence(world: World) -> None:
    """A presence whose `data.subscribe` is wrong is answered with `bad_field` or `too_long`, and
    nobody receives it."""
    (watcher,) = await world.joined("watcher")
    most = (world.target.capabilities or {})["subscribe"]
    expect(isinstance(most, dict), "the bounds of a wish", most)
    wrong: list[tuple[Any, str]] = [
        ("everything", "bad_field"),
        ([], "bad_field"),
        ({"others": "no"}, "bad_field"),
        ({"topics": "orders"}, "bad_field"),
        ({"topics": [7]}, "bad_field"),
        ({"topics": [""]}, "bad_field"),
        ({"topics": ["a*b"]}, "bad_field"),
        ({"types": [None]}, "bad_field"),
        ({"types": ["x" * 2000]}, "too_long"),
        ({"topics": [f"{n}" for n in range(most["topics"] + 1)]}, "bad_field"),
        ({"types": [f"{n}" for n in range(most["types"] + 1)]}, "bad_field"),
    ]
    for wish, code in wrong:
        peer = await world.connect()
        peer.id, peer.is_left_alone = world.name("wrong"), True
        await peer.send("presence", data={"agents": [], "subscribe": wish})
        answer = await peer.until(lambda m: m.type in ("error", "presence"), "an answer")
        expect(answer.data.get("code") == code, f"the error `{code}` to {str(wish)[:60]}", answer)
    await world.settle()
    seen = [m for m in watcher.taken() if m.sender == world.name("wrong")]
    expect(not seen, "no such presence at the others", seen)
