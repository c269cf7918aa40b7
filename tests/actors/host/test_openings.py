"""Openings: who may connect, to which mesh, and with what answer to those who may not."""

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from protocol.limits import Limits
from tests.worlds.live import LiveRelay, open_sync


def open_socket(port: int, query: str = "", **kwargs: Any) -> Any:
    return open_sync(f"ws://127.0.0.1:{port}/ws{query}", **kwargs)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://localhost:5173", 101),
        ("http://127.0.0.1", 101),
        ("http://[::1]:80", 101),
        ("https://agi.diy", 101),
        ("https://evil.example", 403),
        ("https://agi.diy.evil.example", 403),
        ("http://agi.diy", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_pages_of_other_origins_are_refused_and_the_log_says_which_setting_to_change(
    live: LiveRelay, origin: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Origin": origin} if origin is not None else {}
    try:
        with open_socket(live.port, additional_headers=headers):
            pass
    except InvalidStatus as refused:
        assert refused.response.status_code == status == 403
        assert "--allowed-origins" in caplog.text
        assert "RELAY_ALLOWED_ORIGINS" in caplog.text
    else:
        assert status == 101


def test_a_setting_lets_other_origins_in() -> None:
    with LiveRelay(allowed_origins=("https://my.example",)) as live:
        with open_socket(live.port, additional_headers={"Origin": "https://my.example"}):
            pass
        with (
            pytest.raises(InvalidStatus),
            open_socket(live.port, additional_headers={"Origin": "http://localhost"}),
        ):
            pass
    with LiveRelay(allowed_origins=("*",)) as live:
        with open_socket(live.port, additional_headers={"Origin": "https://any.example"}):
            pass


@pytest.mark.anyio
async def test_the_agentcore_session_names_the_mesh_before_the_query_does(
    visited: LiveRelay,
) -> None:
    session = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": "s" * 40}
    a = await (await visited.connect("ignored", additional_headers=session)).announce("a")
    b = await (await visited.connect("s" * 40)).announce("b")
    c = await (await visited.connect("ignored")).announce("c")
    text = await a.send("broadcast", sender="a")
    assert text in await b.everything()
    assert text not in await c.everything()


@pytest.mark.anyio
async def test_the_bearer_subprotocol_of_oauth_runtimes_is_chosen(visited: LiveRelay) -> None:
    offered = ["base64UrlBearerAuthorization.dG9rZW4", "base64UrlBearerAuthorization"]
    peer = await visited.connect(subprotocols=offered)
    assert peer.socket.subprotocol == "base64UrlBearerAuthorization"


def test_beyond_the_bounds_an_opening_is_refused_with_a_reason() -> None:
    def refusal(query: str) -> tuple[int, bytes]:
        with pytest.raises(InvalidStatus) as refused, open_socket(live.port, query):
            pass
        response = refused.value.response
        return response.status_code, bytes(response.body or b"")

    with LiveRelay(limits=Limits(connections_max=1, meshes_max=1)) as live:
        with open_socket(live.port) as peer:
            peer.send('{"type":"presence","from":"a"}')
            peer.recv()
            full, other = refusal(""), refusal("?mesh=other")
        assert full[0] == other[0] == 503
        assert b"connections_max" in full[1]
        assert b"meshes_max" in other[1]
        assert refusal("?mesh=" + "x" * 257)[0] == 400


def test_compression_is_off(live: LiveRelay) -> None:
    with open_socket(live.port, compression="deflate") as peer:
        assert peer.response is not None
        assert "Sec-WebSocket-Extensions" not in peer.response.headers
