"""What this project says about itself: its version, and which extra brings which package.

The version stands here and nowhere else: pyproject.toml reads it, `python docs/generate.py` writes
it into browser/package.json, and a test compares the changelog with it.
"""

from typing import Final

__version__: Final = "0.1.0"

EXTRAS: Final = {
    "relay": ("bedrock_agentcore", "starlette", "structlog", "uvicorn"),
    "agentcore": ("bedrock_agentcore", "boto3", "botocore"),
    "verification": ("hypothesis",),
}
"""The packages that a program of ours imports and a plain installation does not have, by extra."""


def missing_extra(error: ModuleNotFoundError, extra: str, what: str) -> str:
    """One sentence for a package that is not installed: what needs it, and the extra to install.

    Raises `error` again if the missing module is not one that `extra` brings: then it is a fault.

    >>> missing_extra(ModuleNotFoundError(name="uvicorn"), "relay", "the relay")
    "the relay needs uvicorn, which is not installed: pip install 'agi-diy-relay[relay]'"
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS[extra]:
        raise error
    return f"{what} needs {module}, which is not installed: pip install 'agi-diy-relay[{extra}]'"
