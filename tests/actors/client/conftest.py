"""Where peers meet in these tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from actors.client.websocket import Connector, websocket
from actors.relay.runtime import Runtime
from actors.transports.memory import MemoryLink
from protocol.limits import Limits
from tests.worlds.live import LiveRelay


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "websocket"])
async def where(request: pytest.FixtureRequest) -> AsyncIterator[Connector]:
    """A mesh, over either kind of connection. Mark a test with `limits(...)` for other limits."""
    marker = request.node.get_closest_marker("limits")
    limits = Limits(**(marker.kwargs if marker else {}))
    if request.param == "memory":
        async with Runtime(limits) as runtime:
            yield partial(runtime.connect, "mesh")
    else:
        with LiveRelay(limits) as live:
            yield websocket(live.url)


@pytest.fixture
async def here() -> AsyncIterator[Callable[[], Awaitable[MemoryLink]]]:
    async with Runtime() as runtime:
        yield partial(runtime.connect, "mesh")
