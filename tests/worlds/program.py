"""The relay as a program, in a process of its own."""

import json
import os
import signal
import subprocess
from typing import Any

from tests import RELAY_COMMAND, ROOT
from tests.worlds.live import PATIENCE_S


class Program:
    """`python relay.py` in a process of its own."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        command = [*RELAY_COMMAND, "--host", "127.0.0.1", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.port = int(self.line("listening")["port"])

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def line(self, event: str) -> dict[str, Any]:
        """The next log line whose event begins like this."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"].startswith(event):
                return self.lines[-1]
        raise AssertionError(f"no line {event!r}, but {self.lines}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Stop it; what it still said on stderr."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        return rest

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
