"""`agi-mesh token`: makes a token for a relay with a shared secret, or explains one.

The secret comes from `RELAY_AUTH_SECRET` or a file, as for the relay, and never from an argument:
other users of a machine see those.
"""

import argparse
import json
import os
import re
import sys
import time
from typing import Any, Final

from protocol.about import missing_extra

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class BadToken(Exception):
    """The token cannot be made or read. The text is one sentence that says why."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "token",
        help="make a token that lets a peer in, or explain one",
        description="Makes a token for a relay with a shared secret (RELAY_AUTH_SECRET, or "
        "--auth-secret-file), or explains one (--show).",
    )
    parser.add_argument(
        "--sub", metavar="ID", help="the peer id: this one, or any below it (ID/...)"
    )
    parser.add_argument(
        "--mesh", action="append", metavar="NAME", help="a mesh (NAME, or PREFIX*); default: all"
    )
    parser.add_argument(
        "--agent", action="append", metavar="NAME", help="an agent (NAME, or PREFIX*); default: all"
    )
    parser.add_argument(
        "--may", choices=("send", "watch"), action="append", help="default: both of them"
    )
    parser.add_argument(
        "--ttl", type=duration, default=3600, metavar="TIME", help="90s, 15m, 1h, 7d; default: 1h"
    )
    parser.add_argument("--issuer", help="the claim `iss`, if the relay asks for one")
    parser.add_argument("--audience", help="the claim `aud`, if the relay asks for one")
    parser.add_argument("--auth-secret-file", metavar="FILE", help="a file that holds the secret")
    parser.add_argument(
        "--show", metavar="TOKEN", help="explain this token; `-` reads it from stdin"
    )
    parser.set_defaults(run=_run)


def duration(written: str) -> int:
    """Seconds, from a number and a unit.

    >>> duration("90s"), duration("1h"), duration("7d")
    (90, 3600, 604800)
    """
    match = re.fullmatch(r"([1-9]\d{0,8})([smhd])", written)
    if match is None:
        raise argparse.ArgumentTypeError(f"a time is like 90s, 15m, 1h or 7d, not {written!r}")
    return int(match[1]) * _UNITS[match[2]]


def _run(options: argparse.Namespace) -> int:
    try:
        import jwt  # noqa: PLC0415 (an extra brings it)

        from actors.host.tokens import (  # noqa: PLC0415
            Auth,
            BadSecret,
            NotAdmitted,
            check_length,
            grant_of,
            secret_from,
        )
    except ModuleNotFoundError as error:
        raise missing_extra(error, "relay", "agi-mesh token") from None
    try:
        secret = secret_from(options.auth_secret_file, os.environ)
    except BadSecret as error:
        raise BadToken(str(error)) from None
    if options.show is not None:
        token = sys.stdin.read().strip() if options.show == "-" else options.show
        sys.stdout.write(explained(token, secret))
        return 0
    if options.sub is None:
        raise BadToken("say for whom: --sub ID")
    if secret is None:
        raise BadToken("set RELAY_AUTH_SECRET or --auth-secret-file to the relay's secret")
    now = int(time.time())
    claims = {
        "sub": options.sub,
        "iat": now,
        "exp": now + options.ttl,
        "mesh": options.mesh,
        "agents": options.agent,
        "may": options.may,
        "iss": options.issuer,
        "aud": options.audience,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    token = jwt.encode(given, secret, "HS256")
    try:  # what the relay would refuse is not made
        check_length(token)
        grant_of(given, Auth(secret=secret))
    except NotAdmitted as error:
        raise BadToken(str(error)) from None
    sys.stdout.write(f"{token}\n")
    return 0


def explained(token: str, secret: bytes | None) -> str:
    """What a token says, line by line, and whether `secret` has signed it. Raises BadToken."""
    import jwt  # noqa: PLC0415

    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("this is no token (a JWT: three parts with dots between them)") from None
    claims: dict[str, Any] = whole["payload"]
    lines = [
        f"signed with   {json.dumps(whole['header'].get('alg'))[1:-1]}{_signature(token, secret)}"
    ]
    # Coded as JSON, so that a terminal finds nothing to obey.
    lines += [
        f"{json.dumps(name)[1:-1]:<13} {_shown(name, value)}" for name, value in claims.items()
    ]
    return "\n".join(lines) + "\n"


def _signature(token: str, secret: bytes | None) -> str:
    import jwt  # noqa: PLC0415

    if secret is None:
        return " (not checked: no secret is set)"
    try:
        jwt.PyJWS().decode(token, secret, algorithms=["HS256"])
    except jwt.PyJWTError:
        return ", NOT with the secret that is set"
    return ", with the secret that is set"


def _shown(name: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    is_time = name in ("exp", "iat", "nbf", "auth_time") and isinstance(value, int | float)
    if is_time and abs(value) < 2**53:  # neither NaN nor Infinity
        left_s = value - time.time()
        when = f"in {_span(left_s)}" if left_s > 0 else f"{_span(-left_s)} ago"
        return f"{text} ({when})"
    return text


def _span(seconds: float) -> str:
    """A time in its largest unit.

    >>> _span(7300), _span(59)
    ('2h', '59s')
    """
    unit = max((u for u in _UNITS if seconds >= _UNITS[u]), key=_UNITS.__getitem__, default="s")
    return f"{int(seconds // _UNITS[unit])}{unit}"
