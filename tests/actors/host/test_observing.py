"""What observers of a mesh see: everything, then differences, at a bounded rate, never texts."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from actors.clock import VirtualClock
from actors.host.metrics import Metrics
from actors.host.observing import EVERY_S, OBSERVERS_MAX, REST, Observers, Told, TooMany
from actors.relay.journal import EVENTS_MAX
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.instant import Instant
from protocol.limits import Limits

pytestmark = pytest.mark.anyio


class World:
    """A runtime with peers in memory, and its observers. Time passes in `look`."""

    def __init__(self, runtime: Runtime, clock: VirtualClock, observers: Observers) -> None:
        self.runtime = runtime
        self.clock = clock
        self.observers = observers
        self.links: dict[str, MemoryLink] = {}

    async def say(self, peer: str, type: str, **fields: Any) -> None:
        await self.links[peer].send(json.dumps({"type": type, "from": peer, **fields}))
        await self.settle()

    async def join(self, peer: str, *agents: str, mesh: str = "m", **data: Any) -> None:
        self.links[peer] = await self.runtime.connect(mesh)
        await self.say(peer, "presence", data={"agents": agents, **data})

    async def settle(self) -> None:
        for _ in range(30):
            await anyio.lowlevel.checkpoint()

    async def look(self) -> None:
        """The next look at the mesh is taken."""
        await self.clock.advance(EVERY_S)
        await self.settle()

    def observe(self, mesh: str = "m") -> "Observer":
        return Observer(self, self.observers.observe(mesh))


class Observer:
    """What one observer knows, as the console keeps it: the state, with all changes since."""

    def __init__(self, world: World, told: AsyncIterator[Told]) -> None:
        self._world = world
        self._told = told
        self.types: list[str] = []
        self.state: dict[str, Any] = {}
        self.last: dict[str, Any] = {}

    async def next(self) -> dict[str, Any]:
        told = await anext(self._told)
        self.types.append(told.type)
        self.last = json.loads(told.data)
        if told.type == "state":
            self.state = self.last
            return self.last
        for key, value in self.last.items():
            if key in ("peers", "turns"):
                self.state[key] |= value
                for gone in [name for name, row in value.items() if row is None]:
                    del self.state[key][gone]
            elif key == "events":
                self.state[key] = [*self.state[key], *value][-EVENTS_MAX:]
            else:
                self.state[key] = value
        return self.last

    async def after(self) -> dict[str, Any]:
        """What the next look brings."""
        await self._world.look()
        return await self.next()

    async def close(self) -> None:
        await self._told.aclose()  # type: ignore[attr-defined]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = VirtualClock()
    async with Runtime(Limits(), clock) as runtime, anyio.create_task_group() as tasks:
        metrics = Metrics(runtime, clock)
        yield World(runtime, clock, Observers(runtime, metrics, clock, tasks))
        tasks.cancel_scope.cancel()


async def test_the_first_event_has_everything(world: World) -> None:
    await world.join("ann", "coder", name="Ann", hostname="laptop")
    await world.join("other", mesh="elsewhere")
    state = await world.observe().next()
    row = state["peers"]["ann"]
    assert row == {
        "state": "present",
        "name": "Ann",
        "host": "laptop",
        "agents": ["coder"],
        "connections": 1,
        "heard_ms": 1_000_000,
        "received": 1,
        "sent": 0,
        "queued_messages": 0,
        "queued_bytes": 0,
    }
    assert list(state["peers"]) == ["ann"]
    assert state["relay"]["meshes"] == {
        "m": {"connections": 1, "peers": 1},
        "elsewhere": {"connections": 1, "peers": 1},
    }
    assert [(event["what"], event["peer"]) for event in state["events"]] == [("joined", "ann")]
    assert state["totals"]["joined"] == 1
    assert state["bounds"]["messages_per_s"] == Limits().messages_per_s


async def test_what_follows_are_the_differences_and_they_add_up_to_what_a_newcomer_gets(
    world: World,
) -> None:
    await world.join("ann")
    await world.join("bob")
    observer = world.observe()
    await observer.next()
    assert set(await observer.after()) == {"at_ms"}
    await world.say("ann", "direct", to="bob", turnId="t", data="secret")
    change = await observer.after()
    assert {id: row["sent"] for id, row in change["peers"].items()} == {"ann": 0, "bob": 1}
    assert change["turns"]["t"]["asker"] == "ann"
    assert change["flow"] == [["ann", "bob", "direct", 1]]
    await world.say("bob", "turn_end", turnId="t")
    await world.links["bob"].aclose()
    change = await observer.after()
    assert change["peers"]["bob"] is None
    assert change["turns"]["t"]["outcome"] == "ended"
    assert [(event["what"], event["why"]) for event in change["events"]] == [("left", "left")]
    newcomer = world.observe()
    assert await newcomer.next() == observer.state
    assert "secret" not in json.dumps(observer.state)
    assert observer.types == ["state", "change", "change", "change"]


async def test_who_is_too_slow_gets_everything_again_and_nothing_waits_for_it(
    world: World,
) -> None:
    await world.join("ann")
    slow, fast = world.observe(), world.observe()
    await slow.next()
    await fast.next()
    for n in range(5):
        await world.join(f"p{n}")
        await fast.after()
    await slow.next()
    assert slow.types == ["state", "state"]
    assert slow.state == fast.state


async def test_a_mesh_is_looked_at_once_for_all_and_not_at_all_without_observers(
    world: World,
) -> None:
    await world.join("ann")
    looks, look = 0, world.runtime.look

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*arguments)

    world.runtime.look = counted  # type: ignore[method-assign, assignment]
    many = [world.observe() for _ in range(OBSERVERS_MAX)]
    for observer in many:
        await observer.next()
    assert looks == 1
    await world.look()
    assert looks == 2
    with pytest.raises(TooMany):
        await world.observe("another mesh").next()
    for observer in many:
        await observer.close()
    await world.look()
    looks = 0
    await world.look()
    assert looks == 0
    await world.say("ann", "broadcast")
    assert (await world.observe().next())["flow"] == [], "nobody watched"


async def test_looks_that_take_long_are_rare(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    took_s, at = 0.5, 0.0
    now, look = world.clock.now, world.runtime.look

    def slow(*arguments: Any) -> Any:
        nonlocal at
        at += took_s  # as long as the look takes
        return look(*arguments)

    monkeypatch.setattr(world.runtime, "look", slow)
    monkeypatch.setattr(world.clock, "now", lambda: Instant(now().at + at, now().wall_ms))
    await world.join("ann")
    observer = world.observe()
    await observer.next()
    await observer.after()
    before = at
    await world.clock.advance(REST * took_s - EVERY_S)
    assert at == before
    await world.look()
    assert at == before + took_s


async def test_a_mesh_that_is_not_there_is_empty_and_may_begin_and_end(world: World) -> None:
    observer = world.observe()
    assert (await observer.next())["peers"] == {}
    await world.join("ann")
    assert list((await observer.after())["peers"]) == ["ann"]
    await world.links["ann"].aclose()
    await observer.after()
    await world.join("bob")
    await observer.after()
    assert list(observer.state["peers"]) == ["bob"]
    assert observer.state["totals"]["joined"] == 1


async def test_only_the_latest_events_are_held(world: World) -> None:
    await world.join("ann")
    observer = world.observe()
    for n in range(EVENTS_MAX):
        await world.join(f"p{n % 7}")
        await world.links[f"p{n % 7}"].aclose()
        await world.settle()
        if n == EVENTS_MAX // 2:
            await observer.next()
    await observer.after()
    numbers = [event["n"] for event in observer.state["events"]]
    assert numbers == sorted(numbers)
    assert len(numbers) == EVENTS_MAX


async def test_whoever_is_refused_or_ended_is_an_event_with_its_cause(world: World) -> None:
    await world.join("ann")
    await world.say("ann", "direct", to="nobody")
    events = (await world.observe().next())["events"]
    assert events[-1] == {
        "n": 2,
        "at_ms": 1_000_000,
        "what": "refused",
        "peer": "ann",
        "connection": 1,
        "why": "unknown_target",
        "count": 1,
    }


@pytest.mark.parametrize("name", [5, "", None, ["x"], {"a": 1}, "\ud83d", "x" * 5000])
async def test_a_presence_may_say_anything_of_its_name(world: World, name: Any) -> None:
    await world.join("ann", name=name, hostname=name)
    row = (await world.observe().next())["peers"]["ann"]
    assert row["name"] is None or len(row["name"]) <= 200


async def test_the_end_of_the_relay_is_told_and_ends_the_stream(world: World) -> None:
    observer = world.observe()
    await observer.next()
    await world.runtime.drain()
    change = await observer.after()
    assert change["relay"]["is_draining"] is True
    with pytest.raises(StopAsyncIteration):
        await observer.next()


async def test_a_failure_ends_the_streams_of_its_mesh_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.join("ann")
    observer, other = world.observe(), world.observe("another mesh")
    await observer.next()
    await other.next()
    look = world.runtime.look

    def fails(mesh: str, ways: int) -> Any:
        if mesh == "m":
            raise RuntimeError("a bug")
        return look(mesh, ways)

    monkeypatch.setattr(world.runtime, "look", fails)
    await world.look()
    assert await observer.next() == {}
    with pytest.raises(StopAsyncIteration):
        await observer.next()
    assert "observing failed" in caplog.text
    with pytest.raises(RuntimeError):
        await world.observe().next()
    monkeypatch.undo()
    assert list((await world.observe().next())["peers"]) == ["ann"]
    assert (await other.after())["at_ms"] > 0


async def test_an_observer_that_goes_away_while_it_waits_is_let_go(world: World) -> None:
    async def watch() -> None:
        async with aclosing(world.observers.observe("m")) as told:  # type: ignore[type-var]
            async for _ in told:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await world.settle()
        tasks.cancel_scope.cancel()
    assert [view.observers for view in world.observers._views.values()] == [0]
    await world.look()
    assert not world.observers._views
