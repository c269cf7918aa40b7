"""The browser client as it is used: pages in Chromium, a real relay, and a peer that is no page."""

import contextlib
import functools
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import jwt
import pytest
import websockets.sync.server

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.host import server
from actors.host.tokens import Auth
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import TurnFailed
from tests.browser.conftest import ROOT
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay, WebSocketPeer
from tests.worlds.proxy import Proxy

pytest.importorskip("playwright.sync_api", reason="needs playwright")

SOON_MS = 1000 * PATIENCE_S
"""How long a page may take for something that must come."""

JOIN = """async (options) => {
    const { id = await client.peerId(options.kind ?? "tab"), kind, ...rest } = options;
    window.sent = {};
    window.peer = await client.join({ ...rest, id });
    listen(peer);
    return id;
}"""

TRY = """async (options) => {
    try { window.peer = await client.join(options); } catch (error) { return error.name; }
    return "joined";
}"""
INVISIBLE = """Object.defineProperty(document, "visibilityState", { get: () => "hidden" });"""
META = """<meta http-equiv="Content-Security-Policy" content="worker-src 'none'" />"""
ENDED = "peer.ended.then((error) => error.name)"

SLOW = 10
"""Durations of both sides are divided by this where minutes must pass."""
SERVER = Limits(
    announce_within_s=30 / SLOW,
    stale_after_s=15 / SLOW,
    reap_after_s=30 / SLOW,
    presence_refresh_s=20 / SLOW,
    pong_keepalive_s=75 / SLOW,
)
CLIENT = {"heartbeatEveryS": 10 / SLOW, "silentAfterS": 30 / SLOW, "probeWithinS": 5 / SLOW}


class Plain:
    """A peer over a plain WebSocket, for tests that are not async."""

    def __init__(self, portal: Any, peer: WebSocketPeer) -> None:
        self.peer = peer
        self._portal = portal

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.peer, name)
        return lambda *args, **kwargs: self._portal.call(functools.partial(method, *args, **kwargs))


@pytest.fixture
def portal() -> Iterator[Any]:
    with anyio.from_thread.start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def plain(portal: Any) -> Iterator[Callable[..., Plain]]:
    """Connects and announces plain peers."""
    made = []

    def connect(live: LiveRelay, id: str, *agents: Any, **data: Any) -> Plain:
        peer = Plain(portal, portal.call(live.connect))
        made.append(peer)
        peer.announce(id, *agents, **data)
        return peer

    yield connect
    for peer in made:
        peer.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """A browser without a past. Errors that no page catches fail the test."""
    context = chromium.new_context()
    context.set_default_timeout(SOON_MS)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def open_page(context: Any, site: str) -> Callable[..., Any]:
    def open_page(query: str = "", script: str = "") -> Any:
        page = context.new_page()
        if script:
            page.add_init_script(script)
        page.goto(f"{site}/tests/browser/page.html{query}")
        page.wait_for_function("window.client")
        return page

    return open_page


def until(page: Any, condition: str, argument: object = None, within_ms: float = SOON_MS) -> None:
    page.wait_for_function(condition, arg=argument, timeout=within_ms)


def status(live: LiveRelay) -> Any:
    request = urllib.request.Request(
        f"{live.http}/invocations",
        data=json.dumps({"details": True}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


# Talking ------------------------------------------------------------------------------------------


def test_every_type_of_message_goes_both_ways(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob", "coder")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann", "agents": ["painter"], "metadata": {"x": 1}})
    presence = bob.until("presence", **{"from": "ann"})
    assert presence["data"] == {
        "x": 1,
        "agents": ["painter"],
        "keepalive": "pong",
        "accept": ["batch"],
    }

    page.evaluate("""async () => {
        await peer.broadcast({ text: "hello" }, { turnId: "t" });
        await peer.direct("coder", { command: "x" });
        await peer.ack("t");
        await peer.stream("t", "half an emoji: \\ud83d", 0);
        await peer.turnEnd("t", "result");
        await peer.error("t", "sentence");
        await peer.send("ring-update", { from: "painter", data: "free" });
    }""")
    types = ["broadcast", "direct", "ack", "stream", "turn_end", "error", "ring-update"]
    heard = [bob.until(type) for type in types]
    assert [message.get("instanceId", message["from"]) for message in heard] == ["ann"] * 7
    assert heard[3]["data"] == {"chunk": "half an emoji: \ud83d", "chunkNum": 0}

    for n, type in enumerate(types):
        bob.send(type, to="painter", data={"n": n}, turnId="theirs")
    until(page, "() => seen.filter(({ turnId }) => turnId === 'theirs').length === 7")
    mine = page.evaluate("seen.filter(({ turnId }) => turnId === 'theirs')")
    assert [message["type"] for message in mine] == types
    assert [message["data"]["n"] for message in mine] == list(range(7))


def test_a_page_asks_a_plain_peer_and_is_asked_by_it(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob", "coder")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann", "agents": ["painter"]})
    page.evaluate("""() => {
        sent.turn = (async () => {
            const turn = peer.ask("coder", "write");
            const chunks = [];
            for await (const chunk of turn) chunks.push(chunk);
            return [chunks, await turn.result()];
        })();
    }""")
    command = bob.until("direct")
    answer = {"sender": "coder", "to": "ann", "turnId": command["turnId"]}
    bob.send("ack", **answer)
    for n, chunk in enumerate(["one", "two"]):
        bob.send("stream", data={"chunk": chunk, "chunkNum": n}, **answer)
    bob.send("turn_end", data={"result": "one two"}, **answer)
    assert page.evaluate("sent.turn") == [["one", "two"], "one two"]

    page.evaluate("""() => void peer.serve(async ({ text, stream }) => {
        await stream(text.toUpperCase());
        if (text === "fail") throw new Error("no paint");
        return text.length;
    })""")
    for text, last in (("draw", {"result": 4, "chunks": 1}), ("fail", {"error": "no paint"})):
        bob.send("direct", to="painter", turnId=text, data={"command": text})
        assert bob.until("ack", turnId=text)["from"] == "painter"
        assert bob.until("stream", turnId=text)["data"] == {"chunk": text.upper(), "chunkNum": 0}
        end = bob.receive()
        assert end["data"] == last
        assert (end["from"], end["to"], end["instanceId"]) == ("painter", "bob", "ann")


def test_a_page_and_a_python_peer_ask_one_another(
    live: LiveRelay, open_page: Callable[..., Any], portal: Any
) -> None:
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann", "agents": ["painter"]})
    page.evaluate("""() => void peer.serve(async ({ text, stream }) => {
        if (text === "fail") throw new Error("no paint");
        for (const word of text.split(" ")) await stream(word);
        return { words: text.split(" ").length };
    })""")

    async def count(command: Command) -> str:
        if command.text == "fail":
            raise ValueError("cannot count")
        for n in range(int(command.text)):
            await command.stream(f"{n} ")
        return f"counted to {command.text} for {command.asker}"

    async def talk(peer: Peer) -> object:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.serve, count)
            turn = peer.ask("painter", "a red house")
            chunks = [chunk async for chunk in turn]
            with pytest.raises(TurnFailed, match="no paint"):
                await peer.ask("painter", "fail")
            async for message in peer:
                if message.type == "broadcast" and message.data == "enough":
                    break
            told = [chunks, await turn, peer.roster["ann"].agents]
            tasks.cancel_scope.cancel()
        return told

    with portal.wrap_async_context_manager(join(live.url, "py", agents=["counter"])) as python:
        until(page, "() => peer.roster.has('py')")
        talking = portal.start_task_soon(talk, python)
        result = page.evaluate("""async () => {
            const turn = peer.ask("counter", "1500");
            let count = 0;
            for await (const chunk of turn) if (chunk === `${count} `) count += 1;
            const refused = await peer.ask("counter", "fail").result().catch(String);
            await peer.broadcast("enough");
            return [count, await turn.result(), refused];
        }""")
        assert result == [1500, "counted to 1500 for ann", "TurnFailed: cannot count"]
        assert talking.result(20) == [["a", "red", "house"], {"words": 3}, ("painter",)]
    until(page, "() => !peer.roster.has('py')")


def test_a_page_and_a_python_peer_stop_working_for_one_another(
    live: LiveRelay, open_page: Callable[..., Any], portal: Any
) -> None:
    """A loop that is left, a signal that is aborted, and a page that is closed reach the worker."""
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann", "agents": ["painter"]})
    page.evaluate("""() => {
        window.stopped = [];
        peer.serve(({ text, signal }) => new Promise((resolve) => {
            signal.addEventListener("abort", () => resolve(stopped.push(text)));
        }));
    }""")
    at_work: list[str] = []
    stopped: list[str] = []

    async def work(command: Command) -> None:
        await command.stream("at work")
        at_work.append(command.text)
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(command.text)

    async def see(seen: list[str], *texts: str) -> None:
        with anyio.fail_after(PATIENCE_S):
            while set(seen) != set(texts):
                await anyio.sleep(0.01)

    async def stop(peer: Peer) -> None:
        turn = peer.ask("painter", "a red house")
        async for message in peer:
            if message.type == "ack":
                break
        turn.cancel()

    limits = MembershipLimits(asker_back_within_s=0.1)
    with portal.wrap_async_context_manager(
        join(live.url, "py", agents=["counter"], limits=limits)
    ) as python:
        serving = portal.start_task_soon(python.serve, work)
        until(page, "() => peer.roster.has('py')")
        page.evaluate("""async () => {
            for await (const _ of peer.ask("counter", "by a loop")) break;
            const abort = new AbortController();
            const turn = peer.ask("counter", "by a signal", { signal: abort.signal });
            try {
                for await (const _ of turn) abort.abort();
            } catch (error) {
                if (error.name !== "TurnError") throw error;
            }
        }""")
        portal.call(see, stopped, "by a loop", "by a signal")
        portal.call(stop, python)
        until(page, "() => stopped.length === 1")
        page.evaluate("() => void peer.ask('counter', 'by leaving')")
        portal.call(see, at_work, "by a loop", "by a signal", "by leaving")
        page.close()
        portal.call(see, stopped, "by a loop", "by a signal", "by leaving")
        serving.cancel()


def test_ten_thousand_chunks_arrive_in_order(open_page: Callable[..., Any]) -> None:
    with LiveRelay(Limits(messages_per_s=4000, messages_burst=8000)) as live:
        server, asker = open_page(), open_page()
        server.evaluate(JOIN, {"url": live.url, "agents": ["counter"]})
        server.evaluate("""() => void peer.serve(async ({ text, stream }) => {
            const chunks = Array.from({ length: Number(text) }, (_, n) => stream(`chunk ${n}`));
            await Promise.all(chunks);
            return "done";
        })""")
        asker.evaluate(JOIN, {"url": live.url})
        result = asker.evaluate("""async () => {
            const turn = peer.ask("counter", "10000");
            let count = 0;
            for await (const chunk of turn) {
                if (chunk !== `chunk ${count}`) throw new Error(`${chunk} for ${count}`);
                count += 1;
            }
            return [count, await turn.result()];
        }""")
        assert result == [10_000, "done"]
        assert status(live)["totals"]["refused"] == 0


def test_a_flood_is_paced_so_that_a_relay_with_default_limits_drops_nothing(
    live: LiveRelay, open_page: Callable[..., Any]
) -> None:
    page, other = open_page(), open_page()
    other.evaluate(JOIN, {"url": live.url})
    page.evaluate(JOIN, {"url": live.url})
    page.evaluate("Promise.all(Array.from({ length: 4000 }, (_, n) => peer.broadcast(n)))")
    until(other, "() => seen.filter(({ type }) => type === 'broadcast').length === 4000")
    assert other.evaluate(
        "seen.filter(({ type }) => type === 'broadcast').every(({ data }, n) => data === n)"
    )
    assert status(live)["totals"]["refused"] == 0


def test_typed_errors_of_turns(live: LiveRelay, open_page: Callable[..., Any], plain: Any) -> None:
    one, two = plain(live, "one", "twin"), plain(live, "two", "twin", "leaver")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url})
    ask = """([agent, options]) => peer.ask(agent, "x", options).result().catch(
        (error) => [error.name, error instanceof client.TurnError, error.peers ?? null])"""
    assert page.evaluate(ask, ["nobody", {}]) == ["UnknownTarget", True, None]
    assert page.evaluate(ask, ["twin", {}]) == ["AmbiguousTarget", True, ["one", "two"]]
    assert page.evaluate(ask, ["one", {"timeoutS": 0.05}])[0] == "TurnTimeout"
    page.evaluate(f"() => void (sent.left = ({ask})(['leaver', {{}}]))")
    two.until("direct")
    two.close()
    assert page.evaluate("sent.left")[0] == "TargetLeft"
    one.close()


def test_who_is_here_and_who_comes_and_goes(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob", "coder")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url})
    page.evaluate("""() => {
        window.changes = [];
        (async () => { for await (const change of peer.changes()) changes.push(change); })();
    }""")
    until(page, "() => changes.length === 1")
    eve = plain(live, "eve", {"agentId": "a"}, "b")
    until(page, "() => changes.length === 2")
    bob.send("presence", sender="bob", data={"agents": ["coder", "poet"]})
    until(page, "() => changes.length === 3")
    eve.close()
    until(page, "() => changes.length === 4")
    short = page.evaluate("""changes.map(({ joined, updated, left, here }) =>
        [joined.map(({ id }) => id), updated.map(({ agents }) => agents),
            left.map(({ id }) => id), [...here.keys()]])""")
    assert short == [
        [["bob"], [], [], ["bob"]],
        [["eve"], [], [], ["bob", "eve"]],
        [[], [["coder", "poet"]], [], ["bob", "eve"]],
        [[], [], ["eve"], ["bob"]],
    ]


# Staying ------------------------------------------------------------------------------------------

HIDDEN = """
    // While the page is hidden none of its own timers runs: harsher than any browser.
    const held = [];
    let isHidden = false;
    const { setTimeout } = window;
    window.setTimeout = (callback, ms, ...given) =>
        setTimeout(() => (isHidden ? held.push(() => callback(...given)) : callback(...given)), ms);
    window.setInterval = () => { throw new Error("the client must not need this"); };
    const visibilityState = { get: () => (isHidden ? "hidden" : "visible") };
    Object.defineProperty(document, "visibilityState", visibilityState);
    Object.defineProperty(document, "hidden", { get: () => isHidden });
    window.hide = (hide) => {
        isHidden = hide;
        document.dispatchEvent(new Event("visibilitychange"));
        if (!hide) for (const callback of held.splice(0)) callback();
    };
"""


def test_a_hidden_tab_is_still_present_after_five_minutes(
    open_page: Callable[..., Any], plain: Callable[..., Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its worker. Without one, and without timers, it is as if it were frozen: answers to pings
    keep it for 75 s. A tab that does neither is reaped after 30 s."""
    monkeypatch.setattr(server, "PING_INTERVAL_S", 10 / SLOW)
    with LiveRelay(SERVER) as live:
        kinds = {
            "worker": ("", {"keepalive": None}),
            "pong": ("?no-worker", {}),
            "neither": ("?no-worker", {"keepalive": None}),
        }
        # Nobody is here before all are open, because that may take as long as a reap.
        pages = {id: open_page(query, HIDDEN) for id, (query, _) in kinds.items()}
        watcher = plain(live, "watcher", keepalive="pong")
        for id, (_, options) in kinds.items():
            pages[id].evaluate(JOIN, {"url": live.url, "id": id, "limits": CLIENT, **options})
        for page in pages.values():
            page.evaluate("hide(true)")
        repeats, gone = 0, []
        while repeats < 300 / 20:  # The relay repeats a presence every 20 s of heartbeats.
            message = watcher.receive()
            watcher.send("heartbeat")  # pongs alone would not do for so long
            if message["type"] == "presence" and message["data"].get("status") == "offline":
                gone.append(message["from"])
            elif message["type"] == "presence" and message["from"] == "worker":
                repeats += 1
        assert gone == ["neither", "pong"]
        assert set(status(live)["peers"]) == {"worker", "watcher"}

        # And whoever looks at them again finds them as they should be.
        for page in pages.values():
            page.evaluate("hide(false)")
        for page in pages.values():
            until(page, "() => peer.state === 'present'")
        assert watcher.until("presence", **{"from": "neither"})["data"] == {
            "agents": [],
            "accept": ["batch"],
        }


def test_after_a_relay_restart_everyone_is_there_again(
    open_page: Callable[..., Any],
) -> None:
    pages = [open_page(), open_page()]
    with HeldPort() as port:
        with LiveRelay(port=port) as live:
            for id, page in zip("ab", pages, strict=True):
                page.evaluate(JOIN, {"url": live.url, "id": id, "agents": [f"agent of {id}"]})
            until(pages[0], "() => peer.roster.has('b')")
        for page in pages:
            until(page, "() => ['waiting', 'joining'].includes(peer.state)")
            page.evaluate("() => void (sent.late = peer.broadcast(`late from ${peer.id}`))")
        with LiveRelay(port=port) as restarted:
            for id, other, page in (("a", "b", pages[0]), ("b", "a", pages[1])):
                until(page, "() => peer.state === 'present'")
                page.evaluate("sent.late")
                until(page, "(id) => peer.roster.has(id)", other)
                assert page.evaluate("(id) => peer.roster.get(id).agents", other) == [
                    f"agent of {other}"
                ]
                assert status(restarted)["meshes"]["default"]["peers"][id]["connections"] == 1
            for page in pages:
                page.evaluate("peer.leave()")


def test_back_online_a_dead_connection_is_noticed_at_once(
    live: LiveRelay, context: Any, open_page: Callable[..., Any], portal: Any
) -> None:
    """With limits under which nothing else would have noticed for a minute."""
    limits = {"heartbeatEveryS": 60, "silentAfterS": 120, "probeWithinS": 0.5}
    with portal.wrap_async_context_manager(Proxy(live.port)) as proxy:
        page = open_page()
        page.evaluate(JOIN, {"url": proxy.url, "id": "ann", "limits": limits})
        portal.call(proxy.lose)  # nothing closes, and nothing arrives either
        context.set_offline(True)
        until(page, "() => navigator.onLine === false")
        page.evaluate("() => void (sent.lost = peer.broadcast('into the dark'))")
        context.set_offline(False)
        until(page, "() => peer.state !== 'present'")
        until(page, "() => peer.state === 'present'")
        page.evaluate("peer.broadcast('here again')")
        assert status(live)["peers"] == ["ann"]
        page.evaluate("peer.leave()")


def test_a_page_that_comes_online_does_not_wait_for_its_next_attempt(
    live: LiveRelay, context: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    page.evaluate("() => { window.isUp = false; }")
    options = {
        "id": "ann",
        "limits": {"backoffFirstS": 300, "retryMaxS": 300, "backoffMaxS": 300},
        "withinS": 60,
    }
    page.evaluate(
        """([join, options, url]) => {
            const refuse = () => { throw new Error("no network"); };
            window.joined = (0, eval)(join)({ ...options, url: () => (isUp ? url : refuse()) });
        }""",
        [f"({JOIN})", options, live.url],
    )
    context.set_offline(True)
    page.evaluate("() => { window.isUp = true; }")
    context.set_offline(False)
    assert page.evaluate("joined") == "ann"
    page.evaluate("peer.leave()")


def test_two_tabs_share_one_id_and_one_may_close(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob")
    one, two = open_page(), open_page()
    shared = [page.evaluate(JOIN, {"url": live.url, "kind": "shared"}) for page in (one, two)]
    assert shared[0] == shared[1]
    bob.everything()
    one.close()
    bob.send("direct", to=shared[1], data="still there?")
    until(two, "() => seen.some(({ data }) => data === 'still there?')")
    assert not any(message["data"].get("status") for message in bob.messages())
    two.close()
    assert bob.until("presence")["data"]["status"] == "offline"


SERVE = """() => {
    window.served = [];
    peer.serve(({ turnId }) => { served.push(turnId); return "done"; });
}"""


def served(tabs: list[Any]) -> list[list[str]]:
    """The commands that each tab has run."""
    return [tab.evaluate("served") for tab in tabs]


def test_of_three_tabs_that_share_an_id_one_serves_and_another_when_that_closes(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob")
    tabs = [open_page() for _ in range(3)]
    joined = {"url": live.url, "kind": "shared", "agents": ["coder"]}
    for tab in tabs:
        tab.evaluate(JOIN, joined)
        tab.evaluate(SERVE)

    def ask(turn: str) -> None:
        bob.send("direct", to="coder", turnId=turn, data={"command": "go"})
        assert bob.until("turn_end")["turnId"] == turn
        for tab in tabs:  # all of them hear it
            until(tab, "(turn) => seen.some(({ turnId }) => turnId === turn)", turn)

    ask("t1")
    ask("t2")
    assert sorted(served(tabs)) == [[], [], ["t1", "t2"]]
    for turn in ("t3", "t4"):
        serving = max(tabs, key=lambda tab: len(tab.evaluate("served")))
        serving.close()
        tabs.remove(serving)
        ask(turn)
        assert sorted(served(tabs)) == [*[[]] * (len(tabs) - 1), [turn]]


@pytest.mark.parametrize(
    "how",
    ["close", "leave", "reload", "freeze"],
)
def test_a_command_that_a_tab_has_begun_ends_at_once_when_that_is_closed(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain], how: str
) -> None:
    """Another tab keeps the peer in the mesh, so nobody hears that it has left."""
    bob = plain(live, "bob")
    tabs = [open_page() for _ in range(2)]
    for tab in tabs:
        tab.evaluate(JOIN, {"url": live.url, "kind": "shared", "agents": ["coder"]})
        tab.evaluate("""() => {
            window.served = [];
            peer.serve(({ turnId }) => (served.push(turnId), new Promise(() => {})));
        }""")
    turns = ["to everyone", "to bob alone"]
    answers = [{}, {"answers": "direct"}]
    for turn, fields in zip(turns, answers, strict=True):
        bob.send("direct", to="coder", turnId=turn, data={"command": "go"}, **fields)
    assert bob.until("direct", answer="ack")["turnId"] == "to bob alone"
    serving = max(tabs, key=lambda tab: len(tab.evaluate("served")))
    assert serving.evaluate("served") == turns
    match how:
        case "close":
            serving.close()
        case "leave":
            serving.evaluate("peer.leave()")
        case "reload":
            serving.reload()
        case "freeze":
            serving.evaluate("document.dispatchEvent(new Event('freeze'))")
    ends = [bob.until("error"), bob.until("direct", answer="error")]
    assert [(end["turnId"], end["data"]["code"]) for end in ends] == [
        ("to everyone", "left"),
        ("to bob alone", "left"),
    ]


def test_without_web_locks_every_tab_serves_and_the_console_says_so_once(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob")
    without = "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });"
    tabs = [open_page(script=without) for _ in range(2)]
    warnings: list[str] = []
    for tab in tabs:
        tab.on("console", lambda message: warnings.append(message.text))
        tab.evaluate(JOIN, {"url": live.url, "kind": "shared", "agents": ["coder"]})
        tab.evaluate(SERVE)
        tab.evaluate("() => { peer.serve(() => {}, { agents: [] }); }")
    bob.send("direct", to="coder", turnId="t", data={"command": "go"})
    for tab in tabs:
        until(tab, "served.length === 1")
    assert len([text for text in warnings if "there are no Web Locks here" in text]) == 2


def test_a_page_that_takes_an_id_of_another_is_told_and_a_takeover_ends_the_other(
    live: LiveRelay, open_page: Callable[..., Any]
) -> None:
    one, two = open_page(), open_page()
    options = {"url": live.url, "id": "ann", "limits": {"takenForS": 0}}
    owned = {**options, "owner": "the owner of ann"}
    assert one.evaluate(TRY, owned) == "joined"
    assert two.evaluate(TRY, options) == "IdTaken"
    assert two.evaluate(TRY, {**owned, "takeover": True}) == "joined"
    assert one.evaluate(ENDED) == "Replaced"
    assert two.evaluate("peer.state") == "present"
    two.evaluate("peer.leave()")


def test_a_page_brings_a_token_and_hears_that_it_is_refused(open_page: Callable[..., Any]) -> None:
    first, second = b"a first secret of at least 32 bytes", b"another secret of at least 32 bytes"
    token = jwt.encode({"sub": "ann", "exp": 2**33}, first, "HS256")
    limits = {"backoffFirstS": 0.05, "backoffMaxS": 0.2, "giveUpAfterS": 0.5}
    with HeldPort() as port:
        page, other = open_page(), open_page()
        with LiveRelay(port=port, auth=Auth(secret=first)) as relay:
            options = {"url": relay.url, "id": "ann", "limits": limits, "token": token}
            assert page.evaluate(TRY, options) == "joined"
            assert other.evaluate(TRY, {**options, "token": f"{token}x"}) == "Rejected"
        with LiveRelay(port=port, auth=Auth(secret=second)):
            assert page.evaluate(ENDED) == "Rejected"


def test_tabs_have_ids_of_their_own_even_when_duplicated_and_keep_them_over_a_reload(
    open_page: Callable[..., Any], context: Any
) -> None:
    one, two = open_page(), open_page()
    ids = [page.evaluate("client.peerId('tab')") for page in (one, two)]
    with context.expect_page() as opened:  # It begins with a copy of its opener's session storage.
        one.evaluate("() => void window.open(location.href)")
    copy = opened.value
    copy.wait_for_function("window.client")
    ids.append(copy.evaluate("client.peerId('tab')"))
    assert len(set(ids)) == 3
    assert one.evaluate("client.peerId('tab')") == ids[0]
    assert one.evaluate("client.peerId('tab', 'second')") != ids[0]
    two.reload()
    two.wait_for_function("window.client")
    assert two.evaluate("client.peerId('tab')") == ids[1]


def test_renewals_under_traffic_lose_and_double_nothing(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain], portal: Any
) -> None:
    """Two pages that renew all the time, and number what they say, until both did so often."""
    one, two = open_page(), open_page()
    limits = {"joinWithinS": 2.0, "renewAfterS": 2.01}  # a busy machine may take a second
    for id, page in (("one", one), ("two", two)):
        page.evaluate(
            """(url) => {
                window.opened = 0;
                window.counted = () => { opened += 1; return url; };
            }""",
            live.url,
        )
        page.evaluate(
            f"(options) => ({JOIN})({{ ...options, url: counted }})", {"id": id, "limits": limits}
        )
    for page in (one, two):
        page.evaluate("""() => {
            window.count = 0;
            window.isTalking = true;
            window.talk = (async () => {
                while (isTalking) {
                    await peer.broadcast((count += 1));
                    if (count % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
                }
            })();
        }""")
    for page in (one, two):
        until(page, "() => opened >= 5 && count > 100")
    totals = []
    for page in (one, two):
        page.evaluate("async () => { isTalking = false; await talk; }")
        totals.append(page.evaluate("count"))
    numbers = "seen.filter(({ type }) => type === 'broadcast').map(({ data }) => data)"
    for page, total in ((one, totals[1]), (two, totals[0])):
        until(page, f"(total) => {numbers}.at(-1) >= total", total)
        assert page.evaluate(numbers) == list(range(1, total + 1))
        page.evaluate("peer.leave()")


# What cannot work ---------------------------------------------------------------------------------

FAIL = """async (options) => {
    // What no attempt mends ends it at once; all else when an attempt has failed, whenever that is.
    let error;
    const isEarly = () => !error || error.message.startsWith("nobody has answered");
    for (let withinS = 0.4; isEarly(); withinS *= 2) {
        error = await client.join({ id: "ann", withinS, ...options }).catch((error) => error);
    }
    const text = `${error} ${error.stack} ${JSON.stringify(error)}`;
    return [error.name, error instanceof client.RelayError, text];
}"""
SECRET = "X-Amz-Security-Token=SECRET"


def failure(page: Any, url: str, **options: object) -> tuple[str, str]:
    name, is_ours, text = page.evaluate(FAIL, {"url": url, **options})
    assert is_ours
    assert "SECRET" not in text
    return name, text


def test_joining_says_what_is_wrong(open_page: Callable[..., Any], site: str) -> None:
    page = open_page()
    with LiveRelay(allowed_origins=("https://agi.diy",)) as live:
        name, text = failure(page, f"{live.url}?{SECRET}")
        assert (name, f"--allowed-origins {site}" in text) == ("Rejected", True)
        name, text = failure(page, f"ws://127.0.0.1:{live.port}/elsewhere?{SECRET}")
        assert (name, "that of a relay is /ws" in text) == ("Rejected", True)
    name, text = failure(page, f"{live.url}?{SECRET}")
    assert (name, "nobody answers" in text) == ("Unreachable", True)
    name, text = failure(page, f"{site.replace('http', 'ws')}/ws?{SECRET}")
    assert (name, "no relay of agent meshes" in text) == ("Rejected", True)


def test_a_page_whose_policy_forbids_the_relay_hears_that(
    live: LiveRelay, open_page: Callable[..., Any]
) -> None:
    name, text = failure(open_page("?no-connections"), f"{live.url}?{SECRET}")
    assert name == "BadAddress"
    assert f"add ws://127.0.0.1:{live.port} to `connect-src`" in text


def test_a_page_that_is_a_file_hears_that(live: LiveRelay, context: Any) -> None:
    page = context.new_page()
    page.goto((ROOT / "tests/browser/page.html").as_uri())
    page.evaluate(
        f"""() => import("http://127.0.0.1:{live.port}/browser/relay-client.js")
            .then((client) => {{ window.client = client; }})"""
    )
    name, text = failure(page, f"{live.url}?{SECRET}")
    assert name == "Rejected"
    assert "opened from files" in text


@pytest.mark.parametrize("path", ["", "/ws/"])
def test_a_page_need_not_write_the_path(
    live: LiveRelay, open_page: Callable[..., Any], path: str
) -> None:
    page = open_page()
    page.evaluate(JOIN, {"url": f"ws://127.0.0.1:{live.port}{path}", "id": "ann"})
    assert status(live)["peers"] == ["ann"]
    page.evaluate("peer.leave()")


# Coming back, and sleep ---------------------------------------------------------------------------


def test_after_many_attempts_in_vain_a_page_is_back_at_once(open_page: Callable[..., Any]) -> None:
    """A browser makes whoever fails so often wait for seconds before each WebSocket."""
    page = open_page()
    with HeldPort() as port:
        options = {"id": "ann", "limits": {"retryMaxS": 0.05, "backoffMaxS": 0.05}}
        with LiveRelay(port=port) as relay:
            page.evaluate(JOIN, {**options, "url": relay.url})
            page.evaluate("""() => {
                window.opened = 0;
                const Real = WebSocket;
                window.WebSocket = class extends Real {
                    constructor(...given) { super(...given); opened += 1; }
                };
                window.asked = 0;
                const get = fetch;
                window.fetch = (...given) => { asked += 1; return get(...given); };
            }""")
        until(page, "asked > 60")
        assert page.evaluate("opened") < 10
        with LiveRelay(port=port) as relay:
            until(page, "peer.state === 'present'")
            assert page.evaluate("opened") < 12
            page.evaluate("peer.leave()")


@pytest.mark.parametrize(
    ("sleeps", "wakes"),
    [
        (
            "document.dispatchEvent(new Event('freeze'))",
            "document.dispatchEvent(new Event('resume'))",
        ),
        (
            "dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))",
            "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        ),
    ],
    ids=["frozen", "back-forward cache"],
)
def test_a_page_asleep_is_not_present_and_is_back_when_it_wakes_up(
    live: LiveRelay,
    open_page: Callable[..., Any],
    plain: Callable[..., Plain],
    sleeps: str,
    wakes: str,
) -> None:
    """(A headless browser freezes nothing, so the page is told that it does.)"""
    bob = plain(live, "bob", keepalive="pong")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann", "agents": ["coder"]})
    bob.until("presence", **{"from": "ann"})
    page.evaluate(sleeps)
    gone = bob.until("presence")
    assert (gone["from"], gone["data"]["reason"]) == ("ann", "left")
    assert page.evaluate("peer.state") == "suspended"
    page.evaluate(wakes)
    back = bob.until("presence")
    assert (back["from"], back["data"]["agents"]) == ("ann", ["coder"])
    until(page, "peer.state === 'present'")
    bob.send("direct", to="coder", data="awake?")
    until(page, "() => seen.some(({ data }) => data === 'awake?')")
    page.evaluate("peer.leave()")


def test_a_page_that_is_left_is_gone_at_once(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob")
    page = open_page()
    page.evaluate(JOIN, {"url": live.url, "id": "ann"})
    bob.until("presence", **{"from": "ann"})
    page.goto("about:blank")
    assert bob.until("presence")["data"]["status"] == "offline"


@pytest.mark.parametrize("is_in_header", [True, False])
def test_where_a_policy_forbids_the_worker_the_console_is_empty(
    live: LiveRelay, open_page: Callable[..., Any], *, is_in_header: bool
) -> None:
    page = open_page("?no-worker" if is_in_header else "", INVISIBLE)
    options = {"worker": False} if is_in_header else {}
    if not is_in_header:
        page.evaluate("(meta) => document.head.insertAdjacentHTML('beforeend', meta)", META)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.evaluate(JOIN, {"url": live.url, "id": "ann", **options})
    page.evaluate("peer.leave()")
    assert said == []


def test_a_url_that_is_none_is_a_bad_address(open_page: Callable[..., Any]) -> None:
    assert failure(open_page(), f"nonsense://?{SECRET}")[0] == "BadAddress"


def test_a_relay_that_answers_nonsense_is_none(open_page: Callable[..., Any]) -> None:
    def answer(connection: Any) -> None:
        connection.recv()
        connection.send("welcome to the echo server")
        with contextlib.suppress(Exception):
            connection.recv()

    with websockets.sync.server.serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        name, _ = failure(open_page(), f"ws://127.0.0.1:{port}/?{SECRET}")
        server.shutdown()
        thread.join()
    assert name == "NotARelay"


def test_an_id_that_the_relay_refuses_is_said_so(live: LiveRelay, open_page: Any) -> None:
    name, text = failure(open_page(), live.url, id="relay")
    assert name == "AnnouncementRefused"
    assert "spoofed" in text


# What is shipped ----------------------------------------------------------------------------------


def submit(page: Any, form: str, **fields: str) -> None:
    page.evaluate(
        """([form, fields]) => {
            const { elements } = document.getElementById(form);
            for (const [name, value] of Object.entries(fields)) elements[name].value = value;
            document.getElementById(form).requestSubmit();
        }""",
        [form, fields],
    )


def test_the_example_page_works_and_shows_html_as_text(
    live: LiveRelay, context: Any, site: str, plain: Callable[..., Plain]
) -> None:
    pages = []
    for _ in range(2):
        page = context.new_page()
        page.goto(f"{site}/browser/")
        submit(page, "join", url=live.url, mesh="")
        until(page, "() => document.getElementById('state').textContent === 'present'")
        pages.append(page)
    evil = "<img src=x onerror=\"document.title='hacked'\">"
    bob = plain(live, evil, evil)
    for page in pages:
        until(page, "() => document.querySelectorAll('#here li').length === 2")
    bob.send("broadcast", data=evil)
    bob.send("broadcast", data={"html": evil})
    until(pages[0], "() => document.querySelectorAll('#log div').length === 2")
    assert pages[0].locator("#log img, #here img").count() == 0
    assert evil in pages[0].inner_text("#log")
    assert evil in pages[0].inner_text("#here")

    submit(pages[0], "say", text="hello")
    until(pages[1], "() => document.getElementById('log').textContent.includes(': hello')")
    submit(pages[0], "ask", agent=pages[1].inner_text("#id"), command="say it again")
    until(
        pages[0],
        "() => document.getElementById('log').textContent.includes('answers: say it again')",
    )
    assert [page.title() for page in pages] == ["A mesh, seen from a page"] * 2


def test_the_relay_serves_the_page_and_the_module_to_pages_of_other_origins(
    live: LiveRelay, context: Any, open_page: Callable[..., Any]
) -> None:
    page = context.new_page()
    page.goto(f"{live.http}/browser/")
    submit(page, "join")
    until(page, "() => document.getElementById('state').textContent === 'present'")
    assert set(status(live)["meshes"]) == {"default"}  # where the README's Python examples are
    elsewhere = open_page()
    script = "async (url) => Object.keys(await import(url)).includes('join')"
    assert elsewhere.evaluate(script, f"{live.http}/browser/relay-client.js")


def readme_blocks() -> list[str]:
    text = (ROOT / "browser/README.md").read_text()
    blocks = re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        block.replace('"agi-diy-relay-client"', '"/browser/relay-client.js"') for block in blocks
    ]


def test_the_readmes_examples_work(
    live: LiveRelay, open_page: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    *example, _ = readme_blocks()
    script = "\n".join(example).replace("ws://localhost:8080/ws?mesh=demo", live.url)
    page = open_page()
    bob = plain(live, "bob", "poet")
    page.add_script_tag(content=f"{script}\nwindow.isOver = true;", type="module")
    page_id = bob.until("presence")["from"]
    assert bob.until("broadcast")["data"] == "hello"
    bob.send("broadcast", data="bye")
    command = bob.until("direct")
    assert command["data"] == {"command": "write a haiku"}
    bob.send("direct", to="greeter", turnId="1", data={"command": "greet"})
    assert bob.until("turn_end")["data"] == {"result": "good morning, bob", "chunks": 2}
    answer = {"sender": "poet", "to": page_id, "turnId": command["turnId"]}
    bob.send("turn_end", data={"result": "old pond"}, **answer)
    bob.close()
    until(page, "() => window.isOver")
    assert status(live)["peers"] == []


def test_an_oauth_relay_takes_the_token_as_a_subprotocol(
    live: LiveRelay, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    state = page.evaluate(
        """async (url) => {
            const arn = "arn:aws:bedrock-agentcore:us-west-2:1:runtime/x";
            const signed = client.oauth({ arn, mesh: "m", token: async () => "SECRET" });
            const local = async () => ({ ...(await signed()), url });
            const peer = await client.join({ id: "ann", url: local });
            const { state } = peer;
            await peer.leave();
            return state;
        }""",
        live.url,
    )
    assert state == "present"
