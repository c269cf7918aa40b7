"""nginx and HAProxy with TLS in front of a relay, as docs/proxies/ configures them."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
import trustme

from tests import ROOT
from tests.worlds.live import PATIENCE_S
from tests.worlds.ports import free_port

NAME: Final = "relay.example"
"""The name that the outside has for the relay."""

KINDS: Final = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
SEVERAL: Final = {"nginx": "nginx-several.conf", "haproxy": "haproxy-several.cfg"}
"""The same in front of two relays, with each mesh in one of them."""
FEDERATION: Final = {"nginx": "nginx-federation.conf", "haproxy": "haproxy-federation.cfg"}
"""The same in front of two relays of one federation."""

_MAIN: Final = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxied;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/{file};
}}
"""
"""What a distribution has in /etc/nginx/nginx.conf: no more than that it runs as this user."""


class ReverseProxy:
    """One of `KINDS`, at a free port, in front of the relay at `relay_port` on this machine, or
    one of `several` in front of two.

    `timeouts`: what stands for the `60s` of the configuration. Skips the test if this machine has
    no such proxy, except in CI. `context` is for clients: it trusts the proxy's certificate, which
    is for `NAME` and for `localhost`.
    """

    def __init__(
        self,
        kind: str,
        relay_port: int | tuple[int, int],
        directory: Path,
        timeouts: str | None = None,
        several: Mapping[str, str] = SEVERAL,
    ) -> None:
        program = shutil.which(kind, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail(f"CI has {kind}")
            pytest.skip(f"needs {kind}")
        ca = trustme.CA()
        certificate = ca.issue_cert(NAME, "localhost")
        # nginx takes the certificate from this file, HAProxy both.
        certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(directory / "cert.key"))
        self.context = ssl.create_default_context()
        ca.configure_trust(self.context)
        self.port = free_port()
        if isinstance(relay_port, int):
            file, first, second = KINDS[kind], relay_port, 0
        else:
            file, (first, second) = several[kind], relay_port
        written = (ROOT / "docs" / "proxies" / file).read_text()
        replaced = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "bind :443 ssl": f"bind 127.0.0.1:{self.port} ssl",
            "127.0.0.1:8080": f"127.0.0.1:{first}",
            "127.0.0.1:8081": f"127.0.0.1:{second}",
            "/etc/ssl/relay.example": f"{directory}/cert",
        }
        for old, new in (replaced | ({"60s": timeouts} if timeouts else {})).items():
            written = written.replace(old, new)
        configuration = directory / file
        configuration.write_text(written)
        if kind == "nginx":
            main = directory / "main.conf"
            main.write_text(_MAIN.format(directory=directory, file=file))
            self._command = [program, "-p", str(directory), "-c", str(main)]
        else:
            self._command = [program, "-db", "-f", str(configuration)]

    def url(self, name: str = "localhost") -> str:
        """Where to connect, by this name."""
        return f"wss://{name}:{self.port}/ws"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > until:
                    said = self._end()
                    raise AssertionError(f"{self._command[0]} does not listen: {said}") from None
                time.sleep(0.01)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> str:
        self._process.terminate()
        return self._process.communicate(timeout=PATIENCE_S)[1]
