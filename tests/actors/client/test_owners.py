"""One id, one owner, and grants that end: peers at the relay itself."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest

from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector, websocket
from actors.clock import SystemClock, VirtualClock
from actors.host.tokens import Auth
from actors.link import Link
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.grants import Grant
from protocol.limits import MembershipLimits
from protocol.member.errors import IdTaken, Rejected, RelayError, Replaced
from protocol.member.lifecycle import MemberState
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay
from tests.worlds.peers import QUICK, Serving, Switch, in_virtual_time, message_of, until

pytestmark = pytest.mark.anyio

OWNER = "the owner of this id"
BRIEF = MembershipLimits(backoff_first_s=0.01, backoff_max_s=0.02, taken_for_s=0.1)


async def ended_with(peer: Peer) -> RelayError:
    """What ends the peer."""
    with anyio.fail_after(PATIENCE_S):
        try:
            async for _ in peer:
                pass
        except RelayError as error:
            return error
    raise AssertionError("the peer left")


def counting(done: list[Any]) -> Callable[[Command], Any]:
    return lambda command: done.append(command.text)


# One id, one owner --------------------------------------------------------------------------------


async def test_of_two_programs_with_one_id_one_executes_and_the_other_is_told(
    where: Connector,
) -> None:
    done: list[Any] = []
    async with join(where, "bob", agents=["coder"]) as bob, join(where, "ann") as ann:
        with anyio.fail_after(PATIENCE_S), pytest.raises(IdTaken):
            async with join(where, "bob", agents=["coder"], limits=BRIEF) as other:
                await other.serve(counting(done))
        async with Serving(bob, counting(done)):
            for number in range(20):
                await ann.ask("coder", number)
        assert done == list(range(20))


async def test_an_id_is_free_again_as_soon_as_its_owner_has_left(where: Connector) -> None:
    async with join(where, "ann", owner=OWNER):
        pass
    async with join(where, "ann", limits=BRIEF) as ann:
        assert ann.state is MemberState.PRESENT


async def test_a_takeover_ends_the_other_program_and_nobody_sees_the_peer_go(
    where: Connector,
) -> None:
    async with (
        join(where, "eve") as eve,
        join(where, "bob", agents=["old"], owner=OWNER) as old,
        join(where, "bob", agents=["new"], owner=OWNER, takeover=True) as new,
    ):
        assert isinstance(await ended_with(old), Replaced)
        with pytest.raises(Replaced):
            await old.broadcast("still here?")
        async with Serving(new, lambda command: command.agent):
            assert await eve.ask("new", "who?") == "new"
        assert eve.roster["bob"].agents == ("new",)
        await eve.leave()
        seen = [message async for message in eve if message.sender == "bob"]
        assert not [message for message in seen if message.word("status") == "offline"]


async def test_who_does_not_know_the_owner_cannot_take_over(where: Connector) -> None:
    async with join(where, "bob", owner=OWNER) as bob:
        with anyio.fail_after(PATIENCE_S), pytest.raises(IdTaken):
            async with join(where, "bob", owner="x" * 16, takeover=True, limits=BRIEF):
                pass
        with pytest.raises(ValueError, match="owner"):
            join(where, "bob", takeover=True)
        assert bob.state is MemberState.PRESENT


async def test_a_program_comes_back_although_its_last_connection_died_unnoticed() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        dead = await where()
        await dead.send('{"type":"capabilities","data":{"claim":"another secret of it"}}')
        await dead.send('{"type":"presence","from":"ann","data":{"agents":[]}}')
        joined: list[float] = []

        async def come_back() -> None:
            async with join(where, "ann", clock=clock):
                joined.append(clock.now().at)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            while not joined and clock.now().at < 60:
                await clock.advance(0.25)
            tasks.cancel_scope.cancel()
        assert 30 <= joined[0] <= 36  # the relay has reaped it after 30 s

    for _ in range(5):  # whatever the dice say
        await in_virtual_time(body)


# Grants that end ----------------------------------------------------------------------------------


def lasting(
    runtime: Runtime, clock: VirtualClock, seconds: float, **grant: Any
) -> tuple[Connector, list[float]]:
    """A connector that gets a fresh grant for each connection, and when it was asked for one."""
    asked: list[float] = []

    async def connect() -> MemoryLink:
        now = clock.now()
        asked.append(now.at)
        ends_at_ms = now.wall_ms + round(seconds * 1000)
        return await runtime.connect("mesh", grant=Grant(ends_at_ms=ends_at_ms, **grant))

    return connect, asked


@pytest.mark.parametrize("may_watch", [True, False])
async def test_a_grant_is_renewed_before_it_ends_and_nothing_is_lost(may_watch: bool) -> None:
    clock = VirtualClock()
    async with Runtime(clock=clock) as runtime:
        connect, asked = lasting(runtime, clock, 20.0, may_watch=may_watch)
        others, _ = lasting(runtime, clock, 10**6)
        async with (
            join(others, "bob", clock=clock) as bob,
            join(connect, "ann", agents=["coder"], clock=clock) as ann,
        ):
            for number in range(300):
                await bob.direct("coder", number)
                await ann.broadcast(number)
                await clock.advance(0.5)
            heard = [(await message_of(ann, "direct")).data for _ in range(300)]
            assert heard == list(range(300))
            assert [(await message_of(bob, "broadcast")).data for _ in range(300)] == heard
            await bob.direct("coder", "the end")
            assert (await message_of(ann, "direct")).data == "the end"
        gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
        assert len(gaps) == 9
        assert all(16 <= gap < 17 for gap in gaps)


async def test_a_token_that_is_not_renewed_ends_the_peer_in_a_typed_error() -> None:
    """And without a storm: so many openings in a minute and a half."""
    clock = VirtualClock()
    openings: list[float] = []
    async with Runtime(clock=clock) as runtime:

        async def connect() -> MemoryLink:
            openings.append(clock.now().at)
            if clock.now().at > 60:
                raise Rejected("no", 401)
            return await runtime.connect("mesh", grant=Grant(ends_at_ms=1_060_000))

        async with join(connect, "ann", clock=clock) as ann:
            await clock.advance(59.0)
            assert ann.state in (MemberState.PRESENT, MemberState.RENEWING)
            for _ in range(300):
                await clock.advance(0.5)
            error = await ended_with(ann)
            assert isinstance(error, Rejected)
            assert error.status == 401
    # 48 s, and then every few seconds because it is told that the end is near; then it backs off.
    assert len(openings) < 25
    assert openings[-1] < 150


async def test_a_relay_that_comes_back_with_another_secret_ends_everyone_without_a_storm() -> None:
    first, second = b"a first secret of at least 32 bytes", b"another secret of at least 32 bytes"
    limits = MembershipLimits(backoff_first_s=0.05, backoff_max_s=0.4, give_up_after_s=1.0)

    def token() -> str:
        now_s = SystemClock().now().wall_ms // 1000
        return jwt.encode({"sub": "team", "exp": now_s + 600}, first, "HS256")

    openings = 0
    with HeldPort() as port:
        url = f"ws://127.0.0.1:{port}/ws"
        connect = websocket(url, token=token)

        async def counted() -> Link:
            nonlocal openings
            openings += 1
            return await connect()

        here: list[int] = []
        ended: list[RelayError] = []

        async def stay(number: int) -> None:
            async with join(counted, f"team/{number}", limits=limits) as peer:
                here.append(number)
                ended.append(await ended_with(peer))

        async with anyio.create_task_group() as tasks:
            with LiveRelay(port=port, auth=Auth(secret=first)) as live:
                for number in range(10):
                    tasks.start_soon(stay, number)
                await until(lambda: len(here) == 10)
                await anyio.to_thread.run_sync(live.stop)
            openings = 0
            with LiveRelay(port=port, auth=Auth(secret=second)):
                await until(lambda: len(ended) == 10)
    assert {getattr(error, "status", None) for error in ended} == {401}
    assert 10 <= openings <= 10 * 15


# Present twice ------------------------------------------------------------------------------------


class Unclaimed:
    """A connection to a relay that knows no claims: none gets there."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def send(self, text: str) -> None:
        if '"claim"' not in text:
            await self._link.send(text)


async def test_both_who_are_present_with_one_id_are_warned_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime() as runtime:

        async def where() -> Link:
            link: Any = Unclaimed(await runtime.connect("mesh"))
            return link  # type: ignore[no-any-return]

        async with join(where, "bob") as bob:
            assert not bob.is_present_twice
            async with join(where, "bob") as other:
                await until(lambda: bob.is_present_twice and other.is_present_twice)
            async with join(where, "bob"):
                pass
        told = [one for one in caplog.records if "present twice" in one.message]
        assert [(one.levelname, one.peer) for one in told] == [("WARNING", "bob")] * 2  # type: ignore[attr-defined]


async def test_a_peer_that_shares_its_id_or_comes_back_is_not_present_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Runtime() as runtime:
        switch = Switch(partial(runtime.connect, "mesh"))
        async with join(switch, "bob", limits=QUICK) as bob, join(switch, "ann") as ann:
            switch.off()
            switch.is_on = True
            await until(lambda: bob.state is MemberState.PRESENT and "bob" in ann.roster)
            await bob.announce(["coder"])
            await until(lambda: ann.roster["bob"].agents == ("coder",))
            assert not bob.is_present_twice
        here = partial(runtime.connect, "mesh")
        async with (
            join(here, "carol", owner=OWNER) as carol,
            join(here, "carol", owner=OWNER) as other,
        ):
            await other.announce(["coder"])
            await carol.announce(["painter"])
            assert not carol.is_present_twice
            assert not other.is_present_twice
    assert "present twice" not in caplog.text
