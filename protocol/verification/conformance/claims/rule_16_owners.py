"""Rule 16: one id, one owner.

A promise of the kit is called a claim, and so is what a peer makes of its id. Here the second is a
*secret*.
"""

from protocol.verification.conformance.claim import Claims
from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=16, offer="claim")


async def _owner(world: World, id: str, secret: str, *agents: str, takeover: bool = False) -> Peer:
    """A connection that said this secret and announces `id`; whether it may is not waited for."""
    peer = await world.connect()
    peer.id = id
    data = {"claim": secret, **({"takeover": True} if takeover else {})}
    await peer.send("capabilities", sender=None, data=data)
    await peer.send("presence", data={"agents": agents})
    return peer


async def _outcome(peer: Peer) -> Message:
    """What came of the first presence: it comes back, or it is refused."""
    return await peer.until(
        lambda m: m.type == "error" or (m.type == "presence" and m.sender == peer.id),
        "the presence, or an error",
    )


async def _is_refused(world: World, peer: Peer) -> None:
    answer = await _outcome(peer)
    expect(answer.data.get("code") == "id_taken", "the error `id_taken`", answer)
    peer.is_left_alone = True  # it is not in the mesh
    await peer.send("capabilities", sender=None, turnId="kept")
    await peer.until(lambda m: m.fields.get("turnId") == "kept", "the connection is kept")


@claim.extension("owners.others-are-refused")
async def who_does_not_know_the_secret_of_an_id_is_refused(world: World) -> None:
    """While an id is here that was claimed with a secret, whoever does not say this secret cannot
    announce it, and is answered with `id_taken`. Nobody else hears of it."""
    (watcher,) = await world.joined("watcher")
    owner = await _owner(world, world.name("owner"), world.name("secret"))
    await _outcome(owner)
    await world.settled()
    for secret in (world.name("another"), None):
        if secret is not None:
            stranger = await _owner(world, owner.id, secret, takeover=True)
        else:
            stranger = await world.connect()
            stranger.id = owner.id
            await stranger.send("presence", data={"agents": []})
        await _is_refused(world, stranger)
    await watcher.send("direct", to=owner.id, data={"n": 1})
    await world.settle()
    seen = [m for m in watcher.taken() if m.sender == owner.id]
    expect(not seen, "nothing at the others", seen)
    heard = owner.traffic()
    expect(len(heard) == 1, "the direct at the owner", heard)


@claim.extension("owners.share-and-lapse")
async def who_knows_the_secret_shares_the_id_until_all_are_gone(world: World) -> None:
    """Connections that say the same secret share an id. With the last of them the claim lapses."""
    id, secret = world.name("owner"), world.name("secret")
    await world.joined("watcher")
    tabs = [await _owner(world, id, secret) for _ in range(2)]
    for tab in tabs:
        expect((await _outcome(tab)).type == "presence", "both are in", tab.inbox)
    await tabs[0].close()
    await world.after_the_end_of(tabs[0])
    await _is_refused(world, await _owner(world, id, world.name("another")))
    await tabs[1].close()
    await world.after_the_end_of(tabs[1])
    heir = await _owner(world, id, world.name("another"))
    expect((await _outcome(heir)).type == "presence", "a new owner, once the id is free", heir)


@claim.extension("owners.unclaimed-ids-stay-open")
async def an_id_that_nobody_claimed_is_open_to_all_without_a_secret(world: World) -> None:
    """An id that was announced without a secret is shared by all who say none, and is refused to
    whoever claims it then."""
    (plain,) = await world.joined("plain")
    await world.tab(plain.id)
    await _is_refused(world, await _owner(world, plain.id, world.name("secret")))


@claim.extension("owners.takeover")
async def a_takeover_ends_the_older_connections(world: World) -> None:
    """With the same secret and `takeover`, the older connections of the id are told `replaced` and
    closed (1008). The others do not hear that the peer was offline."""
    (watcher,) = await world.joined("watcher")
    id, secret = world.name("owner"), world.name("secret")
    x, y = world.name("x"), world.name("y")
    old = await _owner(world, id, secret, x)
    await _outcome(old)
    await world.settled()
    old.is_left_alone = True
    new = await _owner(world, id, secret, y, takeover=True)
    await _outcome(new)
    told = await old.until(lambda m: m.type == "error", "an error to the older connection")
    expect(told.data.get("code") == "replaced", "the error `replaced`", told)
    code = await old.closed(world.target.patience_s, "the older connection is closed")
    expect(code == 1008, "close code 1008", str(code))
    await world.after_the_end_of(old)
    seen = [m for m in watcher.taken() if m.type == "presence" and m.sender == id]
    expect(not any(m.is_offline for m in seen), "no `offline`", seen)
    expect(bool(seen) and [*map(str, seen[-1].agents)] == [y], "the agents of the new one", seen)


@claim.extension("owners.a-bad-claim-is-refused")
async def a_bad_claim_is_refused(world: World) -> None:
    """A claim that is too short, or comes after the presence, is answered with `bad_field`."""
    early = await world.connect()
    await early.send("capabilities", sender=None, turnId="t", data={"claim": "short"})
    late = await world.join("late")
    await late.send("capabilities", turnId="t", data={"claim": world.name("secret")})
    for peer in (early, late):
        answer = await peer.until(lambda m: m.fields.get("turnId") == "t", "an answer")
        expect(answer.data.get("code") == "bad_field", "the error `bad_field`", answer)
