"""Fixtures: a mesh over every transport, with one way to talk to it."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from hypothesis import settings

from protocol.limits import Limits
from tests.worlds.live import PATIENCE_S, LiveRelay, MemoryRelay, Relay, StillClock

# No example may fail because the machine is busy. (All else is as it was, also in CI.)
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Let `no_cover` work in a worker of pytest-xdist.

    pytest-cov begins to measure there twice, and `no_cover` ends only the second time, so the first
    one would go on (pytest-cov 7.1). Here it is over before the second begins.
    """
    plugin = session.config.pluginmanager.getplugin("_cov")
    if hasattr(session.config, "workerinput") and plugin and plugin.cov_controller:
        plugin.cov_controller.cov.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the long tests, and let the second backend run without coverage.

    One behind the other, several long ones would be left to one worker of pytest-xdist while
    the others have nothing to do. The second backend runs the same lines as the first.
    """
    long = [item for item in items if item.get_closest_marker("no_cover")]
    rest = [item for item in items if not item.get_closest_marker("no_cover")]
    items.clear()
    placed, path = 0, None
    for number, item in enumerate(rest):
        if item.path != path:  # not within a module, or its fixtures would be made twice
            path = item.path
            due = len(long) * (number + 1) // len(rest)
            items += long[placed:due]
            placed = due
        items.append(item)
        if "trio" in item.name:
            item.add_marker("no_cover")
    items += long[placed:]


collect_ignore = ["edge"]  # nothing to collect, and a part of it needs moto


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "uvicorn, fast", "uvicorn, plain ASGI"])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[Relay]:
    """A relay to connect to, whose clock stands still unless the test moves it.

    Mark a test with `limits(...)` to change its limits.
    """
    marker = request.node.get_closest_marker("limits")
    limits = Limits(**(marker.kwargs if marker else {}))
    clock = StillClock()
    with anyio.fail_after(2 * PATIENCE_S):
        if request.param == "memory":
            async with MemoryRelay(limits, clock) as memory:
                yield memory
        else:
            fast = request.param == "uvicorn, fast"
            with LiveRelay(limits=limits, clock=clock, fast=fast) as live:
                async with live:
                    yield live


@pytest.fixture
def live() -> Iterator[LiveRelay]:
    """A relay on a real socket, as `python relay.py` runs it, in a thread of this process."""
    with LiveRelay() as relay:
        yield relay


@pytest.fixture
async def visited(live: LiveRelay) -> AsyncIterator[LiveRelay]:
    """The same, for async tests: closes the peers that connected."""
    async with live:
        yield live
