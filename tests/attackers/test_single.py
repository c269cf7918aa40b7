"""Attacks after which each attacker gets an answer of its own, or which need other limits."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.attackers.attacks import VIOLATIONS
from tests.attackers.wire import Raw, presence, said
from tests.attackers.world import RelayProcess

PAUSE_S = 3.0
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


def test_a_relay_that_was_paused_reaps_nobody_who_beat_in_time() -> None:
    beat = said("heartbeat")
    times = ("--presence-refresh-s", "0.5", "--stale-after-s", "1", "--reap-after-s", "2")
    with RelayProcess(*times) as relay:
        peers = [Raw(relay.port).open(presence(f"peer-{n}")) for n in range(50)]
        busy = Raw(relay.port).open(presence("busy"))
        for peer in peers:
            peer.until(b'"from":"busy"')
        busy.socket.setblocking(False)
        work = memoryview(said("broadcast", data="x" * 500) * 500)
        os.kill(relay.process.pid, signal.SIGSTOP)
        wakes = threading.Timer(PAUSE_S, os.kill, (relay.process.pid, signal.SIGCONT))
        wakes.start()
        while wakes.is_alive():
            for peer in peers:
                peer.socket.sendall(beat)
            with suppress(BlockingIOError):
                work = work[busy.socket.send(work) :]
            time.sleep(0.1)
        for peer in peers:
            peer.socket.sendall(said("capabilities"))
        for peer in peers:
            peer.until(b'{"type":"capabilities_response"')
        assert "silent" not in relay.log()
        for peer in (*peers, busy):
            peer.close()
        relay.end()
