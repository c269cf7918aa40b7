"""Rule 21: what was said before.

A relay that does not offer it in its answer to `capabilities` does without: these claims are not
applicable to it.
"""

from typing import Any

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import NotApplicable, expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=21, offer="history")


def _mark(message: Message) -> bool:
    history = message.data.get("history")
    is_answer = message.type == "capabilities_response" and "claim" not in message.data
    return is_answer and isinstance(history, dict)


async def _newcomer(world: World, wish: Any) -> Peer:
    """A connection that has asked for what was said before, and has not announced itself."""
    peer = await world.connect()
    peer.id = world.name("newcomer")
    await peer.send("capabilities", sender=None, turnId="asked", data={"history": wish})
    return peer


@claim.extension("what-was-said.arrives-behind-the-roster")
async def what_was_said_arrives_behind_the_roster_and_is_marked(world: World) -> None:
    """Whoever asks for the last messages gets them behind the roster, byte for byte, in order, and
    before anything new. A `capabilities_response` before them says how many there are, and nothing
    else."""
    speaker, watcher = await world.joined("speaker", "watcher")
    texts = [await speaker.send("stream", n=n, data={"n": 1.50}) for n in range(4)]
    await world.settle()
    before = [m.text for m in watcher.inbox if "n" in m.fields]
    expect(len(before) == len(texts), "all messages at who was there", before)
    newcomer = await _newcomer(world, {"messages": 100})
    await newcomer.announce()
    mark = await newcomer.until(_mark, "a count of earlier messages")
    roster = [m.sender for m in newcomer.inbox if m.type == "presence"]
    expect({speaker.id, watcher.id} <= {*roster}, "the roster before the count", roster)
    count = mark.data["history"].get("messages")
    expect(isinstance(count, int) and count >= 4, "a count of 4 or more", mark)
    is_alone = set(mark.data) == {"history"} and "turnId" not in mark.fields
    expect(is_alone, "nothing but `data.history`, and no `turnId`", mark)
    old = [await newcomer.receive("an earlier message") for _ in range(count)]
    seen = [m.text for m in old if "n" in m.fields]
    expect(seen == before, "the same bytes in the same order", seen)
    new = await speaker.send("stream", n=4)
    await newcomer.arrives(new, "what is new")


@claim.extension("what-was-said.only-what-went-to-everyone")
async def only_what_went_to_everyone_is_told(world: World) -> None:
    """Presences, directs and what no peer got are not among the earlier messages. Whoever asks for
    few gets the last ones, and who does not ask gets none."""
    speaker, watcher = await world.joined("speaker", "watcher")
    for wish, wanted in ((2, [1, 2]), (0, [])):
        newcomer = await _newcomer(world, {"messages": wish})
        newcomer.is_left_alone = True  # its markers would be messages, too
        for n in range(3):
            last = await speaker.send("stream", n=n)
            await speaker.send("direct", to=watcher.id, n=-1)
            await speaker.send("configure", n=-2)
            await speaker.announce(f"agent {n}")
        await watcher.arrives(last, "the last message at the others")
        await newcomer.announce()
        mark = await newcomer.until(_mark, "a count of earlier messages")
        expect(mark.data["history"].get("messages") == wish, f"a count of {wish}", mark)
        seen = [(await newcomer.receive("an earlier message")).fields.get("n") for _ in wanted]
        expect(seen == wanted, f"{wanted}", seen)
        await newcomer.close()
    plain = await world.join("plain")
    await world.settle()
    seen = [m for m in plain.taken() if "n" in m.fields or _mark(m)]
    expect(not seen, "nothing for who does not ask", seen)


@claim.extension("what-was-said.stays-in-its-mesh")
async def what_was_said_stays_in_its_mesh(world: World) -> None:
    """What was said in one mesh is not told in another."""
    if not world.target.has_mesh_names or world.target.mesh is not None:
        raise NotApplicable("all peers are in one mesh")
    speaker, _ = await world.joined("speaker", "watcher")
    await speaker.send("stream", n=1)
    await world.settle()
    elsewhere = await world.connect(mesh=world.name("elsewhere"))
    elsewhere.id, elsewhere.is_left_alone = world.name("newcomer"), True
    await elsewhere.send("capabilities", sender=None, data={"history": {"messages": 100}})
    await elsewhere.announce()
    mark = await elsewhere.until(_mark, "a count of earlier messages")
    expect(mark.data["history"].get("messages") == 0, "a count of 0", mark)


@claim.extension("what-was-said.a-bad-wish-is-refused")
async def a_bad_wish_is_refused(world: World) -> None:
    """A wish that is no number of messages, or comes after the presence, is answered with
    `bad_field`."""
    late = await world.join("late")
    await late.send("capabilities", turnId="asked", data={"history": {"messages": 1}})
    early = [await _newcomer(world, wish) for wish in (3, {}, {"messages": -1}, {"messages": "1"})]
    for peer in (late, *early):
        answer = await peer.until(lambda m: m.fields.get("turnId") == "asked", "an answer")
        expect(answer.data.get("code") == "bad_field", "the error `bad_field`", answer)
