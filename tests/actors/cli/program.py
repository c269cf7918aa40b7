"""The command `agi-mesh` as a program of its own, beside a relay in this process."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from tests import ROOT

CODE: Final = (
    # A shell lets its background jobs ignore Ctrl-C, and what they start inherits that.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from agi_diy_relay.command import main; raise SystemExit(main())"
)


@attrs.frozen
class Ended:
    """A command that has ended. `lines`: of its results."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of whoever runs the tests."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AGI_MESH")}
    return {**ours, "XDG_CONFIG_HOME": "/nonexistent", "HOME": "/nonexistent", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", CODE, *arguments]


@contextmanager
def running(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The command, which goes on. It is killed at the end, if it has not ended."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    program = subprocess.Popen(
        command(*arguments), text=True, cwd=ROOT, env=environment(), bufsize=1, **pipes
    )
    with program:
        try:
            yield program
        finally:
            program.kill()


def line_with(stream: Any, words: str) -> str:
    """The next line in which these words are."""
    for line in stream:
        if words in line:
            return str(line)
    raise AssertionError(f"it ended without: {words}")


def put_in(folder: Path) -> str:
    """Make `folder` one with the program `agi-mesh`, as `pip` puts it beside Python. Returns a
    search path (PATH) that begins with it."""
    program = folder / "agi-mesh"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o700)
    return f"{folder}:{os.environ['PATH']}"
