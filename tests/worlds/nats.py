"""A real nats-server in a process of its own, or several as a cluster."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import pytest

from tests.worlds.live import PATIENCE_S
from tests.worlds.ports import free_port

HERE: Final = "127.0.0.1"


class NatsServer:
    """One server with JetStream. `routes`: the cluster ports of all servers of a cluster, and
    `number`: which of them is its own. `extra`: more of its configuration.

    Skips the test if this machine has no nats-server, except in CI.
    """

    def __init__(
        self,
        directory: Path,
        *,
        routes: Sequence[int] = (),
        number: int = 0,
        extra: str = "",
    ) -> None:
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        program = shutil.which("nats-server", path=search)
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("CI has nats-server")
            pytest.skip("needs nats-server")
        self.port = free_port()
        self._directory = directory / f"nats-{number}"
        self._directory.mkdir(exist_ok=True)
        cluster = ""
        if routes:
            others = ", ".join(f'"nats://{HERE}:{port}"' for port in routes)
            cluster = (
                f'cluster {{ name: c, listen: "{HERE}:{routes[number]}", routes: [{others}] }}'
            )
        (self._directory / "nats.conf").write_text(
            f'listen: "{HERE}:{self.port}"\n'
            f'server_name: "n{number}"\n'
            f'jetstream {{ store_dir: "{self._directory}", max_mem: 512M, max_file: 64M }}\n'
            f"{cluster}\n{extra}\n"
        )
        self._command = [program, "-c", str(self._directory / "nats.conf")]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{HERE}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self._directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stderr=log, stdout=log)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection((HERE, self.port)).close()
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill it. What was in its memory is lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
