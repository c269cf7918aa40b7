"""The whole way: pages in Chromium and peers in Python meet behind the stand-in for the edge.

A page logs in at moto's Cognito, gets keys, signs a URL; a Python peer signs one with AWS's SDK,
for AWS's own host. The stand-in judges both, starts one relay process per session, counts frames.
"""

import base64
import json
import logging
import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio
import attrs
import boto3
import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials
from websockets.asyncio.client import ClientConnection

from actors.client.agentcore import presigned, with_token
from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Address, Connector, Token, websocket
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import AnnouncementRefused, Gap, Rejected, TurnFailed, UnknownTarget
from protocol.member.lifecycle import MemberState
from protocol.session import session_id
from tests.browser.conftest import CHROMIUM, site  # noqa: F401
from tests.edge import Credentials, EdgeLimits, EdgeThread, HostedRuntime, Issuer, Traffic
from tests.edge.server import Lookup
from tests.worlds.live import PATIENCE_S, ShiftedClock, open_socket

async_api = pytest.importorskip("playwright.async_api", reason="needs playwright")
pytest.importorskip("moto.server", reason="needs moto[server]")
if CHROMIUM is None:
    pytest.skip("needs chromium", allow_module_level=True)

from tests.edge.cognito import Cognito  # noqa: E402

pytestmark = pytest.mark.anyio

RUNTIME = HostedRuntime()
OAUTH_ARN = RUNTIME.arn.replace("relay-", "oauth-")
TOKENS_ARN = RUNTIME.arn.replace("relay-", "tokens-")
ANN, BOB = "ann@example.com", "bob@example.com"
FRAME_BYTES = Limits().frame_bytes_max
SECRET = "mesh-" + uuid.uuid4().hex
FAST: dict[str, Any] = {"backoff_first_s": 0.2, "backoff_max_s": 0.5, "join_within_s": PATIENCE_S}
"""(A session begins with the start of a relay, which takes long on a very busy machine.)"""

PAGE = """
// The page's clock can be moved.
window.shiftS = 0;
const { now } = Date;
window.Date = class extends Date {
    constructor(...given) { given.length ? super(...given) : super(Date.now()); }
    static now() { return now() + shiftS * 1000; }
};
window.asked = [];
const ask = window.fetch;
window.fetch = (url, options) => {
    asked.push(options?.headers?.["X-Amz-Target"]?.split(".")[1]);
    return ask(url, options);
};
const login = (given) => async () => {
    const answer = await fetch(given.cognitoEndpoint, {
        method: "POST",
        headers: {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "AWSCognitoIdentityProviderService.InitiateAuth",
        },
        body: JSON.stringify({
            AuthFlow: "USER_PASSWORD_AUTH",
            ClientId: given.userPoolClientId,
            AuthParameters: { USERNAME: given.username, PASSWORD: given.password },
        }),
    });
    return (window.tokens = (await answer.json()).AuthenticationResult);
};
window.enter = async (given) => {
    const { arn, mesh, secret, edge: endpoint, options } = given;
    const idToken = async () => (await login(given)()).IdToken;
    const credentials = given.keys ?? client.cognitoCredentials({
        identityPoolId: given.identityPoolId,
        provider: given.provider,
        endpoint: given.cognitoEndpoint,
        idToken,
    });
    const token = async () => (await login(given)()).AccessToken;
    const url = given.oauth
        ? client.oauth({ arn, mesh, secret, token, endpoint })
        : client.agentcore({
            ...{ arn, mesh, secret, credentials, endpoint },
            ...(given.proves && { token: idToken }),
        });
    window.peer = await client.join({ url, ...options });
    listen(peer);
    peer.serve(async ({ text, stream }) => {
        if (text.startsWith("size ")) return "x".repeat(Number(text.slice(5)));
        for (const word of text.split(" ")) await stream(word);
        return { from: peer.id, words: text.split(" ").length };
    });
};
window.answerOf = async (agent, command) => {
    const turn = peer.ask(agent, command);
    const chunks = [];
    for await (const chunk of turn) chunks.push(chunk);
    return [chunks, await turn.result()];
};
// Counts aloud until told to stop.
window.count = async (everyMs) => {
    window.counted = 0;
    for (window.counting = true; counting; ) {
        await peer.broadcast({ n: counted });
        counted += 1;
        await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
};
// What was counted by others, by peer.
window.counts = () => {
    const lists = {};
    for (const { type, from, data } of seen)
        if (type === "broadcast" && data?.n !== undefined) (lists[from] ??= []).push(data.n);
    return lists;
};
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def oauth_runtime(cognito: "Cognito") -> HostedRuntime:
    """The same relay as one that takes the user pool's own tokens."""
    return HostedRuntime(arn=OAUTH_ARN, authorizer=cognito.is_valid)


def tokens_runtime(cognito: "Cognito") -> HostedRuntime:
    """The same relay as one that asks for the ID tokens of the user pool."""
    return HostedRuntime(arn=TOKENS_ARN, environ=cognito.relay_environ())


class Records(logging.Handler):
    """Every record that is logged in this process, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = {k: str(v) for k, v in vars(record).items() if k not in ("args", "msg")}
        self.lines.append(f"{record.name} {record.getMessage()} {extra}")


@attrs.define
class World:
    """What all tests share: Cognito, a browser, keys, and what was said aloud."""

    cognito: Cognito
    issuer: Issuer
    clock: ShiftedClock
    browser: Any
    site: str
    console: list[str] = attrs.Factory(list)
    records: Records = attrs.Factory(Records)


@pytest.fixture(scope="module")
async def world(site: str) -> AsyncIterator[World]:  # noqa: F811
    issuer, clock = Issuer(), ShiftedClock()
    async with AsyncExitStack() as stack:
        cognito = stack.enter_context(Cognito(issuer, RUNTIME.region, clock))
        cognito.add_user(BOB)
        playwright = await stack.enter_async_context(async_api.async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        stack.push_async_callback(browser.close)
        world = World(cognito, issuer, clock, browser, site)
        root, ours = logging.getLogger(), logging.getLogger("actors")
        root.addHandler(world.records)
        ours.setLevel(logging.DEBUG)
        stack.callback(ours.setLevel, logging.NOTSET)
        stack.callback(root.removeHandler, world.records)
        yield world


class Edge:
    """A stand-in of its own, and the ways into it."""

    def __init__(self, world: World, thread: EdgeThread) -> None:
        self.world = world
        self.thread = thread
        self.edge = thread.edge
        self.keys = world.issuer.issue()
        self._pages: list[Any] = []

    def python(
        self,
        id: str,
        mesh: str,
        *,
        secret: str = SECRET,
        session: Any = None,
        way: Mapping[str, Any] = MappingProxyType({}),
        **kwargs: Any,
    ) -> Peer:
        """A peer that signs with AWS's SDK for AWS's host, which is this edge.

        `way`: more for `presigned`.
        """
        kwargs["limits"] = MembershipLimits(**{**FAST, **kwargs.pop("limits", {})})
        kwargs.setdefault("within_s", PATIENCE_S)
        return join(self.connector(mesh, secret, session, **way), id, **kwargs)

    def connector(
        self,
        mesh: str,
        secret: str = SECRET,
        session: Any = None,
        *,
        arn: str = RUNTIME.arn,
        token: Token | None = None,
    ) -> Connector:
        keys = self.keys
        session = session or boto3.Session(
            keys.access_key, keys.secret_key, keys.token, RUNTIME.region
        )
        address = presigned(arn, mesh=mesh, secret=secret, session=session, token=token)
        return self.redirected(address)

    def redirected(self, address: Callable[[], Awaitable[Address]]) -> Connector:
        """An address at AWS's host, which is this edge."""

        async def here() -> Address:
            there = await address()
            host = urlsplit(there.url).netloc
            assert host == f"bedrock-agentcore.{RUNTIME.region}.amazonaws.com"
            url = there.url.replace(f"wss://{host}", f"ws://127.0.0.1:{self.edge.port}")
            return attrs.evolve(there, url=url, headers={"Host": host})

        return websocket(here)

    async def page(
        self,
        id: str,
        mesh: str,
        *,
        agents: tuple[str, ...] = (),
        secret: str = SECRET,
        limits: dict[str, float] | None = None,
        **more: Any,
    ) -> "Page":
        """A page that has logged in and is in the mesh."""
        page = await self.blank()
        fast = {"backoffFirstS": 0.2, "backoffMaxS": 0.5, "joinWithinS": PATIENCE_S}
        limits = fast | (limits or {})
        options = {"id": id, "agents": agents, "limits": limits, "withinS": PATIENCE_S}
        given = self.given(mesh, secret, options=options, **more)
        await page.evaluate("given => enter(given)", given)
        return Page(id, page)

    @property
    def javascript_keys(self) -> dict[str, str | None]:
        keys = self.keys
        names = ("accessKeyId", "secretAccessKey", "sessionToken")
        return dict(zip(names, (keys.access_key, keys.secret_key, keys.token), strict=True))

    def given(
        self, mesh: str, secret: str = SECRET, *, user: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """What a page needs, for this user of the pool or else the first."""
        cognito = self.world.cognito
        return {
            **cognito.settings(user),
            "provider": cognito.provider,
            "arn": RUNTIME.arn,
            "mesh": mesh,
            "secret": secret,
            "edge": f"http://127.0.0.1:{self.edge.port}",
            "keys": None,
            **more,
        }

    async def blank(self) -> Any:
        """A page that knows how, and has done nothing yet."""
        context = await self.world.browser.new_context()
        self._pages.append(context)
        context.set_default_timeout(PATIENCE_S * 1000)
        page = await context.new_page()
        page.on("console", lambda message: self.world.console.append(message.text))
        page.on("pageerror", lambda error: self.world.console.append(str(error)))
        await page.goto(f"{self.world.site}/tests/browser/page.html")
        await page.wait_for_function("window.client")
        await page.evaluate(f"() => {{ {PAGE} }}")
        return page

    async def call(self, *args: Any) -> Any:
        """Have the edge do something, in its thread."""
        return await anyio.to_thread.run_sync(partial(self.thread.call, *args))

    def traffic(self, mesh: str, secret: str = SECRET) -> list[Traffic]:
        """The connections of a mesh, open and past, on which somebody has said something.

        (On a slow machine a peer opens a second one beside the first, and drops what comes later.)
        """
        id = session_id(mesh, secret)
        seen = tuple(self.edge.traffic)
        return [traffic for traffic in seen if traffic.session_id == id and traffic.up.frames]

    def has_seen(self, mesh: str, count: int) -> bool:
        """There have been so many connections."""
        return len(self.traffic(mesh)) >= count

    async def raw(self, mesh: str) -> ClientConnection:
        url = self.edge.url_for(self.keys, session_id(mesh, SECRET))
        return await open_socket(url, compression=None, max_size=None)

    async def close(self) -> None:
        for context in self._pages:
            await context.close()


@attrs.define
class Page:
    """A page in a mesh."""

    id: str
    page: Any

    async def do(self, script: str, argument: object = None) -> Any:
        return await self.page.evaluate(script, argument)

    async def until(self, condition: str, argument: object = None) -> None:
        await self.page.wait_for_function(condition, arg=argument)


@asynccontextmanager
async def edge_of(
    world: World,
    credentials: Lookup | None = None,
    runtime: HostedRuntime = RUNTIME,
    **limits: Any,
) -> AsyncIterator[Edge]:
    with anyio.fail_after(80):
        with EdgeThread(
            runtimes=[runtime, oauth_runtime(world.cognito), tokens_runtime(world.cognito)],
            credentials=credentials or world.issuer.get,
            limits=EdgeLimits(**limits),
            clock=world.clock,
        ) as thread:
            edge = Edge(world, thread)
            try:
                yield edge
            finally:
                with anyio.CancelScope(shield=True):
                    await edge.close()


@pytest.fixture
async def edge(world: World) -> AsyncIterator[Edge]:
    async with edge_of(world) as edge:
        yield edge


@pytest.fixture
def mesh() -> str:
    return f"mesh {uuid.uuid4()}"


class Ear:
    """Everything that a Python peer hears."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def listen(self, peer: Peer) -> None:
        while peer.state is not MemberState.ENDED:
            try:
                async for message in peer:
                    self.messages.append(message)
            except Gap:
                continue  # a session has ended

    def counts(self) -> dict[str, list[int]]:
        """What others counted aloud, by peer."""
        lists: dict[str, list[int]] = defaultdict(list)
        for message in self.messages:
            if message.type == "broadcast" and "n" in message.data:
                lists[message.origin].append(message.data["n"])
        return lists


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.02)


async def words(command: Command) -> object:
    """What a Python peer serves: the same as a page."""
    text = str(command.text)
    if text.startswith("size "):
        return "x" * int(text.removeprefix("size "))
    for word in text.split(" "):
        await command.stream(word)
    return {"from": "py", "words": len(text.split(" "))}


async def answer_of(peer: Peer, agent: str, command: str) -> list[object]:
    turn = peer.ask(agent, command)
    chunks = [chunk async for chunk in turn]
    return [chunks, await turn]


async def all_see_all(python: Peer, *pages: Page) -> None:
    ids = {python.id, *(page.id for page in pages)}
    script = """ids => peer.state === "present"
        && JSON.stringify([...peer.roster.keys()].sort()) === JSON.stringify(ids)"""
    for page in pages:
        await page.until(script, sorted(ids - {page.id}))
    await until(lambda: set(python.roster) == ids - {python.id})


@asynccontextmanager
async def three(
    edge: Edge, mesh: str, **limits: float
) -> AsyncIterator[tuple[Peer, Ear, Page, Page]]:
    """A Python peer that listens and serves, and two pages, who all see one another."""
    ear = Ear()
    camel = {re.sub("_(.)", lambda m: m[1].upper(), name): v for name, v in limits.items()}
    async with edge.python("py", mesh, agents=["counter"], limits=limits) as python:
        ann = await edge.page("ann", mesh, agents=("painter",), limits=camel)
        bob = await edge.page("bob", mesh, agents=("poet",), limits=camel)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ear.listen, python)
            tasks.start_soon(python.serve, words)
            await all_see_all(python, ann, bob)
            yield python, ear, ann, bob
            tasks.cancel_scope.cancel()


# Talking ------------------------------------------------------------------------------------------


async def test_two_pages_and_a_python_peer_talk_in_every_way(edge: Edge, mesh: str) -> None:
    async with three(edge, mesh) as (python, ear, ann, bob):
        await python.broadcast({"n": 1})
        await ann.do("() => peer.broadcast({ n: 2 })")
        await bob.do("() => peer.broadcast({ n: 3 })")
        for page in (ann, bob):
            await page.until("() => Object.keys(counts()).length === 2")
        await until(lambda: len(ear.counts()) == 2)
        assert await ann.do("() => counts()") == {"py": [1], "bob": [3]}
        assert await bob.do("() => counts()") == {"py": [1], "ann": [2]}
        assert ear.counts() == {"ann": [2], "bob": [3]}

        await ann.do("() => peer.direct('poet', 'psst')")
        await python.direct("poet", "hm")
        for said in ("psst", "hm"):
            await bob.until(
                "said => seen.some((m) => m.type === 'direct' && m.data === said)", said
            )
        script = "([agent, command]) => answerOf(agent, command)"
        for page, agent, host in [
            (ann, "counter", "py"),
            (ann, "poet", "bob"),
            (bob, "counter", "py"),
            (bob, "painter", "ann"),
        ]:
            answer = await page.do(script, [agent, "a b c"])
            assert answer == [["a", "b", "c"], {"from": host, "words": 3}]
        for agent, host in [("painter", "ann"), ("poet", "bob")]:
            answer = await answer_of(python, agent, "one two")
            assert answer == [["one", "two"], {"from": host, "words": 2}]
        assert not any(message.data == "psst" for message in ear.messages)
        assert not await ann.do("() => seen.some(({ data }) => data === 'hm')")


async def test_with_the_tokens_of_an_oauth_runtime_it_is_the_same(
    world: World, edge: Edge, mesh: str
) -> None:
    """A connection that was cut is made anew with a new token."""
    used: list[str] = []

    async def token() -> str:
        used.append((await anyio.to_thread.run_sync(world.cognito.login))["AccessToken"])
        return used[-1]

    address = with_token(OAUTH_ARN, token, mesh=mesh, secret=SECRET)
    limits = MembershipLimits(**FAST)
    async with join(
        edge.redirected(address), "py", agents=["counter"], limits=limits, within_s=PATIENCE_S
    ) as python:
        ann = await edge.page("ann", mesh, agents=("painter",), arn=OAUTH_ARN, oauth=True)
        bob = await edge.page("bob", mesh, arn=OAUTH_ARN, oauth=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(python.serve, words)
            await all_see_all(python, ann, bob)
            await edge.call(edge.edge.cut_connections)
            await until(lambda: edge.has_seen(mesh, 6))
            await all_see_all(python, ann, bob)
            for agent, host in (("counter", "py"), ("painter", "ann")):
                answer = await bob.do("([agent, text]) => answerOf(agent, text)", [agent, "a b"])
                assert answer == [["a", "b"], {"from": host, "words": 2}]
            answer = await answer_of(python, "painter", "c")
            assert answer == [["c"], {"from": "ann", "words": 1}]
            tasks.cancel_scope.cancel()
        logins = "() => asked.filter((action) => action === 'InitiateAuth').length"
        assert [await ann.do(logins), await bob.do(logins), len(used)] == [2, 2, 2]
        said = "\n".join([*world.console, *world.records.lines, repr(python)])
        for secret in (*used, *[await page.do("() => tokens.AccessToken") for page in (ann, bob)]):
            assert secret not in said
            assert base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=") not in said

    wrong = with_token(OAUTH_ARN, used[-1][:-9], mesh=mesh, secret=SECRET)
    with pytest.raises(Rejected) as refused:
        async with join(edge.redirected(wrong), "eve"):
            pass
    assert refused.value.status == 401


# Proving who one is -------------------------------------------------------------------------------


async def outcome_of_entering(edge: Edge, mesh: str, id: str, **given: Any) -> str:
    """The error with which a page does not get in."""
    page = await edge.blank()
    options = {"id": id, "joinTimeoutS": 1.5}
    given = {**edge.given(mesh, **given), "options": options}
    script = "given => enter(given).then(() => 'in', ({ name, code }) => `${name} ${code}`)"
    return str(await page.evaluate(script, given))


async def test_no_user_takes_the_id_of_another(
    edge: Edge, mesh: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both log in; the token of the login goes along in the signed URL, and the relay checks it."""
    proven: dict[str, Any] = {"arn": TOKENS_ARN, "proves": True}
    ann = await edge.page(ANN, mesh, agents=("painter",), user=ANN, **proven)
    bob = await edge.page(f"{BOB}/phone", mesh, user=BOB, **proven)
    others = "id => [...peer.roster.keys()].join() === id"
    await ann.until(others, bob.id)
    await bob.until(others, ann.id)
    answer = await bob.do("([agent, text]) => answerOf(agent, text)", ["painter", "a b"])
    assert answer == [["a", "b"], {"from": ANN, "words": 2}]

    refused = "AnnouncementRefused not_granted"
    for id in (ANN, f"{ANN}/phone", BOB.removesuffix(".com")):
        assert await outcome_of_entering(edge, mesh, id, user=BOB, **proven) == refused
    without = {"arn": TOKENS_ARN, "user": BOB}
    assert await outcome_of_entering(edge, mesh, BOB, **without) == "Rejected undefined"

    # Nobody has noticed any of it.
    await bob.do("() => peer.broadcast('last')")
    await ann.until("() => seen.some(({ data }) => data === 'last')")
    said = await ann.do("() => seen.map(({ type, from }) => `${type} ${from}`)")
    # (A presence is said again after 15 s, and on a slow machine that is not long.)
    assert list(dict.fromkeys(said)) == [
        f"presence {bob.id}",
        f"direct {bob.id}",  # the command
        f"broadcast {bob.id}",
    ]
    tokens = [await page.do("() => tokens.IdToken") for page in (ann, bob)]
    printed = "".join(capfd.readouterr())  # by the relay's process
    assert "not_granted" in printed
    assert "token refused" in printed
    for token in tokens:
        assert token not in printed


async def test_a_python_peer_brings_a_token_for_every_connection(
    world: World, edge: Edge, mesh: str
) -> None:
    used: list[str] = []

    async def token() -> str:
        used.append((await anyio.to_thread.run_sync(world.cognito.login, BOB))["IdToken"])
        return used[-1]

    async with edge.python(BOB, mesh, way={"arn": TOKENS_ARN, "token": token}) as bob:
        ann = await edge.page(ANN, mesh, user=ANN, arn=TOKENS_ARN, proves=True)
        await all_see_all(bob, ann)
        await edge.call(edge.edge.cut_connections)
        await until(lambda: edge.has_seen(mesh, 4))
        await all_see_all(bob, ann)
        assert len(set(used)) == len(used) == 2

        with pytest.raises(AnnouncementRefused) as taken:
            async with edge.python(ANN, mesh, way={"arn": TOKENS_ARN, "token": token}):
                pass
        assert taken.value.code == "not_granted"

        # Neither without a token, nor with one that somebody has changed, or of another kind.
        access = world.cognito.login(BOB)["AccessToken"]
        head, _, signature = used[0].rpartition(".")
        for wrong in (None, f"{head}.{signature[::-1]}", access):
            with pytest.raises(Rejected) as refused:
                await edge.connector(mesh, arn=TOKENS_ARN, token=wrong)()
            assert refused.value.status == 424, "AgentCore does not pass on the relay's 401"
        assert set(bob.roster) == {ANN}
    said = "\n".join([*world.console, *world.records.lines, repr(bob)])
    for secret in (*used, access):
        assert secret not in said


# Staying ------------------------------------------------------------------------------------------


class Counting:
    """A Python peer that counts aloud until told to stop, beside pages that do the same."""

    def __init__(self, python: Peer, ear: Ear, *pages: Page) -> None:
        self.python, self.ear, self.pages = python, ear, pages
        self.is_on = True
        self.counted = 0
        self._over = anyio.Event()

    async def run(self) -> None:
        while self.is_on:
            await self.python.broadcast({"n": self.counted})
            self.counted += 1
            await anyio.sleep(0.005)
        self._over.set()

    async def __aenter__(self) -> "Counting":
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self.run)
        for page in self.pages:
            await page.do("() => void (window.over = count(5))")
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.is_on = False
        await self._tasks.__aexit__(*error)

    async def stop(self) -> dict[str, int]:
        """How far everybody came, once everybody has heard the last of it."""
        self.is_on = False
        await self._over.wait()
        totals = {"py": self.counted}
        for page in self.pages:
            await page.do("() => void (counting = false)")
        for page in self.pages:  # once the last one is sent
            totals[page.id] = await page.do("() => over.then(() => counted)")
        for id, total in totals.items():
            for page in self.pages:
                if page.id != id:
                    heard = "([id, last]) => counts()[id]?.at(-1) >= last"
                    await page.until(heard, [id, total - 1])
            if id != "py":
                await until(partial(self._has_heard, id, total - 1))
        return totals

    @property
    def lowest(self) -> int:
        """How far everybody has come, at least."""
        heard = self.ear.counts()
        return min(self.counted, *(len(heard[page.id]) for page in self.pages))

    def _has_heard(self, id: str, last: int) -> bool:
        return self.ear.counts()[id][-1:] == [last]


async def test_nothing_is_lost_doubled_or_reordered_over_the_ends_of_connections(
    world: World, mesh: str
) -> None:
    """Connections live for 5 s here; the clients replace them after 2."""
    async with edge_of(world, connection_life_s=5.0) as edge:
        limits = {"renew_after_s": 2.0, "join_within_s": 1.9, "switch_within_s": 1.5}
        async with three(edge, mesh, **limits) as (python, ear, ann, bob):
            async with Counting(python, ear, ann, bob) as counting:
                await until(lambda: len(edge.traffic(mesh)) >= 3 * 4 and counting.lowest > 100)
                totals = await counting.stop()
            every = {id: list(range(total)) for id, total in totals.items()}
            assert ear.counts() == {id: every[id] for id in ("ann", "bob")}
            assert await ann.do("() => counts()") == {id: every[id] for id in ("py", "bob")}
            assert await bob.do("() => counts()") == {id: every[id] for id in ("py", "ann")}
        # The edge ended none of them, for a limit or a fault. (1006: a busy machine did not finish
        # the handshake of a close in time; the counts tell that nothing was on its way any more.)
        assert not {traffic.close_code for traffic in edge.traffic(mesh)} & {1008, 1009, 1011}


@pytest.mark.parametrize("code", [1006, 1001])
async def test_nothing_is_lost_doubled_or_reordered_when_all_connections_are_cut(
    edge: Edge, mesh: str, code: int
) -> None:
    """Without a word to anyone, or as the edge ends a connection whose time is over; again and
    again, in the middle of arrays and of frames."""
    async with three(edge, mesh) as (python, ear, ann, bob):
        async with Counting(python, ear, ann, bob) as counting:
            for cuts in range(1, 6):
                least = counting.lowest + 20
                await until(lambda least=least: counting.lowest > least)  # type: ignore[misc]
                await edge.call(edge.edge.cut_connections, code)
                await until(lambda cuts=cuts: python.resumed == cuts)  # type: ignore[misc]
                for page in (ann, bob):
                    await page.until("(cuts) => peer.resumed === cuts", cuts)
            totals = await counting.stop()
        every = {id: list(range(total)) for id, total in totals.items()}
        assert ear.counts() == {id: every[id] for id in ("ann", "bob")}
        assert await ann.do("() => counts()") == {id: every[id] for id in ("py", "bob")}
        assert await bob.do("() => counts()") == {id: every[id] for id in ("py", "ann")}


@pytest.mark.parametrize("kill", [False, True])
async def test_everyone_meets_again_when_a_session_has_ended(
    edge: Edge, mesh: str, kill: bool
) -> None:
    async with three(edge, mesh) as (python, ear, ann, bob):
        (before,) = edge.edge.sessions
        await edge.call(partial(edge.edge.end_session, before.id, kill=kill))
        assert before not in edge.edge.sessions
        # None of them may still believe in the connection that is gone.
        await until(lambda: len(edge.traffic(mesh)) >= 6)
        await all_see_all(python, ann, bob)
        (after,) = edge.edge.sessions
        assert after.id == before.id
        assert after.pid != before.pid

        async with Counting(python, ear, ann, bob) as counting:
            await until(lambda: counting.lowest > 20)
            totals = await counting.stop()
        assert ear.counts() == {id: list(range(totals[id])) for id in ("ann", "bob")}
        answer = await answer_of(python, "painter", "here again")
        assert answer == [["here", "again"], {"from": "ann", "words": 2}]


async def test_a_page_whose_keys_have_expired_connects_with_new_ones(
    world: World, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.cognito, "credentials_life_s", 1000.0)
    monkeypatch.setattr(world.clock, "shift_s", 0.0)
    used: list[str] = []

    def lookup(key: str) -> Credentials | None:
        used.append(key)
        return world.issuer.get(key)

    keys_given = "() => asked.filter((action) => action === 'GetCredentialsForIdentity').length"
    async with edge_of(world, credentials=lookup) as edge:
        ann = await edge.page("ann", mesh)
        assert await ann.do(keys_given) == 1
        await edge.call(edge.edge.cut_connections)
        await until(lambda: len(edge.traffic(mesh)) == 2)
        await ann.until("() => peer.state === 'present'")
        assert await ann.do(keys_given) == 1, "they are good for a while yet"

        world.clock.shift_s = 1001
        await ann.do("() => void (shiftS = 1001)")
        old = world.issuer.get(used[0])
        assert old is not None
        assert old.expires_ms is not None
        assert old.expires_ms < world.clock.now().wall_ms
        await edge.call(edge.edge.cut_connections)
        await until(lambda: len(edge.traffic(mesh)) == 3)
        await ann.until("() => peer.state === 'present'")
        assert await ann.do(keys_given) == 2
        assert used[0] == used[1] != used[2]


async def test_a_python_peer_whose_keys_were_replaced_signs_with_the_new_ones(
    world: World, mesh: str
) -> None:
    revoked: set[str] = set()
    used: list[str] = []

    def lookup(key: str) -> Credentials | None:
        used.append(key)
        return None if key in revoked else world.issuer.get(key)

    def fresh() -> dict[str, str | None]:
        keys = world.issuer.issue()
        ends = datetime.now(UTC) + timedelta(seconds=60)  # so soon that botocore asks each time
        return {
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
            "token": keys.token,
            "expiry_time": ends.isoformat(),
        }

    core = botocore.session.get_session()
    core.set_config_variable("region", RUNTIME.region)
    core._credentials = RefreshableCredentials.create_from_metadata(fresh(), fresh, "test")
    session = boto3.Session(botocore_session=core)
    async with edge_of(world, credentials=lookup) as edge:
        async with edge.python("py", mesh, session=session) as python:
            for count in (2, 3):
                revoked.update(used)
                await edge.call(edge.edge.cut_connections)
                await until(partial(edge.has_seen, mesh, count))
                await until(lambda: python.state is MemberState.PRESENT)
    # (What takes long to open is tried beside itself, with the same keys.)
    assert len(set(used)) == 3


# Frames -------------------------------------------------------------------------------------------


def within_limits(traffic: list[Traffic]) -> None:
    """No connection came near what the service ends it for."""
    for one in traffic:
        for gauge in (one.up, one.down):
            assert gauge.frames_per_s_max < 250
            assert gauge.frame_bytes_max <= FRAME_BYTES


async def test_many_streams_to_a_page_stay_within_the_frames_of_its_connection(
    edge: Edge, mesh: str
) -> None:
    """5 agents, 80 chunks a second each, for 3 s; twice what a frame for each would allow."""
    chunks, per_s = 240, 80

    async def stream(peer: Peer) -> None:
        begun = anyio.current_time()
        for n in range(chunks):
            await anyio.sleep_until(begun + n / per_s)
            await peer.stream("turn", f"chunk {n}", n)

    ann = await edge.page("ann", mesh)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(edge.python(f"py{n}", mesh)) for n in range(5)]
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(stream, peer)
        streams = "() => seen.filter(({ type }) => type === 'stream')"
        await ann.until(f"count => ({streams})().length >= count", 5 * chunks)
        heard: dict[str, list[int]] = defaultdict(list)
        for message in await ann.do(streams):
            heard[message["from"]].append(message["data"]["chunkNum"])
        assert heard == {peer.id: list(range(chunks)) for peer in peers}
        traffic = edge.traffic(mesh)
        assert [one.close_code for one in traffic] == [None] * 6
        within_limits(traffic)
        assert max(one.down.frames for one in traffic) < 5 * chunks, "they shared frames"


async def test_a_flood_from_a_page_stays_within_the_frames_of_its_connection(
    edge: Edge, mesh: str
) -> None:
    async with three(edge, mesh) as (_, ear, ann, bob):
        await ann.do("""() => {
            const numbers = Array.from({ length: 2000 }, (_, n) => n);
            return Promise.all(numbers.map((n) => peer.broadcast({ n })));
        }""")
        await until(lambda: len(ear.counts()["ann"]) == 2000)
        await bob.until("() => counts().ann.length === 2000")
        assert ear.counts() == {"ann": list(range(2000))}
        assert await bob.do("() => counts()") == {"ann": list(range(2000))}
        within_limits(edge.traffic(mesh))
        # Long ones, of which one fits into a frame, at the pace of frames.
        await ann.do("""() => {
            const long = "x".repeat(30_000);
            const numbers = Array.from({ length: 200 }, (_, n) => n);
            return Promise.all(numbers.map((n) => peer.broadcast({ n, long })));
        }""")
        await until(lambda: len(ear.counts()["ann"]) == 2200)
        within_limits(edge.traffic(mesh))
        assert {one.close_code for one in edge.traffic(mesh)} == {None}


async def test_a_peer_that_takes_no_batches_is_spared_answers_to_others_while_it_is_behind(
    edge: Edge, mesh: str
) -> None:
    def of(type: str, turn: str, **data: object) -> str:
        return json.dumps({"type": type, "from": "worker", "turnId": turn, "data": data})

    async with await edge.raw(mesh) as raw:
        await raw.send(json.dumps({"type": "presence", "from": "raw", "data": {"agents": []}}))
        await raw.recv()
        # Whoever answers is in the same machine, where nobody counts.
        name = session_id(mesh, SECRET)
        relay = f"ws://127.0.0.1:{edge.edge.sessions[0].port}/ws?mesh={name}"
        async with open_socket(relay) as worker:
            await worker.send(json.dumps({"type": "presence", "from": "worker"}))
            command = {"type": "direct", "to": "worker", "turnId": "own", "data": {"command": "go"}}
            await raw.send(json.dumps(command))
            while json.loads(await worker.recv()).get("turnId") != "own":
                pass
            said = [of("stream", "of another", chunkNum=n) for n in range(1500)]
            said += [of("stream", "own", chunkNum=n) for n in range(50)]
            await worker.send(f"[{','.join([*said, of('turn_end', 'own')])}]")
            heard: list[tuple[str, object]] = []
            while not heard or heard[-1] != ("turn_end", None):
                got = json.loads(await raw.recv())
                if got["from"] == "relay":
                    heard.append((got["type"], got["data"]["code"]))
                elif "turnId" in got:
                    kind = got["turnId"] if got["type"] == "stream" else got["type"]
                    heard.append((kind, got["data"].get("chunkNum")))
        assert [one for one in heard if one[0] == "error"] == [("error", "lagging")]
        assert [number for kind, number in heard if kind == "own"] == list(range(50))
        others = [number for kind, number in heard if kind == "of another"]
        assert others == list(range(len(others)))
        assert 200 <= len(others) < 1500
        within_limits(edge.traffic(mesh))


async def test_a_peer_that_takes_no_batches_gets_a_burst_at_the_edges_pace(
    edge: Edge, mesh: str
) -> None:
    async with edge.python("py", mesh) as python, await edge.raw(mesh) as raw:
        await raw.send(json.dumps({"type": "presence", "from": "raw", "data": {"agents": []}}))
        await until(lambda: "raw" in python.roster)
        for n in range(1000):
            await python.direct("raw", n)
        heard: list[int] = []
        while len(heard) < 1000:
            message = json.loads(await raw.recv())
            if message["type"] == "direct":
                heard.append(message["data"])
        assert heard == list(range(1000))
        await raw.send(json.dumps({"type": "direct", "from": "raw", "to": "py", "data": "thanks"}))
        async for message in python:
            if message.data == "thanks":
                break
        traffic = edge.traffic(mesh)
        within_limits(traffic)
        assert traffic[1].down.frames > 1000
        assert traffic[1].close_code is None


async def test_long_results_come_whole_in_frames_that_the_edge_takes(edge: Edge, mesh: str) -> None:
    async with three(edge, mesh) as (_, _, ann, _):
        page_hears = "() => answerOf('counter', 'size 200000').then(([, text]) => text.length)"
        assert await ann.do(page_hears) == 200_000
        async with edge.python("asker", mesh) as asker:
            assert await asker.ask("counter", "size 200000") == "x" * 200_000
            # A page cannot say as much: its browser would put all of it into one or two frames.
            with pytest.raises(TurnFailed, match=str(FRAME_BYTES)):
                await asker.ask("painter", "size 200000")
            assert await asker.ask("painter", "size 31000") == "x" * 31_000
        refused = await ann.do("() => peer.broadcast('x'.repeat(200_000)).catch(String)")
        assert refused.startswith("TooLarge")
        assert str(FRAME_BYTES) in refused
        traffic = edge.traffic(mesh)
        within_limits(traffic)
        assert max(one.up.frame_bytes_max for one in traffic) == FRAME_BYTES
        assert max(one.down.frame_bytes_max for one in traffic) == FRAME_BYTES
        assert [one.close_code for one in traffic if one.close_code is not None] in ([], [1000])


async def test_who_comes_late_gets_what_was_said_before_in_few_frames(
    edge: Edge, mesh: str
) -> None:
    async with edge.python("early", mesh) as early, edge.python("witness", mesh) as witness:
        for n in range(50):
            await early.broadcast([n, "x" * 500])
        async for message in witness:
            if message.type == "broadcast" and message.data[0] == 49:
                break
        async with edge.python("late", mesh, history=40) as late:
            await until(lambda: "late" in early.roster)
            await early.broadcast(["new"])
            told = []
            async for message in late:
                if message.type == "broadcast":
                    told.append((message.data[0], message.is_old))
                    if not message.is_old:
                        break
        assert told == [*((n, True) for n in range(10, 50)), ("new", False)]
        traffic = edge.traffic(mesh)
        within_limits(traffic)
        assert traffic[-1].down.frames < 20, "they shared frames"


async def test_what_chromium_makes_of_a_long_message(world: World, mesh: str) -> None:
    """Why the client refuses it. If this changes, browser/README.md is wrong."""
    async with edge_of(world, frame_bytes_max=64 * 1024) as edge:
        ann = await edge.page("ann", mesh)
        await ann.do(
            """async ({ arn, mesh, secret, edge: endpoint, keys: credentials }) => {
            const url = await client.agentcore({ arn, mesh, secret, credentials, endpoint })();
            window.socket = new WebSocket(url);
            await new Promise((resolve) => (socket.onopen = resolve));
            socket.onclose = ({ code }) => (window.code = code);
            socket.send("x".repeat(65_537));
        }""",
            edge.given(mesh, keys=edge.javascript_keys),
        )
        await ann.until("() => window.code")
        assert await ann.do("() => code") == 1009


# Apart --------------------------------------------------------------------------------------------


async def test_meshes_never_see_one_another(edge: Edge, mesh: str) -> None:
    other, secretless = f"{mesh} too", "no secret"
    async with (
        edge.python("py", mesh) as here,
        edge.python("py", other) as there,
        edge.python("py", mesh, secret=secretless) as guessing,
    ):
        pages = {
            "here": await edge.page("ann", mesh),
            "there": await edge.page("bob", other),
            "guessing": await edge.page("eve", mesh, secret=secretless),
        }
        peers = {"here": here, "there": there, "guessing": guessing}
        for name, page in pages.items():
            await all_see_all(peers[name], page)
        for name, peer in peers.items():
            await peer.broadcast(name)
        for name, page in pages.items():
            await page.until("() => seen.some(({ type }) => type === 'broadcast')")
            said = "() => seen.filter(({ type }) => type === 'broadcast').map(({ data }) => data)"
            assert await page.do(said) == [name]
            refusal = await page.do("() => peer.ask('stranger', 'x').result().catch(String)")
            assert refusal.startswith("UnknownTarget")
        assert [set(peer.roster) for peer in peers.values()] == [{"ann"}, {"bob"}, {"eve"}]
    assert len({one.session_id for one in edge.edge.traffic}) == 3


async def test_without_rights_nobody_comes_in(edge: Edge, mesh: str) -> None:
    async with edge.python("py", mesh) as python:
        keys = {"accessKeyId": edge.keys.access_key, "secretAccessKey": "not its secret"}
        page = await edge.blank()
        options = {"id": "eve", "joinTimeoutS": 1.5}
        given = {**edge.given(mesh), "keys": keys, "options": options}
        outcome = await page.evaluate("given => enter(given).catch((e) => `${e.name} ${e}`)", given)
        assert outcome.startswith("Rejected")
        wrong = boto3.Session(edge.keys.access_key, "not its secret", region_name=RUNTIME.region)
        with pytest.raises(Rejected) as refused:
            async with edge.python("eve", mesh, session=wrong):
                pass
        assert refused.value.status == 403
        assert dict(python.roster) == {}
        assert len(edge.traffic(mesh)) == 1


async def test_who_comes_while_a_session_starts_tries_again(
    world: World, mesh: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The first starts it and waits; the others get 409 until it runs, which it does when told."""
    caplog.set_level(logging.INFO, "actors")
    gate, before = tmp_path / "gate", len(world.console)
    command = (*("sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.02; done; exec "$@"'), str(gate))
    slow = HostedRuntime(command=(*command, *RUNTIME.command))

    def all_were_told() -> bool:
        records = " ".join(str(vars(record)) for record in caplog.records)
        return "answered 409" in records and any("409" in ln for ln in world.console[before:])

    async with edge_of(world, runtime=slow, conflict_while_starting=True) as edge:
        async with anyio.create_task_group() as tasks:
            pages: list[Page] = []

            async def come(id: str) -> None:
                pages.append(await edge.page(id, mesh))

            async def meet() -> None:
                async with edge.python("py", mesh) as python:
                    await until(lambda: len(pages) == 2)
                    await all_see_all(python, *pages)

            tasks.start_soon(come, "ann")
            await until(lambda: edge.edge.sessions)
            tasks.start_soon(come, "bob")
            tasks.start_soon(meet)
            await until(all_were_told)
            gate.touch()


# Secrets ------------------------------------------------------------------------------------------


async def test_no_secret_was_shown_stored_or_logged(
    world: World, edge: Edge, mesh: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this test, and in all of this module before it."""
    async with three(edge, mesh) as (python, _, ann, bob):
        await answer_of(python, "painter", "something")
        with pytest.raises(UnknownTarget) as error:
            await python.ask("nobody", "x")
        assert str(error.value)
        await edge.call(edge.edge.cut_connections)
        await until(lambda: len(edge.traffic(mesh)) >= 6)
        await all_see_all(python, ann, bob)
        shown = await ann.do("""async () => [
            await peer.ask("nobody", "x").result().catch((e) => `${e} ${e.stack}`),
            JSON.stringify(peer), location.href, document.body.innerHTML, document.cookie,
            JSON.stringify(localStorage), JSON.stringify(sessionStorage),
            JSON.stringify(await indexedDB.databases()), JSON.stringify(await caches.keys()),
        ]""")
        tokens = [await page.do("() => tokens.IdToken") for page in (ann, bob)]
        shown += [repr(python), str(vars(python)), repr(edge.connector(mesh))]
    await edge.call(edge.edge.end_session, session_id(mesh, SECRET))
    printed = capfd.readouterr()  # by the relay's process
    assert '"ann"' in printed.out + printed.err
    said = [*world.console, *world.records.lines]
    everything = "\n".join([*shown, *said, printed.out, printed.err])
    assert "UnknownTarget" in everything, "what is looked at is really there"
    assert "connection closed" in everything
    issued = list(world.issuer._issued.values())
    assert len(issued) >= 3
    secrets = [
        SECRET,
        *world.cognito.passwords.values(),
        *tokens,
        *(keys.secret_key for keys in issued),
    ]
    # A browser itself prints the URL of what it could not open, the token of the keys included.
    own = "\n".join(
        line for line in everything.split("\n") if "WebSocket connection to" not in line
    )
    for secret in secrets:
        assert secret not in everything
    for secret in [*(str(keys.token) for keys in issued), "X-Amz-Signature"]:
        assert secret not in own
