"""The server: its sockets, its configuration, and an orderly end."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import FrameType
from typing import Final, Literal, cast

import uvicorn

from actors.host.app import RelayApp
from actors.host.settings import Settings, is_loopback
from actors.transports import borrowed

log = logging.getLogger("relay")

PING_INTERVAL_S: Final = 10.0  # under `stale_after_s`, so that a pong in time keeps a peer present

PORTS_TRIED: Final = 100
"""With port 0: how many free ports of the first address are tried on the others."""

NOT_HERE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}
"""Errors that say that this machine does not have such an address. IPv6 may be switched off."""


class CannotListen(Exception):
    """The relay cannot listen on an address. The text is the address and the reason."""


# Sockets ------------------------------------------------------------------------------------------


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listening sockets on all of these addresses, at one port. Raises CannotListen.

    An address that this machine does not have is left out, unless there is no other. Port 0 takes
    a port that is free on all of them.
    """
    for _ in range(PORTS_TRIED):
        with ExitStack() as opened:
            listeners: list[socket.socket] = []
            for number, host in enumerate(hosts, start=1):
                # The first one chooses where port 0 is.
                at = listeners[0].getsockname()[1] if listeners else port
                try:
                    listeners.append(opened.enter_context(_listener(host, at)))
                except OSError as error:
                    has_another = bool(listeners) or number < len(hosts)
                    if error.errno in NOT_HERE and has_another:
                        continue
                    if error.errno == errno.EADDRINUSE and at != port:
                        break
                    raise CannotListen(f"{_shown(host, at)}: {_reason(error)}") from error
            else:
                opened.pop_all()
                return listeners
    raise CannotListen(f"{', '.join(hosts)}: found no port that is free on all of them")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str | None:
    # (A look-up that failed has numbers of its own, all negative.)
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror


# Serving ------------------------------------------------------------------------------------------


def serve(app: RelayApp, settings: Settings, listeners: list[socket.socket]) -> None:
    """Serve the app on these sockets until SIGTERM or SIGINT, then end it in order.

    A second signal ends the process at once, with 128 and the signal's number as exit code.
    """
    server = Server(server_config(app, settings), app)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)  # uvicorn does so, too, but later
    # What is here by now stays: the objects of all modules, which every full garbage collection
    # would look at. That takes 50 ms, and a peer that joins and leaves all the time causes many.
    gc.collect()
    gc.freeze()
    server.run(sockets=listeners)


class Server(uvicorn.Server):
    """uvicorn, with an orderly end: the runtime closes its connections before uvicorn cuts them."""

    def __init__(self, config: uvicorn.Config, app: RelayApp) -> None:
        super().__init__(config)
        self._app = app
        self._was_signalled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and log where."""
        await super().startup(sockets)
        places = [one.getsockname()[:2] for server in self.servers for one in server.sockets]
        shown = " and ".join(f"ws://{_shown(*place)}/ws" for place in places)
        host, port = places[0]
        log.info(f"listening on {shown}", extra={"host": host, "port": port})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for an orderly end, the second one ends the process at once."""
        if self._was_signalled:
            os._exit(128 + sig)  # whatever hangs, nothing of it is waited for
        self._was_signalled = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nobody in any more, let the runtime drain, and end."""
        for server in self.servers:
            server.close()
        await self._app.runtime.drain()
        await super().shutdown(sockets)


def server_config(app: RelayApp, settings: Settings) -> uvicorn.Config:
    """How the app is served: by the fast transport, without compression, silent on requests."""
    http, ws = protocols(app, settings)
    return uvicorn.Config(
        app,
        http=http,
        ws=ws,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_S,
        # A pong is a sign of life. Silence is judged by the lifecycle alone, which reads first.
        ws_ping_timeout=None,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=max(1, round(settings.limits.close_within_s)),
    )


def protocols(
    app: RelayApp, settings: Settings
) -> tuple[type[asyncio.Protocol] | Literal["auto"], type[asyncio.Protocol] | Literal["auto"]]:
    """Our HTTP protocol and the fast transport's, if uvicorn is as it was tested. If not: uvicorn's
    own, and one warning. The relay works with either."""
    changes = borrowed.changes()
    if not changes:
        try:
            from actors.host.http import HttpProtocol  # noqa: PLC0415 (they may not import)
            from actors.transports.uvicorn import MeshProtocol  # noqa: PLC0415
        except Exception as error:
            changes = [f"{type(error).__name__}: {error}"]
        else:
            http = partial(HttpProtocol, settings.limits, own_hosts(settings), app.refusals)
            return cast("type[asyncio.Protocol]", http), MeshProtocol
    log.warning(
        f"{borrowed.installed()} is not what the fast transport was tested with (uvicorn "
        f"{borrowed.supported()}); the plain ASGI transport takes its place, and HTTP requests "
        "have uvicorn's own bounds",
        extra={"changes": changes},
    )
    return "auto", "auto"


def own_hosts(settings: Settings) -> frozenset[str] | None:
    """The names by which this relay may be asked, beside `localhost` and loopback addresses.
    None: any name, because it listens to other machines as well.

    >>> own_hosts(Settings(hosts=("127.0.0.1", "::1"), allowed_hosts=("Relay.example",)))
    frozenset({'relay.example'})
    >>> own_hosts(Settings(hosts=("0.0.0.0",))) is None
    True
    """
    allowed = frozenset(name.lower() for name in settings.allowed_hosts)
    is_local = all(is_loopback(host) for host in settings.hosts)
    return allowed if is_local and "*" not in allowed else None
