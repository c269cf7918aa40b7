"""Peers that count, for the claims of coming back: they are cut off, and go on elsewhere."""

import json
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

from protocol.verification.conformance.messages import Message
from protocol.verification.conformance.outcomes import expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

SECONDS: Final = 20
"""For how long peers of these claims want to be away at most."""


class Counted:
    """A peer that counts, on one connection after the other. `peer`: the one it has now."""

    def __init__(self, peer: Peer, resume: Mapping[str, Any]) -> None:
        self.peer = peer
        self.token, self.epoch = resume["token"], resume["epoch"]
        self.before: list[str] = []  # messages and frames of the connections before this one
        self.frames: list[str] = []

    @property
    def got(self) -> list[str]:
        """All messages that count, in order."""
        return [*self.before, *(self.peer.got or ())]

    def question(self, **other: Any) -> dict[str, Any]:
        """What is asked on another connection. `other`: what is wrong in it."""
        got = self.got
        asked = {"token": self.token, "epoch": self.epoch, "received": len(got)}
        if got:
            asked["crc"] = crc32(got[-1].encode())
        return asked | other


async def asked(peer: Peer, data: Mapping[str, Any]) -> Message:
    """What a `capabilities` with this `data` is answered with, be it an error. Raises Failed."""
    await peer.send("capabilities", sender=None, data=data)
    kinds = ("capabilities_response", "error")
    return await peer.until(lambda m: m.type in kinds, "an answer to `capabilities`")


async def counted_peer(world: World, word: str, seconds: float = SECONDS) -> Counted:
    """A new peer that may come back. Raises Failed."""
    peer = await world.connect()
    counted = await opened(peer, seconds)
    peer.id = world.name(word)
    await peer.announce()
    return counted


async def opened(peer: Peer, seconds: float = SECONDS) -> Counted:
    """The same for a connection that is there. Raises Failed."""
    answer = await asked(peer, {"resume": {"seconds": seconds}})
    resume = answer.data.get("resume")
    is_whole = isinstance(resume, dict) and {"token", "epoch", "seconds"} <= resume.keys()
    expect(is_whole, "`token`, `epoch` and `seconds` in `data.resume`", answer)
    assert isinstance(resume, dict)
    peer.got = []
    return Counted(peer, resume)


async def returned(world: World, counted: Counted, **other: Any) -> Mapping[str, Any]:
    """It asks on a new connection to go on. What it is told."""
    counted.peer.is_left_alone = True
    question = counted.question(**other)
    peer = await world.connect()
    answer = await asked(peer, {"resume": question})
    resume = answer.data.get("resume")
    expect(isinstance(resume, dict), "an answer with `data.resume`", answer)
    assert isinstance(resume, dict)
    if resume.get("resumed") is True:
        expect(isinstance(resume.get("taken"), int), "a number as `taken`", answer)
        counted.before, counted.frames = counted.got, [*counted.frames, *counted.peer.said]
        peer.id, peer.got = counted.peer.id, []
        counted.peer, counted.token = peer, resume.get("token")
        again = counted.frames[resume["taken"] :]
        del counted.frames[resume["taken"] :]
        for frame in again:
            await peer.send_text(frame)
    return resume


async def goes_on(world: World, counted: Counted, **other: Any) -> None:
    """It goes on with another connection. Raises Failed."""
    resume = await returned(world, counted, **other)
    expect(resume.get("resumed") is True, "`resumed: true`", json.dumps(resume))


def numbers(texts: list[str]) -> list[object]:
    """The numbers in messages that claims have numbered."""
    read = (json.loads(text) for text in texts)
    return [m["n"] for m in read if isinstance(m, dict) and "n" in m]
