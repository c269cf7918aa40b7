"""`agi-mesh token`: makes a token for a relay with a shared secret, or explains one.

The secret comes from `RELAY_AUTH_SECRET` or a file, as for the relay, and never from an argument:
other users of a machine see those.
"""

import json
import os
import re
import sys
import time
from typing import Any, Final

import click

from actors.cli.running import CannotDo
from protocol.about import missing_extra

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[int]):
    """Seconds, from a number and a unit."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Called by click."""
        if isinstance(value, int):
            return value
        seconds = duration(value)
        if seconds is None:
            self.fail(f"a time is like 90s, 15m, 1h or 7d, not {value!r}", param, ctx)
        return seconds


def duration(written: str) -> int | None:
    """Seconds, from a number and a unit; None if it is none.

    >>> duration("90s"), duration("1h"), duration("7d"), duration("soon")
    (90, 3600, 604800, None)
    """
    match = re.fullmatch(r"([1-9]\d{0,8})([smhd])", written)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


@click.command()
@click.option("--sub", metavar="ID", help="The peer id: this one, or any below it (ID/...).")
@click.option("--mesh", multiple=True, metavar="NAME", help="A mesh (NAME, or PREFIX*).")
@click.option("--agent", multiple=True, metavar="NAME", help="An agent (NAME, or PREFIX*).")
@click.option("--may", type=click.Choice(["send", "watch"]), multiple=True)
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="90s, 15m, 1h, 7d.")
@click.option("--issuer", help="The claim `iss`, if the relay asks for one.")
@click.option("--audience", help="The claim `aud`, if the relay asks for one.")
@click.option("--auth-secret-file", metavar="FILE", help="A file that holds the secret.")
@click.option("--show", metavar="TOKEN", help="Explain this token; `-` reads it from stdin.")
def token(
    *,
    sub: str | None,
    mesh: tuple[str, ...],
    agent: tuple[str, ...],
    may: tuple[str, ...],
    ttl: int,
    issuer: str | None,
    audience: str | None,
    auth_secret_file: str | None,
    show: str | None,
) -> None:
    """Make a token that lets a peer in, or explain one (--show).

    The relay's secret is in RELAY_AUTH_SECRET or --auth-secret-file. By default a token is good for
    all meshes and agents, and its bearer may do both, send and watch.
    """
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
        secret = secret_from(auth_secret_file, os.environ)
    except BadSecret as error:
        raise CannotDo(str(error)) from None
    if show is not None:
        given = sys.stdin.read().strip() if show == "-" else show
        sys.stdout.write(explained(given, secret))
        return
    if sub is None:
        raise CannotDo("say for whom: --sub ID")
    if secret is None:
        raise CannotDo("set RELAY_AUTH_SECRET or --auth-secret-file to the relay's secret")
    now = int(time.time())
    claims = {
        "sub": sub,
        "iat": now,
        "exp": now + ttl,
        "mesh": list(mesh) or None,
        "agents": list(agent) or None,
        "may": list(may) or None,
        "iss": issuer,
        "aud": audience,
    }
    said = {name: value for name, value in claims.items() if value is not None}
    made = jwt.encode(said, secret, "HS256")
    try:  # what the relay would refuse is not made
        check_length(made)
        grant_of(said, Auth(secret=secret))
    except NotAdmitted as error:
        raise CannotDo(str(error)) from None
    sys.stdout.write(f"{made}\n")


def explained(token: str, secret: bytes | None) -> str:
    """What a token says, line by line, and whether `secret` has signed it. Raises CannotDo."""
    import jwt  # noqa: PLC0415

    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise CannotDo("this is no token (a JWT: three parts with dots between them)") from None
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
