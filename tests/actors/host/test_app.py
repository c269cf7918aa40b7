"""What the application answers over HTTP: AgentCore's /ping and /invocations, and pages."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.exceptions import HTTPException

from actors.client.peer import join
from actors.host import home
from actors.host.app import RelayApp
from protocol.member.errors import Rejected
from tests.worlds.live import PATIENCE_S, LiveRelay, Peer


@pytest.mark.anyio
async def test_ping_says_healthy_and_busy_while_anyone_is_connected(visited: LiveRelay) -> None:
    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        assert (await http.get("/ping")).json()["status"] == "Healthy"
        peer = await visited.connect()
        await peer.announce("a")
        assert (await http.get("/ping")).json()["status"] == "HealthyBusy"
        await peer.close()
        with anyio.fail_after(PATIENCE_S):
            while (await http.get("/ping")).json()["status"] != "Healthy":
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_invocations_answer_with_who_is_here_and_details_on_request(
    visited: LiveRelay,
) -> None:
    b = await (await visited.connect()).announce("b", "coder", {"id": "writer"})
    await (await visited.connect()).announce("a")
    await (await visited.connect()).announce("a")
    await b.everything()
    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        plain = (await http.post("/invocations", json={})).json()
        details = (await http.post("/invocations", json={"details": True})).json()
        odd = (await http.post("/invocations", json=["not", "an", "object"])).json()
    assert plain == {"status": "ok", "peers": ["a", "b"], "count": 2} == odd
    mesh = details["meshes"]["default"]
    assert mesh["connections"] == 3
    assert mesh["peers"]["a"]["connections"] == 2
    facts = mesh["peers"]["b"]
    assert facts["state"] == "present"
    assert facts["agents"] == ["coder", "writer"]
    assert 0 <= facts["last_seen_s"] < PATIENCE_S
    assert (facts["mailbox_messages"], facts["mailbox_bytes"]) == (0, 0)
    assert details["totals"]["joined"] == 2
    assert details["held_bytes"] > 2 * 10_000


@pytest.mark.anyio
async def test_ping_and_invocations_are_right_under_load(visited: LiveRelay) -> None:
    peers: list[Peer] = [await (await visited.connect()).announce(f"p{n}") for n in range(10)]

    async def stream(peer: Peer) -> None:
        for n in range(200):
            await peer.send("stream", sender=peer.id, n=n)

    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(stream, peer)
            for _ in range(20):
                assert (await http.get("/ping")).json()["status"] == "HealthyBusy"
                answer = (await http.post("/invocations", json={"details": True})).json()
                assert answer["count"] == 10
                assert set(answer["meshes"]["default"]["peers"]) == {p.id for p in peers}
        for peer in peers:
            await peer.everything()


# Pages --------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The addresses that a page links to or loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.linked: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and tag == "a" and name == "href":
                self.linked.append(value)
            elif value is not None and name in ("href", "src"):
                self.loaded.append(value)


@pytest.fixture
def http(live: LiveRelay) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.http, trust_env=False) as client:
        yield client


def test_the_root_is_a_page_that_says_what_this_is(http: httpx.Client, live: LiveRelay) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<code>ws://127.0.0.1:{live.port}/ws</code>" in answer.text
    assert "relay for agent meshes" in answer.text
    assert {"browser/", "ping"} <= set(Links(answer.text).linked)


@pytest.mark.anyio
async def test_packages_of_others_in_the_folder_of_the_browser_module_are_not_served(
    tmp_path: Path,
) -> None:
    (tmp_path / "node_modules" / "other").mkdir(parents=True)
    (tmp_path / "node_modules" / "other" / "index.js").write_text("theirs")
    (tmp_path / "index.js").write_text("ours")
    transport = httpx.ASGITransport(home.Files(directory=tmp_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
        assert (await http.get("/index.js")).text == "ours"
        for address in ("/node_modules/other/index.js", "/./node_modules/other/index.js"):
            with pytest.raises(HTTPException):
                await http.get(address)


@pytest.mark.parametrize(
    ("present", "linked"),
    [
        ((), ["ping"]),
        (("browser/index.html", "browser/README.md"), ["browser/", "browser/README.md", "ping"]),
        (
            ("browser/index.html", "browser/console/index.html"),
            ["browser/", "console/", "ping"],
        ),
        (
            ("docs/python.md", "docs/protocol.md"),
            ["docs/python.md", "docs/protocol.md", "ping"],
        ),
        (("docs/python.md", "build/docs/index.html"), ["docs/", "ping"]),
    ],
)
def test_the_root_links_to_what_there_is_and_every_link_works(
    present: tuple[str, ...], linked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in present:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    monkeypatch.setattr(home, "BROWSER", tmp_path / "browser")
    monkeypatch.setattr(home, "DOCUMENTS", tmp_path / "docs")
    monkeypatch.setattr(home, "SITE", tmp_path / "build" / "docs")
    with LiveRelay() as live, httpx.Client(base_url=live.http, trust_env=False) as http:
        assert Links(http.get("/").text).linked == linked
        for address in linked:
            found = http.get(f"/{address}", follow_redirects=True)
            assert found.status_code == 200, address
            if address.endswith(".md"):
                assert found.headers["content-type"] == "text/plain; charset=utf-8"
        assert http.get("/docs/nothing.md").status_code == 404


def test_the_root_loads_nothing_runs_nothing_and_is_readable_in_the_dark(
    http: httpx.Client,
) -> None:
    answer = http.get("/")
    assert Links(answer.text).loaded == []
    assert "<script" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "color-scheme: light dark" in answer.text


def test_the_host_of_a_request_is_text_on_the_page() -> None:
    with (
        LiveRelay(allowed_hosts=("*",)) as live,
        httpx.Client(base_url=live.http, trust_env=False) as http,
    ):
        answer = http.get("/", headers={"host": 'x"><script>alert(1)</script>'})
        assert answer.status_code == 200
        assert "<script" not in answer.text
        answer = http.get("/", headers={"host": "a&lt;b"})
        assert "<code>ws://a&amp;lt;b/ws</code>" in answer.text


def test_the_demo_page_names_no_mesh_so_that_it_joins_the_default_one(http: httpx.Client) -> None:
    (field,) = re.findall(r"<input name=\"mesh\"[^>]*>", http.get("/browser/").text)
    assert "value=" not in field


@pytest.mark.anyio
async def test_a_peer_that_names_no_mesh_as_in_the_readme_is_in_the_default_one(
    visited: LiveRelay,
) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with join(visited.url, "me", agents=["planner"]):
            assert [mesh.name for mesh in visited.runtime.status()] == ["default"]


def test_an_application_that_is_not_served_yet_has_read_no_setting() -> None:
    assert RelayApp().settings is None


# How a page finds out why its WebSocket did not open ----------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/ws", "/ws/", "", "/?mesh=default", "/ws/?mesh=default"])
async def test_a_websocket_without_the_path_or_with_a_slash_is_that_of_the_relay(
    visited: LiveRelay, path: str
) -> None:
    here = await (await visited.connect()).announce("here")
    async with join(f"ws://127.0.0.1:{visited.port}{path}", "me") as me:
        assert set(me.roster) == {"here"}
        await me.broadcast("hello")
        assert (await here.until("broadcast"))["data"] == "hello"


@pytest.mark.anyio
async def test_a_websocket_elsewhere_is_answered_that_nothing_is_there(visited: LiveRelay) -> None:
    for path in ("/wss", "/ws/ws", "/ping", "/docs/"):
        with pytest.raises(Rejected, match="no relay is at this path") as caught:
            async with join(f"ws://127.0.0.1:{visited.port}{path}", "me"):
                pass
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("path", "origin", "status", "word"),
    [
        ("/ws", "http://localhost:8000", 426, "WebSocket client"),
        ("/ws/", "https://agi.diy", 426, "WebSocket client"),
        ("/ws", "https://other.example", 403, "origin not allowed"),
        ("/ws", "null", 403, "origin not allowed"),
        ("/nowhere", "https://other.example", 404, "/ws"),
    ],
)
def test_any_page_may_read_why_it_cannot_connect(
    http: httpx.Client, path: str, origin: str, status: int, word: str
) -> None:
    answer = http.get(path, headers={"origin": origin})
    assert answer.status_code == status
    assert word in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/", "/ping"])
def test_no_foreign_page_may_read_anything_else(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"origin": "https://other.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
