"""The public keys of an issuer of tokens (JWKS, RFC 7517): fetched, cached, and fetched anew.

A provider that is down, slow or hostile costs little. Keys are fetched by one opening at a time,
within `FETCH_S` and `DOCUMENT_BYTES_MAX`. A token with an unknown key id makes us look again, at
most every `RETRY_S`. While the provider does not answer, the keys that we have stay good.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import anyio
import anyio.to_thread
import jwt
import msgspec

from actors.clock import Clock

FETCH_S: Final = 5.0
"""How long (seconds) the provider may take to answer."""

FRESH_S: Final = 3600.0
"""After this time (seconds) the keys are fetched anew: a provider withdraws keys, too."""

RETRY_S: Final = 10.0
"""The least time (seconds) between two attempts."""

DOCUMENT_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 100
"""A key set of more bytes or keys is refused. Usual ones have two to four keys of 1 KB."""


class KeysUnavailable(Exception):
    """The provider gave no usable keys, and there are none from before."""


class KeySet:
    """The keys at `url`. `fetch` gets the document; tests give another one."""

    def __init__(
        self, url: str, clock: Clock, fetch: Callable[[str], Awaitable[bytes]] | None = None
    ) -> None:
        self._url = url
        self._clock = clock
        self._fetch = fetch or fetch_document
        self._keys: dict[str | None, jwt.PyJWK] | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = anyio.Lock()

    async def key(self, id: str | None) -> jwt.PyJWK | None:
        """The key with this id (`kid`); for None the only one. None if there is no such key.

        Raises KeysUnavailable.
        """
        found = self._found(id)
        is_fresh = self._clock.now().at - self._fetched_at < FRESH_S
        # Whoever has a key does not wait for somebody else who fetches.
        if found is None or (not is_fresh and not self._fetching.locked()):
            async with self._fetching:
                if self._clock.now().at - self._tried_at >= RETRY_S:
                    await self._renew()
            found = self._found(id)
        if self._keys is None:
            raise KeysUnavailable
        return found

    def _found(self, id: str | None) -> jwt.PyJWK | None:
        keys = self._keys or {}
        if id is None and len(keys) == 1:
            return next(iter(keys.values()))
        return keys.get(id)

    async def _renew(self) -> None:
        self._tried_at = self._clock.now().at
        with anyio.move_on_after(FETCH_S):
            try:
                self._keys = read_keys(await self._fetch(self._url))
                self._fetched_at = self._tried_at
            except (OSError, ValueError, jwt.PyJWTError):
                pass  # the keys of before stay good


def read_keys(document: bytes) -> dict[str | None, jwt.PyJWK]:
    """The keys of a JWKS document by their ids, without those of an unknown kind.

    Raises ValueError (too long, not JSON, or not of this form) and jwt.PyJWTError (no usable key).
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ValueError("the key set is too long")
    try:
        listed = msgspec.json.decode(document, type=dict[str, object]).get("keys")
    except msgspec.DecodeError as error:
        raise ValueError("the key set is not JSON") from error
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError("`keys` must be a list, and not too long")
    usable = jwt.PyJWKSet([key for key in listed if isinstance(key, dict)])
    return {key.key_id: key for key in usable.keys}


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: it could lead from https to anywhere."""

    def redirect_request(self, *_: object) -> None: ...


_open = build_opener(_NoRedirects).open


async def fetch_document(url: str) -> bytes:
    """GET `url`. Raises OSError; never takes much longer than `FETCH_S`, or more bytes than used.

    In a thread, because the standard library's client waits.
    """
    return await anyio.to_thread.run_sync(_get, url, abandon_on_cancel=True)


def _get(url: str) -> bytes:
    until = time.monotonic() + FETCH_S  # a thread cannot be cancelled
    request = Request(url, headers={"accept": "application/json"})
    document = b""
    try:
        with _open(request, timeout=FETCH_S) as answer:
            while len(document) <= DOCUMENT_BYTES_MAX and (part := answer.read1(2**16)):
                document += part
                if time.monotonic() > until:
                    raise URLError("the provider takes too long")
    except HTTPError as error:
        error.close()  # it holds the connection
        raise
    return document
