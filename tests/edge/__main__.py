"""The stand-in, to try things out by hand: python -m tests.edge."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys

import attrs

from protocol.session import session_id
from tests.edge import Edge, EdgeLimits, HostedRuntime, Issuer

NUMBERS = {
    field.name: field.default
    for field in attrs.fields(EdgeLimits)
    if not isinstance(field.default, bool)
}


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C, after printing what a client needs."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    issuer = Issuer()
    limits = EdgeLimits(**{name: getattr(options, name) for name in NUMBERS})
    runtime = HostedRuntime()
    with contextlib.ExitStack() as stack:
        facts: dict[str, str] = {}
        if options.cognito:
            try:
                from tests.edge.cognito import Cognito  # noqa: PLC0415
            except ImportError:
                sys.exit("python -m tests.edge: --cognito needs moto[server] and boto3")
            facts = stack.enter_context(Cognito(issuer, runtime.region)).settings()
        async with Edge([runtime], issuer.get, limits, port=options.port) as edge:
            keys = issuer.issue()
            mesh = session_id(options.mesh)
            facts |= {
                "endpoint": f"http://127.0.0.1:{edge.port}",
                "runtimeArn": runtime.arn,
                "sessionId": mesh,
                "AWS_ACCESS_KEY_ID": keys.access_key,
                "AWS_SECRET_ACCESS_KEY": keys.secret_key,
                "AWS_SESSION_TOKEN": keys.token or "",
                "url": edge.url_for(keys, mesh),
            }
            sys.stdout.write(json.dumps(facts, indent=2) + "\n")
            sys.stdout.flush()
            await ended.wait()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.edge",
        description="A stand-in for the edge of Amazon Bedrock AgentCore, on this machine only. "
        "Prints, as JSON, where it is, keys made for this run, and a URL signed with them, which "
        "is good for 5 minutes: connect to it with any WebSocket client. One relay is started per "
        "session. Needs botocore.",
    )
    parser.add_argument("--port", type=int, default=8443, help="(default: %(default)s)")
    parser.add_argument("--mesh", default="my mesh", help="whose session the URL is for")
    parser.add_argument(
        "--cognito",
        action="store_true",
        help="with moto's Cognito behind it: a user pool, a user, an identity pool (needs "
        "moto[server] and boto3)",
    )
    for name, default in NUMBERS.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, type=type(default), default=default, help="(default: %(default)s)"
        )
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
