"""The relay behind nginx and HAProxy with TLS: the real ones, as docs/proxies/ configures them."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from actors.client.peer import join
from actors.client.websocket import Connector, bearer_subprotocols, websocket
from actors.host import server
from actors.host.server import PING_INTERVAL_S
from actors.host.tokens import TOKEN_CHARS_MAX, Auth
from protocol.member.lifecycle import MemberState
from protocol.session import OAUTH_SUBPROTOCOL, TOKEN_HEADER
from tests import ROOT
from tests.worlds.live import HeldPort, LiveRelay, open_socket
from tests.worlds.peers import QUICK, message_of, until
from tests.worlds.reverse_proxy import KINDS, NAME, SEVERAL, ReverseProxy

pytestmark = pytest.mark.anyio

SECRET = b"a secret of at least 32 bytes, yes"


def minted(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600} | claims, SECRET, "HS256")


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {minted(**claims)}"}


def relay_behind_a_proxy(port: int = 0) -> LiveRelay:
    """As docs/admission.md starts it: it listens on this machine only."""
    return LiveRelay(port=port, auth=Auth(secret=SECRET), allowed_hosts=(NAME,))


@pytest.fixture(scope="module", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReverseProxy]:
    with (
        relay_behind_a_proxy() as relay,
        ReverseProxy(request.param, relay.port, tmp_path_factory.mktemp("proxy")) as proxy,
    ):
        yield proxy


def opened(proxy: ReverseProxy, *, name: str = NAME, query: str = "", **more: Any) -> connect:
    """An opening as a program of another machine makes it, which knows the relay by this name."""
    at: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": proxy.port,
        "ssl": proxy.context,
        "server_hostname": NAME,
    }
    return open_socket(f"{proxy.url(name)}{query}", **at, **more)


async def status(proxy: ReverseProxy, headers: dict[str, str] | None = None, **more: Any) -> int:
    try:
        async with opened(proxy, additional_headers=headers, **more):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def capabilities(socket: ClientConnection) -> dict[str, Any]:
    await socket.send('{"type":"capabilities"}')
    while True:
        message = json.loads(await socket.recv())
        if message["type"] == "capabilities_response":
            return dict(message)


async def test_tokens_get_through_in_headers_and_in_subprotocols(proxy: ReverseProxy) -> None:
    assert await status(proxy) == 401
    assert await status(proxy, bearer(exp=5)) == 401
    assert await status(proxy, bearer(mesh="other")) == 403
    assert await status(proxy, bearer(mesh="team"), query="?mesh=team") == 101
    assert await status(proxy, {TOKEN_HEADER: minted()}) == 101
    offered = [Subprotocol(name) for name in bearer_subprotocols(minted())]
    async with opened(proxy, subprotocols=offered) as socket:
        assert socket.subprotocol == OAUTH_SUBPROTOCOL
        await capabilities(socket)


async def test_a_token_of_any_length_that_counts_gets_through(proxy: ReverseProxy) -> None:
    spare = TOKEN_CHARS_MAX - len(minted(x=""))
    longest = minted(x="x" * (spare * 3 // 4 - 1))
    assert TOKEN_CHARS_MAX - 4 < len(longest) <= TOKEN_CHARS_MAX
    assert await status(proxy, {"Authorization": f"Bearer {longest}"}) == 101
    offered = [Subprotocol(name) for name in bearer_subprotocols(longest)]
    assert await status(proxy, subprotocols=offered) == 101


async def test_a_peer_joins_over_tls(proxy: ReverseProxy) -> None:
    def where(id: str) -> Connector:
        return websocket(proxy.url(), token=minted(sub=id), ssl_context=proxy.context)

    async with (
        join(where("ann"), "ann", agents=["coder"]) as ann,
        join(where("bob"), "bob") as bob,
    ):
        await until(lambda: "ann" in bob.roster)
        text = "x" * 500_000  # in many frames
        await bob.direct("coder", text)
        assert (await message_of(ann, "direct")).data == text


async def test_the_relay_answers_to_the_name_that_it_is_told_and_to_no_other(
    proxy: ReverseProxy,
) -> None:
    assert await status(proxy, bearer()) == 101
    assert await status(proxy, bearer(), name="evil.example") == 421
    spoofed = {"X-Forwarded-Host": NAME, "Forwarded": f"host={NAME}", "X-Host": NAME}
    assert await status(proxy, bearer() | spoofed, name="evil.example") == 421


async def test_headers_that_name_somebody_else_give_nothing(proxy: ReverseProxy) -> None:
    local = "127.0.0.1"
    spoofed = {
        "X-Forwarded-For": local,
        "X-Real-Ip": local,
        "X-Forwarded-Proto": "http",
        "X-Forwarded-User": "ann",
        "X-Forwarded-Prefix": "/other",
        "Forwarded": f"for={local};proto=http",
    }
    assert await status(proxy, spoofed) == 401
    page = {"Origin": "https://evil.example"}
    assert await status(proxy, bearer() | page | spoofed) == 403
    # AgentCore's session names the mesh, also where it is made up: so the grant counts for it.
    session = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "other"}
    assert await status(proxy, bearer(mesh="team") | session, query="?mesh=team") == 403
    async with opened(proxy, additional_headers=bearer(sub="bob") | spoofed) as socket:
        await socket.send('{"type":"presence","from":"ann","data":{"agents":[]}}')
        assert json.loads(await socket.recv())["data"]["code"] == "not_granted"


async def test_pages_and_the_status_are_there_over_tls(proxy: ReverseProxy) -> None:
    async with httpx.AsyncClient(
        verify=proxy.context, trust_env=False, base_url=f"https://localhost:{proxy.port}"
    ) as http:
        told = await http.get("/ws")
        assert told.status_code == 426
        assert f"wss://localhost:{proxy.port}/ws" in told.text or "wss://localhost/ws" in told.text
        assert (await http.post("/invocations", json={})).status_code == 401
        answer = await http.post("/invocations", json={}, headers=bearer())
        assert answer.json()["status"] == "ok"


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_restart_of_the_relay_its_peers_are_back(kind: str, tmp_path: Path) -> None:
    with HeldPort() as port, relay_behind_a_proxy(port) as first:
        with ReverseProxy(kind, port, tmp_path) as proxy:
            where = websocket(proxy.url(), token=minted, ssl_context=proxy.context)
            async with join(where, "ann", limits=QUICK) as ann:
                await anyio.to_thread.run_sync(first.stop)
                await until(lambda: ann.state is not MemberState.PRESENT)
                with relay_behind_a_proxy(port) as second:
                    await until(lambda: ann.state is MemberState.PRESENT)
                    await anyio.to_thread.run_sync(second.stop)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_says_nothing_stays_connected_as_long_as_the_relay_pings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy cuts a connection without pings; one that is older, but has them, stays."""
    ends = [tmp_path / "pinged", tmp_path / "silent"]
    for end in ends:
        end.mkdir()
    monkeypatch.setattr(server, "PING_INTERVAL_S", 0.2)
    with relay_behind_a_proxy() as pinging:
        monkeypatch.setattr(server, "PING_INTERVAL_S", 3600)
        with (
            relay_behind_a_proxy() as silent,
            ReverseProxy(kind, pinging.port, ends[0], timeouts="3s") as in_front,
            ReverseProxy(kind, silent.port, ends[1], timeouts="3s") as in_front_of_silent,
        ):
            quiet: dict[str, Any] = {"additional_headers": bearer(), "ping_interval": None}
            async with opened(in_front, **quiet) as pinged:
                async with opened(in_front_of_silent, **quiet) as cut:
                    with pytest.raises(ConnectionClosed) as closed:
                        await cut.recv()
                    assert closed.value.rcvd is None  # by the proxy, not by the relay
                await capabilities(pinged)


# Several relays -----------------------------------------------------------------------------------


async def is_in(relay: LiveRelay, proxy: ReverseProxy, query: str, **more: Any) -> bool:
    """Is it this relay that such an opening reaches?"""
    before = relay.runtime.connections
    async with opened(proxy, query=query, additional_headers=bearer() | more) as socket:
        await capabilities(socket)
        reached = relay.runtime.connections > before
    await until(lambda: relay.runtime.connections == before)
    return reached


@pytest.mark.parametrize("kind", SEVERAL)
async def test_each_mesh_is_in_one_of_several_relays(kind: str, tmp_path: Path) -> None:
    with relay_behind_a_proxy() as one, relay_behind_a_proxy() as other:
        with ReverseProxy(kind, (one.port, other.port), tmp_path) as proxy:
            names = [f"team-{number}" for number in range(20)]
            places = {name: await is_in(one, proxy, f"?mesh={name}") for name in names}
            assert set(places.values()) == {True, False}
            for name, place in places.items():
                assert await is_in(one, proxy, f"?a=1&mesh={name}&b=2") == place
            # The default mesh has one name, however it is said.
            default = [await is_in(one, proxy, query) for query in ("", "?mesh=", "?mesh=default")]
            assert len({*default}) == 1
            # AgentCore's session names no mesh here, or two peers of a mesh might not meet.
            session = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "s" * 33}
            async with opened(
                proxy, query="?mesh=team-1", additional_headers=bearer() | session
            ) as socket:
                await socket.send('{"type":"presence","from":"ann","data":{"agents":[]}}')
                await socket.recv()
                meshes = (*one.runtime.status(), *other.runtime.status())
                assert [mesh.name for mesh in meshes if mesh.peers] == ["team-1"]


@pytest.mark.parametrize("kind", SEVERAL)
async def test_one_name_of_a_mesh_never_leads_to_two_relays(kind: str, tmp_path: Path) -> None:
    """HAProxy reads what is written with signs; nginx cannot, and refuses it."""
    with relay_behind_a_proxy() as one, relay_behind_a_proxy() as other:
        with ReverseProxy(kind, (one.port, other.port), tmp_path) as proxy:
            for number in range(8):
                ways = (f"?mesh=a+{number}", f"?mesh=a%20{number}", f"?mesh=%61+{number}")
                if kind == "nginx":
                    assert {await status(proxy, bearer(), query=way) for way in ways} == {400}
                else:
                    assert len({await is_in(one, proxy, way) for way in ways}) == 1


@pytest.mark.parametrize("kind", SEVERAL)
async def test_no_other_relay_takes_the_meshes_of_one_that_is_away(
    kind: str, tmp_path: Path
) -> None:
    with HeldPort() as port, relay_behind_a_proxy() as one:
        with ReverseProxy(kind, (one.port, port), tmp_path) as proxy:
            with relay_behind_a_proxy(port) as other:
                names = [f"team-{number}" for number in range(20)]
                away = [name for name in names if await is_in(other, proxy, f"?mesh={name}")]
                (here, *_) = {*names} - {*away}
            for _ in range(2):  # HAProxy tries for 3 s each time
                assert await status(proxy, bearer(), query=f"?mesh={away[0]}") in (502, 503)
                assert await is_in(one, proxy, f"?mesh={here}")
            with relay_behind_a_proxy(port) as other:
                assert await is_in(other, proxy, f"?mesh={away[0]}")


@pytest.mark.parametrize("file", [*KINDS.values(), *SEVERAL.values()])
def test_the_proxies_wait_longer_than_the_relay_is_silent(file: str) -> None:
    written = (ROOT / "docs" / "proxies" / file).read_text()
    idle = re.findall(
        r"(?:proxy_(?:read|send)_timeout|timeout (?:client|server|tunnel)) +(\S+?);?\n", written
    )
    assert idle
    assert all(time == "60s" for time in idle)
    assert 3 * PING_INTERVAL_S <= 60
