"""The command `agi-mesh` in this process, for what ends by itself."""

import io
import sys
from collections.abc import Awaitable, Callable

import anyio.to_thread
import pytest

from actors.cli.main import main
from tests.actors.cli.program import Ended, environment

Call = Callable[..., Awaitable[Ended]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command to its end: `await call("who", "--url", url, stdin="", AGI_MESH_...="")`."""

    async def call(*arguments: str, stdin: str = "", **more: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr("os.environ", environment(**more))
            capsys.readouterr()
            code = await anyio.to_thread.run_sync(main, arguments)
            out, err = capsys.readouterr()
            return Ended(code, out, err)

    return call
