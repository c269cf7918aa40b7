"""Who may come in: the live relay with tokens, at every door."""

import base64
import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.host import keys
from actors.host.keys import DOCUMENT_BYTES_MAX
from actors.host.tokens import CLOCK_SKEW_S, Auth
from protocol.limits import Limits
from protocol.session import TOKEN_HEADER
from tests.worlds.live import PATIENCE_S, LiveRelay, StillClock, open_sync
from tests.worlds.program import Program

SECRET = b"a secret of at least 32 bytes, yes"


def minted(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600} | claims, SECRET, "HS256")


def subprotocols(token: str) -> list[str]:
    coded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return [f"base64UrlBearerAuthorization.{coded}", "base64UrlBearerAuthorization"]


@pytest.fixture(scope="module")
def relay() -> Iterator[LiveRelay]:
    with LiveRelay(auth=Auth(secret=SECRET)) as live:
        yield live


def opening(live: LiveRelay | Program, query: str = "", **kwargs: Any) -> tuple[int, str]:
    """The status of an opening, and the reason of a refusal or the subprotocol that was chosen."""
    try:
        with open_sync(f"{live.url}{query}", **kwargs) as socket:
            return 101, socket.subprotocol or ""
    except InvalidStatus as refused:
        response = refused.response
        if response.status_code == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
        return response.status_code, bytes(response.body or b"").decode()


def with_header(name: str, value: str) -> dict[str, Any]:
    return {"additional_headers": {name: value}}


def test_a_token_lets_its_bearer_in_by_header_subprotocol_and_agentcores_header(
    relay: LiveRelay,
) -> None:
    token = minted()
    assert opening(relay, **with_header("Authorization", f"Bearer {token}")) == (101, "")
    assert opening(relay, **with_header(TOKEN_HEADER, token)) == (101, "")
    chosen = opening(relay, subprotocols=subprotocols(token))
    assert chosen == (101, "base64UrlBearerAuthorization")


@pytest.mark.parametrize(
    ("given", "status", "word"),
    [
        ({}, 401, "asks for a token"),
        (with_header("Authorization", "Bearer nonsense"), 401, "not valid"),
        (with_header("Authorization", "Basic YTpi"), 401, "asks for a token"),
        (with_header("Authorization", "Bearer " + "a" * 9000), 401, "longer than"),
        ({"subprotocols": subprotocols("nonsense")}, 401, "not valid"),
        ({"subprotocols": ["base64UrlBearerAuthorization"]}, 401, "asks for a token"),
        (with_header("Authorization", f"Bearer {minted(exp=5)}"), 401, "expired"),
        (with_header("Authorization", f"Bearer {minted(mesh='other')}"), 403, "mesh"),
    ],
    ids=itertools.count(),  # the same ones in every process
)
def test_whoever_has_no_good_token_gets_a_status_and_a_reason(
    relay: LiveRelay, given: dict[str, Any], status: int, word: str
) -> None:
    found, reason = opening(relay, **given)
    assert found == status
    assert word in reason


def test_a_token_for_one_mesh_is_not_good_for_another(relay: LiveRelay) -> None:
    token = with_header("Authorization", f"Bearer {minted(mesh=['team', 'lab-*'])}")
    found = [opening(relay, query, **token)[0] for query in ("", "?mesh=team", "?mesh=lab-7")]
    assert found == [403, 101, 101]


def test_a_token_in_the_query_is_not_accepted(relay: LiveRelay) -> None:
    for name in ("token", "access_token", "authorization", TOKEN_HEADER):
        assert opening(relay, f"?{name}={minted()}")[0] == 401


def test_neither_tokens_nor_the_secret_get_into_the_log() -> None:
    with Program(RELAY_AUTH_SECRET=SECRET.decode(), RELAY_LOG_LEVEL="debug") as program:
        good, bad = minted(), minted(exp=5)
        opened = [
            opening(program, f"?token={bad}"),
            opening(program, **with_header("Authorization", f"Bearer {bad}")),
            opening(program, subprotocols=subprotocols(bad)),
            opening(program, **with_header("Authorization", f"Bearer {good}")),
        ]
        program.line("token refused")
        log = f"{program.lines} {program.end()}"
    assert [status for status, _ in opened] == [401, 401, 401, 101]
    for secret in (good, bad, *subprotocols(bad)[:1], SECRET.decode()):
        assert secret not in log


def test_who_is_here_is_told_to_whoever_has_a_token(relay: LiveRelay) -> None:
    with httpx.Client(base_url=relay.http, trust_env=False) as http:
        assert http.post("/invocations", json={}).status_code == 401
        bearer = {"Authorization": f"Bearer {minted()}"}
        assert http.post("/invocations", json={}, headers=bearer).json()["status"] == "ok"
        assert http.get("/ping").status_code == 200
        assert http.get("/").status_code == 200


@pytest.mark.parametrize("root_path", ["", "/relay", "/invocations"])
def test_whatever_its_path_is_who_is_here_is_told_to_nobody_else(root_path: str) -> None:
    """`uvicorn --root-path` is for a proxy that takes a prefix off."""
    live = LiveRelay(auth=Auth(secret=SECRET))
    live.server.config.root_path = root_path
    with live, httpx.Client(base_url=live.http, trust_env=False, follow_redirects=True) as http:
        bearer = {"Authorization": f"Bearer {minted()}"}
        for path in ("/invocations", "/invocation%73", "/invocations?a=b"):
            assert http.post(path).status_code == 401
            foreign = bearer | {"Origin": "https://evil.example"}
            assert http.post(path, headers=foreign).status_code == 403
        assert http.post("/invocations", json={}).status_code == 401
        assert http.post("/invocations", json={}, headers=bearer).json()["status"] == "ok"
        for path in ("//invocations", "/invocations/", "/INVOCATIONS", "/./invocations"):
            assert http.post(path).status_code in (401, 404, 405)


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"mesh": "team"}, 403),
        ({"mesh": ["team", "lab-*"]}, 403),
        ({"mesh": ["**"]}, 403),
        ({"may": "send"}, 403),
        ({"mesh": ["team", "*"], "may": "watch"}, 200),
    ],
)
def test_who_is_here_in_all_meshes_is_not_told_to_the_bearers_of_a_few(
    relay: LiveRelay, claims: dict[str, Any], status: int
) -> None:
    bearer = {"Authorization": f"Bearer {minted(**claims)}"}
    with httpx.Client(base_url=relay.http, trust_env=False) as http:
        for body in ({}, {"details": True}, {"mesh": "team"}):
            assert http.post("/invocations", json=body, headers=bearer).status_code == status


def test_a_thousand_bad_openings_leave_a_few_lines_in_the_log(
    relay: LiveRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay")
    began = time.monotonic()
    with httpx.Client(base_url=relay.http, trust_env=False) as http:
        for number in range(1000):
            bad = {"Authorization": f"Bearer {number}"}
            assert http.post("/invocations", json={}, headers=bad).status_code == 401
    lines = [record for record in caplog.records if record.getMessage() == "token refused"]
    assert 1 <= len(lines) <= time.monotonic() - began + 2
    assert opening(relay, **with_header("Authorization", f"Bearer {minted()}"))[0] == 101


# With an issuer ----------------------------------------------------------------------------------


class Issuer(BaseHTTPRequestHandler):
    """Serves `document` at every path; if there is none, it hangs until `release`."""

    document: ClassVar[bytes | None] = None
    location: ClassVar[str | None] = None
    release: ClassVar[threading.Event]

    def do_GET(self) -> None:
        document = Issuer.document
        if document is None:
            Issuer.release.wait(PATIENCE_S)
            return
        self.send_response(200 if Issuer.location is None else 302)
        if Issuer.location is not None:
            self.send_header("Location", Issuer.location)
        self.send_header("Content-Length", str(len(document)))
        self.end_headers()
        self.wfile.write(document)

    def log_message(self, *_: object) -> None:
        pass


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
JWK = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(KEY.public_key())) | {"kid": "one"}
KEYS = json.dumps({"keys": [JWK]}).encode()


@pytest.fixture
def issuer() -> Iterator[str]:
    Issuer.document, Issuer.location, Issuer.release = KEYS, None, threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            Issuer.release.set()
            server.shutdown()
            thread.join()


def issued(issuer: str, **claims: Any) -> dict[str, Any]:
    said = {"sub": "ann", "exp": int(time.time()) + 3600, "iss": issuer, "aud": "relay"} | claims
    token = jwt.encode(said, KEY, "RS256", headers={"kid": "one"})
    return with_header("Authorization", f"Bearer {token}")


def trusting(issuer: str) -> LiveRelay:
    return LiveRelay(auth=Auth(jwks_url=f"{issuer}/keys", issuer=issuer, audience="relay"))


def test_tokens_of_an_issuer_are_checked_with_the_keys_that_it_publishes(issuer: str) -> None:
    with trusting(issuer) as live:
        assert opening(live, **issued(issuer))[0] == 101
        assert opening(live, **issued(issuer, aud="other"))[0] == 401
        assert opening(live, **issued(issuer, iss="https://evil.example"))[0] == 401


@pytest.mark.parametrize("size", [DOCUMENT_BYTES_MAX + 1, 8 * 2**20])
def test_an_issuer_that_publishes_too_much_is_not_believed(issuer: str, size: int) -> None:
    Issuer.document = KEYS + b" " * size
    with trusting(issuer) as live:
        status, reason = opening(live, **issued(issuer))
        assert status == 503
        assert "keys cannot be had" in reason


def test_an_issuer_that_sends_us_elsewhere_is_not_followed(issuer: str) -> None:
    Issuer.location = "http://127.0.0.1:9/keys"
    with trusting(issuer) as live:
        assert opening(live, **issued(issuer))[0] == 503


def test_while_an_issuer_hangs_the_relay_goes_on(
    issuer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FETCH_S", 1.0)
    Issuer.document = None
    with trusting(issuer) as live, httpx.Client(base_url=live.http, trust_env=False) as http:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(opening(live, **issued(issuer))[0]))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        assert http.get("/ping").status_code == 200
        for thread in threads:
            thread.join()
        assert statuses == [503] * 5
        Issuer.release.set()


# What a bearer may do inside ----------------------------------------------------------------------


@contextlib.contextmanager
def announced(live: LiveRelay, id: str, **claims: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """What came back to a presence of this id, and the connection."""
    header = with_header("Authorization", f"Bearer {minted(**claims)}")
    with open_sync(live.url, **header) as socket:
        socket.send(json.dumps({"type": "presence", "from": id, "data": {"agents": []}}))
        yield json.loads(socket.recv(PATIENCE_S)), socket


def test_a_token_binds_the_peer_id_and_tells_how_long_it_lasts(relay: LiveRelay) -> None:
    with announced(relay, "bob") as (refused, socket):
        assert (refused["type"], refused["data"]["code"]) == ("error", "not_granted")
        socket.send('{"type":"capabilities"}')
        granted = json.loads(socket.recv(PATIENCE_S))["data"]["grant"]
        assert granted["peer"] == "ann"
        assert 3500 < granted["expiresInSeconds"] <= 3660
    with announced(relay, "ann/laptop") as (accepted, _):
        assert (accepted["type"], accepted["from"]) == ("presence", "ann/laptop")


def test_when_a_token_has_run_out_the_relay_says_so_and_closes() -> None:
    clock = StillClock()
    with (
        LiveRelay(clock=clock, auth=Auth(secret=SECRET)) as live,
        announced(live, "ann") as (accepted, socket),
    ):
        assert accepted["type"] == "presence"
        clock.shift_s = 3600 + CLOCK_SKEW_S + Limits().grant_grace_s + 1
        said = json.loads(socket.recv(PATIENCE_S))
        assert (said["type"], said["data"]["code"]) == ("error", "expired")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert "run out" in closed.value.rcvd.reason


def test_a_bearer_cannot_flood_the_mesh_with_peers_of_its_own() -> None:
    limits = Limits(grant_connections_max=5)
    with LiveRelay(limits, auth=Auth(secret=SECRET)) as live, contextlib.ExitStack() as open_ones:
        for n in range(5):
            open_ones.enter_context(announced(live, f"ann/{n}"))
        status, reason = opening(live, **with_header("Authorization", f"Bearer {minted()}"))
        assert (status, "grant_connections_max" in reason) == (503, True)
        with announced(live, "bob", sub="bob") as (accepted, _):
            assert accepted["from"] == "bob"
