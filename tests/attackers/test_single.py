"""Attacks after which each attacker gets an answer of its own, or which need other limits."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.attackers.attacks import ATTACKS, VIOLATIONS, Target
from tests.attackers.wire import Raw, presence, said
from tests.attackers.world import RelayProcess

PAUSE_S = 2.5
"""Longer than `reap_after_s` of the relay that is paused."""


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with RelayProcess() as relay:
        yield relay
        relay.end()


@pytest.mark.parametrize("violation", VIOLATIONS, ids=range(len(VIOLATIONS)))
def test_a_violation_of_the_protocol_is_answered_by_a_close(
    violation: bytes, relay: RelayProcess
) -> None:
    with Raw(relay.port).open(presence("attacker"), violation) as attacker:
        answer = attacker.rest()
    assert b"\x88" in answer, answer


def test_a_relay_that_was_paused_at_work_reaps_nobody_who_beat_in_time() -> None:
    beat = said("heartbeat")
    times = ("--presence-refresh-s", "0.5", "--stale-after-s", "1", "--reap-after-s", "2")
    with RelayProcess(*times) as relay:
        peers = [Raw(relay.port).open(presence(f"peer-{n}")) for n in range(100)]
        stop = threading.Event()
        work = ATTACKS["to-nobody"]
        worker = threading.Thread(
            target=work.run, args=(Target(relay.port), 10, lambda: not stop.is_set())
        )
        worker.start()
        for round in range(3):  # it is in the middle of something at least once
            wakes = threading.Timer(PAUSE_S, os.kill, (relay.process.pid, signal.SIGCONT))
            if round:
                os.kill(relay.process.pid, signal.SIGSTOP)
            wakes.start()
            while wakes.is_alive():
                for peer in peers:
                    peer.socket.sendall(beat)
                time.sleep(0.1)
        stop.set()
        worker.join()
        for peer in peers:
            peer.socket.sendall(said("capabilities"))
        for peer in peers:
            peer.until(b'{"type":"capabilities_response"')
            peer.close()
        assert "silent" not in relay.log()
        relay.end()
