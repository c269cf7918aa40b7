"""The connections of a peer: made, lost, replaced, refused, and what of that is said."""

import json
import logging
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import pytest
from websockets.asyncio.server import ServerConnection, serve

from actors.client import lines, peer
from actors.client.peer import Peer, join
from actors.client.websocket import Connector, websocket
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.limits import Limits, MembershipLimits
from protocol.member.errors import (
    BadAddress,
    Left,
    NoCredentials,
    NotConnected,
    QueueFull,
    Rejected,
    RelayError,
    Unreachable,
)
from protocol.member.lifecycle import MemberState
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay
from tests.worlds.peers import (
    QUICK,
    SECRET,
    Serving,
    given_up,
    message_of,
    until,
    write,
)
from tests.worlds.proxy import Proxy, http

pytestmark = pytest.mark.anyio

SLOW = MembershipLimits(backoff_first_s=60, retry_max_s=60, backoff_max_s=60)
"""Reconnects when it is nudged."""


async def test_after_a_restart_of_the_relay_everybody_is_back() -> None:
    with HeldPort() as port, LiveRelay(port=port) as first:
        async with join(first.url, "ann", agents=["a"], limits=QUICK) as ann:
            async with join(first.url, "bob", limits=QUICK) as bob:
                await until(lambda: "bob" in ann.roster)
                await anyio.to_thread.run_sync(first.stop)
                await until(lambda: ann.state is not MemberState.PRESENT)
                with LiveRelay(port=port) as second:
                    await until(lambda: {ann.state, bob.state} == {MemberState.PRESENT})
                    await until(lambda: "ann" in bob.roster and "bob" in ann.roster)
                    await bob.direct("a", "hello")
                    assert (await message_of(ann, "direct")).data == "hello"
                    await anyio.to_thread.run_sync(second.stop)


async def test_a_command_from_a_time_without_relay_waits_for_an_agent_that_comes_later() -> None:
    with HeldPort() as port, LiveRelay(port=port) as first:
        async with join(first.url, "bob", agents=["b"], limits=SLOW) as bob, Serving(bob, write):
            async with join(first.url, "ann", limits=QUICK) as ann:
                await until(lambda: "bob" in ann.roster)
                await anyio.to_thread.run_sync(first.stop)
                await until(lambda: MemberState.PRESENT not in (ann.state, bob.state))
                turn = ann.ask("b", "two words")
                with LiveRelay(port=port) as second:
                    await until(lambda: ann.state is MemberState.PRESENT)
                    await until(lambda: not ann.roster)
                    bob.nudge()
                    assert await turn == {"words": 2, "by": "b"}
                    await anyio.to_thread.run_sync(second.stop)


async def test_the_reason_of_every_failed_attempt_stands_in_the_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    reason = "nobody listens at 127.0.0.1:1; is the relay running? Check host and port"

    def levels() -> list[str]:
        lines = [record for record in caplog.records if record.name == f"{peer.__name__}"]
        assert {it.getMessage() for it in lines} <= {f"not connected, tries again: {reason}"}
        return [record.levelname for record in lines]

    error = await given_up("ws://127.0.0.1:1/ws", lambda: len(levels()) > 1, limits=QUICK)
    assert reason in str(error)
    first, *others = levels()
    assert first == "WARNING"  # which everybody sees, once
    assert set(others) == {"INFO"}


async def test_how_a_connection_was_closed_stands_in_the_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with LiveRelay() as live:
        async with join(live.url, "ann", limits=QUICK) as ann:
            await anyio.to_thread.run_sync(live.stop)
            await until(lambda: ann.state is not MemberState.PRESENT)
    assert any("connection closed: 1001" in record.getMessage() for record in caplog.records)


async def test_a_half_open_connection_is_replaced() -> None:
    limits = MembershipLimits(
        heartbeat_every_s=0.1, silent_after_s=0.3, probe_within_s=0.1, backoff_max_s=0.05
    )
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy, join(proxy.url, "ann", limits=limits) as ann:
            before = proxy.opened
            proxy.is_hanging = True
            await until(lambda: ann.state is not MemberState.PRESENT)
            proxy.is_hanging = False
            await until(lambda: ann.state is MemberState.PRESENT and proxy.opened > before)
            await ann.broadcast("x")


async def test_a_session_that_is_being_started_is_tried_again() -> None:
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            proxy.answers = [http("409 Conflict")] * 3
            async with join(proxy.url, "ann", limits=QUICK) as ann:
                assert ann.state is MemberState.PRESENT
                assert proxy.opened >= 4


async def test_every_connection_asks_for_a_fresh_url() -> None:
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            asked: list[str] = []

            async def url() -> str:
                asked.append(f"{proxy.url}?mesh={len(asked)}")
                return asked[-1]

            async with join(websocket(url), "ann", limits=QUICK) as ann:
                await proxy.cut()
                await until(lambda: len(asked) == 2 and ann.state is MemberState.PRESENT)
                async with join(f"{live.url}?mesh=1", "bob") as bob:
                    assert set(bob.roster) == {"ann"}


@pytest.mark.parametrize("rounds", [3])
async def test_renewal_under_traffic_loses_doubles_and_reorders_nothing(rounds: int) -> None:
    limits = MembershipLimits(renew_after_s=0.25, join_within_s=0.2)
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            async with join(proxy.url, "ann", limits=limits) as ann, join(live.url, "bob") as bob:
                await until(lambda: "bob" in ann.roster)
                stop = False
                said: dict[Peer, int] = {ann: 0, bob: 0}
                heard: dict[Peer, list[Any]] = {ann: [], bob: []}

                async def say(peer: Peer) -> None:
                    while not stop:
                        await peer.broadcast(said[peer])
                        said[peer] += 1
                        await anyio.sleep(0.002)
                    await peer.broadcast(None)

                async def hear(peer: Peer) -> None:
                    async for message in peer:
                        if message.type == "broadcast":
                            if message.data is None:
                                return
                            heard[peer].append(message.data)

                async with anyio.create_task_group() as tasks:
                    for peer in (ann, bob):
                        tasks.start_soon(say, peer)
                        tasks.start_soon(hear, peer)
                    await until(lambda: proxy.opened > rounds and min(said.values()) > 50)
                    stop = True
                assert heard[bob] == list(range(said[ann]))
                assert heard[ann] == list(range(said[bob]))


async def test_while_there_is_no_connection_messages_wait_within_bounds() -> None:
    limits = attrs.evolve(SLOW, queue_messages_max=3, resume_s=0.0)
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy, join(live.url, "bob") as bob:
            async with join(proxy.url, "ann", limits=limits) as ann:
                await proxy.cut()
                await until(lambda: ann.state is MemberState.WAITING)
                for number in range(3):
                    await ann.broadcast(number)
                with pytest.raises(QueueFull, match="at most 3"):
                    await ann.broadcast(3)
                ann.nudge()
                for number in range(3):
                    assert (await message_of(bob, "broadcast")).data == number


async def test_while_a_cut_connection_may_come_back_senders_wait_for_room() -> None:
    limits = attrs.evolve(SLOW, queue_messages_max=3)
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy, join(live.url, "bob") as bob:
            async with join(proxy.url, "ann", limits=limits) as ann:
                await proxy.cut()
                await until(lambda: ann.state is MemberState.WAITING)
                async with anyio.create_task_group() as tasks:

                    async def say() -> None:
                        for number in range(10):
                            await ann.broadcast(number)

                    tasks.start_soon(say)
                    await anyio.lowlevel.checkpoint()
                    ann.nudge()
                for number in range(10):
                    assert (await message_of(bob, "broadcast")).data == number
                assert ann.resumed == 1


async def test_or_they_fail_at_once_if_that_was_asked_for() -> None:
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            limits = attrs.evolve(SLOW, resume_s=0.0)
            async with join(proxy.url, "ann", limits=limits, offline="fail") as ann:
                await proxy.cut()
                await until(lambda: ann.state is MemberState.WAITING)
                with pytest.raises(NotConnected):
                    await ann.broadcast(1)


@pytest.mark.limits(messages_per_s=5000, messages_burst=2000)
async def test_leaving_while_there_is_no_connection_waits_for_one_to_send_what_is_queued() -> None:
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy, join(live.url, "bob") as bob:
            async with join(proxy.url, "ann", limits=QUICK) as ann:
                await proxy.cut()
                await until(lambda: ann.state is not MemberState.PRESENT)
                await ann.broadcast("last words")
            assert (await message_of(bob, "broadcast")).data == "last words"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_says_goodbye_and_stays_is_left_and_nothing_is_lost() -> None:
    """Its close frame comes, its end of the TCP connection does not."""
    said: list[str] = []
    left = anyio.Event()

    async def half(socket: ServerConnection) -> None:
        await socket.recv()  # the claim
        await socket.recv()  # the wish to come back after a cut
        presence = json.loads(await socket.recv())
        await socket.send(json.dumps(presence))
        asked = json.loads(await socket.recv())
        answer = {"type": "capabilities_response", "from": "relay", "turnId": asked["turnId"]}
        await socket.send(json.dumps(answer))
        if not said:
            said.append("goodbye")
            socket.protocol.send_close(1001)
            for data in socket.protocol.data_to_send():
                if data:
                    socket.transport.write(data)
            await left.wait()
        async for text in socket:
            said.append(json.loads(text)["type"])

    async with serve(half, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        async with join(url, "ann", limits=QUICK) as ann:
            await until(lambda: len(said) == 1)
            await ann.broadcast(1)
            await until(lambda: "broadcast" in said)
        left.set()


@pytest.mark.no_cover
async def test_a_peer_that_floods_is_held_back_and_loses_nothing(where: Connector) -> None:
    limits = MembershipLimits(queue_messages_max=10)
    async with join(where, "bob") as bob, join(where, "ann", limits=limits) as ann:
        async with anyio.create_task_group() as tasks:

            async def flood() -> None:
                for number in range(3000):
                    await ann.broadcast(number)

            tasks.start_soon(flood)
            for number in range(3000):
                assert (await message_of(bob, "broadcast")).data == number


async def test_what_is_no_address_is_a_bad_address() -> None:
    async def url() -> str:
        return "ws://localhost:1/ws"

    wrong: list[Any] = [url, websocket(lambda: 7), websocket(None)]  # type: ignore[arg-type, return-value]
    for where in wrong:
        with pytest.raises(BadAddress):
            async with join(where, "ann"):
                pass
    with pytest.raises(TypeError, match="NoneType"):
        join(None, "ann")  # type: ignore[arg-type]
    with LiveRelay() as live:
        async with join(websocket(lambda: live.url), "ann") as ann:
            assert ann.state is MemberState.PRESENT


@pytest.mark.parametrize(
    ("answer", "kind", "hint"),
    [
        (http("403 Forbidden"), "Rejected", "for this mesh"),
        (http("401 Unauthorized"), "Rejected", "log in"),
        (http("404 Not Found"), "Rejected", "no relay"),
        (http("400 Bad Request"), "Rejected", "the URL"),
        (http("200 OK", "<html>"), "Rejected", "no relay"),
        (http("502 Bad Gateway"), "Rejected", "is the relay running"),
        (http("503 Busy"), "Rejected", "full"),
        (b"nonsense\r\n\r\n", "NotARelay", "WebSocket"),
        (b"", "Unreachable", "closed"),
    ],
)
async def test_an_opening_that_fails_says_what_to_do(answer: bytes, kind: str, hint: str) -> None:
    # What no further attempt mends ends at once. For the rest there is time for one attempt.
    within_s = 3.0 if b" 50" in answer[:12] or not answer else 60.0
    async with Proxy(1) as proxy:
        proxy.answers = [answer] * 100
        with pytest.raises(RelayError, match=hint) as caught:
            async with join(f"{proxy.url}?X-Amz-Signature={SECRET}", "ann", within_s=within_s):
                pass
        assert type(caught.value).__name__ == kind
        assert SECRET not in _everything(caught.value)


@pytest.mark.parametrize("url", ["http://x/ws", "ws://", "nonsense", f"ws:/x?{SECRET}", ""])
async def test_a_bad_url_is_said_to_be_one(url: str) -> None:
    with pytest.raises(RelayError, match="URL must be") as caught:
        async with join(url, "ann"):
            pass
    assert SECRET not in _everything(caught.value)


async def test_nobody_there_is_unreachable_after_the_time_allowed() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        async with join(f"ws://127.0.0.1:1/ws?{SECRET}", "ann", within_s=2.0):
            pass


async def test_no_credentials_ends_it_at_once() -> None:
    async def url() -> str:
        raise NoCredentials("log in")

    with anyio.fail_after(PATIENCE_S), pytest.raises(NoCredentials):
        async with join(websocket(url), "ann"):
            pass


async def test_rejections_later_end_it_only_if_they_go_on() -> None:
    limits = attrs.evolve(QUICK, give_up_after_s=0.5)
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy, join(proxy.url, "ann", limits=limits) as ann:
            proxy.answers = [http("403 Forbidden")] * 2
            await proxy.cut()
            await until(lambda: not proxy.answers and ann.state is MemberState.PRESENT)
            proxy.answers = [http("403 Forbidden")] * 10_000
            await proxy.cut()
            await until(lambda: ann.state is MemberState.ENDED)
            with pytest.raises(Rejected, match="403"):
                await ann.broadcast("x")
            assert ann.resumed == 1
            with pytest.raises(Rejected):
                [message async for message in ann]
            with pytest.raises(Rejected):
                [change async for change in ann.changes()]


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with LiveRelay() as live:
        async with Proxy(live.port) as proxy:
            proxy.answers = [http("409 Conflict")]
            url = f"{proxy.url}?X-Amz-Signature={SECRET}"
            async with join(url, "ann", limits=QUICK) as ann:
                await ann.broadcast(SECRET)
                await proxy.cut()
                await until(lambda: proxy.opened >= 3 and ann.state is MemberState.PRESENT)
    assert caplog.records
    for record in caplog.records:
        if record.name.startswith("uvicorn"):
            continue  # the relay's server, which relay.py keeps quiet
        assert SECRET not in json.dumps(record.__dict__, default=repr)


def _everything(error: BaseException | None) -> str:
    shown = ""
    while error is not None:
        shown += f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return shown


class _Stuck:
    """The peer's end of a connection that takes what joining needs, and then nothing."""

    is_open = True

    def __init__(self) -> None:
        self.is_stuck = False
        self.is_closed = False
        self.said = self.heard = 0
        self._send, self._receive = anyio.create_memory_object_stream[str](100)

    async def send(self, text: str) -> None:
        if self.is_stuck:
            await anyio.sleep_forever()
        message = json.loads(text)
        if message["type"] == "capabilities":
            message |= {"type": "capabilities_response", "from": "relay", "data": {}}
        self.hear(**message)

    def hear(self, **message: Any) -> None:
        self.said += 1
        self._send.send_nowait(json.dumps(message))

    async def receive(self) -> str:
        text = await self._receive.receive()
        self.heard += 1
        return text

    async def aclose(self, code: int = 1000) -> None:
        self.is_closed = True
        self._send.close()
        self._receive.close()


async def test_a_connection_that_takes_nothing_is_dropped_before_much_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "URGENT_MAX", 5)
    made: list[_Stuck] = []

    async def connect() -> _Stuck:
        made.append(_Stuck())
        return made[-1]

    async with join(connect, "ann", limits=QUICK) as ann:
        stuck = made[0]
        stuck.is_stuck = True
        for _ in range(10):
            if not stuck.is_closed:
                ann.nudge()  # asks for a sign of life
                stuck.hear(type="tick")
                await until(lambda: stuck.heard == stuck.said or stuck.is_closed)
        await until(lambda: len(made) > 1 and ann.state is MemberState.PRESENT)
        assert len(made) == 2


class _Frames:
    """The peer's end of a connection, with the messages of each frame that it has sent."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self.sent: list[list[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def send(self, text: str) -> None:
        frame = json.loads(text)
        messages = frame if isinstance(frame, list) else [frame]
        self.sent.append([one["data"] for one in messages if one["type"] == "broadcast"])
        await self._link.send(text)


async def broadcasts(count: int, limits: Limits | None = None) -> list[list[Any]]:
    """The frames in which so many broadcasts in one breath leave."""
    made: list[_Frames] = []

    async with Runtime(limits) as runtime:

        async def connect() -> Any:
            made.append(_Frames(await runtime.connect("m")))
            return made[-1]

        async with join(connect, "ann") as ann, join(partial(runtime.connect, "m"), "bob") as bob:
            for number in range(count):
                await ann.broadcast(number)
            for number in range(count):
                assert (await message_of(bob, "broadcast")).data == number
        return [frame for frame in made[0].sent if frame]


async def test_what_is_said_in_one_breath_shares_a_frame(anyio_backend_name: str) -> None:
    assert await broadcasts(1) == [[0]]
    frames = await broadcasts(5)
    assert [number for frame in frames for number in frame] == [0, 1, 2, 3, 4]
    assert anyio_backend_name == "trio" or len(frames) == 1  # trio lets anybody run first


async def test_an_array_is_not_too_long_for_the_relay() -> None:
    limits = Limits(message_bytes_max=2048, presence_bytes_max=2048)
    frames = await broadcasts(100, limits)
    assert [number for frame in frames for number in frame] == list(range(100))


async def test_what_has_no_end_does_not_wait_for_it() -> None:
    frames = await broadcasts(100)
    assert [number for frame in frames for number in frame] == list(range(100))
    assert max(map(len, frames)) <= lines.GATHER_PASSES_MAX + 2


async def test_what_was_sent_has_gone_out() -> None:
    made: list[_Frames] = []

    async with Runtime() as runtime:

        async def connect() -> Any:
            made.append(_Frames(await runtime.connect("m")))
            return made[-1]

        async with join(connect, "ann") as ann:
            for number in range(50):
                await ann.broadcast(number)
            await ann.sent()
            assert [number for frame in made[0].sent for number in frame] == list(range(50))
        with pytest.raises(Left):
            await ann.broadcast("more")
        await ann.sent()  # nothing waits
