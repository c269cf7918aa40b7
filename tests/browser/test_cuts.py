"""What a page loses when its network fails: nothing, as long as it can come back. Else it is told.

A page in Chromium behind a proxy that spoils its connections, and bob, who is never cut, at a real
relay. Both number what they say.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from actors.client.command import Command
from actors.client.peer import join
from protocol.limits import Limits
from tests.browser.test_pages import JOIN, context, open_page, portal, until
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay, WebSocketPeer
from tests.worlds.proxy import Proxy

__all__ = ["context", "open_page", "portal"]

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

LOOKS_MAX = 20
HEARD = "seen.filter(({ from, type }) => from === 'bob' && type !== 'presence').map((m) => m.data)"
LISTEN = f"""() => {{
    window.told = {{ resumed: 0, gap: [] }};
    peer.on("resumed", () => {{ told.resumed += 1; }});
    peer.on("gap", ({{ reason, inDoubt }}) => {{
        const before = {HEARD}.length;
        told.gap.push({{ reason, before, inDoubt: inDoubt.map(({{ data }}) => data) }});
    }});
}}"""
TALK = """() => {
    window.said = 0;
    window.isTalking = true;
    window.talk = (async () => {
        while (isTalking) {
            const sending = Array.from({ length: 12 }, () => peer.broadcast((said += 1)));
            await Promise.all(sending);
            await new Promise((resolve) => setTimeout(resolve, 16));
        }
    })();
}"""


class Bob:
    """A peer over a plain WebSocket that says numbers and notes what it hears, until it is told to
    stop. Every third number goes to ann alone."""

    def __init__(self, peer: WebSocketPeer) -> None:
        self.peer = peer
        self.said = 0
        self.heard: list[int] = []
        self.presences: list[dict[str, Any]] = []
        self.is_talking = True
        self.offline = anyio.Event()

    async def until_offline(self) -> None:
        """Until it hears that somebody is."""
        await self.offline.wait()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            while self.is_talking:
                self.said += 1
                kind: dict[str, Any] = {"type": "broadcast"}
                if self.said % 3 == 0:
                    kind = {"type": "direct", "to": "ann"}
                await self.peer.send(**kind, sender="bob", data=self.said)
                await anyio.sleep(0.003)

    async def _listen(self) -> None:
        while True:
            message = await self.peer.receive()
            if message["type"] == "presence":
                self.presences.append(message)
                if message["data"].get("status") == "offline":
                    self.offline.set()
            elif message["data"] == "enough":
                return
            elif message["type"] == "broadcast":
                self.heard.append(message["data"])


@pytest.fixture
def bob(live: LiveRelay, portal: Any) -> Iterator[Bob]:
    peer = portal.call(live.connect)
    portal.call(peer.announce, "bob")
    yield Bob(peer)
    portal.call(peer.close)


@pytest.fixture
def proxy(live: LiveRelay, portal: Any) -> Iterator[Proxy]:
    with portal.wrap_async_context_manager(Proxy(live.port)) as proxy:
        yield proxy


Break = Callable[[Any, Proxy, int], None]


def cut(portal: Any, proxy: Proxy, _: int) -> None:
    portal.call(proxy.cut)


def lose(portal: Any, proxy: Proxy, number: int) -> None:
    """The last bytes do not arrive. It ends at another place each time, also within a frame."""
    portal.call(proxy.lose, number * 37)
    portal.call(anyio.sleep, 0.05)
    portal.call(proxy.cut)


def half_open(portal: Any, proxy: Proxy, _: int) -> None:
    portal.call(proxy.cut_clients)


def talk(page: Any, url: str, bob: Bob, portal: Any, **options: Any) -> Any:
    """Both begin to talk. Returns what bob does."""
    page.evaluate(JOIN, {"url": url, "id": "ann", **options})
    page.evaluate(LISTEN)
    page.evaluate(TALK)
    return portal.start_task_soon(bob.run)


def until_noticed(page: Any, condition: str, look: Callable[[], object]) -> None:
    """Let the page look whether its connection is alive, until it has noticed that it is not. What
    had come before one look it may read after that, on a busy machine, and take for an answer."""
    for _ in range(LOOKS_MAX):
        look()
        with suppress(playwright.TimeoutError):
            until(page, condition, within_ms=2000)
            return
    pytest.fail("the page has not noticed it")


def end(page: Any, bob: Bob, talking: Any) -> tuple[list[Any], dict[str, Any]]:
    """Both have said everything, and heard what there is. Returns what the page has heard of bob,
    and what else it was told."""
    page.evaluate("async () => { isTalking = false; await talk; await peer.broadcast('enough'); }")
    bob.is_talking = False
    talking.result(PATIENCE_S)
    until(page, f"(last) => {HEARD}.at(-1) === last", bob.said)
    return page.evaluate(HEARD), page.evaluate("told")


def check_whole(page: Any, bob: Bob, talking: Any) -> dict[str, Any]:
    """Everything has arrived, once, in order, both ways, and nobody heard of anything else."""
    heard, told = end(page, bob, talking)
    assert bob.heard == list(range(1, page.evaluate("said") + 1))
    assert heard == list(range(1, bob.said + 1))
    assert not any(one["data"].get("status") for one in bob.presences)
    assert told["gap"] == []
    page.evaluate("peer.leave()")
    return told


@pytest.mark.parametrize("trouble", [cut, lose, half_open])
def test_over_ten_cuts_nothing_is_lost_doubled_or_out_of_order_either_way(
    open_page: Callable[..., Any], portal: Any, proxy: Proxy, bob: Bob, trouble: Break
) -> None:
    page = open_page()
    limits = {"unreportedFramesMax": 5, "hedgeAfterS": 60, "hedgeMaxS": 61}  # sockets are counted
    talking = talk(page, proxy.url, bob, portal, limits=limits)
    for number in range(10):
        until(page, f"(count) => {HEARD}.length > count", 20 * number)
        trouble(portal, proxy, number)
        until(page, "(count) => told.resumed > count", number)
    assert check_whole(page, bob, talking)["resumed"] == 10
    assert proxy.opened == 11


def test_a_connection_that_died_unnoticed_costs_nothing_once_the_page_is_online_again(
    context: Any, open_page: Callable[..., Any], portal: Any, proxy: Proxy, bob: Bob
) -> None:
    """From one network to another: nothing closes the old socket, at either end."""
    page = open_page()
    talking = talk(page, proxy.url, bob, portal, limits={"probeWithinS": 0.5})
    until(page, f"() => {HEARD}.length > 20")
    portal.call(proxy.lose)

    def change_networks() -> None:
        context.set_offline(True)
        context.set_offline(False)

    until_noticed(page, "() => told.resumed >= 1", change_networks)
    check_whole(page, bob, talking)


def test_a_stall_that_the_page_does_not_wait_for_costs_nothing(
    open_page: Callable[..., Any], portal: Any, proxy: Proxy, bob: Bob
) -> None:
    """What it has given up arrives later, its end included, and is no goodbye."""
    page = open_page()
    talking = talk(page, proxy.url, bob, portal, limits={"probeWithinS": 0.2})
    until(page, f"() => {HEARD}.length > 20")
    portal.call(proxy.stall)
    until_noticed(page, "() => peer.state === 'joining'", lambda: page.evaluate("peer.nudge()"))
    portal.call(proxy.flow)
    until(page, "() => told.resumed >= 1")
    check_whole(page, bob, talking)


def test_after_a_time_that_the_relay_does_not_wait_the_page_is_told_what_may_be_missing(
    open_page: Callable[..., Any], portal: Any
) -> None:
    limits = Limits(resume_s=0.5)
    with LiveRelay(limits) as live, portal.wrap_async_context_manager(Proxy(live.port)) as proxy:
        peer = portal.call(live.connect)
        portal.call(peer.announce, "bob")
        bob, page = Bob(peer), open_page()
        talking = talk(page, proxy.url, bob, portal)
        until(page, f"() => {HEARD}.length > 20")
        portal.call(proxy.stall)
        portal.call(proxy.cut)
        portal.call(bob.until_offline)
        portal.call(proxy.flow)
        until(page, "() => told.gap.length === 1")
        heard, told = end(page, bob, talking)
        gap = told["gap"][0]
        assert gap["reason"] in ("window", "unknown")
        before = gap["before"]
        assert heard[:before] == list(range(1, before + 1))
        assert heard[before:] == list(range(heard[before], bob.said + 1))
        missing = set(range(1, page.evaluate("said") + 1)).difference(bob.heard)
        assert missing <= set(gap["inDoubt"])
        assert bob.heard == sorted(set(bob.heard))
        page.evaluate("peer.leave()")
        portal.call(peer.close)


def test_after_a_restart_of_the_relay_the_page_is_told_what_may_be_missing(
    open_page: Callable[..., Any],
) -> None:
    page = open_page()
    with HeldPort() as port:
        with LiveRelay(port=port) as live:
            limits = {"heartbeatEveryS": 60, "silentAfterS": 120}  # no report meanwhile
            page.evaluate(JOIN, {"url": live.url, "id": "ann", "limits": limits})
            page.evaluate(LISTEN)
            page.evaluate("peer.broadcast('in doubt')")
        with LiveRelay(port=port):
            until(page, "() => told.gap.length === 1")
            gap = page.evaluate("told.gap[0]")
            assert gap["reason"] in ("epoch", "window")
            assert gap["inDoubt"] == ["in doubt"]
            page.evaluate("peer.leave()")


def test_commands_and_answers_go_on_over_a_cut(
    live: LiveRelay, open_page: Callable[..., Any], portal: Any, proxy: Proxy
) -> None:
    page = open_page()
    page.evaluate(JOIN, {"url": proxy.url, "id": "ann", "agents": ["painter"]})
    page.evaluate("""() => {
        window.draws = new Promise((resolve) => { window.draw = resolve; });
        peer.serve(async ({ text, stream }) => {
            for (let n = 0; n < 5; n += 1) await stream(`${text} ${n}`);
            await draws;
            for (let n = 5; n < 10; n += 1) await stream(`${text} ${n}`);
            return "drawn";
        });
    }""")
    counts = anyio.Event

    async def talk_both() -> object:
        cut_now, go_on = counts(), counts()

        async def count(command: Command) -> str:
            for n in range(100):
                if n == 50:
                    cut_now.set()
                    await go_on.wait()
                await command.stream(f"{n} ")
            return "counted"

        async with (
            join(live.url, "bob", agents=["counter"]) as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(bob.serve, count)
            asked: list[Any] = []

            async def ask() -> None:
                turn = bob.ask("painter", "line")
                asked.append([chunk async for chunk in turn])
                asked.append(await turn)

            tasks.start_soon(ask)
            await cut_now.wait()
            proxy.lose()
            await anyio.sleep(0.05)
            await proxy.cut()
            go_on.set()
            while len(asked) < 2:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        return asked

    with_bob = portal.start_task_soon(talk_both)
    until(page, "() => peer.roster.has('bob')")
    page.evaluate("() => { sent.turn = peer.ask('counter', 'hundred'); }")
    until(page, "() => peer.resumed === 1")
    page.evaluate("draw()")
    result = page.evaluate("async () => [await sent.turn, sent.turn.chunks.length]")
    assert result == ["counted", 100]
    assert with_bob.result(PATIENCE_S) == [[f"line {n}" for n in range(10)], "drawn"]
    page.evaluate("peer.leave()")


def test_of_two_tabs_that_share_a_peer_one_may_be_cut(
    live: LiveRelay, open_page: Callable[..., Any], portal: Any, proxy: Proxy, bob: Bob
) -> None:
    """Each has a connection of its own, and each hears everything, once."""
    cut_tab, other = open_page(), open_page()
    for tab, url in ((cut_tab, proxy.url), (other, live.url)):
        tab.evaluate(JOIN, {"url": url, "kind": "shared", "agents": ["ann"]})
        tab.evaluate(LISTEN)
    bob.is_talking = True
    talking = portal.start_task_soon(bob.run)
    for number in range(3):
        until(cut_tab, f"(count) => {HEARD}.length > count", 20 * number)
        portal.call(proxy.cut)
        until(cut_tab, "(count) => told.resumed > count", number)
    other.evaluate("peer.broadcast('enough')")
    bob.is_talking = False
    talking.result(PATIENCE_S)
    for tab in (cut_tab, other):
        until(tab, f"(last) => {HEARD}.at(-1) === last", bob.said)
        assert tab.evaluate(HEARD) == list(range(1, bob.said + 1))
        assert tab.evaluate("told.gap") == []
