"""A peer in time: hours that pass at once, clocks that slept, waits that grow."""

import itertools
import random
from collections.abc import AsyncIterator
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector
from actors.clock import VirtualClock
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    TurnTimeout,
    Unreachable,
)
from protocol.member.lifecycle import MemberState
from protocol.member.messages import Message
from tests.worlds.live import LiveRelay, ShiftedClock
from tests.worlds.peers import Serving, in_virtual_time, until

pytestmark = pytest.mark.anyio


async def test_an_hour_asleep_ends_in_being_present() -> None:
    with LiveRelay() as live:
        limits = MembershipLimits(heartbeat_every_s=0.1, probe_within_s=0.2, backoff_max_s=0.05)
        async with join(live.url, "ann", limits=limits, clock=live.clock) as ann:
            live.clock.shift_s += 3600
            await until(lambda: ann.state is not MemberState.PRESENT)
            await until(lambda: ann.state is MemberState.PRESENT)
            async with join(live.url, "bob", clock=live.clock) as bob:
                assert "ann" in bob.roster


@pytest.mark.no_cover
async def test_quiet_hours_are_no_reason_to_go() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        async with join(where, "ann", clock=clock) as ann, join(where, "bob", clock=clock) as bob:
            for _ in range(2 * 60):
                await clock.advance(30.0)
            assert ann.state in (MemberState.PRESENT, MemberState.RENEWING)
            assert set(bob.roster) == {"ann"}
            left = [m async for m in _taken(bob) if m.word("status") == "offline"]
            assert not left

    await in_virtual_time(body)


async def _taken(peer: Peer) -> AsyncIterator[Message]:
    await peer.broadcast("end")
    await peer.leave()
    async for message in peer:
        yield message


async def test_who_was_asleep_looks_for_the_answer_first() -> None:
    """The answer waits in a buffer of this machine; it is read before the time counts."""
    clock = ShiftedClock()
    async with Runtime() as runtime:
        here = partial(runtime.connect, "mesh")
        async with join(here, "bob") as bob, join(here, "ann", clock=clock) as ann:

            async def answer(_: Command) -> str:
                await anyio.wait_all_tasks_blocked()
                clock.shift_s += 100
                ann._driver._due.set()  # its clock is looked at before the answer is here
                await anyio.wait_all_tasks_blocked()
                return "late"

            async with Serving(bob, answer):
                assert await ann.ask("bob", "x", timeout_s=60) == "late"
            with pytest.raises(TurnTimeout):
                async with Serving(bob, lambda _: anyio.sleep_forever()):
                    await ann.ask("bob", "x", timeout_s=0.01)


async def test_the_backoff_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    clock = VirtualClock()
    attempts: list[float] = []

    async def fail() -> MemoryLink:
        attempts.append(clock.now().at)
        raise OSError("down")

    caught: list[Unreachable] = []

    async def try_to_join() -> None:
        try:
            async with join(fail, "ann", clock=clock, within_s=300):
                pass
        except Unreachable as error:
            caught.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(try_to_join)
        while not caught:
            await clock.advance(1.0)
    assert "OSError" in str(caught[0])
    waited = [round(later - sooner, 3) for sooner, later in itertools.pairwise(attempts)]
    assert waited[:3] == [0.25, 0.5, 1.0]  # half of what it may be, which doubles up to 2
    assert set(waited[3:]) == {1.0}
    assert len(waited) > 295
