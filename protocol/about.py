"""The version of this project, and which extra installs which package.

The version stands here and nowhere else: pyproject.toml reads it, `python docs/generate.py` writes
it into browser/package.json, and a test compares the changelog with it.
"""

from typing import Final

__version__: Final = "0.1.0"

PLAIN: Final = ("anyio", "attrs", "msgspec", "websockets")
"""The packages that every installation has; a clone without any may lack them."""

_RELAY: Final = (
    *PLAIN,
    "bedrock_agentcore",
    "cryptography",
    "h11",
    "jwt",
    "prometheus_client",
    "sse_starlette",
    "starlette",
    "structlog",
    "uvicorn",
)

EXTRAS: Final = {
    "relay": _RELAY,
    "agentcore": ("bedrock_agentcore", "boto3", "botocore"),
    "backplane": ("nats",),
    "cli": (*PLAIN, "click"),
    "console": (*_RELAY, "click", "httpx"),
    "mcp": (*PLAIN, "click", "mcp"),
    "verification": (*PLAIN, "hypothesis"),
}
"""The packages that a program of ours imports, by the extra that brings them."""


class MissingExtra(ImportError):
    """A package is not installed, and an extra brings it. The text is one sentence that says so."""


def missing_extra(error: ModuleNotFoundError, extra: str, what: str) -> MissingExtra:
    """The error to raise for a package that is not installed: what needs it, and what to install.

    Raises `error` again if the missing module is not one that `extra` brings: then it is a fault.

    >>> str(missing_extra(ModuleNotFoundError(name="uvicorn"), "relay", "the relay"))
    "the relay needs uvicorn, which is not installed: pip install 'agi-diy-relay[relay]'"
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS[extra]:
        raise error
    return MissingExtra(
        f"{what} needs {module}, which is not installed: pip install 'agi-diy-relay[{extra}]'"
    )
