"""Attacks after which each attacker gets an answer of its own, or which need other limits."""

import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests import RELAY_COMMAND
from tests.attackers.attacks import ATTACKS, VIOLATIONS, Target
from tests.attackers.wire import PATIENCE_S, Raw, presence, said
from tests.attackers.world import RELAY, RelayProcess

SILENCE_S = 8.0
"""`reap_after_s` of the relay that is paused, and more than this process is ever kept waiting."""


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


def work(port: int) -> None:
    """Keep the relay at work, for ever."""
    ATTACKS["to-nobody"].run(Target(port), 10, lambda: True)


def test_a_relay_that_was_paused_at_work_reaps_nobody_who_beat_in_time() -> None:
    beat = said("heartbeat")
    times = ("--presence-refresh-s", "0.5", "--stale-after-s", "1", "--reap-after-s", SILENCE_S)
    with RelayProcess(*map(str, times)) as relay:
        peers: list[Raw] = []
        for n in range(100):
            peers.append(Raw(relay.port).open(presence(f"peer-{n}")))
            for peer in peers if not n % 10 else ():  # (a hundred may take longer than the silence)
                peer.socket.sendall(beat)
        # In a process of its own: in a thread it would keep the beats from being in time.
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(relay.port,))
        worker.start()
        for round in range(3):  # it is in the middle of something at least once
            pause_s = SILENCE_S + 0.5
            wakes = threading.Timer(pause_s, os.kill, (relay.process.pid, signal.SIGCONT))
            if round:
                os.kill(relay.process.pid, signal.SIGSTOP)
            wakes.start()
            while wakes.is_alive():
                for peer in peers:
                    peer.socket.sendall(beat)
                time.sleep(0.1)
        worker.kill()
        worker.join()
        for peer in peers:
            peer.socket.sendall(said("capabilities"))
        for peer in peers:
            peer.until(b'{"type":"capabilities_response"')
            peer.close()
        assert "silent" not in relay.log()
        relay.end()


def test_who_uploads_one_long_message_slowly_is_not_silent() -> None:
    message = said("broadcast", data="x" * 240_000)
    times = ("--presence-refresh-s", "1", "--stale-after-s", "2", "--reap-after-s", "4")
    with RelayProcess(*times) as relay:
        slow = Raw(relay.port).open(presence("slow"))
        listener = Raw(relay.port).open(presence("listener"))
        for at in range(0, len(message), 3000):  # 30 KB/s, for twice the time of silence
            slow.socket.sendall(message[at : at + 3000])
            listener.socket.sendall(said("heartbeat"))
            time.sleep(0.1)
        listener.until(b'{"type":"broadcast"')
        slow.socket.sendall(said("capabilities"))
        slow.until(b'{"type":"capabilities_response"')
        for peer in (slow, listener):
            peer.close()
        relay.end()


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes have no size here")
def test_a_relay_whose_log_nobody_reads_serves_and_ends() -> None:
    command = [*RELAY_COMMAND, "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, cwd=RELAY, stderr=subprocess.PIPE, bufsize=0)
    assert process.stderr is not None
    try:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        log = b""
        while (listening := re.search(rb'"listening.*"port": ?(\d+)', log)) is None:
            log += process.stderr.read(256)
        port = int(listening[1])
        for number in range(100):  # each is a line or two of the log, which is full soon
            with Raw(port).open(presence(f"peer-{number}")) as peer:
                peer.until(b'{"type":"presence"')
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
