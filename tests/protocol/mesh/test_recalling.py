"""What was said before: whoever comes later and asks for it gets it, and can tell it from new."""

from typing import Any

import pytest

from protocol.envelope import TEXT_BYTES
from protocol.grants import Grant
from protocol.instant import Instant
from protocol.limits import Limits
from protocol.mesh.recalling import LITTLE_BYTES, Recent
from tests.worlds.mesh import World, presence, text, world_of


def said(n: int, type: str = "stream", **fields: Any) -> bytes:
    return text(type, sender="a", n=n, **fields)


def recalled(world: World, count: object, **options: Any) -> list[Any]:
    """What a newcomer who asks for so many messages gets behind the roster."""
    newcomer = world.join("newcomer", claim={"history": {"messages": count}}, **options)
    got = world.got(newcomer)
    at = [
        m.get("data", {}).get("history") == {"messages": len(got) - i - 1}
        for i, m in enumerate(got)
    ]
    assert True in at, got
    return got[at.index(True) + 1 :]


def numbers(messages: list[Any]) -> list[int]:
    return [message["n"] for message in messages]


def test_whoever_asks_gets_the_last_messages_behind_the_roster_and_is_told_how_many() -> None:
    world = world_of("a", "b")
    for n in range(5):
        world.say(1, said(n))
    c = world.join("c", claim={"history": {"messages": 3}})
    answer, own, *rest = world.texts(c)
    assert b'"history":{"messages":100}' in answer
    assert b'"presence"' in own
    presences, mark, messages = rest[:2], rest[2], rest[3:]
    assert all(b'"presence"' in one for one in presences)
    assert b'"capabilities_response"' in mark
    assert b'"data":{"history":{"messages":3}}' in mark
    assert messages == [said(2), said(3), said(4)]  # byte for byte
    world.say(1, said(5))
    assert world.texts(c) == [said(5)]


def test_only_what_went_to_everyone_is_remembered() -> None:
    world = world_of("a", "b")
    world.say(1, said(1), said(2, "direct", to="b"), said(3, "topic/news"), presence("a", "x"))
    world.say(1, said(4, "cancel", to="b"), said(5, "relay-log"), text("heartbeat"), b"{")
    world.say(1, text("capabilities"), said(6, "error"))
    world.end(2)
    assert numbers(recalled(world, 100)) == [1, 3, 6]


def test_who_does_not_ask_gets_nothing_and_who_asks_for_none_is_told_so() -> None:
    world = world_of("a")
    world.say(1, said(1))
    plain = world.join("plain")
    assert [message["type"] for message in world.got(plain)] == ["presence", "presence"]
    assert recalled(world, 0) == []


def test_the_origin_that_the_relay_adds_is_there_again() -> None:
    world = world_of("a")
    world.say(1, b'{"type":"stream","n":1}')
    assert recalled(world, 1) == [{"type": "stream", "n": 1, "from": "a"}]


def test_who_may_not_watch_gets_none_of_it() -> None:
    world = world_of("a")
    world.say(1, said(1))
    assert recalled(world, 9, grant=Grant(may_watch=False)) == []


def test_it_is_asked_before_the_first_presence_only() -> None:
    world = world_of("a")
    world.say(1, text("capabilities", data={"history": {"messages": 1}}))
    assert world.errors(1) == ["bad_field"]


@pytest.mark.parametrize(
    "wish", [3, None, {}, {"messages": -1}, {"messages": 1.5}, {"messages": True}]
)
def test_a_wish_that_is_none_is_refused_and_nothing_else_of_it_counts(wish: object) -> None:
    world = world_of("a")
    c = world.open()
    secret = "0123456789abcdef"
    world.say(c, text("capabilities", data={"history": wish, "claim": secret}))
    assert world.errors(c) == ["bad_field"]
    world.say(c, text("capabilities", data={"history": {"messages": 1}, "claim": "short"}))
    assert world.errors(c) == ["bad_field"]
    world.say(c, presence("c"))
    assert [message["type"] for message in world.got(c)] == ["presence", "presence"]
    world.join("c")  # it was claimed by nobody


def test_a_wish_stays_if_the_presence_is_refused_and_the_last_one_counts() -> None:
    world = world_of("a")
    world.say(1, said(1), said(2))
    c = world.open()
    for count in (2, 1):
        world.say(c, text("capabilities", data={"history": {"messages": count}}))
    world.say(c, text("presence", sender=""))
    world.hush()
    world.say(c, presence("c"))
    assert [message.get("n") for message in world.got(c)][-1:] == [2]
    world.say(c, presence("c"))  # and is not told again
    assert [message["type"] for message in world.got(c)] == ["presence"]


def test_where_nothing_is_remembered_nothing_is_offered_or_refused() -> None:
    world = world_of("a", limits=Limits(recall_messages_max=0))
    world.say(1, said(1))
    c = world.join("c", claim={"history": {"messages": "x"}})
    answer, *presences = world.got(c)
    assert "history" not in answer["data"]
    assert [message["type"] for message in presences] == ["presence", "presence"]


def remember(recent: Recent, text: bytes, at: float) -> None:
    recent.begin(Instant(at, 0))
    recent.fresh += (text,)


def test_the_memory_is_bounded_in_messages_bytes_and_time() -> None:
    recent = Recent(Limits(recall_messages_max=3, recall_bytes_max=10, recall_s=5.0))
    for n in range(5):
        remember(recent, b"%d" % n, 0.0)
    assert recent.last(9, 0.0) == (b"2", b"3", b"4")
    assert recent.last(2, 0.0) == (b"3", b"4")
    remember(recent, b"12345678", 1.0)
    assert recent.last(9, 1.0) == (b"3", b"4", b"12345678")  # ten bytes
    remember(recent, b"x", 2.0)
    assert recent.last(9, 2.0) == (b"4", b"12345678", b"x")
    assert recent.last(9, 5.0) == (b"4", b"12345678", b"x")
    assert recent.last(9, 5.5) == (b"12345678", b"x")
    remember(recent, b"x" * 11, 6.0)
    assert recent.last(9, 6.0) == ()
    assert recent.bytes == 0


def test_what_is_sorted_in_is_counted_and_bounded() -> None:
    recent = Recent(Limits(recall_messages_max=10))
    for n in range(25):
        remember(recent, b"%02d" % n, float(n // 4))
    assert recent.bytes == LITTLE_BYTES
    recent.settle()
    assert recent.bytes == LITTLE_BYTES + 10 * (2 + TEXT_BYTES)
    assert recent.last(99, 6.0) == tuple(b"%02d" % n for n in range(15, 25))
    recent.clear()
    assert recent.bytes == 0


def test_what_is_remembered_is_counted_and_forgotten_though_nothing_more_is_said() -> None:
    world = world_of("a", limits=Limits(recall_s=100.0))
    before = world.mesh.kept_bytes
    world.say(1, said(1, data="x" * 20000))
    world.mesh.settle()
    assert world.mesh.kept_bytes > before + 20000
    for _ in range(11):
        world.wait(10.0)
        world.say(1, text("heartbeat"))
    assert world.mesh.kept_bytes == before
    world.say(1, said(2))
    world.mesh.shut_down(world.now)
    assert world.mesh.kept_bytes == 0
