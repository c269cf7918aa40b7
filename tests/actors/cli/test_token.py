"""`agi-mesh token`: what it makes lets a peer in, and what it shows is true."""

import io
import math
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from actors.cli.main import main
from actors.clock import SystemClock
from actors.host.tokens import CLOCK_SKEW_S, Auth, Tokens
from tests import ROOT

SECRET = "a secret of at least 32 bytes, yes"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_AUTH_SECRET", SECRET)


@pytest.mark.anyio
async def test_a_token_that_it_makes_lets_its_bearer_in(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "token --sub ann --mesh team --mesh lab-* --agent coder --may send --ttl 2h"
    assert main(arguments.split()) == 0
    tokens = Tokens(Auth(secret=SECRET.encode()), SystemClock())
    grant = await tokens.grant(capsys.readouterr().out.strip())
    assert (grant.peer, grant.meshes, grant.agents) == ("ann", ("team", "lab-*"), ("coder",))
    assert (grant.may_send, grant.may_watch) == (True, False)
    left_s = (grant.ends_at_ms or 0) / 1000 - SystemClock().now().wall_ms / 1000
    assert 7100 < left_s - CLOCK_SKEW_S <= 7200


def test_it_explains_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    main(["token", "--sub", "ann", "--mesh", "team", "--ttl", "90m"])
    token = capsys.readouterr().out.strip()
    assert main(["token", "--show", token]) == 0
    shown = capsys.readouterr().out
    assert "HS256, with the secret that is set" in shown
    assert 'sub           "ann"' in shown
    assert "(in 1h)" in shown
    assert SECRET not in shown


def test_it_says_when_somebody_else_has_signed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = jwt.encode({"sub": "ann", "exp": 1, "aud": "x"}, "x" * 32, "HS256")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{other}\n"))
    assert main(["token", "--show", "-"]) == 0
    shown = capsys.readouterr().out
    assert "NOT with the secret that is set" in shown
    assert "ago)" in shown


def test_without_a_secret_it_shows_a_token_and_makes_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_AUTH_SECRET")
    claims = {"sub": "\x1b[31m", "\x1b[32m": 1, "exp": math.nan, "iat": math.inf}
    token = jwt.encode(claims, "x" * 32, "HS256")
    assert main(["token", "--show", token]) == 0
    shown = capsys.readouterr().out
    assert "not checked" in shown
    assert "\x1b" not in shown  # nothing that a terminal would obey
    assert main(["token", "--sub", "ann"]) == 1
    assert "RELAY_AUTH_SECRET" in capsys.readouterr().err


def test_the_secret_may_be_in_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_AUTH_SECRET")
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    assert main(["token", "--sub", "ann", "--auth-secret-file", str(file)]) == 0
    token = capsys.readouterr().out.strip()
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["sub"] == "ann"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["token"], 1, "--sub"),
        (["token", "--sub", "a", "--auth-secret-file", "no such file"], 1, "cannot be read"),
        (["token", "--sub", ""], 1, "name its bearer"),
        (["token", "--sub", "\udcff"], 1, "no Unicode text"),
        (["token", "--sub", "a", "--mesh", ""], 1, "one that is empty"),
        (["token", "--sub", "a" * 9000], 1, "longer than"),
        (["token", "--sub", "a", *["--agent", "b"] * 101], 1, "too many names"),
        (["token", "--show", "nonsense"], 1, "no token"),
        (["token", "--show", "[" * 9000], 1, "no token"),
        (["token", "--sub", "a", "--ttl", "soon"], 2, "15m"),
        (["token", "--sub", "a", "--ttl", "0s"], 2, "15m"),
        (["token", "--nonsense"], 2, "No such option"),
    ],
)
def test_wrong_usage_gets_one_sentence(
    arguments: list[str], code: int, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert word in capsys.readouterr().err


def test_a_short_secret_is_refused_and_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_AUTH_SECRET", "hunter2")
    assert main(["token", "--sub", "ann"]) == 1
    error = capsys.readouterr().err
    assert "32 bytes" in error
    assert "hunter2" not in error


def test_the_command_is_installed_under_its_name() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from agi_diy_relay.command import main; main(['--help'])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "token" in made.stdout
