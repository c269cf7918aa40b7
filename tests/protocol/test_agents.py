"""An agent's id is read in one way: by the relay, by peers in Python, and (vectors) by pages."""

import json
from typing import Any

import pytest

from protocol.agents import agent_id
from protocol.codec import Codec
from protocol.envelope import Refusal
from protocol.limits import Limits
from protocol.member.messages import Message, RemotePeer
from tests.vectors.files import read
from tests.worlds.mesh import World, presence

CASES = read("agents")


def test_a_string_is_an_id_and_an_object_has_the_first_name_that_is_one() -> None:
    assert agent_id("coder") == "coder"
    assert agent_id({"agentId": "a", "id": "b", "name": "c"}) == "a"
    assert agent_id({"agentId": 5, "id": "x"}) == "x"
    assert agent_id({"agentId": "", "id": "x"}) == "x"
    assert agent_id({"agentId": None, "name": "c"}) == "c"


@pytest.mark.parametrize("agent", ["", 7, None, True, [], ["x"], {}, {"agentId": ""}, {"id": 0}])
def test_what_names_nobody_has_no_id(agent: Any) -> None:
    assert agent_id(agent) is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_relay_and_a_peer_read_what_the_vectors_say(case: dict[str, Any]) -> None:
    agent, id = case["arguments"]["agent"], case["returns"]
    text = json.dumps({"type": "presence", "from": "bob", "data": {"agents": [agent]}})
    if (agent and isinstance(agent, (str, dict))) or agent == {}:
        announced = Codec(Limits()).announcement(text.encode()).agents
        assert announced is not None
        assert [found.id for found in announced] == [id]
    else:  # nor is it an agent
        with pytest.raises(Refusal):
            Codec(Limits()).announcement(text.encode())
    peer = RemotePeer.of(Message(json.loads(text)))
    assert peer.agents == (() if id is None else (id,))


@pytest.mark.parametrize("agent", [{"agentId": 5, "id": "x"}, {"agentId": "", "id": "x"}])
def test_a_direct_reaches_the_peer_whose_agent_has_that_id(agent: dict[str, Any]) -> None:
    world = World()
    bob, ann = world.open(), world.join("ann")
    world.say(bob, presence("bob", agent))
    world.hush()
    world.say(ann, b'{"type":"direct","from":"ann","to":"x","data":1}')
    assert [message["data"] for message in world.got(bob)] == [1]
