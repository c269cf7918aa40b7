"""The examples: those in examples/, and every Python example in docs/ that has a `main`."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest

from actors.client.peer import join
from actors.host.tokens import Auth
from examples import embed
from protocol.member.errors import BadAddress
from tests import ROOT
from tests.worlds.live import PATIENCE_S, LiveRelay

pytestmark = pytest.mark.anyio

PAGES = sorted((ROOT / "docs").rglob("*.md"))


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """Every example of a page: the heading above it, and its code."""
    for section in re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        for code in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            if "def main(" in code:
                yield heading, code


EXAMPLES = {
    (page.stem, heading): [code for other, code in examples(page) if other == heading]
    for page in PAGES
    for heading, _ in examples(page)
}


def main_of(page: str, heading: str, number: int = 0) -> Any:
    namespace: dict[str, Any] = {}
    code = EXAMPLES[page, heading][number]
    exec(compile(code, f"docs/{page}.md: {heading}", "exec"), namespace)
    return namespace["main"]


async def test_the_embedding_example_runs() -> None:
    with anyio.fail_after(PATIENCE_S):
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
        ("What was said before", (True, "the plan is on the table")),
        ("Ask an agent", True),
        ("Who is here", ["bob"]),
        ("Other ways to connect", "present"),
        ("One id, one owner", "ann goes on, elsewhere"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_documented_example_runs(heading: str, result: Any) -> None:
    with LiveRelay() as live, anyio.fail_after(PATIENCE_S):
        assert await main_of("python", heading)(live.url) == result


@pytest.mark.parametrize(
    ("page", "heading", "result"),
    [
        ("python", "A mesh in the same process", "no socket needed"),
        ("embed", "Peers in the same process", "no socket needed"),
        ("embed", "Bind a peer to a user", "not_granted"),
        (
            "embed",
            "Limits, and what you can see",
            "the mesh has 1 connections (connections_max)",
        ),
    ],
)
async def test_an_example_without_a_socket_runs(page: str, heading: str, result: str) -> None:
    with anyio.fail_after(PATIENCE_S):
        assert await main_of(page, heading)() == result


async def test_the_first_agents_ask_and_answer(capsys: pytest.CaptureFixture[str]) -> None:
    coder, planner = (main_of("start", "Your first agents", number) for number in (0, 1))
    with LiveRelay() as live, anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, join(live.url, "me") as me:
            tasks.start_soon(coder, live.url)
            async for change in me.changes():
                if "coder's machine" in change.here:
                    break
            assert await planner(live.url) == "a haiku about ponds"
            tasks.cancel_scope.cancel()
    assert capsys.readouterr().out == "thinking ...\na haiku about ponds\n"


async def test_the_examples_of_joining_ask_and_answer() -> None:
    """Those of docs/join.md: an agent, who asks it, and who asks it without our client."""
    serving, asking = (main_of("join", "Python", number) for number in (0, 1))
    with LiveRelay() as live, anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, join(live.url, "me") as me:
            tasks.start_soon(serving, live.url)
            async for change in me.changes():
                if "my program" in change.here:
                    break
            assert await asking(live.url) == "good morning, ann"
            plain = partial(main_of("join", "Any WebSocket"), live.url)
            assert (await anyio.to_thread.run_sync(plain))["result"] == "good morning, bob"
            tasks.cancel_scope.cancel()


async def test_the_serving_example_answers_the_asking_api() -> None:
    with LiveRelay() as live, anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(main_of("python", "Serve commands"), live.url)
            async with join(live.url, "me") as me:
                async for change in me.changes():
                    if "writer's machine" in change.here:
                        break
                turn = me.ask("writer", "a haiku")
                assert [chunk async for chunk in turn][-1] == "splash! silence again\n"
                assert await turn == {"lines": 3, "for": "me"}
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_the_example_of_cuts_handles_what_comes() -> None:
    said: list[Any] = []
    heard = anyio.Event()

    def handle(message: Any) -> None:
        if message.type != "presence":
            said.append((message.sender, message.data))
            heard.set()

    with LiveRelay() as live, anyio.fail_after(PATIENCE_S):
        async with join(live.url, "bob") as bob, anyio.create_task_group() as tasks:
            tasks.start_soon(main_of("python", "When the connection is cut"), live.url, handle)
            async for message in bob:
                if message.data == "hello":
                    break
            await bob.direct("ann", "hello, too")
            await heard.wait()
            tasks.cancel_scope.cancel()
    assert said == [("bob", "hello, too")]


async def test_the_example_with_a_token_joins() -> None:
    secret = b"a secret of at least 32 bytes, yes"

    async def get_token() -> str:
        return jwt.encode({"sub": "ann", "exp": 2**33}, secret, "HS256")

    with LiveRelay(auth=Auth(secret=secret)) as live, anyio.fail_after(PATIENCE_S):
        assert await main_of("python", "Tokens")(live.url, get_token) == "present"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_the_example_of_a_visitor_has_its_receipts() -> None:
    assert await main_of("embed", "Say something without a peer")() == [0]


async def test_the_agentcore_example_is_current() -> None:
    with pytest.raises(BadAddress):
        await main_of("python", "On AgentCore")("no arn", None)


def test_every_example_is_run_here() -> None:
    assert set(EXAMPLES) == {
        ("embed", "Bind a peer to a user"),
        ("embed", "Limits, and what you can see"),
        ("embed", "Peers in the same process"),
        ("join", "Any WebSocket"),
        ("join", "Python"),
        ("embed", "Say something without a peer"),
        ("python", "A mesh in the same process"),
        ("python", "Ask an agent"),
        ("python", "Join, send, receive"),
        ("python", "One id, one owner"),
        ("python", "Tokens"),
        ("python", "On AgentCore"),
        ("python", "Only what you want"),
        ("python", "Other ways to connect"),
        ("python", "Serve commands"),
        ("python", "When the connection is cut"),
        ("python", "What was said before"),
        ("python", "Who is here"),
        ("start", "Your first agents"),
    }
