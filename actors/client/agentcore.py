"""The way to a mesh on Amazon Bedrock AgentCore, for peers in Python.

    async with join(agentcore(arn, mesh="team"), "me") as peer: ...      # AWS credentials (SigV4)
    async with join(oauth(arn, token, mesh="team"), "me") as peer: ...   # a runtime with OAuth

Both give connectors (actors/client/websocket.py) that make a fresh URL for every connection,
because a presigned one is good for 300 s at most. On AgentCore every session id has a machine of
its own, so the session id is always that of the mesh (protocol/session.py) and always in the URL,
in the signed part of it where there is a signature.

URLs are made by the SDK's `AgentCoreRuntimeClient`, from whatever credentials boto3 finds;
credentials that renew themselves do so there. The SDK is imported when it is first needed, because
only the extra `agentcore` brings it.
"""

import json
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import anyio.to_thread
import attrs

from actors.client.websocket import (
    Address,
    Connector,
    Token,
    bearer_subprotocols,
    fresh_token,
    websocket,
)
from protocol.about import missing_extra
from protocol.member.errors import BadAddress, NoCredentials, Unreachable
from protocol.session import TOKEN_HEADER, session_id

if TYPE_CHECKING:
    from bedrock_agentcore.runtime import AgentCoreRuntimeClient

Result = TypeVar("Result")

EXPIRES_S: Final = 300
"""How long (seconds) a URL is good for. It is used at once and never again; what is left of the
time forgives a clock that is wrong."""

# It logs the session id of every URL, which is what a mesh's secret protects.
logging.getLogger("bedrock_agentcore.runtime.agent_core_runtime_client").setLevel(logging.WARNING)

_SESSION: Final = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
_ARN: Final = re.compile(r"arn:[a-z0-9-]+:bedrock-agentcore:([a-z0-9-]+):[0-9]+:runtime/[^:]+")


def agentcore(
    arn: str,
    *,
    mesh: str,
    secret: str = "",
    qualifier: str | None = None,
    session: Any = None,
    headers: Mapping[str, str] | None = None,
    token: Token | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Connector:
    """A connector to the mesh `mesh` on the runtime `arn`, with AWS credentials.

    `secret`: without it nobody can guess the session. `qualifier`: the endpoint, DEFAULT
    unless given. `session`: a `boto3.Session`; by default one with the credentials of the
    environment. `headers`: `X-Amzn-Bedrock-AgentCore-Runtime-Custom-*` for the runtime, as signed
    query parameters. `token`: for the relay, where it asks for one, in such a header; a text of up
    to 4096 characters, or a function, async or not, that is asked for every connection. Raises
    BadAddress, and ImportError without the extra `agentcore`; connecting raises NoCredentials and
    what `websocket` does.
    """
    address = presigned(
        arn,
        mesh=mesh,
        secret=secret,
        qualifier=qualifier,
        session=session,
        headers=headers,
        token=token,
    )
    return websocket(address, ssl_context=ssl_context)


def presigned(
    arn: str,
    *,
    mesh: str,
    secret: str = "",
    qualifier: str | None = None,
    session: Any = None,
    headers: Mapping[str, str] | None = None,
    token: Token | None = None,
) -> Callable[[], Awaitable[Address]]:
    """What `agentcore` asks for an address: each call signs a new URL. Arguments as there."""
    region, name = _region(arn), _session_id(mesh, secret)
    sdk = _sdk("agentcore()")

    def sign(custom: dict[str, str]) -> str:
        client = sdk(region, session=session)
        return client.generate_presigned_url(arn, name, qualifier, custom, expires=EXPIRES_S)

    async def address() -> Address:
        custom = dict(headers or {})
        if token is not None:
            custom[TOKEN_HEADER] = await fresh_token(token)
        return Address(await _signed(partial(sign, custom)))

    return address


async def _signed(sign: Callable[[], Result]) -> Result:
    """What `sign` returns, in a worker thread: it may have to get credentials. Raises as
    `presigned` does."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        return await anyio.to_thread.run_sync(sign, abandon_on_cancel=True)
    except ValueError as error:
        raise BadAddress(f"the runtime's ARN or region is not valid ({error})") from None
    except RuntimeError:
        raise NoCredentials(
            "no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its companions, "
            "or pass session=boto3.Session(...)"
        ) from None
    except (BotoCoreError, ClientError) as error:
        kind = type(error).__name__
        if _is_passing(error):
            raise Unreachable(f"AWS credentials could not be had just now ({kind})") from None
        raise NoCredentials(
            f"AWS credentials could not be had ({kind}); log in again, or check the profile"
        ) from None


@attrs.frozen(repr=False)
class Invocation:
    """A request over HTTP. Never shown: any of it may hold a credential."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


async def signed_invocation(
    arn: str,
    payload: object,
    *,
    mesh: str,
    secret: str = "",
    qualifier: str = "DEFAULT",
    session: Any = None,
    token: Token | None = None,
) -> Invocation:
    """The request `InvokeAgentRuntime` with this JSON, signed: its answer may be a stream, which
    the SDK reads only as a whole. Arguments and errors as for `agentcore`."""
    region, sdk = _region(arn), _sdk("agentcore()")
    body = json.dumps(payload).encode()
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        _SESSION: _session_id(mesh, secret),
    }
    if token is not None:
        headers[TOKEN_HEADER] = await fresh_token(token)

    def sign() -> Invocation:
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        client = sdk(region, session=session)
        credentials = client.session.get_credentials()
        if credentials is None:
            raise RuntimeError
        where = f"{client.dp_client.meta.endpoint_url}/runtimes/{quote(arn, safe='')}/invocations"
        request = AWSRequest("POST", f"{where}?qualifier={quote(qualifier)}", headers, body)
        SigV4Auth(credentials.get_frozen_credentials(), "bedrock-agentcore", region).add_auth(
            request
        )
        return Invocation("POST", request.url, dict(request.headers), body)

    return await _signed(sign)


def oauth(
    arn: str,
    token: Token,
    *,
    mesh: str,
    secret: str = "",
    qualifier: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Connector:
    """A connector to the mesh `mesh` on the runtime `arn`, whose authorizer takes bearer tokens.

    `token`: one, or better a function, async or not, that is asked for one at every connection. The
    rest is as for `agentcore`.
    """
    address = with_token(arn, token, mesh=mesh, secret=secret, qualifier=qualifier)
    return websocket(address, ssl_context=ssl_context)


def with_token(
    arn: str,
    token: Token,
    *,
    mesh: str,
    secret: str = "",
    qualifier: str | None = None,
) -> Callable[[], Awaitable[Address]]:
    """What `oauth` asks for an address. Arguments as there."""
    region, name = _region(arn), _session_id(mesh, secret)
    sdk = _sdk("oauth()")

    def url_for(value: str) -> str:
        client = sdk(region)
        # Only the URL: the token goes in the subprotocols, as pages must do it, too.
        url, _ = client.generate_ws_connection_oauth(arn, value, name, qualifier)
        return f"{url}{'&' if '?' in url else '?'}{_SESSION}={quote(name)}"

    async def address() -> Address:
        value = await fresh_token(token)
        try:
            url = await anyio.to_thread.run_sync(url_for, value, abandon_on_cancel=True)
        except ValueError as error:
            raise BadAddress(f"the runtime's ARN or region is not valid ({error})") from None
        return Address(url, subprotocols=bearer_subprotocols(value))

    return address


def _sdk(what: str) -> type["AgentCoreRuntimeClient"]:
    """The SDK's client. Raises ImportError, in one sentence, where the SDK is not installed."""
    try:
        from bedrock_agentcore.runtime import AgentCoreRuntimeClient  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing_extra(error, "agentcore", what) from None
    return AgentCoreRuntimeClient


def _is_passing(error: Exception) -> bool:
    """The network, or AWS, and not the credentials."""
    from botocore.exceptions import ClientError, HTTPClientError  # noqa: PLC0415
    from botocore.exceptions import ConnectionError as BotoConnectionError  # noqa: PLC0415

    if isinstance(error, ClientError):
        answer = error.response.get("ResponseMetadata", {})
        code = str(error.response.get("Error", {}).get("Code"))
        return int(answer.get("HTTPStatusCode", 0)) >= 500 or "Throttl" in code
    return isinstance(error, (HTTPClientError, BotoConnectionError))


def _region(arn: str) -> str:
    match = _ARN.fullmatch(arn)
    if match is None:
        raise BadAddress(
            "the ARN must be arn:aws:bedrock-agentcore:REGION:ACCOUNT:runtime/ID, as "
            "`agentcore status` shows it"
        )
    return match[1]


def _session_id(mesh: str, secret: str) -> str:
    try:
        return session_id(mesh, secret)
    except ValueError as error:
        raise BadAddress(str(error)) from None
