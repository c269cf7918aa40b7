"""The server: its sockets, and what it serves with where uvicorn is not as it was tested."""

import errno
import itertools
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from actors.host import server
from actors.host.server import CannotListen, bind
from actors.transports import borrowed
from actors.transports import uvicorn as fast
from actors.transports.asgi import AsgiTransport
from actors.transports.uvicorn import UvicornTransport
from tests import ROOT
from tests.worlds.live import PATIENCE_S, LiveRelay

BOTH = ("127.0.0.1", "::1")


# Sockets ------------------------------------------------------------------------------------------


class Listener:
    """Stands for a listening socket."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.is_open = True

    def getsockname(self) -> tuple[str, int]:
        return self.host, self.port

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False


class Network:
    """Stands for the machine: `refuses` says whether, and with what number, a socket is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses: Callable[[str, int], int | None] = lambda host, port: None
        self.opened: list[Listener] = []
        self._free = itertools.count(40_000)
        monkeypatch.setattr(server, "_listener", self._listen)

    def _listen(self, host: str, port: int) -> Listener:
        number = self.refuses(host, port)
        if number is not None:
            raise OSError(number, "as told")
        self.opened.append(Listener(host, port or next(self._free)))
        return self.opened[-1]

    @property
    def places(self) -> list[tuple[str, int]]:
        """Where it is listened."""
        return [one.getsockname() for one in self.opened if one.is_open]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.mark.parametrize("port", [0, 8080])
def test_both_loopback_addresses_get_the_same_port(network: Network, port: int) -> None:
    listeners: list[Any] = list(bind(BOTH, port))
    assert listeners == network.opened
    assert network.places == [("127.0.0.1", port or 40_000), ("::1", port or 40_000)]


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
@pytest.mark.parametrize(("absent", "present"), [BOTH, BOTH[::-1]])
def test_an_address_that_the_machine_does_not_have_is_left_out_silently(
    network: Network, caplog: pytest.LogCaptureFixture, number: int, absent: str, present: str
) -> None:
    network.refuses = lambda host, port: number if host == absent else None
    bind(BOTH, 8080)
    assert network.places == [(present, 8080)]
    assert caplog.records == []


def test_without_any_of_the_addresses_it_cannot_listen(network: Network) -> None:
    network.refuses = lambda host, port: errno.EADDRNOTAVAIL
    with pytest.raises(CannotListen, match=r"^\[::1\]:8080: Cannot assign requested address$"):
        bind(BOTH, 8080)
    with pytest.raises(CannotListen, match=r"^127\.0\.0\.1:8080: "):
        bind(("127.0.0.1",), 8080)


def test_a_free_port_that_is_taken_on_the_other_address_is_not_used(network: Network) -> None:
    taken = (40_000, 40_001, 40_002)
    network.refuses = lambda host, port: errno.EADDRINUSE if port in taken else None
    bind(BOTH, 0)
    assert network.places == [("127.0.0.1", 40_003), ("::1", 40_003)]
    assert len(network.opened) == 5


def test_if_no_free_port_is_free_on_both_it_gives_up(network: Network) -> None:
    network.refuses = lambda host, port: errno.EADDRINUSE if host == "::1" else None
    with pytest.raises(CannotListen, match="found no port that is free on all of them"):
        bind(BOTH, 0)
    assert network.places == []


def test_a_given_port_that_is_taken_on_one_address_is_an_error(network: Network) -> None:
    network.refuses = lambda host, port: errno.EADDRINUSE if host == "::1" else None
    with pytest.raises(CannotListen, match=r"^\[::1\]:8080: Address already in use$"):
        bind(BOTH, 8080)
    assert network.places == []


# The fast transport, or not -----------------------------------------------------------------------


def with_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "__version__", "0.55.0")


def without_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WebSocketsSansIOProtocol, "handle_parser_exception")


def with_another_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = WebSocketsSansIOProtocol.handle_pong

    def handle_pong(self: Any, event: Any, more: object = None) -> None:
        theirs(self, event)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "handle_pong", handle_pong)


def without_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = WebSocketsSansIOProtocol.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        theirs(self, *arguments, **options)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "__init__", init)


async def talk(live: LiveRelay) -> type:
    async with live:
        ann, bob = await live.connect(), await live.connect()
        await ann.announce("ann")
        await bob.announce("bob")
        sent = await ann.send("broadcast", sender="ann", data="hello")
        assert sent in await bob.everything()
        (supervisor,) = live.runtime._meshes.values()
        return type(supervisor._actors[1]._transport)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "change",
    [with_another_version, without_a_method, with_another_parameter, without_an_attribute],
)
async def test_where_uvicorn_has_changed_the_plain_transport_takes_over_with_one_warning(
    change: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    change(monkeypatch)
    with LiveRelay() as live:
        assert await talk(live) is AsgiTransport
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert borrowed.installed() in warning.getMessage()
    assert borrowed.supported() in warning.getMessage()


@pytest.mark.anyio
async def test_with_uvicorn_as_it_was_tested_the_fast_transport_is_used_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LiveRelay() as live:
        assert await talk(live) is UvicornTransport
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_where_the_borrowed_module_does_not_even_import_the_relay_still_works() -> None:
    code = (
        "import logging, sys, anyio\n"
        "import uvicorn.protocols.websockets.auto\n"  # has what it needs, from wherever
        f"sys.modules[{borrowed.MODULE!r}] = None\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "from tests.worlds.live import LiveRelay\n"
        "async def main():\n"
        "    async with live:\n"
        "        ann, bob = await live.connect(), await live.connect()\n"
        "        await ann.announce('ann')\n"
        "        await bob.announce('bob')\n"
        "        sent = await ann.send('broadcast', sender='ann', data='hello')\n"
        "        assert sent in await bob.everything()\n"
        "with LiveRelay() as live:\n"
        "    anyio.run(main)\n"
        f"assert {fast.__name__!r} not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1, done.stderr
