"""A page in Chromium that comes late to a real relay: what was said before is there, and is old."""

from collections.abc import Callable
from typing import Any

import pytest

from protocol.limits import Limits
from tests.browser.test_pages import Plain, context, open_page, plain, portal, until
from tests.worlds.live import LiveRelay

__all__ = ["context", "open_page", "plain", "portal"]

pytest.importorskip("playwright.sync_api", reason="needs playwright")

JOIN = """async ({ url, history }) => {
    window.told = [];
    window.served = [];
    const note = ({ type, data, isOld }) => type !== "presence" && told.push([data, isOld]);
    window.peer = client.connect({ url, id: "ann", agents: ["coder"], history });
    peer.on("message", note);
    peer.serve(({ text }) => { served.push(text); });
    await peer.joined;
    return told;
}"""


def test_a_page_that_asks_gets_what_was_said_before_and_serves_none_of_it(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob")
    for n in range(5):
        bob.send("broadcast", data=n)
        bob.send("direct", to="bob", data="private")
    bob.send("broadcast", turnId="c-1", data={"command": "old"})
    page = open_page()
    old = page.evaluate(JOIN, {"url": live.url, "history": 3})
    assert old == [[3, True], [4, True], [{"command": "old"}, True]]
    bob.send("broadcast", turnId="c-2", data={"command": "new"})
    assert bob.until("turn_end")["turnId"] == "c-2"
    assert page.evaluate("served") == ["new"]
    assert page.evaluate("told.at(-1)") == [{"command": "new"}, False]
    page.evaluate("peer.leave()")


def test_a_page_gets_nothing_from_a_relay_that_remembers_nothing(
    open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    with LiveRelay(Limits(recall_messages_max=0)) as live:
        bob = plain(live, "bob")
        bob.send("broadcast", data=1)
        page = open_page()
        assert page.evaluate(JOIN, {"url": live.url, "history": 50}) == []
        bob.send("broadcast", data=2)
        until(page, "() => told.length > 0")
        assert page.evaluate("told") == [[2, False]]
        page.evaluate("peer.leave()")
