"""The examples: those in examples/, and every Python fragment of docs/python.md."""

import re
from typing import Any

import anyio
import pytest

from actors.client.peer import join
from examples import embed
from protocol.member.errors import BadAddress
from tests import ROOT
from tests.worlds.live import LiveRelay

pytestmark = pytest.mark.anyio

PYTHON = ROOT / "docs" / "python.md"
FRAGMENTS = dict(
    re.findall(r"## ([^\n]+)\n+(?:(?!## ).)*?```python\n(.*?)```", PYTHON.read_text(), re.DOTALL)
)


def main_of(heading: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(compile(FRAGMENTS[heading], f"{PYTHON}: {heading}", "exec"), namespace)
    return namespace["main"]


async def test_the_embedding_example_runs() -> None:
    with anyio.fail_after(20):
        log = await embed.main()
    assert log == [
        "worker got {'do': 'it'} from planner-process",
        "page sees ['page', 'planner-process', 'worker-process']",
        "planner got {'chunk': 'hello'}",
        "worker saw page leave",
    ]


@pytest.mark.parametrize(
    ("heading", "result"),
    [
        ("Join, send, receive", {"any": "JSON"}),
        ("Ask an agent", True),
        ("Who is here", ["bob"]),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_documented_example_runs(heading: str, result: Any) -> None:
    with LiveRelay() as live, anyio.fail_after(20):
        assert await main_of(heading)(live.url) == result


async def test_the_example_without_a_socket_runs() -> None:
    with anyio.fail_after(20):
        assert await main_of("A mesh in the same process")() == "no socket needed"


async def test_the_serving_example_answers_the_asking_api() -> None:
    with LiveRelay() as live, anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(main_of("Serve commands"), live.url)
            async with join(live.url, "me") as me:
                while "writer's machine" not in me.roster:
                    await anyio.sleep(0.001)
                turn = me.ask("writer", "a haiku")
                assert [chunk async for chunk in turn][-1] == "splash! silence again\n"
                assert await turn == {"lines": 3, "for": "me"}
            tasks.cancel_scope.cancel()


async def test_the_agentcore_example_is_current() -> None:
    with pytest.raises(BadAddress):
        await main_of("On AgentCore")("no arn", None)


def test_every_fragment_is_run_here() -> None:
    assert set(FRAGMENTS) == {
        "Join, send, receive",
        "Ask an agent",
        "Serve commands",
        "Who is here",
        "A mesh in the same process",
        "On AgentCore",
    }
