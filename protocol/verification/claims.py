"""What a relay of this protocol promises, claim by claim: small async functions to be read.

A claim talks to a relay over real WebSockets through a `World`: it joins peers, lets them send, and
compares what the others received. It returns if the promise is kept and raises otherwise:

    Failed           the promise is broken; says what was expected and what was seen
    Lacking          the relay does without this extension: a failure only if it says it has it
    NotApplicable    cannot be told here, for instance because a bound is set higher

That something does *not* arrive is never shown by waiting: `World.settle` lets every peer send
markers, which by rule 11 arrive after all that was caused before. What must arrive is waited for,
up to `Target.patience_s`. Only claims with `needs_time` let real time pass.

Claims do not disturb one another: ids are fresh for each, and where the relay has meshes, so is the
mesh; what belongs to other claims or to other people's peers is not looked at.
"""

import asyncio
import contextlib
import json
import random
import secrets
import socket as sockets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlsplit

import attrs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

# Outcomes -----------------------------------------------------------------------------------------


class Failed(Exception):
    """The promise is broken."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected: {expected}; seen: {seen}")
        self.expected = expected
        self.seen = seen


class Lacking(Exception):
    """The relay does without this extension. `seen` says by what that can be told."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(seen)
        self.expected = expected
        self.seen = seen


class NotApplicable(Exception):
    """This promise cannot be checked on this relay, or says nothing about it."""


def expect(kept: bool, expected: str, seen: object) -> None:
    """Raise Failed unless `kept`."""
    if not kept:
        raise Failed(expected, _shown(seen))


def _shown(seen: object) -> str:
    """`seen` in words, not too many of them."""
    if isinstance(seen, str):
        words = seen
    elif isinstance(seen, list | tuple):
        words = ", ".join(m.text if isinstance(m, Message) else repr(m) for m in seen) or "nothing"
    else:
        words = seen.text if isinstance(seen, Message) else repr(seen)
    return words if len(words) <= 300 else f"{words[:280]}... ({len(words)} characters)"


# The relay under test, and peers that talk to it --------------------------------------------------


@attrs.frozen(kw_only=True)
class Target:
    """The relay under test. `capabilities`: what it answered to that question; None: nothing.

    `reap_after_s` is the silence after which it reaps, `patience_s` how long to wait for what must
    come; a claim that passes never waits that long.
    """

    url: str
    reap_after_s: float = 30.0
    patience_s: float = 5.0
    has_mesh_names: bool = True
    headers: Mapping[str, str] = MappingProxyType({})
    capabilities: Mapping[str, Any] | None = None

    @property
    def mesh(self) -> str | None:
        """The mesh that the URL names, if it does."""
        return parse_qs(urlsplit(self.url).query).get("mesh", [None])[0]

    def url_in(self, mesh: str | None) -> str:
        """The URL, naming this mesh, unless it names one already."""
        if mesh is None or self.mesh is not None or not self.has_mesh_names:
            return self.url
        return self.url + ("&" if urlsplit(self.url).query else "?") + "mesh=" + quote(mesh)


@attrs.frozen
class Message:
    """A message as it arrived. `fields` is empty if it was no JSON object."""

    text: str
    fields: Mapping[str, Any]

    @property
    def type(self) -> object:
        return self.fields.get("type")

    @property
    def sender(self) -> object:
        """The field `from`."""
        return self.fields.get("from")

    @property
    def data(self) -> Mapping[str, Any]:
        """`data`, where it is an object."""
        data = self.fields.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def is_offline(self) -> bool:
        return self.type == "presence" and self.data.get("status") == "offline"

    @property
    def agents(self) -> list[object]:
        """The ids of `data.agents`."""
        agents = self.data.get("agents")
        return [_agent_id(a) for a in agents] if isinstance(agents, list) else []

    def carries(self, text: str) -> bool:
        """All fields of `text` are in it with their values; the relay may have added some."""
        sent: dict[str, Any] = json.loads(text)
        return all(name in self.fields and self.fields[name] == sent[name] for name in sent)


def _agent_id(agent: object) -> object:
    if isinstance(agent, dict):
        return next((agent[key] for key in ("agentId", "id", "name") if agent.get(key)), None)
    return agent


def _read(text: str | bytes) -> Message:
    if isinstance(text, bytes):
        return Message(f"a binary frame of {len(text)} bytes", {})
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    return Message(text, fields if isinstance(fields, dict) else {})


class Peer:
    """One connection. `inbox` is what arrived and was neither waited for nor taken."""

    def __init__(self, world: "World", socket: ClientConnection) -> None:
        self.world = world
        self.socket = socket
        self.id = ""
        self.inbox: list[Message] = []
        self.is_left_alone = False  # neither settled with nor kept alive
        self.is_deaf = False  # not settled with, because it does not read
        self.spoke_at = time.monotonic()

    def __repr__(self) -> str:
        return self.id or "a connection without presence"

    async def send_text(self, text: str | bytes, *, as_text: bool = False) -> None:
        """Send a text frame, or bytes: as a binary frame, or `as_text`. Raises Failed if closed."""
        try:
            async with asyncio.timeout(self.world.target.patience_s * 2):
                await self.socket.send(text, text=True if as_text else None)
        except ConnectionClosed as closed:
            raise self._was_closed(closed) from None
        except TimeoutError:
            raise Failed(f"the relay reads what {self!r} sends", "it does not") from None
        self.spoke_at = time.monotonic()

    async def send(self, type: str, **fields: Any) -> str:
        """Send a message from this peer and return its text. `sender=` replaces `from`, or
        (None) leaves it out."""
        sender = fields.pop("sender", self.id)
        origin = {} if sender is None else {"from": sender}
        message = {"type": type, **origin, **fields, "timestamp": round(time.time() * 1000)}
        text = json.dumps(message)
        await self.send_text(text)
        return text

    async def announce(self, *agents: object, **data: Any) -> Message:
        """Send a presence and wait until it comes back."""
        await self.send("presence", data={"agents": agents, **data})
        return await self.until(
            lambda m: m.type == "presence" and m.sender == self.id,
            f"the presence of {self!r} comes back to it",
        )

    async def receive(self, expected: str) -> Message:
        """The next message that is about this claim. Raises Failed."""
        try:
            async with asyncio.timeout(self.world.target.patience_s):
                while True:
                    message = _read(await self.socket.recv())
                    if not self.world.is_foreign(message):
                        return message
        except ConnectionClosed as closed:
            raise self._was_closed(closed) from None
        except TimeoutError:
            words = f"{self!r} waited {self.world.target.patience_s:g} s in vain"
            if self.inbox:
                words += f"; what came last: {_shown(self.inbox[-1])}"
            raise Failed(expected, words) from None

    async def until(self, wanted: Callable[[Message], bool], expected: str) -> Message:
        """The next message that is `wanted`. What comes before it stays in the inbox."""
        for at, message in enumerate(self.inbox):
            if wanted(message):
                return self.inbox.pop(at)
        while not wanted(message := await self.receive(expected)):
            self.inbox.append(message)
        return message

    async def arrives(self, text: str, expected: str) -> Message:
        """`text` arrives here, perhaps with added fields."""
        return await self.until(lambda m: m.carries(text), expected)

    def taken(self) -> list[Message]:
        """The inbox, without markers; it is empty afterwards."""
        inbox, self.inbox = self.inbox, []
        return [m for m in inbox if "mark" not in m.data]

    def traffic(self) -> list[Message]:
        """The same without presences, which a relay may repeat at any time."""
        return [m for m in self.taken() if m.type != "presence"]

    async def close(self) -> None:
        """Leave, with a closing handshake."""
        self.is_left_alone = True
        await self.socket.close()

    def cut(self) -> None:
        """Lose the connection without a word."""
        self.is_left_alone = True
        self.socket.transport.abort()

    async def closed(self, within_s: float, expected: str) -> int:
        """Wait for the relay to close, dropping what comes before. The close code."""
        self.is_left_alone = True
        try:
            async with asyncio.timeout(within_s):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as closed:
            return _code(closed)
        except TimeoutError:
            raise Failed(expected, f"still open after {within_s:.1f} s") from None

    def _was_closed(self, closed: ConnectionClosed) -> Failed:
        return Failed(f"the connection of {self!r} is kept", f"closed with {_code(closed)}")


def _code(closed: ConnectionClosed) -> int:
    return closed.rcvd.code if closed.rcvd is not None else 1006


class World:
    """The peers of one claim. An async context manager; closes what it opened."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.token = secrets.token_hex(5)
        self.peers: list[Peer] = []
        self._mesh = f"check-{self.token}"
        self._names = 0
        self._heartbeats: asyncio.Task[None] | None = None

    def name(self, word: str) -> str:
        """A name that nobody else uses: `word` with this world's token."""
        return f"{word}-{self.token}"

    def is_foreign(self, message: Message) -> bool:
        """Is this message about somebody outside this claim? (On relays without meshes.)"""
        is_answer = message.type in ("error", "capabilities_response")
        return bool(message.fields) and not is_answer and self.token not in message.text

    async def connect(self, *, mesh: str | None = None, is_slow: bool = False) -> Peer:
        """A connection that has not announced itself. `is_slow`: with small buffers, so that it
        stalls soon when it is not read."""
        url = self.target.url_in(mesh or self._mesh)
        options: dict[str, Any] = {"additional_headers": dict(self.target.headers)}
        options["max_queue"] = 1 if is_slow else None  # None: it reads whatever comes
        if is_slow and urlsplit(url).scheme == "ws":
            options["sock"] = await self._small_socket(url)
        try:
            socket = await connect(
                url,
                compression=None,
                max_size=None,
                proxy=None,
                ping_interval=None,
                open_timeout=self.target.patience_s * 2,
                close_timeout=1.0,
                **options,
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise Failed("the relay accepts a connection", str(error) or repr(error)) from error
        peer = Peer(self, socket)
        self.peers.append(peer)
        return peer

    async def _small_socket(self, url: str) -> sockets.socket:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        [(family, kind, number, _, address), *_] = await loop.getaddrinfo(
            parts.hostname, parts.port or 80, type=sockets.SOCK_STREAM
        )
        small = sockets.socket(family, kind, number)
        small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        small.setblocking(False)
        try:
            await loop.sock_connect(small, address)
        except BaseException:
            small.close()
            raise
        return small

    async def tab(self, id: str, *agents: object, **data: Any) -> Peer:
        """A connection that announced `id`."""
        peer = await self.connect()
        peer.id = id
        await peer.announce(*agents, **data)
        return peer

    async def join(self, word: str, *agents: object, **data: Any) -> Peer:
        """A new peer with these agents; `word` becomes the beginning of its id."""
        return await self.tab(self.name(word), *agents, **data)

    async def joined(self, *words: str) -> list[Peer]:
        """New peers without agents; what their arrival caused is settled and dropped."""
        peers = [await self.join(word) for word in words]
        await self.settled()
        return peers

    async def settle(self) -> None:
        """Wait until everything sent so far has arrived wherever it goes.

        In the first round everybody's marker shows that the relay has read all that was sent before
        it; in the second, that what it sent because of that has arrived.
        """
        peers = [p for p in self.peers if p.id and not (p.is_left_alone or p.is_deaf)]
        for _ in range(2):
            marks = {}
            for peer in peers:
                self._names += 1
                marks[peer] = mark = self.name(f"mark{self._names}")
                await peer.send("broadcast", data={"mark": mark})
            for peer in peers:
                for other in peers:
                    if other.id != peer.id:
                        await peer.until(
                            lambda m, mark=marks[other]: m.data.get("mark") == mark,  # type: ignore[misc]
                            f"a broadcast of {other!r} reaches {peer!r}",
                        )

    async def settled(self) -> None:
        """Settle, and drop what arrived."""
        await self.settle()
        for peer in self.peers:
            peer.inbox.clear()

    async def _keep_alive(self) -> None:
        """A relay that reaps within seconds must not reap peers that merely wait."""
        while True:
            await asyncio.sleep(self.target.reap_after_s / 8)
            for peer in tuple(self.peers):
                due = time.monotonic() - peer.spoke_at >= self.target.reap_after_s / 4
                if due and peer.id and not peer.is_left_alone:
                    try:
                        await peer.send("heartbeat")
                    except Failed:
                        peer.is_left_alone = True

    async def __aenter__(self) -> Self:
        self._heartbeats = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._heartbeats is not None:
            self._heartbeats.cancel()
            await asyncio.gather(self._heartbeats, return_exceptions=True)
        for peer in self.peers:
            if peer.is_left_alone or peer.is_deaf:
                peer.cut()
        await asyncio.gather(*(p.socket.close() for p in self.peers), return_exceptions=True)


# Claims -------------------------------------------------------------------------------------------

Check = Callable[[World], Awaitable[None]]


@attrs.frozen
class Claim:
    """One promise. `rule` is its number in docs/protocol.md; None: it follows from no single one.

    `is_base`: part of the base specification, which every relay must keep; else an extension.
    """

    name: str
    promise: str
    rule: int | None
    is_base: bool
    needs_time: bool
    check: Check


_CLAIMS: Final[dict[str, Claim]] = {}


def _claim(
    name: str,
    rule: int | None,
    *,
    extension: bool = False,
    needs_time: bool = False,
    promise: str | None = None,
) -> Callable[[Check], Check]:
    """Make a claim of a function whose docstring is the promise."""

    def register(check: Check) -> Check:
        words = promise or " ".join((check.__doc__ or "").split())
        if not words or name in _CLAIMS:
            raise ValueError(f"claim {name!r} needs a promise, and a name of its own")
        _CLAIMS[name] = Claim(name, words, rule, not extension, needs_time, check)
        return check

    return register


def all_claims() -> tuple[Claim, ...]:
    """Every claim, in the order of the protocol's rules."""
    return tuple(_CLAIMS.values())


def _nothing_new(messages: Iterable[Message]) -> list[Message]:
    """What is left without repeats of the presences of peers that have no agents."""
    return [
        m
        for m in messages
        if not (m.type == "presence" and not m.is_offline and m.data.get("agents") == [])
    ]


# Rule 1: text -------------------------------------------------------------------------------------

_NASTY: Final = (
    '{"type":"stream","from":"ME","data":{"chunk":"plain"}}',
    ' { "type" : "stream" , "from" : "ME" }\n',
    '\t{"from":"ME","data":null,"type":"stream"}\r\n',
    '{"type":"stream","from":"ME","n":[1E+5,-0,-0.0,1.50,0.1e-7,1e400,100000000000000000000001]}',
    '{"type":"stream","from":"ME","data":{"chunk":"\\u00e9 \\/ \\b\\f\\n\\r\\t \\" \\\\ \\u0000"}}',
    '{"type":"stream","from":"ME","data":{"chunk":"é \U0001f600 \u2028\u2029\ufeff \ufffd \x7f"}}',
    '{"type":"stream","from":"ME","data":{"chunk":"\\ud83d\\ude00"}}',
    '{"type":"stream","from":"ME","data":{"":{"":[[],{},[[{"a":[null,true,false]}]]]}}}',
    '{"type":"stream","from":"ME","turnId":{"any":["json"]},"unknown":[1,"2",null],"to":null}',
    '{"type":"stream","from":"ME","__proto__":{"x":1},"constructor":"c","toString":0}',
    '{"\\u0074ype":"stream","\\u0066rom":"ME","data":"escaped keys"}',
    '{"type":"stream","from":"ME","data":["two of a kind"],"data":"the last one counts"}',
    '{"type":"stream","from":"ME","timestamp":"not a number","data":12345}',
    '{"type":"stream","from":"ME","data":"]}{[\\"}{"}',
)


@_claim("text.unknown-fields-survive", 1)
async def _(world: World) -> None:
    """Fields that the relay does not know reach the receivers with their values."""
    a, b = await world.joined("a", "b")
    text = await a.send(
        "broadcast",
        turnId="t",
        instanceId=a.id,
        data={"deep": [{"x": None}], "text": "é\U0001f600"},
        somethingElse=[1, 2.5, "x"],
    )
    await b.arrives(text, "all fields of the message, with their values")


@_claim("text.byte-for-byte", 1, extension=True)
async def _(world: World) -> None:
    """A valid message arrives byte for byte as it was sent: spaces, key order, numbers, escapes."""
    a, b = await world.joined("a", "b")
    changed: list[tuple[str, str]] = []
    for nasty in _NASTY:
        text = nasty.replace("ME", a.id)
        await a.send_text(text)
        message = await b.until(lambda m: m.type != "presence", f"{text!r} arrives")
        if message.text != text:
            expect(message.carries(text), text, message)
            changed.append((text, message.text))
    if changed:
        raise Lacking(changed[0][0], changed[0][1])


@_claim("text.lone-surrogate-escapes-pass", 1)
async def _(world: World) -> None:
    """A stream that cuts an emoji into two escapes arrives: lone surrogates are valid JSON."""
    a, b = await world.joined("a", "b")
    for chunk in ("\\ud83d", "\\ude00"):
        await a.send_text(f'{{"type":"stream","from":"{a.id}","data":{{"chunk":"{chunk}"}}}}')
        await b.until(
            lambda m, chunk=chunk: chunk in m.text.lower(),  # type: ignore[misc]
            f"the chunk {chunk}",
        )


@_claim("text.a-large-result-passes", 1)
async def _(world: World) -> None:
    """A `turn_end` with a transcript of 200 kB arrives whole."""
    a, b = await world.joined("a", "b")
    text = await a.send("turn_end", turnId="t", data={"result": "x" * 200_000})
    await b.arrives(text, "a message of 200 kB")


@_claim("text.fragments-are-put-together", 1)
async def _(world: World) -> None:
    """A message sent in many WebSocket fragments, cut anywhere, arrives whole (RFC 6455, 5.4)."""
    a, b = await world.joined("a", "b")
    text = json.dumps(
        {"type": "stream", "from": a.id, "data": {"chunk": "é\U0001f600" * 50}}, ensure_ascii=False
    )
    data = text.encode()
    pieces = [b"", *(data[at : at + 1] for at in range(len(data))), b""]
    await a.socket.send(pieces, text=True)
    await b.arrives(text, "the message, whole")


# Rule 2: audiences, and peers with several connections --------------------------------------------


def _fanned_out(type: str) -> Check:
    async def check(world: World) -> None:
        a, b, c = await world.joined("a", "b", "c")
        text = await a.send(type, data={"n": 1})
        for peer in (b, c):
            await peer.arrives(text, f"a `{type}` reaches every other peer")
        await world.settle()
        seen = a.traffic()
        expect(not seen, f"a `{type}` does not come back to its sender", seen)
        for peer in (b, c):
            seen = peer.traffic()
            expect(not seen, f"a `{type}` arrives once", seen)

    return check


for _type in ("broadcast", "stream", "ack", "turn_end", "error"):
    _claim(
        f"routing.{_type.replace('_', '-')}-reaches-all-but-the-sender",
        2,
        promise=f"Type `{_type}` reaches all peers once, except the sender.",
    )(_fanned_out(_type))


@_claim("routing.any-other-type-is-fanned-out", 2, extension=True)
async def _(world: World) -> None:
    """A type that the protocol does not know goes where a broadcast goes."""
    a, b, c = await world.joined("a", "b", "c")
    text = await a.send("ring-update", data={"n": 1})
    await world.settle()
    if any(m.type == "error" and m.data.get("code") == "unknown_type" for m in a.inbox):
        raise NotApplicable("this relay is set to refuse unknown types")
    for peer in (b, c):
        seen = peer.traffic()
        if not seen:
            raise Lacking("the unknown type arrives", "nothing (a closed vocabulary)")
        expect(len(seen) == 1 and seen[0].carries(text), text, seen)
    seen = [m for m in a.traffic() if m.type != "error"]
    expect(not seen, "it does not come back to its sender", seen)


@_claim("tabs.closing-one-hides-nobody", 2)
async def _(world: World) -> None:
    """When one of a peer's two tabs closes, nobody hears `offline`, and it is still reached."""
    watcher, one = await world.joined("watcher", "twotabs")
    two = await world.tab(one.id)
    await world.settled()
    await one.close()
    text = await watcher.send("direct", to=one.id)
    await two.arrives(text, "a direct still reaches the peer")
    await _after_the_end_of(world, one)
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, "no `offline` while another connection is open", seen)
    newcomer = await world.join("newcomer")
    await newcomer.until(
        lambda m: m.type == "presence" and m.sender == two.id and not m.is_offline,
        "a newcomer finds the peer in the roster",
    )


@_claim("tabs.late-death-of-an-old-socket-hides-nobody", 2)
async def _(world: World) -> None:
    """A peer that reconnected stays online when its old connection is found dead later."""
    watcher, old = await world.joined("watcher", "reconnected")
    new = await world.tab(old.id)
    await world.settled()
    old.cut()
    await _after_the_end_of(world, old)
    text = await watcher.send("direct", to=old.id)
    await new.arrives(text, "a direct still reaches the peer")
    await world.settle()
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, "no `offline` while the new connection is open", seen)


@_claim("tabs.the-last-one-says-offline-once", 2)
async def _(world: World) -> None:
    """When the last of a peer's connections closes, the others hear `offline` exactly once."""
    watcher, one = await world.joined("watcher", "twotabs")
    two = await world.tab(one.id)
    await world.settled()
    await one.close()
    await two.close()
    await _offline_once(world, watcher, one.id)


@_claim("tabs.the-sender-is-all-its-connections", 2)
async def _(world: World) -> None:
    """A broadcast does not come back to another connection of its sender."""
    a, _b = await world.joined("a", "b")
    other_tab = await world.tab(a.id)
    await world.settled()
    await a.send("broadcast", data={"n": 1})
    await world.settle()
    seen = other_tab.traffic()
    expect(not seen, "nothing at the sender's other connection", seen)


@_claim("tabs.a-direct-reaches-all-of-them", 2)
async def _(world: World) -> None:
    """A direct reaches every connection of its target."""
    a, b = await world.joined("a", "b")
    other_tab = await world.tab(b.id)
    await world.settled()
    text = await a.send("direct", to=b.id)
    for tab in (b, other_tab):
        await tab.arrives(text, "the direct at every connection of its target")


@_claim("tabs.agents-are-the-union", 2, extension=True)
async def _(world: World) -> None:
    """The agents that the others see of a peer are those of all its connections."""
    (watcher,) = await world.joined("watcher")
    x, y = world.name("x"), world.name("y")
    one = await world.join("twotabs", x)
    await world.tab(one.id, y)
    await world.settle()
    seen = [m for m in watcher.taken() if m.type == "presence" and m.sender == one.id]
    if not seen or set(map(str, seen[-1].agents)) == {y}:
        raise Lacking(f"agents {x}, {y}", _shown(seen))
    expect(sorted(map(str, seen[-1].agents)) == [x, y], f"agents {x}, {y}", seen)
    await one.close()
    await watcher.until(
        lambda m: m.type == "presence" and m.sender == one.id and m.agents == [y],
        f"a presence with only {y} after the connection that announced {x} has closed",
    )


async def _after_the_end_of(world: World, gone: Peer) -> None:
    """Wait until the relay has surely noticed that a connection ended, as far as that can be told.

    A closing handshake tells it; a connection that was cut is noticed by its event loop along with
    the messages of the others, so a few round trips through it are awaited.
    """
    await gone.socket.wait_closed()
    for _ in range(4):
        await world.settle()
        await asyncio.sleep(0.005)


async def _offline_once(world: World, watcher: Peer, id: str) -> Message:
    """The watcher hears that `id` is offline, and hears it only once."""

    def is_its_offline(message: Message) -> bool:
        return message.is_offline and message.sender == id

    await world.join("another")  # settling needs two
    told = await watcher.until(is_its_offline, f"a presence of {id} with status `offline`")
    for _ in range(4):
        await world.settle()
        await asyncio.sleep(0.005)
    again = [m for m in watcher.taken() if is_its_offline(m)]
    expect(not again, "`offline` once", [told, *again])
    return told


# Rule 3: joining ----------------------------------------------------------------------------------


@_claim("joining.own-presence-first", 3)
async def _(world: World) -> None:
    """The first thing that a newcomer receives is its own presence."""
    await world.joined("first", "second")
    newcomer = await world.connect()
    newcomer.id = world.name("newcomer")
    await newcomer.send("presence", data={"agents": []})
    message = await newcomer.receive("its own presence")
    kept = message.type == "presence" and message.sender == newcomer.id
    expect(kept, "its own presence first", message)


@_claim("joining.then-the-roster", 3)
async def _(world: World) -> None:
    """Then come the presences of all who are here, each once, before any later traffic."""
    here = [await world.join(f"here{n}", world.name(f"agent{n}")) for n in range(3)]
    newcomer = await world.join("newcomer")
    await here[0].send("broadcast", data={"n": 1})
    await newcomer.until(lambda m: m.data.get("n") == 1, "later traffic")
    seen = [(m.sender, m.agents) for m in newcomer.taken() if m.type == "presence"]
    wanted = [(peer.id, [world.name(f"agent{n}")]) for n, peer in enumerate(here)]
    expect(sorted(map(str, seen)) == sorted(map(str, wanted)), f"{wanted}, in any order", seen)


@_claim("joining.the-roster-holds-the-latest-presences", 3)
async def _(world: World) -> None:
    """The roster shows what each peer announced last, and nobody who has left."""
    agent = world.name("new")
    here, gone = await world.join("here", world.name("old")), await world.join("gone")
    await here.announce(agent)
    await gone.close()
    await here.until(lambda m: m.is_offline and m.sender == gone.id, "`offline` of who left")
    newcomer = await world.join("newcomer")
    await world.settle()
    seen = [m for m in newcomer.taken() if m.type == "presence" and m.sender != newcomer.id]
    kept = [(m.sender, m.agents) for m in seen] == [(here.id, [agent])]
    expect(kept, f"only the latest presence of {here.id}", seen)


@_claim("joining.everybody-sees-the-newcomer", 3)
async def _(world: World) -> None:
    """A presence reaches all peers that are here."""
    a, b = await world.joined("a", "b")
    newcomer = await world.join("newcomer", world.name("agent"))
    for peer in (a, b):
        await peer.until(
            lambda m: m.sender == newcomer.id and m.agents == [world.name("agent")],
            "the presence of the newcomer, with its agents",
        )


@_claim("joining.a-repeated-presence-is-seen", 3)
async def _(world: World) -> None:
    """A repeated presence reaches everybody, its sender included."""
    a, b = await world.joined("a", "b")
    await a.announce(world.name("new"))
    await b.until(
        lambda m: m.sender == a.id and m.agents == [world.name("new")], "the repeated presence"
    )


@_claim("joining.the-roster-is-not-repeated", 3, extension=True)
async def _(world: World) -> None:
    """A repeated presence does not bring the roster again."""
    a, b = await world.joined("a", "b")
    await a.announce()
    await world.settle()
    seen = [m for m in a.taken() if m.type == "presence" and m.sender == b.id]
    if seen:
        raise Lacking("no presences of others", _shown(seen))


@_claim("joining.the-data-of-a-presence-is-an-object", 3, extension=True)
async def _(world: World) -> None:
    """A presence without `data` is relayed with an object there: receivers read `data.agents`."""
    (b,) = await world.joined("b")
    a = await world.connect()
    a.id = world.name("a")
    for data in ({}, {"data": None}):
        await a.send("presence", **data)
        seen = await b.until(lambda m: m.sender == a.id and not m.is_offline, "the presence")
        if not isinstance(seen.fields.get("data"), dict):
            raise Lacking("`data` is an object", _shown(seen))


@_claim("joining.a-second-id-leaves-no-ghost", 3)
async def _(world: World) -> None:
    """A connection that announces a second id leaves no peer behind when it closes."""
    watcher, _third, a = await world.joined("watcher", "third", "a")
    second = world.name("second")
    a.is_left_alone = True
    with contextlib.suppress(Failed):  # that it is closed or refused here is for other claims
        await a.send("presence", sender=second, data={"agents": []})
        await a.send("broadcast", data={"done": 1})
        await a.send("broadcast", sender=second, data={"done": 2})
        await watcher.until(lambda m: "done" in m.data, "what it says next")
    await a.close()
    seen = [
        await watcher.until(lambda m: m.is_offline and m.sender == a.id, f"`offline` of {a.id}")
    ]
    if any(m.sender == second and m.type == "presence" for m in watcher.inbox):
        seen.append(
            await watcher.until(
                lambda m: m.is_offline and m.sender == second, f"`offline` of {second}"
            )
        )
    for _ in range(4):
        await world.settle()
        await asyncio.sleep(0.005)
    again = [m for m in watcher.taken() if m.is_offline]
    expect(not again, "`offline` exactly once for each id", [*seen, *again])
    newcomer = await world.join("newcomer")
    await world.settle()
    ghosts = [m for m in newcomer.taken() if m.sender in (a.id, second) and not m.is_offline]
    expect(not ghosts, "neither id in the roster of a newcomer", ghosts)


@_claim("joining.a-connection-keeps-its-id", 3, extension=True)
async def _(world: World) -> None:
    """A presence under a second id on the same connection is refused and reaches nobody."""
    watcher, a = await world.joined("watcher", "a")
    second = world.name("second")
    await a.send("presence", sender=second, data={"agents": []})
    await world.settle()
    seen = [m for m in watcher.taken() if m.sender == second]
    if seen:
        raise Lacking("no presence of the second id", _shown(seen))
    codes = [m.data.get("code") for m in a.taken() if m.type == "error"]
    if codes != ["identity_fixed"]:
        raise Lacking("error `identity_fixed`", _shown(codes))


@_claim("joining.during-a-storm-disconnects-nobody", 3)
async def _(world: World) -> None:
    """Peers that join while another broadcasts disturb nobody: all arrives, in order."""
    sender, listener = await world.joined("sender", "listener")
    count = 300

    async def storm() -> None:
        for n in range(count):
            await sender.send("broadcast", data={"n": n})
            if n % 4 == 0:
                await asyncio.sleep(0)

    async def join_one_after_another() -> None:
        for n in range(8):
            await world.join(f"newcomer{n}")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(storm())
        tasks.create_task(join_one_after_another())
    seen = [
        (await listener.until(lambda m: "n" in m.data, "all broadcasts arrive")).data["n"]
        for _ in range(count)
    ]
    expect(seen == list(range(count)), f"0 to {count - 1} in order", seen)
    await world.settle()


# Rule 4: origin -----------------------------------------------------------------------------------


def _origin(message: Message) -> object:
    """The peer that a message says it came from."""
    return message.fields.get("instanceId", message.sender)


@_claim("origin.forged-from-refused", 4)
async def _(world: World) -> None:
    """A message with another peer's id as `from` is not delivered as that peer's."""
    a, b, c = await world.joined("a", "b", "c")
    for type in ("broadcast", "stream", "direct"):
        await a.send(type, sender=b.id, to=c.id, data={"forged": True})
    await world.settle()
    for peer in (b, c):
        seen = [m for m in peer.traffic() if "forged" in m.data and _origin(m) == b.id]
        expect(not seen, f"nothing that says it is from {b.id}", seen)


@_claim("origin.forged-instance-refused", 4, extension=True)
async def _(world: World) -> None:
    """A message with another peer's id as `instanceId` is refused."""
    a, b, c = await world.joined("a", "b", "c")
    for sender in (a.id, world.name("agent"), None):
        await a.send("broadcast", sender=sender, instanceId=b.id, data={"forged": True})
    await world.settle()
    for peer in (b, c):
        seen = [m for m in peer.traffic() if "forged" in m.data and _origin(m) == b.id]
        if seen:
            raise Lacking(f"nothing that says it is from {b.id}", _shown(seen))


@_claim("origin.the-relays-name-is-reserved", 4, extension=True)
async def _(world: World) -> None:
    """Nobody can speak as `relay`: neither a message nor a presence nor an agent has that name."""
    a, b, _c = await world.joined("a", "b", "c")
    await a.send("broadcast", sender="relay", data={"forged": world.token})
    await a.send("presence", data={"agents": ["relay"], "forged": world.token})
    other = await world.connect()
    await other.send("presence", sender="relay", data={"agents": [], "forged": world.token})
    await other.send("capabilities", sender=None)
    await world.settle()
    await other.close()
    await world.settle()
    seen = [m for m in b.taken() if "forged" in m.data]
    if seen:
        raise Lacking("nothing from `relay`", _shown(seen))


@_claim("origin.an-agent-id-in-from-passes", 4)
async def _(world: World) -> None:
    """`from` may be an agent of the sender, announced or not: existing pages always send that."""
    announced = world.name("announced")
    a, b = await world.join("a", announced), await world.join("b")
    await world.settled()
    for agent in (announced, world.name("not-announced")):
        text = await a.send("stream", sender=agent, instanceId=a.id)
        await b.arrives(text, f"a message from agent {agent}")


@_claim("origin.the-origin-is-added", 4, extension=True)
async def _(world: World) -> None:
    """A message from an agent without `instanceId` arrives with the peer's id there."""
    a, b = await world.joined("a", "b")
    text = await a.send("ack", sender=world.name("agent"), turnId="t")
    seen = await b.arrives(text, "the message")
    if "instanceId" not in seen.fields:
        raise Lacking(f"`instanceId` is {a.id}", _shown(seen))
    expect(seen.fields["instanceId"] == a.id, f"`instanceId` is {a.id}", seen)
    expect(seen.text.startswith(text[:-1]), "fields are added at the end", seen)


@_claim("origin.a-missing-from-is-filled", 4, extension=True)
async def _(world: World) -> None:
    """A message without `from` arrives with the peer's id there."""
    a, b = await world.joined("a", "b")
    await a.send("broadcast", sender=None, data={"text": world.token})
    await world.settle()
    seen = b.traffic()
    if not seen or "from" not in seen[0].fields:
        raise Lacking(f"`from` is {a.id}", _shown(seen))
    expect([m.sender for m in seen] == [a.id], f"`from` is {a.id}", seen)


# Rule 5: direct -----------------------------------------------------------------------------------


@_claim("direct.to-a-peer", 5)
async def _(world: World) -> None:
    """A direct reaches the peer that `to` names."""
    a, b = await world.joined("a", "b")
    text = await a.send("direct", to=b.id, data={"n": 1})
    await b.arrives(text, "the direct at its target")


@_claim("direct.to-an-agent", 5)
async def _(world: World) -> None:
    """A direct reaches the peer that announced the agent that `to` names."""
    agent = world.name("agent")
    a, b = await world.join("a"), await world.join("b", world.name("other"), agent)
    text = await a.send("direct", to=agent)
    await b.arrives(text, "the direct at the peer of the agent")


@_claim("direct.to-an-agent-announced-as-an-object", 5)
async def _(world: World) -> None:
    """Agents may be announced as objects with `agentId`, `id` or `name`, and are found by it."""
    a = await world.join("a")
    agents = {key: world.name(key) for key in ("agentId", "id", "name")}
    b = await world.join("b", *({key: name, "color": "red"} for key, name in agents.items()))
    for key, name in agents.items():
        text = await a.send("direct", to=name)
        await b.arrives(text, f"the direct at the peer whose agent has this `{key}`")


@_claim("direct.reaches-only-its-target", 5)
async def _(world: World) -> None:
    """A direct reaches one peer, once; nobody else, nor its sender."""
    a, b, c = await world.joined("a", "b", "c")
    text = await a.send("direct", to=b.id)
    await b.arrives(text, "the direct at its target")
    await world.settle()
    for peer in (a, b, c):
        seen = peer.traffic()
        expect(not seen, f"nothing (more) at {peer!r}", seen)


@_claim("direct.by-target-instance", 5, extension=True)
async def _(world: World) -> None:
    """`targetInstanceId` names the peer, whatever `to` says."""
    agent = world.name("twin")
    a, b, c = await world.join("a"), await world.join("b", agent), await world.join("c", agent)
    await world.settled()
    text = await a.send("direct", to=agent, targetInstanceId=c.id)
    await world.settle()
    at_b, at_c = b.traffic(), c.traffic()
    if at_b or not at_c:
        raise Lacking(f"the direct at {c.id} only", f"at {b.id}: {len(at_b)}, there: {len(at_c)}")
    expect(len(at_c) == 1 and at_c[0].carries(text), text, at_c)


@_claim("direct.to-nobody-is-an-error", 5)
async def _(world: World) -> None:
    """A direct to nobody is answered with an error and reaches nobody."""
    a, b = await world.joined("a", "b")
    await a.send("direct", to=world.name("nobody"), turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "nothing at the others", seen)


@_claim("direct.an-agent-leaves-with-its-peer", 5)
async def _(world: World) -> None:
    """A direct to an agent whose peer has left is answered with an error."""
    agent = world.name("agent")
    a, _c, b = await world.join("a"), await world.join("c"), await world.join("b", agent)
    await b.close()
    await a.until(lambda m: m.is_offline and m.sender == b.id, "`offline` of the agent's peer")
    await a.send("direct", to=agent, turnId="t")
    await a.until(lambda m: m.type == "error", "an error to the sender")


@_claim("direct.an-agent-of-several-peers-is-an-error", 5, extension=True)
async def _(world: World) -> None:
    """A direct to an agent that several peers have reaches none of them; the error names them."""
    agent = world.name("twin")
    a, b, c = await world.join("a"), await world.join("b", agent), await world.join("c", agent)
    await world.settled()
    await a.send("direct", to=agent)
    await world.settle()
    seen = [*b.traffic(), *c.traffic()]
    if seen:
        raise Lacking("the direct reaches nobody", _shown(seen))
    errors = [m for m in a.taken() if m.type == "error"]
    named = [sorted(map(str, m.data.get("peers", ()))) for m in errors]
    if named != [sorted([b.id, c.id])]:
        raise Lacking(f"one error with `peers` {b.id} and {c.id}", _shown(errors))


@_claim("direct.to-ones-own-agent-is-not-relayed", 5, extension=True)
async def _(world: World) -> None:
    """A direct to an agent that its sender has itself reaches nobody, whoever else has one."""
    agent = world.name("twin")
    a, b = await world.join("a", agent), await world.join("b", agent)
    await world.settled()
    await a.send("direct", to=agent)
    await world.settle()
    seen = [*a.traffic(), *b.traffic()]
    if seen:
        raise Lacking("nothing, at nobody", _shown(seen))


# Rule 6: before presence --------------------------------------------------------------------------


@_claim("before-presence.nothing-is-routed", 6)
async def _(world: World) -> None:
    """What a connection sends before its presence reaches nobody, and it may still join."""
    b, c = await world.joined("b", "c")
    a = await world.connect()
    a.id = world.name("a")
    a.is_left_alone = True
    for type in ("broadcast", "stream", "direct", "heartbeat"):
        await a.send(type, to=b.id, data={"early": True})
    await a.announce()
    a.is_left_alone = False
    await world.settle()
    seen = [*b.traffic(), *c.traffic()]
    expect(not seen, "nothing at the others", seen)


@_claim("before-presence.nothing-is-received", 6)
async def _(world: World) -> None:
    """A connection that has not announced itself receives no traffic."""
    b, _c = await world.joined("b", "c")
    a = await world.connect()
    a.id = world.name("a")
    a.is_left_alone = True
    await b.send("broadcast", data={"n": 1})
    await world.settled()
    await a.announce()
    seen = [m for m in a.taken() if m.type != "error"]
    expect(not seen, "nothing before its own presence", seen)


@_claim("before-presence.is-answered", 6, extension=True)
async def _(world: World) -> None:
    """A message before presence is answered with the error `not_present`."""
    a = await world.connect()
    a.id = world.name("a")
    await a.send("broadcast", turnId="t")
    await a.announce()
    codes = [m.data.get("code") for m in a.taken() if m.type == "error"]
    if codes != ["not_present"]:
        raise Lacking("one error `not_present`", _shown(codes))


@_claim("capabilities.answered-at-any-time", 6, extension=True)
async def _(world: World) -> None:
    """`capabilities` is answered, to its sender only, before and after presence."""
    (b,) = await world.joined("b")
    a = await world.connect()
    await a.send("capabilities", sender=None, turnId="before")
    a.id = world.name("a")
    await a.announce()
    await a.send("capabilities", turnId="after")
    await world.settle()
    answers = [m for m in a.taken() if m.type == "capabilities_response"]
    if not answers:
        raise Lacking("two answers", "none")
    turns = [m.fields.get("turnId") for m in answers]
    expect(turns == ["before", "after"], "an answer to each, with its `turnId`", answers)
    seen = b.traffic()
    expect(not seen, "nothing at the others", seen)


# Rule 7: bad input --------------------------------------------------------------------------------

# By name: the text (ME is the sender's id), the code of the error that answers it, and whether
# every relay must refuse it, or only those with such a bound.
BAD_INPUT: Final[Mapping[str, tuple[str | bytes, str, bool]]] = MappingProxyType(
    {
        "empty": ("", "malformed", True),
        "half-an-object": ('{"type":"stream",', "malformed", True),
        "not-json": ("hello", "malformed", True),
        "trailing-comma": ('{"type":"stream","from":"ME",}', "malformed", True),
        "nan": ('{"type":"stream","from":"ME","data":NaN}', "malformed", True),
        "infinity": ('{"type":"stream","from":"ME","data":[-Infinity]}', "malformed", True),
        "control-character": ('{"type":"stream","from":"ME","data":"\n"}', "malformed", True),
        "array": ("[]", "not_an_object", True),
        "null": ("null", "not_an_object", True),
        "number": ("17", "not_an_object", True),
        "string": ('"hello"', "not_an_object", True),
        "no-type": ('{"from":"ME"}', "bad_field", True),
        "number-as-type": ('{"type":1,"from":"ME"}', "bad_field", True),
        "list-as-from": ('{"type":"stream","from":["ME"]}', "bad_field", True),
        "object-as-to": ('{"type":"direct","from":"ME","to":{}}', "bad_field", True),
        "presence-without-from": ('{"type":"presence","data":{"agents":[]}}', "bad_field", True),
        "presence-with-text-as-agents": (
            '{"type":"presence","from":"ME","data":{"agents":"x"}}',
            "bad_field",
            True,
        ),
        "presence-with-a-list-as-data": (
            '{"type":"presence","from":"ME","data":[]}',
            "bad_field",
            True,
        ),
        "binary": (b'{"type":"stream","from":"ME"}', "binary", True),
        "binary-rubbish": (b"\x00\xff\xfe", "binary", True),
        "ten-thousand-deep": (
            '{"type":"stream","from":"ME","data":' + "[" * 10_000 + "]" * 10_000 + "}",
            "malformed",
            False,
        ),
        "five-thousand-digits": (
            '{"type":"stream","from":"ME","data":' + "1" * 5000 + "}",
            "malformed",
            False,
        ),
        "long-type": ('{"type":"' + "x" * 2000 + '","from":"ME"}', "too_long", False),
        "long-from": ('{"type":"stream","from":"ME' + "x" * 2000 + '"}', "too_long", False),
        "a-thousand-agents": (
            json.dumps(
                {
                    "type": "presence",
                    "from": "ME",
                    "data": {"agents": list(map(str, range(1000)))},
                }
            ),
            "too_many_agents",
            False,
        ),
    }
)


def _of(peer: Peer, bad: str | bytes) -> str | bytes:
    """A bad input as this peer's."""
    return (
        bad.replace(b"ME", peer.id.encode())
        if isinstance(bad, bytes)
        else bad.replace("ME", peer.id)
    )


def _bad_input(bad: str | bytes, is_certain: bool) -> Check:
    async def check(world: World) -> None:
        a, b = await world.joined("a", "b")
        await a.send_text(_of(a, bad))
        if is_certain:
            await world.settle()
        else:
            try:
                await world.settle()
            except Failed as failed:
                raise Lacking(failed.expected, failed.seen) from None
        seen = _nothing_new(b.taken())
        if seen and not is_certain:
            raise NotApplicable("this relay sets no such bound, or a higher one")
        expect(not seen, "it reaches nobody", seen)
        text = await a.send("broadcast", data={"n": 1})
        await b.arrives(text, "what its sender says next arrives")

    return check


for _name, (_bad, _code_of_it, _is_certain) in BAD_INPUT.items():
    _claim(
        f"bad-input.{_name}",
        7,
        extension=not _is_certain,
        promise=f"Bad input ({_name.replace('-', ' ')}) reaches nobody and closes nothing.",
    )(_bad_input(_bad, _is_certain))


@_claim("bad-input.too-large", 7, extension=True)
async def _(world: World) -> None:
    """A message beyond the relay's bound reaches nobody, and closes nothing."""
    a, b = await world.joined("a", "b")
    limits = (world.target.capabilities or {}).get("limits")
    bound = limits.get("messageBytes") if isinstance(limits, dict) else None
    if bound is None:
        bound = 2**20
    if bound > 2**25:
        raise NotApplicable(f"this relay takes messages of {bound} bytes")
    text = f'{{"type":"stream","from":"{a.id}","data":""}}'
    await a.send_text(text[:-2] + "x" * (bound - len(text)) + text[-2:])
    try:
        await b.until(lambda m: m.type == "stream", "a message of exactly the bound arrives")
        await a.send_text(text[:-2] + "x" * (bound + 1 - len(text)) + text[-2:])
        await world.settle()
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    if b.traffic():
        raise NotApplicable(f"this relay takes messages of more than {bound} bytes")


@_claim("bad-input.invalid-utf8-is-closed-with-1007", 7)
async def _(world: World) -> None:
    """Invalid UTF-8 in a text frame reaches nobody and is closed with 1007 (RFC 6455, 8.1)."""
    a, b, _c = await world.joined("a", "b", "c")
    await a.send_text(b'{"type":"stream","data":"\xff"}', as_text=True)
    code = await a.closed(world.target.patience_s, "the connection is closed with 1007")
    expect(code == 1007, "closed with 1007", f"closed with {code}")
    await world.settle()
    seen = b.traffic()
    expect(not seen, "it reaches nobody", seen)


@_claim("bad-input.rubbish", 7)
async def _(world: World) -> None:
    """Whatever rubbish a peer sends, its socket stays open; only valid JSON reaches others."""
    a, b = await world.joined("a", "b")
    chance = random.Random(7)
    whole = f'{{"type":"stream","from":"{a.id}","data":{{"chunk":"x","n":[1.5e3,null]}}}}'
    for _ in range(200):
        letters = list(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(letters))
            match chance.randrange(3):
                case 0:
                    del letters[at]
                case 1:
                    letters.insert(at, chance.choice('{}[]",:\\\0eE-+.0 é\U0001f600'))
                case _:
                    letters[at] = chance.choice('{}[]",:\\\0eE-+.0 é\U0001f600')
        await a.send_text("".join(letters))
    await world.settle()
    bad = [m for m in b.taken() if not isinstance(m.type, str) or not _is_strict_json(m.text)]
    expect(not bad, "only valid JSON objects with a type", bad)


def _is_strict_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


@_claim("errors.go-to-the-offender-only", 7)
async def _(world: World) -> None:
    """The relay's error about a message reaches nobody but its sender."""
    a, b = await world.joined("a", "b")
    other_tab = await world.tab(a.id)
    await world.settled()
    await a.send("direct", to=world.name("nobody"))
    await world.settle()
    for peer in (b, other_tab):
        seen = peer.traffic()
        expect(not seen, f"nothing at {peer!r}", seen)


@_claim("errors.echo-the-turn", 7, extension=True)
async def _(world: World) -> None:
    """An error carries the `turnId` of what it answers, whatever JSON that is."""
    a, _b = await world.joined("a", "b")
    for turn in ("t-1", 7, {"any": ["json"]}):
        await a.send("direct", to=world.name("nobody"), turnId=turn)
        error = await a.until(lambda m: m.type == "error", "an error")
        if "turnId" not in error.fields:
            raise Lacking(f"`turnId` {turn!r}", _shown(error))
        expect(error.fields["turnId"] == turn, f"`turnId` {turn!r}", error)


@_claim("errors.have-a-shape", 7, extension=True)
async def _(world: World) -> None:
    """An error is from `relay`, to the sender, with `data.code`, a sentence and a time in ms."""
    a, _b = await world.joined("a", "b")
    await a.send("direct", to=world.name("nobody"))
    error = await a.until(lambda m: m.type == "error", "an error")
    shape = {
        "from": error.sender == "relay",
        "to": error.fields.get("to") == a.id,
        "data.code": error.data.get("code") == "unknown_target",
        "data.error": isinstance(error.data.get("error"), str) and bool(error.data["error"]),
        "timestamp": isinstance(error.fields.get("timestamp"), int),
    }
    wrong = [field for field, is_right in shape.items() if not is_right]
    if wrong:
        raise Lacking("error of documented shape", f"{', '.join(wrong)} differ: {_shown(error)}")


@_claim("errors.say-what-was-wrong", 7, extension=True)
async def _(world: World) -> None:
    """Every bad input is answered by one error with the code that the docs list for it."""
    a, b = await world.joined("a", "b")
    for name, (bad, code, is_certain) in BAD_INPUT.items():
        await a.send_text(_of(a, bad))
        await world.settle()
        codes = [m.data.get("code") for m in a.traffic() if m.type == "error"]
        if not is_certain and b.traffic():
            continue
        if codes != [code]:
            raise Lacking(f"{name}: error `{code}`", _shown(codes))


# Rules 8 and 9: liveness and heartbeats -----------------------------------------------------------


@_claim("heartbeat.not-forwarded", 9)
async def _(world: World) -> None:
    """A heartbeat is for the relay: nobody else receives it."""
    a, b = await world.joined("a", "b")
    await a.send("heartbeat", data={"agents": []})
    await a.send("heartbeat")
    await world.settle()
    seen = [m for m in (*a.taken(), *b.taken()) if m.type == "heartbeat"]
    expect(not seen, "no heartbeat at anybody", seen)


@_claim("heartbeat.new-agents-are-announced", 9, extension=True)
async def _(world: World) -> None:
    """A heartbeat with new agents makes the others see the peer's presence, and reach them."""
    a, b = await world.joined("a", "b")
    agent = world.name("new")
    await a.send("heartbeat", data={"agents": [agent]})
    await world.settle()
    seen = [m for m in b.taken() if m.type == "presence" and m.sender == a.id]
    if not seen:
        raise Lacking(f"a presence with agent {agent}", "nothing")
    expect([m.agents for m in seen] == [[agent]], f"one presence with agent {agent}", seen)
    text = await b.send("direct", to=agent)
    await a.arrives(text, "a direct to the new agent")


@_claim("liveness.the-silent-are-reaped-on-time", 8, needs_time=True)
async def _(world: World) -> None:
    """A peer silent for the time to reap is announced offline: not earlier, and not much later."""
    silent, watcher, _third = await world.joined("silent", "watcher", "third")
    due, late = world.target.reap_after_s, _late(world)
    silent.is_left_alone = True
    since = silent.spoke_at
    await _until_offline(world, watcher, silent.id, late)
    took = time.monotonic() - since
    expect(took >= due - 0.05, f"offline after {due:g} s of silence", f"after {took:.2f} s")


@_claim("liveness.a-reap-is-announced-once", 10, needs_time=True)
async def _(world: World) -> None:
    """Of a peer that is reaped, the others hear `offline` exactly once."""
    silent, watcher, third = await world.joined("silent", "watcher", "third")
    silent.is_left_alone = True
    told = await _until_offline(world, watcher, silent.id, _late(world))
    await silent.socket.close()
    for _ in range(4):
        await asyncio.sleep(min(0.5, world.target.reap_after_s / 8))
        await world.settle()
    again = [m for m in watcher.taken() if m.is_offline and m.sender == silent.id]
    expect(not again, "`offline` once", [told, *again])
    seen = [m for m in third.taken() if m.is_offline and m.sender == silent.id]
    expect(len(seen) == 1, "`offline` once", seen)


@_claim("liveness.a-reaped-socket-is-closed", 8, extension=True, needs_time=True)
async def _(world: World) -> None:
    """The socket of a peer that is reaped is closed by the relay, with 1008."""
    (silent,) = await world.joined("silent")
    try:
        code = await silent.closed(_late(world), "the relay closes the socket")
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    if code != 1008:
        raise Lacking("closed with 1008", f"closed with {code}")


@_claim("liveness.heartbeats-keep-a-peer", 8, needs_time=True)
async def _(world: World) -> None:
    """A peer that sends nothing but heartbeats is not reaped."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    await _live_on(world, a, lambda: a.send("heartbeat"))
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, f"no `offline` of {a!r}", seen)


@_claim("liveness.any-message-keeps-a-peer", 8, extension=True, needs_time=True)
async def _(world: World) -> None:
    """A peer that sends something else than heartbeats is not reaped either."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    try:
        await _live_on(world, a, lambda: a.send("stream"))
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None
    seen = [m for m in watcher.taken() if m.is_offline]
    if seen:
        raise Lacking(f"no `offline` of {a!r}", _shown(seen))


@_claim("liveness.pongs-count-for-those-who-ask", 8, extension=True, needs_time=True)
async def _(world: World) -> None:
    """A peer with `data.keepalive: "pong"` lives on while it answers the relay's pings."""
    asked = (world.target.capabilities or {}).get("keepalive")
    if not isinstance(asked, list) or "pong" not in asked:
        raise NotApplicable("this relay does not offer it in its `capabilities`")
    if world.target.reap_after_s < 25.0:
        raise NotApplicable("needs a time to reap well above the interval of the relay's pings")
    watcher, _third = await world.joined("watcher", "third")
    hidden = await world.join("hidden-page", keepalive="pong")
    hidden.is_left_alone = True
    await asyncio.sleep(world.target.reap_after_s * 1.2)
    await world.settle()
    seen = [m for m in watcher.taken() if m.is_offline]
    expect(not seen, f"no `offline` of {hidden!r}", seen)


@_claim("liveness.the-unannounced-are-closed", 6, extension=True, needs_time=True)
async def _(world: World) -> None:
    """A connection that never announces itself is closed, whatever else it says."""
    a = await world.connect()
    await a.send("capabilities", sender=None)
    try:
        await a.closed(_late(world), "the relay closes the connection")
    except Failed as failed:
        raise Lacking(failed.expected, failed.seen) from None


@_claim("heartbeat.the-presence-is-repeated", 9, extension=True, needs_time=True)
async def _(world: World) -> None:
    """Of a peer that only sends heartbeats, the others hear a presence before they forget it."""
    a, watcher, _third = await world.joined("a", "watcher", "third")
    await _live_on(world, a, lambda: a.send("heartbeat"))
    seen = [m for m in watcher.taken() if m.type == "presence" and m.sender == a.id]
    if not seen:
        raise Lacking(f"a presence of {a!r} within {world.target.reap_after_s:g} s", "none")


def _late(world: World) -> float:
    """When a reap is too late, in seconds: relays may look for silent peers only now and then."""
    return world.target.reap_after_s * 1.5 + 1.0


async def _until_offline(world: World, watcher: Peer, id: str, within_s: float) -> Message:
    """The presence that says `id` is offline. The world's heartbeats keep the watcher alive."""
    expected = f"`offline` of {id} within {within_s:.1f} s"
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(max(0.01, until - time.monotonic())):
                return await watcher.until(lambda m: m.is_offline and m.sender == id, expected)
        except TimeoutError:
            break
        except Failed as failed:
            if failed.expected != expected:
                raise  # its connection was closed, not merely quiet
    raise Failed(expected, "nothing of the kind")


async def _live_on(world: World, peer: Peer, speak: Callable[[], Awaitable[object]]) -> None:
    """Let the peer speak, and nothing else, for longer than the time to reap."""
    peer.is_left_alone = True
    until = time.monotonic() + world.target.reap_after_s * 1.3
    while time.monotonic() < until:
        await speak()
        await asyncio.sleep(world.target.reap_after_s / 4)
    await speak()
    peer.is_left_alone = False
    await world.settle()


# Rule 10: leaving ---------------------------------------------------------------------------------


@_claim("leaving.offline-exactly-once", 10)
async def _(world: World) -> None:
    """When a peer closes its connection, the others hear `offline` exactly once."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    await _offline_once(world, watcher, a.id)


@_claim("leaving.a-lost-connection-is-offline-once", 10)
async def _(world: World) -> None:
    """When a connection is lost without a closing handshake, the others hear `offline` once."""
    watcher, a = await world.joined("watcher", "a")
    a.cut()
    await _offline_once(world, watcher, a.id)


@_claim("leaving.offline-carries-no-agents", 10)
async def _(world: World) -> None:
    """The offline presence carries no agents: clients file it like a live one."""
    (watcher,) = await world.joined("watcher")
    a = await world.join("a", world.name("agent"))
    await a.close()
    told = await _offline_once(world, watcher, a.id)
    expect(not told.data.get("agents"), "`data.agents` is empty", told)


@_claim("leaving.offline-says-why", 10, extension=True)
async def _(world: World) -> None:
    """The offline presence has the data `status`, `reason` and an empty list of agents."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    told = await _offline_once(world, watcher, a.id)
    wanted = {"status": "offline", "reason": "left", "agents": []}
    if told.data != wanted:
        raise Lacking(str(wanted), _shown(told))


@_claim("leaving.a-peer-may-return", 10)
async def _(world: World) -> None:
    """A peer that left and comes back is online again, reached and seen."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    await _offline_once(world, watcher, a.id)
    back = await world.tab(a.id)
    await watcher.until(
        lambda m: m.type == "presence" and m.sender == a.id and not m.is_offline, "its presence"
    )
    text = await watcher.send("direct", to=a.id)
    await back.arrives(text, "a direct to who has come back")


# Rule 11: order, and what slow and busy peers do to others ----------------------------------------


@_claim("order.one-sender-across-types", 11)
async def _(world: World) -> None:
    """What one peer sends reaches another in sending order, directs among broadcasts."""
    a, b = await world.joined("a", "b")
    types = ("direct", "broadcast", "direct", "stream", "ack", "direct", "turn_end", "error")
    count = 160
    for n in range(count):
        await a.send(types[n % len(types)], to=b.id, data={"n": n})
    seen = [
        (await b.until(lambda m: "n" in m.data, f"all {count} messages arrive")).data["n"]
        for _ in range(count)
    ]
    expect(seen == list(range(count)), f"0 to {count - 1} in order", seen)


@_claim("order.one-interleaving-for-all", 11)
async def _(world: World) -> None:
    """All receivers see the messages of several senders in one same interleaving."""
    senders = [await world.join(f"sender{n}") for n in range(3)]
    listeners = [await world.join(f"listener{n}") for n in range(3)]
    await world.settled()
    count = 50

    async def talk(sender: Peer) -> None:
        for n in range(count):
            await sender.send(("stream", "broadcast")[n % 2], data={"n": n})
            if n % 5 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(*map(talk, senders))
    seen = []
    for listener in listeners:
        expected = f"all {3 * count} messages arrive"
        messages = [
            await listener.until(lambda m: "n" in m.data, expected) for _ in range(3 * count)
        ]
        seen.append([(str(m.sender), m.data["n"]) for m in messages])
    for sender in senders:
        own = [n for id, n in seen[0] if id == sender.id]
        expect(own == list(range(count)), f"the messages of {sender!r} in order", own)
    for other in seen[1:]:
        differs = [(a, b) for a, b in zip(seen[0], other, strict=True) if a != b]
        expect(not differs, "the same order at every receiver", differs[:3])


@_claim("load.a-stalled-reader-blocks-nobody", None)
async def _(world: World) -> None:
    """A peer that stops reading delays nobody: 12 MB reach the others while it sleeps."""
    sender, listener = await world.joined("sender", "listener")
    stalled = await world.connect(is_slow=True)
    stalled.id = world.name("stalled")
    stalled.is_deaf = True
    await stalled.send("presence", data={"agents": []})
    await listener.until(lambda m: m.sender == stalled.id, "the presence of the one that stalls")
    padding = "x" * 50_000
    for n in range(240):
        await sender.send("stream", data={"n": n, "padding": padding})
        seen = await listener.until(
            lambda m: m.type == "stream", f"message {n} of 240 reaches who does read"
        )
        expect(seen.data["n"] == n, f"message {n}", seen.data["n"])
    await world.settle()


@_claim("load.a-burst-of-600-passes", None, extension=True)
async def _(world: World) -> None:
    """600 messages from one peer at once all arrive: real pages send that many."""
    a, b = await world.joined("a", "b")
    for n in range(600):
        await a.send("stream", data={"n": n})
    await world.settle()
    seen = [m.data["n"] for m in b.taken() if "n" in m.data]
    if len(seen) < 600:
        raise Lacking("600 messages", f"{len(seen)} of them")
    expect(seen == list(range(600)), "0 to 599 in order", seen)


# Rules 12 to 14 -----------------------------------------------------------------------------------


@_claim("meshes.never-see-one-another", 12, extension=True)
async def _(world: World) -> None:
    """Peers of meshes with different names do not see, hear or reach one another."""
    if world.target.mesh is not None:
        raise NotApplicable("the URL names a mesh already")
    if not world.target.has_mesh_names:
        raise NotApplicable("this relay refuses URLs with `?mesh=`")
    a, b = await world.joined("a", "b")
    stranger = await world.connect(mesh=world.name("other-mesh"))
    stranger.id = world.name("stranger")
    stranger.is_left_alone = True  # it cannot see the markers of the others
    await stranger.announce(world.name("agent"))
    await a.send("broadcast", data={"n": 1})
    await a.send("direct", to=stranger.id)
    await a.send("direct", to=world.name("agent"))
    await stranger.send("broadcast", data={"n": 2})
    await stranger.send("direct", to=b.id)
    await stranger.announce()
    await world.settle()
    await stranger.announce()
    seen_there = [m for m in stranger.taken() if m.type != "error" and m.sender != stranger.id]
    seen_here = [m for m in (*a.taken(), *b.taken()) if m.sender == stranger.id]
    sees_presences = any(m.type == "presence" for m in seen_there)
    if sees_presences and any(m.type == "presence" for m in seen_here):
        raise NotApplicable("this relay has one mesh only")
    expect(not seen_there, "nothing at the peer of another mesh", seen_there)
    expect(not seen_here, "nothing of the peer of another mesh", seen_here)


@_claim("withheld.types-with-credentials", 13, extension=True)
async def _(world: World) -> None:
    """Types in which existing pages send addresses and tokens reach nobody."""
    a, b = await world.joined("a", "b")
    for type in (
        "configure",
        "relay-log",
        "relay-connected",
        "relay-disconnected",
        "relay-config-updated",
    ):
        await a.send(type, data={"url": "wss://example.invalid/?token=secret"})
    await world.settle()
    seen = b.traffic()
    if seen:
        raise Lacking("nothing", _shown(seen))


@_claim("timestamps.the-senders-is-kept", 14)
async def _(world: World) -> None:
    """The timestamp of a sender arrives as it was sent."""
    a, b = await world.joined("a", "b")
    for stamp in (1_700_000_000_123, 0, 1.5):
        await a.send_text(
            json.dumps({"type": "stream", "from": a.id, "data": {}, "timestamp": stamp})
        )
        seen = await b.until(lambda m: m.type == "stream", "the message")
        expect(seen.fields.get("timestamp") == stamp, f"timestamp {stamp}", seen)


@_claim("timestamps.the-relays-are-milliseconds", 14, extension=True)
async def _(world: World) -> None:
    """What the relay says itself is stamped in whole milliseconds since the epoch."""
    watcher, a = await world.joined("watcher", "a")
    await a.close()
    told = await _offline_once(world, watcher, a.id)
    stamp = told.fields.get("timestamp")
    if stamp is None:
        raise Lacking("a timestamp", _shown(told))
    day_ms = 86_400_000
    kept = isinstance(stamp, int) and abs(stamp - time.time() * 1000) < day_ms
    expect(kept, "whole milliseconds since the epoch", told)
