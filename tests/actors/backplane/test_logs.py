"""Every log is the same log: in this process, and a stream of a real nats-server."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
import attrs
import pytest

from actors.backplane.log import Log, LogUnreachable, Opened
from actors.backplane.memory import MemoryLog
from actors.backplane.nats import NatsLog, NatsSettings
from protocol.about import MissingExtra
from protocol.mesh.federation.records import Entry
from tests.worlds.live import PATIENCE_S
from tests.worlds.nats import NatsServer
from tests.worlds.proxy import Proxy

pytestmark = pytest.mark.anyio

Logs = Callable[[], Log]
"""Another node's way to the same log."""


@pytest.fixture(params=["memory", "nats"])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Logs]:
    made: list[Log] = []

    def kept(log: Log) -> Log:
        made.append(log)
        return log

    if request.param == "memory":
        one = MemoryLog()
        yield lambda: one
    else:
        with NatsServer(tmp_path) as server:
            yield lambda: kept(NatsLog(NatsSettings(urls=(server.url,), name="test")))
            for log in made:
                await log.close()


async def read(log: Log, after: int, count: int) -> list[Entry]:
    """The next entries behind a position."""
    entries: list[Entry] = []
    with anyio.fail_after(PATIENCE_S):
        async with aclosing(log.read(after)) as coming:
            async for some in coming:
                entries += some
                if len(entries) >= count:
                    return entries
    raise AssertionError("the log has ended")


def data(entries: Sequence[Entry]) -> list[bytes]:
    return [entry.data for entry in entries]


async def test_a_log_that_is_opened_first_is_empty_and_the_same_for_all(logs: Logs) -> None:
    first, second = logs(), logs()
    opened = await first.open()
    assert opened.last == 0
    assert await second.open() == opened


async def test_all_read_what_any_appends_in_one_order_with_positions_and_times(
    logs: Logs,
) -> None:
    first, second = logs(), logs()
    await first.open()
    await second.open()
    said = [b"%d" % number for number in range(300)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.append, said[::2])
        tasks.start_soon(second.append, said[1::2])
    one, other = await read(first, 0, 300), await read(second, 0, 300)
    assert one == other
    assert [entry.position for entry in one] == list(range(1, 301))
    assert sorted(data(one)) == sorted(said)
    assert [d for d in data(one) if d in said[::2]] == said[::2]
    times = [entry.at for entry in one]
    assert times == sorted(times)
    assert times[0] > 1_700_000_000
    assert one[-1].behind == 0 < max(entry.behind for entry in one)


async def test_reading_begins_behind_a_position_and_waits_for_more(logs: Logs) -> None:
    log, other = logs(), logs()
    await log.open()
    await other.open()
    await log.append([b"a", b"b", b"c"])
    assert data(await read(log, 1, 2)) == [b"b", b"c"]
    found: list[Entry] = []

    async def wait() -> None:
        found.extend(await read(log, 3, 1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.05)
        assert not found
        await other.append([b"d"])
    assert data(found) == [b"d"]
    assert (await log.open()).last == 4


async def test_it_takes_the_longest_record(logs: Logs) -> None:
    log = logs()
    await log.open()
    longest = bytes(2**18 + 1000)
    await log.append([longest])
    assert data(await read(log, 0, 1)) == [longest]


async def test_a_log_in_memory_drops_its_oldest_entries() -> None:
    log = MemoryLog(bytes_max=100)
    await log.append([bytes(40), bytes(40), bytes(40)])
    assert [entry.position for entry in await read(log, 0, 2)] == [2, 3]
    await log.append([bytes(200)])
    assert await log.open() == Opened("memory", 4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, log, 0, 1)
        await anyio.sleep(0.05)  # nothing is left of it; a later one comes
        await log.append([b"e"])


# NATS ---------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_unreachable_and_its_password_is_not_told() -> None:
    url = "nats://ann:secret-word@127.0.0.1:9"
    settings = NatsSettings(urls=(url,))
    assert "secret-word" not in repr(settings)
    log = NatsLog(settings)
    with pytest.raises(LogUnreachable) as error:
        await log.open()
    assert "secret-word" not in str(error.value)
    with pytest.raises(LogUnreachable, match="not connected"):
        await log.append([b"a"])
    with pytest.raises(LogUnreachable, match="not connected"):
        await read(log, 0, 1)


async def test_whoever_reads_notices_that_the_server_is_gone(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        log = NatsLog(NatsSettings(urls=(server.url,)))
        before = await log.open()
        await log.append([b"a"])

        async def end() -> None:
            await anyio.sleep(0.2)
            server.kill()

        with pytest.raises(LogUnreachable):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end)
                try:
                    await read(log, 0, 2)
                except LogUnreachable:
                    tasks.cancel_scope.cancel()
                    unreachable = True
            assert unreachable
            await log.append([b"b"])
        server.start()
        after = await log.open()
        assert after.epoch != before.epoch  # its memory is gone
        assert after.last == 0
        await log.close()


async def test_whoever_reads_notices_that_the_way_to_the_server_is_gone(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        async with Proxy(server.port) as proxy:
            log = NatsLog(NatsSettings(urls=(f"nats://127.0.0.1:{proxy.port}",)))
            await log.open()
            proxy.stall()
            with pytest.raises(LogUnreachable):
                await read(log, 0, 1)
            proxy.flow()
            await log.open()
            await log.close()


@pytest.mark.parametrize("server_asks", ["password", "nkey"])
async def test_logins(tmp_path: Path, server_asks: str) -> None:
    login = tmp_path / "login"
    if server_asks == "password":
        user = '{ user: "ann", password: "right" %s }'
    else:
        import nkeys  # noqa: PLC0415

        seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
        login.write_bytes(seed)
        public = nkeys.from_seed(bytearray(seed)).public_key.decode()
        user = '{ nkey: "' + public + '" %s }'
    # What docs/federation.md gives a tenant.
    allowed = (
        ', permissions: { publish: ["team.log", "$JS.API.STREAM.INFO.team", '
        '"$JS.API.STREAM.CREATE.team", "$JS.API.CONSUMER.CREATE.team", '
        '"$JS.API.CONSUMER.CREATE.team.>", "$JS.API.CONSUMER.MSG.NEXT.team.>"], '
        'subscribe: ["_INBOX.>"] }'
    )
    extra = f"authorization {{ users: [ {user % allowed} ] }}"
    with NatsServer(tmp_path, extra=extra) as server:
        wrong = NatsSettings(urls=(server.url,), name="team")
        with pytest.raises(LogUnreachable):
            await NatsLog(wrong).open()
        if server_asks == "password":
            url = server.url.replace("//", "//ann:right@")
            right = attrs.evolve(wrong, urls=(url,))
        else:
            right = attrs.evolve(wrong, nkey=str(login))
        log = NatsLog(right)
        await log.open()
        await log.append([b"a"])
        assert data(await read(log, 0, 1)) == [b"a"]
        await log.close()
        other = NatsLog(attrs.evolve(right, name="others"))
        with pytest.raises(LogUnreachable):
            await other.open()


async def test_tls(tmp_path: Path) -> None:
    import trustme  # noqa: PLC0415

    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    extra = f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}'
    with NatsServer(tmp_path, extra=extra) as server:
        url = server.url.replace("nats://", "tls://")
        log = NatsLog(NatsSettings(urls=(url,), ca=str(tmp_path / "ca.pem")))
        await log.open()
        await log.append([b"a"])
        assert data(await read(log, 0, 1)) == [b"a"]
        await log.close()
        with pytest.raises(LogUnreachable):
            await NatsLog(NatsSettings(urls=(url,))).open()


@pytest.mark.parametrize(
    "wrong",
    [
        {"urls": ()},
        {"urls": ("http://localhost:4222",)},
        {"urls": ("nats://",)},
        {"urls": ("nats://localhost",), "name": "a.b"},
        {"urls": ("nats://localhost",), "replicas": 0},
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="backplane"):
        NatsSettings(**wrong)  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins  # noqa: PLC0415

    real = builtins.__import__

    def without(name: str, *more: object, **named: object) -> object:
        if name == "nats":
            raise ModuleNotFoundError(name="nats")
        return real(name, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"agi-diy-relay\[backplane\]"):
        NatsLog(NatsSettings(urls=("nats://localhost:4222",)))
