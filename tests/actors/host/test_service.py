"""The relay as a service of systemd, and the bounds of a small machine: docs/systemd/."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import attrs
import jwt
import pytest

from actors.clock import SystemClock
from actors.host.metrics import Metrics
from actors.host.settings import BadSetting, Settings, read_settings
from actors.relay import ledger
from actors.relay.ledger import CONNECTION_BYTES, Ledger
from actors.relay.runtime import Runtime
from protocol.limits import Limits
from tests import ROOT
from tests.actors.cli.program import environment, put_in
from tests.worlds.program import Program

FOLDER = ROOT / "docs" / "systemd"
UNIT = "agi-diy-relay.service"
MIB: Final = 2**20

SMALL_BYTES: Final = 460 * MIB
"""What Linux leaves of the 512 MB of the small machine; systemd takes a part of this."""
STARTED_BYTES: Final = 96 * MIB
"""A relay with nobody in it has less than this. (73 MB when this was written.)"""
UNSENT_BYTES: Final = 64 * 1024
"""What asyncio holds for a connection and the ledger does not count, at most."""
TCP_PART: Final = 0.094
"""Linux takes at most this part of a machine's memory for all TCP sockets (tcp_mem)."""


def unit() -> dict[str, list[str]]:
    """What the unit says, by name; in the order in which it says it."""
    said: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (FOLDER / UNIT).read_text(), re.MULTILINE):
        said.setdefault(name, []).append(value)
    return said


def variables(file: Path) -> dict[str, str]:
    """What a file of environment variables sets."""
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE))


def settings(*names: str, **more: str) -> Settings:
    """The settings of a relay that systemd starts with these files."""
    (own,) = unit()["Environment"]
    environ = dict(pair.split("=") for pair in own.replace("%i", "").split())
    for name in names:
        environ |= variables(FOLDER / name)
    return read_settings([], environ | more)


# The unit -----------------------------------------------------------------------------------------


@pytest.fixture(params=[UNIT, UNIT.replace(".", "@.")])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit, as a service or as a template, with a program that is here."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("CI has systemd-analyze")
        pytest.skip("needs systemd-analyze")
    (program,) = unit()["ExecStart"]
    text = (FOLDER / UNIT).read_text().replace(program, str(shutil.which("true")))
    name = str(request.param)
    (tmp_path / name).write_text(text)
    return tmp_path / name.replace("@.", "@8081.")


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_systemd_reads_the_unit_without_a_word(installed: Path) -> None:
    read = analyzed("verify", str(installed))
    assert (read.returncode, read.stdout, read.stderr) == (0, "", "")


def test_the_service_may_do_little_beside_its_work(installed: Path) -> None:
    looked = analyzed("security", "--offline=true", "--threshold=20", str(installed))
    assert looked.returncode == 0, looked.stdout[-100:]


def test_the_service_has_the_time_that_the_relay_takes_to_end() -> None:
    (wait,) = unit()["TimeoutStopSec"]
    limits = Limits()
    assert float(wait.removesuffix("s")) >= 1.5 * (limits.drain_s + limits.close_within_s)
    assert unit()["KillSignal"] == ["SIGTERM"]


def test_the_service_may_open_a_file_for_each_connection() -> None:
    (files,) = unit()["LimitNOFILE"]
    limits = Limits()
    assert int(files) >= 1.5 * (limits.connections_max + limits.unannounced_max)


def test_a_relay_without_its_secret_does_not_start() -> None:
    with pytest.raises(BadSetting, match="the secret for tokens"):
        settings("relay.env")
    assert unit()["EnvironmentFile"] == ["/etc/agi-diy-relay/relay.env"]  # without `-`: it must be
    assert unit()["RestartPreventExitStatus"] == ["2"]  # a bad setting


def test_the_service_asks_for_tokens_and_answers_to_the_name_of_its_proxy() -> None:
    made = settings("relay.env", RELAY_AUTH_SECRET="s" * 64)
    assert made.auth is not None
    assert made.allowed_hosts == ("relay.example",)
    assert made.hosts == ("127.0.0.1", "::1")
    assert made.port == 8080
    assert made.warnings == ()


def test_the_commands_of_the_document_make_the_settings_and_a_token(tmp_path: Path) -> None:
    """Those of docs/run.md, with another folder, and as whoever runs the tests."""
    page = (ROOT / "docs" / "run.md").read_text()
    made, issued = (
        re.findall(rf"\*\*{heading}\*\*.*?\n\n((?:    [^\n]+\n)+)", page, re.DOTALL)[0]
        for heading in ("Settings", "Tokens")
    )
    issued = issued.splitlines()[0]  # (the second line is for the machine of the peer)
    assert "systemctl" not in made + issued
    put_in(tmp_path)
    script = f'set -e\nsudo() {{ "$@"; }}\n{made}\n{issued}\n'
    script = script.replace("/etc/agi-diy-relay", f"{tmp_path}/etc")
    script = script.replace("/opt/agi-diy-relay/bin", str(tmp_path))
    script = script.replace("> ann.token", f"> {tmp_path}/ann.token")
    subprocess.run(["sh", "-c", script], cwd=ROOT, env=environment(), check=True)
    file = tmp_path / "etc" / "relay.env"
    assert file.stat().st_mode & 0o777 == 0o600
    secret = variables(file)["RELAY_AUTH_SECRET"]
    claims = jwt.decode((tmp_path / "ann.token").read_text().strip(), secret, ["HS256"])
    assert claims["sub"] == "ann"
    assert claims["exp"] - claims["iat"] == 7 * 86400


# What to watch ------------------------------------------------------------------------------------


def test_every_metric_that_the_document_watches_is_one() -> None:
    page = (ROOT / "docs" / "run.md").read_text()
    (watched,) = re.findall(r"^## What to watch.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
    text = Metrics(Runtime(), SystemClock()).text().decode()
    names = set(re.findall(r"\b(?:relay|process)_\w+", watched))
    assert len(names) > 8
    for name in names:
        assert re.search(rf"^{name}(_bucket)?[{{ ]", text, re.MULTILINE), name
    for label in set(re.findall(r'\{(\w+="\w+")\}', watched)):
        assert f"{{{label}}}" in text, label


# A small machine ----------------------------------------------------------------------------------


def small() -> Limits:
    return settings("relay.env", "small.env", RELAY_AUTH_SECRET="s" * 64).limits


def within_bytes() -> int:
    """What the unit lets the relay have on the small machine."""
    (part,) = unit()["MemoryMax"]
    return SMALL_BYTES * int(part.removesuffix("%")) // 100


def test_each_bound_for_a_small_machine_is_one_and_is_tighter() -> None:
    known = {f"RELAY_{field.name.upper()}": field.name for field in attrs.fields(Limits)}
    for name, value in variables(FOLDER / "small.env").items():
        assert float(value) < getattr(Limits(), known[name]), name


def test_a_small_machine_holds_all_its_peers_with_their_longest_presences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "memory_bytes", within_bytes)
    limits = small()
    peers = limits.meshes_max * limits.connections_max
    account = Ledger.within(limits)
    account.stand((peers + limits.unannounced_max - 1) * CONNECTION_BYTES)
    account.stand(peers * limits.presence_bytes_max)
    account.stand(limits.meshes_max * limits.echo_bytes_max)
    account.stand(limits.meshes_max * limits.recall_bytes_max)
    assert account.has_room()


def test_a_small_machine_has_the_memory_that_a_relay_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "memory_bytes", within_bytes)
    limits = small()
    connections = limits.meshes_max * limits.connections_max + limits.unannounced_max
    held = Ledger.within(limits).bytes_max
    tcp = int(SMALL_BYTES * TCP_PART)
    assert STARTED_BYTES + held + connections * UNSENT_BYTES + tcp <= within_bytes()


def test_a_relay_with_the_bounds_of_a_small_machine_starts_and_is_small() -> None:
    with Program(**variables(FOLDER / "small.env")) as program:
        status = Path(f"/proc/{program.process.pid}/status")
        if status.exists():
            (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
            assert int(kib) * 1024 < STARTED_BYTES
        program.end()
        assert program.process.returncode == 0
