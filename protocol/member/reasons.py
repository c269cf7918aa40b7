"""Why a connection could not be made, in words that say what to do.

Who opens a connection sees something: an HTTP status, a port at which nobody listens, or, in a
browser, next to nothing. `Seen` says what; `reason` finds what it means. The first line of its
table that fits is the answer:

    a page may not try               its policy, its scheme or its browser forbids it
    nobody answers                   `trouble` says how that looked
    an HTTP status                   what a server answered to the opening, or to a look at its URL
    somebody answers, unreadably     a browser hides what; what may be meant is said

Advice depends on where the URL points: what AWS wants is of no use to who has a relay on this
machine. No sentence holds more of the URL than its host, port and path.
"""

import enum
from typing import Final, Literal

import attrs

from protocol.member.errors import BadAddress, Rejected, RelayError, Unreachable

RELAY_PATH: Final = "/ws"
"""Where the WebSocket of a relay is."""
ROOT_PATHS: Final = ("", "/", "/ws/")
"""The relay of this project takes these for `RELAY_PATH`, because people write them."""

Trouble = Literal["refused", "unknown_host", "timeout", "no_route", "not_tls", "closed"]
Permission = Literal["granted", "prompt", "denied"]


class Place(enum.Enum):
    """Where a URL points."""

    LOCAL = "local"  # this machine
    AWS = "aws"  # Amazon Bedrock AgentCore
    ELSEWHERE = "elsewhere"


def place_of(host: str) -> Place:
    """Where a host name, in lower case, points.

    >>> place_of("127.0.0.1"), place_of("bedrock-agentcore.eu-west-1.amazonaws.com")
    (<Place.LOCAL: 'local'>, <Place.AWS: 'aws'>)
    """
    name = host.removeprefix("[").removesuffix("]").removesuffix(".")
    if name in ("localhost", "::1") or name.endswith(".localhost") or name.startswith("127."):
        return Place.LOCAL
    is_aws = name.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return Place.AWS if is_aws else Place.ELSEWHERE


@attrs.frozen(kw_only=True)
class Seen:
    """What was seen of an attempt.

    `host`, `port`, `path`, `is_secure`: of the URL; the path without the query. `has_token`: a
    token went along. `trouble`: why there is no TCP connection or no answer, where that is known.
    `status`: the HTTP status that answers the opening, or, where a browser hides that, a look at
    the same path. `is_there`: somebody answers over HTTP; None: not known.

    Of a page: `origin`, None for a program. `is_forbidden`: its Content Security Policy stopped the
    attempt. `permission`: what its user has said to `local network access`, None where the browser
    does not ask.
    """

    host: str
    port: int
    path: str = RELAY_PATH
    is_secure: bool = False
    has_token: bool = False
    trouble: Trouble | None = None
    status: int | None = None
    is_there: bool | None = None
    origin: str | None = None
    is_forbidden: bool = False
    permission: Permission | None = None


def reason(seen: Seen) -> RelayError:
    """What to tell: a permanent error if no further attempt can help while nothing changes."""
    shown = f"{seen.host}:{seen.port}"
    error = _not_allowed_to_try(seen, shown)
    if error is None and seen.status is None and seen.is_there is not True:
        error = Unreachable(_nobody(seen, shown))
    if error is None and seen.status is not None:
        sentence = _answered(seen, seen.status)
        error = Rejected(f"{shown} answered {seen.status}: {sentence}", seen.status)
    return error or Rejected(_unreadable(seen, shown))


# A page may not try -------------------------------------------------------------------------------


def _not_allowed_to_try(seen: Seen, shown: str) -> RelayError | None:
    origin = seen.origin
    if seen.is_forbidden:
        scheme = "wss" if seen.is_secure else "ws"
        return BadAddress(
            f"this page's Content-Security-Policy forbids it to connect to {shown}; add "
            f"{scheme}://{shown} to `connect-src`"
        )
    is_local = place_of(seen.host) is Place.LOCAL
    if origin is not None and origin.startswith("https:") and not seen.is_secure and not is_local:
        return BadAddress(
            f"a page of https may not connect to {shown} without TLS; use wss:// in the URL"
        )
    if seen.permission == "denied":
        return Rejected(
            f"this browser keeps the page from {shown}, because that is an address of this machine "
            f"or its network; allow {origin} `local network access` in the site's settings "
            "(docs/local.md)",
            is_transient=False,
        )
    return None


# Nobody answers -----------------------------------------------------------------------------------

_TROUBLES: Final[dict[Trouble, str]] = {
    "refused": "nobody listens at {shown}; is the relay running? Check host and port",
    "unknown_host": "there is no host {host}; check its name in the URL",
    "timeout": "{shown} does not answer; check host and port, and whether a firewall is in between",
    "no_route": "there is no way to {shown}; is this machine online?",
    "not_tls": "{shown} does not speak TLS; use ws:// in the URL, or another port",
    "closed": "{shown} closed the connection before it was open",
}


def _nobody(seen: Seen, shown: str) -> str:
    if seen.trouble is not None:
        return _TROUBLES[seen.trouble].format(shown=shown, host=seen.host)
    if seen.permission == "prompt":
        return (
            f"{shown} is an address of this machine or its network, and the browser asks its user "
            f"whether {seen.origin} may reach it; allow it (docs/local.md)"
        )
    if seen.is_there is False:
        return f"nobody answers at {shown}; is the relay running? Check host and port"
    return f"there is no connection to {shown}; check that a relay is there, host and port"


# An HTTP status -----------------------------------------------------------------------------------

_NO_RELAY: Final = "a server is there, and no relay of agent meshes; check host and port"
_NOT_THIS_PATH: Final = f"no relay is at this path; that of a relay is {RELAY_PATH}"
_GOES_ELSEWHERE: Final = "it sends to another address; use that one in the URL"

_AWS: Final = {
    400: "the request is not valid; check the ARN and that the session id has 33 to 256 characters",
    401: "the token is missing, has expired or is not accepted; log in again",
    403: "not allowed; check that the token is for this mesh, or that the credentials have not "
    "expired and may invoke this runtime over WebSocket; also check the region, and this machine's "
    "clock",
    404: "there is nothing at this address; check the ARN and the region",
    409: "the session is starting or stopping",
    424: "the relay behind AgentCore did not answer, or did not accept the token; see its logs",
}
_ANYWHERE: Final = {
    400: "the request is not valid; check the URL, and the name of the mesh",
    401: "the token is missing, has expired or is not accepted; log in again",
    403: "not allowed; check that the token is for this mesh",
    408: "the request came too slowly",
    409: "it cannot take the connection just now",
    421: "the relay does not know this host name as its own (`--allow-host`)",
    426: "a relay is there, and did not take the connection",
    429: "too many requests",
    431: "the token, or another header, is too long",
    502: "what is in front of the relay does not reach it; is the relay running?",
    503: "the relay is full, or it is shutting down",
    504: "what is in front of the relay gets no answer from it",
}


def _answered(seen: Seen, status: int) -> str:
    if place_of(seen.host) is Place.AWS and status in _AWS:
        return _AWS[status]
    if status == 403 and seen.origin == "null":
        return (
            "the relay does not take pages that are opened from files; open the page over HTTP "
            "(python3 -m http.server), or start the relay with --allowed-origins null"
        )
    if status == 403 and seen.origin is not None:
        return (
            f"the relay does not allow the origin {seen.origin}; start it with --allowed-origins "
            f"{seen.origin}, or check that the token is for this mesh"
        )
    if status == 426 and seen.origin is not None and seen.has_token:
        return "a relay is there, and refuses the token, or is full; log in again"
    if status == 426 and seen.origin is not None:
        return "a relay is there, and refuses the connection; it asks for a token, or is full"
    if status in _ANYWHERE:
        return _ANYWHERE[status]
    if 300 <= status < 400:
        return _GOES_ELSEWHERE
    if status >= 500:
        return "it has failed; see its logs"
    return _NO_RELAY if seen.path in (RELAY_PATH, *ROOT_PATHS) else _NOT_THIS_PATH


# Somebody answers, and a browser hides what -------------------------------------------------------


def _unreadable(seen: Seen, shown: str) -> str:
    if place_of(seen.host) is Place.AWS:
        return (
            f"{shown} refuses the connection, and the browser hides why; check that the "
            "credentials are valid and may invoke the runtime, the token, the region, and this "
            "machine's clock"
        )
    token = "the token, " if seen.has_token else ""
    return (
        f"a server answers at {shown}, and opens no WebSocket; the browser hides why: check "
        f"{token}that it is a relay, its path ({RELAY_PATH}), and that it allows the origin "
        f"{seen.origin} (--allowed-origins)"
    )
