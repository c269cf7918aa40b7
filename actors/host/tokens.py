"""Who may come in: finds the token of a request, checks it, and makes a grant of its claims.

A token is a JWT (RFC 7519). It is signed with a secret that the relay shares (HS256), or by an
issuer whose public keys the relay fetches (RS256, ES256; actors/host/keys.py). Nothing else is
accepted, whatever the token says about itself. It must say when it ends (`exp`).

A token never stands in a URL of ours, and never in a log, a status or an error.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import jwt

from actors.clock import Clock
from actors.host.keys import ALGORITHMS, KeySet, KeysUnavailable
from protocol.grants import Grant
from protocol.session import OAUTH_SUBPROTOCOL, TOKEN_HEADER

TOKEN_CHARS_MAX: Final = 8192
CLOCK_SKEW_S: Final = 60
"""So far (seconds) the clock of whoever made the token may be from ours."""

SECRET_BYTES_MIN: Final = 32
"""As many as HS256 makes use of (RFC 7518, section 3.2)."""

CLAIMS: Final = {"peer": "sub", "mesh": "mesh", "agents": "agents", "may": "may"}
"""What a grant is made of, and the claims that say it by default."""

_MAKES_ONE: Final = "`openssl rand -hex 32` makes one"

_MAY: Final = {"send", "watch"}


class NotAdmitted(Exception):
    """A request is refused. `status`: 401, or 503 if the keys cannot be had. The text says what to
    do about it, and nothing about the token."""

    def __init__(self, sentence: str, status: int = 401) -> None:
        super().__init__(sentence)
        self.status = status


class BadSecret(ValueError):
    """The secret cannot be read. The text is one sentence, and says nothing of the secret."""


@attrs.frozen(kw_only=True)
class Auth:
    """How tokens are checked. `secret` or `jwks_url` is set. A bad value raises ValueError.

    `issuer`, `audience`: what the claims `iss` and `aud` must be; with a secret they may be left
    out. `peer_claim`, `mesh_claim`, `agents_claim`, `may_claim`: the claims of which the grant is
    made.
    """

    secret: bytes | None = attrs.field(default=None, repr=False)
    jwks_url: str | None = None
    issuer: str | None = None
    audience: str | None = None
    peer_claim: str = CLAIMS["peer"]
    mesh_claim: str = CLAIMS["mesh"]
    agents_claim: str = CLAIMS["agents"]
    may_claim: str = CLAIMS["may"]

    def __attrs_post_init__(self) -> None:
        if (self.secret is None) == (self.jwks_url is None):
            raise ValueError("set either a secret for tokens or auth_jwks_url, not both")
        if self.secret is not None:
            _check_secret(self.secret)
        for name in CLAIMS:
            if not getattr(self, f"{name}_claim"):
                raise ValueError(f"auth_{name}_claim must name a claim")
        if self.jwks_url is not None:
            if not _is_safe(self.jwks_url):
                raise ValueError("auth_jwks_url must begin with https:// (http:// on loopback)")
            if not (self.issuer and self.audience):
                raise ValueError("auth_jwks_url needs auth_issuer and auth_audience")


def _is_safe(url: str) -> bool:
    """Nobody between us and the provider can put in keys of his own.

    >>> _is_safe("https://issuer.example/keys"), _is_safe("http://localhost:80@evil.example/")
    (True, False)
    """
    try:
        where = urlsplit(url)
    except ValueError:
        return False
    is_loopback = where.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(where.hostname) and where.scheme in ("https", "http" if is_loopback else "https")


def _check_secret(secret: bytes) -> None:
    if len(secret) < SECRET_BYTES_MIN:
        raise BadSecret(
            f"the secret for tokens needs at least {SECRET_BYTES_MIN} bytes; {_MAKES_ONE}"
        )
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise BadSecret(
            f"the secret for tokens is a key or certificate, and parts of those are public; "
            f"{_MAKES_ONE}"
        ) from None


def secret_from(file: str | None, environ: Mapping[str, str]) -> bytes | None:
    """The shared secret: what `file` holds, else `RELAY_AUTH_SECRET`. None if there is neither.

    White space (of ASCII) at its ends does not count. Raises BadSecret (no such file, too short,
    or the key of something else).
    """
    if file is not None:
        try:
            secret = Path(file).read_bytes()
        except OSError as error:
            raise BadSecret(f"auth_secret_file cannot be read: {error.strerror}") from None
    elif "RELAY_AUTH_SECRET" in environ:
        secret = os.fsencode(environ["RELAY_AUTH_SECRET"])  # any bytes, as in a file
    else:
        return None
    secret = secret.strip()
    _check_secret(secret)
    return secret


def token_of(headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> str | None:
    """The token of a request: of `Authorization`, the subprotocols, or AgentCore's header.

    `headers` are looked up in lower case. None: there is none.

    >>> token_of({"authorization": "Bearer a.b.c"})
    'a.b.c'
    >>> token_of({}, ["base64UrlBearerAuthorization.YS5iLmM", "base64UrlBearerAuthorization"])
    'a.b.c'
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    for name in subprotocols:
        prefix, dot, coded = name.partition(".")
        if prefix == OAUTH_SUBPROTOCOL and dot:
            try:
                return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""  # a token, but no valid one
    return headers.get(TOKEN_HEADER.lower())


class Tokens:
    """Checks tokens by `auth`."""

    def __init__(self, auth: Auth, clock: Clock, keys: KeySet | None = None) -> None:
        self._auth = auth
        self._keys = keys or (KeySet(auth.jwks_url, clock) if auth.jwks_url else None)

    async def grant(self, token: str | None) -> Grant:
        """What the bearer of this token may do. Raises NotAdmitted."""
        if token is None:
            raise NotAdmitted(
                "this relay asks for a token (Authorization: Bearer, or a subprotocol)"
            )
        check_length(token)
        try:
            claims = await self._claims(token)
        except KeysUnavailable:
            raise NotAdmitted("the issuer's keys cannot be had just now; try again", 503) from None
        except _BAD_TOKEN as error:
            raise NotAdmitted(_REASONS.get(type(error), _NOT_VALID)) from None
        return grant_of(claims, self._auth)

    async def _claims(self, token: str) -> dict[str, Any]:
        auth = self._auth
        key: bytes | jwt.PyJWK
        if self._keys is None:
            assert auth.secret is not None
            key, algorithm = auth.secret, "HS256"
        else:
            header = jwt.get_unverified_header(token)
            algorithm = str(header.get("alg"))
            if algorithm not in ALGORITHMS:  # before anything is fetched for it
                raise jwt.InvalidAlgorithmError
            found = await self._keys.key(header.get("kid"), algorithm)
            if found is None:
                raise jwt.InvalidKeyError
            key = found
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=auth.issuer,
            audience=auth.audience,
            leeway=CLOCK_SKEW_S,
            options={"require": ["exp"]},
        )


def check_length(token: str) -> None:
    """Raise NotAdmitted if a token is longer than the relay reads."""
    if len(token) > TOKEN_CHARS_MAX:
        raise NotAdmitted(f"the token is longer than {TOKEN_CHARS_MAX} characters")


def grant_of(claims: Mapping[str, Any], auth: Auth) -> Grant:
    """What claims give, of which `exp` is one. Raises NotAdmitted.

    A claim that is absent leaves everything open, so one that is there must say something: `null`
    is refused.
    """
    peer = claims.get(auth.peer_claim)
    if not isinstance(peer, str) or not peer:
        raise NotAdmitted(f"the token must name its bearer in the claim {auth.peer_claim!r}")
    may = _names(claims, auth.may_claim)
    if may is not None and not _MAY.issuperset(may):
        raise NotAdmitted(f"the claim {auth.may_claim!r} may list `send` and `watch`")
    try:
        return Grant(
            peer=peer,
            meshes=_names(claims, auth.mesh_claim),
            agents=_names(claims, auth.agents_claim),
            may_send=may is None or "send" in may,
            may_watch=may is None or "watch" in may,
            # As long as it would be let in: whoever is let in must not be shown out at once.
            ends_at_ms=min((int(claims["exp"]) + CLOCK_SKEW_S) * 1000, 2**53),
        )
    except ValueError:
        raise NotAdmitted(
            "the token's claims list too many names, or one that is empty or no Unicode text"
        ) from None


def _names(claims: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    """A claim that is a name or a list of names. None: it is absent."""
    if claim not in claims:
        return None
    value = claims[claim]
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise NotAdmitted(f"the claim {claim!r} must be a name or a list of names")
    return tuple(listed)


# The reasons that help are only for whoever has a token with a good signature.
_REASONS: Final[dict[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "the token has expired; get a new one",
    jwt.ImmatureSignatureError: "the token is not valid yet; check the clocks",
    jwt.MissingRequiredClaimError: "the token lacks one of the claims `exp`, `iss` and `aud`",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
}
_NOT_VALID: Final = "the token is not valid; log in again"

_BAD_TOKEN: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What reading a token raises: the library leaves some errors of JSON and numbers as they are."""
