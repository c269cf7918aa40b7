"""What clients and relays agree on behind AgentCore: how a mesh is named, and where a token stands.

AgentCore gives every session id a machine of its own, so peers meet only if they connect with the
same one. All of them compute it from the name of the mesh. The browser module computes the same;
both are tested against the vectors in tests/vectors/session.json.

AgentCore takes `Authorization` for itself. So a token for the relay has a header of its own.
"""

import hashlib
import hmac
import unicodedata
from typing import Final

TOKEN_HEADER: Final = "X-Amzn-Bedrock-AgentCore-Runtime-Custom-Token"
"""AgentCore passes on headers of this prefix, also out of a signed URL's query."""

OAUTH_SUBPROTOCOL: Final = "base64UrlBearerAuthorization"
"""Pages cannot send headers. So they offer this subprotocol, as AgentCore's OAuth has it, and a
second one: this, a dot, and the token in base64url. The server must choose one that was offered, or
the browser closes the connection: it chooses this one, which gives nothing away."""

_LABEL = "agi-diy-relay mesh:"


def session_id(mesh: str, secret: str = "") -> str:
    """The session id of the mesh `mesh`, 69 ASCII characters: the same for the same arguments.

    If you know the name but not the secret, you cannot guess it. It is `mesh-` and, in hexadecimal,
    the HMAC-SHA256 of the name. The key is a fixed label followed by the secret. Both texts are in
    Unicode NFC and UTF-8. Raises ValueError: an empty name, or one that is not proper Unicode.

    >>> session_id("my mesh")
    'mesh-22132cb4a13b21ee6c325fc12d1c454171fbf4fb6daa95f354d1ee6973f8604e'
    """
    if not mesh:
        raise ValueError("a mesh needs a name")
    key, name = (_utf8(_LABEL + secret), _utf8(mesh))
    return "mesh-" + hmac.new(key, name, hashlib.sha256).hexdigest()


def _utf8(text: str) -> bytes:
    try:
        return unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError:
        raise ValueError("a mesh's name and secret must be Unicode, no lone surrogates") from None
