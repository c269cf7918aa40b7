"""The settings: reads options and environment variables, and says what is wrong with them."""

import argparse
import ipaddress
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from actors.backplane.nats import NatsSettings
from actors.host.tokens import CLAIMS, Auth, secret_from
from protocol.about import __version__
from protocol.limits import Limits

LOOPBACK: Final = ("127.0.0.1", "::1")
"""Only this machine. `localhost` means both: Node and browsers resolve it to either of them."""

REPEATABLE: Final = ("allow_host",)
"""Options that may be given several times."""

EVERYWHERE: Final = ("0.0.0.0", "::")
"""All interfaces of this machine."""

RENAMED: Final = {"turn_messages_max": "round_messages_max"}
"""Settings by their names of the last release, and the names that they have now."""


class BadSetting(ValueError):
    """A setting cannot be used. The text is one sentence that names it."""


@attrs.frozen(kw_only=True)
class Settings:
    """What can be set. `python relay.py --help` describes each setting.

    A bad value raises ValueError.
    """

    hosts: tuple[str, ...] = LOOPBACK
    """Addresses to listen on, all at one port. An address that this machine does not have is left
    out, if it has another of them."""
    port: int = attrs.field(default=8080)
    allowed_origins: tuple[str, ...] = ("localhost", "https://agi.diy")
    allowed_hosts: tuple[str, ...] = ()
    """Names that a request's Host header may have beside `localhost` and loopback addresses, where
    the relay listens on loopback addresses only. `*`: any."""
    strict: bool = False
    pace: str = attrs.field(default="auto")
    log_level: str = attrs.field(default="info")
    limits: Limits = Limits()
    auth: Auth | None = None
    """How tokens are checked. None: nobody is asked for one."""
    backplane: NatsSettings | None = None
    """Where the log is, if this relay is a node of a federation (docs/federation.md)."""
    warnings: tuple[str, ...] = ()
    """What the user should know about these settings, in sentences. Logged when serving starts."""

    @port.validator
    def _check_port(self, _: object, value: int) -> None:
        if not 0 <= value <= 65535:
            raise ValueError(f"port must be between 0 and 65535, got {value}")

    @pace.validator
    def _check_pace(self, _: object, value: str) -> None:
        if value not in ("auto", "on", "off"):
            raise ValueError(f"pace must be auto, on or off, got {value!r}")

    @log_level.validator
    def _check_log_level(self, _: object, value: str) -> None:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"log_level must be debug, info, warning or error, got {value!r}")


def default_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """All interfaces in a container, as AgentCore's contract asks; elsewhere only this machine.

    Source: `BedrockAgentCoreApp.run`, which tells containers by the same two signs.
    """
    in_container = os.path.exists("/.dockerenv") or bool(environ.get("DOCKER_CONTAINER"))
    return EVERYWHERE if in_container else LOOPBACK


def read_settings(
    arguments: Sequence[str], environ: Mapping[str, str], program: str = "relay.py"
) -> Settings:
    """Settings from the command line's options first, then environment variables, then defaults.

    `program` is the command that was typed, for the usage line. Raises BadSetting. `--help`,
    `--version` and an unknown option end the program (SystemExit), as usual with argparse.
    """
    defaults = _defaults(environ)
    options = vars(_parser(program, defaults).parse_args(arguments))
    options |= {name: ",".join(options[name]) for name in REPEATABLE if name in options}
    variables = _variables(environ, [*defaults, *RENAMED])
    warnings = []
    for given, written in ((variables, _variable), (options, _flag)):
        for old, new in RENAMED.items():
            if old in given:
                warnings.append(f"{written(old)} is now called {written(new)}; use the new name")
                given.setdefault(new, given.pop(old))
    values = {**defaults, **variables, **options}
    try:
        hosts = _hosts(values["host"])
        auth = _auth(values, environ)
        # `--auth-secret-file "$NOT_SET"` must not let everybody in.
        for name in (name for name in variables | options if name.startswith("auth_")):
            if not values[name]:
                raise ValueError(f"{name} is empty; leave it out, or say what it is")
            if auth is None:
                raise ValueError(f"{name} needs a secret or auth_jwks_url")
        allowed_hosts = _listed(values["allow_host"])
        if auth is None and (allowed_hosts or not all(map(is_loopback, hosts))):
            warnings.append(_OPEN_TO_ALL)
        bounds: dict[str, Any] = {
            field.name: _number(field.name, values[field.name], type(field.default))
            for field in attrs.fields(Limits)
        }
        return Settings(
            hosts=hosts,
            port=int(_number("port", values["port"], int)),
            allowed_origins=_listed(values["allowed_origins"]),
            allowed_hosts=allowed_hosts,
            strict=_boolean("strict", values["strict"]),
            pace=values["pace"],
            log_level=values["log_level"],
            limits=Limits(**bounds),
            auth=auth,
            backplane=_backplane(values, variables | options),
            warnings=tuple(warnings),
        )
    except ValueError as error:
        raise BadSetting(str(error)) from None


# Where values come from ---------------------------------------------------------------------------

_OPEN_TO_ALL: Final = (
    "no tokens are asked for: whoever reaches this relay may join, under any id; set "
    "RELAY_AUTH_SECRET (docs/admission.md), or have something in front of it that asks, as "
    "AgentCore does"
)

_HELP: Final = {
    "host": "addresses to listen on, separated by commas; `localhost` is 127.0.0.1 and ::1",
    "port": "port to listen on; 0 takes a free one",
    "allowed_origins": "origins whose pages may connect, separated by commas; `localhost` means "
    "this machine at any port, `*` allows all; programs send no Origin and may always connect",
    "allow_host": "names in the Host header by which programs may reach a relay that listens on "
    "this machine only, separated by commas or given several times; `*` allows all",
    "auth_secret_file": "a file with the secret that signs tokens (HS256); or set the environment "
    "variable RELAY_AUTH_SECRET to the secret itself",
    "auth_jwks_url": "where the issuer of tokens publishes its public keys (RS256, ES256)",
    "auth_issuer": "what the claim `iss` of a token must be",
    "auth_audience": "what the claim `aud` of a token must be",
    "auth_peer_claim": "the claim that names the peer id",
    "auth_mesh_claim": "the claim that lists the meshes",
    "auth_agents_claim": "the claim that lists the agents",
    "auth_may_claim": "the claim that lists what is allowed, `send` and `watch`",
    "backplane": "one mesh on several relays: the NATS servers between them, separated by commas "
    "(nats://localhost:4222; tls:// for TLS)",
    "backplane_name": "the name of the federation: relays with the same name and the same servers "
    "are one",
    "backplane_replicas": "how many NATS servers keep the log; with a cluster: 3",
    "backplane_credentials": "a file with credentials (.creds) for the NATS servers",
    "backplane_nkey": "a file with the seed of an nkey for the NATS servers",
    "backplane_ca": "a file with the certificates that the NATS servers are checked against",
    "log_level": "debug, info, warning or error",
    "pace": "keep to the frame limits of AgentCore's edge: on, off, or auto (only for connections "
    "that come through the edge)",
    "strict": "true: refuse message types that are not in the protocol's table",
}
"""What each setting means, by name. The limits have their own words."""


def _defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """Every setting's default as it would be typed, by name, in the order of `--help`."""
    defaults = {
        "host": ",".join(default_hosts(environ)),
        "port": "8080",
        "allowed_origins": ",".join(Settings().allowed_origins),
        "allow_host": "",
        "auth_secret_file": "",
        "auth_jwks_url": "",
        "auth_issuer": "",
        "auth_audience": "",
        **{f"auth_{name}_claim": default for name, default in CLAIMS.items()},
        "backplane": "",
        "backplane_name": "agi-diy-relay",
        "backplane_replicas": "1",
        "backplane_credentials": "",
        "backplane_nkey": "",
        "backplane_ca": "",
        "log_level": "info",
        "pace": "auto",
        "strict": "false",
    }
    return defaults | {field.name: str(field.default) for field in attrs.fields(Limits)}


def _parser(program: str, defaults: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="WebSocket relay for agent meshes.",
        epilog="Every option is also an environment variable: --drain-s is RELAY_DRAIN_S. "
        "HOST and PORT work, too.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    for name, help in _HELP.items():
        parser.add_argument(
            _flag(name),
            help=f"{help} (default: {defaults[name] or 'none'})",
            action="append" if name in REPEATABLE else "store",
        )
    for field in attrs.fields(Limits):
        help = f"{field.metadata['what']} (default: {defaults[field.name]})"
        parser.add_argument(_flag(field.name), help=help, metavar="N")
    for old in RENAMED:
        parser.add_argument(_flag(old), help=argparse.SUPPRESS)
    return parser


def _variables(environ: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """What environment variables say, by name of the setting."""
    found = {name.lower(): environ[name] for name in ("HOST", "PORT") if environ.get(name)}
    return found | {name: environ[_variable(name)] for name in names if _variable(name) in environ}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return f"RELAY_{name.upper()}"


def _auth(values: Mapping[str, str], environ: Mapping[str, str]) -> Auth | None:
    secret = secret_from(values["auth_secret_file"] or None, environ)
    jwks_url = values["auth_jwks_url"] or None
    issuer, audience = values["auth_issuer"] or None, values["auth_audience"] or None
    if secret is None and jwks_url is None:
        return None
    claims = {f"{name}_claim": values[f"auth_{name}_claim"] for name in CLAIMS}
    return Auth(secret=secret, jwks_url=jwks_url, issuer=issuer, audience=audience, **claims)


def _backplane(values: Mapping[str, str], given: Mapping[str, str]) -> NatsSettings | None:
    if not values["backplane"]:
        for name in given:
            if name.startswith("backplane"):
                raise ValueError(f"{name} needs backplane, the address of a NATS server")
        return None
    return NatsSettings(
        urls=_listed(values["backplane"]),
        name=values["backplane_name"],
        replicas=int(_number("backplane_replicas", values["backplane_replicas"], int)),
        credentials=values["backplane_credentials"] or None,
        nkey=values["backplane_nkey"] or None,
        ca=values["backplane_ca"] or None,
    )


# How values are written ---------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Is this address one that only this machine reaches?

    >>> is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("localhost")
    (True, True, True)
    >>> is_loopback("0.0.0.0"), is_loopback("127.0.0.1.evil.example")
    (False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(value: str) -> tuple[str, ...]:
    hosts = _listed(value)
    if not hosts:
        raise ValueError(f"host must be an address, got {value!r}")
    return LOOPBACK if hosts == ("localhost",) else hosts


def _listed(value: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in value.split(","))))


def _number(name: str, value: str, kind: type) -> int | float:
    try:
        return int(value) if kind is int else float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def _boolean(name: str, value: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    except KeyError:
        raise ValueError(f"{name} must be true or false, got {value!r}") from None
