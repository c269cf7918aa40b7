"""The way to AgentCore: every URL has the mesh's session in its signed part and is made anew."""

import datetime
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import anyio
import boto3
import botocore.auth
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    TokenRetrievalError,
)

from actors.client.agentcore import agentcore, oauth, presigned, with_token
from actors.client.peer import join
from actors.client.websocket import Address, Connector, websocket
from actors.host.tokens import token_of
from protocol.member.errors import BadAddress, NoCredentials, Rejected, Unreachable
from protocol.session import session_id
from tests.edge import Edge, HostedRuntime, Issuer
from tests.worlds.live import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The servers in this file are those of asyncio."""
    return "asyncio"


ARN = "arn:aws:bedrock-agentcore:eu-central-1:123456789012:runtime/relay-AbC123"
SESSION = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
SECRET = "s3cr3t/K+y="
TOKEN = "FwoG//token+with/everything=="


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def credentials(token: str | None = TOKEN) -> boto3.Session:
    return boto3.Session("AKIAEXAMPLE", SECRET, token, region_name="us-east-1")


def parts(url: str) -> tuple[str, str, dict[str, str]]:
    """Host, path and query of a URL."""
    split = urlsplit(url)
    assert split.scheme == "wss"
    return split.netloc, split.path, {k: v for k, [v] in parse_qs(split.query).items()}


def signature(url: str, token: str | None, region: str) -> str:
    """What botocore itself makes of the rest of this URL, at the time that it says."""
    host, path, query = parts(url)
    when = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    own = {k: v for k, v in query.items() if not k.startswith("X-Amz-")}
    plain = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in own.items())
    request = AWSRequest("GET", f"https://{host}{path}?{plain}", headers={"host": host})
    request.context["timestamp"] = query["X-Amz-Date"]
    signer = SigV4QueryAuth(
        Credentials("AKIAEXAMPLE", SECRET, token),
        "bedrock-agentcore",
        region,
        expires=int(query["X-Amz-Expires"]),
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(botocore.auth, "get_current_datetime", lambda: when, raising=False)
    try:
        signer.add_auth(request)
    finally:
        patch.undo()
    return parts(request.url.replace("https:", "wss:"))[2]["X-Amz-Signature"]


@pytest.mark.parametrize("mesh", ["team", "caf\u00e9 \U0001f916 / 1?&=#%+"])
@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize("qualifier", [None, "DEFAULT", "blue green"])
async def test_the_session_of_the_mesh_is_in_the_signed_query(
    mesh: str, token: str | None, qualifier: str | None
) -> None:
    custom = {"X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name": "a b/\u00e9+"}
    make = presigned(
        ARN, mesh=mesh, secret="x", qualifier=qualifier, session=credentials(token), headers=custom
    )
    host, path, query = parts((await make()).url)
    assert host == "bedrock-agentcore.eu-central-1.amazonaws.com"
    assert path == f"/runtimes/{quote(ARN, safe='')}/ws"
    assert query[SESSION] == session_id(mesh, "x")
    assert query.get("qualifier") == qualifier
    assert query.get("X-Amz-Security-Token") == token
    assert query["X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name"] == "a b/\u00e9+"
    assert query["X-Amz-SignedHeaders"] == "host"
    assert int(query["X-Amz-Expires"]) <= 300


@pytest.mark.parametrize(
    "arn",
    [
        ARN,
        "arn:aws-us-gov:bedrock-agentcore:us-gov-west-1:123456789012:runtime/a_b-0123456789",
        "arn:aws-cn:bedrock-agentcore:cn-north-1:123456789012:runtime/x",
    ],
)
async def test_the_signature_is_botocores_for_the_same_url(arn: str) -> None:
    url = (await presigned(arn, mesh="team", session=credentials())()).url
    region = arn.split(":")[3]
    assert signature(url, TOKEN, region) == parts(url)[2]["X-Amz-Signature"]
    assert ("amazonaws.com.cn" in url) == region.startswith("cn-")


async def test_every_url_is_signed_with_the_credentials_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = presigned(ARN, mesh="team")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert parts((await make()).url)[2]["X-Amz-Credential"].startswith("AKIAFIRST/")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECOND")
    assert parts((await make()).url)[2]["X-Amz-Credential"].startswith("AKIASECOND/")


async def test_a_token_for_the_relay_is_in_the_signed_query_and_asked_for_each_time() -> None:
    given = iter(("first", "second"))
    custom = {"X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name": "n"}
    make = presigned(
        ARN, mesh="team", session=credentials(), headers=custom, token=lambda: next(given)
    )
    for token in ("first", "second"):
        url = (await make()).url
        _, _, query = parts(url)
        assert query["X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name"] == "n"
        assert token_of({name.lower(): value for name, value in query.items()}) == token
        assert signature(url, TOKEN, "eu-central-1") == query["X-Amz-Signature"]


@pytest.mark.parametrize("token", ["", "two words"])
async def test_what_is_no_token_is_not_signed(token: str) -> None:
    with pytest.raises(NoCredentials, match="log in"):
        await presigned(ARN, mesh="team", session=credentials(), token=token)()


async def test_without_credentials_it_says_where_to_put_them() -> None:
    with pytest.raises(NoCredentials, match="AWS_PROFILE"):
        async with join(agentcore(ARN, mesh="team"), "me"):
            pass


async def test_credentials_that_cannot_be_renewed_say_log_in_again() -> None:
    def renew() -> dict[str, Any]:
        raise TokenRetrievalError(provider="sso", error_msg=f"expired {SECRET}")

    session = credentials()
    expired = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    session._session._credentials = RefreshableCredentials(
        "AKIAEXAMPLE", SECRET, TOKEN, expired, renew, "sso"
    )
    with pytest.raises(NoCredentials, match="log in again") as caught:
        await presigned(ARN, mesh="team", session=session)()
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_credentials_that_take_their_time_do_not_hold_up_who_gave_up() -> None:
    release = threading.Event()

    def renew() -> dict[str, Any]:
        release.wait(PATIENCE_S)
        raise TokenRetrievalError(provider="sso", error_msg="expired")

    session = credentials()
    expired = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    session._session._credentials = RefreshableCredentials(
        "AKIAEXAMPLE", SECRET, TOKEN, expired, renew, "sso"
    )
    with anyio.fail_after(PATIENCE_S), pytest.raises(Unreachable):
        async with join(agentcore(ARN, mesh="team", session=session), "me", within_s=0.2):
            pass
    release.set()


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://sts"),
        ConnectTimeoutError(endpoint_url="https://sts"),
        ClientError({"Error": {"Code": "ThrottlingException"}}, "AssumeRole"),
        ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "AssumeRole"),
    ],
)
async def test_what_passes_by_itself_is_tried_again(error: Exception) -> None:
    def renew() -> dict[str, Any]:
        raise error

    session = credentials()
    expired = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    session._session._credentials = RefreshableCredentials(
        "AKIAEXAMPLE", SECRET, TOKEN, expired, renew, "sso"
    )
    with pytest.raises(Unreachable):
        await presigned(ARN, mesh="team", session=session)()


async def test_the_session_is_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await presigned(ARN, mesh="team", secret="x", session=credentials())()
    assert session_id("team", "x") not in caplog.text


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "relay",
        "arn:aws:s3:::bucket",
        "arn:aws:bedrock-agentcore:eu-central-1:123456789012:memory/x",
        "arn:aws:bedrock-agentcore:eu-central-1::runtime/x",
        "arn:aws:bedrock-agentcore:eu-central-1:123456789012:runtime/",
    ],
)
def test_a_bad_arn_is_said_to_be_one_before_anything_is_tried(arn: str) -> None:
    with pytest.raises(BadAddress, match="ARN must be"):
        agentcore(arn, mesh="team")
    with pytest.raises(BadAddress, match="ARN must be"):
        oauth(arn, _token, mesh="team")


async def test_a_region_that_cannot_be_one_is_refused() -> None:
    arn = ARN.replace("eu-central-1", "evil")
    with pytest.raises(BadAddress, match="region"):
        await presigned(arn, mesh="team", session=credentials())()
    with pytest.raises(BadAddress, match="region"):
        await with_token(arn, _token, mesh="team")()


def test_a_mesh_needs_a_name() -> None:
    with pytest.raises(BadAddress, match="name"):
        agentcore(ARN, mesh="")


async def _token() -> str:
    return "ey.abc.def"


async def test_with_oauth_the_token_is_a_subprotocol_and_the_session_in_the_query() -> None:
    for qualifier in (None, "blue"):
        address = await with_token(ARN, _token, mesh="team", qualifier=qualifier)()
        host, path, query = parts(address.url)
        assert host == "bedrock-agentcore.eu-central-1.amazonaws.com"
        assert path == f"/runtimes/{quote(ARN, safe='')}/ws"
        assert query.get(SESSION) == session_id("team")
        assert query.get("qualifier") == qualifier
        assert "ey.abc" not in address.url
        assert address.subprotocols == (
            "base64UrlBearerAuthorization.ZXkuYWJjLmRlZg",
            "base64UrlBearerAuthorization",
        )
        assert not address.headers


async def test_without_a_token_it_says_log_in() -> None:
    async def none() -> str:
        return ""

    with pytest.raises(NoCredentials, match="log in"):
        async with join(oauth(ARN, none, mesh="team"), "me"):
            pass


# Through the stand-in for the edge ----------------------------------------------------------------


def through(edge: Edge, address: Callable[[], Awaitable[Address]]) -> Connector:
    """To the stand-in on this machine, with the URL, signature and Host of AWS."""

    async def here() -> Address:
        there = await address()
        host = urlsplit(there.url).netloc
        url = there.url.replace(f"wss://{host}", f"ws://127.0.0.1:{edge.port}")
        return Address(url, {**there.headers, "Host": host}, there.subprotocols)

    return websocket(here)


@pytest.mark.parametrize("way", ["SigV4", "OAuth"])
async def test_two_peers_of_one_mesh_meet_and_a_third_of_another_does_not(way: str) -> None:
    issuer = Issuer()
    is_good = None if way == "SigV4" else {"ey.abc.def"}.__contains__
    runtime = HostedRuntime(authorizer=is_good)
    keys = issuer.issue()
    session = boto3.Session(keys.access_key, keys.secret_key, keys.token)

    async with Edge([runtime], issuer.get) as edge:

        def to(mesh: str) -> Connector:
            if way == "OAuth":
                return through(edge, with_token(runtime.arn, _token, mesh=mesh, secret="x"))
            return through(edge, presigned(runtime.arn, mesh=mesh, secret="x", session=session))

        with anyio.fail_after(PATIENCE_S):
            async with join(to("team"), "ann") as ann, join(to("team"), "bob") as bob:
                async with join(to("other"), "eve") as eve:
                    assert set(bob.roster) == {"ann"}
                    assert eve.roster == {}
                    await ann.broadcast("hello")
                    async for message in bob:
                        if message.type == "broadcast":
                            assert message.data == "hello"
                            break


async def test_a_token_that_is_not_good_is_rejected_with_what_to_do() -> None:
    async with Edge([HostedRuntime(authorizer=lambda _: False)], Issuer().get) as edge:
        (runtime,) = edge.runtimes.values()
        with pytest.raises(Rejected, match=r"40[13]") as caught:
            async with join(through(edge, with_token(runtime.arn, _token, mesh="team")), "ann"):
                pass
        assert "ey.abc" not in str(caught.value)
