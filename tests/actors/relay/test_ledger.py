"""What the process holds: counted exactly, bounded, and the heaviest goes first."""

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.clock import VirtualClock
from actors.frames import Batch, SharedBatch
from actors.relay.ledger import CONNECTION_BYTES, LEAST_BYTES, Ledger
from actors.relay.mailboxes import Outbox
from actors.relay.memory import memory_bytes
from actors.relay.peer import LITTLE_BYTES, LITTLE_MESSAGES, PeerActor
from actors.relay.runtime import Full, Runtime
from actors.relay.supervisor import Supervisor
from actors.relay.tape import Tape
from actors.relay.tapes import Framed
from protocol.envelope import TEXT_BYTES, ErrorCode
from protocol.limits import Limits
from tests.actors.relay.test_peer import HandTransport, say, types
from tests.actors.relay.test_peer import World as AnyWorld


class World(AnyWorld):
    """Nothing is remembered here for those who come later: it would count, too."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**{"recall_messages_max": 0, **limits})


MB = 2**20


class Ended(HandTransport):
    """A transport that says at once that it is over when it is cut."""

    port: PeerActor

    def abort(self) -> None:
        super().abort()
        self.port.closed(1006)


def stuck(world: World, id: str) -> tuple[PeerActor, Ended]:
    """A peer whose transport takes one more batch and then nothing."""
    transport = Ended()
    actor = transport.port = world.supervisor.open(transport)
    say(actor, "presence", sender=id)
    world.settle()
    transport.takes_more = False
    return actor, transport


def ledger_of(world: World) -> Ledger:
    return world.supervisor._ledger


def from_scratch(world: World, actors: list[PeerActor]) -> int:
    """What the ledger should say, by looking at everything that is held."""
    tapes: dict[int, SharedBatch] = {}
    texts: dict[int, bytes] = {}
    total = sum(len(peer.presence) for peer in world.supervisor.mesh.mesh.roster.peers.values())
    for waiting in world.supervisor.mesh.unfinished.values():
        for text in (*waiting.elements, *waiting.messages):
            total += len(text) + TEXT_BYTES
    for actor in actors:
        outbox = actor._outbox
        for batch in (*(outbox._batches or ()), *([outbox._begun] if outbox._begun else ())):
            tapes |= {id(tape): tape for tape in batch.shared}
            texts |= {id(text): text for text in batch.own_texts}
        inbound = sum(len(text) + TEXT_BYTES for text in actor._inbound)
        if actor.inbound_bytes > LITTLE_BYTES or len(actor._inbound) > LITTLE_MESSAGES:
            assert actor._counted == inbound
        else:
            assert 0 <= actor._counted <= inbound <= LITTLE_BYTES + LITTLE_MESSAGES * TEXT_BYTES
        total += actor._counted
        if actor.close_code is None:
            total += CONNECTION_BYTES + actor._partial_bytes
    total += sum(len(text) + TEXT_BYTES for text in texts.values())
    for tape in tapes.values():
        total += len(tape.frames)
        if not isinstance(tape, Framed):  # the roster has these texts
            total += sum(frame_bytes(text) + TEXT_BYTES for text in tape.texts)
    return total


def frame_bytes(text: bytes) -> int:
    return Batch([text]).size


who = st.integers(0, 4)
sizes = st.sampled_from([0, 10, 1000, 30_000])
stories = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from("abc")),
        st.tuples(st.just("stream"), who, sizes),
        st.tuples(st.just("direct"), who, st.sampled_from("abc"), sizes),
        st.tuples(st.just("wrong"), who, sizes),
        st.tuples(st.just("presence"), who, sizes),
        st.tuples(st.just("array"), who, sizes),
        st.tuples(st.just("block"), who),
        st.tuples(st.just("writable"), who),
        st.tuples(st.just("partial"), who, sizes),
        st.tuples(st.just("closed"), who),
        st.tuples(st.just("abort"), who),
        st.tuples(st.just("evict"), who),
        st.tuples(st.just("broken"), who),
        st.tuples(st.just("late"), st.just(0)),
        *[st.tuples(st.just("round"), st.just(0))] * 4,
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(story=stories, bound=st.sampled_from([0, 250_000]))
def test_whatever_happens_the_ledger_says_what_is_held_and_in_the_end_nothing(
    story: list[tuple[Any, ...]], bound: int
) -> None:
    world = World(
        held_bytes_max=bound,
        mailbox_bytes_max=100_000,
        message_bytes_max=50_000,
        presence_bytes_max=40_000,
        inbox_messages_max=5,
        quantum_messages=2,
        quantum_bytes=2000,
    )
    ledger = ledger_of(world)
    actors: list[PeerActor] = []
    transports: list[Ended] = []

    def do(what: str, *details: Any) -> None:
        if what == "open":
            transport = Ended()
            transport.port = world.supervisor.open(transport)
            actors.append(transport.port)
            transports.append(transport)
            say(actors[-1], "presence", sender=details[0])
            return
        if what in ("round", "late"):
            world.clock.at += 20 * (what == "late")
            world.supervisor.round()
            return
        number = details[0] % len(actors)
        actor, transport = actors[number], transports[number]
        if actor.close_code is not None:
            return
        match what:
            case "array":
                streams = [{"type": "stream", "data": "x" * (details[1] // 5)} for _ in range(5)]
                actor.received([json.dumps(streams).encode()])
            case "stream":
                say(actor, "stream", data="x" * details[1])
            case "direct":
                say(actor, "direct", 2, to=details[1], data="x" * details[2])
            case "wrong":
                say(actor, "direct", to="nobody", turnId="x" * details[1])
            case "presence":
                peer = world.supervisor.mesh.peer_of(actor.id)
                say(actor, "presence", sender=peer or "d", data={"x": "x" * details[1]})
            case "block":
                transport.takes_more = False
            case "writable":
                transport.takes_more = True
                actor.writable()
            case "partial":
                actor.partial(details[1])
            case "closed":
                actor.closed(1000)
            case "abort":
                actor.abort()
            case "evict":
                actor.evict("a test")
            case "broken":
                transport.fails = True

    for name in "abc":
        do("open", name)
    world.settle()
    for what, *details in story:
        do(what, *details)
        assert ledger.held == from_scratch(world, actors)
        assert ledger.held <= ledger.bytes_max
    for actor in actors:
        if actor.close_code is None:
            actor.closed(1006)
    world.settle()
    assert ledger.held == ledger.standing == 0
    assert not ledger._texts
    assert not ledger._holders


def test_what_many_hold_counts_once() -> None:
    world = World()
    sender, _ = world.join("sender")
    for number in range(200):
        stuck(world, f"stuck{number}")
    say(sender, "stream", data="x" * 100_000)
    world.settle()
    before = ledger_of(world).held
    say(sender, "stream", data="x" * 100_000)
    world.settle()
    assert ledger_of(world).held - before < 3 * 100_000


def test_a_text_for_all_connections_of_a_peer_counts_once() -> None:
    world = World()
    sender, _ = world.join("sender")
    for _ in range(20):
        stuck(world, "target")
    say(sender, "direct", to="target", data="x")
    world.settle()
    before = ledger_of(world).held
    say(sender, "direct", to="target", data="x" * 100_000)
    world.settle()
    assert 100_000 < ledger_of(world).held - before < 110_000


def test_a_small_part_of_a_tape_does_not_keep_the_tape() -> None:
    tape = Tape()
    tape.admit(1)
    tape.admit(2)
    tape.finish()
    for _ in range(100):
        tape.others((1,), (b"x" * 10_000,))
    tape.everyone((b"{}",))
    shared, own = tape.finish()
    small = own[1]
    assert shared is not None
    assert small is not None
    ledger = Ledger(2**30)
    outbox = Outbox(Limits(), ledger)
    outbox.put(small)
    assert ledger.held == len(b"{}") + TEXT_BYTES
    taken = outbox.take()
    assert taken is not None
    assert list(taken.texts) == list(small.texts) == [b"{}"]


def test_the_presences_of_thousands_for_newcomers_that_do_not_read_are_held_by_reference() -> None:
    world = World()
    for number in range(200):
        say(
            world.supervisor.open(HandTransport()),
            "presence",
            sender=f"p{number}",
            data={"about": "x" * 60_000},
        )
    world.settle()
    roster = ledger_of(world).held
    assert roster > 200 * 60_000
    for number in range(50):
        stuck(world, f"new{number}")[0].writable()
    transports = [Ended() for _ in range(50)]
    for number, transport in enumerate(transports):
        transport.takes_more = False
        say(world.supervisor.open(transport), "presence", sender=f"newer{number}")
    world.settle()
    assert len(transports[0].sent) > 200
    assert ledger_of(world).held < 2.5 * roster


def test_beyond_the_bound_the_heaviest_go_first_until_seven_eighths_are_enough() -> None:
    world = World(held_bytes_max=10 * MB, mailbox_bytes_max=4 * MB, bytes_in_burst=2**40)
    sender, sender_transport = world.join("sender")
    peers = {n: stuck(world, f"stuck{n}") for n in range(8)}
    for number in peers:  # the higher, the more
        for _ in range(number + 1):
            if sender_transport.closed_with is None:
                say(sender, "direct", to=f"stuck{number}", data="x" * 300_000)
                world.settle()
    assert sum(range(1, 9)) * 300_000 > 10 * MB
    assert sender_transport.closed_with is None
    ends = [transport.closed_with for _, transport in peers.values()]
    assert ends == [None] * 6 + [1013] * 0 + ends[6:]
    assert 1013 in ends
    ledger = ledger_of(world)
    assert ledger.held <= ledger.bytes_max
    gone = [json.loads(text) for text in sender_transport.sent if b"offline" in text]
    assert {message["data"]["reason"] for message in gone} == {"evicted"}
    assert len(gone) == ends.count(1013)


@pytest.mark.parametrize("direction", ["out", "in"])
def test_who_is_heavy_in_the_other_direction_is_not_to_blame(direction: str) -> None:
    world = World(held_bytes_max=10 * MB, bytes_in_burst=2**40)
    sender, _ = world.join("sender")
    uploads, uploads_transport = world.join("uploads")
    slow, slow_transport = stuck(world, "slow")
    uploads.partial(MB)
    for _ in range(4):
        say(sender, "direct", to="slow", data="x" * 250_000)
        world.settle()
    assert slow.outbound_bytes > 0.9 * MB
    for number in range(30):
        actor, _ = stuck(world, f"p{number}")
        if direction == "in":
            actor.partial(MB // 2)
        else:
            say(sender, "direct", to=f"p{number}", data="x" * 500_000)
            world.settle()
    assert uploads_transport.closed_with == (None if direction == "out" else 1013)
    assert slow_transport.closed_with == (None if direction == "in" else 1013)
    assert ledger_of(world).held <= 10 * MB


def test_thousands_of_half_messages_stay_within_the_bound(caplog: Any) -> None:
    world = World(held_bytes_max=100 * MB)
    _, quiet_transport = world.join("quiet")
    transports = []
    for number in range(2000):
        actor, transport = stuck(world, f"p{number}")
        transport.takes_more = True
        actor.partial(MB)
        transports.append(transport)
        assert ledger_of(world).held <= 100 * MB
    world.settle()
    assert quiet_transport.closed_with is None
    gone = sum(transport.closed_with == 1013 or transport.aborted for transport in transports)
    assert 1900 < gone < 2000
    reasons = {record.reason for record in caplog.records if record.msg == "evicted"}
    assert reasons == {"the relay holds too much, and you read too slowly or send too much at once"}


def test_sockets_that_keep_too_much_after_an_eviction_are_cut() -> None:
    world = World(held_bytes_max=10 * MB)
    actors = [stuck(world, f"p{number}") for number in range(12)]
    for actor, _ in actors:
        actor.partial(MB)  # stays in the transport, whatever is told to it
    assert ledger_of(world).held <= 10 * MB
    assert sum(transport.aborted for _, transport in actors) >= 1
    assert all(transport.closed_with == 1013 for _, transport in actors if transport.aborted)


def test_what_leaves_with_evicted_connections_is_not_evicted_for_once_more() -> None:
    world = World(held_bytes_max=10 * MB)
    actors = [stuck(world, f"p{number}") for number in range(10)]
    for actor, _ in actors:
        actor.partial(MB)
    closed = [transport.closed_with for _, transport in actors]
    assert closed.count(1013) == 2  # an eighth of the bound is one and a quarter
    assert sum(transport.aborted for _, transport in actors) == 1  # or it would not be enough now
    assert ledger_of(world).held <= 10 * MB


@pytest.mark.anyio
async def test_connections_and_presences_take_at_most_half() -> None:
    limits = Limits(held_bytes_max=2 * MB, mailbox_bytes_max=MB, message_bytes_max=MB)
    async with Runtime(limits) as runtime:
        opened = 0
        with pytest.raises(Full, match="held_bytes_max"):
            while True:
                await runtime.connect("m")
                opened += 1
        assert opened == MB // CONNECTION_BYTES
        assert runtime.ledger.has_room(0)
        assert not runtime.ledger.has_room(1)
        refusal = runtime.admit("m", 1)
        assert refusal is not None
        assert refusal.code is ErrorCode.NO_ROOM


@pytest.mark.anyio
async def test_a_mesh_that_is_over_holds_nothing() -> None:
    async with Runtime() as runtime:
        link = await runtime.connect("m")
        await link.send('{"type":"presence","from":"a"}')
        await link.receive()
        presence_bytes = runtime.ledger.standing - CONNECTION_BYTES
        assert presence_bytes > 20
        link.close()
        while runtime.connections:
            await anyio.lowlevel.checkpoint()
    assert runtime.ledger.held == runtime.ledger.standing == 0


@pytest.mark.anyio
async def test_a_mesh_that_crashed_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Runtime(clock=VirtualClock()) as runtime:
        link = await runtime.connect("m")
        await link.send('{"type":"presence","from":"a"}')
        await link.receive()
        assert runtime.ledger.standing > CONNECTION_BYTES

        def crash(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Supervisor, "round", crash)
        await link.send('{"type":"stream"}')
        await anyio.wait_all_tasks_blocked()
        assert runtime.connections == 0
        assert runtime.ledger.held == runtime.ledger.standing == 0


def test_by_default_the_bound_is_a_quarter_of_the_memory() -> None:
    assert Ledger.within(Limits()).bytes_max == max(LEAST_BYTES, memory_bytes() // 4)
    assert Ledger.within(Limits(held_bytes_max=5 * MB)).bytes_max == 5 * MB


def test_a_message_that_sockets_take_at_once_is_not_counted_while_it_is_sent() -> None:
    world = World()
    sender, _ = world.join("sender")
    _, listener = world.join("listener")
    ledger = ledger_of(world)
    before = ledger.held
    say(sender, "stream", data="x" * 5000)
    assert ledger.held > before  # in the inbox
    world.supervisor.round()
    assert types(listener) == ["stream"]
    assert ledger.held == before


def test_a_peer_that_takes_again_leaves_nothing_behind() -> None:
    world = World()
    sender, _ = world.join("sender")
    actor, transport = stuck(world, "stuck")
    before = ledger_of(world).held
    for _ in range(5):
        say(sender, "stream", data="x" * 1000)
        world.settle()
    assert ledger_of(world).held - before > 5 * 1000
    transport.takes_more = True
    actor.writable()
    assert types(transport)[-5:] == ["stream"] * 5
    assert ledger_of(world).held == before


@pytest.mark.anyio
async def test_a_presence_that_grows_needs_room_like_a_new_one() -> None:
    limits = Limits(
        held_bytes_max=300_000,
        mailbox_bytes_max=200_000,
        message_bytes_max=200_000,
        announcements_per_s=1000.0,
    )
    async with Runtime(limits) as runtime:
        link = await runtime.connect("m")

        async def say_and_hear(type: str, **data: object) -> Any:
            await link.send(json.dumps({"type": type, "from": "a", "data": data}))
            while (answer := json.loads(await link.receive()))["type"] == "broadcast":
                pass
            return answer

        assert (await say_and_hear("presence"))["type"] == "presence"
        for _ in range(2):
            await runtime.connect("m")
        runtime.ledger.keep("another mesh", 150_000 - 3 * CONNECTION_BYTES - 1000)
        grown = await say_and_hear("presence", about="x" * 2000)
        assert grown["data"]["code"] == "no_room"
        await link.send(json.dumps({"type": "heartbeat", "data": {"agents": ["b" * 200] * 9}}))
        assert json.loads(await link.receive())["data"]["code"] == "no_room"
        await link.send(json.dumps({"type": "heartbeat", "data": {"agents": []}}))
        again = await say_and_hear("presence")
        assert again["type"] == "presence"
