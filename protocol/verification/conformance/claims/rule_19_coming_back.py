"""Rule 19: coming back after a cut.

A relay that does not offer it in its answer to `capabilities` does without: these claims are not
applicable to it. What is known to go wrong in such mechanisms has a claim of its own.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from protocol.verification.conformance.claim import Check, Claims
from protocol.verification.conformance.counted import (
    Counted,
    asked,
    counted_peer,
    goes_on,
    numbers,
    opened,
    returned,
)
from protocol.verification.conformance.outcomes import NotApplicable, expect
from protocol.verification.conformance.peer import Peer
from protocol.verification.conformance.world import World

claim = Claims(rule=19, offer="resume")


async def _is_here(world: World, watcher: Peer, id: str) -> None:
    """The watcher has not heard that this peer went."""
    await world.ends_are_noticed()
    seen = [m for m in watcher.taken() if m.is_offline and m.sender == id]
    expect(not seen, f"no `offline` of {id}", seen)


@claim.extension("coming-back.nothing-is-missed")
async def what_came_while_a_peer_was_away_arrives_once_it_is_back(world: World) -> None:
    """What a peer missed while it was cut off arrives when it is back: in order, once, byte for
    byte, and before anything new. The others do not hear that it was away."""
    counted = await counted_peer(world, "cut")
    other, watcher = await world.joined("other", "watcher")
    counted.peer.cut()
    await world.ends_are_noticed()
    for n in range(12):
        if n % 3 == 1:
            await other.send("direct", to=counted.peer.id, n=n)
        else:
            await other.send("stream", n=n, data={"n": 1.50, "of": world.token})
    await world.settle()
    before = [m.text for m in watcher.inbox if "n" in m.fields]
    await _is_here(world, watcher, counted.peer.id)
    await goes_on(world, counted)
    await other.send("stream", n=12)
    await world.settle()
    seen = numbers(counted.got)
    expect(seen == [*range(13)], "the numbers from 0 to 12, each once, in order", seen)
    same = [text for text in counted.got if text in before]
    expect(same == before, "the same bytes as at the others", same)


@claim.extension("coming-back.before-the-relay-noticed")
async def a_peer_may_be_back_before_the_relay_has_noticed(world: World) -> None:
    """A peer whose old socket is still there, as the relay sees it, goes on with another one. The
    old one is closed with 1008; what came in on it counts, and what went out is told again."""
    counted = await counted_peer(world, "cut")
    other, watcher = await world.joined("other", "watcher")
    old = counted.peer
    old.is_left_alone = True  # it reads nothing more
    await old.send("stream", n=100)
    await other.send("direct", to=old.id, n=1)
    await world.settle()
    await goes_on(world, counted)
    await world.settle()
    code = await old.closed(world.target.patience_s, "the old socket is closed")
    expect(code == 1008, "close code 1008", str(code))
    await _is_here(world, other, old.id)
    seen = numbers(counted.got)
    expect(seen == [1], "the direct, once", seen)
    sent = [m.fields["n"] for m in watcher.taken() if "n" in m.fields]
    expect(sent == [100], "what it said last, once", sent)


@claim.extension("coming-back.what-was-not-taken-is-sent-again")
async def what_a_peer_sent_into_the_cut_arrives_once(world: World) -> None:
    """What a peer sent into a connection that was cut arrives at the others once and in order, if
    it sends the frames after the first `taken` ones again."""
    counted = await counted_peer(world, "cut")
    (watcher, *_) = await world.joined("watcher", "another")
    for n in range(40):
        await counted.peer.send("stream", n=n)
    counted.peer.cut()
    await world.ends_are_noticed()
    await goes_on(world, counted)
    await counted.peer.send("stream", n=40)
    await world.settle()
    seen = [m.fields["n"] for m in watcher.taken() if "n" in m.fields]
    expect(seen == [*range(41)], "the numbers from 0 to 40, each once, in order", seen)


@claim.extension("coming-back.again-without-anything-new")
async def coming_back_again_repeats_nothing(world: World) -> None:
    """A peer that is cut again, without anything new, hears nothing again, and every time there is
    another token."""
    counted = await counted_peer(world, "cut")
    other, _ = await world.joined("other", "watcher")
    await other.send("direct", to=counted.peer.id, n=0)
    await world.settle()
    tokens = {counted.token}
    for _ in range(3):
        counted.peer.cut()
        await goes_on(world, counted)
        tokens.add(counted.token)
    await other.send("direct", to=counted.peer.id, n=1)
    await world.settle()
    seen = numbers(counted.got)
    expect(seen == [0, 1], "each number once", seen)
    expect(len(tokens) == 4, "another token each time", sorted(map(str, tokens)))


@claim.extension("coming-back.the-counts-go-on")
async def the_counts_go_on_after_a_return(world: World) -> None:
    """After a return both counts go on where they were, so that the next one is exact, too."""
    counted = await counted_peer(world, "cut")
    other, watcher = await world.joined("other", "watcher")
    for n in range(4):
        await other.send("direct", to=counted.peer.id, n=n)
        await counted.peer.send("direct", to=watcher.id, n=n)
        counted.peer.cut()
        await world.ends_are_noticed()
        await goes_on(world, counted)
    await world.settle()
    seen = numbers(counted.got)
    expect(seen == [*range(4)], "each number once", seen)
    sent = [m.fields["n"] for m in watcher.taken() if "n" in m.fields]
    expect(sent == [*range(4)], "each number once, at the other side", sent)


@claim.extension("coming-back.before-any-message")
async def a_peer_may_come_back_before_any_message(world: World) -> None:
    """A peer that has received no message since it asked comes back with `received: 0` and without
    `crc`."""
    peer = await world.join("early")
    other, _ = await world.joined("other", "watcher")
    counted = await opened(peer)
    peer.cut()
    await world.ends_are_noticed()
    await other.send("direct", to=peer.id, n=0)
    await world.settle()
    await goes_on(world, counted, received=0)
    await world.settle()
    seen = numbers(counted.got)
    expect(seen == [0], "the direct, once", seen)


@claim.extension("coming-back.all-or-nothing")
async def what_is_no_longer_kept_is_not_told_in_part(world: World) -> None:
    """A peer that has missed more than the relay keeps is refused with `history`, or it gets all of
    it: never a part."""
    counted = await counted_peer(world, "cut")
    other, _ = await world.joined("other", "watcher")
    counted.peer.cut()
    await world.ends_are_noticed()
    for n in range(200):
        await other.send("stream", n=n, data="x" * 60_000)
        if n % 40 == 39:
            await world.settle()
    resume = await returned(world, counted)
    if resume.get("resumed") is True:
        await world.settle()
        seen = numbers(counted.got)
        expect(seen == [*range(200)], "all that was missed", seen)
    else:
        expect(resume.get("reason") == "history", "the reason `history`", json.dumps(resume))
        seen = numbers(counted.got)
        expect(not seen, "no part of what was missed", seen)


@claim.extension("coming-back.a-clean-close-leaves", needs=["leaving.offline-is-heard"])
async def who_closes_has_left(world: World) -> None:
    """A peer that closes its connection (1000) has left: the others hear it at once, and its token
    is good for nothing."""
    counted = await counted_peer(world, "leaves")
    (watcher,) = await world.joined("watcher")
    await counted.peer.close()
    await world.offline_once(watcher, counted.peer.id)
    await _is_refused(world, counted, {"unknown"})


@claim.extension("coming-back.reports-are-answered")
async def a_report_is_answered_with_what_was_taken(world: World) -> None:
    """`data.received` is answered with nothing but `taken`: the frames that came after the peer
    asked, this one included."""
    counted = await counted_peer(world, "reports")
    await counted.peer.send("heartbeat")
    answer = await asked(counted.peer, {"received": len(counted.got)})
    expect(answer.data == {"taken": len(counted.peer.said)}, f"{len(counted.peer.said)}", answer)


@claim.extension("coming-back.over-time", needs_time=True)
async def who_is_away_for_too_long_is_offline_once(world: World) -> None:
    """When a peer was away for longer than it asked for, the others hear `offline`, once, and its
    token is good for nothing."""
    counted = await counted_peer(world, "slow", seconds=1.0)
    (watcher,) = await world.joined("watcher")
    counted.peer.cut()
    id = counted.peer.id
    told = await watcher.until(
        lambda m: m.is_offline and m.sender == id, "`offline` in time", within_s=6.0
    )
    await world.join("another")
    await world.ends_are_noticed()
    again = [m for m in watcher.taken() if m.is_offline and m.sender == id]
    expect(not again, "`offline` once", [told, *again])
    await _is_refused(world, counted, {"unknown"})


# Refusals -----------------------------------------------------------------------------------------


async def _is_refused(world: World, counted: Counted, reasons: set[str], **other: Any) -> None:
    """It may not go on, for one of these reasons; and its connection is one like any other."""
    question = counted.question(**other)
    peer = await world.connect()
    answer = await asked(peer, {"resume": question})
    resume = answer.data.get("resume")
    is_refused = isinstance(resume, dict) and resume.get("resumed") is False
    expect(is_refused, "`resumed: false`", answer)
    assert isinstance(resume, dict)
    expect(resume.get("reason") in reasons, f"the reason {sorted(reasons)}", answer)
    if resume["reason"] not in ("history", "count"):  # these may say what was taken
        expect("taken" not in resume, "nothing else of the other connection", answer)
    peer.id = world.name("anew")
    await peer.announce()


async def _cut(world: World) -> Counted:
    """A peer that has received something, has said so, and is cut off."""
    counted = await counted_peer(world, "cut")
    other, _ = await world.joined("other", "watcher")
    for n in range(3):
        await other.send("direct", to=counted.peer.id, n=n)
    await world.settle()
    await asked(counted.peer, {"received": len(counted.got)})
    counted.peer.cut()
    await world.ends_are_noticed()
    return counted


_WRONG: Final[Mapping[str, tuple[str, dict[str, Any], set[str]]]] = {
    "another-epoch": ("names another `epoch`", {"epoch": "another"}, {"epoch"}),
    "a-guessed-token": ("has guessed a token", {"token": "a guess"}, {"unknown"}),
    "more-than-was-sent": ("has received more than was sent", {"received": 10**6}, {"count"}),
    "another-last-message": ("has received another last message", {"crc": 1}, {"count"}),
    "no-crc": ("has messages, and no `crc`", {"crc": None}, {"count"}),
    "fewer-than-it-said": (
        "has received less than it said",
        {"received": 0, "crc": None},
        {"count"},
    ),
}


def _made(other: dict[str, Any], reasons: set[str]) -> Check:
    async def check(world: World) -> None:
        counted = await _cut(world)
        await _is_refused(world, counted, reasons, **other)
        if "token" not in other:
            await _is_refused(world, counted, {"unknown"})

    return check


for _name, (_words, _other, _reasons) in _WRONG.items():
    claim.add(
        f"coming-back.refused.{_name}",
        "extension",
        f"Who {_words} may not go on, and is told why ({', '.join(_reasons)}). "
        "A token is good once, whatever came of it.",
        _made(_other, _reasons),
    )


@claim.extension("coming-back.refused.a-token-that-was-used")
async def a_token_that_was_used_opens_nothing(world: World) -> None:
    """A token that was used is `unknown`: whoever shows it again gets nothing, and the peer that
    went on with it does not notice."""
    counted = await _cut(world)
    used = counted.token
    await goes_on(world, counted)
    await _is_refused(world, counted, {"unknown"}, token=used)
    await world.settle()
    await asked(counted.peer, {"received": 0})


@claim.extension("coming-back.refused.too-late")
async def who_has_announced_itself_comes_too_late(world: World) -> None:
    """A connection that has announced itself cannot go on with another one: `late`."""
    counted = await _cut(world)
    late = await world.join("late")
    answer = await asked(late, {"resume": counted.question()})
    resume = answer.data.get("resume")
    expect(isinstance(resume, dict) and resume.get("reason") == "late", "the reason `late`", answer)


@claim.extension("coming-back.refused.in-another-mesh")
async def a_token_is_of_one_mesh(world: World) -> None:
    """In another mesh a token is good for nothing, and nothing of the first one is told there."""
    if not world.target.has_mesh_names or world.target.mesh is not None:
        raise NotApplicable("all peers are in one mesh")
    counted = await _cut(world)
    elsewhere = await world.connect(mesh=world.name("elsewhere"))
    answer = await asked(elsewhere, {"resume": counted.question()})
    resume = answer.data.get("resume")
    is_refused = isinstance(resume, dict) and resume.get("reason") in ("epoch", "unknown")
    expect(is_refused, "the reason `epoch` or `unknown`", answer)
    await goes_on(world, counted)


@claim.extension("coming-back.refused.what-cannot-be-read")
async def a_question_that_cannot_be_read_is_a_bad_field(world: World) -> None:
    """Numbers that are negative, no integers or no numbers, and questions in an array, are answered
    with `bad_field`, and use no token up."""
    counted = await _cut(world)
    bad: list[dict[str, Any]] = [
        *({"resume": counted.question(received=n)} for n in (-1, 1.5, "1", True, None)),
        *({"resume": counted.question(crc=n)} for n in (-1, 2**32, "1")),
        {"resume": {"seconds": -1}},
        {"received": -1},
        {"resume": 20},
    ]
    peer = await world.connect()
    for data in bad:
        answer = await asked(peer, data)
        expect(answer.data.get("code") == "bad_field", f"`bad_field` for {data}", answer)
    text = json.dumps([{"type": "capabilities", "data": {"resume": counted.question()}}])
    await peer.send_text(text)
    kinds = ("capabilities_response", "error")
    answer = await peer.until(lambda m: m.type in kinds, "an answer")
    expect(answer.data.get("code") == "bad_field", "`bad_field` for an array", answer)
    await goes_on(world, counted)
