"""Peers in the mesh of a relay that is not this project's: small, with what others do without."""

import time

import attrs
import pytest

from actors.client.peer import join
from tests.protocol.verification.wrong_relays import Mistake, small_relay
from tests.worlds.peers import QUICK, until

pytestmark = pytest.mark.anyio

LIMITS = attrs.evolve(QUICK, probe_within_s=0.4)
"""Soon tired of waiting for what does not come."""


@pytest.fixture
def anyio_backend() -> str:
    """The small relay knows only this one."""
    return "asyncio"


@pytest.mark.parametrize(
    "mistake", [None, Mistake.NO_PRESENCE_BACK, Mistake.NO_ROSTER, Mistake.ECHOES]
)
async def test_peers_join_relays_that_know_no_capabilities_and_send_no_presence_back(
    mistake: Mistake | None,
) -> None:
    async with small_relay(mistake) as url:
        began = time.monotonic()
        async with join(url, id="ann", agents=["coder"], limits=LIMITS) as ann:
            async with join(url, id="bob", agents=["helper"], limits=LIMITS) as bob:
                # The time is a guard only: it was 40 s, and then an error.
                assert time.monotonic() - began < 30.0
                await until(lambda: "bob" in ann.roster)
                await ann.announce(["coder", "tester"])
                await until(lambda: "ann" in bob.roster and "tester" in bob.roster["ann"].agents)
                await bob.send("broadcast", {"n": 1})
                async for message in ann:
                    if message.type == "broadcast":
                        break
                assert message.data == {"n": 1}
