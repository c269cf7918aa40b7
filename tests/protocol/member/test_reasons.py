"""Why a connection could not be made: what is said, and to whom."""

import itertools
from typing import Any

import pytest

from protocol.member.errors import BadAddress, Rejected, RelayError, Unreachable
from protocol.member.reasons import Place, Seen, place_of, reason

LOCAL, AWS, ELSEWHERE = "localhost", "bedrock-agentcore.eu-west-1.amazonaws.com", "relay.example"
PAGE = "https://agi.diy"


def why(host: str = LOCAL, **seen: Any) -> RelayError:
    return reason(Seen(host=host, port=8080, **seen))


@pytest.mark.parametrize(
    ("host", "place"),
    [
        *(("localhost", Place.LOCAL), ("127.0.0.1", Place.LOCAL), ("127.1.2.3", Place.LOCAL)),
        *(("::1", Place.LOCAL), ("[::1]", Place.LOCAL), ("relay.localhost", Place.LOCAL)),
        *(("localhost.", Place.LOCAL), ("localhost.example", Place.ELSEWHERE)),
        *((AWS, Place.AWS), ("x.amazonaws.com.cn", Place.AWS), ("amazonaws.com", Place.ELSEWHERE)),
        *(("evilamazonaws.com", Place.ELSEWHERE), ("1270.0.0.1", Place.ELSEWHERE)),
    ],
)
def test_where_a_host_is(host: str, place: Place) -> None:
    assert place_of(host) is place


EVERYTHING = [
    why(host, status=status, trouble=trouble, is_there=there, origin=origin, has_token=token,
        permission=permission, path=path, is_secure=secure, is_forbidden=forbidden)
    for host, status, (trouble, there), origin, token, permission, path, secure, forbidden in
    itertools.product(
        (LOCAL, ELSEWHERE),
        (None, 200, 301, 400, 401, 403, 404, 409, 426, 429, 500, 502, 503),
        (("refused", None), (None, True), (None, False), (None, None)),
        (None, "null", PAGE),
        (False, True),
        (None, "prompt", "denied"),
        ("/ws", "/other"),
        (False, True),
        (False, True),
    )
]  # fmt: skip


def test_only_who_goes_to_aws_gets_advice_about_aws() -> None:
    for error in EVERYTHING:
        for word in ("AWS", "ARN", "region", "credentials", "AgentCore", "clock"):
            assert word not in str(error)


def test_programs_hear_nothing_of_origins_and_pages() -> None:
    for status in (None, 200, 401, 403, 404, 426, 503):
        for host in (LOCAL, AWS, ELSEWHERE):
            assert "origin" not in str(why(host, status=status))


def test_every_reason_names_host_and_port() -> None:
    assert all("localhost:8080" in str(e) or "relay.example:8080" in str(e) for e in EVERYTHING)


@pytest.mark.parametrize(
    ("seen", "kind", "is_transient", "words"),
    [
        ({"trouble": "refused"}, Unreachable, True, "is the relay running"),
        ({"trouble": "unknown_host"}, Unreachable, True, "no host localhost"),
        ({"is_there": False}, Unreachable, True, "nobody answers at localhost:8080"),
        ({"status": 404, "path": "/foo"}, Rejected, False, "that of a relay is /ws"),
        ({"status": 404, "path": "/ws"}, Rejected, False, "no relay of agent meshes"),
        ({"status": 200, "path": "/"}, Rejected, False, "no relay of agent meshes"),
        ({"status": 301, "path": "/"}, Rejected, False, "another address"),
        ({"status": 403, "origin": "null"}, Rejected, False, "opened from files"),
        ({"status": 403, "origin": PAGE}, Rejected, False, f"--allowed-origins {PAGE}"),
        ({"status": 403}, Rejected, False, "for this mesh"),
        ({"status": 426, "origin": PAGE, "has_token": True}, Rejected, True, "the token"),
        ({"status": 426, "origin": PAGE}, Rejected, True, "asks for a token"),
        ({"status": 503}, Rejected, True, "full"),
        ({"status": 502}, Rejected, True, "is the relay running"),
        ({"status": 599}, Rejected, True, "see its logs"),
        ({"is_there": True, "origin": PAGE}, Rejected, True, f"allows the origin {PAGE}"),
        (
            {"host": AWS, "is_secure": True, "is_there": True, "origin": PAGE},
            *(Rejected, True, "may invoke the runtime"),
        ),
        ({"host": AWS, "status": 403}, Rejected, False, "region"),
        ({"host": AWS, "status": 409}, Rejected, True, "starting or stopping"),
        ({"is_forbidden": True, "origin": PAGE}, BadAddress, False, "ws://localhost:8080"),
        ({"is_forbidden": True, "is_secure": True, "origin": PAGE}, BadAddress, False, "wss://l"),
        ({"host": ELSEWHERE, "origin": PAGE}, BadAddress, False, "wss://"),
        ({"permission": "denied", "origin": PAGE}, Rejected, False, "local network access"),
        ({"permission": "prompt", "origin": PAGE}, Unreachable, True, "allow it"),
        ({"permission": "granted", "is_there": False, "origin": PAGE}, Unreachable, True, "nobody"),
    ],
)
def test_what_is_said(
    seen: dict[str, Any], kind: type[RelayError], *, is_transient: bool, words: str
) -> None:
    error = why(**seen)
    assert type(error) is kind
    assert error.is_transient is is_transient
    assert words in str(error)
    assert getattr(error, "status", None) == seen.get("status")
