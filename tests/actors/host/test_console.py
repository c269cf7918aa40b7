"""The console over HTTP: its page under a strict policy, its stream, and who may read it."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest

from actors.host.home import CONSOLE_POLICY
from actors.host.observing import OBSERVERS_MAX
from actors.host.tokens import Auth
from tests.actors.host.test_admission import SECRET, minted
from tests.worlds.live import PATIENCE_S, LiveRelay

pytestmark = pytest.mark.anyio


async def events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    """The events of a stream of server-sent events."""
    type = ""
    async for line in lines:
        if line.startswith("event: "):
            type = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield type, json.loads(line.removeprefix("data: "))


def client(live: LiveRelay, **kwargs: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=live.http, trust_env=False, timeout=PATIENCE_S, **kwargs)


async def test_the_stream_has_a_state_and_then_changes(visited: LiveRelay) -> None:
    await (await visited.connect("m")).announce("ann", "coder")
    async with client(visited) as http, http.stream("GET", "/console/stream?mesh=m") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = events(answer.aiter_lines())
        type, state = await anext(told)
        assert (type, list(state["peers"]), state["mesh"]) == ("state", ["ann"], "m")
        await (await visited.connect("m")).announce("bob")
        type, change = await anext(told)
        assert (type, set(change["peers"])) == ("change", {"ann", "bob"}), "ann was told"


async def test_behind_the_edge_the_stream_comes_by_invocations(visited: LiveRelay) -> None:
    session = {"x-amzn-bedrock-agentcore-runtime-session-id": "s" * 33}
    await (await visited.connect("s" * 33)).announce("ann")
    for headers, body in ((session, {"observe": True}), ({}, {"observe": True, "mesh": "s" * 33})):
        async with (
            client(visited, headers=headers) as http,
            http.stream("POST", "/invocations", json=body) as answer,
        ):
            type, state = await anext(events(answer.aiter_lines()))
            assert (type, list(state["peers"])) == ("state", ["ann"])


@pytest.mark.parametrize("mesh", [5, [], "", None])
async def test_what_is_no_mesh_is_the_default_one(live: LiveRelay, mesh: Any) -> None:
    body = {"observe": True, "mesh": mesh}
    async with client(live) as http, http.stream("POST", "/invocations", json=body) as answer:
        _, state = await anext(events(answer.aiter_lines()))
        assert state["mesh"] == "default"


async def test_too_many_observers_are_told_to_come_later(live: LiveRelay) -> None:
    async with client(live) as http:
        async with AsyncExitStack() as streams:
            told = []  # (a stream that nobody has is closed)
            for _ in range(OBSERVERS_MAX):
                stream = http.stream("GET", "/console/stream")
                told.append(events((await streams.enter_async_context(stream)).aiter_lines()))
                await anext(told[-1])
            refused = await http.get("/console/stream")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "watching already" in refused.text
        with anyio.fail_after(PATIENCE_S):
            while True:  # the relay hears that they have gone
                async with http.stream("GET", "/console/stream") as answer:
                    if answer.status_code == 200:
                        break


async def test_the_stream_ends_with_the_relay() -> None:
    with LiveRelay() as live:
        async with client(live) as http, http.stream("GET", "/console/stream") as answer:
            told = events(answer.aiter_lines())
            await anext(told)
            live.server.should_exit = True
            with anyio.fail_after(PATIENCE_S):
                async for _ in told:
                    pass


@pytest.mark.parametrize("path", ["/console/stream", "/console/where", "/metrics"])
async def test_whoever_looks_needs_the_right_to_watch_all_meshes(path: str) -> None:
    with LiveRelay(auth=Auth(secret=SECRET)) as live:
        async with client(live) as http:
            assert (await http.get(path)).status_code == 401
            tokens = [minted(mesh=["one"]), minted(may=["send"]), minted()]
            statuses = []
            for token in tokens:
                bearer = {"authorization": f"Bearer {token}"}
                async with http.stream("GET", path, headers=bearer) as answer:
                    statuses.append(answer.status_code)
            assert statuses == [403, 403, 200]


@pytest.mark.parametrize("path", ["/console/stream", "/console/where", "/metrics"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},  # an <img> has no origin, and takes an observer's place
        {"sec-fetch-site": "same-site"},  # localhost, at another port
    ],
)
async def test_pages_of_others_do_not_look(
    live: LiveRelay, path: str, headers: dict[str, str]
) -> None:
    async with client(live) as http:
        assert (await http.get(path, headers=headers)).status_code == 403
        for site in ("same-origin", "none"):
            async with http.stream("GET", path, headers={"sec-fetch-site": site}) as answer:
                assert answer.status_code == 200


async def test_the_page_is_at_console_and_may_load_nothing_from_elsewhere(live: LiveRelay) -> None:
    async with client(live) as http:
        for path in ("/console", "/console/", "/console/?mesh=m"):
            moved = await http.get(path)
            assert moved.status_code == 307
            page = await http.get(path, follow_redirects=True)
            assert page.url.path == "/browser/console/"
            assert page.url.query.decode() == path.partition("?")[2]
            assert page.headers["content-security-policy"] == CONSOLE_POLICY
        assert "content-security-policy" not in (await http.get("/browser/")).headers
        root = await http.get("/")
        assert 'href="console/"' in root.text


async def test_it_says_where_the_mesh_is(live: LiveRelay) -> None:
    async with client(live) as http:
        for query, url in (("?mesh=a%20b", "?mesh=a+b"), ("", ""), ("?mesh=", "")):
            answer = (await http.get(f"/console/where{query}")).json()
            assert answer == {"url": f"ws://127.0.0.1:{live.port}/ws{url}", "peer": None}
