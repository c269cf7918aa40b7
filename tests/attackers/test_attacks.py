"""Every attack against the relay as it is run: the honest peers notice nothing."""

from collections.abc import Iterator

import pytest

from tests.attackers.attacks import ATTACKS, Attack
from tests.attackers.world import EXCHANGES, HELD_BYTES_MAX, LOG_BYTES_MAX, Starved, World

ATTEMPTS = 5
"""So often an attack begins anew where the machine has no core for the honest peers."""


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[World]]:
    """The world for the next attack, if no attack has hurt it."""
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        with world:
            world.relay.end()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda attack: attack.name)
def test_honest_peers_notice_nothing_of(attack: Attack, worlds: list[World]) -> None:
    for attempt in range(ATTEMPTS):
        try:
            judge(attack, worlds)
            return
        except Starved:
            if attempt + 1 == ATTEMPTS:
                raise


def judge(attack: Attack, worlds: list[World]) -> None:
    world = worlds.pop() if worlds else World()
    try:
        outcome = world.attack(attack, attack.connections, exchanges=EXCHANGES)
        assert attack.hurt(outcome.faults) == []
        assert outcome.peak_bytes - world.rest_bytes < HELD_BYTES_MAX
        assert outcome.log_bytes < LOG_BYTES_MAX
        assert outcome.foreign_answers == 0
        if not attack.is_too_much:
            world.settle()
    except BaseException:
        world.close()
        raise
    if attack.is_too_much:
        world.close()
    else:
        worlds.append(world)
