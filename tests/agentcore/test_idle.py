"""A mesh on AgentCore lives as long as its peers: /ping and the rule by which sessions end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import httpx
import pytest

from actors.clock import VirtualClock
from actors.host.app import RelayApp
from actors.host.settings import read_settings
from actors.transports.memory import MemoryLink
from tests.edge.idle import Health, Idleness
from tests.worlds.live import PATIENCE_S

IDLE_S = 900.0
POLL_S = 2.0


class Machine:
    """A session's machine: the relay in it, and the platform that asks it every 2 s."""

    def __init__(self, app: RelayApp, clock: VirtualClock, http: httpx.AsyncClient) -> None:
        self.app, self.clock, self.http = app, clock, http
        self.idleness = Idleness(clock.now().at)

    async def ping(self) -> Health:
        """What it says, as it is."""
        answer = await self.http.get("/ping")
        assert set(answer.json()) == {"status", "time_of_last_update"}
        health = Health.read(answer.content)
        assert health is not None
        return health

    async def age_s(self) -> float:
        """How old the stamp is."""
        stamp_s = (await self.ping()).updated_s
        assert stamp_s is not None
        return self.clock.now().wall_ms / 1000 - stamp_s

    async def join(self, id: str) -> MemoryLink:
        """A peer that is here."""
        link = await self.app.runtime.connect("mesh")
        await link.send(f'{{"type":"presence","from":"{id}"}}')
        await link.receive()
        return link

    async def decided(self, messages: int) -> None:
        """So many messages were received."""
        with anyio.fail_after(PATIENCE_S):
            while self.app.runtime.totals().received < messages:
                await anyio.lowlevel.checkpoint()

    async def lives(
        self, seconds: float, changed: Callable[[Health], Health] = lambda health: health
    ) -> bool:
        """Time passes, and the platform asks. Does the session live on? `changed`: what it hears
        instead."""
        for _ in range(round(seconds / POLL_S)):
            await self.clock.advance(POLL_S)
            health, now = changed(await self.ping()), self.clock.now()
            if self.idleness.polled(now.at, now.wall_ms / 1000, health, is_open=False) >= IDLE_S:
                return False
        return True


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    clock = VirtualClock()
    app = RelayApp(read_settings(("--log-level", "error"), {}), clock)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield Machine(app, clock, http)


@pytest.mark.anyio
async def test_the_stamp_is_the_last_sign_of_life_or_when_the_last_peer_left() -> None:
    async with machine() as it:
        await it.clock.advance(7)
        assert (await it.ping()).status == "Healthy"
        assert 7 <= await it.age_s() < 8  # nobody was ever here: since it began
        stranger = await it.app.runtime.connect("mesh")
        assert (await it.ping()).status == "HealthyBusy"
        assert 7 <= await it.age_s() < 8  # it is no peer
        ann, bob = await it.join("ann"), await it.join("bob")
        assert await it.age_s() < 1
        await it.clock.advance(9)
        assert 9 <= await it.age_s() < 10
        await it.clock.advance(1)
        await bob.send('{"type":"heartbeat"}')
        await it.decided(3)
        assert await it.age_s() < 1
        await it.clock.advance(5)
        for link in (ann, stranger, bob):
            await link.aclose()
        with anyio.fail_after(PATIENCE_S):
            while (await it.ping()).status != "Healthy":
                await anyio.lowlevel.checkpoint()
        assert await it.age_s() < 1
        await it.clock.advance(60)
        assert 60 <= await it.age_s() < 61
        assert 60 <= await it.age_s() < 61  # asking changes nothing


@pytest.mark.anyio
async def test_a_mesh_with_a_peer_lives_on_and_an_empty_one_ends_15_minutes_later() -> None:
    async with machine() as it:
        ann = await it.join("ann")
        for beat in range(300):  # 50 minutes
            assert await it.lives(10)
            await ann.send('{"type":"heartbeat"}')
            await it.decided(2 + beat)
        await ann.aclose()
        assert await it.lives(IDLE_S - 10)
        assert not await it.lives(20)


@pytest.mark.anyio
async def test_with_the_stamp_of_the_sdk_a_busy_mesh_would_end_and_with_a_fresh_one_none() -> None:
    async with machine() as it:
        ann = await it.join("ann")
        first = (await it.ping()).updated_s

        def only_when_the_status_changes(health: Health) -> Health:
            return Health(health.status, first)

        assert await it.lives(20, only_when_the_status_changes)
        await ann.send('{"type":"heartbeat"}')
        assert not await it.lives(IDLE_S, only_when_the_status_changes)
    async with machine() as it:

        def anew_at_every_poll(health: Health) -> Health:
            return Health(health.status, it.clock.now().wall_ms / 1000)

        assert await it.lives(4 * IDLE_S, anew_at_every_poll)  # though nobody is here


def test_without_a_stamp_idle_time_counts_from_the_last_invocation() -> None:
    idleness, busy = Idleness(100.0), Health("HealthyBusy", None)
    assert idleness.polled(500.0, 0.0, busy, is_open=True) == 400.0
    idleness.invoked(600.0)
    assert idleness.polled(800.0, 0.0, busy, is_open=True) == 200.0
    assert idleness.polled(802.0, 0.0, None, is_open=True) == 202.0


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"status":"Sick"}', b'"Healthy"', b"\xff"])
def test_what_is_no_answer_of_ping_is_none(body: bytes) -> None:
    assert Health.read(body) is None
