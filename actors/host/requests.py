"""Decides about an HTTP request: may its head be parsed, and may it be served?"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

import h11

from actors.host.settings import is_loopback
from protocol.limits import Limits

INVOCATIONS: Final = b"/invocations"
SEND: Final = b"/send"
"""The only paths that take a body."""

_VERSION_13: Final = b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"


class Refusal(NamedTuple):
    """Why a request is not served."""

    status: HTTPStatus
    text: str
    """For the client and for the log. It holds nothing that the client sent."""
    headers: bytes = b""


def refusal_of_head(head_bytes: int, lines: int, limits: Limits) -> Refusal | None:
    """May a head of so many bytes and header lines be parsed?"""
    too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if head_bytes > limits.head_bytes_max:
        return Refusal(too_large, f"the head has more than {limits.head_bytes_max} bytes")
    if lines > limits.headers_max:
        return Refusal(too_large, f"more than {limits.headers_max} headers")
    return None


def refusal_of_request(
    request: h11.Request, limits: Limits, hosts: frozenset[str] | None
) -> Refusal | None:
    """May this request be served, as far as its head tells?

    `hosts` are the names by which this machine may be asked beside its loopback ones, in lower
    case; None: any name.
    """
    named: dict[bytes, bytes] = dict(request.headers)
    if not request.target.startswith(b"/"):
        return Refusal(HTTPStatus.BAD_REQUEST, "ask for a path: the relay is not a proxy")
    host = named.get(b"host")
    if hosts is not None and host is not None and not is_own(host.decode("latin-1"), hosts):
        return Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "the relay listens on this machine only, and the Host header names another; "
            "--allow-host NAME (RELAY_ALLOW_HOST) lets it in",
        )
    is_chunked = b"transfer-encoding" in named
    if is_chunked and b"content-length" in named:
        return Refusal(HTTPStatus.BAD_REQUEST, "both Content-Length and Transfer-Encoding")
    length = int(named.get(b"content-length", b"0"))
    if is_opening(request.headers):
        if is_chunked or length:
            return Refusal(HTTPStatus.BAD_REQUEST, "the opening of a WebSocket has no body")
        if named.get(b"sec-websocket-version") != b"13":
            return Refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "only version 13 of the WebSocket protocol is spoken here",
                _VERSION_13,
            )
        return None
    most = body_bytes_max(request, limits)
    if (is_chunked or length) and not most:
        text = "only /invocations and /send take a body"
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
    return too_long(most) if length > most else None


def body_bytes_max(request: h11.Request, limits: Limits) -> int:
    """How long the body of this request may be. 0: it has none."""
    path = request.target.partition(b"?")[0]
    return {INVOCATIONS: limits.body_bytes_max, SEND: limits.message_bytes_max}.get(path, 0)


def too_long(most: int) -> Refusal:
    """The refusal of a body of more than so many bytes."""
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most} bytes")


def is_opening(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Do these headers ask for a WebSocket, as uvicorn reads them?"""
    named = dict(headers)
    tokens = [token.strip() for token in named.get(b"connection", b"").lower().split(b",")]
    return b"upgrade" in tokens and named.get(b"upgrade", b"").lower() == b"websocket"


def is_own(host: str, others: frozenset[str]) -> bool:
    """Does a Host header name this machine: `localhost`, a loopback address, or one of `others`?

    A page of another site can reach a relay on this machine by a name of its own that resolves to
    127.0.0.1. Its requests tell that name.

    >>> is_own("localhost:8080", frozenset()), is_own("[::1]:8080", frozenset())
    (True, True)
    >>> is_own("evil.example:8080", frozenset()), is_own("127.0.0.1.evil.example", frozenset())
    (False, False)
    """
    name = re.sub(r":\d*$", "", host.lower()).rstrip(".")
    return is_loopback(name.removeprefix("[").removesuffix("]")) or name in others
