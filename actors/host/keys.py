"""The public keys of an issuer of tokens (JWKS, RFC 7517): fetched, cached, and fetched anew.

A provider that is down, slow or hostile costs little. Keys are fetched by one opening at a time,
within `FETCH_S` and `DOCUMENT_BYTES_MAX`. A token with an unknown key id makes us look again, at
most every `RETRY_S`. While the provider does not answer, the keys that we have stay good.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import anyio
import h11
import jwt
import msgspec
from anyio.abc import ByteReceiveStream, ByteStream
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from actors.clock import Clock
from actors.host.throttle import short

log = logging.getLogger("relay")

FETCH_S: Final = 5.0
"""How long (seconds) the provider may take to answer."""

FRESH_S: Final = 3600.0
"""After this time (seconds) the keys are fetched anew: a provider withdraws keys, too."""

RETRY_S: Final = 10.0
"""The least time (seconds) between two attempts."""

DOCUMENT_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 100
"""A key set of more bytes or keys is refused. Usual ones have two to four keys of 1 KB."""

ALGORITHMS: Final = ("RS256", "ES256")
"""The signatures that are checked with public keys."""

RSA_BITS: Final = range(2048, 8192 + 1)
"""Shorter keys can be broken, and longer ones keep the relay busy."""

_PRIVATE: Final = {"d", "k", "p", "q"}
"""Members of a key that nobody may publish (RFC 7518, section 6)."""


class KeysUnavailable(Exception):
    """The provider gave no usable keys, and there are none from before."""


_Keys = dict[tuple[str, str | None], jwt.PyJWK]
"""Keys by algorithm and id."""


class KeySet:
    """The keys at `url`. `fetch` gets the document; tests give another one."""

    def __init__(
        self, url: str, clock: Clock, fetch: Callable[[str], Awaitable[bytes]] | None = None
    ) -> None:
        self._url = url
        self._clock = clock
        self._fetch = fetch or fetch_document
        self._keys: _Keys | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id (`kid`) for one of `ALGORITHMS`; for None the only one. None if
        there is no such key.

        Raises KeysUnavailable.
        """
        found = self._found(id, algorithm)
        is_fresh = self._clock.now().at - self._fetched_at < FRESH_S
        # Whoever has a key does not wait for somebody else who fetches.
        if found is None or (not is_fresh and not self._fetching.locked()):
            async with self._fetching:
                if self._clock.now().at - self._tried_at >= RETRY_S:
                    await self._renew()
            found = self._found(id, algorithm)
        if self._keys is None:
            raise KeysUnavailable
        return found

    def _found(self, id: str | None, algorithm: str) -> jwt.PyJWK | None:
        keys = self._keys or {}
        fitting = [key for key_id, key in keys.items() if key_id[0] == algorithm]
        if id is None and len(fitting) == 1:
            return fitting[0]
        return keys.get((algorithm, id))

    async def _renew(self) -> None:
        self._tried_at = self._clock.now().at
        reason = "it takes too long"
        with anyio.move_on_after(FETCH_S):
            try:
                self._keys = read_keys(await self._fetch(self._url))
                self._fetched_at = self._tried_at
            except (OSError, ValueError) as error:
                reason = str(error)
            else:
                return
        # The keys of before stay good.
        log.warning("the issuer's keys cannot be fetched", extra={"reason": short(reason, 200)})


def read_keys(document: bytes) -> _Keys:
    """The usable keys of a JWKS document: public ones, for signatures, of a kind and length that
    we take. Of several with one id the first counts.

    Raises ValueError (too long, not JSON, not of this form, or without a usable key).
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ValueError("the key set is too long")
    try:
        listed = msgspec.json.decode(document, type=dict[str, object]).get("keys")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("the key set is not JSON") from error
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError("`keys` must be a list, and not too long")
    usable: _Keys = {}
    for written in listed:
        key = _usable(written)
        if key is not None:
            usable.setdefault((key.algorithm_name, key.key_id), key)
    if not usable:
        raise ValueError("the key set has no usable key")
    return usable


def _usable(written: object) -> jwt.PyJWK | None:
    if not isinstance(written, dict) or _PRIVATE & written.keys():
        return None
    if not isinstance(written.get("kid"), str | None) or written.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(written)
    except Exception:  # whatever odd values make of the library: it is no key for us
        return None
    match key.key:
        case RSAPublicKey(key_size=bits):
            is_good = bits in RSA_BITS
        case EllipticCurvePublicKey(curve=SECP256R1()):
            is_good = True
        case _:
            is_good = False
    return key if is_good and key.algorithm_name in ALGORITHMS else None


async def fetch_document(url: str) -> bytes:
    """GET `url`. Raises OSError, and ValueError if the answer is not 200 or too long.

    It may be cancelled at any time. A redirect is an error, because it could lead from https to
    anywhere.
    """
    where = urlsplit(url)
    assert where.hostname is not None
    headers = {
        "Host": where.netloc.rpartition("@")[2],
        "Accept": "application/json",
        "Connection": "close",
    }
    path = (where.path or "/") + (f"?{where.query}" if where.query else "")
    http = h11.Connection(h11.CLIENT)
    try:
        request = http.send(h11.Request(method="GET", target=path, headers=list(headers.items())))
        async with await _connected(where.scheme, where.hostname, where.port) as stream:
            await stream.send(request or b"")
            return await _answer(http, stream)
    except (h11.ProtocolError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise OSError(f"no HTTP is spoken there ({error})") from error


async def _connected(scheme: str, host: str, port: int | None) -> ByteStream:
    if scheme == "http":
        return await anyio.connect_tcp(host, port or 80)
    return await anyio.connect_tcp(host, port or 443, tls=True, tls_standard_compatible=False)


async def _answer(http: h11.Connection, stream: ByteReceiveStream) -> bytes:
    document = b""
    while True:
        match http.next_event():
            case h11.NEED_DATA:
                try:
                    http.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    http.receive_data(b"")
            case h11.Response(status_code=status) if status != 200:
                raise ValueError(f"the provider answers {status}")
            case h11.Data(data=data):
                document += data
                if len(document) > DOCUMENT_BYTES_MAX:
                    raise ValueError("the key set is too long")
            case h11.EndOfMessage() | h11.ConnectionClosed():
                return document
