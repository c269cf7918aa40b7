"""What comes together is decided as what comes one by one, whatever it is; but runs cost less."""

import itertools
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec as codec_module
from protocol.envelope import ErrorCode, Inbound, Unreadable
from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.mesh import Mesh
from tests.worlds.mesh import World, presence, text

LIMITS = Limits(
    message_bytes_max=2000, presence_bytes_max=2000, nesting_max=8, number_digits_max=1500
)
CHUNK = b'{"type":"stream","from":"ann","turnId":"t","data":%s}'
ALIKE: tuple[tuple[Inbound, ...], ...] = (
    (
        CHUNK % b'"x"',
        CHUNK % '"é"'.encode(),
        CHUNK % b'"\\ud83d"',
        CHUNK % b'"\xff"',
        CHUNK % (b"1" * 1501),
        CHUNK % (b"[" * 8 + b"]" * 8),
        CHUNK % (b'"' + b"x" * 2000 + b'"'),
        CHUNK % b"",
    ),
    (CHUNK % b"1", CHUNK % b"1" + b" " * 1990),
    *(
        (text(data="a", **fields), text(data="hello", **fields), text(data="x" * 1920, **fields))
        for fields in (
            {"type": "stream", "sender": "ann", "turnId": "u"},
            {"type": "stream", "sender": "coder", "turnId": "t"},
            {"type": "stream", "turnId": "t"},
            {"type": "stream", "sender": "ann", "instanceId": "ann"},
            {"type": "stream", "sender": "bob"},
            {"type": "stream", "sender": "relay"},
            {"type": "turn_end", "sender": "ann", "turnId": "t"},
            {"type": "direct", "sender": "ann", "to": "bob", "turnId": "t"},
            {"type": "direct", "sender": "ann", "to": "nobody"},
            {"type": "cancel", "sender": "ann", "to": "bob", "turnId": "t"},
            {"type": "broadcast", "sender": "ann"},
            {"type": "broadcast", "sender": "ann", "turnId": "v"},
            {"type": "heartbeat", "sender": "ann"},
            {"type": "capabilities", "sender": "ann"},
            {"type": "configure", "sender": "ann"},
            {"type": "capabilities_response", "sender": "ann"},
            {"type": "of-mine", "sender": "ann"},
            {"type": "relay-mine", "sender": "ann"},
        )
    ),
    (presence("ann", "coder"), presence("ann", "coder", more=1)),
    (b'[{"type":"ack","from":"ann"},{"type":"ack","from":"ann"},3]', b"[]"),
    (Unreadable(ErrorCode.BINARY, "binary"),),
)
"""In each row are messages that have the same header, if they have one."""
RUNS = st.lists(
    st.sampled_from(ALIKE).flatmap(lambda row: st.lists(st.sampled_from(row), max_size=6)),
    max_size=4,
).map(lambda runs: [message for run in runs for message in run])
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "somebody wants little": {"wish": {"others": False}},
    "pages are here": {"page": "p-1"},
    "pages are here, and its peer is here often": {"page": "p-1", "tabs": 9},
    "it is watched": {"watched": True},
    "it may speak only as itself": {"grant": Grant(peer="ann", agents=())},
    "it has not announced itself": {"announced": False},
    "strict": {"strict": True},
    "numbers may be long": {"limits": attrs.evolve(LIMITS, number_digits_max=4000)},
}


def world_of(
    *,
    wish: Any = None,
    page: str | None = None,
    tabs: int = 0,
    watched: bool = False,
    grant: Grant | None = None,
    announced: bool = True,
    strict: bool = False,
    limits: Limits = LIMITS,
) -> tuple[World, int]:
    world = World(limits, strict=strict)
    wanted: dict[str, Any] = {} if wish is None else {"subscribe": wish}
    paged: dict[str, Any] = {} if page is None else {"pageId": page}
    world.join("bob", **wanted)
    world.join("cat", **paged)
    ann = world.open() if grant is None else world.open(grant=grant)
    if announced:
        world.say(ann, presence("ann", *([] if grant else ["coder"]), **paged))
    for _ in range(tabs):
        world.join("ann", "coder", **paged)
    world.say(1, text("broadcast", sender="bob", data="hello"))  # so that it may be an echo
    world.say(1, text("ask", sender="bob", turnId="t"))  # so that it may be an answer
    if watched:
        world.mesh.watch(100, world.now)
    world.hush()
    return world, ann


def outcome(world: World) -> tuple[Any, ...]:
    """Everything that can be seen of it."""
    got = [world.texts(connection) for connection in range(1, 4)]
    commands, flow, _ = world.mesh.watch(100, world.now)
    said = sorted(world.mesh.mesh.recent.last(100, world.at))
    return (
        got,
        world.mesh.totals,
        list(map(attrs.astuple, commands)),
        sorted(flow, key=str),
        said,
        world.mesh.kept_bytes,
        world.mesh.work.extra,
    )


def check(kind: dict[str, Any], messages: Sequence[Inbound]) -> None:
    together, ann = world_of(**kind)
    together.say(ann, *messages)
    apart, same = world_of(**kind)
    for message in messages:
        apart.say(same, message)
    assert outcome(together) == outcome(apart)


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", WORLDS.values(), ids=WORLDS)
@given(messages=RUNS)
def test_what_comes_together_is_decided_as_what_comes_one_by_one(
    kind: dict[str, Any], messages: list[Inbound]
) -> None:
    check(kind, messages)


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", WORLDS.values(), ids=WORLDS)
def test_any_two_messages_with_the_same_header_are_decided_as_if_they_came_alone(
    kind: dict[str, Any],
) -> None:
    for row in ALIKE:
        for one, other in itertools.product(row, repeat=2):
            check(kind, (one, other) * 2)


def decisions(world: World, connection: int, *messages: Inbound) -> int:
    """How many decisions of the mesh these take, said at once."""
    with patch.object(Mesh, "said", autospec=True, side_effect=Mesh.said) as said:
        world.mesh.gate._items.said = lambda *given: said(world.mesh.mesh, *given)  # type: ignore[method-assign]
        world.say(connection, *messages)
    return said.call_count


def test_a_run_is_one_decision_whatever_its_messages_say() -> None:
    world, ann = world_of()
    chunk = '{"type":"stream","from":"ann","turnId":"t","data":"%s"}'
    chunks = [(chunk % ("é" * n)).encode() for n in range(30)]
    end = text("turn_end", sender="ann", turnId="t")
    assert decisions(world, ann, text("ack", sender="ann", turnId="t"), *chunks, end) == 3
    agents = [text("stream", sender="coder", turnId="t", data=n) for n in range(30)]
    assert decisions(world, ann, *agents) == 1
    directs = [text("direct", sender="ann", to="bob", data=n) for n in range(30)]
    assert decisions(world, ann, *directs) == 1
    mixed = [text("stream", sender="ann", turnId=str(n % 2)) for n in range(30)]
    assert decisions(world, ann, *mixed) == 30


def test_a_long_text_is_read_only_once() -> None:
    world, ann = world_of()
    long = text("stream", sender="ann", turnId="t", data="x" * 1600)
    with patch.object(
        codec_module, "_decode_header", side_effect=codec_module._decode_header
    ) as read:
        world.say(ann, *[long] * 10)
    assert read.call_count == 10
