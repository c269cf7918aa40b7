"""Commands given: a turn in time, over memory and over WebSockets."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from actors.client.asking import Turn
from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.client.websocket import Connector
from actors.clock import VirtualClock
from actors.relay.runtime import Runtime
from protocol.limits import MembershipLimits
from protocol.member.errors import (
    AmbiguousTarget,
    AnswerGap,
    Gap,
    Lagged,
    NotServed,
    RelayError,
    TargetLeft,
    TooLarge,
    TurnError,
    TurnTimeout,
    UnknownTarget,
)
from protocol.member.lifecycle import MemberState
from tests.worlds.live import PATIENCE_S, StillClock
from tests.worlds.peers import (
    QUICK,
    Memory,
    Serving,
    Switch,
    in_virtual_time,
    message_of,
    swallow_error,
    until,
    value_of,
    write,
)

pytestmark = pytest.mark.anyio


async def test_a_command_streams_chunks_and_ends_with_a_result(where: Connector) -> None:
    async with join(where, "bob", agents=["writer"]) as bob, join(where, "ann") as ann:
        async with Serving(bob, write):
            turn = ann.ask("writer", "one two three")
            assert [chunk async for chunk in turn] == ["one", "two", "three"]
            assert await turn == {"words": 3, "by": "writer"}
            assert await ann.ask("bob", "hi") == {"words": 1, "by": "bob"}
            assert await ann.ask("writer", "") == {"words": 0, "by": "writer"}


async def test_nobody_and_several_are_typed_errors(where: Connector) -> None:
    async with join(where, "ann", agents=["mine"]) as ann:
        with pytest.raises(UnknownTarget, match="nobody"):
            await ann.ask("nobody", "x")
        for own in ("mine", "ann"):
            with pytest.raises(UnknownTarget, match="itself"):
                await ann.ask(own, "x")
        async with join(where, "bob", agents=["twin"]), join(where, "carol", agents=["twin"]):
            await until(lambda: len(ann.roster) == 2)
            with pytest.raises(AmbiguousTarget) as caught:
                await ann.ask("twin", "x")
            assert sorted(caught.value.peers) == ["bob", "carol"]


async def test_where_several_have_the_agent_one_can_be_meant(where: Connector) -> None:
    async with (
        join(where, "bob", agents=["twin"]) as bob,
        join(where, "carol", agents=["twin"]) as carol,
        join(where, "ann") as ann,
    ):
        async with (
            Serving(bob, lambda _: value_of("bob")),
            Serving(carol, lambda _: value_of("carol")),
        ):
            assert await ann.ask("twin", "x", peer="carol") == "carol"
            assert await ann.ask("twin", "x", peer="bob") == "bob"


async def test_a_peer_that_leaves_before_it_answers_is_an_error_at_once(where: Connector) -> None:
    async with join(where, "ann") as ann, join(where, "bob", agents=["slow"]) as bob:
        await until(lambda: "bob" in ann.roster)

        async def leave_when_asked() -> None:
            await message_of(bob, "direct")
            await bob.leave()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_when_asked)
            with pytest.raises(TargetLeft, match="bob"):
                await ann.ask("slow", "x")


async def test_answers_count_only_from_the_peer_that_was_asked(where: Connector) -> None:
    async with (
        join(where, "bob", agents=["writer"]) as bob,
        join(where, "eve") as eve,
        join(where, "ann") as ann,
    ):

        async def forge() -> None:
            command = await message_of(bob, "direct")
            assert command.turn_id is not None
            await eve.turn_end(command.turn_id, "forged", to="ann")
            await eve.broadcast("done")
            await message_of(bob, "broadcast")
            await bob.turn_end(command.turn_id, "true", to="ann", agent="writer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forge)
            assert await ann.ask("writer", "x") == "true"


async def test_an_agent_that_this_peer_and_several_others_have_is_ambiguous(
    where: Connector,
) -> None:
    async with (
        join(where, "ann", agents=["a"]) as ann,
        join(where, "bob", agents=["a"]),
        join(where, "eve", agents=["a"]),
    ):
        await until(lambda: len(ann.roster) == 2)
        with pytest.raises(AmbiguousTarget) as ambiguous:
            await ann.ask("a", "x")
        assert set(ambiguous.value.peers) == {"bob", "eve"}


async def test_none_is_no_command(where: Connector) -> None:
    async with join(where, "ann") as ann:
        with pytest.raises(TypeError, match="None"):
            ann.ask("bob", None)


async def test_a_turn_cut_short_is_over() -> None:
    async with Runtime() as runtime:
        here = partial(runtime.connect, "mesh")
        async with join(here, "bob"), join(here, "ann") as ann:
            turn = ann.ask("bob", "x")
            with anyio.move_on_after(0.01):
                async for _ in turn:
                    pass
            with pytest.raises(RelayError, match="abandoned"):
                await turn


@pytest.mark.no_cover
@pytest.mark.limits(messages_per_s=1e6, messages_burst=10**6)
async def test_ten_thousand_chunks_arrive_in_order(where: Connector) -> None:
    async with join(where, "bob", agents=["writer"]) as bob, join(where, "ann") as ann:

        async def write_much(command: Command) -> int:
            for number in range(10_000):
                await command.stream(str(number))
            return 10_000

        async with Serving(bob, write_much):
            turn = ann.ask("writer", "go")
            expected = 0
            with anyio.fail_after(PATIENCE_S):
                async for chunk in turn:
                    assert chunk == str(expected)
                    expected += 1
            assert await turn == expected == 10_000


async def test_a_command_that_nobody_waits_for_any_more_is_not_sent_later(here: Memory) -> None:
    switch = Switch(here)
    async with join(here, "bob") as bob, join(switch, "ann", limits=QUICK) as ann:
        switch.off()
        await until(lambda: ann.state is not MemberState.PRESENT)
        with pytest.raises(TurnTimeout):
            await ann.ask("bob", "timed out", timeout_s=0.01)
        with anyio.move_on_after(0.01):
            await ann.ask("bob", "abandoned")
        await ann.direct("bob", "sent")
        switch.is_on = True
        assert (await message_of(bob, "direct")).data == "sent"


async def test_a_peer_that_was_not_here_yet_has_not_left(here: Memory) -> None:
    switch = Switch(here)
    async with join(switch, "ann", limits=QUICK) as ann:
        switch.off()
        await until(lambda: ann.state is not MemberState.PRESENT)
        async with join(here, "bob") as bob, Serving(bob, write):
            async with anyio.create_task_group() as tasks:
                answers: list[Any] = []

                async def ask() -> None:
                    answers.append(await ann.ask("writer", "x", peer="bob"))

                await bob.announce(["writer"])
                tasks.start_soon(ask)
                await anyio.lowlevel.checkpoint()
                switch.is_on = True
            assert answers[0]["words"] == 1


async def test_a_peer_that_was_asked_before_it_was_seen_and_answers_can_leave(
    here: Memory,
) -> None:
    async with join(here, "ann") as ann:
        link = await here()
        await link.send('{"type":"presence","from":"bob"}')
        assert ann.roster == {}
        turn = ann.ask("bob", "x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swallow_error, turn)
            await anyio.wait_all_tasks_blocked()
            answer = {"type": "ack", "from": "bob", "to": "ann", "turnId": turn.id}
            await link.send(json.dumps(answer))
            await anyio.wait_all_tasks_blocked()
            link.close()


async def test_a_silent_agent_is_a_timeout_and_every_sign_of_it_extends_the_time() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        async with join(where, "bob", clock=clock) as bob, join(where, "ann", clock=clock) as ann:
            caught: list[BaseException] = []

            async def ask() -> None:
                try:
                    await ann.ask("bob", "x", timeout_s=60)
                except TurnTimeout as error:
                    caught.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                command = await message_of(bob, "direct")
                assert command.turn_id is not None
                for number in range(5):
                    await clock.advance(50.0)
                    await bob.stream(command.turn_id, "x", number)
                    await clock.advance(0.5)
                assert not caught
                await clock.advance(61.0)
            assert len(caught) == 1

    await in_virtual_time(body)


async def test_an_agent_that_never_answers_is_a_timeout() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        async with join(where, "bob", clock=clock), join(where, "ann", clock=clock) as ann:
            ended: list[float] = []

            async def ask() -> None:
                with pytest.raises(TurnTimeout, match="60 s"):
                    await ann.ask("bob", "x", timeout_s=60)
                ended.append(clock.now().at)

            began = clock.now().at
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                for _ in range(70):
                    await clock.advance(1.0)
            assert 59 < ended[0] - began < 63

    await in_virtual_time(body)


async def test_a_command_is_sent_although_nobody_waits_for_its_turn(where: Connector) -> None:
    async with join(where, "bob") as bob, join(where, "ann") as ann:
        turn = ann.ask("bob", "x")
        command = await message_of(bob, "direct")
        assert command.turn_id == turn.id
        assert command.word("command") == "x"


async def test_what_cannot_be_sent_is_refused_by_the_call(where: Connector) -> None:
    async with join(where, "ann") as ann:
        for command, error in ((object(), TypeError), ("x" * 2**20, TooLarge)):
            with pytest.raises(error):
                ann.ask("bob", command)


async def test_many_wait_for_one_turn(where: Connector) -> None:
    async with join(where, "bob") as bob, join(where, "ann") as ann, Serving(bob, write):
        turn = ann.ask("bob", "one two")
        results = []

        async def wait() -> None:
            results.append(await turn)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
        assert [result["words"] for result in results] == [2, 2, 2]


# Nobody waits any more ----------------------------------------------------------------------------


class Endless:
    """A handler that streams one chunk and then works for ever."""

    def __init__(self) -> None:
        self.is_at_work = anyio.Event()
        self.is_cancelled = anyio.Event()
        self.clock = StillClock()
        """Of who asks."""

    async def __call__(self, command: Command) -> None:
        await command.stream("thinking")
        self.is_at_work.set()
        try:
            await anyio.sleep_forever()
        except BaseException:
            self.is_cancelled.set()
            raise


async def _scope(turn: Turn, work: Endless) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn.result)
        await work.is_at_work.wait()
        tasks.cancel_scope.cancel()


async def _timeout(turn: Turn, work: Endless) -> None:
    chunks = aiter(turn)
    assert await anext(chunks) == "thinking"
    work.clock.shift_s += 1.0
    with pytest.raises(TurnTimeout):
        await turn


async def _break(turn: Turn, work: Endless) -> None:
    async for chunk in turn:
        assert chunk == "thinking"
        break


async def _raise(turn: Turn, work: Endless) -> None:
    with pytest.raises(ZeroDivisionError):
        async for chunk in turn:
            len(chunk) // 0


async def _block(turn: Turn, work: Endless) -> None:
    async with turn:
        await work.is_at_work.wait()


async def _call(turn: Turn, work: Endless) -> None:
    await work.is_at_work.wait()
    turn.cancel()
    turn.cancel()


@pytest.mark.parametrize("give_up", [_scope, _timeout, _break, _raise, _block, _call])
async def test_whatever_ends_the_waiting_ends_the_work(
    where: Connector, give_up: Callable[[Turn, Endless], Awaitable[None]]
) -> None:
    work = Endless()
    async with (
        join(where, "bob", agents=["writer"]) as bob,
        join(where, "ann", clock=work.clock) as ann,
    ):
        async with Serving(bob, work):
            turn = ann.ask("writer", "x", timeout_s=0.1)
            await give_up(turn, work)
            with anyio.fail_after(PATIENCE_S):
                await work.is_cancelled.wait()
            with pytest.raises(TurnError, match="no sign" if give_up is _timeout else "abandoned"):
                await turn


async def test_whoever_leaves_ends_the_work(where: Connector) -> None:
    work = Endless()
    async with join(where, "bob", agents=["writer"]) as bob, Serving(bob, work):
        async with join(where, "ann") as ann:
            ann.ask("writer", "x")
            await work.is_at_work.wait()
        with anyio.fail_after(PATIENCE_S):
            await work.is_cancelled.wait()


async def test_whoever_is_cut_off_and_does_not_come_back_ends_the_work() -> None:
    work, limits = Endless(), MembershipLimits(asker_back_within_s=0.05)
    async with Runtime() as runtime:
        here = Switch(partial(runtime.connect, "mesh"))
        there = partial(runtime.connect, "mesh")
        async with join(there, "bob", agents=["writer"], limits=limits) as bob, Serving(bob, work):
            async with join(here, "ann") as ann:
                ann.ask("writer", "x")
                await work.is_at_work.wait()
                here.off()
                with anyio.fail_after(PATIENCE_S):
                    await work.is_cancelled.wait()


async def test_a_loop_that_lagged_may_be_followed_by_another(where: Connector) -> None:
    async def stream(command: Command) -> str:
        for number in range(20):
            await command.stream(str(number))
        return "done"

    limits = MembershipLimits(unread_messages_max=5)
    async with join(where, "bob") as bob, join(where, "ann", limits=limits) as ann:
        async with Serving(bob, stream):
            turn = ann.ask("bob", "x")
            await turn
            with pytest.raises(Lagged):
                async for _ in turn:
                    pass
            assert [chunk async for chunk in turn] == ["15", "16", "17", "18", "19"]


# What is missing ----------------------------------------------------------------------------------


@asynccontextmanager
async def asker_who_may_be_cut_off(
    handler: Callable[[Command], Awaitable[Any]],
) -> AsyncIterator[tuple[Switch, Peer, Peer]]:
    """Ann behind a switch, and bob, who serves `writer` with this handler."""
    async with Runtime() as runtime:
        here = Switch(partial(runtime.connect, "mesh"))
        there = partial(runtime.connect, "mesh")
        async with (
            join(there, "bob", agents=["writer"]) as bob,
            join(here, "ann", limits=QUICK) as ann,
            Serving(bob, handler),
        ):
            yield here, ann, bob


async def test_an_asker_that_was_cut_off_in_the_middle_of_an_answer_is_told() -> None:
    """The rest of the chunks comes after the connection is back, and so does the result."""
    go_on = anyio.Event()

    async def stream(command: Command) -> str:
        for number in range(5):
            await command.stream(str(number))
        await go_on.wait()
        return "done"

    async with asker_who_may_be_cut_off(stream) as (here, ann, bob):
        turn = ann.ask("writer", "x")
        chunks = [await anext(turn) for _ in range(2)]
        await until(lambda: len(turn._chunks) == 3)
        here.off()
        await until(lambda: "ann" not in bob.roster)
        for number in (5, 6):  # as the handler would; nobody hears it
            await bob.stream(turn.id, str(number), number, to="ann", agent="writer")
        here.is_on = True
        await until(lambda: "ann" in bob.roster and ann.state is MemberState.PRESENT)
        await bob.stream(turn.id, "7", 7, to="ann", agent="writer")
        with pytest.raises(AnswerGap, match="chunks 5 to 6") as caught:
            await turn
        assert caught.value.chunks == ("2", "3", "4")
        with pytest.raises(AnswerGap):
            async for chunk in turn:
                chunks.append(chunk)
        assert chunks == ["0", "1", "2", "3", "4"]
        with pytest.raises(Gap):
            while True:
                await anext(ann)


async def test_an_asker_that_was_away_when_the_end_came_does_not_wait_for_it() -> None:
    go_on = anyio.Event()

    async def work(_: Command) -> str:
        await go_on.wait()
        return "done"

    async with asker_who_may_be_cut_off(work) as (here, ann, bob):
        turn = ann.ask("writer", "x", timeout_s=math.inf)
        await message_of(ann, "ack")
        here.off()
        await until(lambda: "ann" not in bob.roster)
        go_on.set()
        assert (await message_of(bob, "error")).word("code") == "unknown_target"
        here.is_on = True
        with anyio.fail_after(PATIENCE_S), pytest.raises(AnswerGap, match="away"):
            await turn


# Who reads the answers ----------------------------------------------------------------------------


async def test_only_the_asker_reads_the_answers(where: Connector) -> None:
    async with (
        join(where, "bob", agents=["writer"]) as bob,
        join(where, "ann") as ann,
        join(where, "eve", agents=["ann's"]) as eve,
        Serving(bob, write),
    ):
        assert await ann.ask("writer", "one two") == {"words": 2, "by": "writer"}
        await bob.broadcast("done")
        seen = []
        while (message := await anext(eve)).type != "broadcast":
            seen.append(message.type)
        assert set(seen) == {"presence"}
        assert (await message_of(ann, "turn_end")).origin == "bob"


async def test_an_asker_may_have_everybody_read_them(where: Connector) -> None:
    async with (
        join(where, "bob", agents=["writer"]) as bob,
        join(where, "ann") as ann,
        join(where, "eve") as eve,
        Serving(bob, write),
    ):
        turn = ann.ask("writer", "one two", answers="all")
        assert await turn == {"words": 2, "by": "writer"}
        assert (await message_of(eve, "turn_end")).turn_id == turn.id


# Any of several -----------------------------------------------------------------------------------


async def test_any_of_several_spreads_and_goes_on_to_another_if_one_leaves(
    where: Connector,
) -> None:
    async with join(where, "ann") as ann, join(where, "carol", agents=["twin"]) as carol:
        async with join(where, "bob", agents=["twin"]) as bob:
            await until(lambda: len(ann.roster) == 2)
            turns = [ann.ask("twin", "x", any=True) for _ in range(4)]
            commands = [await message_of(bob, "direct") for _ in range(2)]
            assert {command.turn_id for command in commands} < {turn.id for turn in turns}
            await bob.ack(str(commands[0].turn_id))
            await until(lambda: all(turn.id for turn in turns))
        async with Serving(carol, lambda _: value_of("carol")):
            ends = []
            for turn in turns:
                try:
                    ends.append(await turn)
                except TargetLeft:
                    ends.append("bob left")
            assert sorted(ends) == ["bob left", "carol", "carol", "carol"]


async def test_an_agent_that_nobody_serves_is_an_error_in_time(where: Connector) -> None:
    limits = MembershipLimits(serve_within_s=0.05)
    async with join(where, "bob", agents=["idle"], limits=limits), join(where, "ann") as ann:
        with anyio.fail_after(PATIENCE_S), pytest.raises(NotServed, match="idle"):
            await ann.ask("idle", "x")


async def test_an_agent_that_thinks_for_long_is_waited_for() -> None:
    async def body(where: Connector, clock: VirtualClock) -> None:
        async def think(command: Command) -> str:
            await clock.sleep(600.0)
            return "at last"

        async with (
            join(where, "bob", agents=["thinker"], clock=clock) as bob,
            join(where, "ann", clock=clock) as ann,
            Serving(bob, think),
            anyio.create_task_group() as tasks,
        ):
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await ann.ask("thinker", "x", timeout_s=15))

            tasks.start_soon(ask)
            for _ in range(130):
                await clock.advance(5.0)
            assert answers == ["at last"]

    await in_virtual_time(body)
