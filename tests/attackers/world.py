"""A world to attack: the relay and honest peers, in processes of their own, and what they say."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import attrs

from tests import IS_CLONE, RELAY_COMMAND, ROOT
from tests.attackers.attacks import Attack, Target
from tests.attackers.honest import Report
from tests.attackers.wire import PATIENCE_S, Raw, presence

RELAY: Final = Path(os.environ.get("RELAY_UNDER_ATTACK", ROOT))
"""The folder of the relay that is attacked: this one, or another version for comparison."""

EXCHANGES: Final = 50
"""So many exchanges of the pair must be complete before an attack may end."""
ATTACK_S: Final = 1.0
"""So long an attack lasts at least."""
STALLED_AFTER_S: Final = 120.0
"""They take 1 s if nothing hinders them, and longer where the machine does much else. Beyond this
the pair is stuck."""
HELD_BYTES_MAX: Final = 256 * 2**20
"""So much more than at rest the relay may hold under attack: a bound with margin."""
STARVED_MS: Final = 100.0
"""Ten connections that send what they may (20 MB/s) fill a mailbox in twice this time."""
LOG_BYTES_MAX: Final = 384 * 1024
"""So much one attack may make the relay log: a burst of lines, and then so many a second."""


def prefer(pid: int, priority: int) -> None:
    """This process runs whenever it can, whatever else the machine does."""
    os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(priority))


class Group:
    """Honest peers in a process of their own: `pair` or `crowd`."""

    def __init__(self, part: str, port: int, comes_first: bool = False) -> None:
        command = [sys.executable, "-m", "tests.attackers.honest", part, str(port)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if comes_first:
            prefer(self.pid, 2 if part == "pair" else 1)

    @property
    def pid(self) -> int:
        return self._process.pid

    def report(self) -> Report:
        """What it has seen. It waits until all are present."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the honest peers have ended"
        report: Report = json.loads(line)
        return report

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class RelayProcess:
    """`relay.py` as users run it. What it logs goes into a file."""

    def __init__(self, *options: str, folder: Path = RELAY, comes_first: bool = False) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="relay-", suffix=".log")  # noqa: SIM115
        command = [*RELAY_COMMAND, "--host", "127.0.0.1", "--port", "0", *options]
        self.process = subprocess.Popen(command, cwd=folder, stderr=self._log)
        if comes_first:
            prefer(self.process.pid, 2)
        self.port = 0
        wait_for(self._find_port, "the relay to listen")

    def _find_port(self) -> bool:
        assert self.process.poll() is None, self.log()
        for line in self.log().splitlines():
            if '"listening' in line and line.endswith("}"):
                self.port = json.loads(line)["port"]
        return self.port != 0

    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def log_bytes(self) -> int:
        return os.stat(self._log.name).st_size

    @property
    def files(self) -> int:
        """Open file descriptors: a connection has one."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_bytes(self, what: str = "VmRSS") -> int:
        """Resident memory now, or (`VmHWM`) at most since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu_s(self) -> float:
        """Processor time that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Stop it. Raises AssertionError if its end was not in order."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log()[-3000:]
        assert "Traceback" not in self.log(), self.log()[-3000:]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Starved(Exception):
    """Honest peers did not read, because the machine gave them no core. So they were evicted, as
    slow readers are, and nobody knows what the attack would have done to them."""


@attrs.frozen
class Outcome:
    """What an attack did. `waits_ms`: what the pair's directs took, sorted."""

    waits_ms: list[float]
    late_ms: float
    seconds: float
    peak_bytes: int
    cpu_s: float
    log_bytes: int
    received_bytes: int
    foreign_presences: int
    foreign_answers: int
    faults: list[str]


class World:
    """One relay, the pair, the crowd."""

    def __init__(self, *options: str, folder: Path = RELAY, comes_first: bool = False) -> None:
        self.relay = RelayProcess(*options, folder=folder, comes_first=comes_first)
        self.target = Target(self.relay.port)
        self.pair = Group("pair", self.relay.port, comes_first)
        self.crowd = Group("crowd", self.relay.port, comes_first)
        self.pair.report()
        self.crowd.report()
        self.rest_bytes = self.relay.memory_bytes()
        self.rest_files = self.relay.files

    def attack(
        self, attack: Attack, connections: int, seconds: float = ATTACK_S, exchanges: int = 0
    ) -> Outcome:
        """Attack until so much time has passed and the pair has made so many exchanges.

        Raises AssertionError if it cannot make them within `PATIENCE_S`, or if a newcomer cannot
        join meanwhile. May raise Starved; then the world is of no use any more.
        """
        pair, crowd, cpu_s = self.pair.report(), self.crowd.report(), self.relay.cpu_s()
        log_bytes = self.relay.log_bytes
        self.relay.forget_peak()
        stop = threading.Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                attack.run(self.target, connections, lambda: not stop.is_set())
            except BaseException as error:
                errors.append(error)

        attacker = threading.Thread(target=run)
        began = time.monotonic()
        attacker.start()
        try:
            waits_ms: list[float] = []
            late_ms = 0.0
            while True:
                now = self.pair.report()
                waits_ms += now["latencies_ms"]
                late_ms = max(late_ms, now["late_ms"])
                look_for_cores(attack, now)
                look_for_cores(attack, self.crowd.report())
                assert not now["faults"], now["faults"]
                passed_s = time.monotonic() - began
                done = now["exchanges"] - pair["exchanges"]
                if errors or (passed_s >= seconds and done >= exchanges):
                    waits_ms.append(now["waiting_ms"])  # or a pair that is stuck would look well
                    break
                assert passed_s < STALLED_AFTER_S, f"the pair made only {done} exchanges"
                time.sleep(0.05)
            if attack.lets_in and exchanges:
                self.newcomer()
        finally:
            stop.set()
            attacker.join(PATIENCE_S)
        assert not errors, errors
        assert not attacker.is_alive(), "the attacker does not end"
        after = self.crowd.report()
        look_for_cores(attack, after)
        look_for_cores(attack, self.pair.report())
        return Outcome(
            waits_ms=sorted(waits_ms),
            late_ms=late_ms,
            seconds=passed_s,
            peak_bytes=self.relay.memory_bytes("VmHWM"),
            cpu_s=self.relay.cpu_s() - cpu_s,
            log_bytes=self.relay.log_bytes - log_bytes,
            received_bytes=after["received_bytes"] - crowd["received_bytes"],
            foreign_presences=after["foreign_presences"] - crowd["foreign_presences"],
            foreign_answers=after["foreign_answers"] - crowd["foreign_answers"],
            faults=self.faults(),
        )

    def faults(self) -> list[str]:
        """What went wrong for honest peers so far."""
        return [*self.pair.report()["faults"], *self.crowd.report()["faults"]]

    def pin(self, relays: int, others: int) -> None:
        """The relay gets a core of its own, and everybody else another one."""
        os.sched_setaffinity(self.relay.process.pid, {relays})
        for pid in (0, self.pair.pid, self.crowd.pid):
            os.sched_setaffinity(pid, {others})

    def newcomer(self) -> None:
        """Somebody new comes, is present, and goes."""
        with Raw(self.relay.port).open(presence("newcomer")) as newcomer:
            newcomer.until(b'{"type":"presence","from":"newcomer"')

    def settle(self) -> None:
        """Wait until all broadcasts have been heard and the attackers' connections are gone."""
        spoken = self.crowd.report()["spoken"]
        wait_for(lambda: self.crowd.report()["heard"] >= spoken, "the crowd to hear everything")
        wait_for(lambda: self.relay.files <= self.rest_files, "the relay to let the attackers go")
        done = self.pair.report()["exchanges"]
        wait_for(lambda: self.pair.report()["exchanges"] > done, "the pair to go on")

    def close(self) -> None:
        self.pair.close()
        self.crowd.close()
        self.relay.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def look_for_cores(attack: Attack, now: Report) -> None:
    """Raise Starved if a lack of cores a moment ago explains all that has hurt a group."""
    hurt = attack.hurt(now["faults"])
    evicted = all(fault.endswith(("was closed: 1013", "was cut")) for fault in hurt)
    if hurt and evicted and now["starved_ms"] > STARVED_MS:
        raise Starved(hurt)


def wait_for(happened: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen."""
    until = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


assert IS_CLONE or RELAY == ROOT, "an installed package has no other versions beside it"
