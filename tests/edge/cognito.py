"""moto's Cognito on a loopback port, with keys that the edge knows.

moto gives every identity the same made-up keys, without looking at the login. Here the one call in
question, GetCredentialsForIdentity, takes only a login with an ID token of our pool that has not
expired, and gives keys of an `Issuer`. All else is moto's.
"""

import base64
import json
import logging
import secrets
from typing import Any, Final, Self
from unittest import mock

import boto3
from moto.cognitoidentity.responses import CognitoIdentityResponse
from moto.cognitoidp.models import cognitoidp_backends
from moto.core.exceptions import JsonRESTError
from moto.server import ThreadedMotoServer

from actors.clock import Clock, SystemClock
from tests.edge.signing import Issuer

ACCOUNT: Final = "123456789012"  # moto's only one


class Cognito:
    """A user pool with users, and an identity pool that trusts it. A context manager.

    As in infrastructure/cognito.yaml, people log in with their mail address.
    """

    def __init__(
        self,
        issuer: Issuer,
        region: str = "us-west-2",
        clock: Clock | None = None,
        credentials_life_s: float = 3600.0,
    ) -> None:
        self.issuer = issuer
        self.region = region
        self.credentials_life_s = credentials_life_s
        self.username = "ann@example.com"
        self.passwords: dict[str, str] = {}
        """Of every user."""
        self._clock = clock or SystemClock()
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._patch = mock.patch.object(
            CognitoIdentityResponse, "get_credentials_for_identity", self._credentials_for(self)
        )

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request otherwise
        self._server.start()
        self.endpoint = "http://{}:{}".format(*self._server.get_host_and_port())
        self._patch.start()
        pool = self.client("cognito-idp")
        made = pool.create_user_pool(PoolName="edge", UsernameAttributes=["email"])
        self.user_pool_id = made["UserPool"]["Id"]
        self.client_id = pool.create_user_pool_client(
            UserPoolId=self.user_pool_id,
            ClientName="page",
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        )["UserPoolClient"]["ClientId"]
        self.add_user(self.username)
        self.provider = f"cognito-idp.{self.region}.amazonaws.com/{self.user_pool_id}"
        self.identity_pool_id = self.client("cognito-identity").create_identity_pool(
            IdentityPoolName="edge",
            AllowUnauthenticatedIdentities=False,
            CognitoIdentityProviders=[{"ProviderName": self.provider, "ClientId": self.client_id}],
        )["IdentityPoolId"]
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()
        self._server.stop()
        if self._server._server:
            self._server._server.server_close()

    def client(self, service: str) -> Any:
        """A boto3 client of it."""
        session = boto3.Session("unchecked", "unchecked", region_name=self.region)
        return session.client(service, endpoint_url=self.endpoint)

    def add_user(self, username: str) -> None:
        """One more user, with a password of their own."""
        pool = self.client("cognito-idp")
        self.passwords[username] = password = "Aa1-" + secrets.token_hex(8)
        user = {"UserPoolId": self.user_pool_id, "Username": username}
        email = {"Name": "email", "Value": username}
        pool.admin_create_user(**user, UserAttributes=[email], MessageAction="SUPPRESS")
        pool.admin_set_user_password(**user, Password=password, Permanent=True)

    def relay_environ(self) -> dict[str, str]:
        """What a relay needs to check the ID tokens of this pool, as docs/agentcore.md has it.

        The keys are where moto has them; Cognito's are under the issuer.
        """
        return {
            "RELAY_AUTH_JWKS_URL": f"{self.endpoint}/{self.user_pool_id}/.well-known/jwks.json",
            "RELAY_AUTH_ISSUER": f"https://{self.provider}",
            "RELAY_AUTH_AUDIENCE": self.client_id,
            "RELAY_AUTH_PEER_CLAIM": "email",
        }

    def settings(self, username: str | None = None) -> dict[str, str]:
        """What a page needs for a login of this user, or else the first."""
        username = username or self.username
        return {
            "region": self.region,
            "userPoolId": self.user_pool_id,
            "userPoolClientId": self.client_id,
            "identityPoolId": self.identity_pool_id,
            "cognitoEndpoint": self.endpoint,
            "username": username,
            "password": self.passwords[username],
        }

    def login(self, username: str | None = None) -> dict[str, str]:
        """The tokens of this user, or else the first: IdToken, AccessToken, RefreshToken."""
        username = username or self.username
        answer = self.client("cognito-idp").initiate_auth(
            ClientId=self.client_id,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": username, "PASSWORD": self.passwords[username]},
        )
        tokens: dict[str, str] = answer["AuthenticationResult"]
        return tokens

    def is_valid(self, token: str) -> bool:
        """Is this an ID or access token that our pool gave out, and still good?"""
        pool = cognitoidp_backends[ACCOUNT][self.region].user_pools[self.user_pool_id]
        if token not in pool.id_tokens and token not in pool.access_tokens:
            return False
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return bool(claims["exp"] > self._clock.now().wall_ms / 1000)

    @staticmethod
    def _credentials_for(cognito: "Cognito") -> Any:
        def get_credentials_for_identity(self: CognitoIdentityResponse) -> str:
            token = (self._get_param("Logins") or {}).get(cognito.provider, "")
            if not cognito.is_valid(token):
                raise JsonRESTError("NotAuthorizedException", "no valid login")
            expires_ms = round(cognito._clock.now().wall_ms + cognito.credentials_life_s * 1000)
            keys = cognito.issuer.issue(expires_ms)
            answer = {
                "AccessKeyId": keys.access_key,
                "SecretKey": keys.secret_key,
                "SessionToken": keys.token,
                "Expiration": expires_ms / 1000,
            }
            return json.dumps({"IdentityId": self._get_param("IdentityId"), "Credentials": answer})

        return get_credentials_for_identity
