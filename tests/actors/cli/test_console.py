"""`agi-mesh console`: the page and its stream on this machine, of a mesh that may be anywhere."""

import json
import re
import signal
import socket
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from actors.cli.console import app_for, stream_url
from actors.cli.place import Where
from actors.host.tokens import Auth
from protocol.session import TOKEN_HEADER, session_id
from tests.actors.cli.conftest import Call
from tests.actors.cli.program import line_with, running
from tests.actors.host.test_admission import SECRET, minted
from tests.actors.host.test_console import events
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay

pytestmark = pytest.mark.anyio

ARN = "arn:aws:bedrock-agentcore:eu-west-1:123456789012:runtime/relay-x"
HERE = {"base_url": "http://localhost:8090", "trust_env": False}


async def test_the_console_of_a_relay_that_asks_for_a_token(tmp_path: Any) -> None:
    token = minted()
    (tmp_path / "token").write_text(token)
    with LiveRelay(auth=Auth(secret=SECRET)) as live:
        options = ("--url", live.url, "--mesh", "m", "--token-file", str(tmp_path / "token"))
        with running("console", "--port", "0", *options) as program:
            said = line_with(program.stderr, "The console is at")
            [at] = re.findall(r"http://localhost:\d+/", said)
            async with httpx.AsyncClient(base_url=at, trust_env=False, timeout=PATIENCE_S) as http:
                page = await http.get("console/", follow_redirects=True)
                assert page.status_code == 200
                assert "default-src 'none'" in page.headers["content-security-policy"]
                where = (await http.get("console/where")).json()
                assert where == {"url": f"{live.url}?mesh=m", "token": token, "peer": "ann"}
                where = (await http.get("console/where?mesh=other%20one")).json()
                assert where["url"] == f"{live.url}?mesh=other+one"
                async with http.stream("GET", "console/stream") as answer:
                    type, state = await anext(events(answer.aiter_lines()))
                assert (type, state["mesh"]) == ("state", "m")
                async with http.stream("GET", "console/stream?mesh=other") as answer:
                    type, state = await anext(events(answer.aiter_lines()))
                assert (type, state["mesh"]) == ("state", "other")
            program.send_signal(signal.SIGINT)
            assert program.wait(PATIENCE_S) == 130


class Runtime(httpx.AsyncBaseTransport):
    """AgentCore, as far as it takes a signed request and answers with what the relay says."""

    def __init__(self, status: int = 200, text: str = "event: state\ndata: {}\n\n") -> None:
        self.requests: list[httpx.Request] = []
        self._answer = status, text

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, text = self._answer
        return httpx.Response(status, text=text)


def console(where: Where, runtime: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    app = app_for(where, httpx.AsyncClient(transport=runtime))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), **HERE)  # type: ignore[arg-type]


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not a secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "temporary")
    return Credentials("AKIDEXAMPLE", "not a secret", "temporary")


async def test_behind_the_edge_the_stream_is_a_signed_invocation_of_the_meshs_session(
    credentials: Credentials,
) -> None:
    runtime = Runtime()
    async with console(Where(None, ARN, "team", "a.b.c"), runtime) as http:
        answer = await http.get("/console/stream")
        where = (await http.get("/console/where")).json()
    assert answer.text == "event: state\ndata: {}\n\n"
    [request] = runtime.requests
    host = "bedrock-agentcore.eu-west-1.amazonaws.com"
    arn = ARN.replace(":", "%3A").replace("/", "%2F")
    assert str(request.url) == f"https://{host}/runtimes/{arn}/invocations?qualifier=DEFAULT"
    assert json.loads(request.content) == {"observe": True, "mesh": "team"}
    sent = request.headers
    assert sent["x-amzn-bedrock-agentcore-runtime-session-id"] == session_id("team")
    assert sent[TOKEN_HEADER] == "a.b.c"
    # Signed as botocore signs it: what the signature covers is what was sent.
    [covered] = re.findall("SignedHeaders=([^,]+)", sent["authorization"])
    signer = SigV4Auth(credentials, "bedrock-agentcore", "eu-west-1")
    again = AWSRequest("POST", str(request.url), data=request.content)
    again.context["timestamp"] = sent["x-amz-date"]
    for name in covered.split(";"):
        again.headers[name] = sent[name]
    canonical = signer.canonical_request(again)
    signature = signer.signature(signer.string_to_sign(again, canonical), again)
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert where["url"].startswith(f"wss://{host}/runtimes/{arn}/ws?")
    assert "X-Amz-Signature=" in where["url"]
    assert "token" not in where


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_what_the_relay_says_instead_of_a_stream_is_passed_on(status: int) -> None:
    async with console(
        Where("ws://relay.test/ws", None, "m", None), Runtime(status, "why")
    ) as http:
        answer = await http.get("/console/stream")
    assert (answer.status_code, answer.text) == (502, "why")


async def test_a_relay_that_is_not_there_is_an_answer() -> None:
    with HeldPort() as port:
        where = Where(f"ws://127.0.0.1:{port}/ws", None, "m", None)
        async with console(where, httpx.AsyncHTTPTransport()) as http:
            answer = await http.get("/console/stream")
    assert answer.status_code == 502
    assert answer.text.strip()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8090"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/console/where", "/console/stream", "/browser/console/"])
async def test_pages_of_others_get_nothing(headers: dict[str, str], path: str) -> None:
    async with console(Where("ws://relay.test/ws", None, "m", "t"), Runtime()) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code == 403
    assert answer.text != "t"


@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("ws://localhost:8080/ws", "http://localhost:8080/console/stream"),
        ("wss://a.example/b/ws/?mesh=m&x=1", "https://a.example/b/console/stream?mesh=m&x=1"),
        ("wss://a.example", "https://a.example/console/stream"),
    ],
)
async def test_where_the_stream_is(url: str, stream: str) -> None:
    assert stream_url(url) == stream


async def test_a_port_that_is_taken_is_one_sentence(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = await call("console", "--port", str(taken.getsockname()[1]))
    assert done.code == 1
    assert done.err.startswith("agi-mesh: cannot listen on ")
