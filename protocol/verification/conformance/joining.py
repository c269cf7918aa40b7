"""How a relay lets a peer join, and what it can: learnt by asking it, before any claim is checked.

Relays differ in what a newcomer hears. Whether it has joined is told by the best `Proof` that a
relay gives. Which it gives is no promise of its own: the claims of rule 3 are about that.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import Failed, shown
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.target import Proof, Target
from protocol.verification.conformance.world import World

MUTE_PATIENCE: Final = 0.05
"""The part of its patience that the kit keeps with a relay that has said nothing at all."""


class Unreachable(Exception):
    """There is nothing at the URL that can be checked. The text says why, in one line."""


async def probed(target: Target) -> Target:
    """`target`, with what can only be learnt by asking: mesh names, proofs, capabilities.

    Raises Unreachable: no relay, or one that refuses a presence.
    """
    try:
        target = await _reached(target)
        return await _asked(target)
    except Failed as failed:
        raise Unreachable(f"cannot join a mesh at {target.url}: {failed}") from None
    except (OSError, ValueError) as error:  # includes URLs that are none
        raise Unreachable(f"cannot reach {target.url}: {error}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] != "websockets":
            raise
        raise Unreachable(f"cannot reach {target.url}: {error}") from None


async def _reached(target: Target) -> Target:
    """The target, without mesh names if it does not take them."""
    try:
        async with World(target) as world:
            await world.connect()
            return target
    except Failed:
        plain = attrs.evolve(target, has_mesh_names=False)
        try:
            async with World(plain) as world:
                await world.connect()
                return plain
        except Failed as failed:
            raise Unreachable(f"cannot reach {target.url}: {failed.seen}") from None


async def _asked(target: Target) -> Target:
    proofs, is_mute = await _proofs(target)
    target = attrs.evolve(target, proofs=(*proofs, Proof.TIME), is_mute=is_mute)
    if is_mute:
        return attrs.evolve(target, patience_s=target.patience_s * MUTE_PATIENCE)
    return attrs.evolve(target, capabilities=await _capabilities(target))


async def _proofs(target: Target) -> tuple[list[Proof], bool]:
    """What tells that somebody has joined; and whether the relay has said nothing at all."""
    async with World(target) as world:
        first = await _newcomer(world, "first")
        if all(await _listened(first, _presence_of(first))):
            return [Proof.OWN], False
        if refusals := [m for m in first.inbox if m.type == "error"]:
            raise Failed("a presence is taken", shown(refusals[0]))
        second, third = await _newcomer(world, "second"), await _newcomer(world, "third")
        (heard,), (roster,), direct = await asyncio.gather(
            _listened(first, _presence_of(second)),
            _listened(second, _presence_of(first)),
            _hears_itself(third),
        )
        found = {Proof.ROSTER: roster, Proof.DIRECT: direct, Proof.HEARD: heard}
        proofs = [proof for proof, is_given in found.items() if is_given]
        return proofs, not (proofs or any(peer.inbox for peer in world.peers))


async def _hears_itself(peer: Peer) -> bool:
    try:
        await peer.hears_itself()
    except Failed:
        return False
    return True


async def _capabilities(target: Target) -> Mapping[str, Any] | None:
    """What the relay answers to that question, if it answers it."""
    async with World(target) as world:
        peer = await world.connect()
        peer.id = world.name("asks")
        try:
            await peer.send("capabilities", turnId=world.token)
            await peer.announce()
            if Proof.OWN in target.proofs:  # an answer would be here
                answers = [m for m in peer.taken() if m.type == "capabilities_response"]
                return dict(answers[0].data) if answers else None
            answer = await peer.until(lambda m: m.type == "capabilities_response", "an answer")
            return dict(answer.data)
        except Failed:
            return None


async def _newcomer(world: World, word: str) -> Peer:
    peer = await world.connect()
    peer.id = world.name(word)
    await peer.send("presence", data={"agents": []})
    return peer


def _presence_of(peer: Peer) -> Callable[[Message], bool]:
    return lambda m: m.type == "presence" and m.sender == peer.id


async def _listened(peer: Peer, *wanted: Callable[[Message], bool]) -> list[bool]:
    """Which of these come within the patience. All that comes is in the inbox. Raises Failed."""
    ends_at = time.monotonic() + peer.target.patience_s
    while True:
        seen = [any(map(one, peer.inbox)) for one in wanted]
        left_s = ends_at - time.monotonic()
        if all(seen) or left_s <= 0:
            return seen
        try:
            peer.inbox.append(await peer.receive("anything", within_s=left_s))
        except Failed as failed:
            if failed.was_closed:
                raise
