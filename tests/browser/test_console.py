"""The console in Chromium: with a stand-in that says what a test wants, and with a real relay."""

from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from actors.host.tokens import Auth
from protocol.limits import Limits
from tests.actors.host.test_admission import SECRET, minted
from tests.browser.test_pages import SOON_MS, Plain, plain, portal, until
from tests.worlds.live import LiveRelay, WebSocketPeer
from tests.worlds.stand_in import StandIn
from tests.worlds.watched import FLOODING, SLOW, STUCK, Watched, event

__all__ = ["plain", "portal"]

pytest.importorskip("playwright.sync_api", reason="needs playwright")

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
SIZES = {
    "desktop": DESKTOP,
    "laptop": {"width": 1240, "height": 768},
    "tablet": {"width": 768, "height": 1024},
    "phone": PHONE,
}

CUT = """() =>
    [...document.querySelectorAll('.figure dd, .heads > *, #agents-lines .line > *, .id')]
    .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.innerText)"""

JOIN_AND_SERVE = """async ({ url, token }) => {
    const { join } = await import("/browser/relay-client.js");
    window.bob = await join({ url, token, id: "bob", agents: ["bob"], worker: false });
    bob.serve(({ asker }) => `you are ${asker}`);
}"""

LINES = "#agents-lines .line"
IDS = """() => [...document.querySelectorAll('#agents-lines .line')]
    .sort((one, other) => parseFloat(one.style.top) - parseFloat(other.style.top))
    .map((line) => line.querySelector('.id').textContent)"""


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page. Whatever it complains of fails the test: errors, also those of its policy, but
    not that the network answers what a test has asked for."""
    contexts = []
    complaints: list[str] = []

    def look(url: str, *, clock: bool = False, **how: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESKTOP, **how})
        context.set_default_timeout(SOON_MS)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: note(said.type, said.text))
        if clock:
            page.clock.install()
        page.goto(url)
        return page

    def note(kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            complaints.append(text)

    yield look
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def relay() -> Iterator[StandIn]:
    with StandIn() as relay:
        yield relay


def play(relay: StandIn, mesh: Watched, page: Any, seconds: int = 40) -> None:
    """What happens in a mesh, up to now. Returns when the page shows all of it."""
    tell(relay, mesh, seconds)
    says(page, "#link", f"Up version {mesh.version}")


def tell(relay: StandIn, mesh: Watched, seconds: int = 40) -> None:
    """The same, without waiting for a page. Only the last event has the mesh's version: a page that
    shows it has got everything."""
    last, mesh.version = mesh.version, "of before"
    relay.send(event("state", mesh.state()))
    go_on(relay, mesh, seconds - 1)
    mesh.version = last
    go_on(relay, mesh)


def go_on(relay: StandIn, mesh: Watched, seconds: int = 1) -> None:
    for _ in range(seconds):
        relay.send(event("change", mesh.change()))


def text(page: Any, selector: str) -> str:
    return str(page.inner_text(selector))


def says(page: Any, selector: str, words: str) -> None:
    """Wait until it is to be read there."""
    until(
        page,
        """([at, words]) =>
            document.querySelector(at)?.innerText.replaceAll("\\u00a0", " ").includes(words)""",
        [selector, words],
    )


def troubles(page: Any) -> list[str]:
    return [" ".join(line.split()) for line in page.locator("#troubles li").all_inner_texts()]


# What a person sees -------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", SIZES.values(), ids=SIZES)
def test_the_stuck_and_the_flooding_agent_are_named_at_the_top_without_any_scrolling(
    relay: StandIn, look: Callable[..., Any], viewport: dict[str, int]
) -> None:
    page = look(relay.url, viewport=viewport)
    play(relay, Watched(), page)
    says(page, "#troubles", "slow reader".upper())
    stuck, flooding, slow = troubles(page)
    assert stuck.startswith(f"■ STUCK {STUCK} has been silent for 3 min on a command of ")
    assert flooding.startswith(f"▲ FLOODING {FLOODING} says 430 messages a second; ")
    assert slow.startswith(f"▼ SLOW READER {SLOW} reads too slowly: 780 messages ")
    box = page.locator("#attention").bounding_box()
    assert box["y"] + box["height"] < viewport["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.title().startswith("(3) default")
    assert page.evaluate(IDS)[:3] == [STUCK, FLOODING, SLOW]
    assert page.evaluate(CUT) == []


def test_a_calm_mesh_says_that_it_is_calm(relay: StandIn, look: Callable[..., Any]) -> None:
    page = look(relay.url)
    play(relay, Watched(is_calm=True), page)
    says(page, "#attention", "Nothing is stuck")
    says(page, "#link", "Up version 0.1.0, for 3 h")
    says(page, '[data-figure="peers"]', "200 10 stale")
    assert page.input_value("#mesh") == "default"
    assert text(page, "#turns-count") == "12 open"


def test_a_link_at_the_top_leads_to_the_line_whatever_was_filtered_before(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    play(relay, Watched(), page)
    says(page, "#troubles", STUCK)
    page.fill("#agents-text", "coder")
    page.click(f"#troubles >> text={STUCK}")
    says(page, f"{LINES}.jumped .id", STUCK)
    assert page.evaluate("document.activeElement.dataset.key") == STUCK
    page.click("#troubles >> text=its turn")
    says(page, "#turns-lines .line.jumped", STUCK)


def test_the_agents_are_filtered_and_sorted(relay: StandIn, look: Callable[..., Any]) -> None:
    page = look(relay.url)
    play(relay, Watched(is_calm=True), page)
    says(page, "#agents-count", "200")
    page.fill("#agents-text", "gpu-2")
    says(page, "#agents-count", "28 of 200")
    page.fill("#agents-text", "coder-1")
    page.click('[data-column="id"] button')
    page.click('[data-column="id"] button')
    until(page, f"() => ({IDS})()[0] === 'coder-192'")
    assert page.get_attribute('[data-column="id"]', "aria-sort") == "descending"
    page.fill("#agents-text", "")
    page.select_option("#agents-state", "stale")
    says(page, "#agents-count", "10 of 200")
    page.fill("#agents-text", "nobody is called so")
    says(page, "#agents-none", "No agent is as you have chosen.")


def test_of_5000_agents_only_those_in_sight_are_in_the_page(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    mesh = Watched(5000, is_calm=True)
    play(relay, mesh, page, 2)
    says(page, "#agents-count", "5\u202f000")
    assert 5 < page.locator(LINES).count() < 60
    page.evaluate("document.querySelector('#agents-lines').scrollTop = 1e9")
    until(page, f"() => ({IDS})().includes('writer-4996')")
    go_on(relay, mesh, 3)
    assert page.locator(LINES).count() < 60
    page.locator(f"{LINES}[tabindex='0']").focus()
    page.keyboard.press("Home")
    until(page, "() => document.querySelector('#agents-lines').scrollTop === 0")


def test_the_flow_shows_who_says_most_and_types_can_be_left_out(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    play(relay, Watched(), page)
    says(page, "#flow-count", "messages in the last minute")
    first = page.locator("#flow-picture .end").first
    assert FLOODING in first.text_content()
    assert page.locator("#flow-picture path.band").count() == 41
    page.click(".type[data-type=broadcast]")
    until(page, "() => !document.querySelector('#flow-picture path.broadcast')")
    assert page.locator("#flow-picture path.stream").count() > 0
    page.locator("#flow-picture .way").first.click()
    until(page, f"() => document.querySelector('{LINES}.jumped')")


def test_the_console_can_be_used_with_the_keyboard_alone(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    play(relay, Watched(), page)
    says(page, "#troubles", STUCK)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    for name in ("mesh", "link", "agents-text", "agents-state", "line", "type", "turns-text"):
        assert any(name in other.split() for other in seen), (name, seen)
    assert sum("line" in other.split() for other in seen) <= 3  # one for each table
    page.locator(f"{LINES}[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    says(page, "#ask-title", STUCK)
    says(page, "#ask-trouble", "It has been silent for 3 min")
    page.keyboard.press("Escape")
    until(page, "() => !document.querySelector('#ask').open")


STRANGE = {
    "<img src=x onerror=alert(1)>": "<b>bold</b>",
    "__proto__": "constructor",
    "evil\u202egnp.exe": "a\u0000\nb",
    "long" * 60: "\u200b",
    " ": "z" + "\u0335" * 80,
    "\ud800": "'\"&",
    "everyone": "others",
}


def test_whatever_peers_call_themselves_is_text_and_stays_in_its_place(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    mesh = Watched()
    model = mesh.peers["coder-0"]
    for id, name in STRANGE.items():
        mesh.peers[id] = {**model, "name": name, "host": name, "agents": [name]}
        mesh.turns[id] = {**mesh.turns["stuck"], "id": id, "asker": id, "to": id, "by": id}
        mesh._say(id, None, name, 3000)
        mesh._say(id, "coder-0", "direct", 20)
        mesh._happen("refused", id, 0, name, 50)
    state = mesh.state()
    state["relay"]["meshes"]["<i>mesh\u202e</i>"] = {"connections": 1, "peers": 1}
    relay.send(event("state", state))
    says(page, "#agents-count", "207")
    until(page, "() => document.querySelectorAll('#flow-picture .end').length > 5")
    page.click('[data-column="turns"] button')
    assert page.locator("main img, main i:not(.bar i), main b b").count() == 0
    shown = text(page, "body")
    assert "evil⟨U+202E⟩gnp.exe" in shown
    assert "<img src=x onerror=alert(1)>" in shown
    titles = page.evaluate(
        "[...document.querySelectorAll('[title]')].map((one) => one.title).join()"
    )
    for hidden in "\u202e\u0000\u200b\ud800":
        assert hidden not in shown + titles
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
    for line in page.locator(".line").all():
        assert line.bounding_box()["height"] <= 48
    page.fill("#agents-text", "img src")
    page.locator(LINES).first.click()
    says(page, "#ask-title", "<img src=x onerror=alert(1)>")
    says(page, "#ask-facts", "<b>bold</b>")


# The stream ---------------------------------------------------------------------------------------


def test_a_relay_that_is_gone_is_said_to_be_and_comes_back(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(relay.url)
    mesh = Watched(10, is_calm=True)
    play(relay, mesh, page)
    says(page, "#link", "Up version")
    relay.refusal = 500, "the machine is on fire"
    relay.cut()
    says(page, "#link", "Not reached since")
    says(page, "#link", "the machine is on fire; below is what was so then")
    relay.refusal = None
    relay.send(event("state", mesh.state()))
    says(page, "#link", "Up version")


def test_a_stream_that_stalls_makes_nobody_stuck(relay: StandIn, look: Callable[..., Any]) -> None:
    page = look(relay.url, clock=True)
    mesh = Watched(100, is_calm=True)
    play(relay, mesh, page)
    says(page, "#attention", "Nothing is stuck")
    page.clock.fast_forward(44_000)
    says(page, "#link", "no news for 4")
    says(page, "#attention", "Nothing is stuck")
    mesh.at_ms += 50_000
    go_on(relay, mesh)
    says(page, "#link", "Up version")
    page.clock.fast_forward(46_000)
    says(page, "#link", "it has said nothing for 45 s")


def test_a_relay_that_asks_for_a_token_is_given_one_and_it_is_kept_nowhere(
    look: Callable[..., Any],
) -> None:
    with StandIn(token="secret") as relay:
        page = look(relay.url)
        says(page, "#token-why", "This relay asks for a token.")
        assert page.is_hidden("#attention")
        page.fill("#token-field", "wrong")
        page.keyboard.press("Enter")
        says(page, "#token-why", "The relay refuses that: a token is needed")
        tell(relay, Watched(10, is_calm=True))
        page.fill("#token-field", "secret")
        page.keyboard.press("Enter")
        says(page, "#agents-count", "10")
        assert page.is_hidden("#token")
        stores = "location.href, document.cookie, {...localStorage}, {...sessionStorage}"
        assert "secret" not in page.evaluate(f"JSON.stringify([{stores}])")
        assert "secret" not in page.content()


def test_another_mesh_is_chosen_and_stands_in_the_address(
    relay: StandIn, look: Callable[..., Any]
) -> None:
    page = look(f"{relay.url}?mesh=nightly%20%26")
    mesh = Watched(10, is_calm=True)
    relay.send(event("state", {**mesh.state(), "mesh": "nightly &"}))
    until(page, "() => document.querySelector('#mesh').value === 'nightly &'")
    relay.cut()
    page.select_option("#mesh", "research")
    relay.send(event("state", {**mesh.state(), "mesh": "research", "peers": {}}))
    says(page, "#agents-none", "Nobody is in this mesh.")
    assert page.url.endswith("?mesh=research")
    page.go_back()
    until(page, "() => document.querySelector('#link-word').innerText === 'Up'")
    assert relay.meshes[0] == relay.meshes[-1] == "nightly &"
    assert "research" in relay.meshes


# A real relay -------------------------------------------------------------------------------------


def test_a_real_relay_serves_the_console_under_a_strict_policy_and_says_who_is_here(
    live: LiveRelay, look: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    ann, bob = plain(live, "ann", "coder", hostname="laptop"), plain(live, "bob")
    page = look(f"{live.http}/console/?mesh=default")
    assert page.url == f"{live.http}/browser/console/?mesh=default"
    says(page, "#agents-count", "2")
    says(page, LINES, "laptop")
    ann.send("direct", to="bob", turnId="c-1", data={"command": "think"})
    for _ in range(7):
        bob.send("broadcast", data="secret words")
    says(page, "#turns-lines", "ann → bob")
    says(page, "#flow-picture", "broadcast")
    bob.send("turn_end", turnId="c-1", data={"result": "secret words"})
    says(page, "#turns-lines", "✓ ended")
    says(page, "#events-lines", "joined")
    assert "secret words" not in page.content()


def test_an_agent_is_asked_its_chunks_come_live_and_the_page_leaves_again(
    live: LiveRelay, look: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob", "coder")
    page = look(f"{live.http}/console/")
    says(page, LINES, "bob")
    page.click(f"{LINES} >> text=bob")
    page.fill("#ask-text", "write")
    page.keyboard.press("Enter")
    command = bob.until("direct")
    assert command["data"]["command"] == "write"
    assert command["from"].startswith("console-")
    answers = {"turnId": command["turnId"], "to": command["from"]}
    bob.send("stream", **answers, data={"chunk": "one <b>", "chunkNum": 0})
    says(page, "#ask-answer", "one <b>")
    assert page.is_visible("#ask-cancel")
    bob.send("stream", **answers, data={"chunk": "two", "chunkNum": 1})
    says(page, "#ask-answer", "one <b>two")
    bob.send("turn_end", **answers, data={"result": "done\nand over"})
    says(page, "#ask-status", "answered after")
    says(page, "#ask-answer", "done\nand over")
    assert page.is_hidden("#ask-cancel")
    page.click("#ask-close")
    assert bob.until("presence", **{"from": command["from"]})["data"]["status"] == "offline"


def test_whoever_has_a_token_asks_under_the_id_that_it_gives(look: Callable[..., Any]) -> None:
    with LiveRelay(auth=Auth(secret=SECRET)) as live:
        page = look(f"{live.http}/console/")
        says(page, "#token-why", "This relay asks for a token.")
        page.fill("#token-field", minted(mesh=["one"]))
        page.keyboard.press("Enter")
        says(page, "#token-why", "it is not for watching all meshes")
        page.fill("#token-field", minted())
        page.keyboard.press("Enter")
        says(page, "#agents-none", "Nobody is in this mesh.")
        page.evaluate(JOIN_AND_SERVE, {"url": live.url, "token": minted(sub="bob")})
        says(page, LINES, "bob")
        page.click(f"{LINES} >> text=bob")
        page.fill("#ask-text", "who am I?")
        page.keyboard.press("Enter")
        says(page, "#ask-answer", "you are ann/console-")
        page.click("#ask-close")
        page.evaluate("() => bob.leave()")


def test_a_question_is_cancelled_and_another_one_is_asked(
    live: LiveRelay, look: Callable[..., Any], plain: Callable[..., Plain]
) -> None:
    bob = plain(live, "bob", "coder")
    page = look(f"{live.http}/console/")
    page.click(f"{LINES} >> text=bob")
    page.fill("#ask-text", "think")
    page.click("#ask-send")
    first = bob.until("direct")
    page.click("#ask-cancel")
    assert bob.until("cancel")["turnId"] == first["turnId"]
    says(page, "#ask-status", "cancelled")
    page.click("#ask-send")
    second = bob.until("direct")
    answers = {"turnId": second["turnId"], "to": second["from"]}
    bob.send("error", **answers, data={"error": "I am \u202etired"})
    says(page, "#ask-status", "⟨U+202E⟩tired")
    assert first["from"] == second["from"]


def test_200_live_peers_are_shown_and_the_one_that_floods_is_named(
    look: Callable[..., Any], portal: Any
) -> None:
    async def crowd() -> list[WebSocketPeer]:
        peers = [await live.connect() for _ in range(200)]
        for number, peer in enumerate(peers):
            await peer.send("presence", sender=f"agent-{number}", data={"agents": ["worker"]})
        return peers

    async def flood(peer: WebSocketPeer) -> None:
        while True:
            await peer.send("broadcast", data="again")
            await anyio.sleep(0.01)  # so often, and not as often as it can

    async def leave(peers: list[WebSocketPeer]) -> None:
        for peer in peers:
            peer.socket.transport.abort()  # they have not read what would come before a close

    # However slow the machine is: nobody falls silent, and more than one a second is too much.
    limits = Limits(stale_after_s=300, reap_after_s=600, messages_per_s=1, messages_burst=20)
    with LiveRelay(limits) as live:
        page = look(f"{live.http}/console/")
        peers = portal.call(crowd)
        says(page, "#agents-count", "200")
        flooding = portal.start_task_soon(flood, peers[7])  # a page that is late sees it, too
        says(page, "#troubles", "agent-7 says")
        assert "FLOODING" in troubles(page)[0]
        flooding.cancel()
        assert page.locator(LINES).count() < 60
        portal.call(leave, peers)
