"""The documented example of embedding, run as it stands."""

import anyio
import pytest

from examples import embed


@pytest.mark.anyio
async def test_the_embedding_example_runs() -> None:
    with anyio.fail_after(20):
        log = await embed.main()
    assert log == [
        "worker got {'do': 'it'} from planner-process",
        "page sees ['page', 'planner-process', 'worker-process']",
        "planner got {'chunk': 'hello'}",
        "worker saw page leave",
    ]
