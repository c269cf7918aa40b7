"""A page in Chromium that wants only some of what others say, at a real relay."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.test_pages import Plain, context, open_page, plain, portal, until
from tests.worlds.live import LiveRelay

__all__ = ["context", "open_page", "plain", "portal"]

pytest.importorskip("playwright.sync_api", reason="needs playwright")

JOIN = """async ({ url, subscribe }) => {
    window.told = [];
    window.came = [];
    const native = window.WebSocket;
    window.WebSocket = class extends native {
        constructor(...how) {
            super(...how);
            this.addEventListener("message", ({ data }) => {
                for (const { type, from } of [JSON.parse(data)].flat())
                    if (type !== "presence" && from !== "relay") came.push(type);
            });
        }
    };
    window.peer = client.connect({ url, id: "ann", agents: ["coder"], subscribe });
    peer.on("message", ({ type, data }) => type !== "presence" && told.push(data));
    peer.serve(({ text }) => text.toUpperCase());
    await peer.joined;
}"""


def test_a_page_gets_what_it_wants_and_nothing_else_comes(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob, carol = plain(live, "bob"), plain(live, "carol")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "subscribe": {"others": False, "types": ["price"]}})

    def say_everything() -> None:
        bob.send("stream", turnId="t", to="carol", data={"chunk": "a", "chunkNum": 1})
        bob.send("broadcast", to="carol", data="to carol")
        bob.send("price", to="carol", data=1)
        bob.send("price", data=2)
        bob.send("direct", to="ann", data="direct")
        until(page, "() => told.includes('direct')")

    say_everything()
    assert page.evaluate("told") == [2, "direct"]
    assert page.evaluate("came") == ["price", "direct"]

    bob.send("broadcast", turnId="c-1", data={"command": "go"})
    assert carol.until("turn_end")["data"]["result"] == "GO"

    page.evaluate("() => { told.length = came.length = 0; return peer.subscribe(false); }")
    say_everything()
    assert page.evaluate("[told, came]") == [["direct"], ["direct"]]

    page.evaluate("() => { window.turn = peer.ask('bob', 'count'); }")
    turn = bob.until("direct")["turnId"]
    bob.send("turn_end", turnId=turn, data={"result": 7})  # as pages answer, to everyone
    assert page.evaluate("turn.result()") == 7
    page.evaluate("peer.leave()")
