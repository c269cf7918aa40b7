"""The relay as a program: settings, the AgentCore app, the server.

    python relay.py --help            every setting; each is also an environment variable
    agentcore configure --entrypoint relay.py

What this file composes: the protocol's limits, the actor runtime on the real clock, the transports,
and `app`, the ASGI application that AgentCore expects at module level (/ws, /ping, /invocations).
Nothing is made at import but the app itself: the runtime begins with the server.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from actors.host.app import create_app
from actors.host.logs import configure_logging
from actors.host.server import Server, bind, server_config
from actors.host.settings import read_settings

log = logging.getLogger("relay")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the relay until SIGTERM or Ctrl-C. Returns the exit code."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
    configure_logging(settings.log_level)
    try:
        listener = bind(settings)
    except OSError as error:
        # (A failed look-up has numbers of its own, all negative.)
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        where = f"{settings.host}:{settings.port}"
        sys.stderr.write(f"relay.py: cannot listen on {where}: {reason}\n")
        return 1
    app = create_app(settings)
    server = Server(server_config(app, settings), app)

    def stop(*_: object) -> None:
        # Until uvicorn listens to signals. At its end it raises once more those that it took.
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets=[listener])
    return 0


app = create_app(read_settings((), os.environ))

if __name__ == "__main__":
    sys.exit(main())
