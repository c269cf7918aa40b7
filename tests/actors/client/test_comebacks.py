"""Peers whose connections are cut, over real sockets and in memory: they come back, and nothing is
missing; or they are told."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.clock import VirtualClock
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import Gap
from protocol.member.lifecycle import MemberState
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay
from tests.worlds.peers import QUICK, Serving, until
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio

IMPATIENT = attrs.evolve(QUICK, heartbeat_every_s=0.1, probe_within_s=0.2, silent_after_s=25.0)
"""Notices soon that a connection is dead."""
COUNT = 300
Trouble = Callable[[Proxy], Awaitable[None]]


async def cut(proxy: Proxy) -> None:
    await proxy.cut()


async def drop_and_cut(proxy: Proxy, after_bytes: int) -> None:
    """The last bytes do not arrive."""
    proxy.lose(after_bytes)
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    await proxy.cut()


async def half_open(proxy: Proxy) -> None:
    """The relay does not notice."""
    await proxy.cut_clients()


async def dead(proxy: Proxy) -> None:
    """Nobody notices."""
    proxy.lose(100)


async def stall(proxy: Proxy) -> None:
    """Nothing passes for a moment, and then everything."""
    proxy.stall()
    await anyio.sleep(0.05)
    proxy.flow()


TROUBLES: dict[str, Trouble] = {
    "cut": cut,
    "its last bytes lost": partial(drop_and_cut, after_bytes=0),
    "in the middle of a frame": partial(drop_and_cut, after_bytes=37),
    "half open": half_open,
    "dead": dead,
    "stalled": stall,
}


async def numbers_of(peer: Peer, count: int) -> list[int]:
    """So many numbers that the others have said. A Gap is an error."""
    found: list[int] = []
    async for message in peer:
        if message.type in ("broadcast", "direct"):
            found.append(message.data)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_whatever_the_network_does_nothing_is_missing_or_there_twice(trouble: str) -> None:
    with LiveRelay() as live:
        async with (
            Proxy(live.port) as proxy,
            join(live.url, "bob", limits=QUICK) as bob,
            join(proxy.url, "ann", limits=IMPATIENT) as ann,
        ):
            await until(lambda: "ann" in bob.roster)
            heard: dict[str, list[int]] = {}

            def was_back(times: int) -> bool:
                return ann.resumed >= times

            async def say(peer: Peer, to: str) -> None:
                for number in range(COUNT):
                    if peer is ann and number % 100 == 50:
                        if trouble != "stalled":  # a cut in the middle of coming back is a Gap
                            await until(partial(was_back, number // 100))
                        await TROUBLES[trouble](proxy)
                    if number % 3:
                        await peer.direct(to, number)
                    else:
                        await peer.broadcast(number)
                    if number % 10 == 0:
                        await anyio.sleep(0.001)

            async def hear(peer: Peer) -> None:
                heard[peer.id] = await numbers_of(peer, COUNT)

            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    for peer, other in ((ann, "bob"), (bob, "ann")):
                        tasks.start_soon(say, peer, other)
                        tasks.start_soon(hear, peer)
            assert heard == {"ann": [*range(COUNT)], "bob": [*range(COUNT)]}
            assert (ann.resumed > 0) == (trouble != "stalled")
            assert bob.resumed == 0
            assert ann.roster.keys() == {"bob"}


async def test_turns_go_on_over_a_cut_in_both_directions() -> None:
    with LiveRelay() as live:
        async with (
            Proxy(live.port) as proxy,
            join(live.url, "bob", agents=["coder"], limits=QUICK) as bob,
            join(proxy.url, "ann", agents=["poet"], limits=QUICK) as ann,
        ):
            await until(lambda: "ann" in bob.roster and "bob" in ann.roster)
            goes_on, began = anyio.Event(), []

            async def slow(command: Command) -> str:
                began.append(command.agent)
                await command.stream("a")
                await goes_on.wait()
                await command.stream("b")
                return f"of {command.agent}"

            async def ask(peer: Peer, agent: str, results: list[Any]) -> None:
                results.append(await peer.ask(agent, "go", timeout_s=60))

            results: list[Any] = []
            async with Serving(bob, slow), Serving(ann, slow):
                with anyio.fail_after(PATIENCE_S):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(ask, ann, "coder", results)
                        tasks.start_soon(ask, bob, "poet", results)
                        await until(lambda: len(began) == 2)
                        await proxy.cut()
                        await until(lambda: ann.state is not MemberState.PRESENT)
                        goes_on.set()
            assert sorted(results) == ["of coder", "of poet"]
            assert ann.resumed == 1


async def test_a_relay_that_was_started_again_is_a_gap_with_what_is_in_doubt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with HeldPort() as port, LiveRelay(port=port) as first:
        async with join(first.url, "ann", limits=QUICK) as ann:
            await ann.broadcast(1)
            await until(lambda: not ann._is_sending)
            await anyio.to_thread.run_sync(first.stop)
            await until(lambda: ann.state is not MemberState.PRESENT)
            with LiveRelay(port=port) as second:
                with anyio.fail_after(PATIENCE_S), pytest.raises(Gap) as caught:
                    async for _ in ann:
                        pass
                assert caught.value.reason == "epoch"
                assert [message.data for message in caught.value.in_doubt] == [1]
                assert ann.resumed == 0
                await anyio.to_thread.run_sync(second.stop)
    (record,) = [r for r in caplog.records if r.message.startswith("messages may be missing")]
    assert record.in_doubt == 1  # type: ignore[attr-defined]


class Cutter:
    """A connector in memory. `cut` breaks what is open, on both ends."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._links: list[MemoryLink] = []
        self.is_there = anyio.Event()
        self.is_there.set()

    async def __call__(self) -> MemoryLink:
        await self.is_there.wait()
        self._links.append(await self._runtime.connect("mesh"))
        return self._links[-1]

    def cut(self) -> None:
        while self._links:
            self._links.pop().close(1006)


async def test_in_virtual_time_its_window_is_as_long_as_it_says() -> None:
    clock = VirtualClock()
    async with Runtime(Limits(resume_s=5.0), clock) as runtime:
        cutter = Cutter(runtime)
        async with (
            join(partial(runtime.connect, "mesh"), "bob", clock=clock) as bob,
            join(cutter, "ann", clock=clock) as ann,
        ):
            for away_s, comes_back in ((4.0, True), (7.0, False)):
                cutter.is_there = anyio.Event()
                cutter.cut()
                before = ann.resumed
                await clock.advance(away_s)
                await bob.broadcast(away_s)
                await clock.advance(0.0)
                cutter.is_there.set()
                await clock.advance(1.0)
                assert ann.state is MemberState.PRESENT
                assert ann.resumed - before == comes_back
            with pytest.raises(Gap) as caught:
                async for message in ann:
                    if message.type == "broadcast":
                        assert message.data == 4.0
            assert caught.value.reason == "window"


async def test_who_leaves_is_gone_at_once_and_who_is_cut_is_not() -> None:
    async with Runtime(Limits()) as runtime:
        cutter = Cutter(runtime)
        connect = partial(runtime.connect, "mesh")
        async with join(connect, "bob") as bob:
            async with join(cutter, "ann", limits=MembershipLimits()) as ann:
                await until(lambda: "ann" in bob.roster)
                cutter.cut()
                await until(lambda: ann.resumed == 1)
                assert "ann" in bob.roster
            await until(lambda: "ann" not in bob.roster)
            types = [(m.type, m.word("status")) for m in bob._unread.rest() if m.sender == "ann"]
            assert types == [("presence", None), ("presence", "offline")]
