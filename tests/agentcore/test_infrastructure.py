"""infrastructure/: what the template allows, that its outputs are enough, the login, the page.

AWS is not here. cfn-lint knows what CloudFormation accepts; moto judges the policy, and its Cognito
gets the resources, property by property (moto's CloudFormation has none of these types). What no
stand-in has: the login page, and the look at the role when credentials are given out.
"""

import base64
import functools
import http.server
import json
import re
import shutil
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from string import Template
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

import jwt
import pytest
from botocore.validate import ParamValidator

from actors.host.settings import read_settings
from actors.host.tokens import grant_of
from tests import ROOT
from tests.worlds.live import PATIENCE_S, LiveRelay

TEMPLATE = ROOT / "infrastructure" / "cognito.yaml"
GUIDE = ROOT / "docs" / "agentcore.md"

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it comes with moto)")

REGION = "eu-central-1"
ACCOUNT = "123456789012"
IDENTITY_POOL = f"{REGION}:00000000-0000-0000-0000-000000000000"
RUNTIMES = f"arn:aws:bedrock-agentcore:{REGION}:{ACCOUNT}:runtime"
RUNTIME = f"{RUNTIMES}/agi_diy_relay-0123456789"
OPEN = "bedrock-agentcore:InvokeAgentRuntimeWithWebSocketStream"
PAGE = "http://localhost:8000/infrastructure/page.html"
PARAMETERS = {
    "RuntimeArn": RUNTIME,
    "Qualifier": "DEFAULT",
    "CallbackUrls": [PAGE],
    "OAuthFlows": ["code"],
}

# Reading the template -----------------------------------------------------------------------------


def load() -> dict[str, Any]:
    """The template, its functions in their long form: {"Ref": name}, {"Fn::Sub": ...}."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined, unused-ignore]
        pass

    def function(loader: Any, name: str, node: Any) -> dict[str, Any]:
        construct = {
            "scalar": loader.construct_scalar,
            "sequence": lambda node: loader.construct_sequence(node, deep=True),
            "mapping": lambda node: loader.construct_mapping(node, deep=True),
        }[node.id]
        return {name if name == "Ref" else f"Fn::{name}": construct(node)}

    Loader.add_multi_constructor("!", function)
    template: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)
    return template


class Stack:
    """The template with its functions worked out, for the resources that exist so far."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        stack_id = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/relay/0a1b2c3d-0000-0000-0000"
        self.template = load()
        self.names: dict[str, Any] = {
            **parameters,
            "AWS::Region": REGION,
            "AWS::StackId": stack_id,
        }

    def value(self, it: Any) -> Any:
        """`it` with every function in it replaced by its result."""
        if isinstance(it, list):
            return [self.value(item) for item in it]
        if not isinstance(it, dict):
            return it
        if len(it) == 1:
            ((name, argument),) = it.items()
            if name == "Ref":
                return self.names[argument]
            if name == "Fn::GetAtt":
                return self.names[argument]
            if name == "Fn::Sub":
                text, more = argument if isinstance(argument, list) else (argument, {})
                names = {**self.names, **self.value(more)}
                return re.sub(r"\$\{([\w:.]+)}", lambda found: names[found[1]], text)
            if name == "Fn::Select":
                return self.value(argument[1])[int(argument[0])]
            if name == "Fn::Split":
                return self.value(argument[1]).split(argument[0])
        return {key: self.value(item) for key, item in it.items()}

    def properties(self, resource: str) -> dict[str, Any]:
        values: dict[str, Any] = self.value(self.template["Resources"][resource]["Properties"])
        return values

    def outputs(self) -> dict[str, str]:
        return {name: self.value(o["Value"]) for name, o in self.template["Outputs"].items()}


def user_role() -> dict[str, Any]:
    stack = Stack(PARAMETERS)
    stack.names["IdentityPool"] = IDENTITY_POOL
    return stack.properties("UserRole")


# The text -----------------------------------------------------------------------------------------


def test_cfn_lint_has_nothing_to_say() -> None:
    cfn_lint = shutil.which("cfn-lint", path=sysconfig.get_path("scripts"))
    if cfn_lint is None:
        pytest.skip("cfn-lint is not installed")
    regions = ("us-east-1", "us-west-2", REGION)
    command = [cfn_lint, "--include-checks", "I", "--regions", *regions, "--", str(TEMPLATE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_the_outputs_are_what_a_page_asks_for() -> None:
    outputs = load()["Outputs"]
    login = {"IdentityPoolId", "Provider", "Issuer", "ClientId", "Domain"}
    assert set(outputs) == {"RuntimeArn", *login}
    page = GUIDE.read_text()
    for name in outputs:
        assert name in page


def test_the_template_names_no_account() -> None:
    assert not re.search(r"\d{12}", TEMPLATE.read_text().replace("2010-09-09", ""))


@pytest.mark.parametrize(
    "arn",
    [
        f"{RUNTIME}/runtime-endpoint/DEFAULT",
        f"{RUNTIMES}/*",
        "*",
        RUNTIME.replace("runtime/", "memory/"),
    ],
)
def test_only_the_arn_of_one_runtime_is_taken(arn: str) -> None:
    pattern = load()["Parameters"]["RuntimeArn"]["AllowedPattern"]
    assert re.fullmatch(pattern, RUNTIME)
    assert not re.fullmatch(pattern, arn)


# What a user may do -------------------------------------------------------------------------------


@pytest.fixture
def allows() -> Callable[[str, str], bool]:
    """May a logged-in user do this with that? By moto's reading of the policy."""
    access = pytest.importorskip("moto.iam.access_control", reason="moto is not installed")
    (policy,) = user_role()["Policies"]
    judge = access.IAMPolicy(json.dumps(policy["PolicyDocument"]))

    def allows(action: str, resource: str) -> bool:
        return bool(
            judge.is_action_permitted(action, resource) is access.PermissionResult.PERMITTED
        )

    return allows


@pytest.mark.parametrize("resource", [RUNTIME, f"{RUNTIME}/runtime-endpoint/DEFAULT"])
def test_a_user_may_open_websockets_on_the_runtime_and_its_endpoint(
    allows: Callable[[str, str], bool], resource: str
) -> None:
    assert allows(OPEN, resource)


@pytest.mark.parametrize(
    "resource",
    [
        f"{RUNTIMES}/another-0123456789",
        f"{RUNTIME}0",
        f"{RUNTIME}/runtime-endpoint/other",
        f"{RUNTIMES}/agi_diy_relay-0123456789/runtime-endpoint/*",
    ],
)
def test_a_user_may_not_on_any_other(allows: Callable[[str, str], bool], resource: str) -> None:
    assert not allows(OPEN, resource)


@pytest.mark.parametrize(
    "action",
    [
        "bedrock-agentcore:InvokeAgentRuntime",
        "bedrock-agentcore:InvokeAgentRuntimeForUser",
        "bedrock-agentcore:InvokeAgentRuntimeWithWebSocketStreamForUser",
        "bedrock-agentcore:InvokeAgentRuntimeCommand",
        "bedrock-agentcore:StopRuntimeSession",
        "bedrock-agentcore:UpdateAgentRuntime",
        "bedrock:InvokeModel",
        "sts:AssumeRole",
    ],
)
def test_a_user_may_do_nothing_else(allows: Callable[[str, str], bool], action: str) -> None:
    assert not allows(action, RUNTIME)
    assert not allows(action, "*")


def test_to_act_for_another_user_is_denied_whatever_else_is_allowed() -> None:
    access = pytest.importorskip("moto.iam.access_control", reason="moto is not installed")
    (policy,) = user_role()["Policies"]
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = policy["PolicyDocument"]
    generous = access.IAMPolicy(
        json.dumps({**document, "Statement": [everything, *document["Statement"]]})
    )
    for action in ("InvokeAgentRuntime", "InvokeAgentRuntimeWithWebSocketStream"):
        plain, other = f"bedrock-agentcore:{action}", f"bedrock-agentcore:{action}ForUser"
        assert generous.is_action_permitted(plain, RUNTIME) is access.PermissionResult.PERMITTED
        assert generous.is_action_permitted(other, RUNTIME) is access.PermissionResult.DENIED


def test_only_logged_in_users_of_this_identity_pool_get_the_role() -> None:
    (statement,) = user_role()["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": "cognito-identity.amazonaws.com"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {"cognito-identity.amazonaws.com:aud": IDENTITY_POOL},
            "ForAnyValue:StringLike": {"cognito-identity.amazonaws.com:amr": "authenticated"},
        },
    }
    stack = Stack(PARAMETERS)
    stack.names |= {"Client": "client", "UserPool.ProviderName": "provider"}
    stack.names |= {"IdentityPool": "pool", "UserRole.Arn": "role"}
    assert stack.properties("RolesOfIdentities")["Roles"] == {"authenticated": "role"}
    pool = stack.properties("IdentityPool")
    assert not pool["AllowUnauthenticatedIdentities"]
    assert not pool["AllowClassicFlow"]


# Deployed to moto ---------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Clients of an empty AWS account in this process."""
    moto = pytest.importorskip("moto", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with moto.mock_aws():
        yield lambda service: boto3.client(service, region_name=REGION)


def deploy(aws: Callable[[str], Any], parameters: dict[str, Any]) -> Stack:
    """Make the resources by the service's own operations, which check names and types.

    All of a resource's properties go to the operation that creates it.
    """
    stack = Stack(parameters)
    users, identities, roles = aws("cognito-idp"), aws("cognito-identity"), aws("iam")

    pool = users.create_user_pool(PoolName="relay", **stack.properties("UserPool"))["UserPool"]
    stack.names["UserPool"] = pool["Id"]
    stack.names["UserPool.ProviderName"] = f"cognito-idp.{REGION}.amazonaws.com/{pool['Id']}"

    client = users.create_user_pool_client(ClientName="page", **stack.properties("Client"))
    stack.names["Client"] = client["UserPoolClient"]["ClientId"]

    domain = stack.properties("LoginDomain")
    users.create_user_pool_domain(**domain)
    stack.names["LoginDomain"] = domain["Domain"]

    identity_pool = identities.create_identity_pool(
        IdentityPoolName="relay", **stack.properties("IdentityPool")
    )
    stack.names["IdentityPool"] = identity_pool["IdentityPoolId"]

    role = stack.properties("UserRole")
    created = roles.create_role(
        RoleName="user",
        Description=role["Description"],
        AssumeRolePolicyDocument=json.dumps(role["AssumeRolePolicyDocument"]),
    )
    stack.names["UserRole.Arn"] = created["Role"]["Arn"]
    for policy in role["Policies"]:
        roles.put_role_policy(
            RoleName="user",
            PolicyName=policy["PolicyName"],
            PolicyDocument=json.dumps(policy["PolicyDocument"]),
        )
    # moto has no SetIdentityPoolRoles: at least the request is a valid one.
    attach = identities.meta.service_model.operation_model("SetIdentityPoolRoles").input_shape
    found = ParamValidator().validate(stack.properties("RolesOfIdentities"), attach)
    assert not found.has_errors(), found.generate_report()
    return stack


def test_with_the_outputs_a_user_logs_in_and_gets_credentials(aws: Callable[[str], Any]) -> None:
    outputs = deploy(aws, PARAMETERS).outputs()
    assert outputs["RuntimeArn"] == RUNTIME
    assert outputs["Domain"] == f"relay-0a1b2c3d-0000-0000-0000.auth.{REGION}.amazoncognito.com"

    users = aws("cognito-idp")
    pool = outputs["Provider"].split("/")[1]
    ann = {"UserPoolId": pool, "Username": "ann@example.com"}
    users.admin_create_user(**ann, MessageAction="SUPPRESS")
    users.admin_set_user_password(**ann, Password="A-long-enough-1", Permanent=True)
    # The login page is not here: its place is taken by a login with the password.
    users.update_user_pool_client(
        UserPoolId=pool,
        ClientId=outputs["ClientId"],
        ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
    )
    token = users.initiate_auth(
        AuthFlow="USER_PASSWORD_AUTH",
        ClientId=outputs["ClientId"],
        AuthParameters={"USERNAME": "ann@example.com", "PASSWORD": "A-long-enough-1"},
    )["AuthenticationResult"]["IdToken"]

    # A relay with the documented settings takes this token, but for its signature.
    (launch,) = re.findall(r"    agentcore launch (--env .*)", GUIDE.read_text())
    filled_in = Template(launch).substitute(ISSUER=outputs["Issuer"], CLIENT_ID=outputs["ClientId"])
    environ = dict(word.split("=", 1) for word in filled_in.split() if word != "--env")
    auth = read_settings([], environ).auth
    assert auth is not None
    claims = jwt.decode(
        token,
        options={"verify_signature": False, "verify_iss": True, "verify_aud": True},
        issuer=auth.issuer,
        audience=auth.audience,
    )
    assert auth.jwks_url == f"https://{outputs['Provider']}/.well-known/jwks.json"
    assert grant_of(claims, auth).peer == "ann@example.com"

    identities = aws("cognito-identity")
    logins = {outputs["Provider"]: token}
    identity = identities.get_id(IdentityPoolId=outputs["IdentityPoolId"], Logins=logins)
    given = identities.get_credentials_for_identity(
        IdentityId=identity["IdentityId"], Logins=logins
    )
    assert {"AccessKeyId", "SecretKey", "SessionToken", "Expiration"} <= set(given["Credentials"])


def test_nobody_makes_an_account_for_themselves(aws: Callable[[str], Any]) -> None:
    pool = deploy(aws, PARAMETERS).outputs()["Provider"].split("/")[1]
    config = aws("cognito-idp").describe_user_pool(UserPoolId=pool)["UserPool"]
    assert config["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"]


@pytest.mark.parametrize("flows", [["code"], ["implicit"], ["code", "implicit"]])
def test_the_page_chooses_the_flow_and_asks_for_openid(
    aws: Callable[[str], Any], flows: list[str]
) -> None:
    outputs = deploy(aws, {**PARAMETERS, "OAuthFlows": flows}).outputs()
    client = aws("cognito-idp").describe_user_pool_client(
        UserPoolId=outputs["Provider"].split("/")[1], ClientId=outputs["ClientId"]
    )["UserPoolClient"]
    assert client["AllowedOAuthFlows"] == flows
    assert client["AllowedOAuthScopes"] == ["openid"]
    assert client["CallbackURLs"] == [PAGE]
    assert "ClientSecret" not in client


# infrastructure/login.js --------------------------------------------------------------------------

LOGIN = """
const visit = (url, answers) => {
  const seen = { went: null, asked: [], shown: null };
  seen.leaves = new Promise((leave) => {
    globalThis.location = Object.assign(new URL(url), { assign: (to) => leave((seen.went = to)) });
  });
  globalThis.history = { replaceState: (_, __, to) => (seen.shown = to) };
  globalThis.fetch = async (to, { method, body }) => {
    seen.asked.push({ to, method, ...Object.fromEntries(body) });
    const [status, answer] = answers.shift();
    return new Response(JSON.stringify(answer), { status });
  };
  return seen;
};
const kept = new Map();
globalThis.sessionStorage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};
let now = 0;
Date.now = () => now;
const { login } = await import(MODULE);
const out = { ClientId: "client", Domain: "login.example" };
const page = PAGE;
const assert = (await import("node:assert")).strict;
const { createHash } = await import("node:crypto");
const refused = [400, { error: "invalid_grant" }];
const given = (id_token, more) => [200, { id_token, expires_in: 3600, ...more }];

// The first visit leaves for the login page, and so does one with somebody else's code.
let seen = visit(page, []);
login(out);
await seen.leaves;
const first = new URL(seen.went);
seen = visit(page + "?code=forged&state=guessed", []);
login(out);
await seen.leaves;
const went = new URL(seen.went);
assert.equal(seen.asked.length, 0);
assert.equal(went.origin + went.pathname, "https://login.example/oauth2/authorize");
const query = Object.fromEntries(went.searchParams);
assert.notEqual(query.state, first.searchParams.get("state"));
const { state, code_challenge, ...rest } = query;
assert.deepEqual(rest, {
  response_type: "code",
  client_id: "client",
  redirect_uri: page,
  scope: "openid",
  code_challenge_method: "S256",
});

// Back from there, the code becomes tokens, for the holder of the verifier.
seen = visit(`${page}?code=abc&state=${state}`, [
  given("one", { refresh_token: "again" }),
  given("two"),
  [503, {}],
  refused,
]);
const idToken = await login(out);
assert.equal(seen.shown, page);
const { code_verifier, ...asked } = seen.asked[0];
assert.deepEqual(asked, {
  to: "https://login.example/oauth2/token",
  method: "POST",
  client_id: "client",
  grant_type: "authorization_code",
  code: "abc",
  redirect_uri: page,
});
assert.equal(createHash("sha256").update(code_verifier).digest("base64url"), code_challenge);

// The token is renewed before it expires, and kept when that is refused.
assert.equal(await idToken(), "one");
now = 3_100_000;
assert.equal(await idToken(), "two");
assert.equal(seen.asked[1].grant_type, "refresh_token");
assert.equal(seen.asked[1].refresh_token, "again");
assert.equal(await idToken(), "two");
now = 6_200_000;
await assert.rejects(idToken(), /503/);
assert.equal(await idToken(), "two");
assert.equal(seen.asked.length, 4);

// What the login page reports is reported, once.
seen = visit(page, []);
login(out);
await seen.leaves;
const asking = new URL(seen.went).searchParams.get("state");
const report = `${page}?error=access_denied&error_description=not+allowed&state=`;
seen = visit(report + asking, []);
await assert.rejects(login(out), /not allowed/);
assert.equal(seen.shown, page);
assert.equal(seen.went, null);
seen = visit(seen.shown, []); // reloaded
login(out);
await seen.leaves;
assert.ok(seen.went);

// What somebody else's link reports is not.
for (const link of [report + asking, report + "guessed", report, `${page}?error=access_denied`]) {
  seen = visit(link, []);
  login(out);
  await seen.leaves;
  assert.ok(seen.went, link);
}

// A code is not taken twice.
seen = visit(`${page}?code=abc&state=${state}`, []);
login(out);
await seen.leaves;
assert.ok(seen.went);
assert.equal(seen.asked.length, 0);
"""


def test_the_login_is_a_code_flow_with_pkce_and_renews_its_token() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    module = "data:text/javascript," + quote((ROOT / "infrastructure" / "login.js").read_text())
    program = LOGIN.replace("MODULE", json.dumps(module)).replace("PAGE", json.dumps(PAGE))
    command = [node, "--input-type=module", "--eval", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# infrastructure/page.html -------------------------------------------------------------------------

TO_OUR_RELAY = """
const Real = WebSocket;
globalThis.WebSocket = class extends Real {
  constructor(url, protocols) {
    const { host, pathname, searchParams } = new URL(url);
    const session = searchParams.get("X-Amzn-Bedrock-AgentCore-Runtime-Session-Id");
    const path = `/runtimes/${encodeURIComponent(RUNTIME)}/ws`;
    if (!searchParams.has("X-Amz-Signature") || host !== HOST || pathname !== path) throw "where?";
    if (searchParams.get("X-Amzn-Bedrock-AgentCore-Runtime-Custom-Token") !== TOKEN) throw "who?";
    super(`ws://127.0.0.1:PORT/ws?mesh=${session}`, protocols);
  }
};
"""


class Site(http.server.SimpleHTTPRequestHandler):
    """The repository, with the outputs of a stack."""

    outputs: ClassVar[dict[str, str]]

    def do_GET(self) -> None:
        if not self.path.endswith("/outputs.json"):
            return super().do_GET()
        items = [{"OutputKey": k, "OutputValue": v} for k, v in self.outputs.items()]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(items).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    stack = Stack(PARAMETERS)
    stack.names |= {"UserPool.ProviderName": "cognito-idp.example/pool", "Client": "client"}
    stack.names |= {"IdentityPool": IDENTITY_POOL, "LoginDomain": "relay"}
    handler = functools.partial(
        type("SiteOfStack", (Site,), {"outputs": stack.outputs()}), directory=str(ROOT)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def id_token(email: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"email": email}).encode()).decode()
    return f"header.{claims.rstrip('=')}.signature"


def play_aws(token: str, route: Any) -> None:
    """The login page, which gives everybody this token, and the identity pool."""
    request = route.request
    url = urlsplit(request.url)
    cors = {"access-control-allow-origin": "*", "access-control-allow-headers": "*"}
    if url.hostname == "localhost":
        route.continue_()
    elif url.path == "/oauth2/authorize":
        query = dict(parse_qsl(url.query))
        back = f"{query['redirect_uri']}?code=abc&state={query['state']}"
        route.fulfill(status=302, headers={"location": back})
    elif url.path == "/oauth2/token":
        tokens = {"id_token": token, "refresh_token": "refresh", "expires_in": 3600}
        route.fulfill(json=tokens, headers=cors)
    elif request.headers.get("x-amz-target", "").endswith(".GetId"):
        route.fulfill(json={"IdentityId": IDENTITY_POOL}, headers=cors)
    elif request.headers.get("x-amz-target", "").endswith(".GetCredentialsForIdentity"):
        assert request.post_data_json["Logins"] == {"cognito-idp.example/pool": token}
        keys = {"AccessKeyId": "key", "SecretKey": "secret", "SessionToken": "token"}
        credentials = {**keys, "Expiration": time.time() + 3600}
        answer = {"IdentityId": IDENTITY_POOL, "Credentials": credentials}
        route.fulfill(json=answer, headers=cors)
    else:
        route.fulfill(status=204, headers=cors)  # a preflight


def test_two_browsers_with_the_page_see_each_other(site: str, live: LiveRelay) -> None:
    """In Chromium, through a relay of this machine; AWS is played inside the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    redirect = (
        TO_OUR_RELAY.replace("RUNTIME", json.dumps(RUNTIME))
        .replace("HOST", json.dumps(f"bedrock-agentcore.{REGION}.amazonaws.com"))
        .replace("PORT", str(live.port))
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def enter(name: str, secret: str) -> Any:
            context = browser.new_context()
            token = id_token(name)
            context.route("**/*", functools.partial(play_aws, token))
            context.add_init_script(redirect.replace("TOKEN", json.dumps(token)))
            page = context.new_page()
            page.goto(f"{site}/infrastructure/page.html")
            shows(page, "#state", "Logged in.")  # back; what was typed before is gone
            playwright.expect(page.locator("#enter [name=id]")).to_have_value(name)
            for field, text in (("mesh", "team"), ("secret", secret)):
                page.fill(f"#enter [name={field}]", text)
            page.click("#enter button")
            return page

        def shows(page: Any, where: str, text: str) -> None:
            playwright.expect(page.locator(where)).to_have_text(text, timeout=PATIENCE_S * 1000)

        ann, bob, eve = enter("\u00e4nn@b", "s"), enter("bob@b", "s"), enter("eve@b", "guess")
        shows(ann, "#state", "\u00e4nn@b in team; also here: bob@b")
        shows(bob, "#state", "bob@b in team; also here: \u00e4nn@b")
        shows(eve, "#state", "eve@b in team; also here: nobody")
        ann.fill("#talk [name=text]", "hello")
        ann.click("#talk button")
        shows(bob, "#heard", '\u00e4nn@b: "hello"')
        shows(eve, "#heard", "")
        browser.close()
