"""Tokens: which are taken, which are refused, and what the refusal says."""

import base64
import itertools
import json
import time
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from actors.clock import VirtualClock
from actors.host import keys as keys_module
from actors.host.keys import DOCUMENT_BYTES_MAX, FRESH_S, RETRY_S, KeySet, KeysUnavailable
from actors.host.tokens import (
    CLOCK_SKEW_S,
    TOKEN_CHARS_MAX,
    Auth,
    NotAdmitted,
    Tokens,
    token_of,
)
from protocol.grants import Grant

pytestmark = pytest.mark.anyio

SECRET = b"a secret of at least 32 bytes, yes"
ISSUER, AUDIENCE = "https://issuer.example", "relay"


def claims(**other: Any) -> dict[str, Any]:
    found = {"sub": "ann", "exp": int(time.time()) + 3600} | other
    return {name: value for name, value in found.items() if value is not None}


def minted(
    key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **other: Any
) -> str:
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(claims(**other), key, algorithm, headers=headers)


def raw(header: object, body: object, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def shared(**settings: Any) -> Tokens:
    return Tokens(Auth(secret=SECRET, **settings), VirtualClock())


async def refused(tokens: Tokens, token: str | None) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as caught:
        await tokens.grant(token)
    if token and len(token) > 1:
        assert token not in str(caught.value)
    return caught.value


# With a shared secret -----------------------------------------------------------------------------


async def test_a_token_gives_the_grant_that_its_claims_say() -> None:
    token = minted(mesh=["team", "lab-*"], agents="coder", may=["watch"])
    grant = await shared().grant(token)
    assert attrs_without_end(grant) == Grant(
        peer="ann", meshes=("team", "lab-*"), agents=("coder",), may_send=False
    )
    assert grant.ends_at_ms is not None
    assert grant.ends_at_ms > time.time() * 1000


def attrs_without_end(grant: Grant) -> Grant:
    return Grant(
        peer=grant.peer,
        meshes=grant.meshes,
        agents=grant.agents,
        may_send=grant.may_send,
        may_watch=grant.may_watch,
    )


async def test_a_token_without_further_claims_gives_everything_to_its_bearer() -> None:
    assert attrs_without_end(await shared().grant(minted())) == Grant(peer="ann")


async def test_a_token_for_ever_ends_in_a_time_that_numbers_can_hold() -> None:
    grant = await shared().grant(minted(exp=10**400))
    assert grant.ends_at_ms == 2**53


async def test_the_names_of_claims_are_settings() -> None:
    tokens = shared(peer_claim="email", mesh_claim="custom:meshes")
    grant = await tokens.grant(minted(sub=None, email="a@b.example", **{"custom:meshes": "m"}))
    assert (grant.peer, grant.meshes) == ("a@b.example", ("m",))


NOW = int(time.time())  # of the collection: the tests may come much later
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.mark.parametrize(
    ("token", "word"),
    [
        (None, "asks for a token"),
        ("", "not valid"),
        ("a", "not valid"),
        ("a.b.c", "not valid"),
        ("é.\ud800.c", "not valid"),
        ("[" * TOKEN_CHARS_MAX, "not valid"),
        (raw([], {}), "not valid"),
        (raw({"alg": "HS256"}, [[[[]]]]), "not valid"),
        (raw({"alg": ["HS256"]}, {}), "not valid"),
        ("a" * (TOKEN_CHARS_MAX + 1), "longer than"),
        (raw({"alg": "none"}, claims()), "not valid"),
        (raw({"alg": "None"}, claims()), "not valid"),
        (raw({"alg": "HS256"}, claims()), "not valid"),
        (minted(b"another secret of at least 32 bytes!"), "not valid"),
        (raw({"alg": "HS512"}, claims()), "not valid"),
        (minted(PRIVATE, "RS256"), "not valid"),
        (minted(exp=None), "lacks"),
        (minted(exp=NOW - CLOCK_SKEW_S - 5), "expired"),
        (minted(nbf=NOW + 24 * 3600), "not valid yet"),
        (minted(exp="soon"), "not valid"),
        (minted(sub=None), "'sub'"),
        (minted(sub=""), "'sub'"),
        (minted(mesh=7), "'mesh'"),
        (minted(mesh=["a", 7]), "'mesh'"),
        (minted(agents=[""]), "empty"),
        (minted(mesh=["m"] * 101), "too many"),
        (minted(may=["send", "rule"]), "'may'"),
        (minted(aud="somebody"), "audience"),
    ],
    ids=itertools.count(),  # the same ones in every process
)
async def test_a_bad_token_is_refused_with_a_reason_that_helps(
    token: str | None, word: str
) -> None:
    error = await refused(shared(), token)
    assert error.status == 401
    assert word in str(error)


async def test_clocks_may_differ_by_a_minute() -> None:
    now = int(time.time())  # `NOW` may be long ago
    await shared().grant(minted(exp=now - CLOCK_SKEW_S + 30))
    await shared().grant(minted(nbf=now + CLOCK_SKEW_S - 30))


async def test_issuer_and_audience_count_where_they_are_set() -> None:
    tokens = shared(issuer=ISSUER, audience=AUDIENCE)
    await tokens.grant(minted(iss=ISSUER, aud=[AUDIENCE, "other"]))
    assert "issuer" in str(await refused(tokens, minted(iss="https://evil.example", aud=AUDIENCE)))
    assert "audience" in str(await refused(tokens, minted(iss=ISSUER, aud="other")))
    assert "lacks" in str(await refused(tokens, minted(iss=ISSUER)))


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"secret": b"short"},
        {"secret": SECRET, "jwks_url": "https://issuer.example/keys"},
        {"jwks_url": "https://issuer.example/keys"},
        {"jwks_url": "http://issuer.example/keys", "issuer": ISSUER, "audience": AUDIENCE},
        {"jwks_url": "file:///etc/passwd", "issuer": ISSUER, "audience": AUDIENCE},
        {"jwks_url": "http://localhost.evil.example/", "issuer": ISSUER, "audience": AUDIENCE},
        {"jwks_url": "http://localhost:80@evil.example/", "issuer": ISSUER, "audience": AUDIENCE},
        {"jwks_url": "https:///keys", "issuer": ISSUER, "audience": AUDIENCE},
        {"jwks_url": "https://[/keys", "issuer": ISSUER, "audience": AUDIENCE},
        {"secret": PUBLIC_PEM},  # everybody may know it
        {"secret": b'{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAA"}'},
        {"secret": SECRET, "peer_claim": ""},
        {"secret": SECRET, "mesh_claim": ""},
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"auth_|secret") as caught:
        Auth(**bad)
    assert "a secret of" not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    assert "a secret of" not in repr(Auth(secret=SECRET))


# Where tokens come from ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "subprotocols", "token"),
    [
        ({}, [], None),
        ({"authorization": "bearer  x.y.z "}, [], "x.y.z"),
        ({"authorization": "AWS4-HMAC-SHA256 Credential=..."}, [], None),
        ({"authorization": "Bearer"}, [], None),
        ({"x-amzn-bedrock-agentcore-runtime-custom-token": "x.y.z"}, [], "x.y.z"),
        ({}, ["base64UrlBearerAuthorization"], None),
        ({}, ["other.eA", "base64UrlBearerAuthorization.eC55Lno"], "x.y.z"),
        ({}, ["base64UrlBearerAuthorization.é"], ""),
        ({}, ["base64UrlBearerAuthorization._w"], ""),
    ],
)
def test_a_token_comes_in_a_header_or_a_subprotocol(
    headers: dict[str, str], subprotocols: list[str], token: str | None
) -> None:
    assert token_of(headers, subprotocols) == token


# With the keys of an issuer -----------------------------------------------------------------------


class Provider:
    """Publishes keys, or misbehaves."""

    def __init__(self) -> None:
        self.fetches = 0
        self.document: bytes | Exception = b'{"keys": []}'

    def publish(self, **public_keys: Any) -> None:
        listed = []
        for kid, key in public_keys.items():
            is_rsa = isinstance(key, rsa.RSAPublicKey)
            algorithm = jwt.get_algorithm_by_name("RS256" if is_rsa else "ES256")
            listed.append({**json.loads(algorithm.to_jwk(key)), "kid": kid})
        self.document = json.dumps({"keys": listed}).encode()

    async def fetch(self, url: str) -> bytes:
        self.fetches += 1
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def tokens(provider: Provider, clock: VirtualClock) -> Tokens:
    url = "https://issuer.example/keys"
    auth = Auth(jwks_url=url, issuer=ISSUER, audience=AUDIENCE)
    return Tokens(auth, clock, KeySet(url, clock, provider.fetch))


CURVE = ec.generate_private_key(ec.SECP256R1())


def issued(
    key: Any = PRIVATE, algorithm: str = "RS256", kid: str | None = "one", **other: Any
) -> str:
    return minted(key, algorithm, kid, **({"iss": ISSUER, "aud": AUDIENCE} | other))


async def test_tokens_of_an_issuer_are_checked_with_its_public_keys(
    tokens: Tokens, provider: Provider
) -> None:
    provider.publish(one=PRIVATE.public_key(), two=CURVE.public_key())
    assert (await tokens.grant(issued())).peer == "ann"
    assert (await tokens.grant(issued(CURVE, "ES256", "two"))).peer == "ann"
    assert provider.fetches == 1


async def test_a_token_without_a_key_id_is_for_the_only_key(
    tokens: Tokens, provider: Provider, clock: VirtualClock
) -> None:
    provider.publish(one=PRIVATE.public_key())
    await tokens.grant(issued(kid=None))
    provider.publish(one=PRIVATE.public_key(), two=CURVE.public_key())  # for another algorithm
    await clock.advance(FRESH_S)
    await tokens.grant(issued(kid=None))
    provider.publish(one=PRIVATE.public_key(), two=OTHER.public_key())
    await clock.advance(FRESH_S)
    await refused(tokens, issued(kid=None))


async def test_a_public_key_is_no_shared_secret(tokens: Tokens, provider: Provider) -> None:
    provider.publish(one=PRIVATE.public_key())
    unsigned = raw({"alg": "HS256", "kid": "one"}, claims(iss=ISSUER, aud=AUDIENCE))
    signing_input = unsigned.rpartition(".")[0]
    mac = jwt.get_algorithm_by_name("HS256")
    signature = mac.sign(signing_input.encode(), PUBLIC_PEM)
    confused = f"{signing_input}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    await refused(tokens, confused)
    assert provider.fetches == 0  # and nothing was fetched for it


async def test_a_key_of_another_kind_does_not_check_a_token(
    tokens: Tokens, provider: Provider
) -> None:
    provider.publish(one=CURVE.public_key())
    await refused(tokens, issued())


async def test_an_unknown_key_id_makes_us_look_again_but_not_for_every_token(
    tokens: Tokens, provider: Provider, clock: VirtualClock
) -> None:
    provider.publish(one=PRIVATE.public_key())
    await tokens.grant(issued())
    for number in range(50):
        await refused(tokens, issued(CURVE, "ES256", f"made up {number}"))
    assert provider.fetches == 1
    provider.publish(one=PRIVATE.public_key(), two=CURVE.public_key())
    await clock.advance(RETRY_S)
    assert (await tokens.grant(issued(CURVE, "ES256", "two"))).peer == "ann"
    assert provider.fetches == 2


async def test_a_withdrawn_key_is_not_good_for_ever(
    tokens: Tokens, provider: Provider, clock: VirtualClock
) -> None:
    provider.publish(one=PRIVATE.public_key())
    await tokens.grant(issued())
    provider.publish(two=CURVE.public_key())
    await clock.advance(FRESH_S)
    await refused(tokens, issued())


@pytest.mark.parametrize(
    "document",
    [
        OSError("down"),
        b"",
        b"{}",
        b"[]",
        b'{"keys": 5}',
        b'{"keys": [5]}',
        b'{"keys": [{"kty": "RSA"}]}',
        b'{"keys": [' + b",".join([b"{}"] * 101) + b"]}",
        b" " * (DOCUMENT_BYTES_MAX + 1),
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_while_the_provider_misbehaves_the_old_keys_are_good(
    tokens: Tokens, provider: Provider, clock: VirtualClock, document: bytes | Exception
) -> None:
    provider.document = document
    assert (await refused(tokens, issued())).status == 503
    provider.publish(one=PRIVATE.public_key())
    await clock.advance(RETRY_S)
    await tokens.grant(issued())
    provider.document = document
    await clock.advance(FRESH_S)
    await tokens.grant(issued())
    assert provider.fetches == 3


async def test_a_provider_that_hangs_is_waited_for_briefly_and_by_one_opening(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "FETCH_S", 0.05)
    fetches = 0

    async def hang(url: str) -> bytes:
        nonlocal fetches
        fetches += 1
        await anyio.sleep_forever()
        raise AssertionError

    keys = KeySet("https://issuer.example/keys", clock, hang)
    unavailable = 0

    async def ask() -> None:
        nonlocal unavailable
        with pytest.raises(KeysUnavailable):
            await keys.key("one", "RS256")
        unavailable += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert (fetches, unavailable) == (1, 20)
