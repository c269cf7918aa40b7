"""Settings: where they come from, what they are without, and what is said of bad and old ones."""

import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from actors.host.settings import (
    EVERYWHERE,
    LOOPBACK,
    RENAMED,
    BadSetting,
    Settings,
    default_hosts,
    read_settings,
)
from actors.host.tokens import Auth
from protocol.limits import Limits


def test_settings_come_from_options_then_the_environment_then_defaults() -> None:
    environ = {"PORT": "1", "HOST": "::1", "RELAY_DRAIN_S": "7"}
    settings = read_settings(["--port", "2"], environ)
    assert (settings.port, settings.hosts, settings.limits.drain_s) == (2, ("::1",), 7.0)
    assert read_settings([], environ).port == 1
    assert read_settings([], {**environ, "RELAY_PORT": "3"}).port == 3
    assert read_settings([], {}).port == 8080


def test_without_a_word_on_it_everything_is_as_settings_have_it() -> None:
    assert read_settings(["--host", "localhost"], {}) == Settings()


def test_hosts_to_allow_are_a_list_or_are_given_one_by_one() -> None:
    given = ["--allow-host", "a.example, b.example", "--allow-host", "c.example"]
    assert read_settings(given, {}).allowed_hosts == ("a.example", "b.example", "c.example")
    environ = {"RELAY_ALLOW_HOST": "d.example,e.example"}
    assert read_settings([], environ).allowed_hosts == ("d.example", "e.example")
    assert read_settings(given[:2], environ).allowed_hosts == ("a.example", "b.example")
    assert read_settings([], {}).allowed_hosts == ()


def test_only_a_container_listens_on_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert default_hosts({}) == LOOPBACK == ("127.0.0.1", "::1")
    assert default_hosts({"DOCKER_CONTAINER": "1"}) == EVERYWHERE
    assert read_settings([], {}).hosts == LOOPBACK
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/.dockerenv")
    assert default_hosts({}) == EVERYWHERE == ("0.0.0.0", "::")
    assert read_settings([], {}).hosts == EVERYWHERE


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("::1", ("::1",)),
        ("0.0.0.0", ("0.0.0.0",)),
        ("localhost", ("127.0.0.1", "::1")),
        ("10.0.0.1, fe80::1", ("10.0.0.1", "fe80::1")),
    ],
)
def test_a_host_that_is_given_is_exactly_what_is_listened_on(
    given: str, hosts: tuple[str, ...]
) -> None:
    assert read_settings(["--host", given], {}).hosts == hosts
    assert read_settings([], {"HOST": given}).hosts == hosts
    assert read_settings([], {"HOST": "elsewhere", "RELAY_HOST": given}).hosts == hosts


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["--port", "99999"], {}, "port must be between 0 and 65535"),
        (["--port", "http"], {}, "port must be a number, got 'http'"),
        ([], {"PORT": "x"}, "port must be a number, got 'x'"),
        (["--host", ","], {}, "host must be an address, got ','"),
        (["--stale-after-s", "40"], {}, "must be less than reap_after_s"),
        ([], {"RELAY_DRAIN_S": "soon"}, "drain_s must be a number, got 'soon'"),
        (["--messages-burst", "0"], {}, "messages_burst must be a whole number from 1"),
        (["--strict", "perhaps"], {}, "strict must be true or false"),
        (["--pace", "fast"], {}, "pace must be auto, on or off, got 'fast'"),
        (["--log-level", "loud"], {}, "log_level must be debug, info, warning or error"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(
    arguments: list[str], environ: dict[str, str], words: str
) -> None:
    with pytest.raises(BadSetting, match=words) as bad:
        read_settings(arguments, environ)
    assert "\n" not in str(bad.value)


def test_every_setting_has_an_option_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--help"], {}, "agi-diy-relay")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: agi-diy-relay ")
    own = {"host", "port", "allow-host", "allowed-origins", "strict", "pace", "log-level"}
    for name in own | {field.name.replace("_", "-") for field in attrs.fields(Limits)}:
        assert f"--{name} " in shown
    assert not any(old.replace("_", "-") in shown for old in RENAMED)


def test_the_version_is_said_after_the_command_that_was_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--version"], {}, "agi-diy-relay")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("agi-diy-relay ")


# Names of the last release ------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_still_works_and_a_warning_says_the_new_one(old: str, new: str) -> None:
    def limit(settings: Settings) -> Any:
        return getattr(settings.limits, new)

    flag, variable = f"--{old.replace('_', '-')}", f"RELAY_{old.upper()}"
    new_flag, new_variable = f"--{new.replace('_', '-')}", f"RELAY_{new.upper()}"

    by_option = read_settings([flag, "101"], {"HOST": "localhost"})
    assert limit(by_option) == 101
    assert by_option.warnings == (f"{flag} is now called {new_flag}; use the new name",)

    by_variable = read_settings([], {variable: "102", "HOST": "localhost"})
    assert limit(by_variable) == 102
    assert by_variable.warnings == (f"{variable} is now called {new_variable}; use the new name",)

    assert limit(read_settings([flag, "101"], {variable: "102", new_variable: "103"})) == 101
    assert limit(read_settings([], {variable: "102", new_variable: "103"})) == 103
    assert limit(read_settings([flag, "101", new_flag, "104"], {})) == 104
    assert read_settings([new_flag, "104"], {"HOST": "localhost"}).warnings == ()


# Tokens -------------------------------------------------------------------------------------------

SECRET = "a secret of at least 32 bytes, yes"
ISSUER = [
    "--auth-jwks-url",
    "https://issuer.example/keys",
    "--auth-issuer",
    "https://issuer.example",
]


def test_a_secret_for_tokens_comes_from_the_environment_or_a_file_and_is_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read_settings([], {"RELAY_AUTH_SECRET": SECRET})
    assert settings.auth == Auth(secret=SECRET.encode())
    assert SECRET not in repr(settings)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    from_file = read_settings(["--auth-secret-file", str(tmp_path / "secret")], {})
    assert from_file.auth == settings.auth
    with pytest.raises(SystemExit):
        read_settings(["--help"], {"RELAY_AUTH_SECRET": SECRET})
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize("secret", [b"\xff" * 32, "\u00a0".encode() + SECRET.encode()])
def test_a_secret_is_the_same_bytes_in_the_environment_and_in_a_file(
    secret: bytes, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b" " + secret + b"\n")
    from_file = read_settings(["--auth-secret-file", str(tmp_path / "secret")], {})
    environ = {"RELAY_AUTH_SECRET": os.fsdecode(b" " + secret + b"\n")}
    assert read_settings([], environ).auth == from_file.auth == Auth(secret=secret)


def test_an_issuer_and_the_names_of_claims_are_settings() -> None:
    environ = {"RELAY_AUTH_AUDIENCE": "relay", "RELAY_AUTH_PEER_CLAIM": "email"}
    auth = read_settings(ISSUER, environ).auth
    assert auth is not None
    assert (auth.issuer, auth.audience) == ("https://issuer.example", "relay")
    assert (auth.peer_claim, auth.mesh_claim) == ("email", "mesh")


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        ([], {"RELAY_AUTH_SECRET": ""}, "at least 32 bytes"),
        ([], {"RELAY_AUTH_SECRET": "hunter2"}, "at least 32 bytes"),
        (["--auth-secret-file", "/no/such/file"], {}, "auth_secret_file cannot be read"),
        (["--auth-issuer", "me"], {}, "auth_issuer needs a secret or auth_jwks_url"),
        (["--auth-mesh-claim", "m"], {}, "auth_mesh_claim needs a secret or auth_jwks_url"),
        (["--auth-secret-file", ""], {"RELAY_AUTH_SECRET": SECRET}, "auth_secret_file is empty"),
        ([], {"RELAY_AUTH_JWKS_URL": ""}, "auth_jwks_url is empty"),
        (["--auth-mesh-claim", ""], {"RELAY_AUTH_SECRET": SECRET}, "auth_mesh_claim"),
        ([], {"RELAY_AUTH_SECRET": f"ssh-rsa AAAAB3NzaC1yc2E= {SECRET}"}, "key or certificate"),
        (ISSUER, {}, "auth_audience"),
        ([*ISSUER, "--auth-audience", "x"], {"RELAY_AUTH_SECRET": SECRET}, "not both"),
    ],
)
def test_settings_for_tokens_that_cannot_be_meant_are_refused(
    arguments: list[str], environ: dict[str, str], words: str
) -> None:
    with pytest.raises(BadSetting, match=words) as bad:
        read_settings(arguments, environ)
    assert "hunter2" not in str(bad.value)


@pytest.mark.parametrize(
    ("host", "environ", "is_warned"),
    [
        ("localhost", {}, False),
        ("127.0.0.2", {}, False),
        ("0.0.0.0", {}, True),
        ("localhost,192.0.2.1", {}, True),
        ("0.0.0.0", {"RELAY_AUTH_SECRET": SECRET}, False),
        ("localhost", {"RELAY_ALLOW_HOST": "relay.example"}, True),  # a proxy is in front of it
    ],
)
def test_whoever_opens_the_relay_to_all_is_warned(
    host: str, environ: dict[str, str], is_warned: bool
) -> None:
    warnings = read_settings(["--host", host], environ).warnings
    assert any("RELAY_AUTH_SECRET" in sentence for sentence in warnings) == is_warned
