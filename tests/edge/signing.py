"""Who may come in: SigV4 with botocore's own signer as the judge, and who gives out the keys.

The judge signs the request again, as it arrived, with the secret of the key that it names; only a
request that nobody changed gives the same signature. The `Host` is part of what is signed, and it
is the one that arrived: a client that is mapped to this port signs for the service's own host, a
browser, which cannot do that, for the host and port in its URL. Both come out right.
"""

import hmac
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import attrs
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from websockets.datastructures import Headers

SERVICE: Final = "bedrock-agentcore"
ALGORITHM: Final = "AWS4-HMAC-SHA256"
STAMP: Final = "%Y%m%dT%H%M%SZ"
EXPIRES_S_MAX: Final = 300
SKEW_S: Final = 300


@attrs.frozen
class Credentials:
    """Keys of AWS. Temporary ones have a token and an end, in milliseconds since the epoch."""

    access_key: str
    secret_key: str = attrs.field(repr=False)
    token: str | None = attrs.field(default=None, repr=False)
    expires_ms: int | None = None


class Denied(Exception):
    """The request is not signed as it should be; the text says in what respect."""


class Issuer:
    """Gives out temporary keys, as STS does, and knows them again.

    (moto's Cognito gives everyone the same made-up keys; see edge.cognito, which gives these.)
    """

    def __init__(self) -> None:
        self._issued: dict[str, Credentials] = {}

    def issue(self, expires_ms: int | None = None) -> Credentials:
        """Keys that nobody else has."""
        key = "ASIA" + secrets.token_hex(8).upper()
        credentials = Credentials(key, secrets.token_hex(20), secrets.token_hex(64), expires_ms)
        self._issued[key] = credentials
        return credentials

    def get(self, access_key: str) -> Credentials | None:
        """The keys that go by this name."""
        return self._issued.get(access_key)


def presign(
    credentials: Credentials, region: str, url: str, now_ms: int, expires_s: int = EXPIRES_S_MAX
) -> str:
    """The URL with a signature in its query, for whoever has it, until it expires."""
    parts = urlsplit(url)
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime(STAMP)
    fields = {
        **dict(parse_qsl(parts.query, keep_blank_values=True)),
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{stamp[:8]}/{region}/{SERVICE}/aws4_request",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": expires_s,
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": credentials.token} if credentials.token else {}),
    }
    target = f"{parts.path}?{urlencode(fields, quote_via=quote, safe='-_.~')}"
    signature = _signature(credentials, region, stamp, target, {"host": parts.netloc})
    return f"{parts.scheme}://{parts.netloc}{target}&X-Amz-Signature={signature}"


def verify(
    target: str,
    headers: Headers,
    region: str,
    lookup: Callable[[str], Credentials | None],
    now_ms: int,
) -> None:
    """Check a request of this target (path and query) and these headers. Raises Denied.

    The signature stands in the query (a presigned URL) or in the headers.
    """
    path, _, query = target.partition("?")
    fields = dict(parse_qsl(query, keep_blank_values=True))
    authorization = _header(headers, "Authorization")
    if "X-Amz-Signature" in fields:
        expires_s = _number(fields.get("X-Amz-Expires", ""))
        pairs = [p for p in query.split("&") if not p.startswith("X-Amz-Signature=")]
        target = f"{path}?{'&'.join(pairs)}"
    elif authorization.startswith(ALGORITHM + " "):
        words = authorization[len(ALGORITHM) :].split(",")
        named = dict(word.strip().partition("=")[::2] for word in words)
        fields = {f"X-Amz-{name}": value for name, value in named.items()}
        for name in ("X-Amz-Date", "X-Amz-Security-Token"):
            fields[name] = _header(headers, name)
        fields["X-Amz-Algorithm"] = ALGORITHM
        expires_s = EXPIRES_S_MAX
    else:
        raise Denied("not signed")

    if fields.get("X-Amz-Algorithm") != ALGORITHM:
        raise Denied("unknown algorithm")
    stamp = fields.get("X-Amz-Date", "")
    key, _, scope = fields.get("X-Amz-Credential", "").partition("/")
    if scope != f"{stamp[:8]}/{region}/{SERVICE}/aws4_request":
        raise Denied("signed for another day, region or service")
    credentials = lookup(key)
    if credentials is None:
        raise Denied("unknown key")
    if not _same(fields.get("X-Amz-Security-Token", ""), credentials.token or ""):
        raise Denied("wrong session token")
    if credentials.expires_ms is not None and now_ms >= credentials.expires_ms:
        raise Denied("the keys have expired")
    if not 1 <= expires_s <= EXPIRES_S_MAX:
        raise Denied(f"X-Amz-Expires must be from 1 to {EXPIRES_S_MAX}")
    if not -SKEW_S <= now_ms / 1000 - _seconds(stamp) <= expires_s:
        raise Denied("expired, or not yet valid")
    names = fields.get("X-Amz-SignedHeaders", "").split(";")
    if "host" not in names:
        raise Denied("the host is not signed")
    signed = {name: _header(headers, name) for name in names}
    try:
        expected = _signature(credentials, region, stamp, target, signed)
    except ValueError:  # a host that is none
        raise Denied("malformed") from None
    if not _same(fields.get("X-Amz-Signature", ""), expected):
        raise Denied("the signature does not match")


def _signature(
    credentials: Credentials, region: str, stamp: str, target: str, headers: dict[str, str]
) -> str:
    request: Any = AWSRequest("GET", f"https://{headers['host']}{target}", headers=headers)
    request.context["timestamp"] = stamp
    keys = ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    signer: Any = SigV4Auth(keys, SERVICE, region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _header(headers: Headers, name: str) -> str:
    return ",".join(headers.get_all(name))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _seconds(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Denied("no proper date") from None
