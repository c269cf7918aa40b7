"""Commands served: handlers in time, over memory and over WebSockets."""

import json
from collections.abc import Awaitable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest

from actors.client.command import Command
from actors.client.peer import join
from actors.client.websocket import Connector, websocket
from actors.clock import VirtualClock
from actors.relay.runtime import Runtime
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    NoCredentials,
    TargetLeft,
    TurnFailed,
    UnknownTarget,
)
from tests.worlds.live import PATIENCE_S, LiveRelay
from tests.worlds.peers import (
    QUICK,
    Memory,
    Serving,
    Thinking,
    in_virtual_time,
    message_of,
    swallow_error,
    until,
    value_of,
    write,
)
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio


async def test_an_exception_of_the_handler_is_the_askers_error(where: Connector) -> None:
    async with join(where, "bob", agents=["writer"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, write):
            turn = ann.ask("writer", "fail")
            with pytest.raises(TurnFailed, match="cannot do that"):
                await turn
            with pytest.raises(TurnFailed):
                [chunk async for chunk in ann.ask("writer", "fail")]
            assert (await ann.ask("writer", "still there"))["words"] == 2


async def test_a_program_that_leaves_tells_its_askers_though_another_keeps_the_peer_here(
    where: Connector,
) -> None:
    think = Thinking()
    shared: dict[str, Any] = {"agents": ["writer"], "owner": "bob's, of both programs"}
    async with join(where, "ann") as ann, join(where, "bob", **shared):
        async with join(where, "bob", **shared) as going, anyio.create_task_group() as tasks:
            tasks.start_soon(going.serve, think)
            turn = ann.ask("writer", "write")
            with anyio.fail_after(PATIENCE_S):
                await think.begun.wait()
                await going.leave()
                with pytest.raises(TargetLeft, match="has gone"):
                    await turn
                await think.stopped.wait()
        assert "bob" in ann.roster


async def test_only_the_agents_asked_for_are_served(where: Connector) -> None:
    async with join(where, "bob", agents=["a", "b"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, lambda _: value_of("from a"), ["a"]):
            async with Serving(bob, lambda _: value_of("from b"), ["b"]):
                assert await ann.ask("a", "x") == "from a"
                assert await ann.ask("b", "x") == "from b"


async def test_a_broadcast_command_is_answered_by_every_agent_served(where: Connector) -> None:
    async with join(where, "bob", agents=["a", "b"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, write, ["a", "b"]):
            await ann.broadcast({"command": "go"}, turn_id="t1")
            ends = [await message_of(ann, "turn_end") for _ in range(2)]
            assert sorted(str(end.sender) for end in ends) == ["a", "b"]
            assert {end.turn_id for end in ends} == {"t1"}


async def test_a_command_is_for_the_agent_or_the_peer_that_it_names(where: Connector) -> None:
    async def who(command: Command) -> str:
        return command.agent

    async with join(where, "bob", agents=["a", "b"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, who):
            assert await ann.ask("b", "x") == "b"
            assert await ann.ask("bob", "x") == "bob"
            await ann.broadcast({"command": "go"}, turn_id="t1")
            ends = [await message_of(ann, "turn_end") for _ in range(4)]
            assert sorted(end.word("result") for end in ends) == ["a", "b", "b", "bob"]
        async with Serving(bob, who, ["bob"]), Serving(bob, lambda _: value_of("second")):
            assert await ann.ask("bob", "x") == "bob"
            assert await ann.ask("a", "x") == "second"


async def test_a_command_that_comes_before_serve_is_served_then(where: Connector) -> None:
    """Others see a peer as soon as it has announced itself, and may ask before it gets to serve."""
    async with join(where, "bob", agents=["a", "b"]) as bob, join(where, "ann") as ann:
        results = []

        async def ask(agent: str) -> None:
            results.append(await ann.ask(agent, agent))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "a")
            tasks.start_soon(ask, "b")
            for _ in range(2):
                await message_of(bob, "direct")
            async with Serving(bob, lambda _: value_of("from a"), ["a"]):
                await until(lambda: bool(results))
                assert results == ["from a"]
                async with Serving(bob, lambda _: value_of("from b")):
                    await until(lambda: len(results) == 2)
        assert results == ["from a", "from b"]


async def test_a_broadcast_command_waits_for_the_agents_not_served_yet(where: Connector) -> None:
    async with join(where, "bob", agents=["a", "b"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, lambda _: value_of(1), ["a"]):
            await ann.broadcast({"command": "go"}, turn_id="t1")
            assert (await message_of(ann, "turn_end")).sender == "a"
            async with Serving(bob, lambda _: value_of(2)):
                end = await message_of(ann, "turn_end")
                assert (end.sender, end.word("result")) == ("b", 2)


async def test_a_command_answered_by_hand_is_not_served_too(where: Connector) -> None:
    async with join(where, "bob", agents=["a"]) as bob, join(where, "ann") as ann:
        for turn_id in ("t1", "t2"):
            await ann.direct("a", {"command": turn_id}, turn_id=turn_id)
            await message_of(bob, "direct")
        await bob.turn_end("t1", "by hand", to="ann", agent="a")
        async with Serving(bob, lambda _: value_of("served")):
            ends = [await message_of(ann, "turn_end") for _ in range(2)]
            assert [end.word("result") for end in ends] == ["by hand", "served"]
            await bob.broadcast("that was all")
            async for message in ann:
                assert message.type != "turn_end"
                if message.type == "broadcast":
                    break


async def test_a_command_for_an_agent_that_is_not_here_fails_at_once(where: Connector) -> None:
    async with join(where, "bob", agents=["a"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, write):
            with pytest.raises(UnknownTarget, match="typo"):
                await ann.ask("typo", "x", peer="bob")


async def test_agents_of_another_connection_of_the_same_peer_are_left_to_it(
    where: Connector,
) -> None:
    async with (
        join(where, "tabs", agents=["a"], owner="of all these tabs") as one,
        join(where, "tabs", agents=["b"], owner="of all these tabs") as two,
        join(where, "ann") as ann,
    ):
        await until(lambda: set(ann.roster["tabs"].agents) == {"a", "b"})
        async with Serving(one, lambda _: value_of(1)), Serving(two, lambda _: value_of(2)):
            assert await ann.ask("a", "x") == 1
            assert await ann.ask("b", "x") == 2
            with pytest.raises(UnknownTarget, match="typo"):
                await ann.ask("typo", "x", peer="tabs")


async def test_a_handler_may_be_an_ordinary_function(where: Connector) -> None:
    async with join(where, "bob") as bob, join(where, "ann") as ann:
        async with Serving(bob, lambda command: command.text.upper()):
            assert await ann.ask("bob", "x") == "X"


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "told"),
    [(ValueError("x" * 2**21), "x" * 1000), (ValueError(), "ValueError"), (Wordless(), "Wordless")],
)
async def test_every_error_of_a_handler_is_told(
    where: Connector, error: Exception, told: str
) -> None:
    def fail(_: Command) -> None:
        raise error

    async with join(where, "bob") as bob, join(where, "ann") as ann, Serving(bob, fail):
        with pytest.raises(TurnFailed) as failed:
            await ann.ask("bob", "x")
        assert str(failed.value) == told


async def test_who_waits_for_a_handler_that_is_cancelled_is_told(where: Connector) -> None:
    async with join(where, "bob") as bob, join(where, "ann") as ann:
        async with anyio.create_task_group() as serving:

            async def cancel(_: Command) -> None:
                serving.cancel_scope.cancel()
                await anyio.sleep_forever()

            serving.start_soon(bob.serve, cancel)
            with anyio.CancelScope(shield=True), pytest.raises(TurnFailed, match="cancelled"):
                await ann.ask("bob", "x")


async def test_who_waits_for_a_service_that_is_over_is_told(here: Memory) -> None:
    async with join(here, "bob") as bob, join(here, "ann") as ann:
        begun = anyio.Event()

        async def hang(_: Command) -> None:
            begun.set()
            await anyio.sleep_forever()

        async with Serving(bob, hang):
            turn = ann.ask("bob", "x")
            await begun.wait()
        with pytest.raises(TurnFailed, match="cancelled"):
            await turn


async def test_chunks_sent_at_the_same_time_have_numbers_of_their_own(where: Connector) -> None:
    async def stream(command: Command) -> None:
        async def say(chunk: str) -> None:
            await command.stream(chunk)

        async with anyio.create_task_group() as tasks:
            for chunk in "abc":
                tasks.start_soon(say, chunk)

    async with join(where, "bob") as bob, join(where, "ann") as ann, Serving(bob, stream):
        await ann.ask("bob", "x")
        numbers = [(await message_of(ann, "stream")).word("chunkNum") for _ in range(3)]
        assert numbers == [0, 1, 2]


async def test_serving_a_peer_that_has_left_is_over_at_once(where: Connector) -> None:
    async with join(where, "ann") as ann:
        await ann.leave()
        with anyio.fail_after(PATIENCE_S):
            await ann.serve(write)


async def test_commands_beyond_the_bound_are_told_that_it_is_busy(where: Connector) -> None:
    limits = MembershipLimits(turns_max=1)
    async with join(where, "bob", limits=limits) as bob, join(where, "ann") as ann:
        asked = anyio.Event()

        async def wait(command: Command) -> None:
            asked.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks, Serving(bob, wait):
            tasks.start_soon(_swallow, ann.ask("bob", "x"))
            await asked.wait()
            with pytest.raises(TurnFailed, match="busy"):
                await ann.ask("bob", "y")
            tasks.cancel_scope.cancel()


async def _swallow(turn: Awaitable[Any]) -> None:
    await turn


async def test_serving_ends_with_the_peer_even_if_a_handler_hangs(where: Connector) -> None:
    asked = anyio.Event()

    async def hang(_: Command) -> None:
        asked.set()
        await anyio.sleep_forever()

    async with join(where, "ann") as ann, join(where, "bob") as bob:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swallow_error, ann.ask("bob", "x"))
            async with anyio.create_task_group() as serving:
                serving.start_soon(bob.serve, hang)
                await asked.wait()
                await bob.leave()


async def test_serving_raises_what_ended_the_peer_as_it_is() -> None:
    url = ""

    async def where() -> str:
        if not url:
            raise NoCredentials("log in")
        return url

    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            url = proxy.url
            async with join(
                websocket(where), "ann", limits=attrs.evolve(QUICK, give_up_after_s=0.0)
            ) as ann:
                url = ""
                await proxy.cut()
                with pytest.raises(NoCredentials, match="log in"):
                    await ann.serve(write)


async def test_commands_that_came_too_fast_do_not_end_the_serving() -> None:
    limits = MembershipLimits(unread_messages_max=5)
    async with Runtime() as runtime:
        here = partial(runtime.connect, "mesh")
        async with join(here, "bob", limits=limits) as bob, join(here, "ann") as ann:
            async with Serving(bob, write):
                link = await runtime.connect("mesh")
                await link.send('{"type":"presence","from":"flood"}')
                command = {"type": "direct", "to": "bob", "turnId": "t", "data": {"command": "x"}}
                await link.send(json.dumps([command] * 100))
                assert (await ann.ask("bob", "hi"))["words"] == 1


async def test_a_command_waits_its_time_for_one_who_serves_it() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        async with join(where, "bob", clock=clock) as bob, join(where, "ann", clock=clock) as ann:
            for turn_id in ("late", "in time"):
                await ann.direct("bob", {"command": "x"}, turn_id=turn_id)
                await message_of(bob, "direct")
                await clock.advance(MembershipLimits().serve_within_s - 5)
            async with Serving(bob, write):
                assert (await message_of(ann, "turn_end")).turn_id == "in time"

    await in_virtual_time(body)
