"""From a login in a page to a signed URL: Cognito as moto plays it, in Chromium."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import boto3
import pytest

from protocol.session import session_id
from tests.browser.test_aws import jwt
from tests.worlds.live import LiveRelay

pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("flask", reason="needs moto[server]")
moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")

REGION = "us-west-2"
ARN = f"arn:aws:bedrock-agentcore:{REGION}:123456789012:runtime/relay-x"
PASSWORD = "PasswordSECRET-1"


@attrs.frozen
class Cloud:
    """A user pool with one user, and an identity pool that takes its tokens."""

    endpoint: str
    client_id: str
    identity_pool: str
    provider: str

    def given(self, **more: object) -> dict[str, object]:
        return {
            "endpoint": self.endpoint,
            "identityPoolId": self.identity_pool,
            "provider": self.provider,
            "clientId": self.client_id,
            "password": PASSWORD,
            **more,
        }


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    session = boto3.Session("AKIDEXAMPLE", "unused", region_name=REGION)
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        pools = stack.enter_context(
            contextlib.closing(session.client("cognito-idp", endpoint_url=endpoint))
        )
        pool = pools.create_user_pool(PoolName="people")["UserPool"]["Id"]
        client_id = pools.create_user_pool_client(
            UserPoolId=pool, ClientName="page", ExplicitAuthFlows=["USER_PASSWORD_AUTH"]
        )["UserPoolClient"]["ClientId"]
        pools.admin_create_user(UserPoolId=pool, Username="ann")
        pools.admin_set_user_password(
            UserPoolId=pool, Username="ann", Password=PASSWORD, Permanent=True
        )
        identities = stack.enter_context(
            contextlib.closing(session.client("cognito-identity", endpoint_url=endpoint))
        )
        provider = f"cognito-idp.{REGION}.amazonaws.com/{pool}"
        identity_pool = identities.create_identity_pool(
            IdentityPoolName="pages",
            AllowUnauthenticatedIdentities=False,
            CognitoIdentityProviders=[{"ProviderName": provider, "ClientId": client_id}],
        )["IdentityPoolId"]
        yield Cloud(endpoint, client_id, identity_pool, provider)


@pytest.fixture
def page(chromium: Any, site: str) -> Iterator[Any]:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{site}/tests/browser/page.html")
    page.wait_for_function("window.client")
    page.evaluate("""() => {
        // Logs in as a page would, and remembers how often that was asked for.
        window.logins = 0;
        window.login = ({ endpoint, clientId, password }) => async () => {
            logins += 1;
            const answer = await fetch(endpoint, {
                method: "POST",
                headers: {
                    "Content-Type": "application/x-amz-json-1.1",
                    "X-Amz-Target": "AWSCognitoIdentityProviderService.InitiateAuth",
                },
                body: JSON.stringify({
                    AuthFlow: "USER_PASSWORD_AUTH",
                    ClientId: clientId,
                    AuthParameters: { USERNAME: "ann", PASSWORD: password },
                }),
            });
            window.idToken = (await answer.json()).AuthenticationResult.IdToken;
            return idToken;
        };
        window.credentialsOf = (given) =>
            client.cognitoCredentials({ idToken: login(given), ...given });
    }""")
    yield page
    context.close()


def test_a_login_becomes_credentials_and_those_a_signed_url(page: Any, cloud: Cloud) -> None:
    script = """async (given) => {
        const credentials = credentialsOf(given);
        const { expiration, ...made } = await credentials();
        const { arn, mesh } = given;
        const url = await client.agentcore({ arn, mesh, credentials })();
        return [made, expiration - Date.now(), url, logins];
    }"""
    made, lasts_ms, url, logins = page.evaluate(script, cloud.given(arn=ARN, mesh="my mesh"))
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Credential"][0].startswith(made["accessKeyId"] + "/")
    assert query["X-Amz-Security-Token"] == [made["sessionToken"]]
    assert query["X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"] == [session_id("my mesh")]
    assert lasts_ms > 0
    assert logins == 1 or lasts_ms < 300_000


# What AWS would answer, where moto has no way to say it.
ANSWERS = """([given, answers]) => {
    window.asked = [];
    window.fetch = async (url, { headers, body }) => {
        asked.push([headers["X-Amz-Target"].split(".")[1], body]);
        const [status, content] = answers.length > 1 ? answers.shift() : answers[0];
        if (status === 0) throw new TypeError("Failed to fetch");
        const filled = JSON.stringify(content).replace('"EXPIRES"', Date.now() / 1000 + 3600);
        return new Response(filled, { status });
    };
    window.later = (seconds) => { const { now } = Date; Date.now = () => now() + seconds * 1000; };
    window.tokens = 0;
    const idToken = async () => `SECRET${(tokens += 1)}`;
    window.get = client.cognitoCredentials({ ...given, idToken });
    const shown = ({ name, isTransient, message, stack }) => [name, isTransient, message + stack];
    window.outcome = () => get().catch(shown);
}"""
IDENTITY = [200, {"IdentityId": "us-west-2:1"}]
CREDENTIALS = {"AccessKeyId": "A", "SecretKey": "S", "SessionToken": "T", "Expiration": "EXPIRES"}
GOOD = [IDENTITY, [200, {"IdentityId": "us-west-2:1", "Credentials": CREDENTIALS}]]


def test_credentials_are_kept_until_five_minutes_before_they_expire(
    page: Any, cloud: Cloud
) -> None:
    page.evaluate(ANSWERS, [cloud.given(), GOOD * 4])
    asked = "asked.map(([action]) => action)"
    page.evaluate("async () => { await get(); await get(); }")
    assert page.evaluate(asked) == ["GetId", "GetCredentialsForIdentity"]
    assert page.evaluate("asked.every(([, body]) => body.includes('SECRET1'))")

    # Two connections at once need them once; five minutes before the end they are new.
    page.evaluate("async () => { later(3301); await get(); }")
    assert len(page.evaluate(asked)) == 4
    page.evaluate("async () => { later(3301); await Promise.all([get(), get(), get()]); }")
    assert len(page.evaluate(asked)) == 6
    assert page.evaluate("tokens") == 3


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (400, "NotAuthorizedException", "LoginNeeded"),
        (400, "com.amazonaws#NotAuthorizedException:http://x/", "LoginNeeded"),
        (400, "ResourceNotFoundException", "BadAddress"),
        (400, "ValidationException", "BadAddress"),
        (400, "InvalidIdentityPoolConfigurationException", "NoCredentials"),
        (400, "TooManyRequestsException", "Unreachable"),
        (500, "InternalErrorException", "Unreachable"),
        (0, "", "Unreachable"),
    ],
)
def test_what_cognito_refuses_is_one_typed_error(
    page: Any, cloud: Cloud, status: int, kind: str, outcome: str
) -> None:
    """And its own words, which may quote the token, are not repeated."""
    refusal = [status, {"__type": kind, "message": "Invalid login token SECRET1"}]
    for answers in ([refusal], [IDENTITY, refusal]):
        page.evaluate(ANSWERS, [cloud.given(), answers])
        name, is_transient, text = page.evaluate("outcome()")
        assert name == outcome
        assert is_transient == (name == "Unreachable")
        assert "SECRET" not in text


@pytest.mark.parametrize("answer", [{}, {"Credentials": {"AccessKeyId": "A"}}])
def test_an_answer_without_credentials_is_an_error(page: Any, cloud: Cloud, answer: object) -> None:
    page.evaluate(ANSWERS, [cloud.given(), [IDENTITY, [200, answer]]])
    assert page.evaluate("outcome()")[0] == "NoCredentials"


def test_an_expired_login_ends_the_membership_with_one_typed_error(page: Any, cloud: Cloud) -> None:
    script = """async (given) => {
        const credentials = client.cognitoCredentials({ ...given, idToken: () => given.token });
        const url = client.agentcore({ arn: given.arn, mesh: "m", credentials });
        const error = await client.join({ id: "ann", url }).catch((error) => error);
        return [error.name, error.message + error.stack];
    }"""
    given = cloud.given(arn=ARN, token=jwt(exp=1_600_000_000))
    name, text = page.evaluate(script, given)
    assert name == "LoginNeeded"
    assert given["token"] not in text
    assert "log in" in text


def test_no_secret_is_stored_shown_or_logged(page: Any, cloud: Cloud, live: LiveRelay) -> None:
    """A whole flow: login, credentials, a signed URL, a membership, an error, the end."""
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    script = """async (given) => {
        const seen = [];
        const credentials = credentialsOf(given);
        const { arn, secret } = given;
        const sign = client.agentcore({ arn, mesh: "m", secret, credentials });
        const urls = [];
        // The relay of this test is elsewhere than AWS; all else is as it would be.
        const url = async () => {
            urls.push(await sign());
            return given.relay + new URL(urls.at(-1)).search;
        };
        const peer = await client.join({ id: await client.peerId("shared"), url, agents: ["a"] });
        await peer.broadcast("hello");
        seen.push(await peer.ask("nobody", "x").result().catch(String));
        await peer.leave();
        seen.push(await peer.broadcast("late").catch(String));
        const failing = { id: "ann", joinTimeoutS: 0.3 };
        const gone = async () => { await url(); throw new Error(urls.at(-1)); };
        const error = await client.join({ ...failing, url: gone }).catch((error) => error);
        seen.push(`${error} ${error.stack} ${JSON.stringify(error)} ${error.cause}`);
        const { accessKeyId, secretAccessKey, sessionToken } = await credentials();
        return {
            secrets: [accessKeyId, secretAccessKey, sessionToken, idToken, given.secret,
                ...urls.map((url) => new URL(url).searchParams.get("X-Amz-Signature"))],
            shown: [...seen, JSON.stringify(peer), location.href,
                document.body.innerHTML, document.cookie,
                JSON.stringify(localStorage), JSON.stringify(sessionStorage),
                JSON.stringify(await indexedDB.databases()), JSON.stringify(await caches.keys())],
        };
    }"""
    given = cloud.given(arn=ARN, relay=live.url, secret="mesh-SECRET")
    result = page.evaluate(script, given)
    everything = json.dumps([result["shown"], logged])
    assert "UnknownTarget" in everything  # what is looked at is really there
    assert "agi-diy-relay:peer:" in everything
    for secret in [*result["secrets"], PASSWORD]:
        assert len(secret) >= 8
        assert secret not in everything
