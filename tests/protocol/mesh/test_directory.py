"""Existing pages find the agents of a mesh in the answer to `capabilities`."""

import json
from typing import Any

import pytest

from protocol.agents import Agent, agent_id
from protocol.grants import Grant
from protocol.limits import Limits
from protocol.mesh.directory import EMPTY, directory
from tests.worlds.mesh import World, presence, text


def told(world: World, connection: int) -> tuple[list[Any], list[str]]:
    """The cards and the ids that this connection is told."""
    world.hush()
    world.say(connection, text("capabilities"))
    (answer,) = world.got(connection)
    return answer["data"]["agentCards"], answer["data"]["activeAgents"]


def card(announced: Any) -> Any:
    """The card of one agent, None if it is left out."""
    made = directory([Agent(agent_id(announced), json.dumps(announced).encode())], 10_000)
    cards, active = json.loads(made.cards), json.loads(made.active)
    assert len(cards) == len(active) <= 1
    return cards[0] if cards else None


def test_a_page_that_asks_when_it_opens_gets_the_agents_of_all_peers() -> None:
    world = World()
    page = world.open()
    assert told(world, page) == ([], [])
    helper = {"agentId": "h", "description": "helps", "skills": [{"tags": ["x"]}], "weight": 1.50}
    world.join("a", "coder", helper, {"color": "red"})
    world.join("b", {"name": "critic"}, "coder")
    cards, active = told(world, page)
    assert active == ["coder", "h", "critic"]
    assert cards == [{"name": "coder"}, {**helper, "name": "h"}, {"name": "critic"}]
    world.say(page, presence("page", "mine"))
    assert told(world, page)[1] == ["coder", "h", "critic", "mine"]


def test_the_agents_are_those_that_are_here_now() -> None:
    world = World()
    a, b = world.join("a", "x"), world.join("b", "y")
    assert told(world, b)[1] == ["x", "y"]
    world.say(a, text("heartbeat", data={"agents": ["z", {"id": "x", "description": "new"}]}))
    assert told(world, b)[0] == [
        {"name": "z"},
        {"id": "x", "description": "new", "name": "x"},
        {"name": "y"},
    ]
    world.end(a)
    assert told(world, b) == ([{"name": "y"}], ["y"])


def test_who_may_not_watch_is_told_of_no_agents() -> None:
    world = World()
    world.join("a", "x")
    blind = world.join("b", grant=Grant(may_watch=False))
    assert told(world, blind) == ([], [])


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        ("coder", {"name": "coder"}),
        ({"id": "x", "name": "The X"}, {"id": "x", "name": "The X"}),
        ({"agentId": "x", "name": 5}, {"agentId": "x", "name": "x"}),
        ({"id": "x", "n": 1e300, "m": 1.50}, {"id": "x", "n": 1e300, "m": 1.5, "name": "x"}),
        ({"name": "x", "skills": "all"}, {"name": "x"}),
        ({"name": "x", "skills": ["a", None]}, {"name": "x"}),
        ({"name": "x", "skills": ["a", {}]}, {"name": "x", "skills": ["a", {}]}),
        ({"name": "x", "description": 5, "provider": None}, {"name": "x"}),
        (
            {"name": "x", "description": 'it\'s "fine"'},
            {"name": "x", "description": 'it\'s "fine"'},
        ),
        ({"id": "x", "name": "half \ud83d"}, {"id": "x", "name": "half \ufffe"}),
    ],
    ids=str,
)
def test_a_card_is_what_was_announced_as_far_as_pages_can_read_it(
    announced: Any, expected: Any
) -> None:
    assert card(announced) == expected


@pytest.mark.parametrize(
    "announced",
    [
        "<img src=x>",
        'x" onclick="y',
        "x' y",
        "a&lt;b",
        "a`b",
        {"id": "x", "description": "<b>"},
        {"id": "x", "provider": {"organization": "a<b"}},
        {"id": "<", "name": "fine"},
        {"id": "fine", "name": "it's"},
        {"color": "red"},
    ],
    ids=str,
)
def test_what_a_page_would_take_for_html_is_left_out(announced: Any) -> None:
    assert card(announced) is None


def test_an_escaped_bracket_is_a_bracket() -> None:
    made = directory([Agent("x", b'{"id":"x","description":"\\u003cb>"}')], 1000)
    assert made == EMPTY


def test_as_many_agents_are_told_as_the_bound_lets_in() -> None:
    agents = [Agent(f"agent {n}", b'"agent %d"' % n) for n in range(1000)]
    for bytes_max in (1024, 5000, 2**14):
        made = directory(agents, bytes_max)
        assert bytes_max - 100 < made.bytes <= bytes_max
        ids = [one.id for one in agents]
        active = json.loads(made.active)
        assert active == ids[: len(active)] == [one["name"] for one in json.loads(made.cards)]


def test_where_the_answer_would_be_too_long_it_has_no_agents() -> None:
    limits = Limits(message_bytes_max=1024, presence_bytes_max=1024)
    world = World(limits)
    a = world.join("a", *(f"agent {n} " + "x" * 60 for n in range(9)))
    assert told(world, a) == ([], [])


def test_the_lists_are_made_anew_only_when_agents_have_changed() -> None:
    world = World()
    a = world.join("a", "x")
    roster = world.mesh.mesh.roster
    first = roster.directory(1000)
    world.say(a, presence("a", "x", hostname="other"), text("heartbeat"))
    assert roster.directory(1000) is first
    world.say(a, presence("a", "y"))
    assert roster.directory(1000) is not first


def test_a_long_answer_counts_as_much_work() -> None:
    world = World()
    a = world.join("a", *(f"agent {n}" for n in range(200)))
    world.mesh.work.take()
    world.say(a, text("capabilities"))
    assert world.mesh.work.take() > 20
