"""Tokens: each connection asks for one, and what goes wrong with that is said in a word."""

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import jwt
import pytest
from websockets.asyncio.server import ServerConnection, serve

from actors.client.peer import join
from actors.client.websocket import Address, Token, open_websocket, websocket
from actors.clock import SystemClock
from actors.host.tokens import Auth
from protocol.limits import MembershipLimits
from protocol.member.errors import NoCredentials, Rejected, RelayError
from protocol.member.lifecycle import MemberState
from tests.worlds.live import PATIENCE_S, LiveRelay
from tests.worlds.peers import QUICK, SECRET, given_up, until
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio

KEY = b"a secret of at least 32 bytes, yes"


def minted(**claims: Any) -> str:
    now_s = SystemClock().now().wall_ms // 1000
    return jwt.encode({"sub": "ann", "exp": now_s + 600} | claims, KEY, "HS256")


@pytest.mark.parametrize("kind", ["function", "async function"])
async def test_every_connection_brings_a_token_of_its_own(kind: str) -> None:
    asked: list[str] = []

    def fresh() -> str:
        asked.append(minted(jti=str(len(asked))))
        return asked[-1]

    async def fresh_in_a_while() -> str:
        await anyio.sleep(0.05)
        return fresh()

    token: Token = fresh if kind == "function" else fresh_in_a_while
    with LiveRelay(auth=Auth(secret=KEY)) as live:
        async with Proxy(live.port) as proxy:
            async with join(proxy.url, "ann", token=token, limits=QUICK) as ann:
                await proxy.cut()
                await until(lambda: len(asked) == 2 and ann.state is MemberState.PRESENT)
    assert len(set(asked)) == 2


async def test_a_token_may_be_a_text_and_a_wrong_one_is_rejected_at_once() -> None:
    with LiveRelay(auth=Auth(secret=KEY)) as live:
        async with join(live.url, "ann", token=minted()) as ann:
            assert ann.state is MemberState.PRESENT
        for wrong in (minted(exp=1), "of.nobody.here", None):
            with anyio.fail_after(PATIENCE_S), pytest.raises(Rejected) as rejected:
                async with join(live.url, "ann", token=wrong):
                    pass
            assert rejected.value.status == 401


async def test_a_grant_for_another_peer_is_an_announcement_refused() -> None:
    with LiveRelay(auth=Auth(secret=KEY)) as live:
        with anyio.fail_after(PATIENCE_S), pytest.raises(RelayError) as refused:
            async with join(live.url, "bob", token=minted()):
                pass
    assert getattr(refused.value, "code", None) == "not_granted"


@pytest.mark.parametrize(
    "given", [None, "", 7, b"abc", "a b", f"{SECRET}\r\nX-Evil: 1", f"{SECRET}\n", "t\u00f6ken", []]
)
async def test_what_is_no_token_ends_the_peer_and_is_not_shown(given: Any) -> None:
    with anyio.fail_after(PATIENCE_S), pytest.raises(NoCredentials) as caught:
        async with join("ws://127.0.0.1:1/ws", "ann", token=lambda: given):
            pass
    assert SECRET not in repr(caught.value)


async def test_a_function_that_fails_is_asked_again_and_what_it_says_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = 0

    def broken() -> str:
        nonlocal asked
        asked += 1
        raise ValueError(SECRET)

    error = await given_up("ws://127.0.0.1:1/ws", lambda: asked > 1, token=broken, limits=QUICK)
    assert "ValueError" in str(error)
    assert SECRET not in f"{error!r} {error.__cause__!r}"
    for record in caplog.records:
        assert SECRET not in json.dumps(record.__dict__, default=repr)


async def test_a_function_that_never_answers_is_asked_again() -> None:
    asked = 0
    limits: MembershipLimits = attrs.evolve(QUICK, join_within_s=0.05)

    async def stuck() -> str:
        nonlocal asked
        asked += 1
        await anyio.sleep_forever()
        raise AssertionError

    await given_up("ws://127.0.0.1:1/ws", lambda: asked > 1, token=stuck, limits=limits)


async def test_a_function_may_say_itself_that_there_is_no_token() -> None:
    def logged_out() -> str:
        raise NoCredentials("log in again")

    with anyio.fail_after(PATIENCE_S), pytest.raises(NoCredentials, match="log in again"):
        async with join("ws://127.0.0.1:1/ws", "ann", token=logged_out):
            pass


async def test_a_token_goes_with_a_url() -> None:
    with pytest.raises(TypeError, match="token"):
        join(websocket("ws://x/ws"), "ann", token="t")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_stands_beside_the_other_headers_and_once() -> None:
    seen: list[list[tuple[str, str]]] = []

    async def note(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(list(socket.request.headers.raw_items()))

    async with serve(note, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        address = Address(url, headers={"X-More": "1", "Authorization": "Basic old"})
        connect: Callable[[], Any] = websocket(lambda: address, token="abc.def-_~+/==")
        link = await connect()
        await link.aclose()
        link = await open_websocket(Address(url))
        await link.aclose()
    assert ("X-More", "1") in seen[0]
    given = [value for name, value in seen[0] if name.lower() == "authorization"]
    assert given == ["Bearer abc.def-_~+/=="]
    assert not [value for name, value in seen[1] if name.lower() == "authorization"]
