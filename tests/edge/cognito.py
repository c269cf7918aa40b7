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
    """A user pool with one user, and an identity pool that trusts it. A context manager."""

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
        self.password = "Ann-" + secrets.token_hex(8)
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
        self.user_pool_id = pool.create_user_pool(PoolName="edge")["UserPool"]["Id"]
        self.client_id = pool.create_user_pool_client(
            UserPoolId=self.user_pool_id,
            ClientName="page",
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        )["UserPoolClient"]["ClientId"]
        user = {"UserPoolId": self.user_pool_id, "Username": self.username}
        pool.admin_create_user(**user, MessageAction="SUPPRESS")
        pool.admin_set_user_password(**user, Password=self.password, Permanent=True)
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

    def settings(self) -> dict[str, str]:
        """What a page needs to log in here."""
        return {
            "region": self.region,
            "userPoolId": self.user_pool_id,
            "userPoolClientId": self.client_id,
            "identityPoolId": self.identity_pool_id,
            "cognitoEndpoint": self.endpoint,
            "username": self.username,
            "password": self.password,
        }

    def login(self) -> dict[str, str]:
        """The user's tokens: IdToken, AccessToken, RefreshToken."""
        answer = self.client("cognito-idp").initiate_auth(
            ClientId=self.client_id,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": self.username, "PASSWORD": self.password},
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
