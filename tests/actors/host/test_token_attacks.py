"""Tokens and key sets by which somebody tries to get in, or to get the relay into trouble."""

import base64
import contextlib
import hmac
import itertools
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.clock import VirtualClock
from actors.host.keys import ALGORITHMS, FETCH_S, KeySet, KeysUnavailable, fetch_document, read_keys
from actors.host.tokens import CLOCK_SKEW_S, Auth, NotAdmitted, Tokens
from protocol.grants import Grant

pytestmark = pytest.mark.anyio

SECRET = b"a secret of at least 32 bytes, yes"
ISSUER, AUDIENCE = "https://issuer.example", "relay"
HOUR_LATER = int(time.time()) + 3600
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def signed(payload: object, key: Any = SECRET, alg: str = "HS256", **header: Any) -> str:
    """A token of this payload (JSON, or bytes as they are) with a good signature."""
    written = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jwt.PyJWS().encode(written, key, alg, headers=header)


def saying(**claims: Any) -> str:
    """A token with a good signature that says this beside what it needs."""
    return signed({"sub": "ann", "exp": HOUR_LATER} | claims)


async def admitted(token: str) -> Grant:
    return await Tokens(Auth(secret=SECRET), VirtualClock()).grant(token)


async def is_refused(token: str) -> bool:
    try:
        await admitted(token)
    except NotAdmitted as error:
        return error.status == 401
    return False


# What a token says --------------------------------------------------------------------------------


ODD: dict[str, tuple[Any, ...]] = {
    "exp": (math.nan, math.inf, -math.inf, None, [], {}, "", -(10**400)),
    "nbf": (math.nan, math.inf, "soon", [], 10**400),
    "iat": (math.nan, math.inf, "soon", [], 10**400),
    "sub": (None, "", [], ["ann"], 7, "\ud800", "ann/\udfff"),
    "mesh": (None, "", [""], {}, True, ["\ud800"]),
    "agents": (None, "", [""], {}, True, ["\ud800"]),
    "may": (None, "", "send watch", ["Send"], [""], {"send": True}),
}


@pytest.mark.parametrize(
    ("claim", "value"),
    [(claim, value) for claim, values in ODD.items() for value in values],
    ids=itertools.count(),
)
async def test_odd_claims_let_nobody_in(claim: str, value: Any) -> None:
    assert await is_refused(saying(**{claim: value}))


async def test_of_a_claim_that_comes_twice_the_last_counts() -> None:
    token = signed(b'{"sub":"ann","exp":1,"exp":%d,"sub":"bob","mesh":[],"mesh":"m"}' % HOUR_LATER)
    grant = await admitted(token)
    assert (grant.peer, grant.meshes) == ("bob", ("m",))
    assert await is_refused(signed(b'{"sub":"ann","exp":%d,"exp":1}' % HOUR_LATER))


async def test_a_time_may_be_a_fraction() -> None:
    assert (await admitted(saying(exp=HOUR_LATER + 0.5))).ends_at_ms == (
        HOUR_LATER + CLOCK_SKEW_S
    ) * 1000


@pytest.mark.parametrize(
    ("sub", "covered", "beyond"),
    [
        ("ann", ["ann", "ann/", "ann//", "ann/a/b"], ["Ann", "anna", "an", "ann\\a", "/ann", ""]),
        ("ann/", ["ann/", "ann//a"], ["ann", "ann/a"]),
        ("/", ["/", "//a"], ["", "/a"]),
        ("*", ["*", "*/a"], ["ann"]),
        ("an*", ["an*", "an*/a"], ["ann", "an"]),
        ("caf\u00e9", ["caf\u00e9"], ["cafe\u0301", "cafe", "CAF\u00c9"]),  # NFC is not NFD
        ("\u0430nn", ["\u0430nn"], ["ann"]),  # Cyrillic
        ("relay", ["relay", "relay/a"], ["ann"]),  # (nobody can announce `relay`, see the gate)
    ],
)
async def test_a_bearer_is_who_the_token_names_letter_by_letter(
    sub: str, covered: list[str], beyond: list[str]
) -> None:
    grant = await admitted(saying(sub=sub))
    assert [id for id in covered if not grant.covers_peer(id)] == []
    assert [id for id in beyond if grant.covers_peer(id)] == []


@pytest.mark.parametrize(
    ("mesh", "covered", "beyond"),
    [
        ([], [], ["", "default", "*"]),
        ("*", ["", "default", "*"], []),
        ("**", ["*", "*a"], ["", "default"]),
        ("a*b", ["a*b"], ["ab", "axb", "a"]),
        ("*b", ["*b"], ["b", "ab"]),
        ("lab-*", ["lab-", "lab-1", "lab-*"], ["lab", "LAB-1", " lab-1", "xlab-1"]),
        (["a", "b*"], ["a", "b", "bc"], ["ab", "c"]),
    ],
)
async def test_only_a_star_at_the_end_is_a_pattern(
    mesh: object, covered: list[str], beyond: list[str]
) -> None:
    grant = await admitted(saying(mesh=mesh))
    assert [name for name in covered if not grant.covers_mesh(name)] == []
    assert [name for name in beyond if grant.covers_mesh(name)] == []
    assert grant.covers_all_meshes() == (mesh == "*")


# How a token is made ------------------------------------------------------------------------------

CLAIMS = {"sub": "ann", "exp": HOUR_LATER}


def coded(part: object) -> str:
    written = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(written).decode().rstrip("=")


def detached() -> str:
    """Its payload is signed as it is, and is not in the token."""
    token = jwt.PyJWS().encode(
        json.dumps(CLAIMS).encode(),
        SECRET,
        "HS256",
        headers={"b64": False, "crit": ["b64"]},
        is_payload_detached=True,
    )
    return token


@pytest.mark.parametrize(
    "token",
    [
        signed(CLAIMS, crit=["exp"]),
        signed(CLAIMS, crit=["x"], x=1),
        signed(CLAIMS, crit=[]),
        signed(CLAIMS, crit="b64"),
        detached(),
        detached().replace("..", f".{coded(CLAIMS)}."),
        ".".join(
            [coded({"alg": "dir", "enc": "A256GCM"}), "", coded(b"iv"), coded(b"c"), coded(b"t")]
        ),
        signed(CLAIMS) + ".",
        "." + signed(CLAIMS),
        signed(CLAIMS)[:-1],
        signed(CLAIMS) + "====",
        signed(CLAIMS).replace(".", ".\n", 1),
        f"{coded({'alg': 'hs256'})}.{coded(CLAIMS)}.",
        f"{coded({'alg': 'HS256'})}.{coded(CLAIMS)}.{coded(bytes(32))}",
        f"{coded({'alg': 'HS256', 'kid': ['a']})}.{coded(CLAIMS)}.",
        signed([CLAIMS]),
        signed(b"[" * 4000),
        signed(b'{"sub":"ann","exp":' + b"9" * 5000 + b"}"),
        signed(b"\xff\xfe"),
    ],
    ids=itertools.count(),  # the same ones in every process
)
async def test_odd_tokens_let_nobody_in(token: str) -> None:
    assert await is_refused(token)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def odd(*members: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these members, with any values."""
    return st.dictionaries(st.sampled_from(members), json_values, max_size=3)


@given(
    odd("alg", "kid", "crit", "b64", "typ", "cty", "zip", "enc"),
    odd("sub", "exp", "nbf", "iat", "jti", "iss", "aud", "mesh", "agents", "may"),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_token_says_it_gives_a_grant_or_a_reason(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    unsigned = f"{coded({'alg': 'HS256'} | header)}.{coded(CLAIMS | payload)}"
    mac = jwt.get_algorithm_by_name("HS256").sign(unsigned.encode(), SECRET)
    checks = [Tokens(Auth(secret=SECRET), VirtualClock()), trusting(jwk(EC_KEY.public_key()))]
    for tokens in checks:
        try:
            grant = anyio.run(tokens.grant, f"{unsigned}.{coded(mac)}")
        except NotAdmitted as error:
            assert error.status == 401
        else:
            assert tokens is checks[0]
            assert grant.peer == (CLAIMS | payload)["sub"]
            assert json.dumps(grant.peer, ensure_ascii=False).encode()


async def test_a_signature_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append(one == other)
        return compared[-1]

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    await admitted(saying())
    assert await is_refused(signed(CLAIMS, b"another secret of at least 32 bytes!"))
    assert compared == [True, False]


# Keys ---------------------------------------------------------------------------------------------


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """A key as an issuer publishes it (or should not: private keys stay private)."""
    is_rsa = isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey)
    algorithm = jwt.get_algorithm_by_name("RS256" if is_rsa else "ES256")
    made = dict(json.loads(algorithm.to_jwk(key)))
    made.pop("key_ops", None)
    return made | members


def trusting(*keys: object, seen: list[str] | None = None) -> Tokens:
    """What checks tokens with these keys."""
    url = f"{ISSUER}/keys"

    async def fetch(url: str) -> bytes:
        if seen is not None:
            seen.append(url)
        return json.dumps({"keys": keys}).encode()

    clock = VirtualClock()
    return Tokens(
        Auth(jwks_url=url, issuer=ISSUER, audience=AUDIENCE), clock, KeySet(url, clock, fetch)
    )


def issued(key: Any, alg: str = "RS256", **header: Any) -> str:
    return signed(CLAIMS | {"iss": ISSUER, "aud": AUDIENCE}, key, alg, **({"kid": "one"} | header))


async def status(tokens: Tokens, token: str) -> int:
    try:
        await tokens.grant(token)
    except NotAdmitted as error:
        return error.status
    return 101


async def test_a_token_cannot_bring_its_key_along() -> None:
    seen: list[str] = []
    tokens = trusting(jwk(RSA_KEY.public_key(), kid="one"), seen=seen)
    own = jwk(OTHER_KEY.public_key(), kid="one")
    where = "https://evil.example/keys"
    for header in ({"jwk": own}, {"jku": where}, {"x5u": where}, {"x5c": ["AAAA"]}, {"kid": where}):
        assert await status(tokens, issued(OTHER_KEY, **header)) == 401
    assert seen == [f"{ISSUER}/keys"]
    assert await status(tokens, issued(RSA_KEY, jku=where)) == 101  # not even read


BAD_KEYS: list[object] = [
    5,
    None,
    [],
    {},
    jwk(RSA_KEY),  # a private key: everybody can sign with it
    jwk(EC_KEY),
    jwk(SHORT_KEY.public_key()),
    {"kty": "oct", "k": coded(SECRET)},
    {"kty": "oct", "k": coded(SECRET), "alg": "RS256"},
    {"kty": "oct", "k": coded(SECRET), "alg": "HS256"},
    jwk(RSA_KEY.public_key(), use="enc"),
    jwk(RSA_KEY.public_key(), alg="PS256"),
    jwk(RSA_KEY.public_key(), alg="none"),
    jwk(RSA_KEY.public_key(), alg=["RS256"]),
    jwk(RSA_KEY.public_key(), alg="ES256"),
    jwk(RSA_KEY.public_key(), kty=["RSA"]),
    jwk(RSA_KEY.public_key(), kid=["one"]),
    jwk(RSA_KEY.public_key(), kid={"one": 1}),
    jwk(RSA_KEY.public_key(), kid=1),
    jwk(RSA_KEY.public_key(), n=7),
    jwk(RSA_KEY.public_key(), n="AAAA"),
    jwk(RSA_KEY.public_key(), n="_" * 150_000),
    jwk(RSA_KEY.public_key(), e="AA"),
    jwk(RSA_KEY.public_key(), e=None),
    jwk(EC_KEY.public_key(), x="AAAA"),
    jwk(EC_KEY.public_key(), crv=["P-256"]),
    jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), alg="ES256"),
]


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("bad", BAD_KEYS, ids=itertools.count())
async def test_a_bad_key_is_left_out_and_the_others_are_good(bad: object) -> None:
    bad = {"kid": "bad"} | bad if isinstance(bad, dict) else bad
    tokens = trusting(bad, jwk(EC_KEY.public_key(), kid="good"))
    assert await status(tokens, issued(EC_KEY, "ES256", kid="good")) == 101
    mac = jwt.get_algorithm_by_name("HS256")
    for key, alg in ((RSA_KEY, "RS256"), (SHORT_KEY, "RS256"), (EC_KEY, "ES256")):
        assert await status(tokens, issued(key, alg, kid="bad")) == 401
    for alg in ("RS256", "HS256"):  # signed with what an `oct` key tells everybody
        unsigned = f"{coded({'alg': alg, 'kid': 'bad'})}.{coded(CLAIMS)}"
        forged = f"{unsigned}.{coded(mac.sign(unsigned.encode(), SECRET))}"
        assert await status(tokens, forged) == 401


async def test_key_ids_may_collide_between_kinds_and_else_the_first_counts() -> None:
    tokens = trusting(
        jwk(RSA_KEY.public_key(), kid="one"),
        jwk(EC_KEY.public_key(), kid="one"),
        jwk(OTHER_KEY.public_key(), kid="one"),
    )
    tried = ((RSA_KEY, "RS256"), (EC_KEY, "ES256"), (OTHER_KEY, "RS256"))
    assert [await status(tokens, issued(*one)) for one in tried] == [101, 101, 401]


@given(
    st.sampled_from(["RSA", "EC"]),
    odd("kty", "alg", "kid", "use", "crv", "n", "e", "x", "y", "d", "k"),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_key_set_holds_it_gives_usable_keys_or_a_valueerror(
    kind: str, members: dict[str, object]
) -> None:
    good = jwk(RSA_KEY.public_key() if kind == "RSA" else EC_KEY.public_key())
    try:
        keys = read_keys(json.dumps({"keys": [good | members]}).encode())
    except ValueError:
        return
    assert all(key.algorithm_name in ALGORITHMS for key in keys.values())


# Providers ----------------------------------------------------------------------------------------

Answer = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def provider(answer: Answer, ca: trustme.CA | None = None) -> AsyncIterator[str]:
    """A provider that answers each connection like this, with TLS if there is a `ca`. Its URL."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    if ca is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        listener = TLSListener(listener, context, standard_compatible=False)

    async def serve(stream: SocketStream) -> None:
        async with stream:
            with anyio.CancelScope(), contextlib.suppress(anyio.BrokenResourceError):
                await answer(stream)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"{'https' if ca else 'http'}://127.0.0.1:{port}/keys?a=b"
        tasks.cancel_scope.cancel()


def saying_bytes(*parts: bytes) -> Answer:
    async def answer(stream: SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive()
        assert request.startswith(b"GET /keys?a=b HTTP/1.1\r\n")
        for part in parts:
            await stream.send(part)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "document"),
    [
        (OK + b"content-length: 2\r\n\r\n{}", b"{}"),
        (OK + b"\r\n{}", b"{}"),  # until the connection ends
        (OK + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"{}"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"content-length: 0\r\n\r\n", b""),
    ],
)
async def test_a_document_comes_in_any_form_of_http(answer: bytes, document: bytes) -> None:
    async with provider(saying_bytes(answer)) as url:
        assert await fetch_document(url) == document


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
        OK + b"content-length: 5\r\n\r\n{}",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"a: b\r\n" * 100_000,
        OK + b"content-length: 999999999\r\n\r\n" + b" " * 300_000,
    ],
)
async def test_no_answer_of_a_provider_raises_anything_else(answer: bytes) -> None:
    async with provider(saying_bytes(answer)) as url:
        with pytest.raises((OSError, ValueError)):
            await fetch_document(url)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01"])
async def test_nor_does_one_without_tls_or_an_address_that_is_none(answer: bytes) -> None:
    async def answer_at_once(stream: SocketStream) -> None:
        await stream.send(answer)

    async with provider(answer_at_once) as url:
        for odd in (url.replace("http:", "https:"), f"{url} b", f"{url}\u00e4", "http://[::1]:1/"):
            with pytest.raises((OSError, ValueError)):
                await fetch_document(odd)


async def test_the_log_says_why_keys_cannot_be_fetched(caplog: pytest.LogCaptureFixture) -> None:
    async def fetch(url: str) -> bytes:
        raise OSError("\x1b no such host" + "!" * 1000)

    keys = KeySet("https://issuer.example/keys", VirtualClock(), fetch)
    for _ in range(5):
        with pytest.raises(KeysUnavailable):
            await keys.key("one", "RS256")
    [record] = caplog.records
    assert record.getMessage() == "the issuer's keys cannot be fetched"
    assert vars(record)["reason"].startswith("? no such host!")
    assert len(vars(record)["reason"]) < 300


async def test_a_provider_that_does_not_finish_is_left_at_once() -> None:
    """Nothing stays behind, such as a thread, that would keep the relay from ending."""
    has_begun, is_left = anyio.Event(), anyio.Event()

    async def begin(stream: SocketStream) -> None:
        await stream.send(b"H")
        has_begun.set()
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await stream.receive()
        is_left.set()

    async with provider(begin) as url:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch_document, url)
            await has_begun.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(FETCH_S / 2):
            await is_left.wait()


async def test_the_certificate_of_a_provider_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known, unknown = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    known.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    answer = saying_bytes(OK + b"content-length: 2\r\n\r\n{}")
    async with provider(answer, known) as url:
        assert await fetch_document(url) == b"{}"
    async with provider(answer, unknown) as url:
        with pytest.raises(OSError, match="certificate"):
            await fetch_document(url)
