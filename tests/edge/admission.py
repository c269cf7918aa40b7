"""What a request asks for, and what of it reaches the container."""

import base64
import contextlib
import re
import uuid
from collections.abc import Mapping
from typing import Final

from websockets.http11 import Request
from websockets.typing import Subprotocol

from tests.edge.sessions import HostedRuntime

SESSION_HEADER: Final = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
CUSTOM_PREFIX: Final = "x-amzn-bedrock-agentcore-runtime-custom-"
BEARER: Final = Subprotocol("base64UrlBearerAuthorization")
HEADER: Final = re.compile(r"[a-z0-9_-]+:[\x20-\x7e\t]{0,4096}")
HEADERS_MAX: Final = 20
NEVER_PASSED: Final = {
    *("host", "origin", "cookie", "connection", "upgrade", "content-length", "transfer-encoding"),
    *("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"),
    *("sec-websocket-protocol", "proxy-authorization", "www-authenticate"),
}


class Refusal(Exception):
    """An answer before the upgrade: the status, and the exception's name as the service has it."""

    def __init__(self, status: int, name: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.name = name


def session_id_of(request: Request, fields: Mapping[str, str]) -> str:
    """The session that is asked for, in query or header; a new one if none is. Raises Refusal."""
    given = {*request.headers.get_all(SESSION_HEADER)}
    given |= {value for name, value in fields.items() if name.lower() == SESSION_HEADER.lower()}
    if not given:
        return str(uuid.uuid4())
    id = given.pop()
    if given or not 33 <= len(id) <= 256 or not HEADER.fullmatch(f"id:{id}"):
        raise Refusal(400, "ValidationException", "one session id of 33 to 256 characters")
    return id


def bearer_token(request: Request) -> str | None:
    """The token in the Authorization header, or in a subprotocol, where browsers put it."""
    for header in request.headers.get_all("Authorization"):
        kind, _, token = header.partition(" ")
        if kind.lower() == "bearer":
            return token
    for header in request.headers.get_all("Sec-WebSocket-Protocol"):
        for offered in header.split(","):
            name, _, encoded = offered.strip().partition(".")
            if name == BEARER and encoded:
                with contextlib.suppress(ValueError):
                    padding = "=" * (-len(encoded) % 4)
                    return base64.urlsafe_b64decode(encoded + padding).decode()
    return None


def passed_headers(
    request: Request, fields: Mapping[str, str], runtime: HostedRuntime
) -> dict[str, str]:
    """Those that reach the container: the allowlist's; custom ones also from the query.

    Never those of AWS itself, and Authorization only where it is a bearer token. Raises Refusal.
    """

    def is_meant(name: str) -> bool:
        if name.startswith(CUSTOM_PREFIX):
            return True
        if name.startswith(("x-amz-", "x-amzn-")) or name in NEVER_PASSED:
            return False
        return name in runtime.allowed_headers and bool(
            runtime.authorizer or name != "authorization"
        )

    meant = {n.lower(): v for n, v in fields.items() if n.lower().startswith(CUSTOM_PREFIX)}
    meant |= {n.lower(): v for n, v in request.headers.raw_items() if is_meant(n.lower())}
    if len(meant) > HEADERS_MAX or not all(HEADER.fullmatch(f"{n}:{v}") for n, v in meant.items()):
        raise Refusal(400, "ValidationException", "too many, too long or malformed headers")
    return {name: value for name, value in meant.items() if name in runtime.allowed_headers}
