"""SigV4 and OAuth URLs of the browser client against botocore and the Python SDK."""

import base64
import datetime
import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import botocore.auth
import botocore.compat
import pytest
from bedrock_agentcore.runtime.agent_core_runtime_client import AgentCoreRuntimeClient
from websockets.datastructures import Headers

from protocol.session import TOKEN_HEADER, session_id
from tests.browser.conftest import Node
from tests.edge import Credentials
from tests.edge.signing import Denied, verify

DATE = datetime.datetime(2026, 11, 23, 4, 5, 6, tzinfo=datetime.UTC)
ARNS = [
    "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/relay-Ab12345678",
    "arn:aws:bedrock-agentcore:eu-central-1:000000000001:runtime/odd/with/slashes",
    "arn:aws:bedrock-agentcore:ap-southeast-2:1:runtime/it's (odd)*! ~_.-+&=?#%41",
    "arn:aws-us-gov:bedrock-agentcore:us-gov-west-1:123456789012:runtime/gov",
    "arn:aws-cn:bedrock-agentcore:cn-north-1:123456789012:runtime/\u4e2d\u6587",
]
TOKENS: list[str | None] = [None, "IQoJb3Jp+Z2lu/X2Vj==", "token with spaces &=%+\u00e9" * 40]
QUALIFIERS: list[str | None] = [None, "DEFAULT", "a b+c/\u00e9"]
HEADERS: list[dict[str, str] | None] = [
    None,
    {"X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name": "caf\u00e9 \U0001f916 & more=1"},
    {
        "abc": "pqr",
        "abC": "",
        "a": "!'()*~",
        "a-b": "2",
        "a=b": "&",
        "X-Amz-Zeta": "z",
        "zeta": "/",
    },
    {"qualifier": "from the headers"},
]
SESSIONS = [session_id("my mesh"), session_id("\u5de5\u4f5c\u5ba4", "\u79d8\u5bc6"), "s" * 33]


@functools.cache
def sdk(region: str) -> AgentCoreRuntimeClient:
    return AgentCoreRuntimeClient(region, boto3.Session("unused", "unused"))


def signed_by_sdk(case: dict[str, Any]) -> str:
    keys = case["credentials"]
    client = sdk(case["arn"].split(":")[3])
    names = ("accessKeyId", "secretAccessKey", "sessionToken")
    client.session = boto3.Session(*(keys.get(name) for name in names))
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=DATE):
        return client.generate_presigned_url(
            case["arn"],
            session_id=case["sessionId"],
            endpoint_name=case.get("qualifier"),
            custom_headers=dict(case["customHeaders"]) if case.get("customHeaders") else None,
            expires=case["expiresS"],
        )


def cases() -> list[dict[str, Any]]:
    """Every kind of every parameter with every kind of every other one, a few times each."""
    found = []
    everything = itertools.product(ARNS, TOKENS, QUALIFIERS, HEADERS, SESSIONS)
    for n, (arn, token, qualifier, headers, session) in enumerate(everything):
        if n % 7 and n > 60:
            continue
        credentials = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "wJalr/XUtnFEMI+K7MDENG"}
        case: dict[str, Any] = {
            "arn": arn,
            "credentials": credentials | ({"sessionToken": token} if token else {}),
            "sessionId": session,
            "expiresS": (1, 60, 300)[n % 3],
        }
        if qualifier:
            case["qualifier"] = qualifier
        if headers:
            case["customHeaders"] = headers
        found.append(case)
    return found


@pytest.fixture(scope="module")
def vectors() -> list[tuple[dict[str, Any], str]]:
    return [(case, signed_by_sdk(case)) for case in cases()]


SIGN_ALL = """
    const date = new Date(given.date);
    return Promise.all(given.cases.map((one) => client.presign({ ...one, date })));
"""


def test_presigned_urls_equal_the_sdks(
    node: Node, vectors: list[tuple[dict[str, Any], str]]
) -> None:
    given = {"date": DATE.isoformat(), "cases": [case for case, _ in vectors]}
    for made, (case, wanted) in zip(node(SIGN_ALL, given), vectors, strict=True):
        assert made == wanted, case


def test_presigned_urls_equal_the_sdks_in_chromium_too(
    chromium: Any, site: str, vectors: list[tuple[dict[str, Any], str]]
) -> None:
    page = chromium.new_page()
    page.goto(f"{site}/tests/browser/page.html")
    given = {"date": DATE.isoformat(), "cases": [case for case, _ in vectors]}
    script = f"""async (given) => {{
        const client = await import("/browser/relay-client.js");
        {SIGN_ALL}
    }}"""
    assert page.evaluate(script, given) == [wanted for _, wanted in vectors]
    page.close()


def test_every_url_carries_the_meshs_session_inside_what_is_signed(node: Node) -> None:
    script = """
        const credentials = async () => ({ accessKeyId: "A", secretAccessKey: "B" });
        const url = client.agentcore({ ...given, credentials, qualifier: "Q" });
        return [await url(), await client.oauth({ ...given, token: "t~\u00e9" })()];
    """
    signed, open_ = node(script, {"arn": ARNS[0], "mesh": "my mesh", "secret": "s"})
    name = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
    for url in (signed, open_["url"]):
        assert parse_qs(urlsplit(url).query)[name] == [session_id("my mesh", "s")]
    assert "qualifier=Q" in signed
    token = base64.urlsafe_b64encode("t~\u00e9".encode()).decode().rstrip("=")
    scheme = "base64UrlBearerAuthorization"
    assert open_["protocols"] == [f"{scheme}.{token}", scheme]
    assert urlsplit(open_["url"]).path == urlsplit(signed).path
    assert "qualifier" not in open_["url"]


def test_each_connection_is_signed_anew_with_credentials_of_that_moment(node: Node) -> None:
    script = """
        let n = 0;
        const credentials = () => ({ accessKeyId: `A${(n += 1)}`, secretAccessKey: "B" });
        const url = client.agentcore({ ...given, mesh: "m", credentials });
        return [await url(), await url()];
    """
    first, second = node(script, {"arn": ARNS[0]})
    assert "Credential=A1%2F" in first
    assert "Credential=A2%2F" in second


def test_a_token_for_the_relay_is_in_the_signed_query_and_asked_for_each_time(node: Node) -> None:
    script = """
        let n = 0;
        const token = async () => `t+${(n += 1)}`;
        const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "B" };
        const customHeaders = { "X-Amzn-Bedrock-AgentCore-Runtime-Custom-Name": "n" };
        const url = client.agentcore({ ...given, mesh: "m", credentials, token, customHeaders });
        const expired = client.agentcore({ ...given, mesh: "m", credentials, token: given.old });
        return [await url(), await url(), await expired().catch(({ name }) => name)];
    """
    first, second, error = node(script, {"arn": ARNS[0], "old": jwt(exp=1_600_000_000)})
    prefix = "X-Amzn-Bedrock-AgentCore-Runtime-Custom-"
    for url, token in ((first, "t+1"), (second, "t+2")):
        query = {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}
        assert query[TOKEN_HEADER] == token
        assert query[prefix + "Name"] == "n"
        issued = Credentials("AKIDEXAMPLE", "B")
        target = url.removeprefix("wss://bedrock-agentcore.us-west-2.amazonaws.com")
        now_ms = round(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
        host = Headers(Host="bedrock-agentcore.us-west-2.amazonaws.com")
        verify(target, host, "us-west-2", {"AKIDEXAMPLE": issued}.get, now_ms)
        with pytest.raises(Denied):
            changed = target.replace(quote(token), "t%2B9")
            verify(changed, host, "us-west-2", {"AKIDEXAMPLE": issued}.get, now_ms)
    assert error == "LoginNeeded"


BAD_ARNS = [
    "",
    "my-relay",
    "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/",
    "arn:aws:bedrock-agentcore:us-west-2:123456789012:memory/x",
    "arn:aws:bedrock-agentcore:us-west-2::runtime/x",
    "arn:aws:bedrock-agentcore::123456789012:runtime/x",
    "arn:aws:lambda:us-west-2:123456789012:runtime/x",
    "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/x:1",
    "arn:constructor:bedrock-agentcore:us-west-2:123456789012:runtime/x",
    "arn:aws:bedrock-agentcore:evil.example/#:123456789012:runtime/x",
    "arn:aws:bedrock-agentcore:cn-north-1:123456789012:runtime/x",
    "arn:aws-cn:bedrock-agentcore:us-east-1:123456789012:runtime/x",
]

CAUGHT = """
    const credentials = { accessKeyId: "AKID", secretAccessKey: "SECRET", sessionToken: "SECRET" };
    const sessionId = "s".repeat(40);
    const ways = {
        presign: (more) => client.presign({ credentials, sessionId, ...more }),
        agentcore: async (more) => client.agentcore({ credentials, mesh: "m", ...more })(),
        oauth: async (more) => client.oauth({ token: "SECRET", mesh: "m", ...more })(),
        cognito: async (more) => client.cognitoCredentials({ idToken: "SECRET", ...more })(),
    };
    return Promise.all(given.map(([way, more]) =>
        ways[way](more).then(String, ({ name, message }) => `${name}: ${message}`)));
"""
"""What comes of each of the ways to an address, given this and that: all in one process."""


def caught(node: Node, *tries: tuple[str, Mapping[str, object]]) -> list[str]:
    outcomes: list[str] = node(CAUGHT, tries)
    assert not any("SECRET" in outcome for outcome in outcomes)
    return outcomes


def kinds(node: Node, *tries: tuple[str, Mapping[str, object]]) -> set[str]:
    return {outcome.split(":")[0] for outcome in caught(node, *tries)}


def test_an_arn_that_is_none_is_a_bad_address(node: Node) -> None:
    ways = ("presign", "agentcore", "oauth")
    tries = [(way, {"arn": arn}) for way in ways for arn in (*BAD_ARNS, None, 7)]
    assert kinds(node, *tries) == {"BadAddress"}


def test_another_region_than_the_arns_is_a_bad_address_that_names_both(node: Node) -> None:
    (outcome,) = caught(node, ("presign", {"arn": ARNS[0], "region": "eu-west-1"}))
    assert outcome.startswith("BadAddress")
    assert "us-west-2" in outcome
    assert "eu-west-1" in outcome


def test_without_credentials_there_is_no_url(node: Node) -> None:
    missing: list[object] = [None, {}, {"accessKeyId": "A"}, {"secretAccessKey": "SECRET"}]
    ways = ("presign", "agentcore")
    tries = [(way, {"arn": ARNS[0], "credentials": keys}) for way in ways for keys in missing]
    assert kinds(node, *tries) == {"NoCredentials"}


def test_a_session_id_has_33_to_256_characters(node: Node) -> None:
    sessions = ["", "short", "s" * 32, "s" * 257, None]
    tries = [("presign", {"arn": ARNS[0], "sessionId": session}) for session in sessions]
    assert kinds(node, *tries) == {"BadAddress"}


def test_a_url_lives_five_minutes_at_most(node: Node) -> None:
    tries = [("presign", {"arn": ARNS[0], "expiresS": seconds}) for seconds in (0, 301, "x")]
    assert kinds(node, *tries) == {"RangeError"}


def test_an_endpoint_that_is_no_url_is_a_bad_address(node: Node) -> None:
    assert kinds(node, ("presign", {"arn": ARNS[0], "endpoint": "x"})) == {"BadAddress"}


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.SECRET"


def test_a_token_that_is_missing_or_expired_asks_for_a_login(node: Node) -> None:
    pool = {"identityPoolId": "us-east-1:1-2-3", "provider": "p"}
    tries: list[tuple[str, dict[str, object]]] = []
    for token in ("", None, 7, jwt(exp=1_600_000_000, name="\u00fc?>")):
        tries.append(("oauth", {"arn": ARNS[0], "token": token}))
        tries.append(("cognito", {**pool, "idToken": token}))
    assert kinds(node, *tries) == {"LoginNeeded"}


def test_an_identity_pool_that_is_none_is_a_bad_address(node: Node) -> None:
    pools = ["", "us-east-1", "nowhere:1-2", "us-east-1:1:2", None]
    assert kinds(node, *[("cognito", {"identityPoolId": pool}) for pool in pools]) == {"BadAddress"}
